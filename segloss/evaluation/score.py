"""Sources -> results of each image -> totals and scores, at the labels' own resolution."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segloss.datasets import ClassTable
from segloss.errors import Finding
from segloss.evaluation.comparison import common_images
from segloss.evaluation.parts import part, parts_of
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.store import ResultStore
from segloss.evaluation.summary import summarise
from segloss.progress import Progress
from segloss.schema import Origin, RunScores

Result = tuple[int, ImageResult]  # the image's place, and what was counted of it


class Source(Protocol):
    """Where results come from: a trained run, or a folder of predicted masks."""

    name: str
    classes: ClassTable
    training_pixels: tuple[int, ...] | None  # orders the classes for head, middle and tail

    def __len__(self) -> int: ...

    @property
    def names(self) -> Sequence[str]:
        """Of its images, in their order."""

    def describe(self) -> Origin:
        """What was scored, for the metrics schema."""

    def key(self) -> dict[str, Any]:
        """All that the results depend on."""

    def results(self, done: Collection[str]) -> Iterator[Result]:
        """(place, result) of every image whose name is not among those done."""

    def picture(self, name: str) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """Image, if there is one, labels and predicted class numbers of one sample."""

    def findings(self, totals: Totals) -> list[Finding]:
        """What makes its scores doubtful, errors first, by what was counted."""


def measure(source: Source, store: Path | None = None, progress: Progress | None = None) -> Totals:
    """The totals of a source; with a ``store`` its results go through that file, and those there are not made again."""
    if store is None:
        return Totals.of(result for _, result in _with_progress(source, (), progress))
    with ResultStore(store, source.key()) as kept:
        kept.add_all(_with_progress(source, kept.names(), progress))
        return Totals.of(kept)


def _with_progress(source: Source, done: Collection[str], progress: Progress | None) -> Iterable[Result]:
    results = source.results(done)
    return results if progress is None else progress(results, len(source))


def score(
    source: Source, *, store: Path | None = None, protocol: str = "cityscapes", progress: Progress | None = None
) -> tuple[RunScores, Totals]:
    """The metrics schema of docs/metrics.md, and the totals it was read from."""
    totals = measure(source, store, progress)
    return scores_of(source, totals, protocol), totals


def scores_of(source: Source, totals: Totals, protocol: str) -> RunScores:
    pixels = source.training_pixels
    return summarise(totals, source.classes, source.describe(), training_pixels=pixels, protocol=protocol)


def score_all(
    sources: Sequence[Source], folder: Path, *, protocol: str, by: str | None, progress: Callable[[str], Progress]
) -> tuple[dict[str, RunScores], dict[str, Totals]]:
    """Scores and totals of every source by its name, all over the images that all of them have.

    Where a source has more, ``own`` of its scores is its mean over all of these.

    Args:
        sources: their results go through ``folder``/NAME.sqlite.
        by: ``folder`` or ``sequence``: also the mean over the images of each (:func:`part_of`).
    """
    totals = {
        source.name: measure(source, folder / f"{source.name}.sqlite", progress(f"scoring {source.name}"))
        for source in sources
    }
    common = common_images({name: found.names for name, found in totals.items()})
    scores = {}
    for source in sources:
        name, whole = source.name, totals[source.name]
        own = None
        if whole.images > len(common):
            own = part("all of its own", whole.counts, protocol)
            totals[name] = totals_of_some(source, folder, set(common))
        parts = None if by is None else parts_of(totals[name], by, protocol)
        scores[name] = replace(scores_of(source, totals[name], protocol), own=own, parts=parts)
    return scores, totals


def totals_of_some(source: Source, folder: Path, chosen: set[str]) -> Totals:
    """Totals of the images of these names, from what was kept of them."""
    with ResultStore(folder / f"{source.name}.sqlite", source.key()) as kept:
        return Totals.of(result for result in kept if result.name in chosen)
