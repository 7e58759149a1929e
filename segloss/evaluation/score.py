"""Sources -> results of each image -> totals and scores, at the labels' own resolution."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from segloss.datasets import ClassTable
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.store import ResultStore
from segloss.evaluation.summary import summarise
from segloss.progress import Progress

UNKNOWN_SHARE = 0.01  # of the valid pixels predicted as no class; above it the ids are doubtful


class Source(Protocol):
    """Where results come from: a trained run, or a folder of predicted masks."""

    name: str
    classes: ClassTable
    training_pixels: tuple[int, ...] | None  # orders the classes for head, middle and tail

    def __len__(self) -> int: ...

    def describe(self) -> dict:
        """What was scored, for the metrics schema."""

    def key(self) -> dict:
        """All that the results depend on."""

    def results(self, done: Collection[str]) -> Iterator[tuple[int, ImageResult]]:
        """(place, result) of every image whose name is not among those done."""


def measure(source: Source, store: Path | None = None, progress: Progress | None = None) -> Totals:
    """The totals of a source; with a ``store`` its results go through that file, and those there are not made again."""
    if store is None:
        return Totals.of(result for _, result in _with_progress(source, (), progress))
    with ResultStore(store, source.key()) as kept:
        kept.add_all(_with_progress(source, kept.names(), progress))
        return Totals.of(kept)


def _with_progress(source: Source, done: Collection[str], progress: Progress | None) -> Iterable:
    results = source.results(done)
    return results if progress is None else progress(results, len(source))


def score(
    source: Source, *, store: Path | None = None, protocol: str = "cityscapes", progress: Progress | None = None
) -> tuple[dict, Totals]:
    """The metrics schema of docs/metrics.md, and the totals it was read from."""
    totals = measure(source, store, progress)
    metrics = summarise(totals, source.classes, training_pixels=source.training_pixels, protocol=protocol)
    return {**source.describe(), **metrics}, totals


def doubtful_ids(source: Source, matrix: np.ndarray) -> str | None:
    """A line where masks seem to be written in other ids: more than 1 % no class, or several classes one off."""
    if not isinstance(source, MaskSource):
        return None
    count, pixels = len(matrix), max(1, matrix.sum())
    for step, where in ((-1, "before"), (1, "behind")):
        beside = np.diagonal(matrix[:, :count], step)
        share, of_true = beside.sum() / pixels, matrix.sum(1)[max(0, -step) :][: len(beside)]
        # Of several classes, not only of one that a weak model predicts everywhere.
        if share > 0.5 and np.count_nonzero(2 * beside > of_true) > 2:
            off = f"{share:.1%} of the pixels are predicted as the class {where} the true one"
            return f"warning: {source.name}: {off}; the ids seem to begin at another number than the class table's"
    share = matrix[:, count:].sum() / pixels
    if share <= UNKNOWN_SHARE:
        return None
    return f"warning: {source.name}: {share:.1%} of the pixels are predicted as no class; {source.cause_of_unknown()}"


def totals_of_some(source: Source, folder: Path, chosen: set[str]) -> Totals:
    """Totals of the images of these names, from what was kept of them."""
    with ResultStore(folder / f"{source.name}.sqlite", source.key()) as kept:
        return Totals.of(result for result in kept if result.name in chosen)
