r"""Confusion matrix and the scores read from it, accumulated over a whole data set in int64. Torch only.

Definition (the one of ``cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling``), with M[true, predicted]:

.. math:: \mathrm{IoU}_c = M_{cc} \,/\, (\textstyle\sum_k M_{ck} + \sum_k M_{kc} - M_{cc})

* pixels whose true label is ignored are left out;
* a class that is neither in the truth nor predicted has IoU NaN and is outside the mean; how many classes were
  averaged stands beside every mean;
* a class that is predicted but not in the truth has IoU 0 and counts;
* a prediction that is no class id, on a valid pixel, is a miss of the true class and nobody's false positive.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segloss.losses.reduction import IGNORE_INDEX


class ConfusionMatrix:
    """Counts of (true, predicted) pairs of class ids; merging two equals having seen both.

    >>> confusion = ConfusionMatrix(2)
    >>> confusion.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    >>> confusion.compute().miou
    0.5

    Attributes:
        matrix: int64 ``(C, C + 1)``, rows true, columns predicted; the last column holds predictions that are
            no class id.
        ignored: number of pixels left out.
        images: number of label maps seen (leading entries of a batch; 1 for a single 2-D or 1-D map).
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX):
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.ignored = 0
        self.images = 0

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a label map ``(H, W)`` or a batch ``(N, H, W)``; both integer, same shape, any device.

        Raises:
            ValueError: shapes differ, a dtype is not integer, or a label is outside ``[0, C)`` and not ignored.
        """
        if predictions.shape != labels.shape:
            raise ValueError(
                f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must have the same "
                "shape; resize the logits to the label's size before deciding"
            )
        if predictions.is_floating_point() or labels.is_floating_point():
            raise ValueError(f"class ids must be integers, got {predictions.dtype} and {labels.dtype}")
        labels = labels.long()  # before comparing: in int8 and uint8 an ignore_index out of range would wrap round
        valid = labels != self.ignore_index
        true = labels[valid]
        predicted = predictions[valid].long()
        if true.numel() and (int(true.min()) < 0 or int(true.max()) >= self.num_classes):
            stray = int(true.min()) if int(true.min()) < 0 else int(true.max())
            raise ValueError(f"labels hold {stray}, outside [0, {self.num_classes}) and not {self.ignore_index}")
        known = (predicted >= 0) & (predicted < self.num_classes)
        columns = self.num_classes + 1
        cells = true * columns + torch.where(known, predicted, self.num_classes)
        self.matrix += torch.bincount(cells, minlength=self.num_classes * columns).view(-1, columns).cpu()
        self.ignored += int(labels.numel() - true.numel())
        self.images += len(labels) if labels.ndim > 2 else 1

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add another's counts to these; ValueError unless both have the same classes."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.matrix += other.matrix
        self.ignored += other.ignored
        self.images += other.images
        return self

    def compute(self) -> "Scores":
        """The scores of everything seen so far."""
        return Scores.from_confusion(self.matrix)


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1], float64, NaN where a denominator is 0; per-class tensors have shape ``(C,)``.

    Attributes:
        iou, recall, precision: per class. Recall is also called class accuracy.
        pixels: int64, true pixels per class.
        miou: mean of the IoUs that are not NaN; ``classes_averaged`` says how many.
        mean_accuracy: mean recall of the classes that have true pixels.
        pixel_accuracy: share of valid pixels that are right.
    """

    iou: Tensor
    recall: Tensor
    precision: Tensor
    pixels: Tensor
    miou: float
    classes_averaged: int
    mean_accuracy: float
    pixel_accuracy: float

    @classmethod
    def from_confusion(cls, matrix: Tensor) -> "Scores":
        """From ``confusion[true, predicted]``: ``(C, C)``, or more columns for what is no class."""
        hits = matrix.diagonal().double()
        true = matrix.sum(1)
        predicted = matrix[:, : len(matrix)].sum(0)
        iou = hits / (true + predicted - hits)
        recall = hits / true
        return cls(
            iou=iou,
            recall=recall,
            precision=hits / predicted,
            pixels=true,
            miou=float(iou.nanmean()),
            classes_averaged=int((~iou.isnan()).sum()),
            mean_accuracy=float(recall.nanmean()),
            pixel_accuracy=float(hits.sum() / true.sum()),
        )

    def to_dict(self, class_names: list[str]) -> dict:
        """The metrics schema (docs/metrics.md): plain numbers in [0, 1], None where NaN."""
        per_class = zip(class_names, self.iou, self.recall, self.precision, self.pixels, strict=True)
        return {
            "miou": none_if_nan(self.miou),
            "mean_accuracy": none_if_nan(self.mean_accuracy),
            "pixel_accuracy": none_if_nan(self.pixel_accuracy),
            "classes_averaged": self.classes_averaged,
            "classes": [
                {
                    "name": name,
                    "iou": none_if_nan(float(iou)),
                    "recall": none_if_nan(float(recall)),
                    "precision": none_if_nan(float(precision)),
                    "pixels": int(pixels),
                }
                for name, iou, recall, precision, pixels in per_class
            ],
        }


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
