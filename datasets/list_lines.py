"""Lines of list files, and the files that they mean."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Hashable, Iterator, Sequence
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import without_suffix
from segloss.errors import InputError
from segloss.files import composed

HEADERS = ("image", "img", "id", "name", "file", "path", "mask", "label", "annotation", "gt", "split", "stem", "class")
OF_HEADERS = re.compile(rf"[ _.-]*(?:(?:{'|'.join(HEADERS)})(?:e?s|led)?[ _.-]*)+")  # filename, image_path, Labels
NO_HEADER = ("", "Unnamed: 0")  # what pandas writes above the numbers of rows


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
    plain = [composed(PureWindowsPath(text).as_posix()) for text in texts]
    return not any(name in names or without_suffix(name) in names for name in plain)


BETWEEN = re.compile(r"\t+|\s*[,;|]\s*| +")  # the columns of a list; names may hold some too


def columns(line: str) -> Iterator[tuple[str, str]]:
    """A line of a list cut in two, at each place where it may be meant."""
    for found in BETWEEN.finditer(line):
        yield line[: found.start()], line[found.end() :]


def list_lines(path: Path, names: Container[str] = ()) -> list[str]:
    """As ``read_list``; the cells of a CSV file are parted by tabs, without their quotes."""
    lines = read_list(path, names)
    if path.suffix.lower() != ".csv":
        return lines
    delimiter = max(",;\t|", key=lines[0].count)
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True)
    return ["\t".join(cell.strip() for cell in row).strip() for row in _without_index([*rows], names)]


def _without_index(rows: list[list[str]], names: Container[str]) -> list[list[str]]:
    """Rows without pandas' column of their numbers, which are the names of no images."""
    if any(len(row) < 2 for row in rows):
        return rows
    headed, numbers = rows[0][0].strip() in NO_HEADER, [row[0].strip() for row in rows]
    counts = all(map(str.isdigit, numbers[1:])) if headed else numbers == [*map(str, range(len(rows)))]
    is_index = counts and not any(number in names for number in numbers)
    return [row[1:] for row in rows] if is_index else rows


def is_header(line: str) -> bool:
    """Whether the cells of a line are made of words that stand above columns, and of nothing else.

    >>> is_header("image_path,mask"), is_header("img_1 mask_1"), is_header("video")
    (True, False, False)
    """
    return all(OF_HEADERS.fullmatch(cell.lower()) for cell in BETWEEN.split(line))


def rebased(root: Path, text: str, beside: Path | None = None) -> Path | None:
    """A file of a list below ``root``, whatever prefix its writer had; None for one that lies outside.

    ``..`` is followed from ``root`` and from the list's folder ``beside``; behind it a bare name is no file of ours.
    """
    plain = text.strip().strip("\"'")
    forms = dict.fromkeys((plain, composed(plain), unicodedata.normalize("NFD", plain)))  # a Mac's is NFD
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
