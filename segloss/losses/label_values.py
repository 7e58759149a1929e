r"""Pixel counts to label values: how large the hot entry of each class's teacher vector is.

Every recipe is multiplied by ``alpha``. ``n_c`` is the number of training pixels of class c.

==============  ===================================================  ===========================================
recipe          :math:`t_c / \alpha`                                 source
==============  ===================================================  ===========================================
``rank``        rank of c by descending count, 1 = most frequent     after Kato & Hotta, arXiv:2107.02393, s. 3.3
``uniform``     1 (with alpha 1: the plain MSE of one-hot labels)    ibid., its ablation
``power``       :math:`(\max n / n_c)^p`                             p = 1/2, 1: inverse (square root) frequency
``log``         :math:`1 + \log(\max n / n_c)`                       logarithmic damping of the same ratio
``effective``   :math:`E_{max} / E_c`,                               effective number of samples, Cui et al.,
                :math:`E_c = (1-\beta^{n_c}) / (1-\beta)`            CVPR 2019
==============  ===================================================  ===========================================
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.checks import numbers
from segloss.losses.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, require_number
from segloss.options import Option


class Counted(Protocol):
    """What holds pixel counts, as :class:`segloss.PixelCounts`."""

    @property
    def pixels(self) -> Sequence[int]: ...


Counts: TypeAlias = Tensor | Sequence[int] | Counted
LABEL_VALUES = ("rank", "uniform", "power", "log", "effective")


def recipe_or_numbers(label_values: Any) -> Any:
    """Words, as of a command line, as a recipe's name in small letters or as numbers; all else as it is."""
    words = [label_values] if isinstance(label_values, str) else label_values
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        return label_values
    try:
        return [float(word) for word in words]
    except ValueError:
        return " ".join(words).lower()


def names_recipe(label_values: Any, recipe: str) -> bool:
    """Whether it names that recipe, as ``"power"`` or ``["power"]`` in any case.

    >>> names_recipe(["Power"], "power"), names_recipe([1, 2], "power")
    (True, False)
    """
    return isinstance(read := recipe_or_numbers(label_values), str) and read == recipe


OUTLYING_OPTIONS = {
    "label_values": Option(
        ["rank"],
        f"{', '.join(LABEL_VALUES)}, or one number per class",
        f"{', '.join(LABEL_VALUES)} or one number per class",
        lambda given: not isinstance(read := recipe_or_numbers(given), str) or read in LABEL_VALUES,
        (("nargs", "+"), ("metavar", "RECIPE"), ("lone", True)),
    ),
    "label_power": Option(0.5, "exponent p of the recipe power", *NOT_NEGATIVE),
    "alpha": Option(1.0, "scale of all label values", *POSITIVE),
    "true_channel_weight": Option(1.0, "weight k of the true class's error beside the others'", *POSITIVE),
}


def pixels_of(counts: Counts) -> Any:
    """The numbers themselves; of a :class:`segloss.PixelCounts` those as if every image labelled all classes."""
    complete = getattr(counts, "complete", counts)
    return getattr(complete, "pixels", complete)


def class_counts(counts: Counts) -> Tensor:
    """As float64 ``(C,)`` on CPU; ValueError unless C >= 2, all are >= 0 and one is positive."""
    counts = numbers("counts", pixels_of(counts), torch.float64, "cpu")
    if counts.ndim != 1 or len(counts) < 2:
        cure = "; of one row for each image counts.sum(0)" if counts.ndim == 2 else ""
        raise ValueError(f"counts must have shape (C,) with at least two classes, got {tuple(counts.shape)}{cure}")
    if not bool(torch.isfinite(counts).all()) or bool((counts < 0).any()) or not bool((counts > 0).any()):
        raise ValueError(f"counts must be finite, >= 0 and not all 0, got {counts.tolist()}")
    return counts


def class_ranks(counts: Counts) -> Tensor:
    """Rank of each class by descending count: 1 = most frequent, C = rarest; int64 ``(C,)``.

    Ties go to the lower class id first, so an empty class ranks after every class that has pixels.

    >>> class_ranks([9000, 100, 900])
    tensor([1, 3, 2])
    """
    order = torch.argsort(class_counts(counts), descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, len(order) + 1, device=order.device)
    return ranks


def fill_empty(values: Tensor, counts: Tensor) -> Tensor:
    """A class without pixels takes the value of the rarest class that has some."""
    rarest = torch.where(counts > 0, counts, torch.inf).argmin()
    return torch.where(counts > 0, values, values[rarest])


def effective_number(counts: Tensor, beta: float | None) -> Tensor:
    if beta is None:
        if (middle := float(counts[counts > 0].median())) < 1:
            what = "counts are shares, and 'effective' is of numbers of pixels"
            raise InputError(what, "give numbers of pixels, or beta")
        # 0.9999, Cui's choice for images, saturates at pixel counts: every class would get the same value.
        beta = 1 - 1 / middle
    require_number("beta", beta, BELOW_ONE)
    log_beta = math.log(beta) if beta else -math.inf
    return -torch.expm1(counts * log_beta) / (1 - beta)


def label_values_from_counts(
    counts: Counts,
    *,
    alpha: float = 1.0,
    label_values: str | Tensor | Sequence[float] | Sequence[str] = "rank",
    power: float | None = None,
    beta: float | None = None,
) -> Tensor:
    r"""Label values :math:`t_c` from the pixel counts of the training set; the formulas stand in this module's head.

    Args:
        counts: training pixels per class, ignored pixels left out, shape ``(C,)``, or a ``PixelCounts``.
        alpha: scale of all values, > 0. It does not change their ratios:
            ``loss(s z, t) = s^2 loss(z, t / s)``, so it acts through the optimiser only.
        label_values: a recipe's name, or one's own vector ``(C,)`` (multiplied by alpha too); either also as words.
        power: exponent p of ``"power"``, >= 0; default 0.5. Of no other recipe.
        beta: of ``"effective"``, in [0, 1); default 1 - 1 / median of the positive counts.

    Returns:
        float32 ``(C,)``, all positive. In ``rank`` an empty class ranks after all others; in the other
        recipes it takes the value of the rarest class that has pixels.

    Raises:
        ValueError: a count is negative, all are 0, or an option is out of range, unknown or of another recipe.

    >>> label_values_from_counts([9000, 900, 100], alpha=6)
    tensor([ 6., 12., 18.])
    >>> label_values_from_counts([9000, 900, 100], label_values="power")
    tensor([1.0000, 3.1623, 9.4868])
    """
    counts = class_counts(counts)
    require_number("alpha", alpha, POSITIVE)
    label_values = recipe_or_numbers(label_values)
    recipe = label_values if isinstance(label_values, str) else "one's own values"
    for option, value, allowed, own in (
        ("power", power, NOT_NEGATIVE, "power"),
        ("beta", beta, BELOW_ONE, "effective"),
    ):
        if value is not None:
            require_number(option, value, allowed)
            if recipe != own:
                raise ValueError(f"{option} belongs to label_values={own!r}, and changes nothing of {recipe}")
    if not isinstance(label_values, str):
        values = numbers("label_values", label_values, torch.float64, "cpu")
        if values.shape != counts.shape:
            raise ValueError(f"label_values must have shape ({len(counts)},), got {tuple(values.shape)}")
    elif label_values == "rank":
        values = class_ranks(counts).double()
    elif label_values == "uniform":
        values = torch.ones_like(counts)
    elif label_values == "power":
        values = fill_empty((counts.max() / counts) ** (0.5 if power is None else power), counts)
    elif label_values == "log":
        values = fill_empty(1 + torch.log(counts.max() / counts), counts)
    elif label_values == "effective":
        effective = effective_number(counts, beta)
        values = fill_empty(effective[counts > 0].max() / effective, counts)  # at beta 0 an empty class is NaN
    else:
        raise ValueError(f"label_values must be one of {', '.join(LABEL_VALUES)} or a vector, got {label_values!r}")
    values = (alpha * values).float()
    if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
        raise ValueError(f"label_values must be positive and finite, got {values.tolist()}")
    return values
