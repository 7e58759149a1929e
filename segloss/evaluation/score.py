"""Sources -> results of each image -> totals and scores, at the labels' own resolution."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from segloss.evaluation.comparison import common_images
from segloss.evaluation.parts import part, parts_of
from segloss.evaluation.results import Totals
from segloss.evaluation.shares import fill, merge
from segloss.evaluation.source import Source
from segloss.evaluation.store import ResultStore
from segloss.evaluation.summary import summarise
from segloss.progress import Progress
from segloss.ranks import here
from segloss.schema import RunScores


def measure(source: Source, store: Path | None = None, progress: Progress | None = None) -> Totals:
    """The totals of a source; with a ``store`` its results go through that file, and those there are not made again."""
    totals = measure_together(source, store, progress)
    assert totals is not None  # as on the first process, or the only one
    return totals


def measure_together(source: Source, store: Path | None, progress: Progress | None = None) -> Totals | None:
    """As :func:`measure`, a share by each process of the job; the totals on the first, None on the others.

    The others keep theirs in stores of their own beside that of the first until it has them, so that a job that was
    killed goes on where it stopped.
    """
    if store is None and here().size == 1:
        results = source.results(())
        return Totals.of(result for _, result in (results if progress is None else progress(results, len(source))))
    if store is None:
        with TemporaryDirectory() as folder:
            return measure_together(source, Path(folder) / "results.sqlite", progress)
    rank = here().rank
    own = store.with_name(f"{store.name}.rank{rank}") if rank else store  # no other source's, whatever its name is
    with ResultStore(own, source.key()) as kept:
        fill(source, kept, progress)
        totals = None if rank else Totals.of(kept)
    left = [path for path in store.parent.glob(f"{escape(store.name)}.rank*") if path.suffix[5:].isdigit()]
    for path in (own,) if rank else left:
        with suppress(OSError):
            path.unlink()
    return totals


def measure_merged(source: Source, store: Path, stores: Sequence[Path]) -> Totals:
    """The totals of what other jobs have scored (:func:`segloss.evaluation.shares.merge`), kept in ``store``."""
    with ResultStore(store, source.key()) as kept:
        merge(source, kept, stores)
        return Totals.of(kept)


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
    sources: Sequence[Source],
    folder: Path,
    *,
    protocol: str,
    by: str | None,
    progress: Callable[[str], Progress],
    merged: Mapping[str, Sequence[Path]] | None = None,
) -> tuple[dict[str, RunScores], dict[str, Totals]]:
    """Scores and totals of every source by its name, all over the images that all of them have.

    Where a source has more, ``own`` of its scores is its mean over all of these. Of the processes of a job
    (:mod:`segloss.ranks`) each scores a share, and the first has the scores; the others have none.

    Args:
        sources: their results go through ``folder``/NAME.sqlite.
        by: ``folder`` or ``sequence``: also the mean over the images of each (:func:`part_of`).
        merged: the stores of each, where other jobs have scored it.
    """
    totals: dict[str, Totals] = {}
    for source in sources:
        store = folder / f"{source.name}.sqlite"
        if merged is not None:
            totals[source.name] = measure_merged(source, store, merged[source.name])
        elif (found := measure_together(source, store, progress(f"scoring {source.name}"))) is not None:
            totals[source.name] = found
    if here().rank:
        return {}, {}
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
