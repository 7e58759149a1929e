"""Images measured and decoded, whatever their format; refused where they are damaged."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from segloss.datasets.finding import ARRAYS
from segloss.datasets.opening import (
    Header,
    not_rgb,
    open_file,
    opened,
    read_bytes,
    too_large,
    turn_of,
    turned,
    unreadable,
)
from segloss.datasets.tiffs import TIFF_STARTS, tiff_header, tiff_rgb, tiff_tags
from segloss.datasets.whole import PNG_START, is_webp, require_whole, webp_chunks
from segloss.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

NPY_START = b"\x93NUMPY"
BMP_OF_FOUR = (b"BM", b" \0")  # with the bits of a pixel, 32


def read_image(path: Path) -> np.ndarray:
    """uint8 ``(H, W, 3)`` RGB from any 8-bit image file; InputError for more bands or pages than that can hold."""
    tags = tiff_tags(path)
    if tags is not None:
        return tiff_rgb(path, tags)
    if path.suffix.lower() == ARRAYS:
        pixels = npy_pixels(path)
        if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
            raise not_rgb(path, pixels.shape[2])
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    return cv2.cvtColor(read_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


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


def _without_alpha(decoded: np.ndarray, path: Path) -> np.ndarray:
    """Blue, green and red of four bands; InputError unless the fourth is full everywhere and so says nothing."""
    if (decoded[..., 3] != np.iinfo(decoded.dtype).max).any():
        raise not_rgb(path, decoded.shape[2])
    return decoded[..., :3] if decoded.dtype == np.uint8 else (decoded[..., :3] >> 8).astype(np.uint8)


def require_upright(path: Path) -> None:
    """InputError for what is turned by its EXIF orientation."""
    if read_header(path).turn != 1:
        raise InputError("is turned by its EXIF orientation", "save it upright, as PNG without that tag", path)


def npy_pixels(path: Path) -> np.ndarray:
    """``(H, W, N)`` from a file of ``numpy.save``, not read before it is looked at; InputError for other shapes."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "uif":
        what = f"is an array of {pixels.dtype} {pixels.shape}, no image"
        as_numbers = "save it as numbers, by .astype(np.uint8)" if pixels.dtype.kind == "b" else ""
        raise InputError(what, as_numbers or "save numbers of shape (height, width, bands)", path)
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1))


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
        width, height = picture.size
        alpha = picture.mode in ("LA", "RGBA")
        bands = 1 if picture.mode in ("1", "L") or picture.mode[0] in "IF" else 3 + alpha
        deep = start.startswith(PNG_START) and start[24] == 16
        return Header(height, width, turn_of_picture(picture), bands, "uint16" if deep else "uint8", alpha)


def turn_of_picture(picture: "Image") -> int:
    """By the EXIF block alone, as OpenCV turns; Pillow looks into XMP too, and decodes a whole PNG to find some."""
    from PIL import Image

    exif = Image.Exif()
    with suppress(Exception):  # a damaged block turns nothing
        exif.load(picture.info.get("exif", b""))
        return turn_of(exif.get(0x0112))
    return 1


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) from the file's header, turned as its EXIF orientation says; InputError if it is no image."""
    return read_header(path).size
