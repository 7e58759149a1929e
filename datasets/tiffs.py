"""TIFF files: tags, pixels of any depth and number of bands, gaps, place on a map; refused where damaged."""

import logging
import math
import warnings
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from segloss.datasets.opening import Ground, Header, damaged, not_rgb, open_file, opened, turn_of, turned, unreadable
from segloss.errors import InputError

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEFLATE = (8, 32946)  # of the tag of a TIFF's compression
JPEGS = (6, 7, 33003, 33005, 34712, 34892, 34934, 50002, 52546)  # and JPEG 2000, XR, XL
COMPLEX = {5, 6}  # of the tag of a TIFF's sample format
USER_DEFINED = 32767  # a system of coordinates without a number of its own
MASK_PAGE = -1  # among the tags of a TIFF: the page that says where its picture holds something


def tiff_tags(path: Path) -> dict[int, Any] | None:
    """The tags of a TIFF file's first page, whatever its name; None for other formats.

    Raises:
        InputError: it has several pages of pictures, or holds complex numbers.
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
    if {*np.ravel(pages[0].get(339, ())).tolist()} & COMPLEX:
        raise InputError("holds complex numbers", "save the amplitude, and the phase if it tells, as bands", path)
    return pages[0] | ({MASK_PAGE: masks[0]} if masks else {})


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
    turn, names, ground = turn_of(tags.get(274)), _band_names(tags, bands), _ground(tags, height, width)
    return Header(height, width, turn, bands, dtype, alpha, gaps, nodata, names, ground, _scaling(tags, bands))


def _said_of_bands(tags: dict[int, Any], role: str) -> dict[int, str]:
    """What GDAL's metadata says of each band, by its place."""
    text = str(tags.get(42112, "")).strip("\0 ")
    if role not in text or "<!" in text:  # what defines words of its own is not GDAL's
        return {}
    try:
        items = [item for item in ElementTree.fromstring(text).iter("Item") if item.get("role") == role]
        return {int(item.get("sample", -1)): (item.text or "").strip() for item in items}
    except (ElementTree.ParseError, ValueError):
        return {}


def _band_names(tags: dict[int, Any], bands: int) -> tuple[str, ...]:
    """What GDAL's metadata says that each band is; nothing unless it says so of all."""
    named = _said_of_bands(tags, "description")
    names = tuple(named.get(band, "") for band in range(bands))
    return names if all(names) else ()


def _scaling(tags: dict[int, Any], bands: int) -> tuple[tuple[float, float], ...]:
    """Scale and offset of each band by GDAL's metadata; nothing where they change no number, or are none."""
    scales, offsets = _said_of_bands(tags, "scale"), _said_of_bands(tags, "offset")
    try:
        found = tuple((float(scales.get(band, 1)), float(offsets.get(band, 0))) for band in range(bands))
    except ValueError:
        return ()
    return found if {*found} != {(1.0, 0.0)} else ()


def _ground(tags: dict[int, Any], height: int, width: int) -> Ground | None:
    """The place of a GeoTIFF that names the system of its coordinates."""
    grid = _grid(tags)
    try:
        keys = np.reshape(np.atleast_1d(tags[34735])[4:], (-1, 4)).tolist()
    except (KeyError, ValueError):
        return None
    code = next((key[3] for kind in (3072, 2048) for key in keys if key[:2] == [kind, 0]), USER_DEFINED)
    if grid is None or not keys:
        return None
    system = str(code) if code != USER_DEFINED else repr([tags.get(tag) for tag in (34735, 34736, 34737)])
    corners = grid @ np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)]).T
    return Ground(system, tuple((float(x), float(y)) for x, y in corners[:2].T))


def tiff_rgb(path: Path, tags: dict[int, Any]) -> np.ndarray:
    """uint8 RGB. Pillow and tifffile refuse damaged data, of which OpenCV hands out a half."""
    bands = int(tags.get(277, 1))
    if bands not in (1, 3, 4):
        raise not_rgb(path, bands)
    unnamed = bands > 1 and tags.get(262) in (0, 1)  # as GDAL writes bands that are no colours
    apart = tags.get(284, 1) != 1  # planes one after the other
    if _is_deep_tiff(tags) or unnamed or apart or beyond_pillow(tags):
        pixels = tiff_pixels(path, tags)
        if (bits := max(tags.get(258, (1,)))) < 8 and tags.get(262) != 3:  # which fill 0..255
            pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
        if tags.get(262) == 3:
            pixels = np.reshape(tags[320], (3, -1)).T.astype(np.uint16)[pixels[..., 0]]
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


def _chunks(tags: dict[int, Any]) -> list[tuple[int, int]]:
    """First byte and length of each strip or tile; both are 0 where GDAL stored none (``SPARSE_OK``)."""
    starts, lengths = (np.atleast_1d(tags.get(tag, tags.get(tiled, ()))) for tag, tiled in ((273, 324), (279, 325)))
    return list(zip(starts.tolist(), lengths.tolist(), strict=False))


def beyond_pillow(tags: dict[int, Any]) -> bool:
    """Whether Pillow cannot decode it, as LERC, or takes the file's first bytes for chunks that are not there."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    return tags.get(259, 1) not in COMPRESSION_INFO or (0, 0) in _chunks(tags)


def require_checksums(path: Path, tags: dict[int, Any]) -> None:
    """InputError where a strip or tile of deflate has a wrong checksum, which Pillow does not look at."""
    if tags.get(259) not in DEFLATE:
        return
    with open_file(path) as file:
        for start, length in _chunks(tags):
            if not start and not length:
                continue
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
    pixels = turned(pixels, turn_of(tags.get(274)))
    return np.invert(pixels) if tags.get(262) == 0 and pixels.dtype.kind == "u" else pixels  # WhiteIsZero


def tiff_gaps(path: Path, tags: dict[int, Any]) -> np.ndarray | None:
    """Where GDAL's mask of an image, a page of it or ``NAME.tif.msk``, says that there is nothing, ``(H, W, 1)``."""
    if MASK_PAGE in tags:
        return np.logical_not(tiff_pixels(path, {}, tags[MASK_PAGE]).any(2, keepdims=True))
    if (beside := mask_beside(path)) is not None:
        return np.logical_not(tiff_pixels(beside, {}).any(2, keepdims=True))
    return None


def mask_beside(path: Path) -> Path | None:
    """GDAL's mask file of an image, if there is one."""
    beside = Path(f"{path}.msk")
    return beside if beside.is_file() else None


def tiff_grid(path: Path) -> np.ndarray | None:
    """What takes ``(column, row, 1)`` of a GeoTIFF to ``(x, y, 1)`` on its map, ``(3, 3)``; None where no tags do."""
    return _grid(tiff_tags(path) or {})


def _grid(tags: dict[int, Any]) -> np.ndarray | None:
    try:
        if 33550 in tags:
            (column, row, _, x, y, _), (width, height, *_) = tags[33922], tags[33550]
            grid = np.array([[width, 0, x - width * column], [0, -height, y + height * row], [0, 0, 1]], np.float64)
        else:  # rows from the south on, or turned
            grid = np.reshape(np.array(tags[34264], np.float64), (4, 4))[np.ix_([0, 1, 3], [0, 1, 3])]
    except (KeyError, TypeError, ValueError):  # or it is pinned down at several points
        return None
    return grid if np.isfinite(grid).all() and np.linalg.det(grid) else None
