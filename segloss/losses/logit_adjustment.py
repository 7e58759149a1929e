"""Cross entropy of scores that are shifted or scaled by class, according to the training pixel counts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segloss.losses.checks import check_class_vector, check_logits_and_labels, class_vector, numbers
from segloss.losses.criterion import WeightedCriterion, per_class, with_class_weights, without_ignored
from segloss.losses.cross_entropy import cross_entropy_loss
from segloss.losses.label_values import Counts, class_counts, fill_empty, pixels_of
from segloss.losses.labels import IGNORE_INDEX, valid_pixels
from segloss.losses.ranges import FINITE, NOT_NEGATIVE, POSITIVE, require_number
from segloss.losses.reduction import working_dtype
from segloss.options import Option


def class_prior(counts: Counts) -> Tensor:
    """Training prior pi = n / sum n, float32 ``(C,)``; a class without pixels takes the smallest share there is.

    Without any pixel at all the shares are equal.

    >>> class_prior([900, 0, 100])
    tensor([0.9000, 0.1000, 0.1000])
    """
    counts = numbers("counts", pixels_of(counts), torch.float64, "cpu")
    counts = class_counts(counts if counts.any() else torch.ones_like(counts))
    return (fill_empty(counts, counts) / counts.sum()).float()


def logit_adjusted_loss(
    logits: Tensor,
    labels: Tensor,
    prior: Tensor,
    *,
    tau: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of scores to which the log prior is added in training alone; tau = 1 is balanced softmax.

    .. math:: L = \frac{1}{\sum_{i \in V} w_{y_i}} \sum_{i \in V} -w_{y_i} \log
        \mathrm{softmax}(z_i + \tau \log \pi)_{y_i}

    At the optimum :math:`z_c = \log P(c|x) - \tau \log \pi_c`, so the plain argmax decides as if all classes were
    equally frequent (tau = 1).

    Args:
        prior: :math:`\pi`, the share of each class among the training pixels ``(C,)``, positive.
        tau: strength of the adjustment, any finite number.

    The other arguments, result and errors are those of :func:`segloss.losses.focal_loss`.
    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021; tau = 1: Ren et al., "Balanced
    Meta-Softmax", NeurIPS 2020.

    >>> logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0.9, 0.1]))
    tensor(2.3026)
    """
    require_number("tau", tau, FINITE)
    check_logits_and_labels(logits, labels, reduction)
    check_class_vector("prior", prior, logits)
    return vector_scaling_loss(
        logits,
        labels,
        torch.ones_like(prior),
        tau * prior.log(),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        divisor=divisor,
        class_mask=class_mask,
    )


def vector_scaling_loss(
    logits: Tensor,
    labels: Tensor,
    scales: Tensor,
    shifts: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of scores that are scaled and shifted by class in training alone.

    .. math:: L = \frac{1}{\sum_{i \in V} w_{y_i}} \sum_{i \in V} -w_{y_i} \log
        \mathrm{softmax}(\Delta \odot z_i + \iota)_{y_i}

    Args:
        scales: :math:`\Delta`, positive ``(C,)``.
        shifts: :math:`\iota`, ``(C,)``.

    The other arguments, result and errors are those of :func:`segloss.losses.focal_loss`.
    Source: Kini et al., "Label-Imbalanced and Group-Sensitive Classification under Overparameterization", NeurIPS 2021.

    >>> vector_scaling_loss(torch.zeros(1, 2), torch.tensor([1]), torch.ones(2), torch.tensor([1.0, 0.0]))
    tensor(1.3133)
    """
    check_logits_and_labels(logits, labels, reduction)
    check_class_vector("scales", scales, logits)
    check_class_vector("shifts", shifts, logits, positive=False)
    return cross_entropy_loss(
        *(_scaled(logits, scales.detach(), shifts.detach()), labels),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        divisor=divisor,
        class_mask=class_mask,
    )


def _scaled(logits: Tensor, scales: Tensor, shifts: Tensor) -> Tensor:
    """Delta z + iota, in float32 or wider."""
    scores = logits.to(working_dtype(logits))
    return per_class(scales, scores) * scores + per_class(shifts, scores)


def ldam_loss(
    logits: Tensor,
    labels: Tensor,
    margins: Tensor,
    *,
    scale: float = 30.0,
    weight: Tensor | None = None,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    divisor: Tensor | float | None = None,
    class_mask: Tensor | None = None,
) -> Tensor:
    r"""Label-distribution-aware margin: the true class has to win by a margin that is larger for rarer classes.

    .. math:: L = \frac{1}{\sum_{i \in V} w_{y_i}} \sum_{i \in V} -w_{y_i} \log
        \mathrm{softmax}(s (z_i - m_{y_i} e_{y_i}))_{y_i}, \qquad m_c = m_{max} (\min n / n_c)^{1/4}

    Args:
        margins: m, ``(C,)``, positive, in logit units; :meth:`LDAMLoss.from_counts` makes them.
        scale: s. The paper's 30 is meant for scores that are cosines; plain scores may want 1.

    The other arguments, result and errors are those of :func:`segloss.losses.focal_loss`.
    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019.

    >>> ldam_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0.1, 0.5]), scale=1)
    tensor(0.9741)
    """
    check_logits_and_labels(logits, labels, reduction)
    check_class_vector("margins", margins, logits)
    require_number("scale", scale, POSITIVE)
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    scores = logits.to(working_dtype(logits))
    margin = torch.where(valid, margins.detach().to(scores)[safe], 0)
    scores = scale * scores.scatter_add(1, safe.unsqueeze(1), -margin.unsqueeze(1))
    return cross_entropy_loss(
        *(scores, labels),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        divisor=divisor,
        class_mask=class_mask,
    )


class _AdjustedLoss(
    WeightedCriterion,
    options={"adjustment": Option(1.0, "exponent tau of the prior", *FINITE)},
    keywords={"adjustment": "tau"},
):
    """What the losses that shift scores by the prior declare."""

    needs_counts = True


class LogitAdjustedLoss(_AdjustedLoss, name="logit_adjusted", function=logit_adjusted_loss):
    """Module form of :func:`logit_adjusted_loss`; the declared tilt is w / prior^tau."""

    prior: Tensor

    def __init__(self, prior: Tensor | Sequence[float], *, tau: float = 1.0, **options: Any):
        super().__init__(**options)
        self.register_buffer("prior", class_vector("prior", prior))
        self.tau = require_number("tau", tau, FINITE)

    @classmethod
    def from_counts(cls, counts: Counts, *, tau: float = 1.0, **options: Any) -> "LogitAdjustedLoss":
        """From training pixel counts ``(C,)``; ``class_weights`` names a recipe for ``weight``."""
        prior = class_prior(class_counts(without_ignored(counts, options)))
        return cls(prior, tau=tau, **with_class_weights(counts, options))

    @property
    def tilt(self) -> Tensor:
        tilt = self.prior**-self.tau
        return tilt if self.weight is None else tilt * self.weight

    def natural_scores(self, logits: Tensor) -> Tensor:
        scores = self.softmax_scores(logits)
        scores = scores + self.tau * per_class(self.prior, scores).log()  # prior^-tau itself could overflow
        return scores if self.weight is None else scores - per_class(self.weight, scores).log()

    def extra_repr(self) -> str:
        return f"tau={self.tau}, {super().extra_repr()}"


class VectorScalingLoss(_AdjustedLoss, name="vector_scaling", function=vector_scaling_loss):
    r"""Module form of :func:`vector_scaling_loss`.

    The scales make its plain argmax no tilted posterior, nor can it be told from posteriors: :meth:`posterior` reads
    :math:`\mathrm{softmax}(\Delta z + \iota - \log w)`, and :meth:`decide` goes from there (tau = 0) in a straight
    line to the plain scores (tau = 1). The declared tilt is None.
    """

    posterior_formula = "other"
    plain_by_posterior = False
    scales: Tensor
    shifts: Tensor

    def __init__(self, scales: Tensor | Sequence[float], shifts: Tensor | Sequence[float], **options: Any):
        super().__init__(**options)
        self.register_buffer("scales", class_vector("scales", scales))
        shifts = numbers("shifts", shifts, torch.float32).detach().clone()
        if shifts.shape != self.scales.shape or not bool(shifts.isfinite().all()):
            raise ValueError(f"shifts must be finite, of shape ({len(self.scales)},), got {shifts.tolist()}")
        self.register_buffer("shifts", shifts)

    @classmethod
    def from_counts(
        cls, counts: Counts, *, gamma: float = 0.15, tau: float = 1.0, **options: Any
    ) -> "VectorScalingLoss":
        r""":math:`\Delta_c = (n_c / \max n)^\gamma` and :math:`\iota_c = \tau \log \pi_c`, as in the paper."""
        require_number("gamma", gamma, NOT_NEGATIVE)
        require_number("tau", tau, FINITE)
        prior = class_prior(class_counts(without_ignored(counts, options)))
        scales, shifts = (prior / prior.max()) ** gamma, tau * prior.log()
        return cls(scales, shifts, **with_class_weights(counts, options))

    @property
    def tilt(self) -> None:
        return None

    def natural_scores(self, logits: Tensor) -> Tensor:
        scores = _scaled(logits, self.scales, self.shifts)
        return scores if self.weight is None else scores - per_class(self.weight, scores).log()

    def scores_of(self, posterior: Tensor) -> Tensor:
        scores = posterior.log() if self.weight is None else (posterior * self.weight).log()
        return (scores - self.shifts) / self.scales


class LDAMLoss(WeightedCriterion, name="ldam", function=ldam_loss):
    """Module form of :func:`ldam_loss`.

    A margin is no tilt and its optimum has no closed form: the posterior softmax(s z - log w) is approximate, the
    declared tilt is None without weights.
    """

    needs_counts = True
    margins: Tensor

    def __init__(self, margins: Tensor | Sequence[float], *, scale: float = 30.0, **options: Any):
        super().__init__(**options)
        self.register_buffer("margins", class_vector("margins", margins))
        self.scale = require_number("scale", scale, POSITIVE)
        self.posterior_formula = "softmax" if scale == 1 else "other"

    @classmethod
    def from_counts(cls, counts: Counts, *, max_margin: float = 0.5, scale: float = 30.0, **options: Any) -> "LDAMLoss":
        """Margins up to ``max_margin``, that of the rarest class; ``class_weights`` names a recipe for ``weight``."""
        require_number("max_margin", max_margin, POSITIVE)
        prior = class_prior(class_counts(without_ignored(counts, options)))
        return cls(max_margin * (prior.min() / prior) ** 0.25, scale=scale, **with_class_weights(counts, options))

    def softmax_scores(self, logits: Tensor) -> Tensor:
        return self.scale * super().softmax_scores(logits)

    def scores_of(self, posterior: Tensor) -> Tensor:
        return super().scores_of(posterior) / self.scale

    def extra_repr(self) -> str:
        return f"scale={self.scale}, {super().extra_repr()}"
