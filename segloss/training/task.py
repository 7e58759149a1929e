"""The Lightning task: one model and one criterion under training, optimiser and schedule."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from segloss.config import TrainConfig
from segloss.inference import same_shape_groups
from segloss.losses import Criterion
from segloss.metrics import ConfusionMatrix
from segloss.models import SegmentationModel, logits_at_size

POLY_POWER = 0.9  # DeepLab's poly schedule


def warmup_poly_factor(step: int, total_steps: int, warmup_share: float) -> float:
    """Learning-rate factor: linear rise over the first share of the steps, then (1 - progress)^0.9 down to 0."""
    warmup_steps = int(total_steps * warmup_share)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return math.pow(max(0.0, 1 - progress), POLY_POWER)


def parameter_groups(model: SegmentationModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Four groups: encoder or not, decayed (weights of two or more dimensions) or not (norms, biases)."""
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * (config.encoder_lr_factor if in_encoder else 1),
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (in_encoder, decayed), parameters in groups.items()
    ]


class SegmentationTask(L.LightningModule):
    """One model and one criterion under training.

    Args:
        model, criterion: what is trained with what.
        config: learning rates, schedule and seed.
        checkpoint_content: plain values stored in every checkpoint, so that it can be used alone.
    """

    def __init__(
        self, model: SegmentationModel, criterion: Criterion, config: TrainConfig, checkpoint_content: dict[str, Any]
    ):
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.config = config
        self.checkpoint_content = checkpoint_content
        self.num_classes = len(checkpoint_content["classes"]["names"])
        self.val_scores: dict[str, float] = {}  # of the running epoch

    def on_train_epoch_start(self) -> None:
        # Dropout and the like depend on (seed, epoch, rank) alone, so a resumed run goes on as if never stopped.
        torch.manual_seed((self.config.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank)
        self.train_loss = torch.zeros(2, device=self.device)
        self.val_scores = {}

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        images = batch["image"]
        loss: Tensor = self.criterion(self.model(images), batch["labels"])
        # Added up on the device: reading it here would make the device wait in every step.
        self.train_loss += torch.stack([loss.detach() * len(images), loss.new_full((), len(images))])
        return loss

    def on_validation_epoch_start(self) -> None:
        self.confusion = ConfusionMatrix(self.num_classes)
        self.val_loss = torch.zeros(2, device=self.device)

    def validation_step(self, samples: list[dict[str, Any]], _: int) -> None:
        for group in same_shape_groups(samples):
            images = torch.stack([sample["image"] for sample in group])
            labels = torch.stack([sample["labels"] for sample in group])
            # float32 whatever the training precision: bfloat16 scores moved CamVid's mIoU by 0.4 points.
            with torch.autocast(self.device.type, enabled=False):
                logits = logits_at_size(self.model, images, group[0]["size"])
            self.val_loss += torch.stack([self.criterion(logits, labels) * len(group), logits.new_full((), len(group))])
            self.confusion.update(self.criterion.decide(logits), labels)

    def on_validation_epoch_end(self) -> None:
        matrix = self.trainer.strategy.reduce(self.confusion.matrix.to(self.device), reduce_op="sum")
        self.confusion.matrix = matrix.cpu()
        scores = self.confusion.compute()
        self.val_scores = {
            "val_loss": self._mean_over_ranks(self.val_loss),
            "val_miou": scores.miou,
            "val_mean_accuracy": scores.mean_accuracy,
            "val_pixel_accuracy": scores.pixel_accuracy,
        }
        self.log_dict({key: torch.tensor(value, dtype=torch.float32) for key, value in self.val_scores.items()})

    def mean_train_loss(self) -> float:
        """Mean over the images of the epoch, on all ranks."""
        return self._mean_over_ranks(self.train_loss)

    def _mean_over_ranks(self, sum_and_count: Tensor) -> float:
        total, count = self.trainer.strategy.reduce(sum_and_count, reduce_op="sum").tolist()
        return float(total / max(count, 1))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total_steps = int(self.trainer.estimated_stepping_batches)
        mixed = self.trainer.precision != "32-true"
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.config),
            # The fused step is faster, but in mixed precision Lightning clips no gradients before it.
            fused=self.device.type in ("cpu", "cuda") and not (mixed and self.trainer.gradient_clip_val),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly_factor(step, total_steps, self.config.warmup_share)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segloss"] = self.checkpoint_content

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning lets the workers read ahead (to count the steps) before it knows which epoch it goes on with.
        trainer: Any = self.trainer
        trainer.datamodule.first_epoch = checkpoint["epoch"] + 1
