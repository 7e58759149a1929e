"""Image files: found, measured, decoded, and refused where they are damaged."""

import logging
import math
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
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from segloss.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = ".npy"
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_SUFFIXES = (*PICTURES, ARRAYS)
OTHER_PICTURES = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".heic", ".heif", ".avif", ".jxl", ".ppm", ".pgm", ".pnm", ".tga"),
    *(".exr", ".hdr", ".psd", ".dng", ".cr2", ".nef", ".arw"),
)  # that are not read, and so named
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_FRAMES, PNG_END = b"\x89PNG\r\n\x1a\n", b"acTL", b"IEND"
WEBP_STARTS = (b"RIFF", b"WEBP")  # with the length of the rest in between
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEFLATE = (8, 32946)  # of the tag of a TIFF's compression
BMP_OF_FOUR = (b"BM", b" \0")  # with the bits of a pixel, 32
NPY_START = b"\x93NUMPY"
FLIPS = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # EXIF orientation: axes; from 5 on transposed first
MASK_PAGE = -1  # among the tags of a TIFF: the page that says where its picture holds something
ENDING = 1024  # bytes at a file's end in which its end mark mostly lies; some cameras write a little behind it


def image_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Image files (or of other endings) below a folder, those of each folder sorted; hidden ones are left out.

    Arrays are images only where there are no others: beside pictures they are something that was made of these.
    """
    seen: set[str] = set()
    arrays: list[Path] = []
    pictures = False
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
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


def read_file(path: Path, flags: int, *, upright: bool = False) -> np.ndarray:
    """Decoded by OpenCV; InputError for what is no image, cut off or, as far as the format can tell, damaged.

    With ``upright`` also for what is turned by its EXIF orientation.
    """
    data = read_bytes(path)
    require_whole(path, data)
    has_exif = b"eXIf" in data or (is_webp(data) and b"EXIF" in webp_chunks(data))
    if upright and has_exif:
        require_upright(path)
    bmp = (data[:2], data[28:30]) == BMP_OF_FOUR
    alpha = (data.startswith(PNG_START) and data[25] in (4, 6)) or is_webp(data) or bmp
    alpha = alpha and flags == cv2.IMREAD_COLOR
    try:
        decoded = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if alpha else flags) if data else None
        )
    except cv2.error as error:  # more pixels than it takes
        raise too_large(path, "OpenCV decodes") from error
    if alpha and decoded is not None and has_exif:
        decoded = np.ascontiguousarray(turned(decoded, read_header(path).turn))  # OpenCV does it where it reads colours
    if bmp and alpha and decoded is not None and (decoded[..., 3:] == decoded[:1, :1, 3:]).all():
        return np.ascontiguousarray(decoded[..., :3])  # the fourth is most often unused
    if alpha and decoded is not None and decoded.shape[2:] != (3,):
        return _without_alpha(decoded, path)
    if decoded is None:
        raise unreadable(path)
    return decoded


def require_upright(path: Path) -> None:
    """InputError for what is turned by its EXIF orientation."""
    if read_header(path).turn != 1:
        raise InputError("is turned by its EXIF orientation", "save it upright, as PNG without that tag", path)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """The file; InputError where it cannot be read, or is a pipe, which would be waited for."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is no regular file", "replace it by an image", path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """The file's content; InputError as :func:`open_file`."""
    with open_file(path) as file:  # not cv2.imread: it cannot open every path on Windows
        return file.read()


def _without_alpha(decoded: np.ndarray, path: Path) -> np.ndarray:
    """Blue, green and red of four bands; InputError unless the fourth is full everywhere and so says nothing."""
    if (decoded[..., 3] != np.iinfo(decoded.dtype).max).any():
        raise not_rgb(path, decoded.shape[2])
    return decoded[..., :3] if decoded.dtype == np.uint8 else (decoded[..., :3] >> 8).astype(np.uint8)


def not_rgb(path: Path, count: int) -> InputError:
    cure = f"save its red, green and blue, or train on all with --channels {count}"
    return InputError(f"has {count} bands, of which images here have 1 or 3", cure, path)


def tiff_tags(path: Path) -> dict[int, Any] | None:
    """The tags of a TIFF file's first page, whatever its name; None for other formats.

    Raises:
        InputError: it has several pages of pictures.
    """
    with open_file(path) as file:
        start = file.read(16)
        if start[:4] not in TIFF_STARTS:
            return None
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        pages: list[dict[int, Any]] = []
        masks: list[int] = []
        try:
            ifd: Any = ImageFileDirectory_v2(start if b"+" in start[2:4] else start[:8])
            seen: set[int] = set()
            while ifd.next and ifd.next not in seen:
                seen.add(ifd.next)
                file.seek(ifd.next)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what is damaged is refused
                    ifd.load(file)
                kind = int(ifd.get(254, 0)) & 5
                if not kind or not pages:  # neither a smaller copy nor a transparency mask
                    pages.append(dict(ifd))
                elif kind == 4:
                    masks.append(len(seen) - 1)
        except Exception as error:  # whatever Pillow meets in a damaged file
            raise unreadable(path) from error
    if not pages:
        raise unreadable(path)
    if len(pages) > 1:
        cure = "save each page as a file of its own, or all as bands of one page"
        raise InputError(f"has {len(pages)} pages, of which one is read", cure, path)
    return pages[0] | ({MASK_PAGE: masks[0]} if masks else {})


def _read_tiff(path: Path, tags: dict[int, Any]) -> np.ndarray:
    """uint8 RGB. Pillow and tifffile refuse damaged data, of which OpenCV hands out a half."""
    bands = int(tags.get(277, 1))
    if bands not in (1, 3, 4):
        raise not_rgb(path, bands)
    unnamed = bands > 1 and tags.get(262) in (0, 1)  # as GDAL writes bands that are no colours
    if _is_deep_tiff(tags) or unnamed or tags.get(284, 1) != 1:  # planes one after the other
        pixels = tiff_pixels(path, tags)
        if pixels.shape[2] == 4:
            if pixels.dtype.kind != "u" or (pixels[..., 3] != np.iinfo(pixels.dtype).max).any():
                raise not_rgb(path, bands)
            pixels = pixels[..., :3]
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        if pixels.dtype != np.uint8:
            raise InputError("has pixels of more than 8 bits, which cannot be read here", "save it as 8-bit RGB", path)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    require_checksums(path, tags)
    with opened(path) as picture:
        four = np.asarray(picture) if picture.mode in ("RGBA", "RGBX") else None
        if bands == 4 and picture.mode == "RGB":  # of which Pillow drops the fourth
            four = tiff_pixels(path, tags)
        if four is not None and (four[..., 3] != 255).any():
            raise not_rgb(path, bands)
        return np.array(picture.convert("RGB"))


def _is_deep_tiff(tags: dict[int, Any]) -> bool:
    return bool(max(tags.get(258, (1,))) > 8)


def require_checksums(path: Path, tags: dict[int, Any]) -> None:
    """InputError where a strip or tile of deflate has a wrong checksum, which Pillow does not look at."""
    if tags.get(259) not in DEFLATE:
        return
    starts, lengths = (np.atleast_1d(tags.get(tag, tags.get(tiled, ()))) for tag, tiled in ((273, 324), (279, 325)))
    with open_file(path) as file:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=False):
            file.seek(start)
            try:
                zlib.decompress(file.read(length))
            except zlib.error as error:
                raise damaged(path, "is damaged (a checksum of deflate is wrong)") from error


def tiff_pixels(path: Path, tags: dict[int, Any], place: int = 0) -> np.ndarray:
    """``(H, W, N)`` upright, in the file's own dtype; InputError for damaged data, or what tifffile cannot decode.

    ``place`` is that of the page, ``tags`` are its own.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError("needs tifffile to be read", "pip install tifffile imagecodecs", path) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of every tag that it does not know
    try:
        with open_file(path) as content, tifffile.TiffFile(content) as file:
            page: Any = file.pages[place]
            if not len(page.dataoffsets) == len(page.databytecounts) == math.prod(page.chunked):
                raise damaged(path, "is damaged (strips are missing)")
            pixels = np.asarray(page.asarray(maxworkers=1))
            axes = page.axes
    except InputError:
        raise
    except Exception as error:  # tifffile and each codec raise their own kinds
        if "imagecodecs" in str(error):
            what = "is compressed in a way that needs imagecodecs"
            raise InputError(what, "pip install imagecodecs", path) from error
        raise unreadable(path, error) from error
    if axes not in ("YX", "YXS", "SYX"):
        raise InputError(f"has the axes {axes}, of which images are YX, YXS or SYX", "save each plane as a file", path)
    pixels = np.moveaxis(pixels, 0, 2) if axes == "SYX" else pixels.reshape(*pixels.shape[:2], -1)
    pixels = turned(pixels, int(tags.get(274, 1)))
    return np.invert(pixels) if tags.get(262) == 0 and pixels.dtype.kind == "u" else pixels  # WhiteIsZero


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Pixels ``(H, W, ...)`` as they are shown, by their EXIF orientation."""
    shown: np.ndarray = np.flip(pixels.swapaxes(0, 1) if turn >= 5 else pixels, FLIPS.get(turn, ()))
    return shown


def tiff_gaps(path: Path, tags: dict[int, Any]) -> np.ndarray | None:
    """Where GDAL's mask of an image, a page of it or ``NAME.tif.msk``, says that there is nothing, ``(H, W, 1)``."""
    if MASK_PAGE in tags:
        return np.logical_not(tiff_pixels(path, {}, tags[MASK_PAGE]).any(2, keepdims=True))
    if (beside := mask_beside(path)) is not None:
        return np.logical_not(tiff_pixels(beside, {}).any(2, keepdims=True))
    return None


def tiff_corners(path: Path) -> np.ndarray | None:
    """First and last corner ``((x, y), (x, y))`` of a GeoTIFF on its map; None where its tags name none."""
    tags = tiff_tags(path) or {}
    try:
        (column, row, _, x, y, _), (width, height, *_) = tags[33922], tags[33550]
        size = np.array([width, -height], np.float64)
        first = np.array([x, y], np.float64) - size * (column, row)
        last = first + size * (int(tags[256]), int(tags[257]))
    except (KeyError, TypeError, ValueError):  # or it is pinned down at several points
        return None
    return np.stack([first, last]) if size.all() else None


def mask_beside(path: Path) -> Path | None:
    """GDAL's mask file of an image, if there is one."""
    beside = Path(f"{path}.msk")
    return beside if beside.is_file() else None


def npy_pixels(path: Path) -> np.ndarray:
    """``(H, W, N)`` from a file of ``numpy.save``, not read before it is looked at; InputError for other shapes."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "uif":
        what = f"is an array of {pixels.dtype} {pixels.shape}, no image"
        raise InputError(what, "save numbers of shape (height, width, bands)", path)
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1))


def require_whole(path: Path, data: bytes | mmap.mmap) -> None:
    """InputError for a PNG with a wrong checksum, a JPEG, WebP or PNG without its end, and for animations.

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
            if kind == PNG_FRAMES and int.from_bytes(data[at + 8 : at + 12], "big") > 1:
                raise animation(path)
            if kind == PNG_END:
                return
            at = end + 4
        raise damaged(path, "is cut off")
    if is_webp(data):
        if len(data) < webp_length(data):
            raise damaged(path, "is cut off")
        if b"ANIM" in webp_chunks(data):
            raise animation(path)
    if data[: len(JPEG_START)] == JPEG_START and data.find(JPEG_END, _scan(data)) < 0:
        raise damaged(path, "is cut off")


def animation(path: Path) -> InputError:
    return InputError("is an animation, of which one picture is read", "save each as a file of its own", path)


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
    return read_header(path).size


class Header(NamedTuple):
    """What a file says of its image before it is decoded.

    Attributes:
        height, width: as stored.
        turn: the EXIF orientation, 1: upright.
        bands: how many; of a palette or CMYK the three that it stands for.
        dtype: of the stored numbers.
        alpha: the last band is opacity.
        gaps: pixels may hold nothing: GDAL's nodata value or a mask is given, or numbers may be NaN.
        nodata: that value, as it is written; nothing where there is none.
    """

    height: int
    width: int
    turn: int = 1
    bands: int = 3
    dtype: str = "uint8"
    alpha: bool = False
    gaps: bool = False
    nodata: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) upright."""
        return (self.width, self.height) if self.turn >= 5 else (self.height, self.width)  # 5-8 swap the sides


def read_header(path: Path) -> Header:
    """The file's header; InputError if it is no image."""
    with open_file(path) as file:
        start = file.read(25)
    if (tags := tiff_tags(path) if start[:4] in TIFF_STARTS else None) is not None:
        return tiff_header(path, tags)
    if start.startswith(NPY_START):
        pixels = npy_pixels(path)
        height, width, bands = pixels.shape
        return Header(height, width, 1, bands, pixels.dtype.name, gaps=pixels.dtype.kind == "f")
    with opened(path, decode=False) as picture:
        # Pillow decodes a whole PNG to look for what may stand behind its picture.
        exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
        width, height = picture.size
        alpha = picture.mode in ("LA", "RGBA")
        bands = 1 if picture.mode in ("1", "L") or picture.mode[0] in "IF" else 3 + alpha
        deep = start.startswith(PNG_START) and start[24] == 16
        return Header(height, width, exif.get(0x0112, 1), bands, "uint16" if deep else "uint8", alpha)


def tiff_header(path: Path, tags: dict[int, Any]) -> Header:
    """What the tags of a TIFF say; InputError if they are of no image."""
    try:
        height, width, photometric = int(tags[257]), int(tags[256]), tags.get(262)
        bits, form = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
        kind = {2: "int", 3: "float"}.get(form, "uint")
        dtype = f"{kind}{max(8, 1 << (bits - 1).bit_length())}"
        bands = 3 if photometric in (3, 5) else int(tags.get(277, 1))  # palette, CMYK
        alpha = bool({*tags.get(338, ())} & {1, 2})
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path) from error
    nodata = str(tags.get(42113, "")).strip("\0 ")
    gaps = bool(nodata) or form == 3 or MASK_PAGE in tags or mask_beside(path) is not None
    return Header(height, width, int(tags.get(274, 1)), bands, dtype, alpha, gaps, nodata)


def is_deep(path: Path) -> bool:
    """Whether an image has more than 8 bits a channel."""
    return read_header(path).dtype not in ("uint8", "int8")


_NO_LIMIT = threading.Lock()  # Pillow's limit is one for all threads


@contextmanager
def opened(path: Path, *, decode: bool = True) -> "Iterator[Image]":
    """The file by Pillow, its header read only; InputError if it is no image, or too large to ``decode``."""
    from PIL import Image

    if not path.is_file():
        read_bytes(path)  # says why
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures are no attack here; what is damaged is refused
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
    tags = tiff_tags(path)
    if tags is not None:
        return _read_tiff(path, tags)
    if path.suffix.lower() == ARRAYS:
        pixels = npy_pixels(path)
        if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
            raise not_rgb(path, pixels.shape[2])
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    return cv2.cvtColor(read_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
