"""The Lightning task: one model and one criterion under training, optimiser and schedule."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from segloss.config import TrainConfig
from segloss.config.training import LossOptions
from segloss.errors import InputError
from segloss.flags import keys_of, to_plain_dict
from segloss.inference import same_shape_groups
from segloss.losses import Criterion
from segloss.losses.late_jaccard import late_jaccard_loss
from segloss.losses.partial_labels import ignore_unlabelled, posterior_of_labelled
from segloss.losses.reduction import wide_dtype
from segloss.metrics import ConfusionMatrix, Scores
from segloss.models import SegmentationModel, logits_at_size
from segloss.pixel_counts import PixelCounts
from segloss.pixel_sample import PixelSample
from segloss.resume import FREE_ON_RESUME, given_to_trainer
from segloss.training.auxiliary import presence_loss
from segloss.training.averaging import OWN, AveragedWeights
from segloss.training.compiled import compile_network
from segloss.training.last_layer import label_values_of
from segloss.training.optimisation import build_optimizer, parameter_groups, rate_factor
from segloss.training.reported import RULE_MIB, RULE_STRIDE, reported, rule_miou
from segloss.weight_files import BEST, SHARED

NON_FINITE_CURE = "lower --lr, or clip gradients with --trainer.gradient_clip_val 1, in a new --output-dir"


def share_of_time(timer: Timer | None) -> float:
    """How much of ``--trainer.max_time`` is used up, in [0, 1]: the schedule ends with the time, if that is sooner."""
    if timer is None or timer.time_remaining() is None:
        return 0.0
    elapsed, left = timer.time_elapsed(), float(timer.time_remaining() or 0)
    return min(1.0, elapsed / max(elapsed + left, 1e-9))


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
        self.score_share = torch.zeros(2)
        self.so_far: dict[str, Any] = {}  # of an epoch that is gone on with
        self.goes_on = False  # from a checkpoint
        self.anew: list[str] = []  # what a run that goes on with other options does not take from its checkpoint

    def on_fit_start(self) -> None:
        if self.config.compile:
            compile_network(self.model, self.device)

    def on_train_epoch_start(self) -> None:
        self.train_loss = self._zeros()
        self.val_scores = {}

    def on_train_batch_start(self, batch: dict[str, Any], index: int) -> None:
        # Dropout and the like depend on these alone, so that a run goes on anywhere as if it had never stopped.
        place = (self.config.seed, self.current_epoch, index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

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
        if self.is_late:
            share = _of_first(own) / _of_first(whole).clamp(min=1e-12) if parts > 1 else 1.0
            loss = late_jaccard_loss(
                self.criterion, loss, logits, labels, share=share, class_mask=batch.get("class_mask")
            )
        # Added up on the device: reading it here would make the device wait in every step.
        self.train_loss += torch.stack([loss.detach() * _of_first(whole), _of_first(own)])
        if presence is not None:
            loss = loss + self.config.auxiliary / parts * presence_loss(presence, labels, batch.get("class_mask"))
        return loss * parts

    @property
    def is_late(self) -> bool:
        """Whether the next step is in the part of the training that soft Jaccard ends."""
        late = self.config.late_jaccard
        return late > 0 and self.planned_step >= (1 - late) * self.total_steps

    @property
    def share_of_time(self) -> float:
        """How much of ``--trainer.max_time`` is used up, in [0, 1]."""
        trainer: Any = self.trainer
        return share_of_time(next((each for each in trainer.callbacks if isinstance(each, Timer)), None))

    @property
    def planned_step(self) -> int:
        """Where the training is in all its steps; further than it has come where the time ends it sooner."""
        return max(self.global_step, int(self.total_steps * self.share_of_time))

    def missed(self) -> list[str]:
        """Lines on what was asked for of the last share of a training that ended before."""
        trainer: Any = self.trainer
        averages = [each for each in trainer.callbacks if isinstance(each, AveragedWeights)]
        lines = []
        if self.config.swa_share and not any(each.seen for each in averages):
            lines.append("no weights were averaged: no epoch of --swa-share came to its end")
        elif self.config.swa_share and not any(each.validated for each in averages):
            lines.append("the average of --swa-share was never validated: it is in last.ckpt alone, not in best.ckpt")
        if self.config.late_jaccard and not self.is_late:
            lines.append("the loss stayed as it was: the training ended before --late-jaccard")
        return lines

    @cached_property
    def total_steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

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
        return label_values_of(self.criterion)

    def on_validation_epoch_end(self) -> None:
        self._require_finite_scores()
        scores = self.confusion.sync().compute()
        self.never_predicted = (self.confusion.matrix.sum(0)[: self.num_classes] == 0).tolist()
        self.val_scores = {
            "val_loss": self._mean_over_ranks(self.val_loss),
            **{f"val_{name}": value for name, value in self._reported(scores).items()},
        }
        scores_logged = {key: torch.tensor(value, dtype=torch.float32) for key, value in self.val_scores.items()}
        self.log_dict(scores_logged, logger=False)  # History does, by optimiser steps

    @property
    def training_pixels(self) -> Sequence[int] | None:
        """Per class, where they are known."""
        counts = self.checkpoint_content.get("counts")
        return None if counts is None else PixelCounts.from_dict(counts).complete.pixels

    @property
    def class_names(self) -> Sequence[str]:
        names: Sequence[str] = self.checkpoint_content["classes"]["names"]
        return names

    def rarest_first(self) -> list[str]:
        """The classes by their training pixels, where these are known."""
        pixels = self.training_pixels or [0] * len(self.class_names)
        return [name for _, name in sorted(zip(pixels, self.class_names, strict=True), key=lambda pair: pair[0])]

    def _reported(self, scores: Scores) -> dict[str, float]:
        names, pixels = self.class_names, self.training_pixels or scores.pixels.tolist()
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
        mixed = self.trainer.precision != "32-true"
        # The fused step is faster, but in mixed precision Lightning clips no gradients before it.
        fused = self.device.type in ("cpu", "cuda") and not (mixed and self.trainer.gradient_clip_val)
        optimizer = build_optimizer(self.model, self.config, self.criterion, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._rate_factor(max(step, int(self.total_steps * self.share_of_time)))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate_factor(self, step: int) -> float:
        how = (self.total_steps, self.config.warmup_share, self.config.schedule, self.config.swa_share)
        return rate_factor(step, *how)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segloss"] = self.checkpoint_content
        trainer: Any = self.trainer
        if "optimizer_states" in checkpoint:  # to be gone on with
            batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed
            checkpoint["epoch_so_far"] = {
                "images": batches * trainer.datamodule.images_per_batch,
                "train_loss": self._of_all(self.train_loss),
                "score_share": self._of_all(self.score_share),
                "val_scores": self.val_scores,
                "never_predicted": self.never_predicted,
                "validating": trainer.validating,
            }
        for callback in trainer.callbacks:  # which Lightning does not ask where weights alone are saved
            if isinstance(callback, AveragedWeights):
                callback.write(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning lets the workers read ahead (to count the steps) before it knows where it goes on.
        self.goes_on = True
        self.so_far = checkpoint.get("epoch_so_far", {})  # older ones were written at the end of an epoch
        trainer: Any = self.trainer
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        unfinished = epoch == checkpoint["epoch"]
        seen = self.so_far["images"] if unfinished else 0
        together = trainer.datamodule.images_per_batch * trainer.accumulate_grad_batches  # it may be others by now
        trainer.datamodule.begun = epoch, seen - seen % together
        now, before = to_plain_dict(self.config), checkpoint["segloss"].get("config", {})
        if self.config.override or any(now[name] != before.get(name) for name in now if name not in FREE_ON_RESUME):
            self._leave_what_changed(checkpoint)  # without --override too, where one was killed before it had saved
        self._look_at_val(checkpoint)
        self._look_at_best(checkpoint)
        done = checkpoint["global_step"]
        if epoch < self.config.epochs and done >= self.total_steps + unfinished and self._rate_factor(done) < 0.01:
            self.anew.append(
                f"the learning rate has come to its end: {done} steps are done, and {self.config.epochs} epochs have "
                f"{self.total_steps} now; give more --epochs"
            )

    def _look_at_val(self, checkpoint: dict[str, Any]) -> None:
        """Leave the best score so far behind where it is of another val split; ``check_same_val`` has let it pass."""
        ours, theirs = (content.get("val") for content in (self.checkpoint_content, checkpoint["segloss"]))
        before = {"trainer": {}, **checkpoint["segloss"].get("config", {})}
        limits = [given_to_trainer(config, "limit_val_batches") for config in (to_plain_dict(self.config), before)]
        if limits[0] != limits[1]:
            self._choose_anew(checkpoint, "'val_", f"by {self.config.monitor} on what is validated now")
        if None not in (ours, theirs) and ours != theirs:
            self._choose_anew(checkpoint, "'val_", f"by {self.config.monitor} on the val split that is there now")

    def _look_at_best(self, checkpoint: dict[str, Any]) -> None:
        """Leave a best score behind whose weights are gone, so that the best from here on are kept."""
        trainer: Any = self.trainer
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key, {})
            if callback.monitor is None or not state.get("best_model_path"):
                continue
            folder = Path(str(callback.dirpath))
            if (folder / SHARED.name).is_file() and not (folder / BEST.name).is_file():
                self.anew.append(f"{BEST.name} is gone; {SHARED.name} stands for it until a better one comes")
            elif not (folder / BEST.name).is_file():
                self._choose_anew(checkpoint, callback.state_key, "of what comes from here on: it is gone")

    def _choose_anew(self, checkpoint: dict[str, Any], scores: str, how: str) -> None:
        """Leave out what callbacks know of such scores."""
        states = checkpoint["callbacks"].items()
        checkpoint["callbacks"] = {key: state for key, state in states if scores not in key}
        self.anew.append(f"best.ckpt is chosen anew, {how}")

    def _leave_what_changed(self, checkpoint: dict[str, Any]) -> None:
        """Take out of a checkpoint what belongs to options that are others now; ``anew`` tells of it."""
        trainer: Any = self.trainer
        own = {f"criterion.{name}": value for name, value in self.criterion.state_dict().items()}
        state = checkpoint["state_dict"]
        if not any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks):
            state = {**state, **checkpoint.get(OWN, {})}
        checkpoint["state_dict"] = {name: of for name, of in state.items() if not name.startswith("criterion.")} | own
        now = to_plain_dict(self.config)
        before = {**now, **checkpoint["segloss"].get("config", {})}
        groups = [len(group["params"]) for group in parameter_groups(self.model, self.config)]
        (held,) = checkpoint["optimizer_states"]
        if any(before[name] != now[name] for name in ("optimizer", "optimizer_options")) or groups != [
            len(group["params"]) for group in held["param_groups"]
        ]:
            checkpoint["optimizer_states"] = []  # Lightning then leaves the new one as it is
            self.anew.append("the optimiser begins anew: what it has gathered is of other options")
        of_loss = [key.name for key in keys_of(LossOptions)]
        other_loss = now["monitor"] == "loss" and any(before.get(name) != now.get(name) for name in of_loss)
        if before["monitor"] != now["monitor"] or other_loss:  # whose values the best one so far says nothing of
            self._choose_anew(
                checkpoint, "'val_loss'" if other_loss else f"'val_{now['monitor']}'", f"by {now['monitor']}"
            )

    def on_train_start(self) -> None:
        """Where an epoch is gone on with, what was gathered of it so far."""
        if self.goes_on:
            self._take_rates()
        if self.so_far:
            trainer: Any = self.trainer
            progress = trainer.fit_loop.epoch_loop.batch_progress
            batches = trainer.datamodule.begun[1] // trainer.datamodule.images_per_batch
            shift = (trainer.num_training_batches if progress.is_last_batch else batches) - progress.current.processed
            for name in ("ready", "started", "processed", "completed"):  # in batches of the size they have now
                setattr(progress.current, name, getattr(progress.current, name) + shift)
            self.train_loss, self.score_share = (self._own(self.so_far[key]) for key in ("train_loss", "score_share"))
            self.val_scores, self.never_predicted = self.so_far["val_scores"], self.so_far["never_predicted"]

    def _take_rates(self) -> None:
        """Rates and weight decay of the options, not of a checkpoint that may be of fewer epochs or less time."""
        (optimizer,), (schedule,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        for group, ours in zip(optimizer.param_groups, parameter_groups(self.model, self.config), strict=True):
            group.update(initial_lr=ours["lr"], weight_decay=ours["weight_decay"])
        lambdas: Any = schedule.scheduler
        lambdas.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        for group, factor in zip(optimizer.param_groups, lambdas.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * factor(lambdas.last_epoch)

    def _of_all(self, own: Tensor) -> Tensor:
        """A row of each process."""
        gathered: Any = self.all_gather(own.to(self.device))
        rows: Tensor = gathered.view(-1, 2).cpu()
        return rows

    def _own(self, gathered: Tensor) -> Tensor:
        """This process's row; where they are as many no longer, the first takes the sum."""
        if len(gathered) == self.trainer.world_size:
            return self._zeros() + gathered[self.global_rank].to(self.device)
        return self._zeros() + gathered.sum(0).to(self.device) * (self.global_rank == 0)
