"""The first applied gradient of train_seg.py for each loss: two processes of two micro-batches, and the whole batch.

python whole_steps.py DATA FOLDER LOSS...: writes FOLDER/LOSS.pt, {"whole": gradient, "shared": gradient}. Batch
statistics are those of the untrained network everywhere: they are of a micro-batch by their nature.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train_seg
from segloss.config import TrainConfig
from segloss.training.watch import StopAtNonFinite

OPTIONS = (
    "--dataset camvid --check off --arch fpn --encoder tu-mobilenetv3_small_050 --encoder-weights none --epochs 1 "
    "--precision 32-true --accelerator cpu --workers 0 --crop-size 64 64 --trainer.limit_val_batches 1"
)
DEALT = {
    "whole": "--batch-size 4 --trainer.limit_train_batches 1",
    "shared": "--batch-size 1 --devices 2 --trainer.strategy ddp_fork --trainer.accumulate_grad_batches 2 "
    "--trainer.limit_train_batches 2",
}


def main() -> None:
    data, base, *losses = sys.argv[1:]
    torch.set_num_threads(1)
    nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)
    nn.Dropout2d.train = nn.Dropout.train = nn.BatchNorm2d.train
    build = TrainConfig.build
    TrainConfig.build = lambda *given, **options: build(*given, **options).train()
    train_seg.score_run = lambda *_: None
    judged = StopAtNonFinite.on_before_optimizer_step
    for loss in losses:
        for name, dealt in DEALT.items():
            path = Path(base) / f"{loss}-{name}.pt"

            def keep(watch: Any, trainer: Any, task: Any, optimizer: Any, path: Path = path) -> None:
                if trainer.is_global_zero:
                    gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
                    torch.save(gradient.clone(), path)
                judged(watch, trainer, task, optimizer)

            StopAtNonFinite.on_before_optimizer_step = keep
            folder = str(Path(base) / f"{loss}-{name}")
            flags = ["--data-path", data, "--output-dir", folder, "--loss", loss, *shlex.split(dealt)]
            sys.argv = ["train_seg.py", *shlex.split(OPTIONS), *flags]
            train_seg.train(sys.argv[1:])
            os.environ.pop("SEGLOSS_RUN_FOLDER", None)


if __name__ == "__main__":
    main()
