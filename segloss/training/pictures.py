"""A few validation images after each validation, always the same: image, labels, decision; worst class first."""

from collections.abc import Sequence
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from segloss.datasets import SegmentationDataset
from segloss.models import logits_at_size
from segloss.pixel_counts import image_histograms
from segloss.report.painting import overlay
from segloss.training.records import log_picture
from segloss.training.task import SegmentationTask

SHOWN = 4
WIDTH = 320  # pixels of each of the three pictures of a row


def choose_shown(histograms: Tensor, rarest_first: Sequence[int], most: int = SHOWN) -> list[tuple[int, int]]:
    """(image, class): for one class after the other the image that holds most of it and was not chosen yet.

    >>> choose_shown(torch.tensor([[9, 0, 0], [4, 5, 0], [8, 1, 0]]), [1, 0], 2)
    [(1, 1), (0, 0)]
    """
    found: list[tuple[int, int]] = []
    for of_class in rarest_first:
        left = histograms[:, of_class].clone()
        left[[image for image, _ in found]] = 0
        if len(found) < most and int(left.max()) > 0:
            found.append((int(left.argmax()), of_class))
    return found


class Pictures(Callback):
    """Logs a sheet of ``SHOWN`` validation images chosen for the rarest classes, in the order of these classes' IoU.

    It looks while an average of the weights stands in for them, so it has to be before :class:`AveragedWeights`.
    """

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        dataset: Any = getattr(getattr(trainer, "datamodule", None), "splits", None)
        dataset = getattr(dataset, "val", None)
        if trainer.sanity_checking or not (
            trainer.is_global_zero and trainer.loggers and isinstance(dataset, SegmentationDataset)
        ):
            return
        if not self.shown:
            pixels = task.training_pixels or task.confusion.matrix.sum(1).tolist()
            rarest_first = sorted(range(len(pixels)), key=lambda c: pixels[c])
            self.shown = choose_shown(image_histograms(dataset)[0], rarest_first)
        rows = []
        names = task.checkpoint_content["classes"]["names"]
        for place, of_class in sorted(self.shown, key=lambda pair: task.val_scores[f"val_iou/{names[pair[1]]}"]):
            iou = 100 * task.val_scores[f"val_iou/{names[of_class]}"]
            rows.append(captioned(self._row(task, dataset, place), f"{names[of_class]}: IoU {iou:.1f}"))
        if rows:
            height = min(len(row) for row in rows)
            sheet = np.concatenate([cv2.resize(row, (3 * WIDTH, height)) for row in rows])
            for logger in trainer.loggers:
                log_picture(logger, "val/worst_classes_first", sheet, trainer.global_step)

    def _row(self, task: SegmentationTask, dataset: SegmentationDataset, place: int) -> np.ndarray:
        sample = dataset[place]
        with torch.no_grad(), torch.autocast(task.device.type, enabled=False):
            logits = logits_at_size(task.model, sample["image"][None].to(task.device), sample["size"])
            decided = task.criterion.decide(logits)[0].cpu().numpy()
        height = max(1, round(sample["size"][0] * WIDTH / sample["size"][1]))

        def small(picture: np.ndarray, how: int) -> np.ndarray:
            return np.asarray(cv2.resize(picture, (WIDTH, height), interpolation=how))

        image = small(dataset.read_picture(place), cv2.INTER_AREA)
        maps = (small(ids.astype(np.uint16), cv2.INTER_NEAREST) for ids in (sample["labels"].numpy(), decided))
        return np.concatenate([image, *(overlay(image, ids, dataset.classes.colors) for ids in maps)], 1)


def captioned(row: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text above it."""
    bar = np.full((20, row.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, row])
