"""Mean squared error to outlying labels, and how to read the scores it trains."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.checks import (
    check_choices,
    check_class_vector,
    check_device,
    check_divisor,
    check_logits_and_labels,
    check_scores,
    check_tensor,
    class_vector,
)
from segloss.losses.criterion import Criterion, per_class, with_class_weights, without_ignored
from segloss.losses.label_values import OUTLYING_OPTIONS, Counts, label_values_from_counts, names_recipe
from segloss.losses.labels import IGNORE_INDEX, ignored_label, valid_pixels
from segloss.losses.outlying_op import outlying_mse
from segloss.losses.partial_labels import ignore_unlabelled, only_labelled
from segloss.losses.ranges import FINITE, POSITIVE, require_number
from segloss.losses.reduction import divide, exact_sum, first_largest, undecided, weight_sum, working_dtype
from segloss.losses.tracing import is_readable, untransformed


def outlying_mse_loss(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    upsample: str | None = None,
    align_corners: bool = False,
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
    true_channel_weight: float = 1.0,
) -> Tensor:
    r"""Squared error to a one-hot label whose hot value is larger for rarer classes.

    .. math::
        L = \frac{1}{C \sum_{i \in V} w_i} \sum_{i \in V} w_i \sum_{c=1}^{C} (z_{ic} - t_{y_i}[c = y_i])^2

    V is the set of pixels not ignored, w_i the weight of the pixel's class times its own, 1 unless given. With all
    t = 1 and w = 1 this is ``F.mse_loss`` against ``one_hot(labels)`` on V.
    At the optimum without weights :math:`z_c(x) = t_c P(c|x)`: read scores with :func:`posterior` and :func:`decide`,
    never with softmax.

    Args:
        logits: raw scores z, floating, shape ``(N, C, *)``. No softmax is applied.
        labels: class ids y, integer, shape ``(N, *)``, in ``[0, C)`` or ``ignore_index``.
        label_values: t, one positive value per class, shape ``(C,)``, in logit units; a constant, without gradient.
        weight: one positive value per class, shape ``(C,)``; a constant, without gradient.
        pixel_weight: one value >= 0 per pixel, shape ``(N, *)``; a constant, without gradient.
        ignore_index: such pixels count neither in the sum nor in V; None: all count. The default ignores class
            255 where there is one: give 65535 then, or what is void in your labels; ``from_counts`` does.
        reduction: ``"mean"`` as above; ``"sum"``: without the division; ``"none"``: per pixel, w_i times the mean
            over C, 0 where ignored.
        upsample: ``"bilinear"``: logits ``(N, C, h, w)`` and labels ``(N, H, W)`` of another size; value and gradient
            are those of ``F.interpolate(logits, (H, W), mode="bilinear", align_corners=align_corners)`` followed by
            this loss, but no tensor of C times the labels' size is ever made. None: both have one size.
        align_corners: as in ``F.interpolate``; of ``upsample`` only. Networks differ: smp's DeepLab heads take True,
            torchvision's and SegFormer False.
        divisor: of ``"mean"``: what stands in the place of :math:`\sum_{i \in V} w_i`, one number; a constant. Where a
            batch is one part of a larger one, another part's pixels count too: with the sum of
            :meth:`Criterion.divisor <segloss.losses.Criterion.divisor>` over all parts the parts' losses and gradients
            add up to those of the whole.
        class_mask: bool ``(N, C)``, the classes :math:`S_n` that image n labels; None: all. The mean over the classes
            is then over the labelled ones: :math:`\frac{1}{C} \sum_c` becomes
            :math:`\frac{1}{|S_n|} \sum_{c \in S_n}`, which in ``"sum"`` is a factor :math:`C / |S_n|`. A pixel of
            another class is ignored (:func:`segloss.losses.partial_labels.only_labelled`).
        true_channel_weight: k > 0: the term of the true class counts k times,
            :math:`k (z_{iy} - t_y)^2 + \sum_{c \ne y} z_{ic}^2`, and the optimum is
            :math:`z_c = t_c \, k P_c / (1 + (k - 1) P_c)`. Hui & Belkin, arXiv:2006.07322, section 2, whose M is alpha.
            Logits of ``upsample`` are then interpolated first, at the cost of their memory.

    Returns:
        Scalar, or shape ``(N, *)`` for ``"none"``, in float32 or wider. If V is empty: 0, with zero gradient.

    Raises:
        ValueError: a shape or ``reduction`` does not fit; ``label_values`` not positive (checked on CPU).
        TypeError: logits are not floating or labels not integer.
        IndexError: a label is outside ``[0, C)`` and not ignored (on CPU; on CUDA the device asserts).

    Source: after Kato & Hotta, arXiv:2107.02393, section 3.3.

    >>> outlying_mse_loss(torch.tensor([[1.0, 0.5]]), torch.tensor([1]), torch.tensor([1.0, 3.0]))
    tensor(3.6250)
    """
    check_logits_and_labels(logits, labels, reduction, upsample)
    check_class_vector("label_values", label_values, logits)
    if weight is not None:
        check_class_vector("weight", weight, logits)
        weight = weight.detach()
    if pixel_weight is not None:
        _check_pixel_weight(pixel_weight, logits, labels)
        pixel_weight = pixel_weight.detach()
    check_divisor(divisor, reduction)
    require_number("true_channel_weight", true_channel_weight, POSITIVE)
    if true_channel_weight != 1 and upsample is not None:
        logits = F.interpolate(
            logits.to(working_dtype(logits)), labels.shape[1:], mode=upsample, align_corners=align_corners
        )
        upsample = None
    if class_mask is not None:
        logits, labels = only_labelled(logits, labels, class_mask, ignore_index, fill=0)  # 0 - 0: no error
        if divisor is None and reduction == "mean":
            divisor = weight_sum(labels, weight, ignore_index, pixel_weight)
        share = class_mask.shape[1] / class_mask.sum(1).clamp(min=1).to(working_dtype(logits))
        share = share.view(-1, *[1] * (labels.ndim - 1)).expand(labels.shape)
        pixel_weight = share if pixel_weight is None else share * pixel_weight
    if true_channel_weight != 1 and divisor is None and reduction == "mean":
        divisor = weight_sum(labels, weight, ignore_index, pixel_weight)
    loss = outlying_mse(
        logits,
        labels,
        label_values.detach(),
        weight,
        pixel_weight,
        None if upsample is None else align_corners,
        ignored_label(ignore_index),
        reduction if divisor is None else "sum",
    )
    if true_channel_weight != 1:
        error = _true_channel_error(logits, labels, label_values.detach(), weight, pixel_weight, ignore_index)
        error = error / logits.shape[1] if reduction == "none" else exact_sum(error)
        loss = loss + (true_channel_weight - 1) * error
    return loss if divisor is None else divide(loss / logits.shape[1], divisor)


def _check_pixel_weight(pixel_weight: Tensor, logits: Tensor, labels: Tensor) -> None:
    """TypeError or ValueError unless it is a number >= 0 for each pixel; its sign is looked at on the CPU alone."""
    check_tensor("pixel_weight", pixel_weight)
    check_device("pixel_weight", pixel_weight, logits)
    if pixel_weight.is_complex():
        raise TypeError(f"pixel_weight must be real numbers, got {pixel_weight.dtype}")
    if pixel_weight.shape != labels.shape:
        raise ValueError(
            f"pixel_weight must have the shape of labels {tuple(labels.shape)}, got {tuple(pixel_weight.shape)}"
        )
    if is_readable(pixel_weight) and bool((untransformed(pixel_weight) < 0).any()):
        raise ValueError(f"pixel_weight must be >= 0, got {float(untransformed(pixel_weight).min()):g}")


def _true_channel_error(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
) -> Tensor:
    """w_i (z_iy - t_y)^2 of each pixel, 0 where ignored."""
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    scores = logits.gather(1, safe.unsqueeze(1)).squeeze(1).to(working_dtype(logits))
    values = label_values.to(scores)[safe]
    error = (torch.where(valid, scores, values) - values) ** 2
    if weight is not None:
        error = error * weight.to(error)[safe]
    return error if pixel_weight is None else error * torch.where(valid, pixel_weight, 0)


def without_true_channel_weight(logits: Tensor, label_values: Tensor, true_channel_weight: float) -> Tensor:
    r"""Scores whose error of the true class counted k times as those of k = 1: :math:`t_c P_c` at the optimum.

    .. math:: z'_c = t_c \, \frac{r}{k - (k - 1) r}, \quad r = z_c / t_c \in [0, 1]

    Beyond, where no optimum is, in straight lines that keep the order: r / k below 0, r above 1. So the order of z / t
    stays.

    >>> without_true_channel_weight(torch.tensor([[0.75, 2.0]]), torch.tensor([1.0, 4.0]), 3.0)
    tensor([[0.5000, 1.0000]])
    """
    scores = logits.to(working_dtype(logits))
    values, k = per_class(label_values, scores), true_channel_weight
    share = scores / values
    inside = share.clamp(0, 1)
    return values * torch.where(share > 1, share, inside / (k - (k - 1) * inside) + share.clamp(max=0) / k)


def posterior(logits: Tensor, label_values: Tensor) -> Tensor:
    r"""Class posterior from scores trained with outlying labels.

    .. math:: P(c|x) = \max(z_c / t_c, 0) \,/\, \sum_k \max(z_k / t_k, 0)

    Where no score is positive: one-hot at :math:`\arg\max z_c / t_c`, so that the argmax of the posterior is
    always :func:`decide` at tau = 0 (which still tells two classes apart where rounding ties them here). NaN where a
    score is NaN, or all are -inf.
    Source: the squared error's optimum is :math:`z_c = t_c P(c|x)`.

    Args:
        logits: raw scores ``(N, C, *)``.
        label_values: t ``(C,)``, the values the network was trained with.

    Returns:
        ``(N, C, *)``, float32 or wider, sums to 1 over dim 1.

    >>> posterior(torch.tensor([[0.5, 1.0]]), torch.tensor([1.0, 4.0]))
    tensor([[0.6667, 0.3333]])
    """
    check_scores(logits)
    check_class_vector("label_values", label_values, logits)
    natural = logits.to(working_dtype(logits))
    natural = natural / per_class(label_values, natural)
    positive = natural.clamp(min=0)
    # Divided by the largest first, so that denormal scores still give a sum of 1.
    largest = positive.amax(1, keepdim=True)
    positive = positive / torch.where(largest > 0, largest, 1)
    total = positive.sum(1, keepdim=True)
    best = natural.max(1, keepdim=True)
    one_hot = torch.zeros_like(natural).scatter_(1, best.indices, 1)
    one_hot = torch.where(undecided(best.values), torch.nan, one_hot)
    return torch.where(total > 0, positive / torch.where(total > 0, total, 1), one_hot)


def decide(logits: Tensor, label_values: Tensor, tau: float = 1.0) -> Tensor:
    r"""Class ids at an operating point chosen after training: :math:`\arg\max_c z_c\, t_c^{\tau - 1}`.

    tau = 1 is the plain argmax of the scores (the paper's decision, cost-sensitive with weights t); tau = 0 is
    the natural-prior decision of highest pixel accuracy.

    Args:
        logits: raw scores ``(N, C, *)``.
        label_values: t ``(C,)``.
        tau: exponent, any finite number.

    Returns:
        int64 ``(N, *)``.

    >>> decide(torch.tensor([[0.5, 1.0]]), torch.tensor([1.0, 4.0]), tau=0.0)
    tensor([0])
    """
    require_number("tau", tau, FINITE)
    check_scores(logits)
    check_class_vector("label_values", label_values, logits)
    if tau == 1:
        return first_largest(logits)
    scores = logits.to(working_dtype(logits))
    # Divided, not multiplied by the inverse: at tau = 0 this is the posterior's own z / t, to the last bit.
    return first_largest(scores / per_class(label_values, scores) ** (1 - tau), logits)


Outlying = TypeVar("Outlying", bound="OutlyingMSELoss")


class OutlyingMSELoss(
    Criterion,
    name="outlying_mse",
    function=outlying_mse_loss,
    options=OUTLYING_OPTIONS,
    keywords={"label_power": "power"},
):
    """Module form of :func:`outlying_mse_loss`; the label values are a buffer, saved with the module.

    >>> criterion = OutlyingMSELoss.from_counts([9000, 900, 100], alpha=1.0)
    >>> criterion.label_values
    tensor([1., 2., 3.])

    With a class weight w the optimum is z_c proportional to t_c w_c P(c|x), so the declared tilt, by which
    :meth:`posterior` and :meth:`decide` read the scores, is t w.

    Args:
        label_values: t ``(C,)``, positive; see :meth:`from_counts`.
        weight: class weights w ``(C,)``, positive, or None; a buffer.
        ignore_index, reduction, upsample, align_corners, true_channel_weight: as in :func:`outlying_mse_loss`. Scores
            are read where they are: interpolate the logits before :meth:`decide` or :meth:`posterior`.
    """

    needs_counts = True
    scores = posterior_formula = "outlying"
    label_values: Tensor
    weight: Tensor | None

    def __init__(
        self,
        label_values: Tensor | Sequence[float],
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = IGNORE_INDEX,
        reduction: str = "mean",
        upsample: str | None = None,
        align_corners: bool = False,
        true_channel_weight: float = 1.0,
    ):
        label_values = class_vector("label_values", label_values)
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        check_choices(reduction, upsample, align_corners)
        self.upsample = upsample
        self.align_corners = align_corners
        self.true_channel_weight = require_number("true_channel_weight", true_channel_weight, POSITIVE)
        self.posterior_formula = "outlying" if true_channel_weight == 1 else "other"
        self.plain_by_tilt = true_channel_weight == 1
        self.register_buffer("label_values", label_values)
        self.register_buffer("weight", None if weight is None else class_vector("weight", weight, len(label_values)))

    @classmethod
    def from_counts(
        cls: type[Outlying],
        counts: Counts,
        *,
        alpha: float = 1.0,
        label_values: str | Tensor | Sequence[float] | Sequence[str] = "rank",
        power: float | None = None,
        beta: float | None = None,
        **options: Any,
    ) -> Outlying:
        """From training pixel counts ``(C,)``; values as in :func:`label_values_from_counts`, other options as above.

        ``class_weights="median_frequency"`` or another recipe makes ``weight`` from the counts; ``beta`` is that of
        ``"effective"`` in both.
        """
        of_weights = str(options.get("class_weights")).lower() == "effective"
        of_values = not of_weights or names_recipe(label_values, "effective")  # refused where none reads it
        if beta is not None and of_weights:
            options["beta"] = beta
        values = label_values_from_counts(
            without_ignored(counts, options),
            alpha=alpha,
            label_values=label_values,
            power=power,
            beta=beta if of_values else None,
        )
        return cls(values, **with_class_weights(counts, options))

    def forward(  # type: ignore[override]  # the pixels' weights have always come third
        self,
        logits: Tensor,
        labels: Tensor,
        pixel_weight: Tensor | None = None,
        divisor: Tensor | float | None = None,
        class_mask: Tensor | None = None,
    ) -> Tensor:
        return self.loss_of(logits, labels, pixel_weight=pixel_weight, divisor=divisor, class_mask=class_mask)

    def divisor(
        self, labels: Tensor, pixel_weight: Tensor | None = None, *, class_mask: Tensor | None = None
    ) -> Tensor:
        """As of every criterion; with the pixels' own weights where the loss has them."""
        labels = ignore_unlabelled(labels, class_mask, self.ignore_index)
        return weight_sum(labels, self.weight, self.ignore_index, pixel_weight)

    @property
    def tilt(self) -> Tensor:
        return self.label_values if self.weight is None else self.label_values * self.weight

    def posterior(self, logits: Tensor) -> Tensor:
        self.check_readable(logits)
        return posterior(self._plain(logits), self.tilt)

    def _plain(self, logits: Tensor) -> Tensor:
        """As of an error whose true class counts once."""
        k = self.true_channel_weight
        return logits if k == 1 else without_true_channel_weight(logits, self.label_values, k)

    def scores_of(self, posterior: Tensor) -> Tensor:
        r""":math:`z_c = t_c \, k q_c / (1 + (k - 1) q_c)` with :math:`q_c = w_c P_c / \sum_j w_j P_j`, the optimum."""
        share = posterior if self.weight is None else posterior * self.weight.to(posterior)
        share, k = share / share.sum(-1, keepdim=True), self.true_channel_weight
        return self.label_values.to(share) * k * share / (1 + (k - 1) * share)

    def plain_scores(self, posterior: Tensor) -> Tensor:
        """The scores at the optimum, ``(*, C)``."""
        return self.scores_of(posterior)

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        self.check_readable(logits, tau)
        return decide(logits if tau == 1 else self._plain(logits), self.tilt, tau)

    def extra_repr(self) -> str:
        values = ", ".join(f"{v:g}" for v in self.label_values.tolist())
        weighted = "" if self.weight is None else "class weights, "
        weighted += "" if self.true_channel_weight == 1 else f"true_channel_weight={self.true_channel_weight:g}, "
        upsampled = "" if self.upsample is None else f", upsample={self.upsample!r}, align_corners={self.align_corners}"
        return f"label_values=[{values}], {weighted}{super().extra_repr()}{upsampled}"


_MSE_OPTIONS = {name: OUTLYING_OPTIONS[name] for name in ("alpha", "true_channel_weight")}


class MSELoss(OutlyingMSELoss, name="mse", options=_MSE_OPTIONS):
    """Squared error to plain one-hot labels times ``alpha``: outlying labels that stand out all alike."""

    needs_counts = False

    @classmethod
    def from_counts(cls, counts: Counts, **options: Any) -> "MSELoss":
        """As :meth:`OutlyingMSELoss.from_counts` with ``label_values="uniform"``; of the counts only C matters."""
        if "label_values" in options:
            raise InputError("label_values of MSELoss are all alike", "take OutlyingMSELoss, or leave them out")
        return super().from_counts(counts, label_values="uniform", **options)
