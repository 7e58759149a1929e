"""What is recorded and shown while a network trains."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from segloss.files import write_csv
from segloss.run_folder import HISTORY
from segloss.training.task import SegmentationTask, named
from segloss.training.watch import doubts

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "val_loss",
    "val_miou",
    "val_mean_accuracy",
    "val_pixel_accuracy",
)
LINE = 80  # columns of a terminal
RAREST_TOLD = 3  # classes whose IoU stands beside the mean


class History(Callback):
    """Writes history.csv after each epoch and prints one line, and what looks wrong; its rows travel in the checkpoint.

    A row holds more than the file shows: what :func:`segloss.training.watch.doubts` judges by.
    """

    def __init__(self, folder: Path, monitor: str = "miou", say: Callable[[str], None] = print):
        self.path = folder / HISTORY
        self.columns = (*dict.fromkeys((*HISTORY_COLUMNS, f"val_{monitor}")), "seconds")
        self.say = say
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.lr = 0.0
        self.flat: list[tuple[Tensor, list[str]]] = []  # of the first epoch: which images are of one colour
        self.flat_names: list[str] = []  # those before the run was gone on with
        self.saved_step: int | None = None
        self.waits: list[float] = []
        self.step_ended: float | None = None
        self.images = self.epochs_here = 0
        self.began = 0.0

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt | SIGTERMException | OSError) or not trainer.is_global_zero:
            return
        folder = self.path.parent
        how = "ended by SIGTERM" if isinstance(exception, SIGTERMException) else "interrupted"
        if isinstance(exception, OSError):
            how = f"ended: {exception.strerror or exception}"
        kept = "nothing is saved" if self.saved_step is None else f"saved after step {self.saved_step}"
        self.say(f"{how}, {kept}; go on with --resume --output-dir {folder}")

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.saved_step = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.started
        flat = self.flat_names + named(self.flat)
        of_epoch = {"lr": self.lr, "seconds": seconds, "flat": flat, "waits": self.waits, "images": self.images}
        return {"rows": self.rows, **of_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
        # The rest is of an epoch that is gone on with.
        self.lr, self.started = state.get("lr", 0.0), time.monotonic() - state.get("seconds", 0.0)
        self.flat_names, self.waits = list(state.get("flat", [])), list(state.get("waits", []))
        self.images = state.get("images", 0)

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        of_classes = [f"val_iou/{name}" for name in task.class_names]
        self.columns = (*dict.fromkeys((*self.columns[:-1], *of_classes)), self.columns[-1])
        self.began = time.monotonic()
        for line in task.anew if trainer.is_global_zero else ():
            self.say(f"warning: {line}")
        done = trainer.global_step
        self.saved_step = done or self.saved_step
        # Also before the first checkpoint: a process that was killed there had written what it came to.
        forget_events(trainer, done and done + (not task.so_far.get("validating")))

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        for line in task.missed() if trainer.is_global_zero else ():
            self.say(f"warning: {line}")

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        for logger in trainer.loggers if not trainer.sanity_checking else ():
            logger.log_metrics({**task.val_scores, "epoch": trainer.current_epoch}, step=trainer.global_step)

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.started = time.monotonic()
        self.flat, self.flat_names, self.waits, self.step_ended = [], [], [], None
        self.images = 0

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        self.lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self.images += len(batch["image"]) * trainer.world_size
        if self.step_ended is not None:
            self.waits.append(time.monotonic() - self.step_ended)
        if not self.rows:  # once is enough
            images = batch["image"].flatten(1)
            self.flat.append((images.amax(1) == images.amin(1), batch["name"]))

    def on_train_batch_end(self, *_: Any) -> None:
        self.step_ended = time.monotonic()

    def on_validation_start(self, *_: Any) -> None:
        self.step_ended = None  # a validation within the epoch is no waiting

    def _noticed(self, trainer: L.Trainer, task: SegmentationTask) -> dict[str, Any]:
        """What is judged and not written."""
        noticed: dict[str, Any] = {}
        if len(self.waits) >= 10:
            noticed["wait_share"] = sum(self.waits) / (time.monotonic() - self.started)
        noticed["flat_images"] = self.flat_names + named(self.flat)
        if task.val_scores:
            never = zip(task.class_names, task.never_predicted, strict=True)
            noticed["never_predicted"] = [name for name, is_so in never if is_so]
            if task.label_values is not None:
                noticed["score_share"] = task.mean_score_share()
        return noticed

    def _speed(self, trainer: L.Trainer, task: L.LightningModule) -> dict[str, float]:
        """How fast this process is, which is not kept: it differs where nothing that is learnt does."""
        now = time.monotonic()
        seconds = max(1e-9, now - self.started)
        self.epochs_here += 1
        left = int(trainer.max_epochs or 0) - trainer.current_epoch - 1
        return {
            "images_per_second": self.images / seconds,
            "wait_share": sum(self.waits) / seconds,
            "peak_mib": peak_bytes(task.device) / 2**20,
            "minutes_left": left * (now - self.began) / self.epochs_here / 60,
        }

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self.lr,  # of the epoch's last step
            "train_loss": task.mean_train_loss(),
            **{name: value for name, value in task.val_scores.items() if name in self.columns},  # none unless validated
            "seconds": round(time.monotonic() - self.started, 2),
            **self._noticed(trainer, task),
        }
        self.rows.append(row)
        speed = self._speed(trainer, task)
        for logger in trainer.loggers:
            logger.log_metrics({"train_loss": row["train_loss"], "lr": row["lr"], **speed}, step=row["step"])
        if trainer.is_global_zero:
            write_csv(self.path, self.columns, ([row.get(c, "") for c in self.columns] for row in self.rows))
            self.say(describe_epoch(row, int(trainer.max_epochs or 0), task.rarest_first()))
            self.say(describe_speed(speed))
            for line in doubts(self.rows):
                self.say(f"warning: {line}")


def forget_events(trainer: L.Trainer, step: int) -> None:
    """TensorBoard shows what earlier processes wrote before this step alone: the rest is written again."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            start = SessionLog(status=SessionLog.SessionStatus.START)
            for event in (Event(step=step, file_version="brain.Event:2"), Event(step=step, session_log=start)):
                logger.experiment.file_writer.add_event(event)


def describe_epoch(row: Mapping[str, Any], epochs: int, rarest_first: Sequence[str] = ()) -> str:
    """One line of at most 80 columns, with the IoU of the rarest classes of the validation; percent for people.

    >>> row = {"epoch": 7, "train_loss": 0.51, "val_miou": 0.55, "val_iou/pole": 0.17, "seconds": 9.0}
    >>> describe_epoch(row, 60, ["pole"])
    'epoch  7/60  loss 0.5100  val mIoU  55.0  pole 17.0  9 s'
    """
    head = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}"
    told = [f"  val mIoU {100 * row['val_miou']:5.1f}" if "val_miou" in row else "  not validated"]
    tail = f"  {row['seconds']:.0f} s"
    for name in rarest_first:
        iou = row.get(f"val_iou/{name}", math.nan)
        part = f"  {name} {100 * iou:.1f}"
        fits = len(head + "".join(told) + part + tail) <= LINE and len(told) <= RAREST_TOLD
        if fits and not math.isnan(iou):
            told.append(part)
    return head + "".join(told) + tail


def peak_bytes(device: torch.device) -> int:
    """Of memory so far: a GPU's that torch took, else that of this process; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # KiB on Linux


def describe_speed(speed: Mapping[str, float]) -> str:
    """One line of at most 80 columns.

    >>> describe_speed({"images_per_second": 23.04, "wait_share": 0.031, "peak_mib": 1234.0, "minutes_left": 91.0})
    '  23.0 images/s, 3 % waiting for data, memory 1.2 GiB, 1 h 31 min left'
    """
    hours, minutes = divmod(math.ceil(speed["minutes_left"]), 60)
    left = f"{hours} h {minutes} min left" if hours else f"{minutes} min left"
    return (
        f"  {speed['images_per_second']:.1f} images/s, {100 * speed['wait_share']:.0f} % waiting for data, "
        f"memory {speed['peak_mib'] / 1024:.1f} GiB, {left if speed['minutes_left'] > 0 else 'last epoch'}"
    )


class EpochProgress(Callback):
    """A bar over the steps of the running epoch, on a terminal only."""

    def __init__(self, console: Console):
        self.console = console
        self.bar: Progress | None = None

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        if self.bar is not None or not (trainer.is_global_zero and self.console.is_terminal):
            return
        from segloss.report.terminal import new_progress

        self.bar = new_progress(self.console)
        name = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.steps = self.bar.add_task(name, total=int(trainer.num_training_batches), completed=index)
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
