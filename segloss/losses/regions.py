"""Losses of whole regions: Dice, Jaccard, Tversky and the Lovasz extension of the Jaccard index."""

from typing import Any

import torch
from torch import Tensor

from segloss.losses.checks import check_class_vector, check_divisor, check_logits_and_labels
from segloss.losses.criterion import WeightedCriterion
from segloss.losses.labels import IGNORE_INDEX, valid_pixels
from segloss.losses.partial_labels import ignore_unlabelled, only_labelled
from segloss.losses.ranges import POSITIVE, require_number
from segloss.losses.reduction import select_valid, share_of, weight_sum, wide_dtype, working_dtype
from segloss.losses.tracing import is_transformed


def tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""One minus the Tversky index of every class, in which false positives and false negatives weigh differently.

    .. math::
        L_c = 1 - \frac{TP_c}{TP_c + \alpha FP_c + \beta FN_c}, \quad TP_c = \sum_{i \in V} p_{ic} [y_i = c], \quad
        FP_c = \sum_{i \in V} p_{ic} [y_i \ne c], \quad FN_c = \sum_{i \in V} (1 - p_{ic}) [y_i = c]

    with :math:`p_i = \mathrm{softmax}(z_i)`, over all pixels of the batch together. Classes that no label of the batch
    holds are left out. alpha = beta = 1/2 is Dice, alpha = beta = 1 is Jaccard.

    Args:
        logits: z, floating, shape ``(N, C, *)``.
        labels: class ids y, integer, shape ``(N, *)``, in ``[0, C)`` or ``ignore_index``.
        alpha: weight of false positives, > 0.
        beta: weight of false negatives, > 0.
        weight: w, one positive value per class ``(C,)``: L is the mean of L_c weighted by it; None: all 1.
        ignore_index: such pixels count nowhere; None: all count.
        reduction: ``"mean"``: :math:`\sum w_c L_c / \sum w_c` over the classes present; ``"sum"``: the numerator;
            ``"none"``: its terms ``(C,)``, 0 where a class is not present.
        divisor: of ``"mean"``: |V| of a whole of which this batch is a part. An index of regions is no sum over pixels:
            the result is L |V| / divisor with this batch's own L and V, so the parts of a whole add up to the mean of
            their L weighted by their pixels, not to the L of the whole; a part without valid pixels takes no share.
        class_mask: bool ``(N, C)``, the classes that each image labels; the softmax is over these alone, so that a
            class's TP, FP and FN are sums over the images that label it, and a pixel of another class is ignored
            (:func:`segloss.losses.partial_labels.only_labelled`). None: all.

    Returns:
        float32 or wider; 0 with zero gradient if V is empty.

    Raises:
        ValueError, TypeError, IndexError: as in :func:`segloss.outlying_mse_loss`.

    Source: Salehi et al., "Tversky loss function for image segmentation", MLMI 2017 (their alpha and beta).

    >>> tversky_loss(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]))
    tensor(0.4118)
    """
    require_number("alpha", alpha, POSITIVE)
    require_number("beta", beta, POSITIVE)
    probabilities, valid, safe = _probabilities(logits, labels, ignore_index, reduction, class_mask)
    true_positive, predicted, labelled = soft_counts(probabilities, valid, safe)
    false_positive, false_negative = predicted - true_positive, labelled - true_positive
    denominator = true_positive + alpha * false_positive + beta * false_negative
    index = true_positive / torch.where(labelled > 0, denominator, 1)
    return reduce_classes(1 - index, labelled > 0, weight, logits, reduction, valid, divisor)


def soft_counts(probabilities: Tensor, valid: Tensor, safe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """TP, TP + FP and TP + FN of each class ``(C,)``, from probabilities ``(N, C, P)`` and labels ``(N, P)``."""
    probabilities = probabilities.to(working_dtype(probabilities))  # float16 ends at 65504 pixels
    wide = wide_dtype(probabilities.device, probabilities.dtype)
    on_cpu = probabilities.device.type == "cpu"
    if on_cpu and not torch.compiler.is_compiling() and not is_transformed(probabilities, valid, safe):
        counts: tuple[Tensor, Tensor, Tensor] = _SoftCounts.apply(probabilities, valid, safe)
        return counts
    classes = torch.arange(probabilities.shape[1], device=probabilities.device).view(-1, 1)
    is_class = (safe.unsqueeze(1) == classes) & valid.unsqueeze(1)
    # Over one image in the scores' own type, which torch adds up pairwise; over images in a wider one.
    true_positive = torch.where(is_class, probabilities, 0).sum(2).sum(0, dtype=wide)
    predicted = torch.where(valid.unsqueeze(1), probabilities, 0).sum(2).sum(0, dtype=wide)
    return true_positive, predicted, is_class.sum(2, dtype=torch.int32).sum(0)


class _SoftCounts(torch.autograd.Function):
    """The same on CPU, where looking a probability up by its label takes a fraction of comparing with all classes."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, valid: Tensor, safe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(valid, safe)
        ctx.dtype = probabilities.dtype
        num_classes, ids = probabilities.shape[1], safe.flatten()
        looked_up = torch.where(valid, probabilities.gather(1, safe.unsqueeze(1)).squeeze(1), 0)
        true_positive = torch.bincount(ids, looked_up.flatten().double(), num_classes)
        predicted = (probabilities * valid.to(probabilities).unsqueeze(1)).sum(2)
        if not predicted.isfinite().all():  # NaN times 0 is NaN; which pixels are valid?
            predicted = torch.where(valid.unsqueeze(1), probabilities, 0).sum(2)
        labelled = torch.bincount(ids, valid.flatten().double(), num_classes).long()
        ctx.mark_non_differentiable(labelled)
        return true_positive, predicted.sum(0, dtype=torch.float64), labelled

    @staticmethod
    def backward(ctx: Any, of_hits: Tensor, of_predicted: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        valid, safe = ctx.saved_tensors
        of_hits, of_predicted = of_hits.to(ctx.dtype), of_predicted.to(ctx.dtype)
        gradient = of_predicted.view(-1, 1) * valid.to(ctx.dtype).unsqueeze(1)
        of_label = torch.where(valid, of_hits[safe], 0).unsqueeze(1)
        if torch.is_grad_enabled() or is_transformed(of_hits):  # a second derivative, or several at once
            return gradient.scatter_add(1, safe.unsqueeze(1), of_label), None, None
        return gradient.scatter_add_(1, safe.unsqueeze(1), of_label), None, None


def dice_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""One minus the soft Dice coefficient of every class: :func:`tversky_loss` with alpha = beta = 1/2.

    .. math:: L_c = 1 - \frac{2 \sum_i p_{ic} [y_i = c]}{\sum_i p_{ic} + \sum_i [y_i = c]}

    Arguments, result and errors as there. Source: Milletari et al., "V-Net", 3DV 2016, without their squares; with
    :math:`p` in the denominator as in Drozdzal et al., 2016.

    >>> dice_loss(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]))
    tensor(0.3333)
    """
    own: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index, "reduction": reduction, "divisor": divisor}
    return tversky_loss(logits, labels, alpha=0.5, beta=0.5, class_mask=class_mask, **own)


def jaccard_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""One minus the soft intersection over union of every class: :func:`tversky_loss` with alpha = beta = 1.

    .. math:: L_c = 1 - \frac{\sum_i p_{ic} [y_i = c]}{\sum_i p_{ic} + \sum_i [y_i = c] - \sum_i p_{ic} [y_i = c]}

    Arguments, result and errors as there. Source: Rahman & Wang, ISVC 2016.

    >>> jaccard_loss(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]))
    tensor(0.5000)
    """
    own: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index, "reduction": reduction, "divisor": divisor}
    return tversky_loss(logits, labels, alpha=1, beta=1, class_mask=class_mask, **own)


def lovasz_softmax_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""The Lovasz extension of one minus the intersection over union, of every class over the whole batch.

    .. math::
        L_c = \sum_{k} m_{c, \pi(k)} \left( \Delta_J(\{\pi(1) \ldots \pi(k)\}) - \Delta_J(\{\pi(1) \ldots \pi(k - 1)\})
        \right), \qquad m_{ci} = | [y_i = c] - p_{ic} |

    with the pixels in the order :math:`\pi` of descending error m, and :math:`\Delta_J(M)` one minus the intersection
    over union if the pixels M are the mistaken ones. Classes that no label of the batch holds are left out.
    Arguments, result and errors as in :func:`tversky_loss`.

    Source: Berman et al., "The Lovasz-Softmax loss", CVPR 2018.

    >>> lovasz_softmax_loss(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]))
    tensor(0.5000)
    """
    probabilities, valid, safe = _probabilities(logits, labels, ignore_index, reduction, class_mask)
    valid, safe = valid.flatten(), safe.flatten()
    terms, present = [], []
    for c, p in enumerate(probabilities.unbind(1)):  # not [:, c], whose backward fills all classes for each
        is_class = valid & (safe == c)
        p = p.flatten()
        missing = torch.where(valid, is_class.to(p.dtype) - p, 0)  # its size is the error; 0 comes last, counts nothing
        # The steps are constants of the gradient, and with their sign all that autograd has to keep of a class.
        steps = _jaccard_steps(missing.detach().abs(), is_class) * missing.detach().sign()
        terms.append((missing * steps).sum(dtype=wide_dtype(p.device, p.dtype)))
        present.append(is_class.any())
    return reduce_classes(torch.stack(terms), torch.stack(present), weight, logits, reduction, valid, divisor)


def _jaccard_steps(error: Tensor, is_class: Tensor) -> Tensor:
    """By how much each pixel raises one minus the intersection over union when it is added in order of error."""
    order = error.argsort(descending=True, stable=True)
    mistaken = is_class[order].long()  # integers: exact, and their cumulative sum repeats on a GPU
    total = mistaken.sum()
    intersection = total - mistaken.cumsum(0)
    union = total + (1 - mistaken).cumsum(0)
    jaccard = 1 - intersection.to(wide_dtype(error.device, error.dtype)) / union.clamp(min=1)
    steps = jaccard.diff(prepend=jaccard.new_zeros(1))
    return torch.empty_like(error).scatter_(0, order, steps.to(error.dtype))


def _probabilities(
    logits: Tensor, labels: Tensor, ignore_index: int | None, reduction: str, class_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax ``(N, C, P)`` in float32 or wider; valid and safe labels ``(N, P)``."""
    check_logits_and_labels(logits, labels, reduction)
    logits, labels = only_labelled(logits, labels, class_mask, ignore_index)
    if logits.ndim == 2:
        logits, labels = logits.unsqueeze(2), labels.unsqueeze(1)
    valid, safe = valid_pixels(labels.flatten(1), logits.shape[1], ignore_index)
    scores = select_valid(logits.flatten(2), valid).to(working_dtype(logits))
    return scores.softmax(1), valid, safe


def reduce_classes(
    terms: Tensor,
    present: Tensor,
    weight: Tensor | None,
    logits: Tensor,
    reduction: str,
    valid: Tensor,
    divisor: Tensor | float | None,
) -> Tensor:
    check_divisor(divisor, reduction)
    terms = torch.where(present, terms, 0).to(working_dtype(logits))
    weights = present.to(terms)
    if weight is not None:
        check_class_vector("weight", weight, logits)
        weights = weights * weight.detach().to(terms)
    terms = terms * weights
    if reduction == "none":
        return terms
    if reduction == "sum":
        return terms.sum()
    mean = terms.sum() / torch.where(present.any(), weights.sum(), 1)
    return share_of(mean, valid.sum(), divisor, reduction)


class _RegionLoss(WeightedCriterion):
    """A loss of regions is no proper score, and its weights are no tilt.

    Its scores aim at overlap: a class is decided on where that raises its own index, which for a rare one begins well
    below P = 1/2. The posterior is read as softmax(z), for want of a better one: too confident, and of that other aim.
    """

    of_pixels = False

    @property
    def tilt(self) -> None:
        return None

    def divisor(self, labels: Tensor, *, class_mask: Tensor | None = None) -> Tensor:
        """Valid pixels; the weights are those of classes."""
        return weight_sum(ignore_unlabelled(labels, class_mask, self.ignore_index), None, self.ignore_index)


class DiceLoss(_RegionLoss, name="dice", function=dice_loss):
    """Module form of :func:`dice_loss`; its scores aim at overlap, not at P."""


class JaccardLoss(_RegionLoss, name="jaccard", function=jaccard_loss):
    """Module form of :func:`jaccard_loss`; its scores aim at overlap, not at P."""


class TverskyLoss(_RegionLoss, name="tversky", function=tversky_loss):
    """Module form of :func:`tversky_loss`; its scores aim at overlap, not at P."""

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, **options: Any):
        super().__init__(**options)
        self.alpha, self.beta = (require_number(*named, POSITIVE) for named in (("alpha", alpha), ("beta", beta)))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}"


class LovaszSoftmaxLoss(_RegionLoss, name="lovasz", function=lovasz_softmax_loss):
    """Module form of :func:`lovasz_softmax_loss`; its scores aim at overlap, not at P."""
