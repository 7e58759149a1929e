"""What a training run says before it begins."""

from pathlib import Path

from segloss.models import parameter_count
from segloss.pixel_counts import PixelCounts
from segloss.report.terminal import console, print_class_counts


def announce(config, splits, counts: PixelCounts, source: str, criterion, model, trainer, folder: Path) -> None:
    """What a training run is about to do."""
    label_values = getattr(criterion, "label_values", None)
    print_class_counts(counts, label_values, source)
    sizes = [f"{len(d)} {d.split}" for d in (splits.train, splits.val, splits.test) if d is not None]
    share = splits.images_per_epoch // trainer.world_size
    batch = min(config.batch_size, share)
    steps = share // max(batch, 1)
    repeated = f"{splits.images_per_epoch} images with repeats, " if splits.repeat is not None else ""
    precision = f"{config.precision}, {trainer.world_size} x {type(trainer.accelerator).__name__}"
    lines = {
        "data": f"{config.dataset}: {', '.join(sizes)} images, {len(counts.class_names)} classes",
        "form": splits.train.found.form,
        "loss": f"{config.loss}: {criterion.extra_repr()}",
        "model": f"{config.arch}, {config.encoder} (weights {config.encoder_weights}), "
        f"{parameter_count(model) / 1e6:.1f} M parameters",
        "device": precision,
        "plan": f"{config.epochs} epochs of {repeated}{steps} steps, batch {batch}, crop {config.crop_size[0]}x"
        f"{config.crop_size[1]} (H x W), image scale {config.image_scale:g}, lr {config.lr:g}",
        "run": str(folder),
    }
    for key, line in lines.items():
        console.print(f"{key:<7} {line}", soft_wrap=True)
