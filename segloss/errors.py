"""The one exception for input that a user can mend: commands print it as one line and exit with status 2."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """A file, folder, flag or name does not fit.

    >>> print(InputError("is cut off", "replace the file", where="a.png"))
    a.png: is cut off; replace the file

    Args:
        what: does not fit, and what would.
        cure: what to do about it.
        where: the file, folder or flag that is at fault.
    """

    def __init__(self, what: str, cure: str = "", where: str | Path | None = None):
        super().__init__(what, cure, where)  # all of it, so that a copy from another process is the same
        self.what, self.cure, self.where = what, cure, where

    def __str__(self) -> str:
        place = "" if self.where is None else f"{self.where}: "
        return f"{place}{self.what}" + (f"; {self.cure}" if self.cure else "")


def unknown_name(kind: str, name: str, known: Iterable[object], where: str | Path | None = None) -> InputError:
    """``InputError`` for a name outside a list, with the list: ``unknown loss 'foo'; choose one of ce, mse``.

    >>> print(unknown_name("encoder", "ResNet-18", ["mit_b0", "resnet18"]))
    unknown encoder 'ResNet-18'; choose one of mit_b0, resnet18; did you mean resnet18?
    """

    def plain(word: str) -> str:  # deeplabv3+ is deeplabv3plus, resnet-34 is resnet34
        return "".join(filter(str.isalnum, word.lower().replace("+", "plus")))

    names = [str(each) for each in known]
    by_plain = {plain(each): each for each in names}
    near = get_close_matches(plain(name), by_plain, 1, 0.8)
    hint = f"; did you mean {by_plain[near[0]]}?" if near else ""
    return InputError(f"unknown {kind} {name!r}", f"choose one of {', '.join(names)}{hint}", where)


def cure_of_black_and_white(names: Sequence[str]) -> str:
    """What to do about masks of 0 and 255 whose second class is ignored: the class file to write, word by word.

    >>> print(cure_of_black_and_white(["wall", "crack"]))
    give the second class id: 255 in the class file, classes.yaml: {"wall": 0, "crack": 255}; or save masks as 0 and 1
    """
    first, second = (*names, "background", "other")[:2]
    content = json.dumps({first: 0, second: 255}, ensure_ascii=False)
    return f"give the second class id: 255 in the class file, classes.yaml: {content}; or save masks as 0 and 1"


def exit_on_input_error(command: Callable[[], None]) -> None:
    """Run a command; an InputError becomes one line on stderr and exit status 2, Ctrl-C exit status 130.

    So does an OSError: a disk that is full or a folder that may not be written is the user's to mend too.
    """
    try:
        command()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
