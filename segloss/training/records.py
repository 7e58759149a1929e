"""Where a run is recorded: TensorBoard always, and the services asked for, through Lightning."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from segloss.config.training import LoggerName
from segloss.errors import InputError

PROJECT = "segloss"


class _Board(TensorBoardLogger):
    """Writes where it is told to; Lightning's own reads a ``$NAME`` within."""

    @property
    def log_dir(self) -> str:
        return str(self.root_dir)


def build_loggers(names: tuple[LoggerName, ...], folder: Path) -> list[Logger]:
    """TensorBoard's into the run folder, then the others, under the run's name and in the project ``segloss``.

    InputError for a package that is missing or a service that refuses.
    """
    # One name for a run and its continuation, which W&B then goes on with.
    key = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
    # Lightning's default is a folder of files, which MLflow 3 refuses; this is MLflow's own.
    store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    options: dict[LoggerName, tuple[str, dict[str, Any]]] = {
        "wandb": (
            "WandbLogger",
            {"project": PROJECT, "name": folder.name, "save_dir": folder, "id": key, "resume": "allow"},
        ),
        "mlflow": ("MLFlowLogger", {"experiment_name": PROJECT, "run_name": folder.name, "tracking_uri": store}),
        "comet": ("CometLogger", {"project": PROJECT, "name": folder.name, "experiment_key": key.ljust(32, "0")}),
    }
    found: list[Logger] = [_Board(folder, name="tensorboard", version="")]
    for name in names:
        kind, given = options[name]
        try:
            found.append(getattr(loggers, kind)(**given))
        except ImportError as error:
            raise InputError(f"--logger {name} needs a package", f"pip install {name}") from error
        except Exception as error:  # each service raises its own kinds
            reason = " ".join(str(error).split())[:200]
            what = f"refuses ({type(error).__name__}: {reason})"
            raise InputError(what, "log in, or leave it out", f"--logger {name}") from error
    return found


def log_picture(logger: Logger, name: str, picture: np.ndarray, step: int) -> None:
    """An RGB picture ``(H, W, 3)`` to a logger that takes some."""
    logger_: Any = logger
    if isinstance(logger, TensorBoardLogger):
        logger_.experiment.add_image(name, picture, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):
        logger_.log_image(key=name, images=[picture], step=step)
    elif hasattr(logger, "run_id") and hasattr(logger_.experiment, "log_image"):  # MLflow
        logger_.experiment.log_image(logger_.run_id, picture, f"{name}-{step:07d}.png")
