"""Options of the optimiser and its schedule."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from segloss.config.ranges import AT_LEAST_ONE
from segloss.errors import InputError, unknown_name
from segloss.flags import Options, option
from segloss.losses.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, PROBABILITY

Schedule = Literal["poly", "cosine", "one_cycle", "constant"]
_LEFT_OUT = ("LBFGS", "Muon", "SparseAdam")  # no groups of parameters, matrices alone, sparse gradients alone
OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    name.lower(): found
    for name, found in sorted(vars(torch.optim).items())
    if isinstance(found, type) and issubclass(found, Optimizer) and name not in ("Optimizer", *_LEFT_OUT)
}
USUAL: Mapping[str, Mapping[str, Any]] = {"sgd": {"momentum": 0.9}}  # where torch's default is nobody's habit


def known_options(optimizer: str) -> list[str]:
    """What ``--optimizer-options`` may hold for an optimiser; rates and weight decay have options of their own."""
    return [
        name for name in signature(OPTIMIZERS[optimizer]).parameters if name not in ("params", "lr", "weight_decay")
    ]


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """Optimiser and schedule: --epochs 120 --batch-size 16 --optimizer sgd --lr 0.01 --schedule cosine"""

    epochs: int = option(60, "passes over the training split", *AT_LEAST_ONE)
    batch_size: int = option(8, "images per step and device", *AT_LEAST_ONE)
    auto_batch_size: bool = option(
        False, "as many images per step as memory takes, at most an eighth of the training images of a device"
    )
    optimizer: str = option("adamw", "of torch.optim; sgd has momentum 0.9", names=OPTIMIZERS)
    optimizer_options: Mapping[str, Any] = option(
        {}, "its further options, as --optimizer-options.NAME VALUE or in the file", metavar="YAML"
    )
    lr: float = option(1e-3, "peak learning rate; sgd wants about ten times as much", *POSITIVE)
    find_lr: bool = option(False, "say which --lr to train with, by steps at growing rates, and stop")
    encoder_lr_factor: float = option(
        0.3, "learning rate of the encoder relative to the rest; 0: it is frozen", *NOT_NEGATIVE
    )
    layer_decay: float = option(
        1.0, "factor on the rate of each block of the encoder, relative to the next nearer the scores", *PROBABILITY
    )
    weight_decay: float = option(0.01, "none on norms and biases", *NOT_NEGATIVE)
    schedule: Schedule = option("poly", "of the learning rate after its warm-up")
    warmup_share: float = option(0.1, "share of all steps in which the learning rate rises", *BELOW_ONE)

    def validate(self) -> None:
        super().validate()
        known = known_options(self.optimizer)
        for name in self.optimizer_options:
            if name not in known:
                raise unknown_name(f"option of --optimizer {self.optimizer}", name, known)
        if not self.optimizer_options:  # the others have ranges
            return
        for name, value in self.optimizer_options.items():
            usual = signature(OPTIMIZERS[self.optimizer]).parameters[name].default
            if isinstance(usual, bool | None) and not isinstance(value, bool | type(usual)) and value not in (0, 1):
                raise InputError(f"must be true or false, got {value}", where=f"--optimizer-options.{name}")
        try:
            self._try_a_step()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(str(error), where=f"--optimizer {self.optimizer}") from error

    def _try_a_step(self) -> None:
        """Some combinations are refused by the first step alone; of ``capturable`` it depends on the device."""
        weight = nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.zeros(2, 2)
        of_cpu = {} if not self.optimizer_options.get("capturable") else {"capturable": False}
        self.build_optimizer([{"params": [weight], "lr": self.lr, **of_cpu}]).step()

    def build_optimizer(self, groups: list[dict[str, Any]], **options: Any) -> Optimizer:
        """The optimiser of groups that bring their own rate and weight decay; ``options`` give way to the user's."""
        return OPTIMIZERS[self.optimizer](
            groups, **{**options, **USUAL.get(self.optimizer, {}), **self.optimizer_options}
        )
