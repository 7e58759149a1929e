r"""Which class wins: decisions that trade common classes for rare ones after training, without training again.

=========  ==============================================================================================
rule       decision
=========  ==============================================================================================
``tau``    :math:`\arg\max_c u_c^\tau P(c|x)`, u being the criterion's declared tilt; 1 is the plain argmax of the
           scores. Of the outlying label it is :math:`\arg\max_c z_c t_c^{\tau - 1}`. Without a tilt it moves nothing
``prior``  :math:`\arg\max_c P(c|x)\,\pi_c^{-s}`, the prior pi being the training share; every criterion has it
``iou``    :math:`\arg\max_c a_c P(c|x) - b_c`, fitted for mean IoU (:mod:`segloss.iou_rule`); every criterion has it
=========  ==============================================================================================

Source of the second: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021 (post-hoc).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segloss.iou_rule import IoUDecision
from segloss.losses import Criterion
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest

POINTS = ("tau", "prior")  # the rules that a number moves
MOST_MULTIPLIED = 2  # a class of one pixel in 1e12 weighs 1e24 then, and a product takes a third of the time
WORDS = "plain, tau VALUE, prior VALUE, iou or auto"


@dataclass(frozen=True)
class Decision:
    """A rule and where on it to decide; the default is the plain argmax of the scores. ``terms``: of rule ``iou``."""

    rule: str = "tau"
    value: float = 1.0
    terms: IoUDecision | None = None

    def __str__(self) -> str:
        return self.rule if self.terms else f"{self.rule} {self.value:g}"


def read_decision(words: Sequence[str]) -> Decision | str:
    """Of what ``--decision`` is given; ``"iou"`` and ``"auto"`` as they are, since a run says what they mean.

    >>> str(read_decision(["tau", "0.5"])), str(read_decision(["plain"]))
    ('tau 0.5', 'tau 1')

    Raises:
        ValueError: it is none of ``WORDS``.
    """
    rule, *values = " ".join(words).split() or [""]
    if not values and rule in ("plain", "iou", "auto"):
        return Decision() if rule == "plain" else rule
    if len(values) != 1 or rule not in POINTS or not math.isfinite(float(values[0])):
        raise ValueError(f"decision must be {WORDS}, got {' '.join(words)!r}")
    return Decision(rule, float(values[0]))


def decide(
    criterion: Criterion, logits: Tensor, prior: Tensor, decision: Decision, posterior: Tensor | None = None
) -> Tensor:
    """Class ids ``(N, *)`` of logits ``(N, C, *)``.

    Args:
        prior: ``(C,)``, the share of each class in training.
        posterior: that of the logits, where it is known.

    Raises:
        ValueError: of rule ``iou``, without its terms.
    """
    if decision.rule == "tau":
        return criterion.decide(logits, decision.value)
    posterior = criterion.posterior(logits) if posterior is None else posterior
    if decision.rule == "prior":
        return by_prior(posterior, prior, decision.value)
    if decision.terms is None:
        raise ValueError(f"a decision by rule {decision.rule!r} has terms, this one has none")
    return decision.terms.decide(posterior)


def by_prior(posterior: Tensor, prior: Tensor, exponent: float) -> Tensor:
    """Class ids of rule ``prior``; beyond an exponent of ``MOST_MULTIPLIED`` by logarithms, which do not overflow."""
    if abs(exponent) <= MOST_MULTIPLIED:
        return first_largest(posterior * per_class(prior**-exponent, posterior), posterior)
    wide = posterior.to(torch.float32 if posterior.device.type == "mps" else torch.float64)  # MPS has no float64
    return first_largest(wide.log() - per_class(exponent * prior.to(wide).log(), wide), posterior)
