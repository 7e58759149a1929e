"""Semantic segmentation of imbalanced data. Importing this package needs torch alone.

>>> from segloss import OutlyingMSELoss
>>> criterion = OutlyingMSELoss.from_counts([9000, 900, 100])  # training pixels per class
"""

from typing import TYPE_CHECKING

from segloss.lazy import names_from

if TYPE_CHECKING:
    from segloss.datasets import build_dataset
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
    from segloss.models import build_model
    from segloss.pixel_counts import PixelCounts, count_labels
    from segloss.runs import load_run

__version__ = "0.1.0"

# Imported when they are asked for: of what reads a command line alone torch is not, which takes seconds.
__getattr__, __dir__ = names_from(
    __name__,
    {
        "segloss.datasets": ("build_dataset",),
        "segloss.errors": ("InputError",),
        "segloss.iou_rule": ("IoUDecision", "class_threshold", "iou_decision"),
        "segloss.losses": (
            *("IGNORE_INDEX", "CrossEntropyLoss", "FocalLoss", "OutlyingMSELoss", "class_ranks"),
            *("class_weights_from_counts", "cross_entropy_loss", "decide", "focal_loss", "label_values_from_counts"),
            *("outlying_mse_loss", "posterior"),
        ),
        "segloss.metrics": ("ConfusionMatrix", "Scores"),
        "segloss.models": ("build_model",),
        "segloss.pixel_counts": ("PixelCounts", "count_labels"),
        "segloss.runs": ("load_run",),
    },
)

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
