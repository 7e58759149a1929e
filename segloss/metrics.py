r"""Confusion matrix and the scores read from it, accumulated over a whole data set in int64. Torch only.

Definition (the one of ``cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling``), with M[true, predicted]:

.. math:: \mathrm{IoU}_c = M_{cc} \,/\, (\textstyle\sum_k M_{ck} + \sum_k M_{kc} - M_{cc})

* pixels whose true label is ignored are left out;
* a class that is neither in the truth nor predicted has IoU NaN and is outside the mean; how many classes were
  averaged stands beside every mean;
* a class that is predicted but not in the truth has IoU 0 and counts;
* a prediction that is no class id, on a valid pixel, is a miss of the true class and nobody's false positive.

The same counts give other means elsewhere. ``protocol`` names whose, one of ``PROTOCOLS``, in any case:

============== ==================================================================================================
``cityscapes`` as above
``mmseg``      the same; mmsegmentation 1.x, Hugging Face's evaluate
``torchvision`` its reference scripts: plain means, so that one absent class makes them NaN
``segnet``     an absent class has IoU and recall 0 and counts: SegNet, semseg, PaddleSeg
``smp``        ``get_stats`` and ``iou_score`` and ``recall(reduction="macro")``: an absent class has 1 and counts
``per-image``  torchmetrics' ``MeanIoU(per_class=False)``: mean of the IoUs of all pairs of an image and a class with
               a union, however many classes an image has; accuracies as in cityscapes
============== ==================================================================================================
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from segloss.losses.labels import as_map, ignore_index_of, ignored_label, refuse_one_hot, require_num_classes
from segloss.losses.ranges import is_switch_or_complex

ROUNDED = 1e-6  # how far sums of float32 are off
UNKNOWN = 0.01  # of the pixels predicted as no class: from so many on it is told


@dataclass(frozen=True)
class Protocol:
    """A definition of the means: all that tells one from another.

    Attributes:
        name: in options, files, tables and on the page.
        absent: what a class without pixels to divide by brings into a mean; NaN makes the mean NaN, None: nothing, it
            stays outside.
        per_image: the mean IoU is over all pairs of an image and a class with a union, not over the classes.
    """

    name: str
    absent: float | None = None
    per_image: bool = False

    def classes_averaged(self, known: int, classes: int) -> int:
        """How many classes a mean is over, ``known`` of which have a number of their own."""
        return known if self.absent is None else classes

    def entering(self, ratios: Tensor) -> Tensor:
        """The ratios ``(C,)``, NaN where there is none, that enter a mean."""
        return ratios[~ratios.isnan()] if self.absent is None else ratios.nan_to_num(self.absent)


_ALL = (
    Protocol("cityscapes"),
    Protocol("mmseg"),
    Protocol("torchvision", absent=math.nan),
    Protocol("segnet", absent=0.0),
    Protocol("smp", absent=1.0),
    Protocol("per-image", per_image=True),
)
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def protocol_named(name: str) -> Protocol:
    """The protocol of a name, in any case; ValueError for an unknown one."""
    if not isinstance(name, str) or name.lower() not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name.lower()]


class ConfusionMatrix:
    """Counts of (true, predicted) pairs of class ids; merging two equals having seen both.

    >>> confusion = ConfusionMatrix(2)
    >>> confusion.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    >>> confusion.compute().miou
    0.5

    Args:
        num_classes: C, at least 2.
        ignore_index: label of the pixels that are left out; auto: 255, or 65535 where 255 is a class; None: none. An
            ignored class stays in the mean, with an IoU of 0, where it is predicted.

    Raises:
        ValueError: fewer than two classes.

    Attributes:
        matrix: int64 ``(C, C + 1)``, rows true, columns predicted; the last column holds predictions that are
            no class id.
        ignored: number of pixels left out.
        images: number of label maps seen (leading entries of a batch; 1 for a single 2-D or 1-D map).
        synced: the counts are those of all ranks.
    """

    def __init__(self, num_classes: int, ignore_index: int | str | None = "auto"):
        self.num_classes = num_classes = require_num_classes(num_classes)
        self.ignore_index: int | None = ignore_index_of(num_classes, ignore_index)
        ignored_label(self.ignore_index)
        with torch.inference_mode(False):  # what is made in that mode cannot be added to outside
            self.matrix = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64, device="cpu")
        self.ignored = 0
        self.images = 0
        self.synced = False
        self._by_default, self._told = ignore_index == "auto", False

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a label map ``(H, W)`` or a batch ``(N, H, W)``; both integer, same shape, any device; arrays too.

        Raises:
            ValueError: shapes differ, a dtype is not integer, labels are one-hot, or one is outside ``[0, C)`` and not
                ignored; or :meth:`sync` was called before.
        """
        self._require_unsynced()
        predictions, labels = as_map(predictions), as_map(labels)
        if predictions.shape != labels.shape:
            what = f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must have the same shape"
            raise ValueError(f"{what}; {_cure_of_shapes(predictions, labels)}")
        if any(ids.is_floating_point() or is_switch_or_complex(ids) for ids in (predictions, labels)):
            raise ValueError(f"class ids must be integers, got {predictions.dtype} and {labels.dtype}")
        refuse_one_hot("labels", labels, self.num_classes)
        labels = labels.long()  # before comparing: in int8 and uint8 an ignore_index out of range would wrap round
        valid = labels != ignored_label(self.ignore_index)
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
        """Add another's counts to these.

        Raises:
            ValueError: it has other classes, or ignores one of them that this one does not; it is this one; or one of
                the two holds the counts of all ranks and the other those of its own.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        ignored = {ignored_label(each.ignore_index) for each in (self, other)}
        if len(ignored) > 1 and any(0 <= label < self.num_classes for label in ignored):
            what = f"cannot merge what ignores {other.ignore_index} into what ignores {self.ignore_index}"
            raise ValueError(f"{what}; count both with one ignore_index")
        if other is self:
            cure = f"begin the sum with a new one, ConfusionMatrix({self.num_classes})"
            raise ValueError(f"cannot merge a confusion matrix into itself: all would count twice; {cure}")
        if other.synced != self.synced:
            what = "cannot merge the counts of all ranks with those of one"
            raise ValueError(f"{what}; merge first, and sync once, after that")
        self.matrix += other.matrix
        self.ignored += other.ignored
        self.images += other.images
        return self

    def sync(self) -> "ConfusionMatrix":
        """Add up the counts of all ranks of ``torch.distributed``, on each of them; once, after the last update.

        Without a process group there is one rank. Rank counts differ where a sampler repeats images to even them out.

        Raises:
            ValueError: these are the counts of all ranks already, which would be added up again.
        """
        self._require_unsynced()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            counts = torch.cat([self.matrix.flatten(), torch.tensor([self.ignored, self.images])]).to(device)
            torch.distributed.all_reduce(counts)
            *cells, self.ignored, self.images = counts.tolist()
            self.matrix = torch.tensor(cells, device="cpu").view_as(self.matrix)
        self.synced = True
        return self

    def _require_unsynced(self) -> None:
        """ValueError where these are the counts of all ranks: of one process too, so that it is as in several."""
        if self.synced:
            cure = "sync once, after the last update; for the next epoch make a new one"
            raise ValueError(f"this confusion matrix holds the counts of all ranks already; {cure}")

    def compute(self) -> "Scores":
        """The scores of everything seen so far; a warning, once, where they look like masks of 0 and 255."""
        if not self._told and (doubt := self._doubt()):
            self._told = True
            warnings.warn(doubt, stacklevel=2)
        return Scores.from_confusion(self.matrix)

    def _doubt(self) -> str:
        """What is likely wrong with the ids that were counted, and the cure; nothing where all seems right."""
        true, unknown = self.matrix.sum(1).tolist(), int(self.matrix[:, -1].sum())
        if self._by_default and self.num_classes == 2 and self.ignored and true[0] and not true[1]:
            what = f"labels hold class 0 alone and {self.ignored} pixels of {self.ignore_index}, which is ignored"
            return f"{what}; where they are masks of 0 and 255 count labels // 255"
        if unknown > UNKNOWN * sum(true):
            what = f"{100 * unknown / sum(true):.1f} % of the pixels are predicted as no class of 0 to"
            of_masks = ": of masks of 0 and 255 predictions // 255" if self.num_classes == 2 else ""
            return f"{what} {self.num_classes - 1}, and are misses; give class numbers{of_masks}"
        return ""


def _cure_of_shapes(predictions: Tensor, labels: Tensor) -> str:
    """What to do about predictions of another shape than the labels."""
    for name, longer, shorter, ids in (
        ("predictions", predictions, labels, "criterion.decide(logits), or predictions.argmax(1)"),
        ("labels", labels, predictions, "labels.argmax(1) of one-hot labels"),
    ):
        if longer.ndim > 1 and (longer.shape[:1] + longer.shape[2:]) == shorter.shape:
            return f"squeeze dim 1 of the {name}" if longer.shape[1] == 1 else f"give class ids: {ids}"
    return "resize the logits to the label's size before deciding"


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1], float64, NaN where a denominator is 0; per-class tensors have shape ``(C,)``.

    Attributes:
        iou, recall, precision, f1: per class. Recall is also called class accuracy, F1 is also called Dice.
        pixels: int64, true pixels per class.
        miou: mean of the IoUs by the protocol; ``classes_averaged`` says of how many.
        mean_accuracy: mean recall, of the classes that have true pixels unless the protocol says otherwise.
        pixel_accuracy: share of valid pixels that are right.
        frequency_weighted_iou: mean IoU, each class weighted by its share of the true pixels.
        protocol: one of ``PROTOCOLS``.
    """

    iou: Tensor
    recall: Tensor
    precision: Tensor
    f1: Tensor
    pixels: Tensor
    miou: float
    classes_averaged: int
    mean_accuracy: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    protocol: str = "cityscapes"

    @classmethod
    def from_confusion(cls, matrix: Tensor, protocol: str = "cityscapes") -> "Scores":
        """From ``confusion[true, predicted]``: ``(C, C)``, or more columns for what is no class; arrays and lists too.

        Raises:
            ValueError: an unknown protocol, or ``per-image``, which needs more than the sum: :meth:`from_counts`;
                another shape, or what are no counts, as of a matrix that was normalised.
        """
        if protocol_named(protocol).per_image:
            raise ValueError(f"protocol {protocol} needs the counts of each image: Scores.from_counts")
        matrix = as_map(matrix)
        if matrix.ndim != 2 or not 0 < matrix.shape[0] <= matrix.shape[1]:
            cure = "add up those of several images: confusion.sum(0)" if matrix.ndim == 3 else "rows are true classes"
            raise ValueError(f"confusion must have shape (C, C) or (C, C + 1), got {tuple(matrix.shape)}; {cure}")
        matrix = matrix.double() if matrix.is_floating_point() else matrix
        if bool((matrix < 0).any()):
            raise ValueError(f"confusion must hold counts of pixels, got {float(matrix.min()):.3g}")
        hits = matrix.diagonal()
        return cls.from_counts(hits, matrix.sum(1), matrix[:, : len(matrix)].sum(0), protocol)

    @classmethod
    def from_counts(cls, hits: Tensor, true: Tensor, predicted: Tensor, protocol: str = "cityscapes") -> "Scores":
        """From the counts of right, true and predicted pixels per class, ``(C,)`` or ``(images, C)``; arrays too.

        Raises:
            ValueError: an unknown protocol, shapes that differ, or what are no such counts.
        """
        rule = protocol_named(protocol)
        counts = [as_map(count).double() for count in (hits, true, predicted)]
        _require_counts(*counts)
        of_images = [count.reshape(-1, count.shape[-1]) for count in counts]
        hits, true, predicted = (count.sum(0) for count in of_images)
        iou, recall = hits / (true + predicted - hits), hits / true
        averaged = rule.entering(iou)
        if rule.per_image:
            averaged = (of_images[0] / (of_images[1] + of_images[2] - of_images[0])).view(-1)
            averaged = averaged[~averaged.isnan()]
        return cls(
            iou=iou,
            recall=recall,
            precision=hits / predicted,
            f1=2 * hits / (true + predicted),
            pixels=true.long(),
            miou=float(averaged.mean()),
            classes_averaged=rule.classes_averaged(int((~iou.isnan()).sum()), len(iou)),
            mean_accuracy=float(rule.entering(recall).mean()),
            pixel_accuracy=float(hits.sum() / true.sum()),
            frequency_weighted_iou=float((true * iou.nan_to_num(0)).sum() / true.sum()),
            protocol=rule.name,
        )

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The metrics schema (docs/metrics.md): plain numbers in [0, 1], None where NaN."""
        if len(class_names) != len(self.iou):
            raise ValueError(f"class_names must hold {len(self.iou)} names, got {len(class_names)}")
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        of_classes = {key: content.pop(key).tolist() for key, value in list(content.items()) if torch.is_tensor(value)}
        rows = [dict(zip(of_classes, row, strict=True)) for row in zip(*of_classes.values(), strict=True)]
        named = [{"name": name, **_plain(row)} for name, row in zip(class_names, rows, strict=True)]
        return {**_plain(content), "classes": named}


def _require_counts(hits: Tensor, true: Tensor, predicted: Tensor) -> None:
    """ValueError unless these can be right, true and predicted pixels of the same classes."""
    shapes = [tuple(count.shape) for count in (hits, true, predicted)]
    if len({*shapes}) > 1 or hits.ndim < 1:
        raise ValueError(f"hits, true and predicted must have one shape, (C,) or (images, C), got {shapes}")
    if not hits.numel():
        return
    most = max(float(hits.max()), min(float(true.max()), float(predicted.max())))
    if most <= 1 + ROUNDED and any(bool((count != count.round()).any()) for count in (hits, true, predicted)):
        raise ValueError(f"counts must be of pixels, got shares of at most {most:.3g}; do not normalise them")
    least = torch.minimum(true, predicted)
    wrong = (hits < 0) | (hits > least * (1 + ROUNDED))
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        right, of_true, of_predicted = (f"{float(count[tuple(place)]):.15g}" for count in (hits, true, predicted))
        what = f"class {place[-1]} has {right} right pixels of {of_true} true and {of_predicted} predicted ones"
        raise ValueError(f"{what}; of tp, fp and fn give tp, tp + fn, tp + fp")


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: none_if_nan(value) if isinstance(value, float) else value for key, value in numbers.items()}


def class_groups(counts: Sequence[int]) -> dict[str, list[int]]:
    """Class numbers of ``head``, ``middle`` and ``tail``: the first and last ceil(C/3) by training pixels, the rest."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    third = -(-len(order) // 3)
    return {
        "head": sorted(order[:third]),
        "middle": sorted(order[third : len(order) - third]),
        "tail": sorted(order[len(order) - third :]),
    }


def grouped_confusion(matrix: Tensor, groups: Sequence[str]) -> tuple[list[str], Tensor]:
    """The confusion matrix of categories, ``(K, K + 1)``, from that of classes and the category of each."""
    names = list(dict.fromkeys(groups))
    number = torch.tensor([names.index(group) for group in groups])
    columns = torch.cat([number, torch.tensor([len(names)])])[: matrix.shape[1]]
    rows = matrix.new_zeros(len(names), matrix.shape[1]).index_add(0, number, matrix)
    return names, matrix.new_zeros(len(names), len(names) + 1).index_add(1, columns, rows)


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
