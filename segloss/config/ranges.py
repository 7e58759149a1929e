"""What values of options may be, and choices and help that several commands share."""

from collections.abc import Callable, Sequence
from typing import Literal

from segloss.datasets import OPTIONS_HELP
from segloss.decisions import read_decision
from segloss.losses.ranges import Range

WORKERS_HELP = "loader processes, 0: none; default: two less than the cores, at most 8"
VAL_SHARE_HELP, CLASSES_HELP = OPTIONS_HELP["val_share"], OPTIONS_HELP["classes"]
CALIBRATE_HELP = "fit temperature and class bias of the posterior on val, before the IoU rule"
SHOW_HELP = "bands of pictures, three as red, green and blue, or one; default: the first three"
CHECK_HELP = "files that the data doctor decodes; sample: 16 of each split"
Check = Literal["all", "sample", "off"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
COUNT: Range = ("0 or more", lambda number: number >= 0)
WORKERS: Range = ("in 0..1024", lambda number: 0 <= number <= 1024)
SCALE: Range = ("positive and at most 100", lambda factor: 0 < factor <= 100)
AT_LEAST_ONE: Range = ("at least 1", lambda number: number >= 1)
BETWEEN: Range = ("between 0 and 1", lambda number: 0 < number < 1)
Several = tuple[str, Callable[[Sequence[float]], bool]]  # as Range, of several numbers at once
SHOWN: Several = ("one or three numbers from 1", lambda bands: len(bands) in (0, 1, 3) and min(bands, default=1) >= 1)
SIDES: Several = ("at least 32 each", lambda sides: min(sides) >= 32)
CROP: Several = ("in 32..32768 each", lambda sides: min(sides) >= 32 and max(sides) <= 2**15)
FACTORS: Several = ("positive numbers, at most 100", lambda scales: min(scales, default=0) > 0 and max(scales) <= 100)
INTERVAL: Several = (
    "two positive numbers, the smaller first, at most 100",
    lambda ends: 0 < ends[0] <= ends[1] <= 100,
)


def is_decision(words: Sequence[str]) -> bool:
    try:
        return bool(read_decision(words))
    except ValueError:
        return False
