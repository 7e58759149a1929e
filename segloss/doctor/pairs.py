"""What is wrong with one image and its mask."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.datasets.bands import Bands, read_bands
from segloss.datasets.base import size_mismatch
from segloss.datasets.classes import ClassTable
from segloss.datasets.images import image_size, read_header
from segloss.datasets.labelled import FILE
from segloss.datasets.masks import (
    class_histogram,
    describe_strays,
    id_histogram,
    lookup,
    nodata_doubt,
    other_palette,
    packed,
    palette_in_doubt,
    palette_of,
    read_mask,
)
from segloss.datasets.rows import LARGE, gap_rows, mask_rows
from segloss.datasets.tiffs import tiff_gaps, tiff_grid, tiff_tags
from segloss.doctor.findings import Fault, PairFacts
from segloss.doctor.likeness import shown
from segloss.doctor.units import note_numbers
from segloss.errors import InputError
from segloss.evaluation.headers import header_doubts

OF_OPACITY = 0.9  # of the pixels are 0 or full; the others are on soft edges
OFF_PLACE = 0.6  # pixels; half a one lies between points and areas


def examine_pair(dataset: SegmentationDataset, place: int, digest: bool = False) -> PairFacts:
    """Read one image and its mask, and note what is wrong instead of raising."""
    image_path, mask_path = dataset.pairs[place]
    facts, image, mask, empty = PairFacts(), None, None, None
    try:
        if not dataset.made_up and dataset.is_large(place):
            return _examine_rows(dataset, place)
        image, empty = read_bands(image_path, dataset.bands)
        facts.faults += [*_faults_of_header(image_path, dataset.bands), *_faults_of_opacity(image_path, image)]
        facts.blank = bool((image == image[0, 0]).all())
        note_numbers(facts, image, dataset.bands, image_path)
        if digest:
            facts.digest = _digest(image)
            facts.thumbnail = None if facts.has("fill") else shown(image)  # of which it would show nothing else
    except InputError as error:
        facts.faults.append(Fault("image", error))
    if mask_path is None:
        return facts
    try:
        mask, tags = read_mask(mask_path), tiff_tags(mask_path)
        gaps = None if tags is None else tiff_gaps(mask_path, tags)
    except InputError as error:
        facts.faults.append(Fault("mask", error))
        return facts
    if image is not None and image.shape[:2] != mask.shape[:2]:
        facts.faults.append(Fault("size", size_mismatch(mask_path, mask.shape, image_path, image.shape)))
    facts.faults += _faults_of_place(image_path, mask_path)
    facts.mask_digest = _digest(mask)
    labels = _examine_labels(facts, mask, dataset.classes, mask_path, gaps)
    if empty is not None and empty.shape == labels.shape:  # of pixels without data nothing is learnt
        labels = np.where(empty, labels.dtype.type(dataset.classes.ignored), labels)
    facts.histogram = class_histogram(labels, len(dataset.classes))  # of stray pixels nothing is known
    _examine_whole(facts, dataset, place, mask_path)
    return facts


def _digest(pixels: np.ndarray) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest() + str(pixels.shape)


def _examine_labels(
    facts: PairFacts, mask: np.ndarray, classes: ClassTable, path: Path, gaps: np.ndarray | None
) -> np.ndarray:
    """Class numbers of a mask or of some of its rows; what is wrong with them is noted once of each file."""
    labels = lookup(mask, classes)
    if mask.ndim == 2:
        counts = id_histogram(mask)
        facts.ids.update({value: int(counts[value]) for value in np.flatnonzero(counts).tolist()})
    if not facts.has("nodata") and (doubt := nodata_doubt(mask, classes, path, gaps)) is not None:
        facts.faults.append(Fault("nodata", doubt, "warning"))
    stray = labels == classes.stray
    if not facts.has("stray") and stray.any():
        strays = describe_strays(mask, stray, classes)
        facts.faults.append(Fault("stray", strays.error(path), values=strays.values))
    return labels


def _examine_whole(facts: PairFacts, dataset: SegmentationDataset, place: int, path: Path) -> None:
    """What shows in all rows of a mask together: its palette, and classes that the image does not label."""
    if facts.ids and (palette := palette_of(path)) is not None:
        colors = packed(palette[None])[0].tolist()
        facts.colors = {value: colors[value] for value in sorted(facts.ids) if value < len(colors)}
        facts.faults += _faults_of_palette(dataset, path, facts.values)
    if dataset.labelled is not None and facts.histogram is not None:
        every, facts.histogram = facts.histogram, dataset.labelled.of_histogram(facts.histogram, place)
        facts.faults += _faults_of_part(dataset, path, every > facts.histogram)


def _examine_rows(dataset: SegmentationDataset, place: int) -> PairFacts:
    """As :func:`examine_pair`, of an image too large to be decoded: its header, and the rows of its mask."""
    image, path = dataset.pairs[place]
    facts, (height, width) = PairFacts(faults=[*_faults_of_header(image, dataset.bands)]), dataset.image_size(place)
    if path is None:
        return facts
    try:
        if (size := image_size(path)) != (height, width):
            facts.faults.append(Fault("size", size_mismatch(path, size, image, (height, width))))
            return facts
        facts.faults += _faults_of_place(image, path)
        read, gaps, facts.histogram = mask_rows(path), gap_rows(path), np.zeros(len(dataset.classes) + 1, np.int64)
        for top in range(0, height, rows := max(1, LARGE // 64 // width)):
            ends = top, min(height, top + rows)
            labels = _examine_labels(facts, read(*ends), dataset.classes, path, gaps and gaps(*ends))
            facts.histogram += class_histogram(labels, len(dataset.classes))
        _examine_whole(facts, dataset, place, path)
    except InputError as error:
        facts.faults.append(Fault("mask", error))
    return facts


def _faults_of_header(image: Path, bands: Bands) -> Iterator[Fault]:
    header = read_header(image)
    try:
        bands.require(header, image)
    except InputError as error:
        yield Fault("image", error)
        return
    for kind, doubt in header_doubts(image, header, bands):
        yield Fault(kind, doubt, "warning")


def _faults_of_opacity(path: Path, image: np.ndarray) -> Iterator[Fault]:
    """A band of opacity that is transparent at some pixels; an infrared one that is only called so is none."""
    last, count = image[..., -1], image.shape[2]
    if (count == 3 and image.dtype == np.uint8) or not read_header(path).alpha:
        return
    empty, full = (last == 0).mean(), (last == last.max()).mean()
    if 0 < empty < 1 and empty + full > OF_OPACITY:
        what = f"its last band is opacity, 0 on {empty:.1%} of the pixels, which is read as data"
        bands = "".join(f" -b {band}" for band in range(1, count))
        cure = f"write it as the image's mask, as gdal_translate{bands} -mask {count} does, or name a nodata value"
        yield Fault("opacity", InputError(what, cure, path), "warning")


def _faults_of_place(image: Path, mask: Path) -> Iterator[Fault]:
    """Of two GeoTIFFs whose corners do not lie at the same places."""
    if not all(path.suffix.lower() in (".tif", ".tiff") for path in (image, mask)):
        return
    with suppress(InputError):  # found out where it is read
        ours, theirs, (height, width) = tiff_grid(image), tiff_grid(mask), image_size(image)
        if ours is None or theirs is None or (height, width) != image_size(mask):  # which is a fault of its own
            return
        corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)]).T
        off = np.abs(np.linalg.solve(ours, theirs @ corners) - corners)
        if (off > OFF_PLACE).any():
            columns, rows, _ = off.max(1)
            what = f"is of another place than its image: {columns:,.1f} columns, {rows:,.1f} rows off by their tags"
            cure = "check which image it belongs to, or warp it onto the grid of the image"
            yield Fault("place", InputError(what, cure, mask), "warning")


def _faults_of_part(dataset: SegmentationDataset, path: Path, left_out: np.ndarray) -> Iterator[Fault]:
    if left_out.any():
        names = ", ".join(name for name, out in zip(dataset.classes.names, left_out, strict=False) if out)
        listed = dataset.labelled.path.name if dataset.labelled else FILE
        what = f"holds {names}, for which {listed} does not list it: these pixels are ignored"
        yield Fault("part", InputError(what, "list the class there, or save the pixels as ignored", path), "warning")


def _faults_of_palette(dataset: SegmentationDataset, path: Path, values: Iterable[int]) -> Iterator[Fault]:
    """A warning where some of the palette's colours are no class's: others may be one's by chance."""
    every = other_palette(path, values, dataset.classes)
    if every is not None:
        what = "its palette shows other classes than its indices"
        fault = InputError(what, "give each class its id in the class file", path)
        yield Fault("palette", fault, "error" if every else "warning")


def faults_of_headers(dataset: SegmentationDataset, place: int) -> list[Fault]:
    """What the headers of a pair say that is not decoded; a palette in doubt is."""
    image, mask = dataset.pairs[place]
    with suppress(InputError, OSError):  # a file that cannot be read is found out where it is
        palette = mask is not None and palette_in_doubt(mask, dataset.classes)
        found = [*_faults_of_header(image, dataset.bands)]
        found += _faults_of_place(image, mask) if mask else ()
        return [*found, *(_faults_of_palette(dataset, mask, np.unique(read_mask(mask))) if mask and palette else ())]
    return []
