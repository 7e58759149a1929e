"""Semantic segmentation of imbalanced data. Importing this package needs torch alone.

>>> from segloss import OutlyingMSELoss
>>> criterion = OutlyingMSELoss.from_counts([9000, 900, 100])  # training pixels per class
"""

from typing import TYPE_CHECKING

from segloss.errors import InputError
from segloss.iou_rule import IoUDecision, class_threshold, iou_decision
from segloss.losses import (
    IGNORE_INDEX,
    CrossEntropyLoss,
    FocalLoss,
    OutlyingMSELoss,
    class_ranks,
    class_weights_from_counts,
    cross_entropy_loss,
    decide,
    focal_loss,
    label_values_from_counts,
    outlying_mse_loss,
    posterior,
)
from segloss.metrics import ConfusionMatrix, Scores
from segloss.pixel_counts import PixelCounts, count_labels

if TYPE_CHECKING:
    from segloss.datasets import build_dataset
    from segloss.models import build_model
    from segloss.runs import load_run

__version__ = "0.1.0"

_LAZY = {
    "load_run": "segloss.runs",
    "build_model": "segloss.models",
    "build_dataset": "segloss.datasets",
}

__all__ = [
    "IGNORE_INDEX",
    "ConfusionMatrix",
    "CrossEntropyLoss",
    "FocalLoss",
    "InputError",
    "IoUDecision",
    "OutlyingMSELoss",
    "PixelCounts",
    "Scores",
    "build_dataset",
    "build_model",
    "class_ranks",
    "class_threshold",
    "class_weights_from_counts",
    "count_labels",
    "cross_entropy_loss",
    "decide",
    "focal_loss",
    "iou_decision",
    "label_values_from_counts",
    "load_run",
    "outlying_mse_loss",
    "posterior",
]


def __getattr__(name: str) -> object:
    """What needs more than torch is imported when it is asked for."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'segloss' has no attribute {name!r}")
