"""Predictions as files and as pictures for people, probabilities as files, made while the images are scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.classes import ignored_in, map_dtype
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import InputError
from segloss.evaluation.png_rows import PngRows
from segloss.evaluation.posterior_maps import (
    MOST_IN_PNG,
    MapIndex,
    confidence_picture,
    write_arrays,
    write_pictures,
)
from segloss.files import write_bytes
from segloss.iou_rule import IoUDecision
from segloss.metrics import ConfusionMatrix

OF_POSTERIOR = ("probability", "probability_png", "confidence")


class PredictionWriter:
    """A callback that writes predictions as PNG: ``ids``, the data set's own (8 or 16 bit), ``color`` and ``overlay``.

    Of the posterior ``probability`` is :func:`write_arrays`, ``probability_png`` :func:`write_pictures`, both with
    ``index`` beside them, and ``confidence`` :func:`confidence_picture`. One kind goes straight into the folder,
    several into a folder each. ``train_ids`` are those of Cityscapes; their files are called NAME_labelTrainIds.png, by
    which --predictions knows them.

    Raises:
        InputError: train_ids of another data set, or more classes than 8 bits can tell apart.
    """

    def __init__(
        self,
        folder: Path,
        classes: ClassTable,
        kinds: Sequence[str],
        dataset: SegmentationDataset,
        index: MapIndex | None = None,
    ):
        self.folders = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
        self.classes, self.dataset, self.index = classes, dataset, index
        self.indexed: set[Path] = set()
        self.of_posterior = any(kind in OF_POSTERIOR for kind in kinds)
        if "probability_png" in kinds and len(classes) > MOST_IN_PNG:
            raise InputError(f"--save probability_png is for at most {MOST_IN_PNG} classes", "save probability")
        if "train_ids" in kinds and classes.names != CITYSCAPES.names:
            raise InputError("--save train_ids are those of Cityscapes, which this is not", "save ids")
        self._begun: dict[Path, PngRows] = {}
        self._pieces: list[Tensor] = []
        self.ids = np.asarray(classes.ids, dtype=np.uint8 if max(classes.ids) < 256 else np.uint16)

    def __call__(self, sample: dict[str, Any], predicted: Tensor, posterior: Tensor | None = None) -> None:
        """Write a whole map, or the next rows of one that comes in pieces, as :func:`infer_dataset` makes them."""
        import cv2

        height = sample.get("size", predicted.shape)[0]
        class_map, whole = predicted.numpy().astype(map_dtype(len(self.classes))), len(predicted) == height
        if self.of_posterior and posterior is not None:
            self._pieces.append(posterior[0].cpu())
            if sample.get("top", 0) + len(predicted) == height:
                self._write_posterior(sample["name"], torch.cat(self._pieces, 1))
                self._pieces.clear()
        for kind, folder in self.folders.items():
            if kind in OF_POSTERIOR:
                continue
            name = f"{sample['name']}_labelTrainIds" if kind == "train_ids" else sample["name"]
            path = folder / f"{name}.png"
            pixels = self._pixels(kind, class_map, sample)
            if whole:
                bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
                write_bytes(path, cv2.imencode(".png", bgr)[1].tobytes())
                continue
            if path not in self._begun:
                self._begun[path] = PngRows(path, sample["size"])
            file = self._begun[path]
            file.write(pixels)
            if file.row == file.size[0]:
                del self._begun[path]

    def _write_posterior(self, name: str, posterior: Tensor) -> None:
        """Of a whole image ``(C, H, W)``, which is held for it even where the image came in pieces."""
        import cv2

        for kind, folder in self.folders.items():
            if kind in ("probability", "probability_png"):
                if folder not in self.indexed and self.index is not None:
                    self.index.save(folder)
                    self.indexed.add(folder)
                (write_arrays if kind == "probability" else write_pictures)(folder / name, posterior)
            elif kind == "confidence":
                picture = cv2.imencode(".png", confidence_picture(posterior))[1]
                write_bytes(folder / f"{name}.png", picture.tobytes())

    def _pixels(self, kind: str, class_map: np.ndarray, sample: dict[str, Any]) -> np.ndarray:
        """What a kind shows of class numbers: ids ``(rows, W)``, or RGB ``(rows, W, 3)``."""
        from segloss.report.painting import overlay, paint

        if kind == "ids":
            return self.ids[class_map]
        if kind == "train_ids":
            return class_map
        if kind == "color":
            return paint(class_map, self.classes.colors)
        top = sample.get("top", 0)
        if top == 0:
            self._image = self.dataset.picture_rows(self.dataset.names.index(sample["name"]))
        return overlay(self._image(top, top + len(class_map)), class_map, self.classes.colors)


class CountByRule:
    """A callback for :func:`evaluate` that counts what the IoU rule decides, beside the decision that is scored.

    Attributes:
        confusion: of all images so far.
    """

    def __init__(self, rule: IoUDecision, num_classes: int):
        self.rule = rule
        self.confusion = ConfusionMatrix(num_classes, ignore_index=ignored_in(num_classes))

    def __call__(self, sample: dict[str, Any], _: Tensor, posterior: Tensor | None = None) -> None:
        assert posterior is not None  # calibration is counted too
        self.confusion.update(self.rule.decide(posterior).cpu(), sample["labels"][None].long())


class KeepSome:
    """A callback for :func:`evaluate` that keeps evenly spaced samples for a picture.

    Args:
        rule: where given, what it decides is kept too; the evaluation has to count calibration then.

    Attributes:
        samples: (name, image, labels, predicted) at the label's own resolution.
        by_rule: of each of these what the rule decides; empty without one.
    """

    def __init__(self, dataset: SegmentationDataset, count: int, rule: IoUDecision | None = None):
        self.dataset, self.rule = dataset, rule
        self.by_rule: list[np.ndarray] = []
        count = min(count, len(dataset))
        self.wanted = {(2 * place + 1) * len(dataset) // (2 * count) for place in range(count)}
        self.seen = 0
        self.samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, sample: dict[str, Any], predicted: Tensor, posterior: Tensor | None = None) -> None:
        if self.seen in self.wanted:
            labels = sample["labels"].numpy()
            image = self.dataset.read_picture(self.seen)
            kind = map_dtype(len(self.dataset.classes))
            self.samples.append((sample["name"], image, labels.astype(kind), predicted.numpy().astype(kind)))
            if self.rule is not None:
                assert posterior is not None
                self.by_rule.append(self.rule.decide(posterior)[0].cpu().numpy().astype(kind))
        self.seen += 1
