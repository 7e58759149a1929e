"""What the images of a set hold beyond 8-bit RGB: other numbers of bands, 16 bits, floats, pixels without data."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from segloss.datasets.finding import ARRAYS
from segloss.datasets.images import npy_pixels, read_header, read_image
from segloss.datasets.opening import Header, read_bytes, too_large, unreadable
from segloss.datasets.tiffs import tiff_gaps, tiff_header, tiff_pixels, tiff_tags
from segloss.datasets.whole import require_whole
from segloss.errors import InputError

if TYPE_CHECKING:
    from segloss.datasets.base import SegmentationDataset

MOST_NUMBER = 1e19  # beyond which squares overflow in float32: no measured number, but what stands for none
STRETCH = (2, 98)  # percentiles of a band that are black and white in a picture, as in GIS programs


@dataclass(frozen=True)
class Bands:
    """How many bands images have, of which kind, and how these are normalised and shown.

    Attributes:
        count: N.
        dtype: of the numbers in the files; arrays are uint8, uint16 or else float32.
        gaps: pixels may hold nothing: NaN, GDAL's nodata value, or what its mask leaves out.
        mean, std: over the training pixels of each band, in the files' units; None: not counted, or 8-bit RGB, which is
            normalised as its encoder was pretrained.
        shown: the bands of pictures, from 1: three as red, green and blue, or one; none: the first three.

    >>> Bands(4, "uint16").describe()
    '4 bands of uint16'
    """

    count: int = 3
    dtype: str = "uint8"
    gaps: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shown: tuple[int, ...] = ()

    @property
    def is_rgb(self) -> bool:
        return self.count == 3 and self.dtype == "uint8"

    @property
    def array_dtype(self) -> np.dtype[Any]:
        """Of images in memory."""
        return np.dtype(self.dtype if self.dtype in ("uint8", "uint16") else "float32")

    @property
    def pixel_bytes(self) -> int:
        return self.count * self.array_dtype.itemsize

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std for numbers divided by 255, as :class:`segloss.models.SegmentationModel` takes them."""
        if self.mean is None or self.std is None:
            return None
        return tuple(mean / 255 for mean in self.mean), tuple(std / 255 for std in self.std)

    @property
    def fill(self) -> tuple[float, ...]:
        """What stands where there is nothing: the mean of each band, 0 as long as it is not counted."""
        return self.mean or (0.0,) * self.count

    @property
    def spread(self) -> tuple[float, ...]:
        return self.std or (1.0,) * self.count

    def to_unit(self, image: np.ndarray) -> np.ndarray:
        """float32 in which mean -+ 4 std of each band are 0 and 1, as albumentations expects floats to be."""
        low, size = self._unit()
        return np.asarray((image - low) / size)

    def from_unit(self, image: np.ndarray) -> np.ndarray:
        """What :meth:`to_unit` was made of."""
        low, size = self._unit()
        return np.asarray(image * size + low)

    def _unit(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.asarray(values, np.float32) for values in (self.fill, self.spread))
        return mean - 4 * std, 8 * std

    def describe(self) -> str:
        if self.is_rgb:
            return "8-bit RGB"
        return f"{self.count} band{'s' if self.count > 1 else ''} of {self.dtype}"

    def told(self) -> str:
        """Mean and standard deviation, in words."""
        pairs = zip(self.fill, self.spread, strict=True)
        return "mean -+ std " + ", ".join(f"{mean:.4g} -+ {std:.4g}" for mean, std in pairs)

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Bands":
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**plain)

    def require(self, header: Header, path: Path) -> None:
        """InputError unless the file holds such bands; of RGB the decoder says what it cannot read."""
        if not self.is_rgb and (header.bands, header.dtype) != (self.count, self.dtype):
            found = Bands(header.bands, header.dtype).describe()
            raise InputError(f"holds {found}, not {self.describe()}", "save it like the others, or remove it", path)

    def filled(self, image: np.ndarray) -> np.ndarray:
        """The image as arrays are here, with the mean of each band where it is NaN."""
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            image = np.where(np.isfinite(image), image, np.asarray(self.fill, image.dtype))
        return image.astype(self.array_dtype, copy=False)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """uint8 ``(H, W, 3)`` RGB for people; bands of more than 8 bits are stretched between their percentiles."""
        if self.is_rgb and not self.shown:
            return image
        shown = self.shown or ((1, 2, 3) if self.count >= 3 else (1,))
        chosen = image[..., [band - 1 for band in shown]]
        if chosen.dtype != np.uint8:
            low, high = np.percentile(chosen, STRETCH, axis=(0, 1), keepdims=True)
            chosen = (255 * (chosen - low) / np.maximum(high - low, 1e-12)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(chosen, (*image.shape[:2], 3)))


RGB = Bands()


def read_gappy(path: Path, bands: Bands) -> tuple[np.ndarray, np.ndarray | None]:
    """The image ``(H, W, N)`` as it is stored, and which of its numbers mean nothing, if any.

    Raises:
        InputError: the file is damaged, or holds other bands.
    """
    tags, nodata, gaps = tiff_tags(path), None, None
    bands.require(read_header(path) if tags is None else tiff_header(path, tags), path)
    if tags is not None:
        pixels, nodata, gaps = tiff_pixels(path, tags), tags.get(42113), tiff_gaps(path, tags)
    elif path.suffix.lower() == ARRAYS:
        pixels = npy_pixels(path)
    else:
        pixels = _decoded(path, bands.count)
    with np.errstate(over="ignore", invalid="ignore"):  # of the numbers that mean nothing
        stored = pixels.astype(bands.array_dtype)
    empty = np.logical_not(np.isfinite(stored) & (nodata is None or pixels != _nodata(nodata, path)))
    if gaps is not None:
        if gaps.shape[:2] != pixels.shape[:2]:
            raise InputError("has a mask of another size", "make the mask anew, or remove it", path)
        empty = empty | gaps
    return stored, np.asarray(empty) if empty.any() else None


def _nodata(text: str, path: Path) -> float:
    """GDAL's nodata value."""
    try:
        return float(text.strip("\0 "))
    except ValueError as error:
        raise InputError(f"names {text!r} as its nodata value, which is no number", "set it anew", path) from error


def _decoded(path: Path, count: int) -> np.ndarray:
    """Of PNG, JPEG, WebP or BMP, by OpenCV."""
    data = read_bytes(path)
    require_whole(path, data)
    kinds = {1: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH, 3: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH}
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), kinds.get(count, cv2.IMREAD_UNCHANGED))
    except cv2.error as error:  # more pixels than it takes
        raise too_large(path, "OpenCV decodes") from error
    if pixels is None or (pixels.ndim == 3) != (count > 1):
        raise unreadable(path)
    return pixels[..., None] if count == 1 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]


def read_bands(path: Path, bands: Bands = RGB) -> tuple[np.ndarray, np.ndarray | None]:
    """An image ``(H, W, N)``, its gaps filled by each band's mean, and the pixels ``(H, W)`` where no band holds any.

    8-bit RGB has no gaps.

    Raises:
        InputError: the file is damaged, or holds other bands.
    """
    if bands.is_rgb:
        return read_image(path), None
    pixels, empty = read_gappy(path, bands)
    if empty is None:
        return pixels, None
    return np.where(empty, np.asarray(bands.fill, pixels.dtype), pixels), np.all(empty, 2)


def bands_of(headers: dict[Path, Header], channels: int | None = None) -> Bands:
    """What most of the images hold; gray images of 8 bits are RGB unless ``channels`` is 1.

    Raises:
        InputError: no image has so many channels.
    """
    opaque = _are_opaque([path for path, h in headers.items() if (h.bands, h.dtype, h.alpha) == (4, "uint8", False)])

    def kind(header: Header) -> tuple[int, str]:
        plain = header.bands in (1, 3) or (header.bands == 4 and (header.alpha or opaque))
        rgb = plain and header.dtype == "uint8" and channels in (None, 3)
        return (3, "uint8") if rgb else (header.bands, header.dtype)

    kinds = Counter(kind(header) for header in headers.values())
    for found, _ in kinds.most_common():
        if channels in (None, found[0]):
            gaps = any(header.gaps for header in headers.values()) and found != (3, "uint8")
            return Bands(*found, gaps=gaps)
    if channels is not None and headers:
        path, header = next(iter(headers.items()))
        what = f"holds {Bands(header.bands, header.dtype).describe()}, and no image {channels}"
        raise InputError(what, "give the number that they have, or leave --channels out", path)
    return RGB


def _are_opaque(paths: Sequence[Path]) -> bool:
    """Whether the fourth band of all is full and so says nothing."""
    four = Bands(4, "uint8")
    for path in paths:
        with suppress(InputError):  # found out where it is read
            if (read_gappy(path, four)[0][..., 3] != 255).any():
                return False
    return True


def choose_bands(
    datasets: "Sequence[SegmentationDataset]", channels: int | None = None, shown: tuple[int, ...] = ()
) -> Bands:
    """Find what the images of all these splits hold, and tell the splits.

    Raises:
        InputError: there are no bands of such numbers.
    """
    headers: dict[Path, Header] = {}
    for dataset in datasets:
        if not dataset.made_up:
            headers |= dataset.headers()
    bands = bands_of(headers, channels)
    if channels not in (None, bands.count):
        raise InputError(f"has images of 3 channels, not {channels}", "leave --channels out", datasets[0].name)
    return show_bands(datasets, bands, shown)


def show_bands(datasets: "Sequence[SegmentationDataset]", bands: Bands, shown: tuple[int, ...]) -> Bands:
    """Tell the splits which bands they have and which are shown; InputError for one that there is not."""
    if shown and max(shown) > bands.count:
        raise InputError(f"--show-bands {max(shown)} is not there: images hold {bands.describe()}", "count from 1")
    bands = replace(bands, shown=shown) if shown else bands
    for dataset in datasets:
        dataset.bands = bands
    return bands
