"""A model and samples -> scores at the labels' size: whole images or windows, once or with test-time augmentation."""

from segloss.inference.machine import Machine, autocast, find_machine, pick_device
from segloss.inference.readers import AveragedPosterior, CalibratedPosterior, Ensemble, reader_of
from segloss.inference.scores import ends, infer, infer_dataset, look, same_shape_groups, seen_whole
from segloss.inference.views import Views
from segloss.inference.windows import blend_weights, score_rows, window_starts

__all__ = [
    "AveragedPosterior",
    "CalibratedPosterior",
    "Ensemble",
    "Machine",
    "Views",
    "autocast",
    "blend_weights",
    "ends",
    "find_machine",
    "infer",
    "infer_dataset",
    "look",
    "pick_device",
    "reader_of",
    "same_shape_groups",
    "score_rows",
    "seen_whole",
    "window_starts",
]
