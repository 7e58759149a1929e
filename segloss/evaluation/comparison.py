"""Intervals of settings and paired differences of all of them, by a jackknife over blocks of consecutive images.

Frames of a video resemble their neighbours, so blocks of consecutive images are the units, not single ones; their
length is chosen from the data where none is given. All runs are scored on the same images, so that a difference is not
blurred by which images are hard. Where settings were trained with several seeds, intervals are about other seeds too.
The method, and how often it covers, is in :mod:`segloss.evaluation.intervals`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from segloss.datasets.naming import in_number_order
from segloss.errors import InputError
from segloss.evaluation import intervals
from segloss.evaluation.results import Totals
from segloss.metrics import none_if_nan, protocol_named
from segloss.schema import Comparison, Interval, Pair, RankedSetting


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


def common_images(names: Mapping[str, Sequence[str]]) -> list[str]:
    """The images that all runs have, in the first one's order; InputError if there is none."""
    first, *others = names.values()
    shared = set(first).intersection(*others)
    if not shared:
        raise InputError(f"no image is in all of {', '.join(names)}", "score them apart")
    return [name for name in first if name in shared]


def on_common_images(runs: Mapping[str, Totals]) -> dict[str, np.ndarray]:
    """``(images, 3, C)`` counts of each run, of the images that all have, in the order of their names.

    Numbers in names count as numbers, so that frames follow one another, whatever order a list has them in.
    Where bad predictions are left out, two folders can lack different images; by place they would be paired wrongly.

    Raises:
        InputError: no image is in all of them, or one of the same name has other labels.
    """
    names = in_number_order(common_images({run: totals.names for run, totals in runs.items()}))
    places = {run: {name: place for place, name in enumerate(totals.names)} for run, totals in runs.items()}
    found = {run: totals.counts[[places[run][name] for name in names]] for run, totals in runs.items()}
    (first, held), *others = found.items()
    for run, counts in others:
        if held.shape == counts.shape and (held[:, 1] != counts[:, 1]).any():
            differ = np.flatnonzero((held[:, 1] != counts[:, 1]).any(1))
            what = f"{run} and {first} have other labels of {len(differ)} of {len(names)} images of the same names"
            raise InputError(f"{what}, the first {names[differ[0]]}", "score them apart: these are not the same images")
    return found


def compare(
    groups: Mapping[str, Sequence[np.ndarray]],
    *,
    block: int | None = None,
    protocol: str = "cityscapes",
    members: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Intervals of every group of runs, and the paired differences of all pairs, ranked by mIoU.

    Args:
        groups: name -> ``(images, 3, C)`` right, true and predicted pixels per class of each of its runs (seeds); the
            same images in the same order everywhere.
        block: consecutive images that are one unit; None: chosen from the data, the same for all
            (:func:`segloss.evaluation.intervals.choose_block`). What a length leaves of the likeness of neighbouring
            blocks widens the intervals either way.
        protocol: the definition of the mean, one of :data:`segloss.metrics.PROTOCOLS`.
        members: the names of each group's runs; default: the group's.

    Returns:
        Where a value has no interval, low and high are None and ``why`` says why; so is the p-value of such a mean.

    Raises:
        ValueError: an unknown protocol.
        InputError: the runs were not scored on the same number of images or classes.
    """
    shapes = {counts.shape for runs in groups.values() for counts in runs}
    if len(shapes) != 1:
        found = " and ".join(f"{shape[0]} images of {shape[-1]} classes" for shape in sorted(shapes))
        raise InputError(f"only runs on the same images and classes can be compared, got {found}", "score them apart")
    rule, images = protocol_named(protocol), next(iter(shapes))[0]
    statistic = partial(mean_and_ious, protocol=protocol)
    shares = intervals.pair_shares if rule.per_image else intervals.union_shares
    of_each = {
        name: [intervals.influences(block_sums(counts, 1), statistic) for counts in runs]
        for name, runs in groups.items()
    }
    all_runs = np.stack([one for runs in of_each.values() for one in runs], axis=1)
    length = intervals.choose_block(all_runs) if block is None else min(block, images)
    effects = {name: np.mean(runs, axis=0) for name, runs in of_each.items()}
    sums = {name: [block_sums(counts, length) for counts in runs] for name, runs in groups.items()}
    alone = {
        name: intervals.interval(
            runs, statistic, shares=shares, inflation=intervals.inflation_of(effects[name], length)
        )
        for name, runs in sums.items()
    }
    ranked = sorted(alone, key=lambda name: (np.isnan(alone[name].estimate[0]), -alone[name].estimate[0]))
    ranking = []
    for name in ranked:
        miou, *classes = _values(alone[name])
        runs_of = tuple((members or {}).get(name, [name]))
        ranking.append(RankedSetting(name, miou, tuple(classes), len(groups[name]), runs_of, alone[name].seeds))
    differences = {
        (a, b): intervals.difference_interval(
            *(sums[a], sums[b], statistic),
            shares=shares,
            inflation=intervals.inflation_of(effects[a] - effects[b], length),
        )
        for a, b in combinations(ranked, 2)
    }
    p_values = intervals.p_value(intervals.firsts([*differences.values()])).tolist() if differences else []
    pairs = []
    for ((a, b), apart), p_value in zip(differences.items(), p_values, strict=True):
        miou, *classes = _values(apart)
        pairs.append(Pair(a, b, miou, tuple(classes), none_if_nan(p_value), apart.seeds))
    return Comparison(
        level=intervals.LEVEL,
        block=length,
        protocol=rule.name,
        images=images,
        ranking=tuple(ranking),
        pairs=tuple(pairs),
        block_chosen=block is None,
    )


def _values(found: intervals.Interval) -> list[Interval]:
    """Each of the values, NaN as None."""
    columns = [
        [none_if_nan(x) for x in column.tolist()] for column in (found.estimate, found.low, found.high, found.df)
    ]
    whys = [intervals.WHY_NONE[why] or None for why in found.why_none]
    return [Interval(estimate, low, high, why, df) for estimate, low, high, df, why in zip(*columns, whys, strict=True)]
