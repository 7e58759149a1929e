"""One training epoch by train_seg.py's machinery against a plain PyTorch loop, in one process.

    python benchmarks/training.py [--data-path CAMVID] [--epochs 3]

Both see the same samples, network, optimiser and precision. The plain loop is what one would write by hand: a
DataLoader, autocast, F.one_hot and F.mse_loss on the label values. The toolkit's epoch is timed without validation.
Epochs alternate, so that a slow minute of the machine hits both. Prints a table and one line of JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback

from segloss.datasets.loading import training_loader
from segloss.inference import autocast, find_machine
from segloss.pixel_counts import count_dataset
from segloss.report.terminal import console
from segloss.runs import Used, checkpoint_content, criterion_of, parse_train_config
from segloss.training.data import SegmentationData, prepare_training, training_data
from segloss.training.optimisation import parameter_groups
from segloss.training.task import SegmentationTask
from segloss.training.trainer import build_trainer


class Stopwatch(Callback):
    """Seconds of the training epoch."""

    seconds = 0.0

    def on_train_epoch_start(self, *_) -> None:
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self, *_) -> None:
        self.seconds += time.perf_counter()


def plain_epoch(model, loader, optimizer, label_values, precision: str) -> float:
    """Seconds of one epoch of the hand-written loop."""
    started = time.perf_counter()
    for batch in loader:
        labels, valid = batch["labels"].long(), batch["labels"] != 255
        with autocast(precision, torch.device("cpu")):
            logits = model(batch["image"])
        teacher = F.one_hot(labels.where(valid, 0), len(label_values)) * label_values
        loss = F.mse_loss(logits.permute(0, 2, 3, 1)[valid].float(), teacher[valid])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def toolkit_epoch(config, machine, splits, counts, model) -> float:
    """Seconds of one epoch of Lightning's Trainer with our callbacks, from its first step to its last."""
    criterion = criterion_of(config, counts)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, machine.precision, Path(folder), console)
        stopwatch = Stopwatch()
        trainer.callbacks = [stopwatch]  # no checkpoint, no history: those come after an epoch
        used = Used.of(config, splits.crop_size, machine)
        content = checkpoint_content(config, used, splits.train.classes, counts, model)
        task = SegmentationTask(model, criterion, config, content)
        trainer.fit(task, SegmentationData(splits, config, machine.workers))
    return stopwatch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-path", help="CamVid's folder; default: the synthetic streets")
    parser.add_argument("--epochs", type=int, default=3, help="of each")
    args = parser.parse_args()
    data = ["--dataset", "camvid", "--data-path", args.data_path] if args.data_path else ["--dataset", "synthetic"]
    flags = "--encoder tu-tf_efficientnet_lite0 --image-scale 0.5 --crop-size 160 224 --workers 0 --epochs 1"
    config = parse_train_config([*data, *flags.split(), "--accelerator", "cpu", "--trainer.limit_val_batches", "0"])
    machine = find_machine(config.accelerator, config.precision, config.workers)
    splits = training_data(config, config.crop_size)
    counts = count_dataset(splits.train)
    splits = prepare_training(config, splits, counts)
    model = config.build(len(splits.train.classes))
    label_values = criterion_of(config, counts).label_values
    seconds: dict[str, list[float]] = {"plain loop": [], "train_seg": []}
    for _ in range(args.epochs):
        loader = training_loader(splits.train, config.batch_size, seed=0, workers=0)
        optimizer = torch.optim.AdamW(parameter_groups(model, config))
        seconds["plain loop"].append(plain_epoch(model, loader, optimizer, label_values, machine.precision))
        seconds["train_seg"].append(toolkit_epoch(config, machine, splits, counts, model))
    for name, values in seconds.items():
        print(f"{name:<12} median {statistics.median(values):6.1f} s   {min(values):.1f} to {max(values):.1f}")
    ratio = statistics.median(seconds["train_seg"]) / statistics.median(seconds["plain loop"])
    print(f"train_seg / plain loop: {ratio:.2f}")
    environment = {"torch": torch.__version__, "threads": torch.get_num_threads(), "precision": machine.precision}
    print(json.dumps({"seconds": seconds, "ratio": ratio, "images": len(splits.train), **environment}))


if __name__ == "__main__":
    main()
