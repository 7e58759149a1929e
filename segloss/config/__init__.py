"""The options of every command: frozen dataclasses that are flags, YAML files and saved runs at once."""

from segloss.config.data import DataOptions
from segloss.config.evaluation import CHOICES, EvalConfig
from segloss.config.machine import OWNED_TRAINER_OPTIONS
from segloss.config.tools import DemoConfig, DoctorConfig, ExportConfig, FrequencyConfig, PlanConfig, RasteriseConfig
from segloss.config.training import TrainConfig

__all__ = [
    "CHOICES",
    "OWNED_TRAINER_OPTIONS",
    "DataOptions",
    "DemoConfig",
    "DoctorConfig",
    "EvalConfig",
    "ExportConfig",
    "FrequencyConfig",
    "PlanConfig",
    "RasteriseConfig",
    "TrainConfig",
]
