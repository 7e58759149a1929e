"""What evaluation keeps of each image: counts from which every number is computed without a second inference."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from segloss.errors import InputError


@dataclass
class ImageResult:
    """Counts of one image.

    Attributes:
        name: of the sample.
        matrix: int64 ``(C, C + 1)``, ``confusion[true, predicted]``; last column: predictions that are no class.
        ignored: pixels left out.
        boundary: int64 ``(C, 2)``: intersection and union of the classes' boundary bands; None: not asked for.
        calibration: float64 ``(BINS, 3)``: pixels, sum of confidence, right ones per bin of the posterior's maximum.
        brier: sum over the labelled pixels of the squared distance of posterior and one-hot.
        sweep: rule -> int64 ``(T, C, 2)``: right and predicted pixels per class at each operating point.
    """

    name: str
    matrix: np.ndarray
    ignored: int
    boundary: np.ndarray | None = None
    calibration: np.ndarray | None = None
    brier: float = 0.0
    sweep: dict[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The confusion matrix as its non-zero cells; plain arrays, no pickle."""
        cells = np.flatnonzero(self.matrix)
        arrays = {
            "shape": np.array(self.matrix.shape),
            "cells": cells,
            "counts": self.matrix.ravel()[cells],
            "sums": np.array([self.ignored, self.brier]),
            **{f"sweep {rule}": counts for rule, counts in self.sweep.items()},
        }
        for key in ("boundary", "calibration"):
            if getattr(self, key) is not None:
                arrays[key] = getattr(self, key)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, name: str, content: bytes) -> "ImageResult":
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            matrix = np.zeros(arrays["shape"], dtype=np.int64)
            matrix.ravel()[arrays["cells"]] = arrays["counts"]
            ignored, brier = arrays["sums"].tolist()
            sweep = {key.removeprefix("sweep "): arrays[key] for key in arrays.files if key.startswith("sweep ")}
            optional = {key: arrays[key] for key in ("boundary", "calibration") if key in arrays.files}
        return cls(name, matrix, int(ignored), brier=brier, sweep=sweep, **optional)


@dataclass
class Totals:
    """The results of all images added up, and per image what the bootstrap resamples.

    Attributes:
        matrix: int64 ``(C, C + 1)``.
        images, ignored: label maps, and their pixels that are left out.
        present: images that hold each class, ``(C,)``.
        counts: int64 ``(images, 3, C)``: right, true and predicted pixels of each class.
        names: of the images.
        boundary, calibration, brier, sweep: sums of those of the images; None or empty where not asked for.
        sweep_pairs: rule -> float64 ``(T, 2)``: sum and number of the IoUs of all pairs of an image and a class with a
            union, at each operating point.
    """

    matrix: np.ndarray
    images: int
    ignored: int
    present: np.ndarray
    counts: np.ndarray
    names: list[str]
    boundary: np.ndarray | None
    calibration: np.ndarray | None
    brier: float
    sweep: dict[str, np.ndarray]
    sweep_pairs: dict[str, np.ndarray]

    @classmethod
    def of(cls, results: Iterable[ImageResult]) -> "Totals":
        """One pass; what is kept of an image is 3 C numbers."""
        total: ImageResult | None = None
        counts, names = [], []
        pairs: dict[str, np.ndarray] = {}
        for result in results:
            matrix = result.matrix
            counts.append(np.stack([matrix.diagonal(), matrix.sum(1), matrix[:, : len(matrix)].sum(0)]))
            names.append(result.name)
            for rule, points in result.sweep.items():
                pairs[rule] = pairs.get(rule, 0) + _image_ious(matrix.sum(1), points)
            total = result if total is None else _added(total, result)
        if total is None:
            raise InputError("there is no image to score")
        every = np.stack(counts)
        return cls(
            total.matrix,
            len(names),
            total.ignored,
            (every[:, 1] > 0).sum(0),
            every,
            names,
            total.boundary,
            total.calibration,
            total.brier,
            total.sweep,
            pairs,
        )


def _image_ious(true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Sum and number of the IoUs of an image's classes with a union, ``(T, 2)``, of its sweep ``(T, C, 2)``."""
    hits, predicted = points[..., 0], points[..., 1]
    union = true + predicted - hits
    return np.stack([(hits / np.maximum(union, 1)).sum(1), (union > 0).sum(1)], axis=1)


def _added(a: ImageResult, b: ImageResult) -> ImageResult:
    def both(x: np.ndarray | None, y: np.ndarray | None) -> np.ndarray | None:
        return None if x is None or y is None else x + y

    return ImageResult(
        "",
        a.matrix + b.matrix,
        a.ignored + b.ignored,
        both(a.boundary, b.boundary),
        both(a.calibration, b.calibration),
        a.brier + b.brier,
        {rule: a.sweep[rule] + b.sweep[rule] for rule in a.sweep},
    )
