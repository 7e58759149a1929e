"""Options of the machine that trains, and of Lightning on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segloss.config.ranges import AT_LEAST_ONE, WORKERS, WORKERS_HELP, Accelerator, Precision
from segloss.errors import InputError
from segloss.flags import Options, option

Cache = Literal["none", "ram"]
# Options of Lightning's Trainer that the run folder, the plan or the schedule depend on -> what to use instead.
OWNED_TRAINER_OPTIONS = {
    "max_epochs": "--epochs",
    "max_steps": "--epochs",
    "fast_dev_run": "--epochs 1 with a small --image-scale",
    "precision": "--precision",
    "accelerator": "--accelerator",
    "devices": "--devices",
    "default_root_dir": "--output-dir",
    "logger": "--logger",
    "callbacks": "segloss.training from Python",
    "enable_checkpointing": "segloss.training from Python",
    "use_distributed_sampler": "--devices; the loaders know their rank",
}


@dataclass(frozen=True)
class TrainingMachineOptions(Options):
    """Machine: --accelerator cpu --workers 2 --cache ram"""

    cache: Cache = option("none", "keep decoded train and val images")
    workers: int | None = option(None, WORKERS_HELP, *WORKERS)
    precision: Precision = option("auto", "of the network; auto: bf16-mixed where the hardware has it")
    accelerator: Accelerator = option("auto", "where the network runs")
    devices: int = option(1, "number of devices", *AT_LEAST_ONE)
    compile: bool = option(False, "compile the network; the first steps take a minute or more")
    trainer: Mapping[str, Any] = option(
        {}, "further options of lightning.Trainer, as --trainer.NAME VALUE or in the file", metavar="YAML"
    )

    def validate(self) -> None:
        super().validate()
        for name in sorted({*self.trainer} & {*OWNED_TRAINER_OPTIONS}):
            use = f"use {OWNED_TRAINER_OPTIONS[name]}"
            raise InputError(f"--trainer.{name} is not for Lightning alone to know", use)
