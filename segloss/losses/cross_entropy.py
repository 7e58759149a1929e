"""Cross entropy with its weighted, smoothed, focal and hard-pixel forms."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.losses.checks import check_class_vector, check_logits_and_labels
from segloss.losses.criterion import WeightedCriterion, per_class
from segloss.losses.labels import IGNORE_INDEX, valid_pixels
from segloss.losses.partial_labels import only_labelled
from segloss.losses.ranges import BELOW_ONE, NOT_NEGATIVE, PROBABILITY, SHARE, require_number
from segloss.losses.reduction import reduce_pixels, select_valid, share_of, weight_sum, working_dtype
from segloss.options import Option

LEAST_LOG = -1000.0  # of which exp is 0 in float64 too


def negative_log_likelihood(logits: Tensor, labels: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """-log softmax(z)_y per pixel, 0 where ignored; with ``valid`` and ``safe`` of :func:`valid_pixels`."""
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    scores = select_valid(logits, valid).to(working_dtype(logits))
    target = torch.where(valid, safe, -100)  # torch's own default ignore_index
    return F.cross_entropy(scores, target, reduction="none"), valid, safe


def weigh_and_reduce(
    per_pixel: Tensor,
    valid: Tensor,
    safe: Tensor,
    weight: Tensor | None,
    logits: Tensor,
    reduction: str,
    divisor: Tensor | float | None = None,
) -> Tensor:
    """Terms of the valid pixels times the weight of their class; ``"mean"`` divides by the sum of weights."""
    if weight is None:
        return reduce_pixels(per_pixel, valid, reduction, divisor=divisor)
    check_class_vector("weight", weight, logits)
    pixel_weight = torch.where(valid, weight.detach().to(per_pixel)[safe], 0)
    return reduce_pixels(pixel_weight * per_pixel, valid, reduction, pixel_weight.sum(), divisor)


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
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
        ignore_index: such pixels count neither in the sums nor in V; None: all count.
        reduction: ``"mean"`` as above, ``"sum"`` the numerator, ``"none"`` its terms ``(N, *)``, 0 where ignored.
        divisor: of ``"mean"``: the denominator of a whole of which this batch is a part, as in
            :func:`segloss.outlying_mse_loss`.
        class_mask: bool ``(N, C)``, the classes that each image labels; the softmax is over these alone, and a pixel of
            another class is ignored (:func:`segloss.losses.partial_labels.only_labelled`). None: all.

    Returns:
        float32 or wider; 0 with zero gradient if V is empty.

    Raises:
        ValueError, TypeError, IndexError: as in :func:`segloss.outlying_mse_loss`.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, in its multi-class form.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([1]), gamma=2)
    tensor(0.1733)
    """
    check_logits_and_labels(logits, labels, reduction)
    require_number("gamma", gamma, NOT_NEGATIVE)
    logits, labels = only_labelled(logits, labels, class_mask, ignore_index)
    per_pixel, valid, safe = negative_log_likelihood(logits, labels, ignore_index)
    if gamma > 0:
        # 1 - p by expm1: it keeps its digits where p is near 1. The clamp keeps 0 ** (gamma - 1) out of the gradient.
        per_pixel = (-torch.expm1(-per_pixel)).clamp(min=torch.finfo(per_pixel.dtype).tiny) ** gamma * per_pixel
    return weigh_and_reduce(per_pixel, valid, safe, weight, logits, reduction, divisor)


def cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy over the valid pixels, with class weights and label smoothing.

    .. math::
        L = \frac{1}{\sum_{i \in V} w_{y_i}} \sum_{i \in V} \Big( (1 - \varepsilon) w_{y_i} (-\log p_{i y_i})
            + \frac{\varepsilon}{C} \sum_c w_c (-\log p_{ic}) \Big), \qquad p_i = \mathrm{softmax}(z_i)

    Equal to ``F.cross_entropy(logits, labels, weight, ignore_index=..., label_smoothing=...)`` wherever a pixel is
    valid; 0 and not NaN where none is. ``label_smoothing`` is epsilon, in [0, 1); with a ``class_mask`` it is spread
    over the labelled classes, their number in the place of C. The other arguments, result and errors are those of
    :func:`focal_loss`. Source of the smoothing: Szegedy et al., CVPR 2016.

    >>> cross_entropy_loss(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.6931)
    """
    require_number("label_smoothing", label_smoothing, BELOW_ONE)
    if label_smoothing == 0:
        return focal_loss(
            *(logits, labels),
            gamma=0,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            divisor=divisor,
            class_mask=class_mask,
        )
    check_logits_and_labels(logits, labels, reduction)
    logits, labels = only_labelled(logits, labels, class_mask, ignore_index)
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    scores, own = select_valid(logits, valid).to(working_dtype(logits)), None
    if weight is not None:
        check_class_vector("weight", weight, logits)
        weight = weight.detach().to(scores)
        own = torch.where(valid, weight[safe], 0).sum()
    if class_mask is None:
        target = torch.where(valid, safe, -100)
        per_pixel = F.cross_entropy(scores, target, weight, reduction="none", label_smoothing=label_smoothing)
    else:
        per_pixel = _smoothed_over_labelled(scores, valid, safe, weight, label_smoothing, class_mask)
    return reduce_pixels(per_pixel, valid, reduction, own, divisor)


def _smoothed_over_labelled(
    scores: Tensor, valid: Tensor, safe: Tensor, weight: Tensor | None, epsilon: float, class_mask: Tensor
) -> Tensor:
    """Terms of the smoothed loss, the label spread over the classes of each image's mask; 0 where ignored."""
    mask = class_mask.view(*class_mask.shape, *[1] * (scores.ndim - 2))
    loss = -scores.log_softmax(1).masked_fill(~mask, 0)  # infinite where a class is left out
    if weight is not None:
        loss = loss * per_class(weight, loss)
    spread = loss.sum(1) / mask.sum(1).clamp(min=1)
    return torch.where(valid, (1 - epsilon) * loss.gather(1, safe.unsqueeze(1)).squeeze(1) + epsilon * spread, 0)


def ohem_cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.7,
    min_share: float = 1 / 16,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of the hard pixels alone (online hard example mining).

    Kept are the valid pixels with :math:`\mathrm{softmax}(z_i)_{y_i} <` ``threshold``, and in any case the hardest
    ``min_share`` of all pixels of the batch (ties with the last of them too). The mean is over the kept pixels.
    Which are kept is each batch's own matter, so a ``divisor`` D makes of it L d / D, with d the batch's own sum of
    weights over V: the parts of a whole add up to the mean of their L weighted by d, not to the L of the whole.

    Args:
        threshold: probability of the true class from which a pixel is easy, in (0, 1].
        min_share: share of the batch's pixels, ignored ones counted, that is kept at least, in [0, 1].

    The other arguments, result and errors are those of :func:`focal_loss`; ``"none"`` is 0 at pixels not kept.
    Source: Shrivastava et al., CVPR 2016; its pixel form after the public segmentation toolkits.

    >>> ohem_cross_entropy_loss(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0]))
    tensor(0.6931)
    """
    check_logits_and_labels(logits, labels, reduction)
    require_number("threshold", threshold, PROBABILITY)
    require_number("min_share", min_share, SHARE)
    logits, labels = only_labelled(logits, labels, class_mask, ignore_index)
    per_pixel, valid, safe = negative_log_likelihood(logits, labels, ignore_index)
    hardness = torch.where(valid, per_pixel.detach(), -math.inf)
    kept = hardness > -math.log(threshold)
    count = math.ceil(min_share * labels.numel())
    if count:
        kept |= hardness >= hardness.flatten().topk(count).values[-1]
    kept |= hardness.isnan()  # a network trained to pieces shows
    kept &= valid
    loss = weigh_and_reduce(torch.where(kept, per_pixel, 0), kept, safe, weight, logits, reduction)
    return share_of(loss, weight_sum(labels, weight, ignore_index), divisor, reduction)


class CrossEntropyLoss(
    WeightedCriterion,
    name="ce",
    function=cross_entropy_loss,
    options={"label_smoothing": Option(0.0, "share of the label spread over all classes", *BELOW_ONE)},
):
    """Module form of :func:`cross_entropy_loss`; the declared tilt is ``weight``.

    With label smoothing the optimum is softmax(z)_c proportional to w_c ((1 - epsilon) P_c + epsilon / C);
    :meth:`posterior` takes both out. The tilt of weighted and smoothed scores is approximate, and their plain argmax
    cannot be told from a posterior, which has lost what lay below epsilon / C.
    """

    def __init__(self, *, label_smoothing: float = 0.0, **options: Any):
        super().__init__(**options)
        self.label_smoothing = require_number("label_smoothing", label_smoothing, BELOW_ONE)
        self.posterior_formula = "softmax" if label_smoothing == 0 else "other"

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return self.weight is None or self.label_smoothing == 0

    def natural_scores(self, logits: Tensor) -> Tensor:
        scores = super().natural_scores(logits)
        if self.label_smoothing == 0:
            return scores
        # log of P = (q - epsilon / C) / (1 - epsilon); where that is not positive, hopelessly small but still in order.
        above = scores.softmax(1) - self.label_smoothing / scores.shape[1]
        tiny = torch.finfo(scores.dtype).tiny
        return torch.where(above > tiny, above.clamp(min=tiny).log(), math.log(tiny) + scores.log_softmax(1))

    def extra_repr(self) -> str:
        smoothed = f"label_smoothing={self.label_smoothing}, " if self.label_smoothing else ""
        return f"{smoothed}{super().extra_repr()}"


class FocalLoss(
    WeightedCriterion,
    name="focal",
    function=focal_loss,
    options={"gamma": Option(2.0, "focusing exponent", *NOT_NEGATIVE)},
):
    r"""Module form of :func:`focal_loss`.

    The focal factor makes q = softmax(z) less confident than P. Where the loss is smallest

    .. math:: P_c \propto \frac{1}{w_c\, g(q_c)}, \qquad g(q) = (1 - q)^\gamma / q - \gamma (1 - q)^{\gamma - 1} \log q,

    which :meth:`posterior` and :meth:`decide` at tau = 0 read. Without weights the order of q is that of P; with them
    the declared tilt ``weight`` is approximate. Source: stationarity of the loss; without weights it is the
    transformation of Charoenphakdee et al., CVPR 2021.
    """

    def __init__(self, *, gamma: float = 2.0, **options: Any):
        super().__init__(**options)
        self.gamma = require_number("gamma", gamma, NOT_NEGATIVE)
        self.posterior_formula = "softmax" if gamma == 0 else "other"

    def natural_scores(self, logits: Tensor) -> Tensor:
        scores = self.softmax_scores(logits)
        if self.gamma > 0:
            log_q = scores.log_softmax(1).clamp(max=-torch.finfo(scores.dtype).tiny)  # never quite 0
            miss, q = _one_minus_exp(log_q), log_q.exp()
            entropy = log_q.clamp(min=LEAST_LOG) * q  # 0 where q is 0
            scores = log_q - (self.gamma - 1) * miss.log() - torch.log(miss - self.gamma * entropy)
        return scores if self.weight is None else scores - per_class(self.weight, scores).log()

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, {super().extra_repr()}"


def _one_minus_exp(exponent: Tensor) -> Tensor:
    """1 - exp(x) of x < 0, with all digits near 0."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[no-untyped-call]
        return torch.tanh(-exponent / 2) * (1 + exponent.exp())  # ONNX has no expm1
    return -torch.expm1(exponent)


class OHEMCrossEntropyLoss(WeightedCriterion, name="ohem_ce", function=ohem_cross_entropy_loss):
    """Module form of :func:`ohem_cross_entropy_loss`.

    Which pixels count depends on the scores, so the declared tilt ``weight`` and the posterior softmax(z - log w) are
    approximate: leaving easy pixels out makes the probabilities less confident than they are.
    """

    def __init__(self, *, threshold: float = 0.7, min_share: float = 1 / 16, **options: Any):
        super().__init__(**options)
        self.threshold = require_number("threshold", threshold, PROBABILITY)
        self.min_share = require_number("min_share", min_share, SHARE)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, min_share={self.min_share:g}, {super().extra_repr()}"
