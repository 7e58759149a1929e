"""Lines of list files, and the files that they mean."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Hashable, Iterator, Sequence
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import without_suffix
from segloss.errors import InputError


def read_list(path: Path, names: Container[str] = ()) -> list[str]:
    """The lines of a list file, in UTF-8 or UTF-16, without empty ones and comments; InputError if none is left.

    ``names`` are those of images, some of which may begin as comments do.
    """
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    lines = [line.strip() for line in content.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not is_comment(line, names)]
    if not lines:
        raise InputError("lists nothing", "write one name, or image and mask, a line", path)
    return lines


def is_comment(line: str, names: Container[str]) -> bool:
    """Whether a line begins with # and is neither the name of an image nor one and a mask's that begins so too."""
    if not line.startswith("#"):
        return False
    texts = [line, *(image for image, mask in columns(line) if mask.startswith("#"))]
    plain = [unicodedata.normalize("NFC", PureWindowsPath(text).as_posix()) for text in texts]
    return not any(name in names or without_suffix(name) in names for name in plain)


BETWEEN = re.compile(r"\t+|\s*[,;|]\s*| +")  # the columns of a list; names may hold some too


def columns(line: str) -> Iterator[tuple[str, str]]:
    """A line of a list cut in two, at each place where it may be meant."""
    for found in BETWEEN.finditer(line):
        yield line[: found.start()], line[found.end() :]


def rebased(root: Path, text: str, beside: Path | None = None) -> Path | None:
    """A file of a list below ``root``, whatever prefix its writer had; None for one that lies outside.

    ``..`` is followed from ``root`` and from the list's folder ``beside``; behind it a bare name is no file of ours.
    """
    plain = text.strip().strip("\"'")
    forms = dict.fromkeys((plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))))  # a Mac's is NFD
    return next((path for form in forms if (path := _rebased(root, PureWindowsPath(form), beside)) is not None), None)


def _rebased(root: Path, given: PureWindowsPath, beside: Path | None) -> Path | None:
    parts = given.parts
    above = max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0)
    inside = os.path.normpath(root.absolute())
    for start in (root, beside or root) if above else ():
        path = Path(os.path.normpath(start.absolute().joinpath(*parts)))
        if path.is_file():
            return root / path.relative_to(inside) if path.is_relative_to(inside) else None
    for first in range(above or bool(given.anchor), len(parts) - bool(above)):
        path = root.joinpath(*parts[first:])
        if path.is_file():
            return path
    return None


def refuse_twice(path: Path, listed: Sequence[Hashable]) -> None:
    """InputError if a list file names an image twice."""
    twice = next((image for image, count in Counter(listed).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"listed twice in {path}", "remove one of the lines", str(twice))
