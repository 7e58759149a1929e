"""Intervals and comparisons: a paired bootstrap over blocks of consecutive images, and over seeds.

Frames of a video resemble their neighbours, so whole blocks of consecutive images are drawn, not single ones (Künsch
1989, without overlap). Every run is scored on the same resampled images, so a difference between two runs is not
blurred by which images are hard. Where a setting was trained with several seeds, these are drawn too.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from segloss.errors import InputError
from segloss.evaluation.results import Totals
from segloss.metrics import none_if_nan, protocol_named
from segloss.schema import Comparison, Interval, Pair, RankedSetting

LEVEL = 0.95
RESAMPLES = 2000
AT_ONCE = 25  # resamples whose weights are in memory: 20 MB for 50,000 images


def block_weights(images: int, block: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each block of consecutive images is drawn, float64 ``(AT_ONCE or fewer, blocks)`` at a time."""
    blocks = -(-images // block)
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, AT_ONCE):
        size = min(AT_ONCE, resamples - start)
        yield generator.multinomial(blocks, np.full(blocks, 1 / blocks), size).astype(np.float64)


def class_ious(counts: np.ndarray) -> np.ndarray:
    """IoU per class ``(..., C)`` of ``(..., 3, C)``; NaN for a class in neither truth nor prediction."""
    hits, true, predicted = (counts[..., k, :].astype(np.float64) for k in range(3))
    with np.errstate(invalid="ignore"):
        return hits / (true + predicted - hits)


def block_sums(counts: np.ndarray, block: int) -> np.ndarray:
    """All that the scores of some images are read from, added up over blocks: float64 ``(blocks, 3 C + 2)``.

    Right, true and predicted pixels of each class (exact up to 2^53), of ``(images, 3, C)``; then, for the protocol
    per-image, the sum and the number of the IoUs of all pairs of an image and a class with a union.
    """
    ious = class_ious(counts)
    pairs = np.stack([np.nansum(ious, axis=1), (~np.isnan(ious)).sum(1)], axis=1)
    flat = np.concatenate([counts.reshape(len(counts), -1), pairs], axis=1)
    return np.add.reduceat(flat, np.arange(0, len(counts), block), axis=0)


def mean_and_ious(sums: np.ndarray, protocol: str = "cityscapes") -> np.ndarray:
    """The protocol's mean before the IoU of each class, ``(..., 1 + C)`` of :func:`block_sums`; NaN where none is."""
    rule = protocol_named(protocol)
    ious = class_ious(sums[..., :-2].reshape(*sums.shape[:-1], 3, -1))
    there = ~np.isnan(ious)
    with np.errstate(invalid="ignore"):
        if rule.per_image:
            mean = sums[..., -2] / sums[..., -1]
        elif rule.absent is None:
            mean = np.where(there, ious, 0).sum(-1) / there.sum(-1)
        else:
            mean = np.where(there, ious, rule.absent).mean(-1)
    return np.concatenate([mean[..., None], ious], axis=-1)


def resampled(
    runs: Sequence[np.ndarray], block: int, resamples: int, seed: int, protocol: str = "cityscapes"
) -> list[np.ndarray]:
    """:func:`mean_and_ious` of each run on each resample, ``(resamples, 1 + C)``; all see the same resamples."""
    blocks = [block_sums(counts, block) for counts in runs]
    weights = block_weights(len(runs[0]), block, resamples, seed)
    drawn = [[mean_and_ious(some @ sums, protocol) for sums in blocks] for some in weights]
    return [np.concatenate(of_run) for of_run in zip(*drawn, strict=True)]


def _intervals(values: np.ndarray, estimates: np.ndarray, several: bool) -> tuple[Interval, ...]:
    """Estimate and percentile interval of each column; no interval where nothing was there to draw from."""
    tail = 100 * (1 - LEVEL) / 2
    found = []
    for column, estimate in zip(values.T, estimates, strict=True):
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, [tail, 100 - tail]) if len(known) and several else (np.nan, np.nan)
        found.append(Interval(none_if_nan(float(estimate)), none_if_nan(float(low)), none_if_nan(float(high))))
    return tuple(found)


def common_images(names: Mapping[str, Sequence[str]]) -> list[str]:
    """The images that all runs have, in the first one's order; InputError if there is none."""
    first, *others = names.values()
    shared = set(first).intersection(*others)
    if not shared:
        raise InputError(f"no image is in all of {', '.join(names)}", "score them apart")
    return [name for name in first if name in shared]


def on_common_images(runs: Mapping[str, Totals]) -> dict[str, np.ndarray]:
    """``(images, 3, C)`` counts of each run, of the images that all have, in the first one's order.

    Where bad predictions are left out, two folders can lack different images; by place they would be paired wrongly.

    Raises:
        InputError: no image is in all of them.
    """
    names = common_images({run: totals.names for run, totals in runs.items()})
    places = {run: {name: place for place, name in enumerate(totals.names)} for run, totals in runs.items()}
    return {run: totals.counts[[places[run][name] for name in names]] for run, totals in runs.items()}


def compare(
    groups: Mapping[str, Sequence[np.ndarray]],
    *,
    block: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
    protocol: str = "cityscapes",
    members: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Intervals of every group of runs, and the paired differences of all pairs, ranked by mIoU.

    Args:
        groups: name -> ``(images, 3, C)`` right, true and predicted pixels per class of each of its runs (seeds); the
            same images in the same order everywhere.
        block: consecutive images drawn together; 1 for images that have nothing to do with each other.
        resamples, seed: of the bootstrap.
        protocol: the definition of the mean, one of :data:`segloss.metrics.PROTOCOLS`.
        members: the names of each group's runs; default: the group's.

    Returns:
        One block alone says nothing about other images: low, high and a_leads are None.

    Raises:
        ValueError: an unknown protocol.
        InputError: the runs were not scored on the same number of images or classes.
    """
    shapes = {counts.shape for runs in groups.values() for counts in runs}
    if len(shapes) != 1:
        found = " and ".join(f"{shape[0]} images of {shape[-1]} classes" for shape in sorted(shapes))
        raise InputError(f"only runs on the same images and classes can be compared, got {found}", "score them apart")
    images = next(iter(shapes))[0]
    of_runs = iter(resampled([c for runs in groups.values() for c in runs], block, resamples, seed, protocol))
    estimates, draws = {}, {}
    for name, runs in groups.items():
        estimates[name] = np.mean([mean_and_ious(block_sums(counts, images)[0], protocol) for counts in runs], axis=0)
        of_seeds = np.stack([next(of_runs) for _ in runs])
        generator = np.random.default_rng([seed, zlib.crc32(repr(name).encode())])  # whatever other groups there are
        chosen = generator.integers(0, len(runs), (len(runs), resamples))
        draws[name] = of_seeds[chosen, np.arange(resamples)].mean(0)
    ranked = sorted(estimates, key=lambda name: (np.isnan(estimates[name][0]), -estimates[name][0]))
    ranking = []
    for name in ranked:
        miou, *classes = _intervals(draws[name], estimates[name], images > block)
        runs_of = tuple((members or {}).get(name, [name]))
        ranking.append(RankedSetting(name, miou, tuple(classes), len(groups[name]), runs_of))
    return Comparison(
        level=LEVEL,
        block=block,
        resamples=resamples,
        protocol=protocol_named(protocol).name,
        images=images,
        ranking=tuple(ranking),
        pairs=tuple(_pair(a, b, estimates, draws, images > block) for a, b in combinations(ranked, 2)),
    )


def _pair(a: str, b: str, estimates: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray], several: bool) -> Pair:
    differences = draws[a] - draws[b]
    miou, *classes = _intervals(differences, estimates[a] - estimates[b], several)
    known = differences[~np.isnan(differences[:, 0]), 0]
    leads = float((known > 0).mean()) if len(known) and several else None
    return Pair(a, b, miou, tuple(classes), leads)
