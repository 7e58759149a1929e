"""Connected components: which cracks, poles or lesions are found, missed or invented, by their size.

A true component is found if at least half of its pixels are predicted as its class, else missed; a predicted component
that shares no pixel with the true ones of its class is invented. After the lesion-wise F1 of medical challenges, which
ask for one common pixel (Carass et al., "Longitudinal multiple sclerosis lesion segmentation", NeuroImage 2017).
"""

from collections.abc import Sequence

import cv2
import numpy as np

from segloss.measures.measure import Column, Measure, rows_of
from segloss.schema import CountTable

SHARE_FOUND = 0.5
SIZES = (100, 1_000, 10_000)  # pixels of a component, from which the next size begins
SIZE_NAMES = ("under 100", "100 to 999", "1,000 to 9,999", "from 10,000")


def components_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Found, missed and invented components of each class and size, int64 ``(C, 4, 3)``; 8-connected.

    Ignored pixels belong to no component, of truth or prediction.
    """
    counts = np.zeros((num_classes, len(SIZE_NAMES), 3), dtype=np.int64)
    valid = labels < num_classes
    there = np.union1d(np.unique(labels[valid]), np.unique(predicted[valid]))
    for c in there[there < num_classes].tolist():
        true, found = labels == c, valid & (predicted == c)
        sizes, hits = _sizes_and_hits(true, found)
        is_found = hits >= SHARE_FOUND * sizes
        of_predicted, touched = _sizes_and_hits(found, true)
        for column, chosen in enumerate((sizes[is_found], sizes[~is_found], of_predicted[touched == 0])):
            counts[c, :, column] = np.bincount(np.digitize(chosen, SIZES), minlength=len(SIZE_NAMES))
    return counts


def _sizes_and_hits(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each component of a mask, and how many of them lie in the other."""
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return stats[1:, cv2.CC_STAT_AREA], np.bincount(numbers[mask & other], minlength=count)[1:]


def component_f1(counts: np.ndarray) -> np.ndarray:
    """2 found / (2 found + missed + invented) of each class ``(C,)``; NaN for a class without components."""
    found, missed, invented = counts.sum(1).T
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * found / (2 * found + missed + invented))


def component_table(counts: np.ndarray, names: Sequence[str]) -> CountTable:
    """A row for each class and size of which there are components."""
    columns = ("class", "pixels", "found", "missed", "invented")
    return CountTable("components", "Connected components", columns, rows_of(counts, names, SIZE_NAMES))


MEASURE = Measure(
    "components",
    "connected components too: found, missed and invented ones of each class by size",
    components_of,
    component_f1,
    of_class=Column("component_f1", "component F1", short="components"),
    of_all=Column("component_mean_f1", "mean component F1"),
    table=component_table,
)
