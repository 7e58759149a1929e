"""Examines files and splits, and tells what is wrong with them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.datasets.bands import Bands, read_bands
from segloss.datasets.base import size_mismatch
from segloss.datasets.classes import IGNORED_NAMES, ClassTable
from segloss.datasets.images import image_size, read_header
from segloss.datasets.labelled import FILE, called, fits
from segloss.datasets.masks import (
    class_histogram,
    describe_strays,
    id_histogram,
    id_table,
    lookup,
    nodata_doubt,
    other_palette,
    packed,
    palette_in_doubt,
    palette_of,
    read_mask,
)
from segloss.datasets.rows import LARGE, mask_rows
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, look_like_train_ids
from segloss.datasets.tiffs import tiff_corners
from segloss.doctor.findings import SAMPLE, Fault, Finding, PairFacts, Severity, SplitFacts, more_files
from segloss.doctor.neighbours import neighbours
from segloss.doctor.same_images import same_images
from segloss.doctor.skipped import skipped_files
from segloss.errors import InputError, cure_of_black_and_white, refuse_errors
from segloss.evaluation.doubts import FEWEST, palettes_apart, reduced_ids
from segloss.evaluation.headers import header_doubts
from segloss.losses.labels import IGNORE_INDEX
from segloss.pixel_counts import available_cores, image_histograms
from segloss.progress import Progress
from segloss.ranks import here

MOSTLY_IGNORED = 0.8
BLACK_AND_WHITE = {0, 255}  # ids of a mask that a drawing program saved
OF_OPACITY = 0.9  # of the pixels are 0 or full; the others are on soft edges
OFF_PLACE = 0.6  # pixels; half a one lies between points and areas
MOST_LINES = 5  # on stray values of one split that have no common cause


def examine(
    datasets: Sequence[SegmentationDataset], check: str = "all", progress: Progress | None = None
) -> tuple[list[Finding], list[SplitFacts]]:
    """Everything wrong with the splits of a data set.

    Args:
        datasets: the splits, built with ``lonely=True`` so that what does not pair is seen here.
        check: ``"all"`` decodes every file; ``"sample"`` 16 of each split, and looks at the names of all and, for
            images that occur twice, at both ends of files of one length.
        progress: wraps the iteration over the files.

    The processes of a job (:mod:`segloss.ranks`) look at a share of the files each; the first has the findings.

    Returns:
        Findings, errors first, and the facts of each split.
    """
    splits = [_examine_split(dataset, check, progress) for dataset in datasets]
    if here().rank:
        return [], splits
    findings: list[Finding] = []
    for facts in splits:
        findings += [*_unpaired(facts.dataset), *_faults_of_files(facts), *_label_map(facts, check)]
    findings += [*same_images(splits, check), *neighbours(datasets), *_rows_without_image(datasets)]
    findings += [*skipped_files(datasets), *_palettes(splits)]
    return sorted(findings, key=lambda finding: finding.severity != "error"), splits


def _examine_split(dataset: SegmentationDataset, check: str, progress: Progress | None) -> SplitFacts:
    count = len(dataset) if check == "all" else min(SAMPLE, len(dataset))
    places = [(2 * k + 1) * len(dataset) // (2 * count) for k in range(count)]
    pool, share = ThreadPoolExecutor(available_cores()), here().share(places)
    try:
        results: Iterable[PairFacts] = pool.map(lambda place: examine_pair(dataset, place, check == "all"), share)
        found = here().whole(list(progress(results, len(share)) if progress else results), count)
        others = [place for place in sorted({*range(len(dataset))} - {*places}) if dataset.pairs[place][0].is_file()]
        faults = here().whole([*pool.map(partial(_faults_of_headers, dataset), here().share(others))], len(others))
        header_faults = [*(fault for some in faults for fault in some), *_without_nodata(dataset)]
        return SplitFacts(dataset, places, found, header_faults)
    finally:
        pool.shutdown(cancel_futures=True)


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
        if digest:
            facts.digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() + str(image.shape)
    except InputError as error:
        facts.faults.append(Fault("image", error))
    if mask_path is None:
        return facts
    try:
        mask = read_mask(mask_path)
    except InputError as error:
        facts.faults.append(Fault("mask", error))
        return facts
    if image is not None and image.shape[:2] != mask.shape[:2]:
        facts.faults.append(Fault("size", size_mismatch(mask_path, mask.shape, image_path, image.shape)))
    facts.faults += _faults_of_place(image_path, mask_path)
    labels = _examine_labels(facts, mask, dataset.classes, mask_path)
    if empty is not None and empty.shape == labels.shape:  # of pixels without data nothing is learnt
        labels = np.where(empty, labels.dtype.type(dataset.classes.ignored), labels)
    facts.histogram = class_histogram(labels, len(dataset.classes))  # of stray pixels nothing is known
    _examine_whole(facts, dataset, place, mask_path)
    return facts


def _examine_labels(facts: PairFacts, mask: np.ndarray, classes: ClassTable, path: Path) -> np.ndarray:
    """Class numbers of a mask or of some of its rows; what is wrong with them is noted once of each file."""
    labels = lookup(mask, classes)
    if mask.ndim == 2:
        counts = id_histogram(mask)
        facts.ids.update({value: int(counts[value]) for value in np.flatnonzero(counts).tolist()})
    if not facts.has("nodata") and (doubt := nodata_doubt(mask, classes, path)) is not None:
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
        read, facts.histogram = mask_rows(path), np.zeros(len(dataset.classes) + 1, np.int64)
        for top in range(0, height, rows := max(1, LARGE // 64 // width)):
            labels = _examine_labels(facts, read(top, min(height, top + rows)), dataset.classes, path)
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
    """Of two GeoTIFFs that do not begin and end at the same place."""
    if not all(path.suffix.lower() in (".tif", ".tiff") for path in (image, mask)):
        return
    with suppress(InputError):  # found out where it is read
        ours, theirs = tiff_corners(image), tiff_corners(mask)
        if ours is None or theirs is None or image_size(image) != image_size(mask):  # which is a fault of its own
            return
        off = np.abs(theirs - ours) / np.abs(np.diff(ours, axis=0) / image_size(image)[::-1])
        if (off > OFF_PLACE).any():
            columns, rows = off.max(0)
            what = f"is of another place than its image: {columns:,.1f} columns, {rows:,.1f} rows off by their tags"
            cure = "check which image it belongs to, or warp it onto the grid of the image"
            yield Fault("place", InputError(what, cure, mask), "warning")


def _faults_of_part(dataset: SegmentationDataset, path: Path, left_out: np.ndarray) -> Iterator[Fault]:
    if left_out.any():
        names = ", ".join(name for name, out in zip(dataset.classes.names, left_out, strict=False) if out)
        listed = dataset.labelled.path.name if dataset.labelled else FILE
        what = f"holds {names}, for which {listed} does not list it: these pixels are ignored"
        yield Fault("part", InputError(what, "list the class there, or save the pixels as ignored", path), "warning")


def _rows_without_image(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Rows of ``labelled_classes.csv`` that are of no image, looked for among all splits."""
    labelled = next((dataset.labelled for dataset in datasets if dataset.split == "train"), None)
    if labelled is None:
        return
    names = [name for dataset in datasets for forms in called(dataset, labelled.path.parent) for name in forms]
    idle = [pattern for pattern, _ in labelled.rows if not any(fits(pattern, name) for name in names)]
    if idle:
        what = f"has the row {idle[0]}{f' (and {len(idle) - 1} more)' if idle[1:] else ''}, which no image's name fits"
        cure = f"write it as the images are named, as {names[0]}"
        yield Finding("warning", "all splits", InputError(what, cure, labelled.path))


def _faults_of_palette(dataset: SegmentationDataset, path: Path, values: Iterable[int]) -> Iterator[Fault]:
    """A warning where some of the palette's colours are no class's: others may be one's by chance."""
    every = other_palette(path, values, dataset.classes)
    if every is not None:
        what = "its palette shows other classes than its indices"
        fault = InputError(what, "give each class its id in the class file", path)
        yield Fault("palette", fault, "error" if every else "warning")


def _palettes(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """An index that has another colour from mask to mask, as of programs that order the palette of each picture."""
    pixels, first = Counter[tuple[int, int]](), dict[tuple[int, int], tuple[str, Path | None]]()
    for facts in splits:
        known = id_table(facts.dataset.classes) < len(facts.dataset.classes)
        for place, pair in zip(facts.places, facts.pairs, strict=True):
            for value, color in pair.colors.items():
                if known[value]:
                    pixels[value, color] += pair.ids[value]
                    first.setdefault((value, color), (facts.dataset.split, facts.dataset.pairs[place][1]))
    found: dict[int, list[int]] = defaultdict(list)
    for (value, color), count in pixels.most_common():
        if count >= FEWEST:
            found[value].append(color)
    apart = next((value for value, colors in found.items() if len(colors) > 1), None)
    if apart is not None:
        one, (split, other) = (first[apart, color] for color in found[apart][:2])
        yield Finding("warning", split, palettes_apart("masks", apart, found[apart], (f"in {one[1]}", "here"), other))


def _faults_of_headers(dataset: SegmentationDataset, place: int) -> list[Fault]:
    """What the headers of a pair say that is not decoded; a palette in doubt is."""
    image, mask = dataset.pairs[place]
    with suppress(InputError, OSError):  # a file that cannot be read is found out where it is
        palette = mask is not None and palette_in_doubt(mask, dataset.classes)
        found = [*_faults_of_header(image, dataset.bands)]
        found += _faults_of_place(image, mask) if mask else ()
        return [*found, *(_faults_of_palette(dataset, mask, np.unique(read_mask(mask))) if mask and palette else ())]
    return []


def _without_nodata(dataset: SegmentationDataset) -> Iterator[Fault]:
    """Images that name no nodata value where most do, as the headers of all say: what it stands for is read as data."""
    headers = {} if dataset.made_up or dataset.bands.is_rgb else dataset.headers()
    named = [header.nodata for header in headers.values() if header.nodata]
    for path, header in headers.items() if 2 * len(named) > len(headers) else ():
        if not header.nodata:
            fault = InputError(
                f"names no nodata value, most images do ({named[0]})", "set it if it has such pixels", path
            )
            yield Fault("nodata", fault, "warning")


def check_histograms(dataset: SegmentationDataset, histograms: np.ndarray, *, has_switch: bool = True) -> None:
    """InputError where masks of two classes are 0 and 255 among masks of 0 and 1, as the counts of all show.

    Args:
        dataset: the split.
        histograms: pixels of each class in each image, ``(images, C + 1)``, the ignored ones last.
        has_switch: whether the command that asks knows ``--check off``.
    """
    classes = dataset.classes
    if not _may_be_black_and_white(dataset):
        return
    zero = classes.ids.index(0)
    second, ignored = histograms[:, 1 - zero] > 0, histograms[:, -1] > 0
    suspects = (histograms[:, zero] > 0) & ~second & ignored
    elsewhere = ignored & ~suspects & histograms[:, :-1].any(1)  # not of what is 255 all over
    if suspects.any() and second.any() and not elsewhere.any():
        files = [dataset.pairs[place][1] for place in np.flatnonzero(suspects)]
        raise _black_and_white_error(files, f"0 and {classes.ids[1 - zero]}", has_switch)


def _may_be_black_and_white(dataset: SegmentationDataset) -> bool:
    """Whether 255 may be meant as the second class of some masks, by the class table."""
    classes = dataset.classes
    if len(classes) != 2 or 0 not in classes.ids or classes.ignore_ids != (IGNORE_INDEX,):
        return False
    return dataset.labelled is None  # else ignored pixels may be of a class that the image does not label


def _black_and_white_error(files: list[Path | None], listed: str, has_switch: bool = True) -> InputError:
    what = f"holds 0 and 255 alone{more_files(files)}, while other masks hold {listed}"
    off = ", or --check off if it is meant to be ignored" if has_switch else ""
    return InputError(what, f"save 255 as the second class{off}", files[0])


def _unpaired(dataset: SegmentationDataset) -> Iterator[Finding]:
    found = dataset.found
    if images := [*found.lonely_images.values()]:
        what = f"image without mask in {found.mask_place}{more_files(images)}"
        yield Finding("error", dataset.split, InputError(what, "add the mask or remove the image", images[0]))
    if masks := [*found.lonely_masks.values()]:
        what = f"mask without image, passed over{more_files(masks)}"
        yield Finding("warning", dataset.split, InputError(what, "add the image or remove the mask", masks[0]))


def _faults_of_files(facts: SplitFacts) -> Iterator[Finding]:
    """One finding per kind of fault and cure: the first file, and how many more.

    Stray values that have no common cause are told apart, up to ``MOST_LINES`` of them.
    """
    kinds: dict[tuple[str, str, str], list[Fault]] = defaultdict(list)
    for fault in (*(fault for pair in facts.pairs for fault in pair.faults), *facts.header_faults):
        key = (fault.kind, fault.error.cure, fault.values)
        few = sum(bool(values) for _, _, values in kinds) < MOST_LINES or key in kinds
        kinds[key if few else (*key[:2], "")].append(fault)
    for faults in kinds.values():
        first = faults[0].error
        every = InputError(f"{first.what}{more_files(faults)}", first.cure, first.where)
        yield Finding(faults[0].severity, facts.dataset.split, every)


def _label_map(facts: SplitFacts, check: str) -> Iterator[Finding]:
    """Faults that show only in what all masks hold together."""
    dataset, counts = facts.dataset, facts.histogram
    split, seen = dataset.split, f"the {len(facts.pairs)} masks examined"
    yield from _blank(facts)
    if dataset.has_labels and counts.sum() and not any(pair.has("stray") for pair in facts.pairs):
        yield from (*_classes_present(facts, check, seen), *_black_and_white(facts), *_train_ids(facts, seen))
        yield from _reduced_ids(facts, seen)
        if counts[-1] > MOSTLY_IGNORED * counts.sum():
            what = f"{counts[-1] / counts.sum():.0%} of the pixels are ignored in {seen}"
            yield Finding("warning", split, InputError(what, "check the ids under ignore in the class file"))
    void = [name for name in dataset.classes.names if name.lower() in IGNORED_NAMES]
    if void and dataset.has_labels:
        what = f"class {void[0]!r} is trained and scored like any other"
        yield Finding("warning", split, InputError(what, "put its id under ignore in the class file"))


def _blank(facts: SplitFacts) -> Iterator[Finding]:
    """Images of one colour: all of them, or some of which pixels are labelled."""
    pairs = [(facts.dataset.pairs[place][0], pair) for place, pair in zip(facts.places, facts.pairs, strict=True)]
    blank = [(path, pair) for path, pair in pairs if pair.blank]
    if blank and len(blank) == len(pairs):
        what, cure = f"every image is of one colour, of the {len(pairs)} examined", "check how they were exported"
        yield Finding("error", facts.dataset.split, InputError(what, cure, pairs[0][0]))
    elif seen := [path for path, pair in blank if pair.histogram is None or pair.histogram[:-1].any()]:
        what = f"is of one colour{more_files(seen)}"
        cure = "replace it, or remove it and its mask"
        yield Finding("warning", facts.dataset.split, InputError(what, cure, seen[0]))


def _classes_present(facts: SplitFacts, check: str, seen: str) -> Iterator[Finding]:
    names, split = facts.dataset.classes.names, facts.dataset.split
    present = [name for name, pixels in zip(names, facts.histogram[:-1], strict=True) if pixels]
    if len(present) < 2:
        what = f"only {present[0] if present else 'ignored pixels'} in {seen}"
        if facts.values == BLACK_AND_WHITE:
            first = facts.masks_where(lambda values: IGNORE_INDEX in values)[0]
            cure = cure_of_black_and_white(names)
            yield Finding("error", split, InputError(f"{what}, which hold 0 and 255 alone", cure, first))
            return
        if not present and not any(_has_valid(facts.dataset, place) for place in range(len(facts.dataset))):
            yield Finding(
                "error", split, InputError("has no pixel that is not ignored", "check the ids in the class file")
            )
            return
        # A rare class may be in none of a sample, and in none of a small split.
        severity: Severity = "error" if split == "train" and check == "all" else "warning"
        cure = "check the ids in the class file" + ("" if check == "all" else ", or look at all with --check all")
        yield Finding(severity, split, InputError(what, cure))
    elif check == "all" and len(present) < len(names):
        absent = [name for name in names if name not in present]
        what = f"no pixel of {', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''}"
        cure = f"check the class file, or accept that they are not {'learnt' if split == 'train' else 'scored'}"
        yield Finding("warning", split, InputError(what, cure))


def _has_valid(dataset: SegmentationDataset, place: int) -> bool:
    try:
        return bool(dataset.histogram(place)[:-1].sum())
    except InputError:
        return True  # found out where it is counted


def _black_and_white(facts: SplitFacts) -> Iterator[Finding]:
    """Masks of 0 and 255 among masks of 0 and 1: their second class would be ignored."""
    files = facts.masks_where(lambda values: values == BLACK_AND_WHITE)
    others = [pair.values for pair in facts.pairs if pair.values and pair.values != BLACK_AND_WHITE]
    if len(facts.dataset.classes) > 2 or IGNORE_INDEX in facts.dataset.classes.ids or not files or not others:
        return
    if any(IGNORE_INDEX in values for values in others) or not any(values - {0} for values in others):
        return  # 255 is ignored elsewhere too; or nothing else is there, which is said already
    listed = " and ".join(map(str, sorted(frozenset().union(*others))))
    yield Finding("error", facts.dataset.split, _black_and_white_error(files, listed))


def _train_ids(facts: SplitFacts, seen: str) -> Iterator[Finding]:
    """Cityscapes' trainIds under the name of labelIds."""
    classes = facts.dataset.classes
    if classes.ids == CITYSCAPES.ids and look_like_train_ids(facts.values, classes):
        what = f"no id above 18 in {seen}: these are trainIds, read as labelIds"
        fault = InputError(what, f"name trainId masks *{LABEL_ENDINGS['trainIds']}.png")
        yield Finding("error", facts.dataset.split, fault)


def _reduced_ids(facts: SplitFacts, seen: str) -> Iterator[Finding]:
    fault = reduced_ids(seen, facts.values, facts.dataset.classes)
    if fault is not None:
        yield Finding("warning", facts.dataset.split, fault)


def check_scored(datasets: Sequence[SegmentationDataset], check: str, say: Callable[[str], None] = print) -> None:
    """The first step of evaluation: as :func:`check_before` and, where the class table leaves that doubt, every mask.

    Raises:
        InputError: as :func:`check_before` and :func:`check_histograms`.
    """
    check_before(datasets, check, say)
    for dataset in datasets if check != "off" else ():
        if dataset.has_labels and _may_be_black_and_white(dataset):
            check_histograms(dataset, image_histograms(dataset)[0].numpy())


def check_before(datasets: Sequence[SegmentationDataset], check: str, say: Callable[[str], None] = print) -> None:
    """The first step of training and evaluation: warnings are said, errors refused.

    Raises:
        InputError: the first error, and how to see all of them.
    """
    if check == "off" or all(dataset.made_up for dataset in datasets):
        return
    findings, _ = examine(datasets, check)
    for finding in findings:
        if finding.severity == "warning":
            say(f"warning: {finding}")
    refuse_errors(findings, "python -m segloss.doctor")
