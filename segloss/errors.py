"""The one exception for input that a user can mend: commands print it as one line and exit with status 2."""

import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning"]
LISTED = 24  # names that a message tells one by one


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


@dataclass(frozen=True)
class Finding:
    """One fault of a split, or of a folder of masks."""

    severity: Severity
    split: str
    fault: InputError

    def __str__(self) -> str:
        return f"{self.split}: {self.fault}"


def refuse_errors(findings: Sequence[Finding], listed_by: str) -> None:
    """InputError for the first error, with how many more there are and the command that lists them."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: {listed_by} lists all)" if len(errors) > 1 else ""
        split, first = errors[0].split, errors[0].fault
        where = split if first.where is None else f"{split}: {first.where}"
        raise InputError(f"{first.what}{more}", first.cure, where)


def unknown_name(
    kind: str, name: str, known: Iterable[object], where: str | Path | None = None, meant: str | None = None
) -> InputError:
    """``InputError`` for a name outside a list, with the list: ``unknown loss 'foo'; choose one of ce, mse``.

    Of a list of more than ``LISTED`` names those are told that resemble it. ``meant`` is what it is called here, where
    that is known.

    >>> print(unknown_name("encoder", "ResNet-18", ["mit_b0", "resnet18"]))
    unknown encoder 'ResNet-18'; choose one of mit_b0, resnet18; did you mean resnet18?
    """

    def plain(word: str) -> str:  # deeplabv3+ is deeplabv3plus, resnet-34 is resnet34
        return "".join(filter(str.isalnum, word.lower().replace("+", "plus")))

    names = [str(each) for each in known]
    by_plain = {plain(each): each for each in names}
    near = get_close_matches(plain(name), by_plain, 1, 0.8)
    meant = meant or (by_plain[near[0]] if near else None)
    hint = f"; did you mean {meant}?" if meant else ""
    if len(names) > LISTED:
        resembling = get_close_matches(plain(name), by_plain, LISTED // 2, 0.4)
        some = [by_plain[each] for each in resembling] or names[: LISTED // 2]
        told = [name for name in names if " " in name and name not in some]  # what is no name, but says more
        names = [*some, f"... ({len(names)} in all)", *told]
    return InputError(f"unknown {kind} {name!r}", f"choose one of {', '.join(names)}{hint}", where)


def cure_of_black_and_white(names: Sequence[str]) -> str:
    """What to do about masks of 0 and 255 whose second class is ignored: the class file to write, word by word.

    >>> print(cure_of_black_and_white(["wall", "crack"]))
    give the second class id: 255 in the class file, classes.yaml: {"wall": 0, "crack": 255}; or save masks as 0 and 1
    """
    first, second = (*names, "background", "other")[:2]
    content = json.dumps({first: 0, second: 255}, ensure_ascii=False)
    return f"give the second class id: 255 in the class file, classes.yaml: {content}; or save masks as 0 and 1"


class Terminated(KeyboardInterrupt):
    """SIGTERM, where :func:`sigterm_interrupts` is in force."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends what is within as Ctrl-C does, by an exception, so that it can say how to go on."""

    def hear(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: set by what is no Python


def told(error: BaseException) -> tuple[str, int]:
    """The one line on what a user can mend, and the exit status: 2, of Ctrl-C 130, of SIGTERM 143.

    An OSError is one: a disk that is full or a folder that may not be written is the user's to mend too.

    >>> told(InputError("is cut off", "replace the file", where="a.png"))
    ('error: a.png: is cut off; replace the file', 2)
    """
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted", 143 if isinstance(error, Terminated) else 130
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}", 2
    return f"error: {' '.join(str(error).split())}", 2


def escape_what_cannot_be_written() -> None:
    r"""Let stdout write as ``\xe9`` what its encoding has no sign for, as stderr does, where it would raise."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    is_utf = sys.stdout.encoding.lower().startswith("utf")  # its surrogateescape writes all that there is
    if sys.stdout.errors == "strict" or (sys.stdout.errors == "surrogateescape" and not is_utf):
        sys.stdout.reconfigure(errors="backslashreplace")


def exit_on_input_error(command: Callable[[], None]) -> None:
    """Run a command; an InputError, an OSError or Ctrl-C becomes one line on stderr and its exit status."""
    escape_what_cannot_be_written()
    try:
        command()
    except (InputError, OSError, KeyboardInterrupt) as error:
        line, status = told(error)
        print(line, file=sys.stderr)
        sys.exit(status)
