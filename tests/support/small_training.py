"""A training run without its slow parts: the task, data module and trainer of train_seg.py around two convolutions."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import Tensor, nn

from segloss.config import TrainConfig
from segloss.flags import from_plain_dict, to_plain_dict
from segloss.losses import build_criterion
from segloss.training import SegmentationData, SegmentationTask, Splits, build_trainer

COUNTS = [5000, 700, 90]
VALID = (1024, 64, 1024, 8)


class SmallNet(nn.Module):
    """Images to scores of three classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.encoder(images / 255)))


class FewImages:
    """Images of 32 x 32, of which image i has ``VALID[i % 4]`` valid pixels."""

    name, split = "few", "train"

    def __init__(self, length: int = 4, change: Callable[[int, dict[str, Any]], None] | None = None):
        self.length, self.change = length, change

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index = key if isinstance(key, int) else key[1]
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 1024, True, generator=generator)
        labels[VALID[index % 4] :] = 255
        sample = {"image": image, "labels": labels.view(32, 32), "name": f"image{index}", "size": (32, 32)}
        if self.change is not None:
            self.change(index, sample)
        return sample


class Gradients(Callback):
    """The gradient of every step, as the optimiser gets it."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Any, task: Any, optimizer: Any) -> None:
        self.steps.append(torch.cat([p.grad.flatten().clone() for p in task.parameters() if p.grad is not None]))


class SmallRun:
    """What :func:`train_seg.train` puts together, without its flags and files.

    Attributes:
        gradients: of each step. rows: of the history. said: what was printed.
    """

    def __init__(self, folder: Path, dataset: Any = None, loss: str = "outlying_mse", net: Any = None, **options: Any):
        defaults = {"batch_size": 2, "epochs": 1, "accelerator": "cpu", "loss": loss, "encoder_lr_factor": 1.0}
        self.config = from_plain_dict(TrainConfig, {**defaults, **options})
        self.output = io.StringIO()
        self.trainer = build_trainer(self.config, "32-true", folder, Console(file=self.output, width=500))
        dataset = FewImages() if dataset is None else dataset
        content = {"classes": {"names": ["road", "car", "pole"]}, "format": 1}
        content |= {"config": to_plain_dict(self.config), "used": {}}
        self.task = SegmentationTask(net or SmallNet(), build_criterion(loss, COUNTS), self.config, content)
        self.data = SegmentationData(Splits(dataset, dataset, None, (32, 32)), self.config, 0)
        self.gradients = Gradients()
        self.trainer.callbacks.insert(0, self.gradients)

    def fit(self, **options: Any) -> "SmallRun":
        self.trainer.fit(self.task, self.data, **options)
        return self

    @property
    def rows(self) -> list[dict[str, Any]]:
        return next(callback.rows for callback in self.trainer.callbacks if hasattr(callback, "rows"))

    @property
    def said(self) -> str:
        return self.output.getvalue()


class _SaveFirst(Gradients):
    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_train_end(self, trainer: Any, task: Any) -> None:
        if trainer.is_global_zero:
            rows = next(callback.rows for callback in trainer.callbacks if hasattr(callback, "rows"))
            torch.save({"gradient": self.steps[0], "rows": rows}, self.path)


def first_step(folder: Path, loss: str, devices: int, micro_batches: int) -> dict[str, Any]:
    """Gradient of the first step over the four images, and the history of an epoch, however they are dealt out."""
    strategy = {"strategy": "ddp_fork"} if devices > 1 else {}
    trainer = {"accumulate_grad_batches": micro_batches, **strategy}
    run = SmallRun(folder, loss=loss, batch_size=4 // devices // micro_batches, devices=devices, trainer=trainer)
    run.trainer.callbacks[0] = _SaveFirst(folder / "first.pt")
    run.fit()
    return torch.load(folder / "first.pt", weights_only=True)


class _SaveLast(Callback):
    def __init__(self, path: Path):
        self.path = path

    def on_train_end(self, trainer: Any, task: Any) -> None:
        if trainer.is_global_zero:
            rows = next(callback.rows for callback in trainer.callbacks if hasattr(callback, "rows"))
            content = {"parameters": task.model.state_dict(), "rows": rows, "steps": trainer.global_step}
            torch.save(content, self.path)


def several_steps(folder: Path, devices: int) -> dict[str, Any]:
    """Parameters after three epochs of 11 images in batches of 4, of which two fill each epoch, and the history."""
    strategy = {"strategy": "ddp_fork"} if devices > 1 else {}
    habits = {"optimizer": "sgd", "lr": 0.05, "epochs": 3, "batch_size": 4 // devices}
    run = SmallRun(folder, FewImages(11), devices=devices, trainer=strategy, **habits)
    run.trainer.callbacks.append(_SaveLast(folder / "trained.pt"))
    run.fit()
    return torch.load(folder / "trained.pt", weights_only=True)


if __name__ == "__main__":  # two processes are forked from one that did nothing before
    target, *losses = sys.argv[1:]
    if not losses:
        several_steps(Path(target), 2)
    for name in losses:
        (Path(target) / name).mkdir()
        first_step(Path(target) / name, name, 2, 2)
