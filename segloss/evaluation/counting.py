"""What is counted of every image: pairs of true and predicted classes, and of a run its calibration."""

import cv2
import numpy as np
import torch
from torch import Tensor

from segloss.datasets.masks import counts_of_runs
from segloss.losses.reduction import IGNORE_INDEX

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
    """Confusion ``(C, C + 1)`` and number of ignored pixels of two uint8 maps; any other prediction is no class."""
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
