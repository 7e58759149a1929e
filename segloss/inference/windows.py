"""Large images in windows that overlap: where they lie, how they are blended, scores by rows."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from segloss.datasets.rows import Rows

PIECE = 2**20  # pixels whose scores are handed out at once


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin, so that they cover ``length``; the last ends with it."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def blend_weights(length: int, window: int, starts: Sequence[int]) -> np.ndarray:
    r"""What each window counts at each of its pixels, along one side, float64 ``(windows, window)``.

    .. math::
        w_k(i) = \frac{h(i)}{\sum_j h(i + s_k - s_j)}, \qquad h(i) = \sin^2\frac{\pi (i + 1/2)}{n}

    over the windows j that hold the pixel: they add up to 1 everywhere, and where one window alone sees a pixel, as at
    the image's edge, it counts 1. n is the window's length, s_k the start of window k.
    """
    raised_cosine = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += raised_cosine
    return np.stack([raised_cosine / total[start : start + window] for start in starts])


def score_rows(
    see: Callable[[np.ndarray], Tensor],
    read: Rows,
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: float,
    at_once: int = 1,
) -> Iterator[Tensor]:
    """Scores ``(1, C, rows, W)`` of an image from its top to its bottom, seen in windows blended by ``blend_weights``.

    Held are the rows of one row of windows, and their scores: 4 bytes x C x tile height x W.

    Args:
        see: images ``(n, h, w, 3)`` -> scores ``(n, C, h, w)``.
        read: rows of the image.
        size: ``(H, W)`` of it.
        tile: ``(h, w)`` of a window.
        overlap: share that neighbouring windows have in common, at least.
        at_once: windows that ``see`` is given together.
    """
    height, width = min(tile[0], size[0]), min(tile[1], size[1])
    tops, lefts = window_starts(size[0], height, overlap), window_starts(size[1], width, overlap)
    down, across = blend_weights(size[0], height, tops), blend_weights(size[1], width, lefts)
    band, total = read(0, height), torch.empty(0)
    for row, top in enumerate(tops):
        if row:
            seen = tops[row - 1] + height
            band = np.concatenate([band[top - tops[row - 1] :], read(seen, top + height)])
        for first in range(0, len(lefts), at_once):
            some = lefts[first : first + at_once]
            scores = see(np.stack([band[:, left : left + width] for left in some]))
            if not total.numel():
                total = scores.new_zeros(1, scores.shape[1], height, size[1])
            for column, (left, of_window) in enumerate(zip(some, scores, strict=True), start=first):
                weight = torch.from_numpy(np.outer(down[row], across[column])).to(total)
                total[0, :, :, left : left + width] += of_window * weight
        done = (tops[row + 1] if row + 1 < len(tops) else size[0]) - top
        for first in range(0, done, max(1, PIECE // size[1])):
            yield total[..., first : min(done, first + max(1, PIECE // size[1])), :].clone()
        for to in range(0, height - done, done):  # upwards in place: no second copy of all scores
            moved = total[..., to + done : to + 2 * done, :]
            total[..., to : to + moved.shape[-2], :] = moved
        total[..., height - done :, :] = 0


def in_step(streams: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Mean of several streams of rows, each cut where any of them is."""
    held = [next(stream) for stream in streams]
    while True:
        rows = min(block.shape[-2] for block in held)
        yield torch.stack([block[..., :rows, :] for block in held]).mean(0) if len(held) > 1 else held[0]
        left = [block[..., rows:, :] for block in held]
        held = [block if block.numel() else next(stream, block) for block, stream in zip(left, streams, strict=True)]
        if not held[0].numel():
            return
