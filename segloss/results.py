"""What evaluation keeps of each image: counts from which every number is computed without a second inference.

They are streamed into one SQLite file, so that memory does not grow with the number of images, a killed evaluation
leaves whole images only, and the next one goes on where it stopped.
"""

import io
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from segloss.datasets.masks import counts_of_runs
from segloss.errors import InputError
from segloss.losses.reduction import IGNORE_INDEX

COUNTED_AS = 1  # raise it when the same image would be counted otherwise: older results are not gone on from
BOUNDARY_SHARE = 0.02  # of the image diagonal: width of the band of boundary IoU (Cheng et al., CVPR 2021)
BINS = 15  # of the posterior's maximum, equally wide (Guo et al., ICML 2017)
AT_ONCE = 64  # images a transaction


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


class ResultStore:
    """The results of one evaluation on disk, by name of the sample; one evaluation at a time holds the file.

    Args:
        path: the SQLite file; made if need be. A damaged one is begun anew.
        key: what the results depend on (model, data, options); results under another key are dropped.

    Raises:
        InputError: the file cannot be written, or another evaluation holds it.
    """

    def __init__(self, path: Path, key: dict):
        self.path = path
        content = json.dumps({**key, "counted_as": COUNTED_AS}, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(content)
            except sqlite3.DatabaseError as error:
                if any(word in str(error) for word in ("locked", "full", "unable to open")):
                    raise
                for name in (path.name, f"{path.name}-journal"):  # no results of ours: begin anew
                    path.with_name(name).unlink(missing_ok=True)
                self._open(content)
        except (OSError, sqlite3.Error) as error:
            if "locked" in str(error):
                cure = "another evaluation is writing there; wait for it or choose another --output-dir"
            else:
                cure = "choose another --output-dir"
            raise InputError(f"{path}: cannot be written: {error}; {cure}") from error

    def _open(self, key: str) -> None:
        self.connection = sqlite3.connect(self.path, timeout=1)  # seconds; who holds the file holds it for long
        try:
            with self.connection as c:
                c.execute("PRAGMA locking_mode = EXCLUSIVE")  # two evaluations would mix their results
                c.execute("BEGIN EXCLUSIVE")
                c.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT)")
                columns = "place INTEGER PRIMARY KEY, name TEXT UNIQUE, result BLOB, checksum INTEGER"
                c.execute(f"CREATE TABLE IF NOT EXISTS results ({columns})")
                self._require_whole()
                if c.execute("SELECT key FROM meta").fetchall() != [(key,)]:
                    c.execute("DELETE FROM meta")
                    c.execute("DELETE FROM results")
                    c.execute("INSERT INTO meta VALUES (?)", (key,))
        except BaseException:
            self.connection.close()
            raise

    def _require_whole(self) -> None:
        """sqlite3.DatabaseError for a damaged file; SQLite alone would not see a changed byte of a result."""
        if self.connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        for place, name, content, checksum in self.connection.execute("SELECT * FROM results"):
            if not isinstance(content, bytes) or checksum != _checksum(place, name, content):
                raise sqlite3.DatabaseError("damaged")

    def __enter__(self) -> "ResultStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def names(self) -> set[str]:
        """Of the images that are done."""
        return {name for (name,) in self.connection.execute("SELECT name FROM results")}

    def add_all(self, results: Iterable[tuple[int, ImageResult]]) -> None:
        """Write (place, result) as they come, whole transactions of a few images; also what came before an error."""
        batch: list[tuple[int, str, bytes, int]] = []
        try:
            for place, result in results:
                content = result.to_bytes()
                batch.append((place, result.name, content, _checksum(place, result.name, content)))
                if len(batch) == AT_ONCE:
                    self._write(batch)
                    batch = []
        finally:
            self._write(batch)

    def _write(self, batch: list[tuple[int, str, bytes, int]]) -> None:
        try:
            with self.connection as c:
                c.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", batch)
        except sqlite3.OperationalError as error:  # the disk is full
            raise InputError(f"{self.path}: cannot be written: {error}; choose another --output-dir") from error

    def __iter__(self) -> Iterator[ImageResult]:
        for name, content in self.connection.execute("SELECT name, result FROM results ORDER BY place"):
            yield ImageResult.from_bytes(name, content)

    def __len__(self) -> int:
        return self.connection.execute("SELECT COUNT(*) FROM results").fetchone()[0]


def _checksum(place: object, name: object, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(repr((place, name)).encode()))


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
