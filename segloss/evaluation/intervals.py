r"""Confidence intervals that hold with few blocks of images and few seeds: a jackknife with Student's t.

What varies. A score of a setting is the mean of a statistic (mean IoU, IoU of a class) over its R runs, all scored on
the same n blocks of images. Blocks are drawn from all the images there could be, runs from all the seeds; block and run
are crossed, so the variance of the score has three parts (two-way random effects):

.. math::
    V = \sigma_{block}^2 / n + \sigma_{seed}^2 / R + \sigma_{both}^2 / (n R)

How each is measured. Leaving one block out at a time, of all runs at once, gives the first and the last part together
(the delete-one jackknife; Quenouille 1956, Tukey 1958); the spread of the runs gives the last two. The interaction of
run and block, from the jackknife's pseudo-values of each run, is counted twice by then and taken off the seeds' part.

How many degrees of freedom. The blocks' part has n - 1 where all blocks weigh the same, fewer where a rare class lies
in a few of them (:func:`union_shares`). Seeds' parts of a pair are added as Welch does. To add seeds and blocks, the
half-width lies midway between two classical ones: Satterthwaite's (1946), which is too narrow if the part with few
degrees of freedom comes out small by chance, and Banerjee's (1960), which covers at least as often as it says:

.. math::
    h = \tfrac{1}{2} \left( t_\nu \sqrt{V_s + V_b} + \sqrt{t_{\nu_s}^2 V_s + t_{\nu_b}^2 V_b} \right)

On which scale. A score in (0, 1) has its interval on the logit scale, by the delta method: it stays inside and is
longer towards the middle. Differences are left as they are.

How often they cover the truth is measured by ``benchmarks/intervals.py`` and written down in docs/metrics.md.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segloss.evaluation.block_length import MIN_BLOCKS as MIN_BLOCKS
from segloss.evaluation.block_length import Array
from segloss.evaluation.block_length import choose_block as choose_block
from segloss.evaluation.block_length import inflation_of as inflation_of

Statistic: TypeAlias = Callable[[Array], Array]  # sums (..., M) -> values (..., K)
Shares: TypeAlias = Callable[[Array, Array], Array]  # sums (n, M), variances (K,) -> shares (n, K)
Why: TypeAlias = Literal["", "few blocks", "absent", "held by few blocks", "at the edge", "all alike"]

LEVEL = 0.95
MIN_DF = 1.5  # as if 2.5 equal blocks held the class; t is 6 there and 12.7 with one degree of freedom
ROUNDING = 1e-12  # of a score; a pixel of 5000 images of 1e6 moves one by more
AT_ONCE = 2**22  # numbers in memory while blocks are left out: 32 MiB
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)

WHY_NONE: dict[Why, str] = {
    "": "",
    "few blocks": f"no interval: fewer than {MIN_BLOCKS} blocks of images say too little about others",
    "absent": "no interval: there is no such score, the class is in no image",
    "held by few blocks": "no interval: too few blocks of images hold the class",
    "at the edge": "no interval: a score of 0 or 1 in every block has no spread to measure",
    "all alike": "no interval: every block of images scores the same, which has no spread to measure",
}


@dataclass(frozen=True)
class Interval:
    """Intervals of K values, each array of shape ``(K,)``.

    Attributes:
        estimate: mean over the runs, or the difference of two such means; NaN where a run has no such value.
        low, high: ends of the interval; NaN where there is none.
        df: degrees of freedom of the whole variance (Satterthwaite); NaN where there is no interval.
        why_none: a key of :data:`WHY_NONE`; empty where there is an interval.
        seeds: whether the interval covers the choice of the seed; if not, it is about images only.
        parts: variance of the seeds' part and its degrees of freedom, then of the blocks' part, each ``(K,)``; on the
            scale of the values.
    """

    estimate: Array
    low: Array
    high: Array
    df: Array
    why_none: tuple[Why, ...]
    seeds: bool
    parts: tuple[Array, Array, Array, Array]


# Student's t.


def t_within(t: Array, df: Array) -> Array:
    r"""P(\|T\| < t) for Student's t with real degrees of freedom, to about 1e-9 from ``df`` 1 on.

    With :math:`T = \sqrt{\nu} \tan \varphi` the density is that of
    :math:`\cos^{\nu - 1} \varphi / B(\tfrac12, \tfrac{\nu}{2})` on :math:`(-\pi/2, \pi/2)`, which is smooth.

    Args:
        t: at least 0, any shape.
        df: positive, of a shape that broadcasts to t's.
    """
    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    return _within(np.arctan(t / np.sqrt(df)), df, _peak(df))


def _peak(df: Array) -> Array:
    """The density of the angle at 0, counted from both sides: 2 / B(1/2, df / 2)."""
    logs = [math.lgamma(v / 2 + 0.5) - math.lgamma(v / 2) - math.lgamma(0.5) for v in df.ravel().tolist()]
    return np.asarray(2 * np.exp(np.reshape(logs, df.shape)))


def _within(angle: Array, df: Array, peak: Array) -> Array:
    nodes = angle[..., None] * (NODES + 1) / 2
    return np.asarray(peak * angle / 2 * (np.cos(nodes) ** (df[..., None] - 1) @ WEIGHTS))


def t_quantile(level: Array | float, df: Array) -> Array:
    """The t within which Student's t lies with probability ``level``: bisection in the angle, then Newton's steps.

    The probability is concave in the angle, so that Newton's steps from below never pass the root.

    Args:
        level: in (0, 1), of a shape that broadcasts with df's.
        df: degrees of freedom, real, at least 1; from 1e6 on taken for 1e6, 1e-6 from the normal value.
    """
    level, df = np.broadcast_arrays(np.asarray(level, np.float64), np.minimum(np.asarray(df, np.float64), 1e6))
    peak = _peak(df)
    low, high = np.zeros(df.shape), np.minimum(np.pi / 2, 40 / np.sqrt(df))
    for _ in range(10):
        middle = (low + high) / 2
        below = _within(middle, df, peak) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    for _ in range(5):
        low = np.minimum(low + (level - _within(low, df, peak)) / (peak * np.cos(low) ** (df - 1)), high)
    return np.asarray(np.tan(low) * np.sqrt(df))


# Blocks.


def jackknife(sums: Array, statistic: Statistic) -> tuple[Array, Array]:
    """The statistic of all blocks together, ``(K,)``, and of all but one, ``(n, K)``.

    Args:
        sums: what the statistic is made from, added up within each block, ``(n, M)``.
        statistic: of sums ``(..., M)``; the whole has the sum of its blocks' sums.
    """
    total = sums.sum(0)
    rows = max(1, AT_ONCE // max(1, total.size))
    without = [statistic(total - sums[start : start + rows]) for start in range(0, len(sums), rows)]
    return statistic(total), np.concatenate(without)


def union_shares(sums: Array, variances: Array) -> Array:
    r"""Each block's expected share of the variance of mean IoU and of each class's IoU, ``(n, 1 + C)``.

    A block that holds the share :math:`w_b` of a class's union moves its IoU by :math:`w_b` times the block's own
    deviation; with deviations of one size, the shares of the variance go as :math:`w_b^2`. For the mean these are added
    over the classes, each in proportion to its variance.

    Args:
        sums: ``(n, 3 C + 2)`` of :func:`segloss.evaluation.comparison.block_sums`.
        variances: of the mean and of each class's IoU, ``(1 + C,)``; NaN where none could be measured, which counts as
            the largest.
    """
    hits, true, predicted = np.moveaxis(sums[:, :-2].reshape(len(sums), 3, -1), 1, 0)
    union = true + predicted - hits
    squares = (union / np.maximum(union.sum(0), 1)) ** 2
    of_class = squares / np.maximum(squares.sum(0), np.finfo(np.float64).tiny)
    known = variances[1:][~np.isnan(variances[1:])]
    of_mean = of_class @ np.where(np.isnan(variances[1:]), known.max(initial=0), variances[1:])
    return np.concatenate([_normalised(of_mean[:, None]), of_class], axis=1)


def pair_shares(sums: Array, variances: Array) -> Array:
    """:func:`union_shares`, but for the mean of the protocol per-image: by its pairs of an image and a class."""
    shares = union_shares(sums, variances)
    return np.concatenate([_normalised(sums[:, -1:] ** 2), shares[:, 1:]], axis=1)


def equal_shares(sums: Array, variances: Array) -> Array:
    """All blocks weigh the same: n - 1 degrees of freedom."""
    return np.full((len(sums), len(variances)), 1 / len(sums))


def _normalised(weights: Array) -> Array:
    total = weights.sum(0)
    return np.asarray(np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / len(weights)))


# Intervals.


def interval(
    runs: Sequence[Array],
    statistic: Statistic,
    *,
    level: float = LEVEL,
    shares: Shares = equal_shares,
    inflation: float = 1.0,
    scale: Literal["logit", "identity"] = "logit",
) -> Interval:
    """The interval of the mean of a statistic over runs on the same blocks of images.

    With one run it is about images only: what other images would give this run. With more it is about other images
    and other seeds.

    Args:
        runs: of each run, what the statistic is made from, added up within each block, ``(n, M)``; for mean IoU
            :func:`segloss.evaluation.comparison.block_sums`.
        statistic: of sums ``(..., M)``, K values in the last dimension; NaN where there is none.
        level: in (0, 1).
        shares: how unevenly the blocks weigh; for mean IoU :func:`union_shares`, or :func:`pair_shares` for the
            protocol per-image.
        inflation: variance of the mean over what independent blocks would have, from :func:`inflation_of`; 1 for
            blocks that have nothing to do with each other.
        scale: ``"logit"`` for values in (0, 1), ``"identity"`` for others.

    Returns:
        K intervals. There is none with fewer than 6 blocks, nor of a class that (nearly) all lies in one or two of them
        or that is nowhere found.

    Raises:
        ValueError: the runs' shapes differ, or an option is out of its range.
    """
    if scale not in ("logit", "identity"):
        raise ValueError(f"scale must be logit or identity, got {scale!r}")
    return _contrast([(1.0, runs)], statistic, level, shares, inflation, scale)


def difference_interval(
    a: Sequence[Array],
    b: Sequence[Array],
    statistic: Statistic,
    *,
    level: float = LEVEL,
    shares: Shares = equal_shares,
    inflation: float = 1.0,
) -> Interval:
    """The interval of mean over a's runs - mean over b's runs, all on the same blocks of images; see :func:`interval`.

    Blocks are paired, so what is hard for both drops out; seeds are not. Only where both have two runs or more does
    it cover the choice of the seed, with each setting's own spread.

    Raises:
        ValueError: the runs' shapes differ, or an option is out of its range.
    """
    return _contrast([(1.0, a), (-1.0, b)], statistic, level, shares, inflation, "identity")


def _contrast(
    groups: Sequence[tuple[float, Sequence[Array]]],
    statistic: Statistic,
    level: float,
    shares: Shares,
    inflation: float,
    scale: Literal["logit", "identity"],
) -> Interval:
    """:func:`interval` of the sum of sign * mean over runs."""
    _check([run for _, runs in groups for run in runs], [len(runs) for _, runs in groups], level, inflation)
    n = len(groups[0][1][0])
    found = [(sign, *_stacked(runs, statistic)) for sign, runs in groups]
    estimate = np.sum([sign * values.mean(0) for sign, values, _ in found], axis=0)
    without = np.sum([sign * left.mean(0) for sign, _, left in found], axis=0)
    of_blocks = inflation * (n - 1) / n * ((without - without.mean(0)) ** 2).sum(0)
    share = shares(np.sum([run for _, runs in groups for run in runs], axis=0), of_blocks)
    df_blocks = 1 / np.maximum((share**2).sum(0), 1 / n) - 1
    seeds = all(len(runs) > 1 for _, runs in groups)
    of_seeds, df_seeds = _of_seeds([(v, w) for _, v, w in found], inflation) if seeds else (0 * estimate, df_blocks)

    edge = np.all([(v == v[:1]).all(0) & ((v == 0) | (v == 1)).all(0) for _, v, _ in found], axis=0)
    edge &= (scale == "logit") | (len(groups) > 1)
    why = _why_none(n, estimate, of_blocks, of_seeds, df_blocks, edge)
    given = np.array([reason == "" for reason in why])
    seed_part = np.where(given, of_seeds, 0), np.where(given, df_seeds, 1)
    parts = (*seed_part, np.where(given, of_blocks, 0), np.where(given, df_blocks, 1))
    half = half_width(level, *parts)
    low, high = _ends(np.where(given, estimate, 0.5), half, scale)
    none = np.full(estimate.shape, np.nan)
    return Interval(
        estimate=estimate,
        low=np.where(given, low, none),
        high=np.where(given, high, none),
        df=np.where(given, _satterthwaite(*parts), none),
        why_none=why,
        seeds=seeds,
        parts=parts,
    )


def _check(runs: Sequence[Array], sizes: Sequence[int], level: float, inflation: float) -> None:
    if not all(sizes):
        raise ValueError("every setting must have at least one run, got none")
    shapes = {run.shape for run in runs}
    if len(shapes) != 1 or len(runs[0].shape) != 2 or not len(runs[0]):
        found = " and ".join(map(str, sorted(shapes)))
        raise ValueError(
            f"all runs must have the same shape (blocks, sums), got {found}; cut them into the same blocks"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if not 1 <= inflation < math.inf:
        raise ValueError(f"inflation must be at least 1 and finite, got {inflation}")


def _stacked(runs: Sequence[Array], statistic: Statistic) -> tuple[Array, Array]:
    """Of each run :func:`jackknife`: ``(R, K)`` and ``(R, n, K)``."""
    both = [jackknife(np.asarray(run, np.float64), statistic) for run in runs]
    return np.stack([values for values, _ in both]), np.stack([without for _, without in both])


def _of_seeds(settings: Sequence[tuple[Array, Array]], inflation: float) -> tuple[Array, Array]:
    """Variance that the seeds add, and its degrees of freedom (Welch), ``(K,)`` each, of values and jackknife."""
    variance, squares = np.zeros(settings[0][0].shape[1]), np.zeros(settings[0][0].shape[1])
    for values, without in settings:
        runs, n = without.shape[:2]
        pseudo = n * values[:, None] - (n - 1) * without
        inter = pseudo - pseudo.mean(0) - pseudo.mean(1, keepdims=True) + pseudo.mean((0, 1))
        counted = inflation * (inter**2).sum((0, 1)) / max(1, (runs - 1) * (n - 1)) / (runs * n)
        own = np.maximum(values.var(0, ddof=1) / runs - counted, 0)
        variance += own
        squares += own**2 / (runs - 1)
    fewest = min(len(values) for values, _ in settings) - 1
    return variance, np.where(squares > 0, variance**2 / np.where(squares > 0, squares, 1), fewest)


def _satterthwaite(of_seeds: Array, df_seeds: Array, of_blocks: Array, df_blocks: Array) -> Array:
    squares = of_seeds**2 / df_seeds + of_blocks**2 / df_blocks
    return np.asarray(np.where(squares > 0, (of_seeds + of_blocks) ** 2 / np.where(squares > 0, squares, 1), df_blocks))


def half_width(level: Array | float, of_seeds: Array, df_seeds: Array, of_blocks: Array, df_blocks: Array) -> Array:
    """Half the length of the interval: midway between Satterthwaite's and Banerjee's; see the module's equation.

    Args:
        level: in (0, 1), of a shape that broadcasts with ``(K,)``.
        of_seeds, of_blocks: variances that are added, ``(K,)``.
        df_seeds, df_blocks: their degrees of freedom.
    """
    df = _satterthwaite(of_seeds, df_seeds, of_blocks, df_blocks)
    t, t_seeds, t_blocks = t_quantile(level, np.stack(np.broadcast_arrays(df, df_seeds, df_blocks)))
    narrow = t * np.sqrt(of_seeds + of_blocks)
    return np.asarray((narrow + np.sqrt(t_seeds**2 * of_seeds + t_blocks**2 * of_blocks)) / 2)


def _ends(estimate: Array, half: Array, scale: str) -> tuple[Array, Array]:
    if scale == "identity":
        return estimate - half, estimate + half
    inside = np.clip(estimate, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)
    odds = inside / (1 - inside)
    with np.errstate(over="ignore"):
        stretch = np.exp(half / (inside * (1 - inside)))
        return np.asarray(1 / (1 + stretch / odds)), np.asarray(1 / (1 + 1 / (odds * stretch)))


def p_value(difference: Interval) -> Array:
    """Two-sided p-values ``(K,)`` of no difference: 1 - the level of the interval that just touches 0.

    Below 0.05 exactly where the interval of level 0.95 leaves out 0; to 1e-6, by bisection. NaN where there
    is no interval.
    """
    size = np.abs(difference.estimate)
    low, high = np.zeros(size.shape), np.ones(size.shape)
    for _ in range(20):
        middle = (low + high) / 2
        below = half_width(middle, *difference.parts) < size
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(np.where(np.isnan(difference.low), np.nan, 1 - low))


def firsts(found: Sequence[Interval]) -> Interval:
    """The first value of each of several intervals as one: what is asked of all at once is asked once."""

    def of(columns: Iterable[Array]) -> Array:
        return np.array([column[0] for column in columns])

    of_seeds, df_seeds, of_blocks, df_blocks = (of(columns) for columns in zip(*(x.parts for x in found), strict=True))
    return Interval(
        estimate=of(x.estimate for x in found),
        low=of(x.low for x in found),
        high=of(x.high for x in found),
        df=of(x.df for x in found),
        why_none=tuple(x.why_none[0] for x in found),
        seeds=all(x.seeds for x in found),
        parts=(of_seeds, df_seeds, of_blocks, df_blocks),
    )


def _why_none(
    n: int, estimate: Array, of_blocks: Array, of_seeds: Array, df: Array, edge: NDArray[Any]
) -> tuple[Why, ...]:
    def reason(k: int) -> Why:
        if np.isnan(estimate[k]):
            return "absent"
        if n < MIN_BLOCKS:
            return "few blocks"
        if edge[k]:
            return "at the edge"
        if np.isnan(of_blocks[k]) or df[k] < MIN_DF:
            return "held by few blocks"
        alike = of_blocks[k] + of_seeds[k] < ROUNDING**2
        return "all alike" if alike and abs(estimate[k]) > ROUNDING else ""  # two equal runs differ by 0 anywhere

    return tuple(reason(k) for k in range(len(estimate)))


# Sequences: images that resemble their neighbours.


def influences(sums: Array, statistic: Statistic) -> Array:
    """What each image does to the first value of the statistic, ``(N,)``: N - 1 times what leaving it out takes off.

    Args:
        sums: of the single images in their order, ``(N, M)``.
        statistic: of sums ``(..., M)``.
    """
    values, without = jackknife(np.asarray(sums, np.float64), statistic)
    return np.asarray(np.nan_to_num((len(sums) - 1) * (values[0] - without[:, 0])))
