"""Criteria by name, alone or as weighted sums, for configs and command lines.

A module placed in this folder is imported here, and a loss that it declares is known: nothing else lists the losses.
"""

import pkgutil
import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segloss.errors import InputError, unknown_name
from segloss.losses.checks import REDUCTIONS
from segloss.losses.criterion import LOSS_OPTIONS, LOSSES, WEIGHTED, Criterion, losses_that_read, without_none
from segloss.losses.label_values import Counts, names_recipe
from segloss.losses.ranges import POSITIVE, require_number
from segloss.synonyms import meant_value


class SumLoss(Criterion):
    r"""Weighted sum of criteria: :math:`\sum_k a_k L_k`.

    Scores are read as the first criterion reads them that is no loss of regions; where all are, as the first does.

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
        for term in terms:
            if not isinstance(term, tuple | list) or len(term) != 2 or not isinstance(term[1], Criterion):
                got = ", ".join(type(part).__name__ for part in (term if isinstance(term, tuple) else [term]))
                what = f"a sum of losses is made of pairs (factor, criterion of segloss), got {got}"
                raise InputError(what, "write (1.0, criterion)")
        criteria = [criterion for _, criterion in terms]
        first = criteria[0]
        for factor, criterion in terms:
            require_number("factors of a sum of losses", factor, POSITIVE)
            if criterion.scores != first.scores:
                raise ValueError("a squared error and a softmax loss cannot share their scores; sum losses of one kind")
            if (criterion.ignore_index, criterion.reduction) != (first.ignore_index, first.reduction):
                raise ValueError("the losses of a sum must have the same ignore_index and reduction")
        super().__init__(ignore_index=first.ignore_index, reduction=first.reduction)
        if self.reduction == "none":
            raise ValueError(f"a sum of losses has reduction {REDUCTIONS[0]!r} or {REDUCTIONS[1]!r}, not 'none'")
        self.factors = tuple(float(factor) for factor, _ in terms)
        reader = next((k for k, each in enumerate(criteria) if each.of_pixels), 0)
        self.scores, self.posterior_formula = first.scores, criteria[reader].posterior_formula
        self.criteria = nn.ModuleList(criteria)
        self.of_pixels = criteria[reader].of_pixels
        self._reader = reader
        self._sizes: list[int] = [sum(each._sizes) if isinstance(each, SumLoss) else 1 for each in criteria]

    def loss_of(self, logits: Tensor, labels: Tensor, **at_call: Any) -> Tensor:
        """The sum; ``divisor`` holds one number for each term, as :meth:`divisor` gives them."""
        divisors: Sequence[Tensor | None] = [None] * len(self.criteria)
        if (divisor := at_call.get("divisor")) is not None:
            divisor = torch.as_tensor(divisor)
            if tuple(divisor.shape) != (sum(self._sizes),):
                raise ValueError(
                    f"divisor must have shape ({sum(self._sizes)},), one number for each term, got "
                    f"{tuple(divisor.shape)}; take criterion.divisor(labels)"
                )
            divisors = torch.split(divisor, self._sizes)
        losses = [
            factor * loss(logits, labels, **without_none({**at_call, "divisor": own}))
            for factor, loss, own in zip(self.factors, self.criteria, divisors, strict=True)
        ]
        return torch.stack(losses).sum()

    def divisor(self, labels: Tensor, *, class_mask: Tensor | None = None) -> Tensor:
        """Those of all terms, ``(K,)``."""
        masked = without_none({"class_mask": class_mask})
        own = [each.divisor(labels, **masked) for each in self.criteria if isinstance(each, Criterion)]
        return torch.cat([each.view(-1) for each in own])

    @property
    def reads(self) -> Criterion:
        """The term that says what the scores mean."""
        reader = self.criteria[self._reader]
        assert isinstance(reader, Criterion)
        return reader.reads

    @property
    def tilt(self) -> Tensor | None:
        return self.reads.tilt

    def natural_scores(self, logits: Tensor) -> Tensor:
        return self.reads.natural_scores(logits)

    def posterior(self, logits: Tensor) -> Tensor:
        return self.reads.posterior(logits)

    def scores_of(self, posterior: Tensor) -> Tensor:
        return self.reads.scores_of(posterior)

    def plain_scores(self, posterior: Tensor) -> Tensor:
        return self.reads.plain_scores(posterior)

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return self.reads.plain_by_posterior

    @property
    def plain_by_tilt(self) -> bool:  # type: ignore[override]
        return self.reads.plain_by_tilt

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        return self.reads.decide_at(logits, tau)

    def extra_repr(self) -> str:
        return f"factors={list(self.factors)}"

    def told(self) -> str:
        terms = [each for each in self.criteria if isinstance(each, Criterion)]
        pairs = zip(self.factors, terms, strict=True)
        return " + ".join(f"{factor:g} {type(each).__name__}({each.told()})" for factor, each in pairs)


def losses_help() -> str:
    """The names, and the forms that can be made of them."""
    return f"{', '.join(LOSSES)}; {WEIGHTED}NAME adds class weights; sums as ce+0.5*dice"


def split_name(name: str) -> list[tuple[float, bool, str]]:
    """``"ce+0.5*weighted_dice"`` as (factor, with class weights?, loss) per term, whatever its letters' case.

    Raises:
        ValueError: it is no loss.
    """
    if not isinstance(name, str):
        raise unknown_name("loss", str(name), [losses_help()])
    terms = []
    for term in name.lower().split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.e-]+)\s*\*)?\s*(\w+)\s*", term)
        loss = match[2].removeprefix(WEIGHTED) if match else ""
        try:
            factor = float((match and match[1]) or 1)
        except ValueError:
            loss = ""
        if match is None or loss not in LOSSES:
            known = [form for each in LOSSES for form in (each, WEIGHTED + each)]
            raise unknown_name(
                "loss", name, [losses_help()], meant=meant_value("loss", match[2] if match else term, known)
            )
        terms.append((factor, match[2].startswith(WEIGHTED), loss))
    return terms


def _options_of(loss: str, weighted: bool) -> set[str]:
    """What a term of a loss's name reads."""
    return {*LOSSES[loss].options, *(["class_weights"] if weighted else [])}


def unused_options(name: str, given: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Which of the given options no term of a loss reads, and the losses that do.

    >>> unused_options("ce+0.5*dice", ["label_smoothing", "gamma", "class_weights"])
    {'gamma': ('focal',), 'class_weights': ('weighted_NAME',)}

    Raises:
        ValueError: it is no loss.
    """
    read = set().union(*(_options_of(loss, weighted) for _, weighted, loss in split_name(name)))
    return {option: losses_that_read(option) for option in given if option not in read}


def build_criterion(
    name: str,
    counts: Counts,
    *,
    pixels_of_images: Tensor | Sequence[int] | None = None,
    ignore_index: int | str | None = "auto",
    **options: Any,
) -> Criterion:
    """The criterion of that name for training pixel counts ``(C,)``; options that a loss has no use for are ignored.

    >>> build_criterion("weighted_ce+0.5*dice", [900, 90, 10], label_smoothing=0.1)
    SumLoss(
      factors=[1.0, 0.5]
      (criteria): ModuleList(
        (0): CrossEntropyLoss(label_smoothing=0.1, class weights, ignore_index=255, reduction='mean')
        (1): DiceLoss(ignore_index=255, reduction='mean')
      )
    )

    Args:
        name: one of ``LOSSES``; ``"weighted_"`` before it adds class weights; sums as ``"ce+0.5*dice"``.
        counts: training pixels per class, or a ``PixelCounts``.
        pixels_of_images: of the ``weighted_`` losses, see
            :func:`segloss.losses.class_weights.class_weights_from_counts`.
        ignore_index: of the criterion; auto: 255, or 65535 where 255 is a class.
        options: those of ``LOSS_OPTIONS``, also by the name of ``from_counts`` (``power`` for ``label_power``).

    Raises:
        ValueError: an unknown name or an option that cannot be.
        TypeError: an option that no loss knows.
    """
    flags = {keyword: flag for loss in LOSSES.values() for flag, keyword in loss.keywords.items()}
    given = {flags.get(option, option): value for option, value in options.items()}
    if unknown := sorted(given.keys() - LOSS_OPTIONS.keys()):
        raise TypeError(f"no loss has an option {unknown[0]!r}; known are {', '.join(LOSS_OPTIONS)}")
    for option in given.keys() - unused_options(name, given).keys():
        if not LOSS_OPTIONS[option].fits(given[option]):
            raise ValueError(f"{option} must be {LOSS_OPTIONS[option].expected}, got {given[option]!r}")
    terms = []
    ignored = {} if ignore_index == "auto" else {"ignore_index": ignore_index}
    for factor, weighted, loss in split_name(name):
        kind = LOSSES[loss]
        own = {flag: given.get(flag, LOSS_OPTIONS[flag].default) for flag in _options_of(loss, weighted)}
        if "label_power" in own and "label_power" not in given and not names_recipe(own["label_values"], "power"):
            del own["label_power"]  # the default of a recipe that is not asked for
        if weighted:
            own["pixels_of_images"] = pixels_of_images
        terms.append(
            (factor, kind.from_counts(counts, **ignored, **{kind.keywords.get(k, k): v for k, v in own.items()}))
        )
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else SumLoss(terms)


def _import_losses() -> None:
    """The modules of this folder, the loss of the package first; Triton's kernels are its operator's to import."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    for name in sorted({*names} - {"outlying_triton"}, key=lambda name: (name != "outlying", name)):
        import_module(f"segloss.losses.{name}")


_import_losses()
LOSSES_HELP = losses_help()
