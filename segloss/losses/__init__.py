"""The losses: torch only. Each is a pure function and a module of the same name and parameters."""

from segloss.losses.by_name import SumLoss, build_criterion, unused_options
from segloss.losses.class_weights import CLASS_WEIGHTS, class_weights_from_counts
from segloss.losses.criterion import LOSS_OPTIONS, LOSSES, Criterion, WeightedCriterion
from segloss.losses.cross_entropy import (
    CrossEntropyLoss,
    FocalLoss,
    OHEMCrossEntropyLoss,
    cross_entropy_loss,
    focal_loss,
    ohem_cross_entropy_loss,
)
from segloss.losses.label_values import LABEL_VALUES, class_ranks, label_values_from_counts
from segloss.losses.labels import IGNORE_INDEX
from segloss.losses.logit_adjustment import (
    LDAMLoss,
    LogitAdjustedLoss,
    VectorScalingLoss,
    class_prior,
    ldam_loss,
    logit_adjusted_loss,
    vector_scaling_loss,
)
from segloss.losses.outlying import MSELoss, OutlyingMSELoss, decide, outlying_mse_loss, posterior
from segloss.losses.regions import (
    DiceLoss,
    JaccardLoss,
    LovaszSoftmaxLoss,
    TverskyLoss,
    dice_loss,
    jaccard_loss,
    lovasz_softmax_loss,
    tversky_loss,
)

__all__ = [
    "CLASS_WEIGHTS",
    "IGNORE_INDEX",
    "LABEL_VALUES",
    "LOSSES",
    "LOSS_OPTIONS",
    "Criterion",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LovaszSoftmaxLoss",
    "MSELoss",
    "OHEMCrossEntropyLoss",
    "OutlyingMSELoss",
    "SumLoss",
    "TverskyLoss",
    "VectorScalingLoss",
    "WeightedCriterion",
    "build_criterion",
    "class_prior",
    "class_ranks",
    "class_weights_from_counts",
    "cross_entropy_loss",
    "decide",
    "dice_loss",
    "focal_loss",
    "jaccard_loss",
    "label_values_from_counts",
    "ldam_loss",
    "logit_adjusted_loss",
    "lovasz_softmax_loss",
    "ohem_cross_entropy_loss",
    "outlying_mse_loss",
    "posterior",
    "tversky_loss",
    "unused_options",
    "vector_scaling_loss",
]
