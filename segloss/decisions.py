r"""Which class wins: decisions that trade common classes for rare ones after training, without training again.

=========  ==============================================================================================
rule       decision
=========  ==============================================================================================
``tau``    :math:`\arg\max_c u_c^\tau P(c|x)`, u being the criterion's declared tilt; 1 is the plain argmax of the
           scores. Of the outlying label it is :math:`\arg\max_c z_c t_c^{\tau - 1}`. Without a tilt it moves nothing
``prior``  :math:`\arg\max_c P(c|x)\,\pi_c^{-s}`, the prior pi being the training share; every criterion has it
=========  ==============================================================================================

Source of the second: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021 (post-hoc).
"""

from dataclasses import dataclass

from torch import Tensor

from segloss.losses import Criterion, class_prior
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest

RULES = ("tau", "prior")
training_prior = class_prior  # what the rule takes for pi


@dataclass(frozen=True)
class Decision:
    """A rule and where on it to decide; the default is the plain argmax of the scores."""

    rule: str = "tau"
    value: float = 1.0

    def __str__(self) -> str:
        return f"{self.rule} {self.value:g}"


def decide(criterion: Criterion, logits: Tensor, prior: Tensor, decision: Decision) -> Tensor:
    """Class ids ``(N, *)`` of logits ``(N, C, *)``; ``prior`` ``(C,)`` is the share of each class in training."""
    if decision.rule == "tau":
        return criterion.decide(logits, decision.value)
    return by_prior(criterion.posterior(logits), prior, decision.value)


def by_prior(posterior: Tensor, prior: Tensor, exponent: float) -> Tensor:
    return first_largest(posterior * per_class(prior**-exponent, posterior))
