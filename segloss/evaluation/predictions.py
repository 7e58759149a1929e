"""Predictions as files and as pictures for people, probabilities as files, made while the images are scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import InputError
from segloss.evaluation.posterior_maps import (
    MOST_IN_PNG,
    MapIndex,
    confidence_picture,
    write_arrays,
    write_pictures,
)
from segloss.files import write_bytes

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
        self.ids = np.asarray(classes.ids, dtype=np.uint8 if max(classes.ids) < 256 else np.uint16)

    def __call__(self, sample: dict[str, Any], predicted: Tensor, posterior: Tensor | None = None) -> None:
        import cv2

        from segloss.report.painting import overlay, paint

        class_map = predicted.byte().numpy()
        for kind, folder in self.folders.items():
            name = sample["name"]
            if kind in ("probability", "probability_png") and posterior is not None:
                if folder not in self.indexed and self.index is not None:
                    self.index.save(folder)
                    self.indexed.add(folder)
                (write_arrays if kind == "probability" else write_pictures)(folder / name, posterior[0])
                continue
            if kind == "ids":
                pixels = self.ids[class_map]
            elif kind == "train_ids":
                pixels, name = class_map, f"{name}_labelTrainIds"
            elif kind == "confidence" and posterior is not None:
                pixels = confidence_picture(posterior[0])
            elif kind == "color":
                pixels = cv2.cvtColor(paint(class_map, self.classes.colors), cv2.COLOR_RGB2BGR)
            else:
                image = self.dataset.read_picture(self.dataset.names.index(name))
                pixels = cv2.cvtColor(overlay(image, class_map, self.classes.colors), cv2.COLOR_RGB2BGR)
            write_bytes(folder / f"{name}.png", cv2.imencode(".png", pixels)[1].tobytes())


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

    def __call__(self, sample: dict[str, Any], predicted: Tensor, _: Tensor | None = None) -> None:
        if self.seen in self.wanted:
            labels = sample["labels"].numpy()
            image = self.dataset.read_picture(self.seen)
            self.samples.append((sample["name"], image, labels, predicted.numpy().astype(np.uint8)))
        self.seen += 1
