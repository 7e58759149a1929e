"""What train_seg.py's machinery costs beside a plain PyTorch loop, in one process.

    python benchmarks/training.py [--data-path CAMVID] [--repeats 5]

Both see the same samples, network, optimiser and precision. The plain loop is what one would write by hand: a
DataLoader, autocast, F.one_hot and F.mse_loss on the label values. Ours is the Trainer with all its callbacks, timed
from its first step to its last. Epochs alternate, so that a slow minute of the machine hits both. Then: what a
checkpoint costs, how long the loader is waited for, and the time from the command to its first step.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from command import parser_of
from lightning.pytorch.callbacks import Callback

from segloss.datasets.loading import training_loader
from segloss.errors import exit_on_input_error
from segloss.inference import autocast, find_machine
from segloss.pixel_counts import count_dataset
from segloss.report.terminal import console
from segloss.resume import parse_train_config
from segloss.run_folder import Used
from segloss.runs import checkpoint_content, criterion_of
from segloss.training.callbacks import History
from segloss.training.checkpoints import LastCheckpoint
from segloss.training.data import SegmentationData, prepare_training, training_data
from segloss.training.optimisation import parameter_groups
from segloss.training.task import SegmentationTask
from segloss.training.trainer import build_trainer

FIRST_STEP = """
import os, sys, time
import train_seg
from segloss.training.task import SegmentationTask
def first_step(*_):
    print("first step", time.time(), flush=True)
    os._exit(0)
SegmentationTask.training_step = first_step
train_seg.main()
"""


class Stopwatch(Callback):
    """Seconds of the training epoch's steps, and of one checkpoint after them; the share of them spent waiting."""

    def on_train_epoch_start(self, *_) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_train_epoch_end(self, trainer, task) -> None:
        history = next(each for each in trainer.callbacks if isinstance(each, History))
        self.wait_share = sum(history.waits) / self.seconds
        last = next(each for each in trainer.callbacks if isinstance(each, LastCheckpoint))
        started = time.perf_counter()
        last._save(trainer)
        self.checkpoint_seconds = time.perf_counter() - started


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


def toolkit_epoch(config, machine, splits, counts, model) -> Stopwatch:
    """One epoch of Lightning's Trainer with our callbacks."""
    criterion = criterion_of(config, counts)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, machine.precision, Path(folder), console)
        stopwatch = Stopwatch()
        trainer.callbacks.insert(0, stopwatch)
        used = Used.of(config, splits.crop_size, machine)
        content = checkpoint_content(config, used, splits.train.classes, counts, model)
        task = SegmentationTask(model, criterion, config, content)
        trainer.fit(task, SegmentationData(splits, config, machine.workers))
    return stopwatch


def seconds_to_first_step(flags: list[str]) -> float:
    """From the start of a process to its first training step; counts and the like are kept from earlier runs."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-c", FIRST_STEP, *flags, "--output-dir", str(Path(folder) / "run")]
        root = str(Path(__file__).resolve().parents[1])
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
        )
    return float(done.stdout.split("first step")[1]) - started


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data-path", help="CamVid's folder; default: the synthetic streets")
    parser.add_argument("--repeats", type=int, default=5, help="of each")
    parser.add_argument("--batches", type=int, default=20, help="of an epoch")
    args = parser.parse_args()
    data = ["--dataset", "camvid", "--data-path", args.data_path] if args.data_path else ["--dataset", "synthetic"]
    options = (
        "--encoder tu-tf_efficientnet_lite0 --image-scale 0.5 --crop-size 160 224 --workers 0 --epochs 1 "
        "--batch-size 4 --accelerator cpu --trainer.limit_val_batches 0"
    )
    flags = [*data, *options.split()]
    config = parse_train_config([*flags, "--trainer.limit_train_batches", str(args.batches)])
    machine = find_machine(config.accelerator, config.precision, config.workers)
    splits = training_data(config, config.crop_size)
    counts = count_dataset(splits.train)
    splits = prepare_training(config, splits, counts)
    model = config.build(len(splits.train.classes))
    label_values = criterion_of(config, counts).label_values
    kinds = ("plain loop, s", "train_seg, s", "checkpoint, s", "waiting, share", "start-up, s")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(args.repeats + 1):
        loader = training_loader(splits.train, config.batch_size, seed=0, workers=0)
        batches = (batch for batch, _ in zip(loader, range(args.batches), strict=False))
        optimizer = torch.optim.AdamW(parameter_groups(model, config), fused=True)
        plain = plain_epoch(model, batches, optimizer, label_values, machine.precision)
        ours = toolkit_epoch(config, machine, splits, counts, model)
        if repeat:  # the first of both warms up
            seconds = plain, ours.seconds, ours.checkpoint_seconds, ours.wait_share, seconds_to_first_step(flags)
            for kind, value in zip(kinds, seconds, strict=True):
                found[kind].append(value)
    found["train_seg / plain loop"] = [a / b for a, b in zip(found[kinds[1]], found[kinds[0]], strict=True)]
    found["checkpoint / 10 min"] = [seconds / 600 for seconds in found["checkpoint, s"]]
    for kind, values in found.items():
        print(f"{kind:<22} median {statistics.median(values):8.4f}   {min(values):.4f} to {max(values):.4f}")
    environment = {"torch": torch.__version__, "threads": torch.get_num_threads(), "precision": machine.precision}
    print(json.dumps({**found, "images": len(splits.train), **environment}))


if __name__ == "__main__":
    exit_on_input_error(main)
