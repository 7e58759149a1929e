"""What a training run says before it begins."""

import math
from pathlib import Path
from typing import Any

import lightning as L

from segloss.config import TrainConfig
from segloss.datasets import SegmentationDataset
from segloss.datasets.classes import told_as_mirrored
from segloss.losses import Criterion
from segloss.models import SegmentationModel, parameter_count
from segloss.pixel_counts import PixelCounts
from segloss.report.terminal import console, print_class_counts
from segloss.training.data import Splits
from segloss.training.lightning_options import batches_of_epoch
from segloss.training.optimisation import depths

LOOKED_AT = 100  # images, for the middle one
OFF_SCALE = 0.25  # of the images of validation
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
    transform: Any = splits.train.transform
    sides = told_as_mirrored(splits.train.classes.names) if transform.mirroring else ""
    lines = {
        "data": f"{config.dataset}: {', '.join(sizes)} images, {len(counts.class_names)} classes",
        "form": splits.train.found.form,
        **({"sides": f"{sides} are swapped where a sample is mirrored"} if sides else {}),
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
    for line in [*_padded_crops(config, splits), *_own_sizes(config, splits), *_still_blocks(config, model)]:
        console.print(f"warning: {line}", soft_wrap=True)


def _padded_crops(config: TrainConfig, splits: Splits) -> list[str]:
    """A line where less than half of a crop of the middle image can be image."""
    if config.augmentations is not None:  # which may enlarge images
        return []
    sides = [side * config.image_scale for side in splits.train.image_size(_middle(splits.train))]
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


def _middle(train: SegmentationDataset) -> int:
    """The place of an image of the middle size."""
    looked_at = range(0, len(train), max(1, len(train) // LOOKED_AT))
    return sorted(looked_at, key=lambda index: math.prod(train.image_size(index)))[len(looked_at) // 2]


def _own_sizes(config: TrainConfig, splits: Splits) -> list[str]:
    """Lines where the user's steps leave less than half of a crop to the middle image, or another scale than that of
    validation."""
    if config.augmentations is None:
        return []
    transform: Any = splits.train.transform
    try:
        drawn = transform.own_sizes(*splits.train.read_pair(_middle(splits.train)))
    except Exception:  # whatever such steps may raise: the sample itself is refused in one line
        return []
    height, width = splits.crop_size
    shares = [min(1, high / height) * min(1, wide / width) for high, wide, _ in drawn]
    factors, lines = sorted(factor for _, _, factor in drawn), []
    if factors[0] and not factors[0] - OFF_SCALE <= 1 <= factors[-1] + OFF_SCALE:
        factor = factors[len(factors) // 2]
        what = f"--augmentations resize images to {factor:.2g} of what validation and predictions see"
        lines.append(f"{what}; --image-scale {factor * config.image_scale:.2g} in place of that step resizes both")
    if max(shares) < 0.5:
        fitting = " ".join(str(max(32, round(max(sides) / 32) * 32)) for sides in [*zip(*drawn, strict=True)][:2])
        what = f"at most {max(shares):.0%} of a crop of {height}x{width} can be image, as --augmentations leave it"
        lines.append(f"{what}, the rest is padding; {fitting} fits: --crop-size {fitting}")
    return lines


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
