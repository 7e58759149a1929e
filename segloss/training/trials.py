"""Tries: which learning rate to train with, and how many images fit into a batch."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segloss.config import TrainConfig
from segloss.datasets.cache import free_memory
from segloss.datasets.loading import training_loader
from segloss.errors import InputError
from segloss.inference import Machine, autocast
from segloss.losses import Criterion
from segloss.models import SegmentationModel
from segloss.training.data import Splits
from segloss.training.optimisation import build_optimizer

RATES = (1e-6, 1.0)
STEPS = 100
SMOOTHING = 0.9
GONE = 4.0  # times the least smoothed loss: no rate beyond is tried


def fastest_rate(
    model: SegmentationModel, criterion: Criterion, config: TrainConfig, splits: Splits, machine: Machine
) -> float:
    """What ``--find-lr`` says: :func:`steepest` of :func:`try_rates` on the training batches."""
    return steepest(try_rates(model, criterion, config, batches_forever(splits, config, machine.workers), machine))


def fitting_batch_size(
    model: SegmentationModel, criterion: Criterion, config: TrainConfig, splits: Splits, machine: Machine
) -> tuple[int, int]:
    """What ``--auto-batch-size`` takes: :func:`largest_batch` in free memory; and the most there may be, an eighth of a
    device's training images, but two, which batch norms need."""
    images = splits.images_per_epoch // config.devices
    most = max(1, min(2, images), images // 8)
    measure = step_bytes(model, criterion, config, splits.crop_size, machine)
    sharers = 1 if machine.device.type == "cuda" else config.devices
    return largest_batch(measure, free_bytes(machine.device) // sharers, most), most


def batches_forever(splits: Splits, config: TrainConfig, workers: int) -> Iterator[dict[str, Any]]:
    """Training batches, epoch after epoch."""
    loader = training_loader(splits.train, config.batch_size, seed=config.seed, workers=workers, repeat=splits.repeat)
    epoch = 0
    while True:
        sampler: Any = loader.sampler
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def try_rates(
    model: SegmentationModel,
    criterion: Criterion,
    config: TrainConfig,
    batches: Iterator[dict[str, Any]],
    machine: Machine,
    steps: int | None = None,
) -> list[tuple[float, float]]:
    """(rate, smoothed loss) of steps at rates that grow by a factor, of a copy of the model, until the loss is gone.

    Rates of the encoder keep their share, which a sweep that gives all groups one rate would not.
    """
    steps = STEPS if steps is None else steps
    model, criterion = copy.deepcopy(model).to(machine.device), copy.deepcopy(criterion).to(machine.device)
    optimizer = build_optimizer(model, replace(config, lr=1.0), criterion, fused=False)
    shares = [group["lr"] for group in optimizer.param_groups]
    found: list[tuple[float, float]] = []
    mean = 0.0
    for step in range(steps):
        batch = next(batches)
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / (steps - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        loss = _loss(model, criterion, batch, machine)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(loss.detach())
        smooth = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or (found and smooth > GONE * min(value for _, value in found)):
            break
        found.append((rate, smooth))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return found


def _loss(model: SegmentationModel, criterion: Criterion, batch: dict[str, Any], machine: Machine) -> Tensor:
    images, labels = batch["image"].to(machine.device), batch["labels"].to(machine.device)
    given = {"class_mask": batch["class_mask"].to(machine.device)} if "class_mask" in batch else {}
    with autocast(machine.precision, machine.device):
        logits = model(images)
    loss: Tensor = criterion(logits, labels, **given)
    return loss


def steepest(curve: Sequence[tuple[float, float]]) -> float:
    r"""The rate at which the smoothed loss falls fastest per factor of the rate, of those before its least value.

    .. math:: \arg\min_k \; L_{k+1} - L_{k-1}

    InputError where the loss falls nowhere. Source: Smith, WACV 2017 (the range test); fastai's "steep".

    >>> steepest([(1e-4, 5.0), (1e-3, 4.9), (1e-2, 3.0), (1e-1, 2.95), (1.0, 9.0)])
    0.001
    """
    losses = [loss for _, loss in curve]
    least = losses.index(min(losses)) if losses else 0
    falls = {k: losses[k + 1] - losses[k - 1] for k in range(1, min(least + 1, len(losses) - 1))}
    best = min(falls, key=lambda k: falls[k], default=None)
    if best is None or falls[best] >= 0:
        raise InputError("the loss falls at no rate", "look at the data and the loss", "--find-lr")
    return curve[best][0]


def largest_batch(step_bytes: Callable[[int], int], free: int, most: int) -> int:
    """Images whose step fits into ``free`` bytes, by a straight line through the steps of two and of four.

    InputError where not even two fit.
    """
    two, four = step_bytes(2), step_bytes(4)
    each = max(1, (four - two) // 2)
    fit = 2 + (free - two) // each
    if fit < 2 and most >= 2:
        what = f"two images need {two / 2**30:.2f} GiB, {free / 2**30:.2f} are free"
        raise InputError(what, "take a smaller --crop-size or network", "--auto-batch-size")
    return max(1, min(most, fit))


def free_bytes(device: torch.device) -> int:
    """Nine tenths of what is free on a GPU, elsewhere of what the system has; 2 GiB where nobody tells."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory().get("the machine", 2**31)
    return int(0.9 * free)


def step_bytes(
    model: SegmentationModel, criterion: Criterion, config: TrainConfig, crop_size: tuple[int, int], machine: Machine
) -> Callable[[int], int]:
    """What a step of so many images takes: on a GPU its peak, elsewhere what is kept for the backward pass; and three
    times the weights, for gradients and an optimiser such as AdamW."""
    model, criterion = copy.deepcopy(model).to(machine.device).train(), copy.deepcopy(criterion).to(machine.device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)

    def measure(images: int) -> int:
        size = (images, model.mean.numel(), *crop_size)
        batch = {"image": torch.zeros(size), "labels": torch.zeros(images, *crop_size, dtype=torch.uint8)}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        on_gpu = machine.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(model, criterion, batch, machine)
        loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad()
        found = torch.cuda.max_memory_allocated() - before if on_gpu else sum(kept.values())
        return found + 3 * weights

    return measure
