"""Mask files to class numbers: index, palette and colour images, 8 and 16 bit, and what is wrong with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segloss.datasets.classes import WHOLE, ClassTable, map_dtype
from segloss.datasets.finding import ARRAYS
from segloss.datasets.images import npy_pixels, read_file
from segloss.datasets.opening import opened, read_bytes, turn_of
from segloss.datasets.tiffs import JPEGS, beyond_pillow, require_checksums, tiff_header, tiff_pixels, tiff_tags
from segloss.datasets.whole import PNG_START, webp_chunks
from segloss.errors import InputError

READER = 3  # raise it when a mask or an image is read as something else than before: what was counted of it is void
SHORTEST_RUNS = 16  # pixels on average, from which counting runs is faster


def read_mask(path: Path) -> np.ndarray:
    """What the file holds: ids uint8 or uint16 ``(H, W)``, or colours uint8 ``(H, W, 3)`` RGB.

    Raises:
        InputError: the file is damaged, or JPEG, which changes ids and colours where classes meet.
    """
    mask = _read_npy_ids(path) if path.suffix.lower() == ARRAYS else _read_tiff_ids(path)
    if mask is not None:
        return mask if mask.ndim == 2 else without_opacity(mask, path)
    mask = read_file(path, cv2.IMREAD_UNCHANGED, upright=True)
    if _png_header(path) is None:
        plain = _by_pillow(path, mask)
        if plain is not None:
            return plain
    if mask.ndim == 3:
        return _palette_indices(path) if _has_palette(path) else _rgb(mask, path)
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"mask has {mask.dtype} pixels", "save class ids as 8- or 16-bit single-channel PNG", path)
    step = _grey_step(path)
    return mask if step == 1 else mask // step


def _read_npy_ids(path: Path) -> np.ndarray:
    ids = npy_pixels(path)
    if ids.shape[2] != 1 or ids.dtype.kind == "f" or ids.min() < 0 or ids.max() >= 2**16:
        what = f"mask is an array of {ids.dtype} with {ids.shape[2]} bands, from {ids.min()} to {ids.max()}"
        raise InputError(what, "save class ids from 0 to 65535, of shape (height, width)", path)
    return ids[..., 0].astype(np.uint8 if ids.max() < 256 else np.uint16)


def _read_tiff_ids(path: Path) -> np.ndarray | None:
    """Of a TIFF, by Pillow where it can: of damaged data OpenCV hands out a half. None for other formats.

    Raises:
        InputError: it is damaged, turned, inverted (WhiteIsZero) or of several pages, or holds no ids or colours.
    """
    tags = tiff_tags(path)
    if tags is None:
        return None
    require_ids(tags, path)
    require_checksums(path, tags)
    bands, bits = int(tags.get(277, 1)), max(tags.get(258, (1,)))
    if beyond_pillow(tags):
        pixels = tiff_pixels(path, tags)
        kind, filled = f"{pixels.dtype}", False
        known = kind in ("bool", "uint8", "int8", "uint16", "int16") and bands in (1, 3, 4)
        pixels = pixels[..., 0] if bands == 1 else pixels
    else:
        with opened(path) as picture:
            kind, pixels = picture.mode, np.array(picture)
        known = kind in ("1", "L", "P", "RGB", "RGBA") or kind.startswith("I;16")
        known = known and bands == (1 if kind not in ("RGB", "RGBA") else len(kind))
        filled = kind == "L" and bits < 8  # 0..255
    if not known:
        what = f"mask has pixels of kind {kind}, {bands} bands"
        raise InputError(what, "save class ids as 8- or 16-bit single-channel PNG", path)
    ids = pixels.astype(np.uint16 if bits > 8 else np.uint8)
    if max(tags.get(339, (1,))) == 2 and (ids >> (bits - 1)).any():
        raise InputError("mask holds negative numbers", "save class ids from 0 on", path)
    return ids // (255 // (2**bits - 1)) if filled else ids


def require_ids(tags: "dict[int, Any]", path: Path) -> None:
    """InputError where the tags of a TIFF say that it holds no ids or colours as they are meant."""
    if tags.get(262) == 0:
        raise InputError("is stored inverted (WhiteIsZero), so that 0 may be 1", "save it as PNG", path)
    if turn_of(tags.get(274)) != 1:
        raise InputError("is turned by its orientation tag", "save it upright, as PNG", path)
    if tags.get(259) in JPEGS:
        raise jpeg_mask(path)
    if int(tags.get(277, 1)) > 1 and max(tags.get(258, (8,))) > 8:
        what = f"mask has {tags[277]} channels of {max(tags[258])} bits"
        raise InputError(what, "save it as 8-bit RGB or as ids", path)
    if max(tags.get(258, (8,))) > 32:
        raise InputError("mask has pixels of 64 bits", "save class ids as 8- or 16-bit single-channel PNG", path)


def jpeg_mask(path: Path) -> InputError:
    return InputError("a JPEG does not keep ids or colours", "export the mask as PNG from its source", path)


def _by_pillow(path: Path, mask: np.ndarray) -> np.ndarray | None:
    """Ids of a mask that is no PNG, where OpenCV's is something else; InputError for what is no exact picture.

    That is JPEG, whatever its name, and WebP with loss.
    """
    with opened(path) as picture:
        if picture.format in ("JPEG", "MPO") or picture.info.get("compression") == "jpeg":
            raise jpeg_mask(path)
        if picture.format == "WEBP" and b"VP8 " in webp_chunks(read_bytes(path)):
            raise InputError(
                "a WebP with loss does not keep ids or colours", "export the mask as PNG from its source", path
            )
        if picture.mode == "1" and picture.format == "BMP":  # of a palette of black and white, whatever its bits
            stored = _bytes_of_bmp(read_bytes(path))
            return mask // 255 if stored is None else stored
        if picture.mode in ("1", "P"):  # of 1 bit OpenCV makes 0 and 255, of a palette its colours
            return np.array(picture).astype(np.uint8)
    return None


def _bytes_of_bmp(content: bytes) -> np.ndarray | None:
    """The pixels of a BMP of 8 bits as they are stored, some beyond its palette; None of other bits and packed ones."""
    start, header, width, height = np.frombuffer(content, "<i4", 4, 10).tolist()
    if header < 40 or content[28:34] != b"\x08\0\0\0\0\0":
        return None
    stride = -(-width // 4) * 4
    rows = np.frombuffer(content, np.uint8, abs(height) * stride, start).reshape(abs(height), stride)[:, :width]
    return np.ascontiguousarray(rows[::-1] if height > 0 else rows)


def _rgb(mask: np.ndarray, path: Path) -> np.ndarray:
    if mask.dtype != np.uint8 or mask.shape[2] < 3:
        what = f"mask has {mask.shape[2]} channels of {mask.dtype}"
        raise InputError(what, "save it as 8-bit RGB or as ids", path)
    return without_opacity(cv2.cvtColor(mask, cv2.COLOR_BGR2RGB if mask.shape[2] == 3 else cv2.COLOR_BGRA2RGBA), path)


def without_opacity(mask: np.ndarray, path: Path) -> np.ndarray:
    """Red, green and blue of a colour mask; InputError where a fourth band tells apart what these do not."""
    if mask.shape[2] == 3 or (mask[..., 3] == mask[0, 0, 3]).all():
        return np.ascontiguousarray(mask[..., :3])
    four = np.unique(np.ascontiguousarray(mask).view("<u4"))
    if len(four) != len(np.unique(four & 0xFFFFFF)):
        what = "its opacity tells apart pixels that are of one colour"
        raise InputError(what, "save it as 8-bit RGB or as ids, without opacity", path)
    return np.ascontiguousarray(mask[..., :3])


def _png_header(path: Path) -> tuple[int, int] | None:
    """Bit depth and colour type of a PNG."""
    with path.open("rb") as file:
        header = file.read(26)
    return (header[24], header[25]) if header.startswith(PNG_START) else None


def _has_palette(path: Path) -> bool:
    if path.suffix.lower() == ARRAYS:
        return False
    header = _png_header(path)
    if header is not None:
        return header[1] == 3
    with opened(path) as picture:
        return picture.mode == "P"


def _grey_step(path: Path) -> int:
    """What cv2 multiplies the ids of a 1-, 2- or 4-bit PNG by, to fill 0..255: id 1 of 1 bit would come out as 255."""
    header = _png_header(path)
    return 255 // (2 ** header[0] - 1) if header is not None and header[0] < 8 else 1


def palette_of(path: Path) -> np.ndarray | None:
    """Colours ``(K, 3)`` of a palette image, from its header; None for anything else."""
    if not _has_palette(path):
        return None
    with opened(path) as picture:
        return np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)


def _palette_indices(path: Path) -> np.ndarray:
    with opened(path) as picture:
        return np.array(picture)  # cv2 hands out a palette's colours, not its indices


@lru_cache(maxsize=8)
def _id_table(pairs: tuple[tuple[int, int], ...], stray: int) -> np.ndarray:
    table = np.full(2**16, stray, dtype=map_dtype(stray))
    for value, label in pairs:
        table[value] = label
    return table


@lru_cache(maxsize=8)
def _color_table(pairs: tuple[tuple[tuple[int, int, int], int], ...], stray: int) -> np.ndarray:
    """``(2^24,)``: R + 256 G + 65536 B -> class, what is ignored or ``stray``; 16 MiB, of 16-bit maps 32."""
    table = np.full(2**24, stray, dtype=map_dtype(stray))
    for (red, green, blue), label in pairs:
        table[red | green << 8 | blue << 16] = label
    return table


def id_table(classes: ClassTable) -> np.ndarray:
    """``(65536,)``: value in a mask file -> class, ``classes.ignored`` or, where it is unknown, ``classes.stray``."""
    return _id_table(classes.mask_ids, classes.stray)


def packed(mask: np.ndarray) -> np.ndarray:
    """RGB as one number each, R + 256 G + 65536 B, ``(H, W)``."""
    if not mask.size:
        return np.empty(mask.shape[:2], np.uint32)
    wide = cv2.cvtColor(mask, cv2.COLOR_RGB2RGBA)
    wide[..., 3] = 0
    return wide.view("<u4")[..., 0]


def lookup(mask: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Class numbers ``(H, W)``, ``classes.ignored``, and ``classes.stray`` for what the table does not know.

    uint8, or uint16 of more than 254 classes.
    """
    if mask.ndim == 3:
        return _color_table(classes.mask_colors, classes.stray).take(packed(mask), mode="clip")
    table = id_table(classes)
    return cv2.LUT(mask, table[:256]) if mask.dtype == np.uint8 else table.take(mask)


def map_mask(mask: np.ndarray, classes: ClassTable, path: Path | None) -> np.ndarray:
    """As :func:`lookup`; InputError that names file, value and cure for an unknown id or colour."""
    labels = lookup(mask, classes)
    if (labels == classes.stray).any():
        raise stray_error(mask, labels, classes, path)
    return labels


def nodata_doubt(
    mask: np.ndarray, classes: ClassTable, path: Path, gaps: np.ndarray | None = None
) -> InputError | None:
    """What to say of a TIFF whose nodata value (GDAL's) stands for a class, where pixels hold it, or whose mask, bool
    ``gaps (H, W, 1)``, leaves out pixels that hold one."""
    if gaps is not None and gaps.shape[:2] == mask.shape[:2]:
        left_out = lookup(mask, classes)[gaps[..., 0]]
        held = np.bincount(left_out[left_out < len(classes)], minlength=1)
        if held.any():
            first = classes.names[held.argmax()]
            what = f"its mask leaves out {held.sum():,} pixels that are read as classes, as {first}"
            cure = "if nobody labelled these pixels, write an id that is ignored there; else remove the mask"
            return InputError(what, cure, path)
    tags = tiff_tags(path) if path.suffix.lower() in (".tif", ".tiff") else None
    nodata = "" if tags is None else tiff_header(path, tags).nodata
    if not WHOLE.fullmatch(nodata):
        return None
    empty = mask == float(nodata)
    held = mask[empty if mask.ndim == 2 else empty.all(2)][None, :1]
    if not held.size or (label := int(lookup(held, classes)[0, 0])) >= len(classes):
        return None
    what = f"names {nodata} as its nodata value, which is read as class {classes.names[label]}"
    cure = "if nobody labelled these pixels, write the id under ignore in the class file; else unset the value"
    return InputError(what, cure, path)


def id_histogram(labels: np.ndarray) -> np.ndarray:
    """How often each value occurs in a map, int64 ``(256,)``, of uint16 ``(65536,)``."""
    if labels.dtype != np.uint8:
        return np.bincount(labels.reshape(-1), minlength=2**16)
    counts = counts_of_runs(labels)
    if counts is not None:
        return counts
    total = np.zeros(256, dtype=np.int64)
    rows = max(1, 2**24 // max(1, labels.shape[1]))  # OpenCV counts in float32, exact up to 2^24
    for top in range(0, labels.shape[0], rows):
        total += cv2.calcHist([labels[top : top + rows]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return total


def counts_of_runs(*maps: np.ndarray) -> np.ndarray | None:
    """How often each value, or tuple of values at one pixel, occurs in uint8 maps of one shape, int64 ``(256, ...)``.

    Counted from the lengths of runs of equal neighbours: label maps are made of long ones, in which a histogram would
    wait for the same counter at every pixel. None where runs are short, and counting pixel by pixel is faster.
    """
    flat = [values.reshape(-1) for values in maps]
    changes = flat[0][1:] != flat[0][:-1]
    for values in flat[1:]:
        changes |= values[1:] != values[:-1]
    if not flat[0].size or np.count_nonzero(changes) * SHORTEST_RUNS > flat[0].size:
        return None
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=flat[0].size)
    shape = (256,) * len(maps)
    cells = np.ravel_multi_index(tuple(values[starts] for values in flat), shape)
    # The weights are float64: exact up to 2^53 pixels.
    return np.bincount(cells, lengths, minlength=256 ** len(maps)).astype(np.int64).reshape(shape)


def class_histogram(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class of a map of class numbers, int64 ``(C + 1,)``, the ignored ones last."""
    counts = id_histogram(labels)
    return np.append(counts[:num_classes], counts[-1])


def label_histogram(mask: np.ndarray, classes: ClassTable, path: Path) -> np.ndarray:
    """As :func:`class_histogram`, of what :func:`read_mask` returned; InputError as :func:`map_mask`."""
    if mask.ndim == 3:
        return class_histogram(map_mask(mask, classes, path), len(classes))
    raw = id_histogram(mask)  # counted before mapped: one pass less
    table = id_table(classes)[: len(raw)]
    if raw[table == classes.stray].any():
        raise stray_error(mask, lookup(mask, classes), classes, path)
    # The weights are float64: exact up to 2^53 pixels.
    counts = np.bincount(table, weights=raw, minlength=classes.ignored + 1).astype(np.int64)
    return np.append(counts[: len(classes)], counts[-1])


def stray_error(mask: np.ndarray, labels: np.ndarray, classes: ClassTable, path: Path | None) -> InputError:
    return describe_strays(mask, labels == classes.stray, classes).error(path)


@dataclass(frozen=True)
class Strays:
    """What a mask holds that its class table does not know.

    Attributes:
        what: is seen.
        cure: the likely one.
        values: those shown in ``what`` where the fault lies in these very values; empty where it has a cause that the
            whole set may share.
    """

    what: str
    cure: str
    values: str = ""

    def error(self, path: Path | None) -> InputError:
        return InputError(self.what, self.cure, path)


def describe_strays(mask: np.ndarray, stray: np.ndarray, classes: ClassTable) -> Strays:
    """What the stray pixels of a mask hold, and the likely cure."""
    if mask.ndim == 3 and (mask == mask[..., :1]).all() and np.ptp(mask):  # a colour mask may be all black
        grey = turned_grey(np.unique(mask).tolist(), classes)
        return Strays("is a grey image of equal channels", grey or "save class ids as single-channel PNG")
    if mask.ndim == 3 and not classes.mask_colors:
        return Strays(
            "is a colour image, but the class table gives no colours",
            "give each class its color in the class file, or save class ids as single-channel PNG",
        )
    where = f"on {stray.mean():.2%} of its pixels, which the class table does not know"
    if mask.ndim == 3:
        colors, counts = np.unique(packed(mask)[stray], return_counts=True)
        most = colors[counts.argsort(kind="stable")[::-1]]
        shown = "; ".join(f"{value & 255},{value >> 8 & 255},{value >> 16}" for value in most[:3].tolist())
        shown += f" and {len(most) - 3} more" if len(most) > 3 else ""
        if len(most) > len(classes):
            cure = "so many colours come from smoothing or JPEG; export again, resize by nearest neighbour"
            return Strays(f"holds colour {shown} {where}", cure)
        cure = "correct the mask, or add the colour to the class file"
        return Strays(f"holds colour {shown} {where}", cure, shown)
    values = np.unique(mask[stray]).tolist()
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    known = f"(ids {ranges([v for v, c in classes.mask_ids if c != classes.ignored])}, ignored "
    known += f"{ranges([v for v, c in classes.mask_ids if c == classes.ignored])})"
    if cause := _cause_of_ids(values, np.unique(mask).tolist(), stray, classes):
        return Strays(f"holds id {shown} {where} {known}", cause)
    cure = "correct the mask, or add the id as a class or to the ignored ids"
    return Strays(f"holds id {shown} {where} {known}", cure, shown)


def _cause_of_ids(strays: list[int], values: list[int], stray: np.ndarray, classes: ClassTable) -> str:
    """The cure of what looks like one fault of many masks; else nothing."""
    grey = turned_grey(values, classes)
    if grey:
        return grey
    if set(strays) <= {*range(250, 256)} and len(classes) <= 3:
        return "a mask of 0 and 255 must be saved as 0 and 1"
    if len(classes) == 19 and set(strays) <= set(range(34)) and max(strays) > 18:
        return "these look like Cityscapes labelIds, not trainIds; name them *_labelIds.png, for --dataset cityscapes"
    if strays == [len(classes)]:
        from_1 = "give each class its id in the class file"
        cure = f"it is one past the last class: where 0 is no data, ids begin at 1, so {from_1} and write ignore: [0]; "
        cure += "else write it under ignore in the class file if it is void, or as a class"
        if 0 not in values:
            cure = f"ids seem to begin at 1: {from_1}"
        if classes.header:
            cure += f"; the first line of the class file, {classes.header!r}, is read as a header: if it is a class, "
            cure += "write the names into classes.yaml, one '- name' a line"
        return cure
    if numbered := _numbered_things(strays, values, classes):
        return numbered
    if len(strays) >= 8 and stray.mean() < 0.5:
        return "so many ids come from a smooth resize; resize masks by nearest neighbour"
    if len(values) == len(classes) == 2 and strays == values[1:]:
        return "give each class the id that it has in the masks in the class file, or save ids that count from 0"
    return ""


INSTANCE_BASES = (1000, 256)  # of Cityscapes' instanceIds and COCO panoptic's, of Vistas'
NUMBERED = range(4, 200)  # things of one image; what is resized smoothly between 0 and 255 goes further


def _numbered_things(strays: list[int], values: list[int], classes: ClassTable) -> str:
    """The cure of a mask whose ids number single things, from 1 on or beside their class; else nothing."""
    bases = [base for base in INSTANCE_BASES if all(v >= base and v // base in classes.ids for v in strays)]
    if bases and len(strays) > 1:
        base = min(bases, key=lambda base: max(v % base for v in strays))
        return f"ids seem to be {base} times the class plus the number of a thing (instances): save id // {base}"
    counted = [v for v in values if v and v not in classes.ignore_ids]
    if len(counted) in NUMBERED and counted == [*range(1, len(counted) + 1)] and len(strays) >= NUMBERED[0]:
        cure = "save the class of each thing, not its number; or add the classes that the class file lacks"
        return f"ids 1 to {len(counted)} without a gap may number single things (instances): {cure}"
    return ""


def turned_grey(values: list[int], classes: ClassTable) -> str:
    """The cure of a mask whose every value is the grey of a class's colour; else nothing."""
    greys = _greys(classes)
    several = len({*values} - {0, 255}) > 1 or classes.mask_colors  # one value may be there by chance
    if len(greys) > 64 or not several or not {*values} <= greys:
        return ""
    return "its values are the class colours turned to grey: export the palette or RGB mask itself"


@lru_cache(maxsize=8)
def _greys(classes: ClassTable) -> frozenset[int]:
    """What the usual programs make of the class colours, and of black, white and VOC's border, in grey."""
    from PIL import Image

    colors = [*(color for color, _ in classes.mask_colors), *classes.colors, (0,) * 3, (255,) * 3, (224, 224, 192)]
    row = np.array([colors], np.uint8)
    pillow = np.array(Image.fromarray(row).convert("L"))
    return frozenset(np.unique([cv2.cvtColor(row, cv2.COLOR_RGB2GRAY), pillow]).tolist())


def other_palette(path: Path, held: Iterable[int], classes: ClassTable) -> bool | None:
    """Whether every colour that a palette image holds is in the class table, where one means another class than its
    index does; None where none does."""
    palette = palette_of(path) if classes.mask_colors else None
    if palette is None:
        return None
    values = np.array([value for value in held if value < len(palette)], np.intp)
    by_color = lookup(palette[values][None], classes)[0]
    by_index = lookup(values[None].astype(np.uint8), classes)[0]
    known = by_color != classes.stray
    return bool(known.all()) if (by_color != by_index)[known].any() else None


def palette_in_doubt(path: Path, classes: ClassTable) -> bool:
    """Whether a class's colour in the file's palette is that of another one; reads the header alone."""
    palette = palette_of(path) if classes.mask_colors else None
    if palette is None:
        return False
    ids = [(i, c) for i, c in enumerate(classes.ids) if c < len(palette)]
    by_color = lookup(palette[[c for _, c in ids]][None], classes)[0]
    return any(found not in (classes.stray, i) for found, (i, _) in zip(by_color, ids, strict=True))


def ranges(ids: list[int]) -> str:
    """``0-10, 255`` rather than every number."""
    parts: list[list[int]] = []
    for i in sorted(ids):
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(f"{low}-{high}" if high > low else str(low) for low, high in parts) or "none"
