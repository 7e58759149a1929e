"""Images and masks too large to be decoded whole: their rows are read from the file as they are asked for."""

import logging
import mmap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets.finding import ARRAYS
from segloss.datasets.images import read_header, read_image, require_upright
from segloss.datasets.masks import jpeg_mask, read_mask, require_ids, without_opacity
from segloss.datasets.opening import damaged, not_rgb
from segloss.datasets.tiffs import MASK_PAGE, mask_beside, tiff_gaps, tiff_tags
from segloss.datasets.whole import JPEG_START, PNG_START, has_end, require_whole
from segloss.errors import InputError

Rows = Callable[[int, int], np.ndarray]  # first row and the one behind the last -> these rows, in the file's order

LARGE = 2**26  # pixels, 192 MiB of RGB: from here on files are read by rows
SETTINGS = {
    "GDAL_CACHEMAX": 64,  # MiB of decoded blocks; GDAL takes 5 % of the memory otherwise
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",  # a JPEG that is cut off
    "GDAL_ALLOW_LARGE_LIBJPEG_MEM_ALLOC": "YES",  # a progressive JPEG is held whole
}


def image_rows(path: Path) -> Rows:
    """Reads uint8 ``(rows, W, 3)`` RGB; what it returns is what :func:`segloss.datasets.images.read_image` does.

    TIFF in strips or tiles, PNG, JPEG and BMP are read by rows, by rasterio (GDAL). Decoded whole, 3 bytes a pixel, are
    interlaced PNG, TIFF in one strip or tile that is larger than ``LARGE``, and what is no plain upright 8-bit image;
    progressive JPEG is held by GDAL in the same way.

    Raises:
        InputError: the file is damaged, rasterio is missing, or OpenCV or Pillow would have to decode it whole and does
            not; of damage that only reading finds the returned function raises it.
    """
    file = _opened(path) if read_header(path).turn == 1 else None
    if file is None or not _is_plain(file):
        return sliced(read_image(path))

    def read(top: int, bottom: int) -> np.ndarray:
        rows = _read(file, path, top, bottom)
        if file.count == 4 and (rows[..., 3] != 255).any():
            raise not_rgb(path, 4)
        return rows[..., :3] if file.count > 1 else np.repeat(rows, 3, axis=2)

    return read


def _is_plain(file: Any) -> bool:
    """8 bits, grey or RGB with or without alpha, neither inverted nor a palette."""
    hints = file.tags(ns="IMAGE_STRUCTURE") | file.tags(1, ns="IMAGE_STRUCTURE")
    colors = [kind.name for kind in file.colorinterp]
    known = file.count in (1, 3) or (file.count == 4 and colors[3] == "alpha")
    return bool(
        known and file.dtypes[0] == "uint8" and colors[0] != "palette" and not {"NBITS", "MINISWHITE"} & {*hints}
    )


def mask_rows(path: Path) -> Rows:
    """Reads ids ``(rows, W)`` or colours ``(rows, W, 3)`` as :func:`segloss.datasets.masks.read_mask`; as above."""
    tags = tiff_tags(path)
    if tags is not None:
        require_ids(tags, path)
    file = _opened(path)
    if file is None or file.driver == "WEBP":  # which may have lost something
        return sliced(read_mask(path))
    if file.driver == "JPEG":
        raise jpeg_mask(path)
    require_upright(path)
    if file.count not in (1, 3, 4) or file.dtypes[0] not in ("uint8", "uint16")[: 2 if file.count == 1 else 1]:
        what = f"mask has {file.count} channels of {file.dtypes[0]}"
        raise InputError(what, "save it as 8-bit RGB or as ids", path)

    def read(top: int, bottom: int) -> np.ndarray:
        rows = _read(file, path, top, bottom)
        return rows[..., 0] if rows.shape[2] == 1 else without_opacity(rows, path)

    return read


def gap_rows(path: Path) -> Rows | None:
    """Reads where GDAL's mask of a file says that there is nothing, bool ``(rows, W, 1)``; None where it has none."""
    tags = tiff_tags(path)
    if tags is None or not (MASK_PAGE in tags or mask_beside(path)):
        return None
    file = _opened(path)
    if file is None:
        gaps = tiff_gaps(path, tags)
        return None if gaps is None else sliced(gaps)
    return lambda top, bottom: _read(file, path, top, bottom, masks=True)[..., :1] == 0


def sliced(pixels: np.ndarray) -> Rows:
    """Rows of what is decoded already."""
    return lambda top, bottom: pixels[top:bottom]


def _opened(path: Path) -> Any:
    """The file by rasterio; None where single rows cannot be had from it."""
    if path.suffix.lower() == ARRAYS:
        return None
    try:
        import rasterio
    except ImportError as error:
        what = f"has more than {LARGE:,} pixels, which rasterio reads by windows, and it is not installed"
        raise InputError(what, "pip install rasterio", path) from error
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what it has to say is raised, too
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # in whatever thread
    with path.open("rb") as content:
        start = content.read(29)
        if start.startswith((PNG_START, JPEG_START)):
            if not has_end(path):
                with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    require_whole(path, data)
            if start.startswith(PNG_START) and start[28]:  # interlaced
                return None
    try:
        with rasterio.Env(**SETTINGS):
            file = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise damaged(path, "is not a readable image") from error
    return file if file.block_shapes[0][0] * file.block_shapes[0][1] <= LARGE else None


def _read(file: Any, path: Path, top: int, bottom: int, *, masks: bool = False) -> np.ndarray:
    import rasterio
    from rasterio.windows import Window

    try:
        with rasterio.Env(**SETTINGS):
            read = file.read_masks if masks else file.read
            rows: np.ndarray = read(window=Window(0, top, file.width, bottom - top))
    except rasterio.errors.RasterioError as error:
        raise damaged(path, f"is damaged or cut off at rows {top} to {bottom}") from error
    return np.moveaxis(rows, 0, -1)
