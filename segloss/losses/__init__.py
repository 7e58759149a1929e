"""The losses: torch only. Each is a pure function and a module of the same name and parameters."""

from collections.abc import Sequence

from torch import Tensor

from segloss.losses.class_weights import CLASS_WEIGHTS, class_weights_from_counts
from segloss.losses.criterion import Criterion
from segloss.losses.cross_entropy import CrossEntropyLoss, FocalLoss, cross_entropy_loss, focal_loss
from segloss.losses.label_values import LABEL_VALUES, class_ranks, label_values_from_counts
from segloss.losses.outlying import OutlyingMSELoss, decide, outlying_mse_loss, posterior
from segloss.losses.reduction import IGNORE_INDEX

LOSSES = ("outlying_mse", "mse", "ce", "weighted_ce", "focal")


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
) -> Criterion:
    """The criterion of that name for training pixel counts ``(C,)``; options that a loss has no use for are ignored.

    ``mse`` is the squared error to plain one-hot labels times ``alpha``: ``outlying_mse`` with ``"uniform"`` values.
    """
    if name == "outlying_mse":
        return OutlyingMSELoss.from_counts(counts, alpha=alpha, label_values=label_values, power=power)
    if name == "mse":
        return OutlyingMSELoss.from_counts(counts, alpha=alpha, label_values="uniform")
    if name == "ce":
        return CrossEntropyLoss()
    if name == "weighted_ce":
        return CrossEntropyLoss.from_counts(counts, class_weights=class_weights, pixels_of_images=pixels_of_images)
    if name == "focal":
        return FocalLoss(gamma=gamma)
    raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}")


__all__ = [
    "CLASS_WEIGHTS",
    "IGNORE_INDEX",
    "LABEL_VALUES",
    "LOSSES",
    "Criterion",
    "CrossEntropyLoss",
    "FocalLoss",
    "OutlyingMSELoss",
    "build_criterion",
    "class_ranks",
    "class_weights_from_counts",
    "cross_entropy_loss",
    "decide",
    "focal_loss",
    "label_values_from_counts",
    "outlying_mse_loss",
    "posterior",
]
