"""Examines files and splits, and tells what is wrong with them."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.doctor.findings import SAMPLE, Finding, PairFacts, SplitFacts
from segloss.doctor.ground import shared_ground
from segloss.doctor.likeness import like_images
from segloss.doctor.neighbours import neighbours, shared_pictures, shared_scenes
from segloss.doctor.pairs import examine_pair, faults_of_headers
from segloss.doctor.same_images import same_images, same_masks
from segloss.doctor.skipped import skipped_files
from segloss.doctor.splits import (
    black_and_white_error,
    faults_of_files,
    label_map,
    other_bands,
    other_classes,
    other_scaling,
    palettes,
    rows_without_image,
    turned_over,
    unpaired,
    without_nodata,
)
from segloss.doctor.units import gray_beside_colour, other_units
from segloss.errors import refuse_errors
from segloss.losses.labels import IGNORE_INDEX
from segloss.pixel_counts import available_cores, image_histograms
from segloss.progress import Progress
from segloss.ranks import here


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
    findings = [*other_classes(datasets)]
    for facts in splits:
        findings += [*unpaired(facts.dataset), *faults_of_files(facts), *label_map(facts, check)]
    findings += [*same_images(splits, check), *neighbours(datasets), *rows_without_image(datasets)]
    findings += [*shared_scenes(datasets), *shared_ground(datasets), *like_images(splits)]
    findings += [*same_masks(splits), *turned_over(splits), *other_bands(datasets), *other_scaling(datasets)]
    findings += [*shared_pictures(datasets), *skipped_files(datasets), *palettes(splits)]
    findings += [*without_nodata(datasets), *other_units(splits), *gray_beside_colour(splits)]
    return sorted(findings, key=lambda finding: finding.severity != "error"), splits


def _examine_split(dataset: SegmentationDataset, check: str, progress: Progress | None) -> SplitFacts:
    count = len(dataset) if check == "all" else min(SAMPLE, len(dataset))
    places = [(2 * k + 1) * len(dataset) // (2 * count) for k in range(count)]
    pool, share = ThreadPoolExecutor(available_cores()), here().share(places)
    try:
        results: Iterable[PairFacts] = pool.map(lambda place: examine_pair(dataset, place, check == "all"), share)
        found = here().whole(list(progress(results, len(share)) if progress else results), count)
        others = [place for place in sorted({*range(len(dataset))} - {*places}) if dataset.pairs[place][0].is_file()]
        faults = here().whole([*pool.map(partial(faults_of_headers, dataset), here().share(others))], len(others))
        return SplitFacts(dataset, places, found, [fault for some in faults for fault in some])
    finally:
        pool.shutdown(cancel_futures=True)


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


def check_scored(datasets: Sequence[SegmentationDataset], check: str, say: Callable[[str], None] = print) -> None:
    """The first step of evaluation: as :func:`check_before` and, where the class table leaves that doubt, every mask.

    Raises:
        InputError: as :func:`check_before` and :func:`check_histograms`.
    """
    check_before(datasets, check, say)
    for dataset in datasets if check != "off" else ():
        if dataset.has_labels and _may_be_black_and_white(dataset):
            check_histograms(dataset, image_histograms(dataset)[0].numpy())


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
        raise black_and_white_error(files, f"0 and {classes.ids[1 - zero]}", has_switch)


def _may_be_black_and_white(dataset: SegmentationDataset) -> bool:
    """Whether 255 may be meant as the second class of some masks, by the class table."""
    classes = dataset.classes
    if len(classes) != 2 or 0 not in classes.ids or classes.ignore_ids != (IGNORE_INDEX,):
        return False
    return dataset.labelled is None  # else ignored pixels may be of a class that the image does not label
