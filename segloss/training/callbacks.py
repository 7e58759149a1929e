"""What is recorded and shown while a network trains."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import Progress

from segloss.files import write_csv
from segloss.training.task import SegmentationTask

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "val_loss",
    "val_miou",
    "val_mean_accuracy",
    "val_pixel_accuracy",
    "seconds",
)


class History(Callback):
    """Writes history.csv after each epoch and prints one line; its rows travel in the checkpoint."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.path = folder / "history.csv"
        self.say = say
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.lr = 0.0

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            self.say(f"interrupted; go on with --resume --output-dir {self.path.parent}")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self.lr,  # of the epoch's last step
            "train_loss": task.mean_train_loss(),
            **task.val_scores,  # none in an epoch without validation
            "seconds": round(time.monotonic() - self.started, 2),
        }
        self.rows.append(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics({"train_loss": row["train_loss"], "lr": row["lr"]}, step=row["step"])
        if trainer.is_global_zero:
            write_csv(self.path, HISTORY_COLUMNS, ([row.get(c, "") for c in HISTORY_COLUMNS] for row in self.rows))
            self.say(describe_epoch(row, int(trainer.max_epochs or 0)))


def describe_epoch(row: dict[str, Any], epochs: int) -> str:
    """One line of at most 80 columns; percent for people."""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}"
        f"  val mIoU {100 * row.get('val_miou', math.nan):5.1f}"
        f"  mean acc {100 * row.get('val_mean_accuracy', math.nan):5.1f}"
        f"  pixel acc {100 * row.get('val_pixel_accuracy', math.nan):5.1f}  {row['seconds']:4.0f} s"
    )


class EpochProgress(Callback):
    """A bar over the steps of the running epoch, on a terminal only."""

    def __init__(self, console: Console):
        self.console = console
        self.bar: Progress | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        from segloss.report.terminal import new_progress

        self.bar = new_progress(self.console)
        name = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.steps = self.bar.add_task(name, total=int(trainer.num_training_batches))
        self.bar.start()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.advance(self.steps)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.update(self.steps, description="validating")

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
