"""What a run notices about itself: it stops where a number is none, and says once what looks wrong."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from segloss.errors import InputError
from segloss.files import write_bytes
from segloss.report.alarms import NOT_FOUND_CURE
from segloss.training.task import NON_FINITE_CURE

BAD_BATCH = "non_finite_batch.pt"
Row = Mapping[str, Any]


class StopAtNonFinite(Callback):
    """InputError for a loss, gradient or weight that is no finite number, with the batch kept in the run folder.

    A step is judged when the next one is done, so that no device waits for its own numbers; before a validation, and so
    before any checkpoint, the last step and all weights are. In float16 a gradient may overflow: its scaler skips that
    step.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.norm: Tensor | None = None
        self.lr = 0.0
        self.batches: list[tuple[Tensor, dict[str, Any]]] = []  # (loss, batch) of the running step
        self.done: dict[str, Any] | None = None  # the last step that was taken
        self.judged = True

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Any) -> None:
        self.lr = max(group["lr"] for group in optimizer.param_groups)
        gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
        self.norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: dict[str, Any], index: int
    ) -> None:
        self.batches.append((outputs["loss"].detach(), batch))
        if self.norm is None:
            return  # micro-batches of this step are to come
        self._judge(trainer)
        self.done = {"step": trainer.global_step, "lr": self.lr, "norm": self.norm, "batches": self.batches}
        self.batches, self.norm, self.judged = [], None, False

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._judge(trainer)
        self._judge_weights(trainer, task)

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.on_validation_start(trainer, task)

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.on_validation_start(trainer, task)

    def _judge(self, trainer: L.Trainer) -> None:
        if self.done is None or self.judged:
            return
        self.judged = True
        losses = torch.stack([loss for loss, _ in self.done["batches"]])
        if not bool(losses.isfinite().all()):
            self._stop(trainer, f"the loss is {float(losses[~losses.isfinite()][0])}")
        elif trainer.precision != "16-mixed" and not bool(self.done["norm"].isfinite()):
            self._stop(trainer, "the gradient is not finite")

    def _judge_weights(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        for name, tensor in task.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                self._stop(trainer, f"{name} of the network is not finite")

    def _stop(self, trainer: L.Trainer, what: str) -> None:
        if self.done is None:
            raise InputError(f"{what} before the first step", "look at the weights it began with")
        step, lr, norm = self.done["step"], self.done["lr"], float(self.done["norm"])
        bad = [batch for loss, batch in self.done["batches"] if not bool(loss.isfinite())]
        bad = bad or [batch for _, batch in self.done["batches"]]
        names = [name for batch in bad for name in batch["name"]]
        path = self.folder / (f"{trainer.global_rank}-" * (trainer.global_rank > 0) + BAD_BATCH)
        buffer = io.BytesIO()
        torch.save({"step": step, "lr": lr, "gradient_norm": norm, "batches": bad}, buffer)
        write_bytes(path, buffer.getvalue())
        raise InputError(
            f"{what} at step {step}: learning rate {lr:g}, gradient norm {norm:g}, images {', '.join(names[:8])}"
            f"{' ...' if len(names) > 8 else ''}, kept in {path}",
            NON_FINITE_CURE,
            "training",
        )


def doubts(rows: Sequence[Row]) -> list[str]:
    """What looks wrong after the last of these epochs and did not before it, each with its likely cause and cure.

    Args:
        rows: of the history: ``train_loss``; where it was validated ``val_loss`` and ``never_predicted``, names of the
            classes that no pixel was given to; ``score_share``, the mean over pixels of the sum of z_c / t_c;
            ``flat_images``, names of those of one colour; ``wait_share``, of the time for which the loader was
            waited for.
    """
    before = _doubts(rows[:-1])
    return [line for key, line in _doubts(rows).items() if key not in before]


def _doubts(rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    losses = [row["train_loss"] for row in rows]
    if len(rows) >= 3 and all(abs(loss - losses[0]) <= 0.002 * abs(losses[0]) for loss in losses):
        found["stuck",] = f"the loss has not moved from {losses[0]:.4g} in {len(rows)} epochs; raise --lr"
    for row in rows:
        if flat := row.get("flat_images"):
            found["flat",] = (
                f"training images of one colour: {', '.join(flat[:4])}{' ...' if len(flat) > 4 else ''} ({len(flat)}); "
                "look at them, or at the augmentations"
            )
        if row.get("wait_share", 0) > 0.3:
            found["waiting",] = (
                f"{100 * row['wait_share']:.0f} % of the time goes into waiting for the loader; "
                "raise --workers, or --cache ram"
            )
    validated = [row for row in rows if "never_predicted" in row]  # older runs did not keep it
    last = validated[-3:]
    if len(last) < 3:
        return found
    if never := [name for name in last[0]["never_predicted"] if all(name in row["never_predicted"] for row in last)]:
        key = ("never", *never)
        found[key] = f"{', '.join(never)}: never predicted in the last three validations; {NOT_FOUND_CURE}"
    if all(row.get("score_share", 1) < 0.5 for row in last):
        found["scores",] = (
            f"the scores reach only {100 * last[-1]['score_share']:.0f} % of their label values; "
            "train longer; then lower --alpha, or raise --lr"
        )
    lowest = min(row["val_loss"] for row in validated)
    if all(row["val_loss"] > max(2 * row["train_loss"], 1.2 * lowest) for row in last):
        found["overfit",] = (
            f"the loss is {last[-1]['train_loss']:.4g} in training and has risen to {last[-1]['val_loss']:.4g} in "
            "validation: learnt by heart; more images, --color strong, a higher --weight-decay or fewer --epochs"
        )
    return found
