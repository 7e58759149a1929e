"""The contract every loss module keeps: options, and how its scores are read as posterior and decision."""

from torch import Tensor, nn

from segloss.losses.reduction import IGNORE_INDEX, REDUCTIONS, first_largest, working_dtype


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

    @property
    def tilt(self) -> Tensor | None:
        """u ``(C,)``, or None where the raw argmax already is the natural-prior decision."""
        return None

    def posterior(self, logits: Tensor) -> Tensor:
        r"""P(c|x), shape ``(N, C, *)``, float32 or wider: softmax of :math:`z_c - \log u_c`."""
        return self._at_operating_point(logits, tau=0.0).softmax(1)

    def decide(self, logits: Tensor, tau: float = 1.0) -> Tensor:
        """Class ids ``(N, *)`` int64 at operating point ``tau``; 1 is the plain argmax of the logits."""
        return first_largest(self._at_operating_point(logits, tau))

    def _at_operating_point(self, logits: Tensor, tau: float) -> Tensor:
        scores = logits.to(working_dtype(logits))
        if self.tilt is None or tau == 1:
            return scores
        return scores + (tau - 1) * self.tilt.to(scores).log().view(1, -1, *[1] * (scores.ndim - 2))

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"
