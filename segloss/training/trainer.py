"""Lightning's Trainer with our callbacks and without its noise."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Timer
from rich.console import Console

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.training.averaging import AveragedWeights
from segloss.training.callbacks import EpochProgress, History
from segloss.training.checkpoints import WholeCheckpoints, checkpoint_callbacks
from segloss.training.early_stop import EarlyStop
from segloss.training.lightning_options import REFUSED, check_trainer_options, profiler_into
from segloss.training.pictures import Pictures
from segloss.training.processes import EndTogether
from segloss.training.records import build_loggers
from segloss.training.watch import StopAtNonFinite


def seed_everything(seed: int) -> None:
    """Weights of the new layers; augmentation and sampling have their own seeds."""
    torch.manual_seed(seed)


def build_trainer(config: TrainConfig, precision: str, folder: Path, console: Console) -> L.Trainer:
    """Lightning's Trainer with our callbacks; ``config.trainer`` overrides any of its options that are not ours.

    Args:
        precision: what the machine makes of the config's.
        folder: of the run; nothing is written into it before training begins.
        console: where epochs are told.

    Raises:
        InputError: an option that Lightning does not have or that cannot be, or a device that is not there.
    """
    check_trainer_options(config)
    folder = folder.absolute()  # of others Lightning would read ~ and $NAME
    quieten_lightning()

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    options: dict[str, Any] = {
        "max_epochs": config.epochs,
        "accelerator": config.accelerator,
        "devices": config.devices,
        "precision": precision,
        "logger": build_loggers(config.logger, folder),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the loaders know their rank, and count no validation image twice
        "default_root_dir": folder,
    }
    try:
        own = {**config.trainer, "profiler": profiler_into(folder, config.trainer.get("profiler"))}
        max_time = own.pop("max_time", None)  # Lightning's own timer would take the epoch that it cuts for a whole one
        return L.Trainer(
            **{**options, **own, "plugins": [WholeCheckpoints(), *_listed(config.trainer.get("plugins"))]},
            callbacks=[
                EndTogether(),
                StopAtNonFinite(folder),
                History(folder, config.monitor, say),
                Pictures(),
                *_habits(config, say),
                EpochProgress(console),
                *([] if max_time is None else [Timer(max_time, interval="epoch", verbose=False)]),
                *checkpoint_callbacks(folder, config.monitor, config.checkpoint_minutes, say),
            ],
        )
    except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise InputError(str(error), where=REFUSED) from error


def _habits(config: TrainConfig, say: Callable[[str], None]) -> list[Callback]:
    """Those of the options that are callbacks."""
    found: list[Callback] = []
    if config.ema or config.swa_share:
        found.append(AveragedWeights(config.ema, config.first_averaged_epoch, config.swa_share))
    if config.early_stop is not None:
        found.append(EarlyStop(config.monitor, config.early_stop, say))
    return found


def _listed(plugins: Any) -> list[Any]:
    return plugins if isinstance(plugins, list) else [] if plugins is None else [plugins]


def quieten_lightning() -> None:
    """Its hints on devices, workers and paid services are noise here; its warnings on training stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*Checkpoint directory.*",
        ".*in eval mode at the start of training.*",  # those that are frozen
        ".*LeafSpec.*",  # its own use of deprecated names of torch
        ".*all_gather is deprecated.*",
        ".*sync_dist=True.*",  # scores are of all processes before they are logged
        ".*your dataloader is not resumable.*",  # the sampler is told where it was
        ".*callbacks used to create the checkpoint.*",  # with --override, which says what begins anew
    ):
        warnings.filterwarnings("ignore", pattern)
