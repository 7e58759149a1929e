"""Lightning's checkpoint callbacks for the run folder, and how their files are written."""

import signal
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segloss.files import write_durably
from segloss.training.reported import best_is_least
from segloss.weight_files import BEST, LAST, PREVIOUS


class WholeCheckpoints(TorchCheckpointIO):
    """Written beside their place and flushed to the disk before they get their name; the last but one is kept.

    Lightning's own writes in TMPDIR: on another file system its move is a copy, and a kill leaves half of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises OSError where the disk is full; what was there stays."""
        path = Path(path)
        previous = path.with_name(PREVIOUS.name) if path.name == LAST.name else None
        write_durably(path, partial(torch.save, checkpoint), previous)


class MovableCheckpoint(ModelCheckpoint):
    """A checkpoint callback that still knows its best score when the run folder was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(value) if key in paths else value for key, value in state_dict.items()}
        moved["dirpath"] = self.dirpath
        moved["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)


class Need(IntEnum):
    """What is due at a step; of several processes the largest counts."""

    NOTHING = 0
    SAVE = 1
    OUT_OF_TIME = 2
    INTERRUPTED = 3
    TERMINATED = 4


class LastCheckpoint(MovableCheckpoint):
    """last.ckpt, to go on from: at the end of each epoch, every so many minutes, and when the process is told to end.

    Within an epoch it is written between two optimiser steps or, where a validation has begun, as if it had not. On
    SIGTERM, or Ctrl-C once, the run is saved and ends; a second Ctrl-C ends it at once. When the time of
    ``--trainer.max_time`` is used up it is saved and validated; the epoch that was cut is gone on with by ``--resume``.

    Args:
        minutes: between two checkpoints, 0: after every step.
        say: takes a line for the user.
    """

    def __init__(self, minutes: float, say: Callable[[str], None], **options: Any):
        super().__init__(filename=LAST.stem, save_on_train_epoch_end=True, **options)
        self.minutes, self.say = minutes, say
        self.saved_at = 0.0
        self.told = Need.NOTHING
        self.began = False
        self.cut = False  # the running epoch, by the time limit

    def on_fit_end(self, trainer: Any, task: L.LightningModule) -> None:
        unfinished = trainer.fit_loop.epoch_progress.current.processed < trainer.max_epochs
        if not self.began and unfinished and trainer.is_global_zero:  # Lightning's Timer saw to it
            self.say("warning: --trainer.max_time is used up, nothing is trained; give more of it to go on")

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        super().on_train_start(trainer, task)
        self.saved_at, self.told, self.began = time.monotonic(), Need.NOTHING, True
        if threading.current_thread() is threading.main_thread():  # Lightning puts back what was there
            signal.signal(signal.SIGTERM, self._hear)
            signal.signal(signal.SIGINT, self._hear)

    def _hear(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.told == Need.INTERRUPTED:
            raise KeyboardInterrupt
        self.told = max(self.told, Need.TERMINATED if number == signal.SIGTERM else Need.INTERRUPTED)

    def _need(self, trainer: Any) -> Need:
        need = self.told
        if need == Need.NOTHING:
            left = [each.time_remaining() or 0.0 for each in trainer.callbacks if isinstance(each, Timer)]
            late = time.monotonic() - self.saved_at >= 60 * self.minutes
            over = min(left, default=1.0) <= 0 and trainer.fit_loop._can_stop_early
            need = Need.OUT_OF_TIME if over else Need.SAVE if late else need
        if trainer.world_size > 1:
            all_needs = torch.tensor(need, device=trainer.strategy.root_device)
            need = Need(int(trainer.strategy.reduce(all_needs, reduce_op="max")))
        return need

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # what was logged before the checkpoint is on file, whatever comes
        trainer.save_checkpoint(Path(str(self.dirpath)) / LAST.name)
        self.saved_at = time.monotonic()

    def _act(self, trainer: L.Trainer, need: Need) -> None:
        if need == Need.OUT_OF_TIME:
            trainer.should_stop = True
            if trainer.is_global_zero:
                folder = Path(str(self.dirpath)).parent
                self.say(
                    f"--trainer.max_time is used up in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}; "
                    f"go on with --resume --output-dir {folder} and more of it"
                )
        elif need == Need.INTERRUPTED:
            raise KeyboardInterrupt
        elif need == Need.TERMINATED:
            raise SIGTERMException

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        loop: Any = trainer.fit_loop
        micro_batches_to_come = (index + 1) % trainer.accumulate_grad_batches
        if micro_batches_to_come or trainer.is_last_batch or loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            return  # what a validation or the end of the epoch is to follow is saved there
        if need := self._need(trainer):
            self._save(trainer)
            self.cut = need == Need.OUT_OF_TIME
            self._act(trainer, need)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.sanity_checking:  # before the first step
            return
        need = self._need(trainer)
        if need not in (Need.NOTHING, Need.OUT_OF_TIME):
            if not self.cut:
                self._save(trainer)
            self._act(trainer, need)

    def on_validation_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        if self.told and trainer.world_size == 1:  # several need not have as many batches
            self.on_validation_start(trainer, task)

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not self.cut:  # else it is saved where it was cut
            self._save(trainer)
            need, done = self._need(trainer), trainer.current_epoch + 1 == trainer.max_epochs
            self._act(trainer, Need.NOTHING if done and need == Need.OUT_OF_TIME else need)

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.validating:  # as Lightning counts one that was stopped in its first batch: it is done from the first
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress |= {"total": {**begun}, "current": {**begun}}


def checkpoint_callbacks(
    folder: Path, monitor: str, minutes: float, say: Callable[[str], None]
) -> list[ModelCheckpoint]:
    """best.ckpt (weights, by validation score) before last.ckpt (everything), which then knows of the best."""
    common: dict[str, Any] = {
        "dirpath": folder / LAST.parent,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    best = MovableCheckpoint(
        filename=BEST.stem,
        monitor=f"val_{monitor}",
        mode="min" if best_is_least(monitor) else "max",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        **common,
    )
    return [best, LastCheckpoint(minutes, say, **common)]
