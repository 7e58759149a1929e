"""Training on Lightning: the task, its data, optimiser and schedule, and what is recorded after each epoch."""

import logging
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from segloss.config import TrainConfig
from segloss.datasets import MissingSplitError, SegmentationDataset
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import epoch_length, evaluation_loader, repeat_factors, training_loader
from segloss.datasets.transforms import EvalTransform, read_augmentations, train_transform
from segloss.errors import InputError
from segloss.files import write_csv
from segloss.inference import same_shape_groups
from segloss.losses import Criterion
from segloss.metrics import ConfusionMatrix
from segloss.models import SegmentationModel, logits_at_size
from segloss.pixel_counts import PixelCounts, image_histograms
from segloss.runs import BEST, LAST, augmentations_file

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
POLY_POWER = 0.9  # DeepLab's poly schedule
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


def warmup_poly_factor(step: int, total_steps: int, warmup_share: float) -> float:
    """Learning-rate factor: linear rise over the first share of the steps, then (1 - progress)^0.9 down to 0."""
    warmup_steps = int(total_steps * warmup_share)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(0.0, 1 - progress) ** POLY_POWER


def parameter_groups(model: SegmentationModel, config: TrainConfig) -> list[dict]:
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

    def __init__(self, model: SegmentationModel, criterion: Criterion, config: TrainConfig, checkpoint_content: dict):
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
        loss = self.criterion(self.model(images), batch["labels"])
        # Added up on the device: reading it here would make the device wait in every step.
        self.train_loss += torch.stack([loss.detach() * len(images), loss.new_full((), len(images))])
        return loss

    def on_validation_epoch_start(self) -> None:
        self.confusion = ConfusionMatrix(self.num_classes)
        self.val_loss = torch.zeros(2, device=self.device)

    def validation_step(self, samples: list[dict], _: int) -> None:
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
        return total / max(count, 1)

    def configure_optimizers(self) -> dict:
        total_steps = int(self.trainer.estimated_stepping_batches)
        mixed = self.config.precision != "32-true"
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.config),
            # The fused step is faster, but in mixed precision Lightning clips no gradients before it.
            fused=self.device.type in ("cpu", "cuda") and not (mixed and self.trainer.gradient_clip_val),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly_factor(step, total_steps, self.config.warmup_share)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["segloss"] = self.checkpoint_content

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Lightning lets the workers read ahead (to count the steps) before it knows which epoch it goes on with.
        self.trainer.datamodule.first_epoch = checkpoint["epoch"] + 1


class SegmentationData(L.LightningDataModule):
    """Training and validation loaders that know their process's rank."""

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        config: TrainConfig,
        repeat: Tensor | None = None,
    ):
        super().__init__()
        self.train, self.val, self.config, self.repeat = train, val, config, repeat
        self.first_epoch = 0  # of a resumed run: the one it goes on with

    def _place(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def train_dataloader(self):
        config = self.config
        loader = training_loader(
            self.train,
            config.batch_size,
            seed=config.seed,
            workers=config.workers,
            repeat=self.repeat,
            **self._place(),
        )
        loader.sampler.set_epoch(self.first_epoch)
        return loader

    def val_dataloader(self):
        return evaluation_loader(self.val, self.config.batch_size, workers=self.config.workers, **self._place())


class History(Callback):
    """Writes history.csv after each epoch and prints one line; its rows travel in the checkpoint."""

    def __init__(self, folder: Path, say=print):
        self.path = folder / "history.csv"
        self.say = say
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.lr = 0.0

    def on_exception(self, trainer: L.Trainer, task: SegmentationTask, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            self.say(f"interrupted; go on with --resume --output-dir {self.path.parent}")

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        self.started = time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_epoch_end(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        row = {
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
            self.say(describe_epoch(row, trainer.max_epochs))


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

    def __init__(self, console):
        self.console = console
        self.bar = None

    def on_train_epoch_start(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        from segloss.report import new_progress

        self.bar = new_progress(self.console)
        name = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.steps = self.bar.add_task(name, total=int(trainer.num_training_batches))
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, task: SegmentationTask, *_: Any) -> None:
        if self.bar is not None:
            self.bar.advance(self.steps)

    def on_validation_start(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        if self.bar is not None:
            self.bar.update(self.steps, description="validating")

    def on_train_epoch_end(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, task: SegmentationTask, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class MovableCheckpoint(ModelCheckpoint):
    """A checkpoint callback that still knows its best score when the run folder was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(value) if key in paths else value for key, value in state_dict.items()}
        moved["dirpath"] = self.dirpath
        moved["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)


def checkpoint_callbacks(folder: Path, monitor: str) -> list[ModelCheckpoint]:
    """best.ckpt (weights, by validation score) before last.ckpt (everything), which then knows of the best."""
    common = {
        "dirpath": folder / LAST.parent,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    best = MovableCheckpoint(
        filename=BEST.stem,
        monitor=f"val_{monitor}",
        mode="min" if monitor == "loss" else "max",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        **common,
    )
    last = MovableCheckpoint(filename=LAST.stem, save_on_train_epoch_end=True, **common)
    return [best, last]


def seed_everything(seed: int) -> None:
    """Weights of the new layers; augmentation and sampling have their own seeds."""
    torch.manual_seed(seed)


@dataclass
class Splits:
    """The data of one training run.

    Attributes:
        train, val: always there.
        test: None where there is no labelled test split.
        repeat: how often an epoch shows each training image, on average; None: once.
    """

    train: SegmentationDataset
    val: SegmentationDataset
    test: SegmentationDataset | None
    repeat: Tensor | None = None

    @property
    def images_per_epoch(self) -> int:
        """On all devices, before what fills no batch is dropped."""
        return epoch_length(len(self.train), self.repeat)


def training_data(config: TrainConfig) -> Splits:
    """The three splits; fills in the config's crop size. :func:`prepare_training` completes the training split.

    Raises:
        InputError: train or val is missing or empty, an image has no mask, or a file does not fit.
    """

    def build(split: str) -> SegmentationDataset:
        return config.open(split, EvalTransform(config.image_scale))

    own = augmentations_file(config)
    if own is not None:
        read_augmentations(own)  # before minutes are spent on the data
    if config.data_path is not None:
        config.data_path = str(Path(config.data_path).absolute())  # a run is evaluated from other folders too
    train, val = build("train"), build("val")
    try:
        test = build("test")
    except MissingSplitError:
        test = None
    if config.crop_size is None:
        height, width = train.read_image(0).shape[:2]
        config.crop_size = [min(512, max(32, round(side * config.image_scale))) for side in (height, width)]
    splits = Splits(train, val, test if test is not None and test.has_labels else None)
    for dataset in filter(None, (train, val, splits.test)):
        dataset.check_files()
    return splits


def prepare_training(config: TrainConfig, splits: Splits, counts: PixelCounts) -> None:
    """What training needs the counts for: its transform and how often each image is seen; and the cache.

    Raises:
        InputError: the user's augmentations cannot be applied, or the cache does not fit into memory.
    """
    splits.train.transform = train_transform(
        tuple(config.crop_size),
        config.seed,
        image_scale=config.image_scale,
        scale_range=tuple(config.scale_range),
        color=config.color,
        augmentations=augmentations_file(config),
        guided_crops=config.guided_crops,
        cat_max_ratio=config.cat_max_ratio,
        class_pixels=counts.pixels,
    )
    if config.augmentations is not None:
        splits.train[0]  # a pipeline that fits no image is answered before a run folder is made
    if config.repeat_threshold > 0:
        splits.repeat = repeat_factors(image_histograms(splits.train)[0], config.repeat_threshold)
    if config.cache == "ram":
        first = (
            int(os.environ.get("LOCAL_RANK", 0)) == 0
        )  # looks at what all need: the others start when it has its own
        cache_in_ram([splits.train, splits.val], copies=config.devices if first else 1)


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
