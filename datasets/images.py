"""Image files: found, measured, decoded, and refused where they are damaged."""

import mmap
import os
import stat
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np

from segloss.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
OTHER_PICTURES = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".heic", ".heif", ".avif", ".jxl", ".ppm", ".pgm", ".pnm", ".tga"),
    *(".exr", ".hdr", ".psd", ".dng", ".cr2", ".nef", ".arw"),
)  # that are not read, and so named
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
WEBP_STARTS = (b"RIFF", b"WEBP")  # with the length of the rest in between
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ENDING = 1024  # bytes at a file's end in which its end mark mostly lies; some cameras write a little behind it


def image_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Image files (or of other endings) below a folder, those of each folder sorted; hidden ones are left out."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield _printable(Path(parent, name))


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
        # Macs write an umlaut as two characters, others as one.
        key = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise InputError(f"same stem as {found[key].name}", "keep one of the two", path)
        found[key] = path
    return found


def without_suffix(name: str) -> str:
    """A name without the ending of an image file; other dots stay."""
    return name.rsplit(".", 1)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name


def unreadable(path: Path, error: Exception | None = None) -> InputError:
    if isinstance(error, OSError) and error.strerror:  # of the system, not of the decoder
        return InputError(f"cannot be read: {error.strerror}", "restore the file or mend the link", path)
    return damaged(path, "is not a readable image")


def too_large(path: Path, decoder: str) -> InputError:
    cure = "save it as tiled TIFF, which eval_seg.py --tile reads by windows, or cut it"
    return InputError(f"has more pixels than {decoder}", cure, path)


def damaged(path: Path, how: str) -> InputError:
    return InputError(how, "replace the file or remove it with its partner", path)


def read_file(path: Path, flags: int) -> np.ndarray:
    """Decoded by OpenCV; InputError for what is no image, cut off or, as far as the format can tell, damaged."""
    data = read_bytes(path)
    require_whole(path, data)
    alpha = (data.startswith(PNG_START) and data[25] in (4, 6)) or is_webp(data)
    alpha = alpha and flags == cv2.IMREAD_COLOR
    try:
        decoded = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if alpha else flags) if data else None
        )
    except cv2.error as error:  # more pixels than it takes
        raise too_large(path, "OpenCV decodes") from error
    if alpha and decoded is not None and decoded.shape[2:] != (3,):
        return _without_alpha(decoded, path)
    if decoded is None:
        if data and not data.startswith(PNG_START) and is_deep(path):  # PNG of 16 bits is read
            raise InputError("has pixels of more than 8 bits, which cannot be read here", "save it as 8-bit RGB", path)
        raise unreadable(path)
    return decoded


def read_bytes(path: Path) -> bytes:
    """The file's content; InputError where it cannot be read, or is a pipe, which would be waited for."""
    with _regular(path) as file:
        return file.read()  # not cv2.imread: it cannot open every path on Windows


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is no regular file", "replace it by an image", path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def _without_alpha(decoded: np.ndarray, path: Path) -> np.ndarray:
    """Blue, green and red of four bands; InputError unless the fourth is full everywhere and so says nothing."""
    if (decoded[..., 3] != np.iinfo(decoded.dtype).max).any():
        raise not_rgb(path, decoded.shape[2])
    return decoded[..., :3] if decoded.dtype == np.uint8 else (decoded[..., :3] >> 8).astype(np.uint8)


def not_rgb(path: Path, count: int) -> InputError:
    return InputError(f"has {count} bands, of which images here have 1 or 3", "save its red, green and blue", path)


def tiff_tags(path: Path) -> "dict[int, Any] | None":
    """The tags of a TIFF file's first page; None for other formats; InputError for several pages of pictures."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    pages: list[dict[int, Any]] = []
    with _regular(path) as file:
        start = file.read(16)
        if start[:4] not in TIFF_STARTS:
            return None
        try:
            ifd: Any = ImageFileDirectory_v2(start[: 16 if b"+" in start[2:4] else 8])
            seen: set[int] = set()
            while ifd.next and ifd.next not in seen:
                seen.add(ifd.next)
                file.seek(ifd.next)
                ifd.load(file)
                if not int(ifd.get(254, 0)) & 5 or not pages:  # neither a smaller copy nor a transparency mask
                    pages.append(dict(ifd))
        except Exception as error:  # whatever Pillow meets in a damaged file
            raise unreadable(path) from error
    if not pages:
        raise unreadable(path)
    if len(pages) > 1:
        raise InputError(f"has {len(pages)} pages, of which one is read", "save each page as a file of its own", path)
    return pages[0]


def _read_tiff(path: Path, tags: "dict[int, Any]") -> np.ndarray:
    """uint8 RGB. Pillow refuses damaged data, of which OpenCV hands out a half; what Pillow cannot read OpenCV does."""
    bands = int(tags.get(277, 1))
    if bands not in (1, 3, 4):
        raise not_rgb(path, bands)
    if is_deep(path) or tags.get(284, 1) != 1:  # planes one after the other
        if bands == 4:
            raise not_rgb(path, bands)
        return cv2.cvtColor(read_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    with opened(path) as picture:
        if picture.mode in ("RGBA", "RGBX") and (np.asarray(picture)[..., 3] != 255).any():
            raise not_rgb(path, bands)
        return np.array(picture.convert("RGB"))


def require_whole(path: Path, data: bytes | mmap.mmap) -> None:
    """InputError for a PNG with a wrong checksum or without its end, and for a JPEG or WebP without its end.

    Decoders fill what is missing with grey or zeros, which is the id of a class. A JPEG has no checksums: a changed
    byte in the middle of one cannot be told from a picture.
    """
    if data[: len(PNG_START)] == PNG_START:
        at = len(PNG_START)
        while at + 12 <= len(data):
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            end = at + 8 + length
            if end + 4 > len(data):
                break
            if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise damaged(path, "is damaged (a PNG checksum is wrong)")
            if kind == PNG_END:
                return
            at = end + 4
        raise damaged(path, "is cut off")
    if is_webp(data):
        if len(data) < webp_length(data):
            raise damaged(path, "is cut off")
        if b"ANIM" in webp_chunks(data):
            raise InputError("is an animation, of which one picture is read", "save each as a file of its own", path)
    if data[: len(JPEG_START)] == JPEG_START and data.find(JPEG_END, _scan(data)) < 0:
        raise damaged(path, "is cut off")


def is_webp(data: bytes | mmap.mmap) -> bool:
    return (data[:4], data[8:12]) == WEBP_STARTS


def webp_length(start: bytes | mmap.mmap) -> int:
    """Of the whole file, as its first bytes say."""
    return 8 + int.from_bytes(start[4:8], "little")


def webp_chunks(data: bytes | mmap.mmap) -> list[bytes]:
    """The kinds of a WebP file's parts: ``VP8L`` is a picture without loss, ``VP8 `` one with."""
    found, at = [], 12
    while at + 8 <= len(data):
        found.append(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return found


def _scan(data: bytes | mmap.mmap) -> int:
    """Where a JPEG's picture begins: behind the headers, one of which may hold a whole thumbnail, end mark and all.

    In the picture the end mark stands for nothing else. Behind it anything may follow, as a film of some telephones.
    """
    at = len(JPEG_START)
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # SOS, start of scan
        filler = data[at + 1 : at + 2] == b"\xff"
        at += 1 if filler else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) from the file's header, turned as its EXIF orientation says; InputError if it is no image."""
    height, width, orientation = read_header(path)
    return (width, height) if orientation >= 5 else (height, width)  # 5-8 swap the sides


def read_header(path: Path) -> tuple[int, int, int]:
    """Height and width as stored, and the EXIF orientation (1: upright); InputError if it is no image."""
    with opened(path, decode=False) as picture:
        # Pillow decodes a whole PNG to look for what may stand behind its picture.
        exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
        turn = exif.get(0x0112, 1)
        height, width = picture.size if picture.format == "TIFF" and turn >= 5 else picture.size[::-1]  # turned already
        return height, width, turn


def is_deep(path: Path) -> bool:
    """Whether an image has more than 8 bits a channel."""
    with path.open("rb") as file:
        start = file.read(25)
    if start.startswith(PNG_START):
        return start[24] == 16
    with opened(path, decode=False) as picture:
        bits = getattr(picture, "tag_v2", {}).get(258, (8,))  # TIFF's BitsPerSample
        return picture.mode.startswith(("I", "F")) or max(bits) > 8


_NO_LIMIT = threading.Lock()  # Pillow's limit is one for all threads


@contextmanager
def opened(path: Path, *, decode: bool = True) -> "Iterator[Image]":
    """The file by Pillow, its header read only; InputError if it is no image, or too large to ``decode``."""
    from PIL import Image

    if not path.is_file():
        read_bytes(path)  # says why
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are no attack here
            with path.open("rb") as file, (Image.open if decode else _header)(file) as picture:
                yield picture
    except InputError:  # of the caller's
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path, "Pillow opens") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error


def _header(file: BinaryIO) -> "Image":
    """As ``Image.open``, of an image of any size."""
    from PIL import Image

    with _NO_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def has_end(path: Path) -> bool:
    """Whether a JPEG's or PNG's end mark is where it mostly is, and a WebP as long as it says; True for other formats.

    Reads both ends only.
    """
    with path.open("rb") as file:
        start = file.read(12)
        if is_webp(start):
            return path.stat().st_size >= webp_length(start)
        start = start[: len(PNG_START)]
        file.seek(max(0, path.stat().st_size - ENDING))
        end = file.read()
    mark = PNG_END if start == PNG_START else JPEG_END if start.startswith(JPEG_START) else b""
    return mark in end


def read_image(path: Path) -> np.ndarray:
    """uint8 ``(H, W, 3)`` RGB from any 8-bit image file; InputError for more bands or pages than that can hold."""
    if path.suffix.lower() in (".tif", ".tiff") and (tags := tiff_tags(path)) is not None:
        return _read_tiff(path, tags)
    return cv2.cvtColor(read_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
