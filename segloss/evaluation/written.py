"""What files of masks hold beside their classes: noted while they are counted, judged by :mod:`.doubts`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segloss.datasets.classes import ClassTable
from segloss.datasets.masks import id_histogram, id_table

BLACK_AND_WHITE = {0, 255}  # ids of a mask that a drawing program saved
Noted = dict[str, np.ndarray]  # of one image, int64: see the attributes of Written, the pixels in the last column


@dataclass
class Written:
    """Sums over images, as many numbers as there are ids, however many images.

    Attributes:
        labels: value in the label files -> pixels; colours are not noted.
        unknown: true class and predicted value that is no class -> pixels.
        ignored: predicted class -> pixels whose label is ignored.
        black_and_white: label files that hold 0 and 255 alone; ``first`` is the name of one.
        others: the values of all other label files.
    """

    labels: Counter[int] = field(default_factory=Counter)
    unknown: Counter[tuple[int, int]] = field(default_factory=Counter)
    ignored: Counter[int] = field(default_factory=Counter)
    black_and_white: int = 0
    first: str = ""
    others: set[int] = field(default_factory=set)

    def add(self, name: str, noted: Mapping[str, np.ndarray]) -> None:
        """The facts of one more image, its name that of the label file."""
        for value, pixels in noted["labels"].tolist():
            self.labels[value] += pixels
        for true, value, pixels in noted["unknown"].tolist():
            self.unknown[true, value] += pixels
        for predicted, pixels in noted["ignored"].tolist():
            self.ignored[predicted] += pixels
        values = {*noted["labels"][:, 0].tolist()}
        if values == BLACK_AND_WHITE:
            self.black_and_white, self.first = self.black_and_white + 1, self.first or name
        else:
            self.others |= values


def noted_in_histogram(raw: np.ndarray, classes: ClassTable, predicted_classes: ClassTable) -> Noted:
    """Of how often each pair of 8-bit ids occurs, ``raw[true, predicted]``, ``(256, 256)``."""
    cells = np.flatnonzero(raw)
    values, pixels = cells & 255, raw.ravel()[cells]
    true = id_table(classes)[cells >> 8].astype(np.int64)
    predicted = id_table(predicted_classes)[values].astype(np.int64)
    unknown = (true < len(classes)) & (predicted >= len(classes))
    ignored = (true == classes.ignored) & (predicted < len(classes))
    return {
        "labels": _counted(raw.sum(1)),
        "unknown": np.stack([true, values, pixels], 1)[unknown],
        "ignored": np.stack([predicted, pixels], 1)[ignored],
    }


def noted_in_maps(
    true: np.ndarray, predicted: np.ndarray, labels: np.ndarray, decided: np.ndarray, classes: ClassTable
) -> Noted:
    """Of both files as they were read, and as class numbers ``labels`` and ``decided``; of colours only ``ignored``."""
    num_classes = len(classes)
    noted = {
        "labels": np.empty((0, 2), np.int64),
        "unknown": np.empty((0, 3), np.int64),
        "ignored": _counted(np.bincount(decided[labels == classes.ignored], minlength=num_classes)[:num_classes]),
    }
    if true.ndim == 2:
        noted["labels"] = _counted(id_histogram(true) if true.dtype == np.uint8 else np.bincount(true.ravel()))
    if predicted.ndim == 2:
        unknown = (labels < num_classes) & (decided >= num_classes)
        pairs, pixels = np.unique(labels[unknown] * np.int64(2**16) + predicted[unknown], return_counts=True)
        noted["unknown"] = np.stack([pairs >> 16, pairs & 0xFFFF, pixels], 1)
    return noted


def noted_together(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Noted:
    """Of two pieces of an image."""
    both = {}
    for kind in a:
        rows = np.concatenate([a[kind], b[kind]])
        keys, places = np.unique(rows[:, :-1], axis=0, return_inverse=True)
        pixels = np.zeros(len(keys), np.int64)
        np.add.at(pixels, places.ravel(), rows[:, -1])
        both[kind] = np.column_stack([keys, pixels])
    return both


def _counted(counts: np.ndarray) -> np.ndarray:
    """Value and pixels of what is there, ``(V, 2)``."""
    there = np.flatnonzero(counts)
    return np.stack([there, counts[there]], 1)
