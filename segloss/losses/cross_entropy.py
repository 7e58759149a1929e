"""Cross entropy, plain and class-weighted, and its focal form: the losses the outlying label is compared with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.losses.class_weights import class_weights_from_counts
from segloss.losses.criterion import Criterion
from segloss.losses.reduction import (
    IGNORE_INDEX,
    check_class_vector,
    check_logits_and_labels,
    class_vector,
    reduce_pixels,
    valid_pixels,
    working_dtype,
)


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross entropy that counts well-classified pixels less; softmax form.

    .. math::
        L = \frac{\sum_{i \in V} w_{y_i} (1 - p_i)^\gamma (-\log p_i)}{\sum_{i \in V} w_{y_i}},
        \qquad p_i = \mathrm{softmax}(z_i)_{y_i}

    gamma = 0 is :func:`cross_entropy_loss`.

    Args:
        logits: z, floating, shape ``(N, C, *)``.
        labels: class ids y, integer, shape ``(N, *)``, in ``[0, C)`` or ``ignore_index``.
        gamma: focusing exponent, >= 0.
        weight: w, one positive value per class ``(C,)``; None: all 1.
        ignore_index: such pixels count neither in the sums nor in V.
        reduction: ``"mean"`` as above, ``"sum"`` the numerator, ``"none"`` its terms ``(N, *)``, 0 where ignored.

    Returns:
        float32 or wider; 0 with zero gradient if V is empty.

    Raises:
        ValueError, TypeError, IndexError: as in :func:`segloss.outlying_mse_loss`.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, in its multi-class form.
    """
    check_logits_and_labels(logits, labels, reduction)
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0, got {gamma}")
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    target = torch.where(valid, safe, -100)  # torch's own default ignore_index
    per_pixel = F.cross_entropy(logits.to(working_dtype(logits)), target, reduction="none")
    if gamma > 0:
        # 1 - p by expm1: it keeps its digits where p is near 1. The clamp keeps 0 ** (gamma - 1) out of the gradient.
        per_pixel = (-torch.expm1(-per_pixel)).clamp(min=torch.finfo(per_pixel.dtype).tiny) ** gamma * per_pixel
    if weight is None:
        return reduce_pixels(per_pixel, valid, reduction)
    check_class_vector("weight", weight, logits)
    pixel_weight = torch.where(valid, weight.detach().to(per_pixel)[safe], 0)
    return reduce_pixels(pixel_weight * per_pixel, valid, reduction, weight_sum=pixel_weight.sum())


def cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross entropy, over the valid pixels: :math:`L = \sum_i w_{y_i} (-\log p_i) / \sum_i w_{y_i}`.

    Equal to ``F.cross_entropy(logits, labels, weight, ignore_index=...)`` wherever a pixel is valid; 0 and not
    NaN where none is. Arguments, result and errors as in :func:`focal_loss`.
    """
    return focal_loss(logits, labels, gamma=0, weight=weight, ignore_index=ignore_index, reduction=reduction)


class FocalLoss(Criterion):
    """Module form of :func:`focal_loss`. ``weight`` is a buffer.

    Its posterior is read as softmax(z - log w): the focal factor keeps the order of the classes but makes the
    probabilities less confident than they are (Charoenphakdee et al., CVPR 2021).
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ):
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.gamma = gamma
        if not gamma >= 0:
            raise ValueError(f"gamma must be >= 0, got {gamma}")
        self.register_buffer("weight", None if weight is None else class_vector("weight", weight))

    @property
    def tilt(self) -> Tensor | None:
        return self.weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_loss(
            logits,
            labels,
            gamma=self.gamma,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        weighted = "" if self.weight is None else "class weights, "
        return f"gamma={self.gamma}, {weighted}{super().extra_repr()}"


class CrossEntropyLoss(FocalLoss):
    """Module form of :func:`cross_entropy_loss`; the declared tilt is ``weight``."""

    def __init__(
        self,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ):
        super().__init__(gamma=0, weight=weight, ignore_index=ignore_index, reduction=reduction)

    @classmethod
    def from_counts(
        cls,
        counts: Tensor | Sequence[int],
        *,
        class_weights: str = "median_frequency",
        pixels_of_images: Tensor | Sequence[int] | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ) -> "CrossEntropyLoss":
        """Weighted by a recipe of :func:`segloss.losses.class_weights.class_weights_from_counts`."""
        weight = class_weights_from_counts(counts, class_weights, pixels_of_images=pixels_of_images)
        return cls(weight=weight, ignore_index=ignore_index, reduction=reduction)
