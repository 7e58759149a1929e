"""What evaluation keeps of each image: counts from which every number is computed without a second inference."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from segloss.errors import InputError
from segloss.evaluation.written import Written, noted_together
from segloss.measures import MEASURES


@dataclass
class ImageResult:
    """Counts of one image.

    Attributes:
        name: of the sample.
        matrix: int64 ``(C, C + 1)``, ``confusion[true, predicted]``; last column: predictions that are no class.
        ignored: pixels left out.
        counted: name of a measure -> its counts; of :data:`segloss.measures.MEASURES` those asked for.
        calibration: float64 ``(BINS, 3)``: pixels, sum of confidence, right ones per bin of the posterior's maximum;
            None: not asked for.
        brier: sum over the labelled pixels of the squared distance of posterior and one-hot.
        likelihood: :func:`segloss.evaluation.counting.likelihood_counts`; of a calibrated run also these, ``bins``
            and ``brier`` of the posterior before, as ``uncalibrated NAME``.
        noted: of files of masks, what they hold beside their classes (:mod:`segloss.evaluation.written`).
        sweep: rule -> int64 ``(T, C, 2)``: right and predicted pixels per class at each operating point.
    """

    name: str
    matrix: np.ndarray
    ignored: int
    counted: dict[str, np.ndarray] = field(default_factory=dict)
    calibration: np.ndarray | None = None
    brier: float = 0.0
    sweep: dict[str, np.ndarray] = field(default_factory=dict)
    likelihood: dict[str, np.ndarray] = field(default_factory=dict)
    noted: dict[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The confusion matrix as its non-zero cells; plain arrays, no pickle."""
        cells = np.flatnonzero(self.matrix)
        arrays = {
            "shape": np.array(self.matrix.shape),
            "cells": cells,
            "counts": self.matrix.ravel()[cells],
            "sums": np.array([self.ignored, self.brier]),
            **{f"counted {name}": counts for name, counts in self.counted.items()},
            **{f"sweep {rule}": counts for rule, counts in self.sweep.items()},
            **{f"likelihood {name}": sums for name, sums in self.likelihood.items()},
            **{f"noted {name}": counts for name, counts in self.noted.items()},
        }
        if self.calibration is not None:
            arrays["calibration"] = self.calibration
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # none of them is called allow_pickle
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, name: str, content: bytes) -> "ImageResult":
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            matrix = np.zeros(arrays["shape"], dtype=np.int64)
            matrix.ravel()[arrays["cells"]] = arrays["counts"]
            ignored, brier = arrays["sums"].tolist()
            split = [(*key.partition(" ")[::2], key) for key in arrays.files]
            kinds = ("counted", "sweep", "likelihood", "noted")
            counted, sweep, likelihood, noted = (
                {of: arrays[key] for kind, of, key in split if kind == k} for k in kinds
            )
            calibration = arrays.get("calibration")
        return cls(name, matrix, int(ignored), counted, calibration, brier, sweep, likelihood, noted)


@dataclass
class Totals:
    """The results of all images added up, and per image what intervals are made from.

    Attributes:
        matrix: int64 ``(C, C + 1)``.
        images, ignored: label maps, and their pixels that are left out.
        present: images that hold each class, ``(C,)``.
        counts: int64 ``(images, 3, C)``: right, true and predicted pixels of each class.
        names: of the images.
        counted, calibration, brier, sweep, likelihood: sums of those of the images; None or empty where not asked for.
        written: of files of masks, what they hold beside their classes.
        sweep_pairs: rule -> float64 ``(T, 2)``: sum and number of the IoUs of all pairs of an image and a class with a
            union, at each operating point.
    """

    matrix: np.ndarray
    images: int
    ignored: int
    present: np.ndarray
    counts: np.ndarray
    names: list[str]
    counted: dict[str, np.ndarray]
    calibration: np.ndarray | None
    brier: float
    sweep: dict[str, np.ndarray]
    sweep_pairs: dict[str, np.ndarray]
    likelihood: dict[str, np.ndarray] = field(default_factory=dict)
    written: Written = field(default_factory=Written)

    @classmethod
    def of(cls, results: Iterable[ImageResult]) -> "Totals":
        """One pass; what is kept of an image is 3 C numbers."""
        total: ImageResult | None = None
        counts, names = [], []
        pairs: dict[str, np.ndarray] = {}
        written = Written()
        for result in results:
            matrix = result.matrix
            counts.append(np.stack([matrix.diagonal(), matrix.sum(1), matrix[:, : len(matrix)].sum(0)]))
            names.append(result.name)
            if result.noted:
                written.add(result.name, result.noted)
            for rule, points in result.sweep.items():
                pairs[rule] = pairs.get(rule, 0) + _image_ious(matrix.sum(1), points)
            total = result if total is None else added(total, result)
        if total is None:
            raise InputError("there is no image to score")
        every = np.stack(counts)
        return cls(
            matrix=total.matrix,
            images=len(names),
            ignored=total.ignored,
            present=(every[:, 1] > 0).sum(0),
            counts=every,
            names=names,
            counted=total.counted,
            calibration=total.calibration,
            brier=total.brier,
            sweep=total.sweep,
            sweep_pairs=pairs,
            likelihood=total.likelihood,
            written=written,
        )


def _image_ious(true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Sum and number of the IoUs of an image's classes with a union, ``(T, 2)``, of its sweep ``(T, C, 2)``."""
    hits, predicted = points[..., 0], points[..., 1]
    union = true + predicted - hits
    return np.stack([(hits / np.maximum(union, 1)).sum(1), (union > 0).sum(1)], axis=1)


def added(a: ImageResult, b: ImageResult) -> ImageResult:
    """Of two images, or of two pieces of one, together; without a name."""
    calibration = None
    if a.calibration is not None and b.calibration is not None:
        calibration = a.calibration + b.calibration
    return ImageResult(
        name="",
        matrix=a.matrix + b.matrix,
        ignored=a.ignored + b.ignored,
        counted={name: MEASURES[name].add(a.counted[name], b.counted[name]) for name in a.counted},
        calibration=calibration,
        brier=a.brier + b.brier,
        sweep={rule: a.sweep[rule] + b.sweep[rule] for rule in a.sweep},
        likelihood={name: a.likelihood[name] + b.likelihood[name] for name in a.likelihood},
        noted=noted_together(a.noted, b.noted),
    )
