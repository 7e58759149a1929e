"""Image files found: which endings count, what is hidden, what a file is called without its ending."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from segloss.errors import InputError
from segloss.files import composed

ARRAYS = ".npy"
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_SUFFIXES = (*PICTURES, ARRAYS)
OTHER_PICTURES = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".heic", ".heif", ".avif", ".jxl", ".ppm", ".pgm", ".pnm", ".tga"),
    *(".exr", ".hdr", ".psd", ".dng", ".cr2", ".nef", ".arw"),
)  # that are not read, and so named
OF_DISKS = ("lost+found", "System Volume Information")  # at the top of a disk, which nobody may read

# Pictures of an evaluation whose --output-dir is, or lies in, a folder of masks.
RESULTS, OF_RESULTS = "metrics.json", re.compile(r"(confusion-.+|reliability|sweep)\.png")


def walk(folder: Path, *, links: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, from the top, without hidden folders, those of each sorted.

    Raises:
        InputError: a folder cannot be read, whose files would be passed over.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # what is not there holds nothing
            what = f"this folder cannot be read: {error.strerror}"
            raise InputError(what, "mend its rights or its drive, or move it away", error.filename) from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=links):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in OF_DISKS)
        yield parent, folders, files


def image_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Image files (or of other endings) below a folder, those of each folder sorted; hidden ones are left out.

    So are the pictures that an evaluation wrote beside its metrics.json.

    Arrays are images only where there are no others: beside pictures they are something that was made of these.
    """
    seen: set[str] = set()
    arrays: list[Path] = []
    pictures = False
    for parent, folders, files in walk(folder, links=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it
            folders[:] = []
            continue
        seen.add(real)
        if RESULTS in files:
            files = [name for name in files if not OF_RESULTS.fullmatch(name)]
        for name in sorted(files):
            if not name.lower().endswith(suffixes) or name.startswith("."):
                continue
            if suffixes == IMAGE_SUFFIXES and name.lower().endswith(ARRAYS):
                arrays.append(Path(parent, name))
                continue
            pictures = True
            yield _printable(Path(parent, name))
    yield from () if pictures else map(_printable, arrays)


def _printable(path: Path) -> Path:
    """The path; InputError for a name that no text can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError("has a name that is not UTF-8", "rename it", shown) from error
    return path


def list_images(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files below a folder by name without suffix (``a``, ``city/a``), sorted; InputError for two of one name."""
    found: dict[str, Path] = {}
    for path in image_files(folder, suffixes):
        key = composed(path.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise InputError(f"same stem as {found[key].name}", "keep one of the two", path)
        found[key] = path
    return found


def without_suffix(name: str) -> str:
    """A name without the ending of an image file; other dots stay."""
    return name.rsplit(".", 1)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name
