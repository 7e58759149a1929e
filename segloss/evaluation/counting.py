"""What is counted of every image: pairs of true and predicted classes, and of a run its calibration."""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from segloss.calibration import FLOOR
from segloss.datasets.masks import counts_of_runs
from segloss.losses.labels import IGNORE_INDEX

CLASSWISE_PIXELS = 2**16  # of an image, on a grid: what the classwise calibration error looks at
BINS = 15  # of the posterior's maximum, equally wide (Guo et al., ICML 2017)


def pair_histogram(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each pair of values occurs, int64 ``(256, 256)``, of two uint8 maps of one size; rows: labels."""
    counts = counts_of_runs(labels, predicted)
    if counts is not None:
        return counts
    raw = np.zeros((256, 256), dtype=np.int64)
    rows = max(1, 2**24 // labels.shape[1])  # cv2 counts in float32, exact up to 2^24
    for top in range(0, labels.shape[0], rows):
        band = [labels[top : top + rows], predicted[top : top + rows]]
        raw += cv2.calcHist(band, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return raw


def confusion_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, int]:
    """Confusion ``(C, C + 1)`` and number of ignored pixels of two class maps; any other prediction is no class."""
    if labels.dtype != np.uint8:
        valid = labels < num_classes
        cells = labels[valid] * np.int64(num_classes + 1) + np.minimum(predicted[valid], num_classes)
        matrix = np.bincount(cells, minlength=num_classes * (num_classes + 1)).reshape(num_classes, -1)
        return matrix, labels.size - int(np.count_nonzero(valid))
    raw = pair_histogram(predicted, labels)
    known = raw[:num_classes]
    matrix = np.concatenate([known[:, :num_classes], known[:, num_classes:].sum(1, keepdims=True)], axis=1)
    return matrix, int(raw[IGNORE_INDEX].sum())


def calibration_counts(posterior: Tensor, labels: Tensor) -> tuple[np.ndarray, float]:
    """Pixels, sum of confidence and right ones per bin ``(BINS, 3)``, and the sum of squared distances to one-hot."""
    labels = labels.to(posterior.device).long()
    valid = labels < len(posterior)
    p = posterior.nan_to_num(0)  # NaN: trained to pieces
    confidence, predicted = p.max(0)
    of_true = p.gather(0, labels.where(valid, 0)[None])[0]
    squares = p.square().sum(0) - 2 * of_true + 1
    # Added up in float64, on the CPU: some devices have none.
    confidence, right, squares = (x[valid].cpu().double() for x in (confidence, predicted == labels, squares))
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    columns = (torch.ones_like(confidence), confidence, right)
    counts = torch.stack([torch.bincount(bins, column, minlength=BINS) for column in columns], 1)
    return counts.numpy(), float(squares.sum())


def likelihood_counts(posterior: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Sums that add up over images, float64.

    Returns:
        ``nll``: (sum over pixels of -log P of the true class, at least ``FLOOR``,); ``gaps``: sum of probability minus
        outcome of each class per bin of that probability, ``(C, BINS)``; ``looked_at``: (pixels of ``gaps``,).
    """
    num_classes, (height, width) = len(posterior), posterior.shape[1:]
    labels = labels.to(posterior.device).long()
    valid = labels < num_classes
    at_true = posterior.gather(0, labels.where(valid, 0)[None])[0][valid].nan_to_num(0).cpu().double()
    step = max(1, math.ceil(math.sqrt(height * width / CLASSWISE_PIXELS)))
    grid = slice(min(step, height) // 2, None, step), slice(min(step, width) // 2, None, step)
    kept, true = valid[grid], labels[grid][valid[grid]].cpu()
    p = posterior[:, grid[0], grid[1]][:, kept].nan_to_num(0).cpu().double()
    bins = (p * BINS).long().clamp_(max=BINS - 1) + BINS * torch.arange(num_classes)[:, None]
    missing = p.scatter_add(0, true[None], p.new_full((1, len(true)), -1))
    gaps = torch.bincount(bins.flatten(), missing.flatten(), num_classes * BINS).view(num_classes, BINS)
    nll = -float(at_true.clamp(min=FLOOR).log().sum())
    return {"nll": np.array([nll]), "gaps": gaps.numpy(), "looked_at": np.array([float(len(true))])}
