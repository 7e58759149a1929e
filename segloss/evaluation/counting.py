"""What is counted of one image: pairs of true and predicted classes, boundary bands, calibration."""

import cv2
import numpy as np
import torch
from torch import Tensor

from segloss.datasets.masks import counts_of_runs
from segloss.losses.reduction import IGNORE_INDEX

BOUNDARY_SHARE = 0.02  # of the image diagonal: width of the band of boundary IoU (Cheng et al., CVPR 2021)
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


def _band(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels within ``width`` of a pixel of another class or of the border, in the maximum norm."""
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE_INDEX - 1)
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # A class's mask eroded `width` times by 3x3 is where the smallest and the largest label of the window agree.
    edge = cv2.BORDER_REPLICATE
    mixed = cv2.erode(padded, window, borderType=edge) != cv2.dilate(padded, window, borderType=edge)
    return mixed[1:-1, 1:-1]


def boundary_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Intersection and union of each class's boundary bands, int64 ``(C, 2)``; ignored pixels are in neither.

    The band of a mask holds its pixels within 2 % of the image diagonal of its outline (Cheng et al., "Boundary IoU",
    CVPR 2021); ignored regions outline what they touch, in truth and prediction alike.
    """
    width = max(1, round(BOUNDARY_SHARE * float(np.hypot(*labels.shape))))
    predicted = np.where(labels == IGNORE_INDEX, IGNORE_INDEX, predicted).astype(np.uint8)
    true_band, predicted_band = _band(labels, width), _band(predicted, width)
    both = true_band & predicted_band & (labels == predicted)

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(values, minlength=256)[:num_classes]

    intersection = count(labels[both])
    union = count(labels[true_band]) + count(predicted[predicted_band]) - intersection
    return np.stack([intersection, union], axis=1).astype(np.int64)


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
