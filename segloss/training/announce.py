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
from segloss.training.optimisation import depths

LOOKED_AT = 100  # images, for the middle one
LEAST_RATE = 1e-3  # of the first block beside the last


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
    for line in [*_padded_crops(config, splits), *_still_blocks(config, model)]:
        console.print(f"warning: {line}", soft_wrap=True)


def _padded_crops(config: TrainConfig, splits: Splits) -> list[str]:
    """A line where less than half of a crop of the middle image can be image."""
    if config.augmentations is not None:  # which may enlarge images
        return []
    train = splits.train
    looked_at = range(0, len(train), max(1, len(train) // LOOKED_AT))
    sizes = sorted((train.image_size(index) for index in looked_at), key=math.prod)
    sides = [side * config.image_scale for side in sizes[len(sizes) // 2]]
    shares = [min(1, config.scale_range[1] * side / crop) for side, crop in zip(sides, splits.crop_size, strict=True)]
    if math.prod(shares) >= 0.5:
        return []
    fitting = [max(32, round(side / 32) * 32) for side in sides]
    words = " ".join(map(str, fitting))
    smaller = any(side < crop for side, crop in zip(fitting, splits.crop_size, strict=True))
    cure = f"{words} fits: --crop-size {words}" if smaller else "a larger --image-scale fills it"
    height, width = splits.crop_size
    what = f"at most {math.prod(shares):.0%} of a crop of {height}x{width} can be image, the rest is padding"
    return [f"{what}; {cure}"]


def _still_blocks(config: TrainConfig, model: SegmentationModel) -> list[str]:
    """A line where the layer decay leaves the first of many blocks next to nothing to learn by."""
    if config.layer_decay == 1 or config.encoder_lr_factor == 0:
        return []
    deepest = max(depths(model.encoder, model.mean.numel()).values())
    left = config.layer_decay**deepest
    if left >= LEAST_RATE:
        return []
    cure = f"take {math.ceil(100 * LEAST_RATE ** (1 / deepest)) / 100:g} or more"
    what = f"{config.encoder} has {deepest + 1} blocks, so the first learns at {left:.0e} of the rate of the last"
    return [f"--layer-decay {config.layer_decay:g}: {what}; {cure}"]
