"""What a training run says before it begins."""

import math
from pathlib import Path

import lightning as L

from segloss.config import TrainConfig
from segloss.losses import Criterion
from segloss.models import SegmentationModel, parameter_count
from segloss.pixel_counts import PixelCounts
from segloss.report.terminal import console, print_class_counts
from segloss.training.data import Splits
from segloss.training.lightning_options import batches_of_epoch


def announce(
    config: TrainConfig,
    splits: Splits,
    counts: PixelCounts,
    source: str,
    criterion: Criterion,
    model: SegmentationModel,
    trainer: L.Trainer,
    folder: Path,
) -> None:
    """What a training run is about to do; ``source`` says where the counts are from."""
    bands = splits.train.bands
    label_values = getattr(criterion, "label_values", None)
    print_class_counts(counts, label_values, source)
    sizes = [f"{len(dataset)} {dataset.split}" for dataset in splits.all]
    batch = min(config.batch_size, splits.images_per_epoch // trainer.world_size)
    steps = math.ceil(batches_of_epoch(config, splits, trainer) / trainer.accumulate_grad_batches)
    together = trainer.accumulate_grad_batches * trainer.world_size
    whole = f" ({batch * together} in a step)" if together > 1 else ""
    repeated = f"{splits.images_per_epoch} images with repeats, " if splits.repeat is not None else ""
    size = f"{parameter_count(model) / 1e6:.1f} M parameters"
    if (trained := parameter_count(model, trainable=True)) < parameter_count(model):
        size += f", {trained / 1e6:.1f} M of them trained"
    lines = {
        "data": f"{config.dataset}: {', '.join(sizes)} images, {len(counts.class_names)} classes",
        "form": splits.train.found.form,
        **({} if bands.is_rgb else {"bands": f"{bands.describe()}, {bands.told()}"}),
        "loss": f"{config.loss}: {criterion.told()}",
        "model": f"{config.arch}, {config.encoder} (weights {config.encoder_weights}), {size}",
        "device": f"{trainer.precision}, {trainer.world_size} x {type(trainer.accelerator).__name__}",
        "plan": f"{config.epochs} epochs of {repeated}{steps} steps, batch {batch}{whole}, crop {splits.crop_size[0]}x"
        f"{splits.crop_size[1]} (H x W), image scale {config.image_scale:g}, lr {config.lr:g}",
        "run": str(folder),
    }
    for key, line in lines.items():
        console.print(f"{key:<7} {line}", soft_wrap=True)
