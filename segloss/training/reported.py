"""The scores of a validation by the names that ``--monitor`` knows."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segloss.config.kept_weights import CLASS_SCORES
from segloss.errors import InputError, unknown_name
from segloss.evaluation.fitting import miou_on
from segloss.evaluation.summary import mean_of, members_of_groups
from segloss.iou_rule import iou_decision
from segloss.metrics import Scores, class_groups
from segloss.pixel_counts import some_of
from segloss.pixel_sample import PixelSample

RULE_MIB, RULE_STRIDE = 8, 4  # of posteriors that the rule is fitted to in a validation: 190,000 pixels of 11 classes


def reported(scores: Scores, names: Sequence[str], pixels: Sequence[int]) -> dict[str, float]:
    """Scores of the whole, of head, middle and tail by the training ``pixels``, and of each class; NaN for none.

    Head, middle, tail and the worst class are of classes that labels hold, as in the scores of an evaluation.
    """
    found = {
        name: float(getattr(scores, name))
        for name in ("miou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou")
    }
    for group, members in members_of_groups(scores.pixels.tolist(), pixels).items():
        found[f"{group}_miou"] = mean_of(scores.iou, members)
    found["worst_iou"] = min(scores.iou[scores.pixels > 0].tolist(), default=math.nan)
    for score in CLASS_SCORES:
        found |= {f"{score}/{name}": float(value) for name, value in zip(names, getattr(scores, score), strict=True)}
    return found


def require_monitored(
    monitor: str, names: Sequence[str], val_pixels: Sequence[int], train_pixels: Sequence[int], *, limited: bool = False
) -> None:
    """InputError for a class that is none of the data set's, or a score that no validation could give.

    Args:
        limited: the pixels are of those images of val alone that ``--trainer.limit_val_batches`` leaves.
    """
    val, or_more = ("val, as far as it is validated,", ", or validate more batches") if limited else ("val", "")
    score, _, name = monitor.partition("/")
    if name and name not in names:
        raise unknown_name(f"class of --monitor {score}/CLASS", name, names)
    if not any(val_pixels):
        what = f"{val} has no labelled pixel, so --monitor {monitor} has no value"
        raise InputError(what, f"move labelled images to val{or_more}")
    group = monitor.removesuffix("_miou")
    classes = [names.index(name)] if name else class_groups(train_pixels).get(group, [])
    held = [c for c in classes if val_pixels[c]] if name else members_of_groups(val_pixels, train_pixels).get(group)
    if held == []:
        what = f"{val} holds no pixel of {', '.join(names[c] for c in classes)}, so --monitor {monitor} has no value"
        raise InputError(what, f"monitor another score{or_more}")


def not_validated(
    names: Sequence[str], val_pixels: Sequence[int], train_pixels: Sequence[int], *, limited: bool = False
) -> list[str]:
    """A line where train has classes that val holds no pixel of; arguments as of :func:`require_monitored`."""
    classes = zip(names, val_pixels, train_pixels, strict=True)
    absent = [name for name, in_val, in_train in classes if in_train and not in_val]
    if not absent:
        return []
    val = "val, as far as it is validated," if limited else "val"
    why = "no score tells how well it is learnt, and its IoU is 0 where the network calls a pixel so"
    cure = "validate more batches" if limited else "move images that hold it to val, or validate by --fold K/N"
    return [f"{val} holds no pixel of {some_of(absent)}: {why}; {cure}"]


def best_is_least(monitor: str) -> bool:
    return monitor == "loss"


def rule_miou(sample: PixelSample, tilt: Tensor | None) -> float:
    """Mean IoU under the IoU rule that the posteriors of the sample alone give, on its labels; NaN for no pixel.

    On several processes the samples are put together first.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (sample.posterior, sample.labels))
        sample = PixelSample.of(parts, ignore_index=None)
    if not sample.pixels:
        return math.nan
    return miou_on(sample, iou_decision(sample, counts="posterior", tilt=tilt).decide)
