"""Intervals and comparisons: a paired bootstrap over blocks of consecutive images, and over seeds.

Frames of a video resemble their neighbours, so whole blocks of consecutive images are drawn, not single ones (Künsch
1989, without overlap). Every run is scored on the same resampled images, so a difference between two runs is not
blurred by which images are hard. Where a setting was trained with several seeds, these are drawn too.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from segloss.errors import InputError
from segloss.results import Totals

LEVEL = 0.95
RESAMPLES = 2000
AT_ONCE = 100  # resamples: 8 MB of weights for 10,000 images


def block_weights(images: int, block: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each block of consecutive images is drawn, ``(resamples, blocks)``."""
    blocks = -(-images // block)
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, blocks), np.int32)
    for row in weights:
        row[:] = generator.multinomial(blocks, np.full(blocks, 1 / blocks))
    return weights


def block_counts(counts: np.ndarray, block: int) -> np.ndarray:
    """``(images, 3, C)`` right, true and predicted pixels of images, added up over blocks: ``(blocks, 3, C)``."""
    return np.add.reduceat(counts, np.arange(0, len(counts), block), axis=0)


def class_ious(counts: np.ndarray) -> np.ndarray:
    """IoU per class ``(..., C)`` of ``(..., 3, C)``; NaN for a class in neither truth nor prediction."""
    hits, true, predicted = (counts[..., k, :].astype(np.float64) for k in range(3))
    with np.errstate(invalid="ignore"):
        return hits / (true + predicted - hits)


def resampled_ious(counts: np.ndarray, block: int, weights: np.ndarray) -> np.ndarray:
    """IoU per class of each resample, ``(resamples, C)``; from ``(images, 3, C)``."""
    blocks = block_counts(counts, block)
    flat = blocks.reshape(len(blocks), -1).astype(np.float64)  # exact up to 2^53 pixels
    parts = np.array_split(weights, -(-len(weights) // AT_ONCE))
    sums = np.concatenate([part.astype(np.float64) @ flat for part in parts])
    return class_ious(sums.reshape(len(weights), *blocks.shape[1:]))


def _with_mean(ious: np.ndarray) -> np.ndarray:
    """The mean of the classes that are there, before the classes: ``(..., 1 + C)``; NaN where none is."""
    there = ~np.isnan(ious)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, ious, 0).sum(-1) / there.sum(-1)
    return np.concatenate([mean[..., None], ious], axis=-1)


def _interval(values: np.ndarray, estimate: np.ndarray, resampled: bool) -> list[dict[str, float | None]]:
    """Estimate and percentile interval of each column; no interval where nothing was there to draw from."""
    tail = 100 * (1 - LEVEL) / 2
    rows = []
    for column, value in zip(values.T, estimate, strict=True):
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, [tail, 100 - tail]) if len(known) and resampled else (np.nan, np.nan)
        numbers = {"estimate": value, "low": low, "high": high}
        rows.append({key: None if np.isnan(number) else float(number) for key, number in numbers.items()})
    return rows


def on_common_images(runs: Mapping[str, Totals]) -> dict[str, np.ndarray]:
    """``(images, 3, C)`` counts of each run, of the images that all have, in the first one's order.

    Where bad predictions are left out, two folders can lack different images; by place they would be paired wrongly.

    Raises:
        InputError: no image is in all of them.
    """
    every = list(runs.values())
    common = set(every[0].names).intersection(*(totals.names for totals in every[1:]))
    names = [name for name in every[0].names if name in common]
    if not names:
        raise InputError(f"no image was scored in all of {', '.join(runs)}; score them apart")
    places = [{name: place for place, name in enumerate(totals.names)} for totals in every]
    return {
        run: totals.counts[[place[name] for name in names]]
        for (run, totals), place in zip(runs.items(), places, strict=True)
    }


def compare(
    groups: dict[str, Sequence[np.ndarray]], *, block: int = 1, resamples: int = RESAMPLES, seed: int = 0
) -> dict:
    """Intervals of every group of runs, and the paired differences of all pairs, ranked by mIoU.

    Args:
        groups: name -> ``(images, 3, C)`` right, true and predicted pixels per class of each of its runs (seeds); the
            same images in the same order everywhere.
        block: consecutive images drawn together; 1 for images that have nothing to do with each other.
        resamples, seed: of the bootstrap.

    Returns:
        ``level``, ``block``, ``resamples``; ``ranking``: for each group ``name``, ``runs``, ``miou`` and ``classes``
        (estimate, low, high), best first; ``pairs``: for each pair ``a``, ``b`` (the better one first) the same of
        the difference a - b, and ``a_leads``: the share of resamples in which the mIoU of a is higher. One block
        alone says nothing about other images: low, high and a_leads are None.

    Raises:
        InputError: the runs were not scored on the same number of images or classes.
    """
    shapes = {counts.shape for runs in groups.values() for counts in runs}
    if len(shapes) != 1:
        found = " and ".join(f"{shape[0]} images of {shape[-1]} classes" for shape in sorted(shapes))
        raise InputError(f"only runs on the same images and classes can be compared, got {found}; score them apart")
    images = next(iter(shapes))[0]
    resampled = images > block
    weights = block_weights(images, block, resamples, seed)
    estimates, draws = {}, {}
    for name, runs in groups.items():
        estimates[name] = np.mean([_with_mean(class_ious(counts.sum(0))) for counts in runs], axis=0)
        of_seeds = np.stack([_with_mean(resampled_ious(counts, block, weights)) for counts in runs])
        generator = np.random.default_rng([seed, zlib.crc32(repr(name).encode())])  # whatever other groups there are
        chosen = generator.integers(0, len(runs), (len(runs), resamples))
        draws[name] = of_seeds[chosen, np.arange(resamples)].mean(0)
    ranked = sorted(groups, key=lambda name: (np.isnan(estimates[name][0]), -estimates[name][0]))
    ranking, pairs = [], []
    for place, a in enumerate(ranked):
        miou, *classes = _interval(draws[a], estimates[a], resampled)
        ranking.append({"name": a, "runs": len(groups[a]), "miou": miou, "classes": classes})
        for b in ranked[place + 1 :]:
            differences = draws[a] - draws[b]
            miou, *classes = _interval(differences, estimates[a] - estimates[b], resampled)
            known = differences[~np.isnan(differences[:, 0]), 0]
            leads = float((known > 0).mean()) if len(known) and resampled else None
            pairs.append({"a": a, "b": b, "miou": miou, "classes": classes, "a_leads": leads})
    return {"level": LEVEL, "block": block, "resamples": resamples, "ranking": ranking, "pairs": pairs}
