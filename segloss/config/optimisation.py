"""Options of the optimiser and its schedule."""

from dataclasses import dataclass

from segloss.config.ranges import AT_LEAST_ONE
from segloss.flags import Options, option
from segloss.losses.reduction import BELOW_ONE, NOT_NEGATIVE, POSITIVE


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """Optimiser and schedule: --epochs 120 --batch-size 16 --lr 5e-4"""

    epochs: int = option(60, "passes over the training split", *AT_LEAST_ONE)
    batch_size: int = option(8, "images per step and device", *AT_LEAST_ONE)
    lr: float = option(1e-3, "peak learning rate of AdamW", *POSITIVE)
    encoder_lr_factor: float = option(0.3, "learning rate of the encoder relative to the rest", *NOT_NEGATIVE)
    weight_decay: float = option(0.01, "of AdamW; none on norms and biases", *NOT_NEGATIVE)
    warmup_share: float = option(0.1, "share of all steps in which the learning rate rises linearly", *BELOW_ONE)
