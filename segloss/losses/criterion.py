"""The contract every loss module keeps: options, and how its scores are read as posterior and decision."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from segloss.losses.class_weights import class_weights_from_counts
from segloss.losses.reduction import IGNORE_INDEX, REDUCTIONS, class_vector, first_largest, working_dtype


class Criterion(nn.Module):
    r"""Base of the loss modules; the readings here are those of a softmax loss.

    Every criterion declares its tilt u, shape ``(C,)`` (None: all 1): at its optimum the raw argmax of the
    scores is :math:`\arg\max_c u_c P(c|x)`. :meth:`decide` moves that operating point after training:
    :math:`\arg\max_c u_c^\tau P(c|x)`, so tau = 1 is the plain argmax of the scores and tau = 0 the
    decision of highest pixel accuracy. :meth:`posterior` divides the tilt out.
    """

    def __init__(self, *, ignore_index: int = IGNORE_INDEX, reduction: str = "mean"):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.ignore_index = ignore_index
        self.reduction = reduction

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Criterion":
        """Buffers move with the model but stay float32: ``model.half()`` would round label values and lose priors."""
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            cast = self.get_buffer(name)
            if cast.is_floating_point() and cast.itemsize < 4:
                self._buffers[name] = buffer.to(cast.device)
        return self

    @property
    def tilt(self) -> Tensor | None:
        """u ``(C,)``, or None where the raw argmax already is the natural-prior decision."""
        return None

    def softmax_scores(self, logits: Tensor) -> Tensor:
        """What the loss takes the softmax of, apart from what the labels add; in the order of the logits."""
        return logits.to(working_dtype(logits))

    def natural_scores(self, logits: Tensor) -> Tensor:
        r"""Scores whose softmax is the posterior: :math:`z_c - \log u_c`."""
        scores = self.softmax_scores(logits)
        return scores if self.tilt is None else scores - per_class(self.tilt, scores).log()

    def posterior(self, logits: Tensor) -> Tensor:
        """P(c|x), shape ``(N, C, *)``, float32 or wider: softmax of :meth:`natural_scores`."""
        return self.natural_scores(logits).softmax(1)

    def decide(self, logits: Tensor, tau: float = 1.0) -> Tensor:
        """Class ids ``(N, *)`` int64 at operating point ``tau``; 1 is the plain argmax of the logits."""
        if tau == 1:
            return first_largest(logits)
        natural = self.natural_scores(logits)
        return first_largest(natural if tau == 0 else natural.lerp(self.softmax_scores(logits), tau))

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"


Weighted = TypeVar("Weighted", bound="WeightedCriterion")


class WeightedCriterion(Criterion):
    """Base of the softmax losses with class weights; ``weight`` is a buffer and the declared tilt.

    Args:
        weight: w ``(C,)``, positive, or None; see :func:`segloss.losses.class_weights.class_weights_from_counts`.
        ignore_index, reduction: as in the function of the same name.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ):
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.register_buffer("weight", None if weight is None else class_vector("weight", weight))

    @classmethod
    def from_counts(cls: type[Weighted], counts: Tensor | Sequence[int], **options: Any) -> Weighted:
        """From training pixel counts ``(C,)``: ``class_weights`` names a recipe for ``weight``; options as above."""
        return cls(**with_class_weights(counts, options))

    @property
    def tilt(self) -> Tensor | None:
        return self.weight

    def options(self) -> dict[str, Any]:
        """What every function of these losses takes by keyword."""
        return {"weight": self.weight, "ignore_index": self.ignore_index, "reduction": self.reduction}

    def extra_repr(self) -> str:
        return f"{'' if self.weight is None else 'class weights, '}{super().extra_repr()}"


def with_class_weights(counts: Tensor | Sequence[int], options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of a module, with ``class_weights`` (a recipe) and its own options turned into ``weight``."""
    recipe = options.pop("class_weights", None)
    own = {name: options.pop(name) for name in ("pixels_of_images", "beta") if name in options}
    if recipe is None:
        if own:
            raise ValueError(f"{' and '.join(own)} belong to class_weights; name a recipe or leave them out")
        return options
    if options.get("weight") is not None:
        raise ValueError("give weight or class_weights, not both")
    return options | {"weight": class_weights_from_counts(counts, recipe, **own)}


def per_class(vector: Tensor, scores: Tensor) -> Tensor:
    """``(C,)`` shaped and typed to meet ``(N, C, *)``."""
    return vector.to(scores).view(1, -1, *[1] * (scores.ndim - 2))
