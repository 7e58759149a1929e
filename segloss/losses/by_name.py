"""Criteria by name, alone or as weighted sums, for configs and command lines."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segloss.losses.criterion import Criterion
from segloss.losses.cross_entropy import CrossEntropyLoss, FocalLoss, OHEMCrossEntropyLoss
from segloss.losses.logit_adjustment import LDAMLoss, LogitAdjustedLoss, VectorScalingLoss
from segloss.losses.outlying import OutlyingMSELoss
from segloss.losses.reduction import REDUCTIONS
from segloss.losses.regions import DiceLoss, JaccardLoss, LovaszSoftmaxLoss, TverskyLoss

LOSSES = (
    "outlying_mse",
    "mse",
    "ce",
    "focal",
    "ohem_ce",
    "logit_adjusted",
    "vector_scaling",
    "ldam",
    "dice",
    "jaccard",
    "tversky",
    "lovasz",
)
WEIGHTED = "weighted_"
LOSSES_HELP = f"{', '.join(LOSSES)}; weighted_NAME adds class weights; sums as ce+0.5*dice"


class SumLoss(Criterion):
    r"""Weighted sum of criteria: :math:`\sum_k a_k L_k`.

    Scores are read (``tilt``, ``posterior``, ``decide``) as the first criterion reads them.

    Args:
        terms: pairs (a_k, criterion), a_k > 0. All are softmax losses, or all squared errors: the same scores cannot
            be the logarithms of probabilities and their multiples.
        reduction: ``"mean"`` or ``"sum"``, that of all terms.

    Raises:
        ValueError: no terms, a factor that is not positive, losses that do not go together.
    """

    def __init__(self, terms: Sequence[tuple[float, Criterion]]):
        if not terms:
            raise ValueError("a sum of losses needs at least one")
        criteria = [criterion for _, criterion in terms]
        first = criteria[0]
        for factor, criterion in terms:
            if not 0 < factor < float("inf"):
                raise ValueError(f"factors of a sum of losses must be positive and finite, got {factor}")
            if isinstance(criterion, OutlyingMSELoss) != isinstance(first, OutlyingMSELoss):
                raise ValueError("a squared error and a softmax loss cannot share their scores; sum losses of one kind")
            if (criterion.ignore_index, criterion.reduction) != (first.ignore_index, first.reduction):
                raise ValueError("the losses of a sum must have the same ignore_index and reduction")
        super().__init__(ignore_index=first.ignore_index, reduction=first.reduction)
        if self.reduction == "none":
            raise ValueError(f"a sum of losses has reduction {REDUCTIONS[0]!r} or {REDUCTIONS[1]!r}, not 'none'")
        self.factors = tuple(float(factor) for factor, _ in terms)
        self.criteria = nn.ModuleList(criteria)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = [factor * loss(logits, labels) for factor, loss in zip(self.factors, self.criteria, strict=True)]
        return torch.stack(losses).sum()

    @property
    def _first(self) -> Criterion:
        first = self.criteria[0]
        assert isinstance(first, Criterion)
        return first

    @property
    def tilt(self) -> Tensor | None:
        return self._first.tilt

    def natural_scores(self, logits: Tensor) -> Tensor:
        return self._first.natural_scores(logits)

    def posterior(self, logits: Tensor) -> Tensor:
        return self._first.posterior(logits)

    def decide(self, logits: Tensor, tau: float = 1.0) -> Tensor:
        return self._first.decide(logits, tau)

    def extra_repr(self) -> str:
        return f"factors={list(self.factors)}"


def split_name(name: str) -> list[tuple[float, bool, str]]:
    """``"ce+0.5*weighted_dice"`` as (factor, with class weights?, loss) per term; ValueError for what is no loss."""
    terms = []
    for term in name.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*)?\s*(\w+)\s*", term)
        loss = match[2].removeprefix(WEIGHTED) if match else ""
        if match is None or loss not in LOSSES:
            raise ValueError(f"unknown loss {name!r}; choose one of {LOSSES_HELP}")
        try:
            factor = float(match[1] or 1)
        except ValueError:
            raise ValueError(f"unknown loss {name!r}; choose one of {LOSSES_HELP}") from None
        terms.append((factor, match[2].startswith(WEIGHTED), loss))
    return terms


def build_criterion(
    name: str,
    counts: Tensor | Sequence[int],
    *,
    pixels_of_images: Tensor | Sequence[int] | None = None,
    alpha: float = 1.0,
    label_values: str | Tensor | Sequence[float] = "rank",
    power: float = 0.5,
    class_weights: str = "median_frequency",
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    adjustment: float = 1.0,
) -> Criterion:
    """The criterion of that name for training pixel counts ``(C,)``; options that a loss has no use for are ignored.

    Args:
        name: one of ``LOSSES``; ``"weighted_"`` before it adds class weights; sums as ``"ce+0.5*dice"``. ``"mse"`` is
            the squared error to plain one-hot labels times ``alpha``: ``outlying_mse`` with ``"uniform"`` values.
        counts: training pixels per class.
        pixels_of_images, class_weights: of the ``weighted_`` losses, see
            :func:`segloss.losses.class_weights.class_weights_from_counts`.
        alpha, label_values, power: of ``outlying_mse``, see :func:`label_values_from_counts`.
        gamma: of ``focal``.
        label_smoothing: of ``ce``.
        adjustment: tau of ``logit_adjusted`` and ``vector_scaling``.

    Raises:
        ValueError: an unknown name or an option that cannot be.
    """
    weights = {"class_weights": class_weights, "pixels_of_images": pixels_of_images}
    builders: dict[str, Callable[..., Any]] = {
        "outlying_mse": lambda **w: OutlyingMSELoss.from_counts(
            counts, alpha=alpha, label_values=label_values, power=power, **w
        ),
        "mse": lambda **w: OutlyingMSELoss.from_counts(counts, alpha=alpha, label_values="uniform", **w),
        "ce": lambda **w: CrossEntropyLoss.from_counts(counts, label_smoothing=label_smoothing, **w),
        "focal": lambda **w: FocalLoss.from_counts(counts, gamma=gamma, **w),
        "ohem_ce": lambda **w: OHEMCrossEntropyLoss.from_counts(counts, **w),
        "logit_adjusted": lambda **w: LogitAdjustedLoss.from_counts(counts, tau=adjustment, **w),
        "vector_scaling": lambda **w: VectorScalingLoss.from_counts(counts, tau=adjustment, **w),
        "ldam": lambda **w: LDAMLoss.from_counts(counts, **w),
        "dice": lambda **w: DiceLoss.from_counts(counts, **w),
        "jaccard": lambda **w: JaccardLoss.from_counts(counts, **w),
        "tversky": lambda **w: TverskyLoss.from_counts(counts, **w),
        "lovasz": lambda **w: LovaszSoftmaxLoss.from_counts(counts, **w),
    }
    terms = [(factor, builders[loss](**(weights if weighted else {}))) for factor, weighted, loss in split_name(name)]
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else SumLoss(terms)
