"""The criterions in frameworks that call a loss in a way of their own. Importing this module needs torch alone.

Plain PyTorch, Lightning and smp need none of it; docs/integrate.md shows each of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segloss.errors import InputError
from segloss.losses import IGNORE_INDEX, OutlyingMSELoss, outlying_mse_loss
from segloss.losses.label_values import Counts, class_counts
from segloss.losses.labels import ignored_label
from segloss.losses.ranges import NOT_NEGATIVE, require_number

HUGGING_FACE_IGNORED = -100  # the only label that Trainer leaves out when it counts a batch's items


def squeeze_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels ``(N, 1, *)`` as the losses take them, ``(N, *)``; labels that already are so come back unchanged.

    The dimensions of ``logits (N, C, *)`` tell the two apart: an image of height 1 keeps its height.
    """
    if not all(isinstance(each, Tensor) for each in (logits, labels)):
        return labels  # the loss says so
    if labels.ndim == logits.ndim and labels.shape[1] == 1:
        return labels.squeeze(1)
    return labels


class OutputDictLoss(nn.Module):
    r"""For networks that return ``{"out": logits, "aux": logits}``, as torchvision's do.

    .. math:: L = \ell(z_{out}, y) + w \, \ell(z_{aux}, y)

    Without ``"aux"`` in the outputs, the first term alone.

    Args:
        criterion: the loss of logits ``(N, C, H, W)`` and labels ``(N, H, W)``.
        aux_weight: w; 0.5 as in torchvision's training references.
    """

    def __init__(self, criterion: nn.Module, aux_weight: float = 0.5):
        super().__init__()
        self.criterion = criterion
        self.aux_weight = require_number("aux_weight", aux_weight, NOT_NEGATIVE)

    def forward(self, outputs: Mapping[str, Tensor], labels: Tensor, **options: Any) -> Tensor:
        """L; ``options`` are the criterion's, for both terms: ``divisor``, ``class_mask``, ``pixel_weight``."""
        _require_out(outputs)
        labels = squeeze_labels(outputs["out"], labels)
        loss: Tensor = self.criterion(outputs["out"], labels, **options)
        if outputs.get("aux") is not None:
            loss = loss + self.aux_weight * self.criterion(outputs["aux"], labels, **options)
        return loss

    def decide(self, outputs: Mapping[str, Tensor], tau: float = 1.0) -> Tensor:
        """The criterion's ``decide`` of ``outputs["out"]``."""
        _require_out(outputs)
        class_map: Tensor = self.criterion.decide(outputs["out"], tau)  # type: ignore[operator]
        return class_map

    def posterior(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The criterion's ``posterior`` of ``outputs["out"]``."""
        _require_out(outputs)
        probabilities: Tensor = self.criterion.posterior(outputs["out"])  # type: ignore[operator]
        return probabilities


def _require_out(outputs: Any, key: str = "out", whose: str = "torchvision's networks") -> None:
    if not isinstance(outputs, Mapping) or key not in outputs:
        got = f"keys {', '.join(map(repr, outputs))}" if isinstance(outputs, Mapping) else type(outputs).__name__
        cure = "give what the network returns, or call the criterion itself on logits"
        raise InputError(f"outputs must be a mapping with {key!r}, as {whose} return, got {got}", cure)


def compute_loss_func(criterion: nn.Module) -> Callable[..., Tensor]:
    r"""``compute_loss_func`` of Hugging Face's Trainer for semantic segmentation.

    Trainer adds up the losses of the micro-batches m of an optimiser step, on all devices, and divides by nothing. It
    hands over K, the number of labels of the whole step that are not -100. Each micro-batch is therefore weighted by
    its share :math:`k_m` of them:

    .. math:: L = \sum_m \frac{k_m}{K} \, \ell_m

    One micro-batch: the criterion itself. Several: the mean of theirs, weighted by size. Trainer knows -100 only, so
    void of 255 counts in k and K; a micro-batch with much void weighs as much as one with little, as in a training
    loop that divides by the number of micro-batches. With void stored as -100 and ``ignore_index=-100`` the sum is
    exactly the mean over all valid pixels of the step (of a criterion without class weights).

    Several GPUs: start one process each (torchrun, accelerate). In a single process Trainer multiplies any such loss
    by the number of GPUs.

    Args:
        criterion: a loss with reduction ``"mean"`` of logits ``(N, C, h, w)`` and labels ``(N, H, W)``. SegFormer's
            logits have a quarter of the labels' size: ``OutlyingMSELoss(..., upsample="bilinear")``. It is moved to
            the logits' device.

    Returns:
        ``f(outputs, labels, num_items_in_batch=None)``, where ``outputs["logits"]`` are the logits and labels may have
        shape ``(N, 1, H, W)`` too; its value is a scalar.

    Raises:
        ValueError: the criterion reduces by something else than the mean.
    """
    reduction = getattr(criterion, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f'criterion must have reduction "mean", got {reduction!r}; Trainer\'s count divides it again')

    def loss_of_outputs(
        outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        _require_out(outputs, "logits", "transformers' networks")
        logits = outputs["logits"]
        loss: Tensor = criterion.to(logits.device)(logits, squeeze_labels(logits, labels))
        if num_items_in_batch is None:
            return loss
        items = labels.long().ne(HUGGING_FACE_IGNORED).sum()  # in uint8 -100 would be 156
        return loss * (items / torch.as_tensor(num_items_in_batch, device=items.device).clamp(min=1)).to(loss.dtype)

    return loss_of_outputs


class MMSegOutlyingMSELoss(nn.Module):
    """:class:`segloss.OutlyingMSELoss` as mmsegmentation's decode heads call a loss.

    ``loss_decode=dict(type="OutlyingMSELoss", counts=[...])`` after :func:`register_mmseg`, or with no call at all
    ``type="segloss.adapters.MMSegOutlyingMSELoss"``. The heads interpolate their logits themselves.

    mmseg's own reading of a result is the plain argmax, ``criterion.decide(logits, tau=1)``. Its test-time
    augmentation averages softmax values and its OHEM sampler with ``thresh`` compares them: neither fits these scores.

    Args:
        counts: training pixels per class ``(C,)``, or what :func:`segloss.count_labels` gives; without the class that
            the decode head ignores, where it ignores one.
        loss_weight: factor of the loss.
        loss_name: key in mmseg's log; it must begin with ``loss_`` to be trained.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        options: as in ``OutlyingMSELoss.from_counts``: alpha, label_values, power, beta, weight, class_weights,
            true_channel_weight.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        loss_weight: float = 1.0,
        loss_name: str = "loss_outlying_mse",
        reduction: str = "mean",
        **options: Any,
    ):
        super().__init__()
        if foreign := {"ignore_index", "upsample", "align_corners"} & set(options):
            raise ValueError(f"{min(foreign)} belongs to mmseg's decode head, which hands it over; leave it out here")
        self.criterion = OutlyingMSELoss.from_counts(counts, reduction=reduction, **options)
        self.counted = [bool(pixels) for pixels in class_counts(counts).tolist()]
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = IGNORE_INDEX,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss times ``loss_weight``; the parameters have the names by which mmseg passes them.

        Args:
            pred: logits ``(N, C, H, W)``.
            target: labels ``(N, H, W)`` or ``(N, 1, H, W)``.
            weight: one value >= 0 per pixel, ``(N, H, W)``, or None. The mean divides by their sum over valid pixels.
            ignore_index: such pixels count nowhere; the decode head's own.
            avg_factor: number of pixels the mean divides by instead.
            reduction_override: in place of ``reduction``, for this call.

        Raises:
            ValueError: ``avg_factor`` with reduction ``"sum"``, a shape does not fit, or the decode head ignores a
                class that the counts hold, or another than they leave out.
            TypeError: an argument of the loss itself that mmseg's losses do not have.
        """
        if foreign := {"divisor", "class_mask", "pixel_weight", "upsample", "true_channel_weight"} & set(kwargs):
            raise TypeError(f"{min(foreign)} is no argument of mmseg's losses; take segloss.OutlyingMSELoss for it")
        self._require_ignored(ignore_index)
        reduction = reduction_override or self.criterion.reduction
        if avg_factor is not None and reduction == "sum":
            raise ValueError('avg_factor must be None with reduction "sum"; take "mean"')
        divisor = avg_factor if reduction == "mean" else None
        own = {name: getattr(self.criterion, name) for name in self.criterion.arguments}
        of_call = {"ignore_index": ignore_index, "reduction": reduction if divisor is None else "sum"}
        loss = outlying_mse_loss(pred, squeeze_labels(pred, target), pixel_weight=weight, **{**own, **of_call})
        if divisor is not None:
            # mmseg adds the same epsilon: an avg_factor of 0 comes with a sum of 0.
            loss = loss / (pred.shape[1] * (divisor + torch.finfo(torch.float32).eps))
        return self.loss_weight * loss

    def _require_ignored(self, ignore_index: int) -> None:
        """InputError where label values are made with pixels of the class that the decode head ignores, or without
        those of one that it trains."""
        own, head = (ignored_label(each) for each in (self.criterion.ignore_index, ignore_index))
        classes = range(len(self.counted))
        if own in classes and own != head:
            what = f"counts leave out class {own}, and mmseg's decode head ignores {ignore_index}"
            raise InputError(what, f"give the head ignore_index={own}, or count with ignore_index={ignore_index}")
        if head in classes and self.counted[head]:
            what = f"mmseg's decode head ignores class {head}, of which counts hold pixels"
            raise InputError(what, f"give counts of 0 there, or count_labels(..., ignore_index={head})")


def register_mmseg(name: str = "OutlyingMSELoss") -> None:
    """Make ``dict(type=name, ...)`` build :class:`MMSegOutlyingMSELoss` in mmseg's configs; twice does no harm."""
    from mmseg.registry import MODELS

    MODELS.register_module(name=name, module=MMSegOutlyingMSELoss, force=True)
