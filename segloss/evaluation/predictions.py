"""Predictions as files and as pictures for people, made while the images are scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import InputError
from segloss.evaluation.png_rows import PngRows
from segloss.files import write_bytes


class PredictionWriter:
    """A callback that writes predictions as PNG: ``ids``, the data set's own (8 or 16 bit), ``color`` and ``overlay``.

    One kind goes straight into the folder, several into a folder each. ``train_ids`` are those of Cityscapes; their
    files are called NAME_labelTrainIds.png, by which --predictions knows them.

    Raises:
        InputError: train_ids of another data set.
    """

    def __init__(self, folder: Path, classes: ClassTable, kinds: Sequence[str], dataset: SegmentationDataset):
        self.folders = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
        self.classes, self.dataset = classes, dataset
        if "train_ids" in kinds and classes.names != CITYSCAPES.names:
            raise InputError("--save train_ids are those of Cityscapes, which this is not", "save ids")
        self._begun: dict[Path, PngRows] = {}
        self.ids = np.asarray(classes.ids, dtype=np.uint8 if max(classes.ids) < 256 else np.uint16)

    def __call__(self, sample: dict[str, Any], predicted: Tensor) -> None:
        """Write a whole map, or the next rows of one that comes in pieces, as :func:`infer_dataset` makes them."""
        import cv2

        class_map, whole = predicted.byte().numpy(), len(predicted) == sample.get("size", predicted.shape)[0]
        for kind, folder in self.folders.items():
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
            self._image = self.dataset.image_rows(self.dataset.names.index(sample["name"]))
        return overlay(self._image(top, top + len(class_map)), class_map, self.classes.colors)


class KeepSome:
    """A callback for :func:`evaluate` that keeps evenly spaced samples for a picture.

    Attributes:
        samples: (name, image, labels, predicted) at the label's own resolution, uint8.
    """

    def __init__(self, dataset: SegmentationDataset, count: int):
        self.dataset = dataset
        count = min(count, len(dataset))
        self.wanted = {(2 * place + 1) * len(dataset) // (2 * count) for place in range(count)}
        self.seen = 0
        self.samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, sample: dict[str, Any], predicted: Tensor) -> None:
        if self.seen in self.wanted:
            labels = sample["labels"].numpy()
            image = self.dataset.read_image(self.seen)
            self.samples.append((sample["name"], image, labels, predicted.numpy().astype(np.uint8)))
        self.seen += 1
