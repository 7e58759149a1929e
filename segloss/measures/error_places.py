"""Where errors lie: at boundaries, where labels are vague too, in small or thin parts, or inside."""

from collections.abc import Sequence

import cv2
import numpy as np

from segloss.measures.measure import Column, Measure, rows_of
from segloss.schema import CountTable

SHARE = 0.005  # of the image diagonal: pixels so near to another class are at its boundary
PLACES = ("at boundaries", "in small or thin parts", "inside")
COLUMNS = ("class", "place", "wrong", "pixels")


def places_of(labels: np.ndarray) -> np.ndarray:
    """Index in :data:`PLACES` of each pixel of a map of class numbers ``(H, W)``, uint8.

    Let a window be a square that reaches 0.5 % of the image diagonal to each side. The middle of a window that holds
    one class alone is *inside*; a pixel that no such window covers belongs to a part too *small or thin* for one; the
    others are *at boundaries*. Ignored regions bound what they touch, the image's edge does not.

    >>> places_of(np.repeat([[0, 0, 0, 1, 2, 2, 2]], 7, axis=0).astype(np.uint8))[3].tolist()
    [2, 2, 0, 1, 0, 2, 2]
    """
    width = max(1, round(SHARE * float(np.hypot(*labels.shape))))
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    edge = cv2.BORDER_REPLICATE
    one_class = cv2.erode(labels, window, borderType=edge) == cv2.dilate(labels, window, borderType=edge)
    inside = np.asarray(one_class).astype(np.uint8)
    covered = cv2.dilate(inside, window, borderType=edge)  # a window of one class is of the class of its middle
    return np.asarray(np.where(inside, 2, 1 - covered)).astype(np.uint8)


def errors_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Wrong and all pixels of each true class and place, int64 ``(C, 3, 2)``; ignored pixels are in neither."""
    valid = labels < num_classes
    cells = labels.astype(np.int64) * len(PLACES) + places_of(labels)
    shape = (num_classes, len(PLACES))
    counts = [
        np.bincount(cells[chosen], minlength=num_classes * len(PLACES)).reshape(shape)
        for chosen in (valid & (predicted != labels), valid)
    ]
    return np.stack(counts, axis=-1).astype(np.int64)


def recall_inside(counts: np.ndarray) -> np.ndarray:
    """Share of each class's inside pixels that are right ``(C,)``; NaN for a class without any."""
    wrong, pixels = np.moveaxis(counts[:, PLACES.index("inside")], -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(1 - wrong / pixels)


def place_table(counts: np.ndarray, names: Sequence[str]) -> CountTable:
    """A row for each class and place that has pixels."""
    return CountTable("error_places", "Where the errors lie", COLUMNS, rows_of(counts, names, PLACES))


MEASURE = Measure(
    "error_places",
    "where errors lie too: at boundaries, in small or thin parts, or inside",
    errors_of,
    recall_inside,
    of_class=Column("recall_inside", "recall inside", short="inside"),
    of_all=Column("mean_recall_inside", "mean recall inside"),
    table=place_table,
)
