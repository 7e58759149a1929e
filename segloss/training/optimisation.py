"""What learns at which rate: groups of parameters, optimiser, schedule."""

import math
import re
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.losses import Criterion
from segloss.models import SegmentationModel
from segloss.training.last_layer import label_values_of, last_layer, learn_in_units

POLY_POWER = 0.9  # DeepLab's poly schedule
ONE_CYCLE = (1 / 25, 1 / 25e4)  # where torch's OneCycleLR begins and ends, relative to its peak
FUSED = ("adam", "adamw", "sgd")  # whose steps torch has as one kernel on CPU and GPU
BLOCK = re.compile(r".*?\.\d+(?=\.|$)")  # layer1.0 of layer1.0.conv1, model.stages_0.blocks.1 of ...blocks.1.norm


def rate_factor(
    step: int, total_steps: int, warmup_share: float, schedule: str = "poly", held_share: float = 0.0
) -> float:
    r"""Learning-rate factor in [0, 1] at a step.

    .. math::
        x = \frac{\text{step} - w}{\text{total} - w}: \qquad
        \text{poly } (1 - x)^{0.9}, \quad \text{cosine } \tfrac12 (1 + \cos \pi x), \quad \text{constant } 1

    after a linear rise over the first w = ``warmup_share`` of the steps. ``one_cycle`` rises from 1/25 and falls to
    1/250000 in half cosines, as :class:`torch.optim.lr_scheduler.OneCycleLR` does, without its turning of momentum.
    In the last ``held_share`` of the steps the factor stays what it was.

    >>> [round(rate_factor(step, 10, 0.2, "cosine"), 2) for step in (0, 1, 2, 6, 10)]
    [0.33, 0.67, 1.0, 0.5, 0.0]
    """
    step = min(step, round(total_steps * (1 - held_share)))
    if schedule == "one_cycle":
        peak, (first, last) = warmup_share * total_steps - 1, ONE_CYCLE
        if step < peak:
            return _half_cosine(first, 1.0, step / peak)
        return _half_cosine(1.0, last, (step - max(0.0, peak)) / max(1.0, total_steps - 1 - max(0.0, peak)))
    warmup_steps = int(total_steps * warmup_share)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "constant":
        return 1.0
    return math.pow(1 - progress, POLY_POWER) if schedule == "poly" else _half_cosine(1.0, 0.0, progress)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


@torch.no_grad()
def depths(encoder: nn.Module, in_channels: int) -> dict[int, int]:
    """Of each parameter, by its id, how many blocks of the encoder stand between it and the scores.

    Blocks are told by name (``layer1.0``) and stand in the order in which an image meets them: some encoders declare
    theirs in another one.
    """
    order: dict[str, None] = {}
    names = {module: name for name, module in encoder.named_modules()}

    def block(name: str) -> str:
        found = BLOCK.match(name)
        return found[0] if found else name

    def meet(module: nn.Module, *_: Any) -> None:
        if any(True for _ in module.parameters(recurse=False)):
            order.setdefault(block(names[module]))

    mode = encoder.training
    hooks = [module.register_forward_pre_hook(meet) for module in names]
    side = next(encoder.parameters())
    encoder.eval()(torch.zeros(1, in_channels, 64, 64, device=side.device, dtype=side.dtype))
    encoder.train(mode)
    for hook in hooks:
        hook.remove()
    last = len(order) - 1
    place = {name: last - index for index, name in enumerate(order)}
    return {
        id(parameter): place.get(block(names[module]), last)
        for module in names
        for parameter in module.parameters(recurse=False)
    }


def parameter_groups(model: SegmentationModel, config: TrainConfig) -> list[dict[str, Any]]:
    """What shares a rate and a weight decay: encoder, by depth where that counts, or not; decayed (weights of two or
    more dimensions) or not (norms, biases)."""
    depth_of = dict.fromkeys(map(id, model.encoder.parameters()), 0)
    if config.layer_decay < 1:
        depth_of = depths(model.encoder, model.mean.numel())
    groups: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((depth_of.get(id(parameter)), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * (1 if depth is None else config.encoder_lr_factor * config.layer_decay**depth),
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in groups.items()
    ]


def build_optimizer(model: SegmentationModel, config: TrainConfig, criterion: Criterion, *, fused: bool) -> Optimizer:
    """The optimiser asked for, as one kernel where it is one of ``FUSED`` and the caller can have that.

    The criterion says in which units the last layer learns, where they are asked for.
    """
    otherwise = any(config.optimizer_options.get(name) for name in ("foreach", "differentiable"))
    options = {"fused": fused} if config.optimizer in FUSED and not otherwise else {}
    optimizer = config.build_optimizer(parameter_groups(model, config), **options)
    units = None if config.score_units == "one" else label_values_of(criterion)
    if units is not None:
        layer = last_layer(model, len(units))
        if not layer:
            raise InputError("this architecture has no last layer that could be told", "leave --score-units out")
        learn_in_units(optimizer, layer, units)
    return optimizer
