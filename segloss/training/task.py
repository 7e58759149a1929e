"""The Lightning task: one model and one criterion under training, optimiser and schedule."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.inference import same_shape_groups
from segloss.losses import Criterion, OutlyingMSELoss
from segloss.losses.partial_labels import ignore_unlabelled, posterior_of_labelled
from segloss.losses.reduction import wide_dtype
from segloss.metrics import ConfusionMatrix, Scores
from segloss.models import SegmentationModel, logits_at_size
from segloss.pixel_counts import PixelCounts
from segloss.pixel_sample import PixelSample
from segloss.training.auxiliary import presence_loss
from segloss.training.averaging import AveragedWeights
from segloss.training.compiled import compile_network
from segloss.training.optimisation import build_optimizer, rate_factor
from segloss.training.reported import RULE_MIB, RULE_STRIDE, reported, rule_miou

NON_FINITE_CURE = "lower --lr, or clip gradients with --trainer.gradient_clip_val 1, in a new --output-dir"


def _of_first(divisor: Tensor) -> Tensor:
    """Of a sum of losses the divisor of its first term, whose scores they are."""
    return divisor.reshape(-1)[0]


def named(flagged: Sequence[tuple[Tensor, Sequence[str]]]) -> list[str]:
    """Names of the images of several batches whose flag is set."""
    return [name for flags, names in flagged for flag, name in zip(flags.tolist(), names, strict=True) if flag]


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
        self.never_predicted: list[bool] = []  # by class, in the last validation

    def on_fit_start(self) -> None:
        if self.config.compile:
            compile_network(self.model, self.device)

    def on_train_epoch_start(self) -> None:
        # Dropout and the like depend on (seed, epoch, rank) alone, so a resumed run goes on as if never stopped.
        torch.manual_seed((self.config.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank)
        self.train_loss = self._zeros()
        self.val_scores = {}

    def _zeros(self) -> Tensor:
        """For a sum and what it is divided by."""
        return torch.zeros(2, dtype=wide_dtype(self.device, torch.float32), device=self.device)

    def training_step(self, batch: dict[str, Any], _: int = 0) -> Tensor:
        """The batch's part of the mean over the whole optimiser step: all micro-batches on all processes.

        Lightning averages over micro-batches and processes what is a sum here, hence the factor.
        """
        labels = batch["labels"]
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        own = self.criterion.divisor(labels)
        whole = own
        if parts > 1:
            whole = self.trainer.strategy.reduce(batch.get("divisor", own).clone(), reduce_op="sum")
        given = {"divisor": whole} if parts > 1 else {}
        if "class_mask" in batch:
            given["class_mask"] = batch["class_mask"]
        presence = None
        if self.config.auxiliary:
            logits, presence = self.model.with_presence(batch["image"])
        else:
            logits = self.model(batch["image"])
        loss: Tensor = self.criterion(logits, labels, **given)
        # Added up on the device: reading it here would make the device wait in every step.
        self.train_loss += torch.stack([loss.detach() * _of_first(whole), _of_first(own)])
        if presence is not None:
            loss = loss + self.config.auxiliary / parts * presence_loss(presence, labels, batch.get("class_mask"))
        return loss * parts

    def on_validation_epoch_start(self) -> None:
        self.confusion = ConfusionMatrix(self.num_classes, self.criterion.ignore_index)
        self.val_loss, self.score_share = self._zeros(), self._zeros()
        self.finite: list[tuple[Tensor, list[str]]] = []
        self.sample = PixelSample(ignore_index=self.criterion.ignore_index, pixel_stride=RULE_STRIDE, max_mib=RULE_MIB)

    def validation_step(self, samples: list[dict[str, Any]], _: int) -> None:
        for group in same_shape_groups(samples):
            images = torch.stack([sample["image"] for sample in group])
            labels = torch.stack([sample["labels"] for sample in group])
            # float32 whatever the training precision: bfloat16 scores moved CamVid's mIoU by 0.4 points.
            with torch.autocast(self.device.type, enabled=False):
                logits = logits_at_size(self.model, images, group[0]["size"])
            own = _of_first(self.criterion.divisor(labels))
            given = {key: torch.stack([s[key] for s in group]) for key in ("class_mask",) if key in group[0]}
            self.val_loss += torch.stack([self.criterion(logits, labels, **given) * own, own])
            predicted = self.criterion.decide(logits.nan_to_num())  # refused below, by name
            if self.config.monitor == "rule_miou":
                posterior = self.criterion.posterior(logits.nan_to_num())
                if given:
                    posterior = posterior_of_labelled(posterior, given["class_mask"])
                self.sample.update(posterior, labels)
            if given:  # of a class that an image does not label: no class, as in an evaluation
                predicted = ignore_unlabelled(predicted, given["class_mask"], -1)
            self.confusion.update(predicted, labels)
            self.finite.append((logits.isfinite().flatten(1).all(1), [sample["name"] for sample in group]))
            if self.label_values is not None:
                # At the optimum z_c = t_c P(c|x), so that z_c / t_c adds up to 1 at every pixel; a few of them will do.
                share = (logits[..., ::8, ::8] / self.label_values.view(-1, 1, 1)).sum(1)
                self.score_share += torch.stack([share.sum(), share.new_tensor(share.numel())])

    @property
    def label_values(self) -> Tensor | None:
        """t ``(C,)`` of the first squared error, if there is one."""
        return next((c.label_values for c in self.criterion.modules() if isinstance(c, OutlyingMSELoss)), None)

    def on_validation_epoch_end(self) -> None:
        self._require_finite_scores()
        matrix = self.trainer.strategy.reduce(self.confusion.matrix.to(self.device), reduce_op="sum")
        self.confusion.matrix = matrix.cpu()
        scores = self.confusion.compute()
        self.never_predicted = (self.confusion.matrix.sum(0)[: self.num_classes] == 0).tolist()
        self.val_scores = {
            "val_loss": self._mean_over_ranks(self.val_loss),
            **{f"val_{name}": value for name, value in self._reported(scores).items()},
        }
        self.log_dict({key: torch.tensor(value, dtype=torch.float32) for key, value in self.val_scores.items()})

    @property
    def training_pixels(self) -> Sequence[int] | None:
        """Per class, where they are known."""
        counts = self.checkpoint_content.get("counts")
        return None if counts is None else PixelCounts.from_dict(counts).complete.pixels

    def _reported(self, scores: Scores) -> dict[str, float]:
        names, pixels = self.checkpoint_content["classes"]["names"], self.training_pixels or scores.pixels.tolist()
        of_rule = self.config.monitor == "rule_miou"
        rule = {"rule_miou": rule_miou(self.sample, self.criterion.tilt)} if of_rule else {}
        return {**reported(scores, names, pixels), **rule}

    def _require_finite_scores(self) -> None:
        """InputError where a score is no number: argmax would decide on the first class there."""
        bad = named([(~finite, names) for finite, names in self.finite])
        count = self.trainer.strategy.reduce(torch.tensor(len(bad), device=self.device), reduce_op="sum")
        if int(count):
            raise InputError(
                f"the network's scores of {int(count)} validation images are not finite after step "
                f"{self.trainer.global_step}{': ' if bad else ''}{', '.join(bad[:4])}",
                NON_FINITE_CURE,
                "validation",
            )

    def mean_train_loss(self) -> float:
        """Mean over what the epoch's losses divide by (pixels, or their weights), on all ranks.

        Steps of a sum of losses count by the divisor of its first term.
        """
        return self._mean_over_ranks(self.train_loss)

    def mean_score_share(self) -> float:
        """Mean over pixels of the sum of z_c / t_c in the last validation, on all ranks."""
        return self._mean_over_ranks(self.score_share)

    def _mean_over_ranks(self, sum_and_count: Tensor) -> float:
        total, count = self.trainer.strategy.reduce(sum_and_count.clone(), reduce_op="sum").tolist()
        return float(total / count) if count > 0 else 0.0

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        total_steps = int(self.trainer.estimated_stepping_batches)
        mixed = self.trainer.precision != "32-true"
        # The fused step is faster, but in mixed precision Lightning clips no gradients before it.
        fused = self.device.type in ("cpu", "cuda") and not (mixed and self.trainer.gradient_clip_val)
        optimizer = build_optimizer(self.model, self.config, fused=fused)
        how = (total_steps, self.config.warmup_share, self.config.schedule, self.config.swa_share)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, *how))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segloss"] = self.checkpoint_content
        trainer: Any = self.trainer
        for callback in trainer.callbacks:  # which Lightning does not ask where weights alone are saved
            if isinstance(callback, AveragedWeights):
                callback.write(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning lets the workers read ahead (to count the steps) before it knows which epoch it goes on with.
        trainer: Any = self.trainer
        trainer.datamodule.first_epoch = checkpoint["epoch"] + 1
