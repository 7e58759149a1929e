"""How many consecutive images count as one: blocks so long that neighbouring ones have little to do with each other.

Frames of a video resemble their neighbours. What single images do to a score (``influences`` of
:mod:`segloss.evaluation.intervals`) has autocorrelations, by two estimates; from these comes how much too small the
spread of blocks of any length is.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

# Simulated scores are covered as often as said by 4 and 5 blocks too, but the interval of mean IoU over 3, 4, 5 and 6
# blocks of 10 images is 11.4, 8.0, 6.1 and 5.3 points long: one sees mostly Student's t there, not the images.
MIN_BLOCKS = 6
INFLATION = 1.1  # what a chosen block leaves of the likeness of neighbouring blocks: 10 % of the variance


def _autocorrelations(values: Array) -> Array:
    """Of lags 0 to N / 2, by the Fourier transform; all 0 but the first where nothing varies."""
    n = len(values)
    spectrum = np.fft.rfft(values - values.mean(), 2 * n)
    found = np.fft.irfft(spectrum * spectrum.conj())[: n // 2 + 1]
    return np.asarray(found / found[0]) if found[0] > 0 else np.eye(1, n // 2 + 1)[0]


def _last_lag(r: Array, n: int) -> int:
    """The lag after which five in a row are no larger than chance makes them (Politis & White 2004, section 3.2)."""
    small = np.abs(r[1:]) < 2 * math.sqrt(math.log10(n) / n)
    for lag in range(len(small) - 4):
        if small[lag : lag + 5].all():
            return lag
    return len(small)


def _models(values: Array) -> list[Array]:
    """Autocorrelations of lags 1, 2, ... by two estimates, the larger of which is believed; none: no likeness found.

    Flat-top: the measured ones up to twice the last lag beyond chance, the second half faded out (Politis & Romano
    1995). Geometric: the first one, then a constant ratio (an ARMA(1, 1) process). Both with the bias taken off that
    comes from the mean's being measured too: about minus the long-run variance over N.
    """
    n = len(values)
    r = _autocorrelations(values)
    last = _last_lag(r, n)
    if not last or n < 2 * MIN_BLOCKS:
        return []
    lags = np.arange(1, max(1, min(2 * last, n // 3)) + 1)
    fade = np.clip(2 * (1 - lags / len(lags)), 0, 1) if len(lags) > 1 else np.ones(1)
    long_run = (1 + 2 * fade @ r[lags]) / (1 - min((1 + 2 * fade.sum()) / n, 0.5))
    bias = max(0.0, float(long_run)) / n
    flat = fade * (r[lags] + bias) / (1 + bias)

    first = min(r[1] + (1 + 3 * r[1]) / n, 0.98)
    head = r[1:6] + (1 - r[1:6]) * min(max((1 + first) / (1 - first), 0) / n, 0.3)
    ratio = min(max(float(head[1:].sum() / max(head[:-1].sum(), 1e-9)), 0.0), 0.95)
    return [flat, np.clip(head[0], 0, 0.98) * ratio ** np.arange(n)]


def _growth(r: Array, lengths: Array) -> Array:
    r"""Variance of a mean of L images over that of L independent ones, :math:`1 + 2 \sum_{k<L} (1 - k/L) r_k`."""
    lags = np.arange(1, len(r) + 1)
    plain, weighted = (np.concatenate([[0], np.cumsum(x)]) for x in (r, lags * r))
    at = np.minimum(lengths - 1, len(r)).astype(np.int64)
    return np.asarray(np.maximum(1 + 2 * (plain[at] - weighted[at] / lengths), 0.1))


def _inflations(values: Array, lengths: Array) -> Array:
    """:func:`inflation_of` one series at several block lengths."""
    worst = np.ones(len(lengths))
    blocks = np.maximum(len(values) // lengths, 2)
    for r in _models(values):
        block, whole = _growth(r, lengths), _growth(r, lengths * blocks)
        measured = (block * blocks - whole) / (blocks - 1)  # expected from blocks' deviations from their own mean
        worst = np.maximum(worst, whole / np.maximum(measured, 0.1 * whole))
    return worst


def _series(values: Array) -> list[Array]:
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or not len(values):
        raise ValueError(f"values must have shape (images,) or (images, series), got {values.shape}")
    return list(values.reshape(len(values), -1).T)


def inflation_of(values: Array, block: int) -> float:
    """The variance of the mean over what blocks of this length show, 1 for independent blocks, at most 10.

    Blocks of a sequence resemble their neighbours at their ends, and their spread is too small by that; the estimate is
    from the autocorrelations of the single images, the larger of a flat-top and a geometric one.

    Args:
        values: ``influences`` of the images in their order, ``(N,)``; or of several runs, ``(N, runs)``, whose
            largest is given.
        block: images a block, at least 1.

    Raises:
        ValueError: the shape does not fit, or block is not positive.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    return max(float(_inflations(series, np.array([float(block)]))[0]) for series in _series(values))


def choose_block(values: Array) -> int:
    """Images a block, chosen from the data: the fewest that leave neighbouring blocks nearly independent.

    That is, the smallest length at which :func:`inflation_of` is at most 1.1; if no length that still gives 6 blocks is
    long enough, the longest of those. 1 for images that have nothing to do with their neighbours. What is left of the
    likeness belongs into the interval's ``inflation``.

    Args:
        values: as for :func:`inflation_of`.

    Raises:
        ValueError: the shape does not fit.
    """
    series = _series(values)
    lengths = np.arange(1.0, max(1, len(series[0]) // MIN_BLOCKS) + 1)
    enough = np.max([_inflations(one, lengths) for one in series], axis=0) <= INFLATION
    return int(lengths[enough.argmax() if enough.any() else -1])
