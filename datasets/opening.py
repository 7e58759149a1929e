"""An image file opened, what its header says, and the words of a refusal."""

import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from segloss.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

FLIPS = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # EXIF orientation: axes; from 5 on transposed first
_NO_LIMIT = threading.Lock()  # Pillow's limit is one for all threads


class Ground(NamedTuple):
    """A piece of a map.

    Attributes:
        system: of its coordinates, as the tags name it.
        corners: of the image, one after the other around it, ``(x, y)`` each.
    """

    system: str
    corners: tuple[tuple[float, float], ...]


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
        band_names: as GDAL writes what each band is; nothing where it does not.
        ground: where it lies on a map, by the tags of a GeoTIFF; None where they do not say.
        scaling: scale and offset by which GDAL makes measures of the numbers of each band; nothing where these are 1
            and 0 in all.
    """

    height: int
    width: int
    turn: int = 1
    bands: int = 3
    dtype: str = "uint8"
    alpha: bool = False
    gaps: bool = False
    nodata: str = ""
    band_names: tuple[str, ...] = ()
    ground: Ground | None = None
    scaling: tuple[tuple[float, float], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) upright."""
        return (self.width, self.height) if self.turn >= 5 else (self.height, self.width)  # 5-8 swap the sides


def turn_of(value: Any) -> int:
    """The EXIF orientation that a tag's value stands for; 1 where it stands for none."""
    return int(value) if value in range(2, 9) else 1


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Pixels ``(H, W, ...)`` as they are shown, by their EXIF orientation."""
    shown: np.ndarray = np.flip(pixels.swapaxes(0, 1) if turn >= 5 else pixels, FLIPS.get(turn, ()))
    return shown


def unreadable(path: Path, error: Exception | None = None) -> InputError:
    if isinstance(error, OSError) and error.strerror:  # of the system, not of the decoder
        return InputError(f"cannot be read: {error.strerror}", "restore the file or mend the link", path)
    return damaged(path, "is not a readable image")


def too_large(path: Path, decoder: str) -> InputError:
    cure = "save it as tiled TIFF, which eval_seg.py --tile reads by windows, or cut it"
    return InputError(f"has more pixels than {decoder}", cure, path)


def damaged(path: Path, how: str) -> InputError:
    return InputError(how, "replace the file or remove it with its partner", path)


def not_rgb(path: Path, count: int) -> InputError:
    cure = f"save its red, green and blue, or train on all with --channels {count}"
    return InputError(f"has {count} bands, of which images here have 1 or 3", cure, path)


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
                picture.info.pop("xmp", None)  # by which Pillow turns a TIFF, and nothing else does
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
