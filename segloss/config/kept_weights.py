"""Options of which weights a run keeps, and of when it stops."""

from dataclasses import dataclass

from segloss.config.ranges import AT_LEAST_ONE
from segloss.errors import InputError, unknown_name
from segloss.flags import Options, option
from segloss.losses.ranges import BELOW_ONE

# Of a validation; rule_miou: under the IoU rule, fitted to the posteriors of that validation without its labels.
WHOLE_SCORES = (
    *("miou", "mean_accuracy", "pixel_accuracy", "loss", "frequency_weighted_iou"),
    *("head_miou", "middle_miou", "tail_miou", "worst_iou", "rule_miou"),
)
CLASS_SCORES = ("iou", "recall", "precision", "f1")
MONITORS = (*WHOLE_SCORES, *(f"{score}/CLASS" for score in CLASS_SCORES))


def monitor_name(text: str) -> str:
    """A name as it is declared, that of a class as it is given."""
    score, mark, of_class = text.partition("/")
    return score.lower().replace("-", "_") + mark + of_class


def is_monitor(name: str) -> bool:
    score, mark, of_class = name.partition("/")
    return score in CLASS_SCORES and bool(of_class) if mark else name in WHOLE_SCORES


@dataclass(frozen=True)
class KeptWeightsOptions(Options):
    """Which weights are kept, and when to stop: --ema 0.999 --monitor tail_miou --early-stop 20"""

    monitor: str = option("miou", "validation score that chooses best.ckpt", canonical=monitor_name, metavar="SCORE")
    early_stop: int | None = option(
        None, "stop after so many validations in a row without a better --monitor", *AT_LEAST_ONE
    )
    ema: float = option(
        0.0,
        "validate and keep a moving average of the weights, this share of it staying at each step; 0: off",
        *BELOW_ONE,
    )
    swa_share: float = option(
        0.0, "average the weights of the last share of the epochs, at the rate with which it begins; 0: off", *BELOW_ONE
    )

    def validate(self) -> None:
        super().validate()
        if not is_monitor(self.monitor):
            raise unknown_name("--monitor", self.monitor, MONITORS)
        if self.ema and self.swa_share:
            raise InputError("--ema and --swa-share are two averages of the same weights", "give one of them")
