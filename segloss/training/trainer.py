"""Lightning's Trainer with our callbacks and without its noise."""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.training.callbacks import EpochProgress, History
from segloss.training.checkpoints import checkpoint_callbacks

# Options of Lightning's Trainer that the run folder, the plan or the schedule depend on.
OWNED_OPTIONS = {
    "max_epochs": "--epochs",
    "max_steps": "--epochs",
    "fast_dev_run": "--epochs 1 with a small --image-scale",
    "precision": "--precision",
    "accelerator": "--accelerator",
    "devices": "--devices",
    "default_root_dir": "--output-dir",
    "logger": "the TensorBoard events in the run folder",
    "callbacks": "segloss.training from Python",
    "enable_checkpointing": "segloss.training from Python",
    "use_distributed_sampler": "--devices; the loaders know their rank",
}


def seed_everything(seed: int) -> None:
    """Weights of the new layers; augmentation and sampling have their own seeds."""
    torch.manual_seed(seed)


def build_trainer(config: TrainConfig, folder: Path, console) -> L.Trainer:
    """Lightning's Trainer with our callbacks; ``config.trainer`` overrides any of its options.

    Raises:
        InputError: an option that Lightning does not have, or a device that is not there.
    """
    owned = sorted(set(config.trainer) & set(OWNED_OPTIONS))
    if owned:
        raise InputError(f"--trainer.{owned[0]} is not for Lightning alone to know; use {OWNED_OPTIONS[owned[0]]}")
    quieten_lightning()
    history = History(folder, say=lambda line: console.print(line, highlight=False, soft_wrap=True))
    options: dict[str, Any] = {
        "max_epochs": config.epochs,
        "accelerator": config.accelerator,
        "devices": config.devices,
        "precision": config.precision,
        "logger": TensorBoardLogger(folder, name="tensorboard", version=""),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders know their rank, and count no validation image twice
        "default_root_dir": folder,
    }
    try:
        return L.Trainer(
            **{**options, **config.trainer},
            callbacks=[history, EpochProgress(console), *checkpoint_callbacks(folder, config.monitor)],
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"lightning.Trainer refuses its options: {error}") from error
    except Exception as error:
        if type(error).__name__ == "MisconfigurationException":
            raise InputError(f"lightning.Trainer refuses its options: {error}") from error
        raise


def quieten_lightning() -> None:
    """Its hints on devices, workers and paid services are noise here; its warnings on training stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*Checkpoint directory.*",
        ".*LeafSpec.*",  # its own use of a deprecated name of torch
    ):
        warnings.filterwarnings("ignore", pattern)
