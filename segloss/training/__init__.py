"""Training on Lightning: the task, its data, optimiser and schedule, and what is recorded after each epoch."""

from segloss.training.data import SegmentationData, Splits, prepare_training, training_data
from segloss.training.optimisation import rate_factor
from segloss.training.task import SegmentationTask
from segloss.training.trainer import build_trainer, seed_everything

__all__ = [
    "SegmentationData",
    "SegmentationTask",
    "Splits",
    "build_trainer",
    "prepare_training",
    "rate_factor",
    "seed_everything",
    "training_data",
]
