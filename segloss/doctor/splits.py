"""What is wrong with a split as a whole, or with all of them: what shows in no single file."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.datasets.base import require_same_classes
from segloss.datasets.classes import void_among
from segloss.datasets.labelled import called, fits
from segloss.datasets.masks import (
    id_table,
)
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, look_like_train_ids
from segloss.doctor.findings import Fault, Finding, Severity, SplitFacts, more_files
from segloss.errors import InputError, cure_of_black_and_white
from segloss.evaluation.doubts import FEWEST, palettes_apart, reduced_ids
from segloss.losses.labels import IGNORE_INDEX

MOSTLY_IGNORED = 0.8
BLACK_AND_WHITE = {0, 255}  # ids of a mask that a drawing program saved
FAR_APART, FEWEST_MASKS = 0.5, 3  # shares of a class, and masks of a split, by which it seems inverted
MOST_LINES = 5  # on stray values of one split that have no common cause


def other_classes(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    try:
        require_same_classes(datasets)
    except InputError as error:
        yield Finding("error", "all splits", error)


def unpaired(dataset: SegmentationDataset) -> Iterator[Finding]:
    found = dataset.found
    if images := [*found.lonely_images.values()]:
        what = f"image without mask in {found.mask_place}{more_files(images)}"
        yield Finding("error", dataset.split, InputError(what, "add the mask or remove the image", images[0]))
    if masks := [*found.lonely_masks.values()]:
        what = f"mask without image, passed over{more_files(masks)}"
        yield Finding("warning", dataset.split, InputError(what, "add the image or remove the mask", masks[0]))


def faults_of_files(facts: SplitFacts) -> Iterator[Finding]:
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


def label_map(facts: SplitFacts, check: str) -> Iterator[Finding]:
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
    if (void := void_among(dataset.classes.names)) and dataset.has_labels:
        what = f"class {void[0]!r} is trained and scored like any other"
        yield Finding("warning", split, InputError(what, void[1]))


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
    yield Finding("error", facts.dataset.split, black_and_white_error(files, listed))


def black_and_white_error(files: list[Path | None], listed: str, has_switch: bool = True) -> InputError:
    what = f"holds 0 and 255 alone{more_files(files)}, while other masks hold {listed}"
    off = ", or --check off if it is meant to be ignored" if has_switch else ""
    return InputError(what, f"save 255 as the second class{off}", files[0])


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


def turned_over(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Of two classes, a split where every mask holds most of the one that those of the first split hold least of."""
    shares = [
        [float(h[1] / h[:2].sum()) for pair in facts.pairs if (h := pair.histogram) is not None and h[:2].any()]
        for facts in splits
        if len(facts.dataset.classes) == 2 and facts.dataset.has_labels
    ]
    for facts, here in zip(splits[1:], shares[1:], strict=False):
        low, high = sorted((shares[0], here), key=lambda some: float(np.median(some or [0])))
        apart = max(low, default=1) < 0.5 < min(high, default=0) and np.median(high) - np.median(low) > FAR_APART
        if apart and min(len(low), len(high)) >= FEWEST_MASKS:
            name, (theirs, ours) = facts.dataset.classes.names[1], (f"{np.median(s):.0%}" for s in (shares[0], here))
            what = f"{name} is on {ours} of a mask, in {splits[0].dataset.split} on {theirs}, and no mask is like those"
            first = facts.dataset.pairs[facts.places[0]][1]
            cure = "check that the masks were not inverted: one id is one class in all splits"
            yield Finding("warning", facts.dataset.split, InputError(what, cure, first))


def without_nodata(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Images that name no nodata value where most of some split do, as the headers of all say: what it stands for is
    read as data."""
    headers = {d.split: d.headers() for d in datasets if not d.made_up and not d.bands.is_rgb}
    named = {split: [header.nodata for header in found.values() if header.nodata] for split, found in headers.items()}
    most = [(split, values[0]) for split, values in named.items() if 2 * len(values) > len(headers[split])]
    for split, found in headers.items() if most else ():
        if without := [path for path, header in found.items() if not header.nodata]:
            by, value = most[0]
            what = f"names no nodata value, most images of {by} do ({value}){more_files(without)}"
            yield Finding("warning", split, InputError(what, "set it if it has such pixels", without[0]))


def other_bands(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Images whose bands stand in another order than those of most, as the files themselves name them."""
    named = [(d.split, path, h.band_names) for d in datasets if not d.made_up for path, h in d.headers().items()]
    named = [(split, path, tuple(name.casefold() for name in names)) for split, path, names in named if names]
    if not named:
        return
    ((usual, count),) = Counter(names for *_, names in named).most_common(1)
    order = sorted(usual)
    shared = {*usual} if 2 * count > len(named) else set()  # else each may be of dates of its own
    moved = [one for one in named if one[2] != usual and (sorted(one[2]) == order or {*one[2]} & shared)]
    if moved:
        split, path, names = moved[0]
        first = next(path for _, path, names in named if names == usual)
        what = f"its bands are {', '.join(names)}, of most images {', '.join(usual)}, as {first}{more_files(moved)}"
        severity: Severity = "error" if sorted(names) == order else "warning"
        yield Finding(severity, split, InputError(what, "save the same bands in the same order", path))


def other_scaling(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Images whose files name another scale or offset of their numbers than most do; all are read as stored."""
    headers = [(d.split, path, h) for d in datasets if not d.made_up for path, h in d.headers().items()]
    deep = [(split, path, h) for split, path, h in headers if h.dtype != "uint8"]
    named = [(split, path, h.scaling or ((1.0, 0.0),) * h.bands) for split, path, h in deep]
    counts = Counter(scaling for *_, scaling in named)
    if len(counts) < 2 or len({*map(len, counts)}) > 1:  # of other numbers of bands more is told
        return
    ((usual, _),) = counts.most_common(1)
    others = [one for one in named if one[2] != usual]
    (split, path, scaling), first = others[0], next(path for _, path, scaling in named if scaling == usual)
    band = next(band for band, pair in enumerate(zip(scaling, usual, strict=True)) if pair[0] != pair[1])
    theirs, ours = (f"scale {scale:g} and offset {offset:g}" for scale, offset in (scaling[band], usual[band]))
    what = f"names {theirs} of band {band + 1}, {first.name} {ours}; both are read as stored{more_files(others)}"
    cure = "save all images in the same units, as gdal_translate -unscale -ot Float32 does"
    yield Finding("warning", split, InputError(what, cure, path))


def palettes(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
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


def rows_without_image(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
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
