"""What files of masks hold beside their classes: noted while they are counted, judged by :mod:`.doubts`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segloss.datasets.classes import ClassTable
from segloss.datasets.masks import id_histogram, id_table, packed, palette_of

BLACK_AND_WHITE = {0, 255}  # ids of a mask that a drawing program saved
COLOR = 2**24  # added to R + 256 G + 65536 B, to tell a colour from an id
MOST_COLORS = 16  # of an image that are no class; of all images:
MOST_KEYS = 2**12
Noted = dict[str, np.ndarray]  # of one image, int64: see the attributes of Written, the pixels in the last column


@dataclass
class Written:
    """Sums over images, as many numbers as there are ids, however many images.

    Attributes:
        labels: value in the label files -> pixels; colours are not noted.
        unknown: true class and predicted id, or colour plus ``COLOR``, that is no class -> pixels.
        ignored: predicted class -> pixels whose label is ignored.
        unlabelled: predicted class -> labelled pixels of images that do not label it.
        black_and_white: label files that hold 0 and 255 alone; ``first`` is the name of one.
        others: the values of all other label files.
        palettes: of palette images whether they are predictions (0, 1), index and its colour -> pixels.
    """

    labels: Counter[int] = field(default_factory=Counter)
    unknown: Counter[tuple[int, int]] = field(default_factory=Counter)
    ignored: Counter[int] = field(default_factory=Counter)
    unlabelled: Counter[int] = field(default_factory=Counter)
    black_and_white: int = 0
    first: str = ""
    others: set[int] = field(default_factory=set)
    palettes: Counter[tuple[int, int, int]] = field(default_factory=Counter)

    def add(self, name: str, noted: Mapping[str, np.ndarray]) -> None:
        """The facts of one more image, its name that of the label file."""
        for value, pixels in noted["labels"].tolist():
            self.labels[value] += pixels
        for true, value, pixels in noted["unknown"].tolist():
            if value < COLOR or (true, value) in self.unknown or len(self.unknown) < MOST_KEYS:
                self.unknown[true, value] += pixels
        for predicted, pixels in noted["ignored"].tolist():
            self.ignored[predicted] += pixels
        for predicted, pixels in noted["unlabelled"].tolist():
            self.unlabelled[predicted] += pixels
        for side, value, color, pixels in noted["palette"].tolist():
            if (side, value, color) in self.palettes or len(self.palettes) < MOST_KEYS:
                self.palettes[side, value, color] += pixels
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
        "unlabelled": np.empty((0, 2), np.int64),
        "palette": np.empty((0, 4), np.int64),
    }


def noted_in_maps(
    true: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    written: np.ndarray,
    decided: np.ndarray,
    classes: ClassTable,
) -> Noted:
    """Of both files as they were read, and as class numbers; of colours in labels only what is noted of predictions.

    ``decided`` is ``written`` without the classes that the image does not label.
    """
    num_classes = len(classes)
    valid = labels < num_classes
    unknown, unlabelled = valid & (written >= num_classes), valid & (written < num_classes) & (decided >= num_classes)
    values = packed(predicted[unknown][None])[0] + np.int64(COLOR) if predicted.ndim == 3 else predicted[unknown]
    pairs, pixels = np.unique(labels[unknown] * np.int64(2**32) + values, return_counts=True)
    if predicted.ndim == 3:
        most = np.sort(pixels.argsort(kind="stable")[::-1][:MOST_COLORS])
        pairs, pixels = pairs[most], pixels[most]
    noted = {
        "labels": np.empty((0, 2), np.int64),
        "unknown": np.stack([pairs >> 32, pairs & (2**32 - 1), pixels], 1),
        "palette": np.empty((0, 4), np.int64),
        "unlabelled": _counted(np.bincount(written[unlabelled], minlength=num_classes)),
        "ignored": _counted(np.bincount(decided[labels == classes.ignored], minlength=num_classes)[:num_classes]),
    }
    if true.ndim == 2:
        noted["labels"] = _counted(id_histogram(true) if true.dtype == np.uint8 else np.bincount(true.ravel()))
    return noted


def noted_of_palettes(*masks: tuple[Path, np.ndarray]) -> np.ndarray:
    """Rows of what ``palette`` notes, of the label and the prediction; none of what has no palette."""
    rows = [np.empty((0, 4), np.int64)]
    for side, (path, ids) in enumerate(masks):
        palette = palette_of(path)
        if palette is not None:
            found = _counted(id_histogram(ids)[: len(palette)])
            colors = packed(palette[found[:, 0]][None])[0]
            rows.append(np.column_stack([np.full(len(found), side), found[:, 0], colors, found[:, 1]]))
    return np.concatenate(rows).astype(np.int64)


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
