"""Boundary IoU: how well outlines agree, where plain IoU sees areas (Cheng et al., "Boundary IoU", CVPR 2021)."""

import cv2
import numpy as np

from segloss.measures.measure import Column, Measure

BOUNDARY_SHARE = 0.02  # of the image diagonal: width of the bands, the authors' default


def boundary_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Intersection and union of each class's boundary bands, int64 ``(C, 2)``; ignored pixels are in neither.

    The band of a mask holds its pixels within 2 % of the image diagonal of its outline; ignored regions outline what
    they touch, in truth and prediction alike.
    """
    width = max(1, round(BOUNDARY_SHARE * float(np.hypot(*labels.shape))))
    ignored = np.iinfo(labels.dtype).max
    predicted = np.where(labels == ignored, ignored, predicted).astype(labels.dtype)
    true_band, predicted_band = _band(labels, width), _band(predicted, width)
    both = true_band & predicted_band & (labels == predicted)

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(values, minlength=num_classes)[:num_classes]

    intersection = count(labels[both])
    union = count(labels[true_band]) + count(predicted[predicted_band]) - intersection
    return np.stack([intersection, union], axis=1).astype(np.int64)


def _band(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels within ``width`` of a pixel of another class or of the border, in the maximum norm."""
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=int(np.iinfo(labels.dtype).max) - 1)
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # A class's mask eroded `width` times by 3x3 is where the smallest and the largest label of the window agree.
    edge = cv2.BORDER_REPLICATE
    mixed = cv2.erode(padded, window, borderType=edge) != cv2.dilate(padded, window, borderType=edge)
    return np.asarray(mixed)[1:-1, 1:-1]


def boundary_ious(counts: np.ndarray) -> np.ndarray:
    """IoU of the bands of each class ``(C,)``, NaN for a class without any."""
    with np.errstate(invalid="ignore"):
        return np.asarray(counts[:, 0] / counts[:, 1])


MEASURE = Measure(
    "boundary",
    "boundary IoU too",
    boundary_of,
    boundary_ious,
    of_class=Column("boundary_iou", "boundary IoU", short="boundary"),
    of_all=Column("boundary_miou", "boundary mIoU"),
)
