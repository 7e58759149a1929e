"""The layer that puts out the scores: its first biases, and the units in which its rows learn."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from segloss.errors import InputError
from segloss.losses import Criterion, OutlyingMSELoss
from segloss.models import SegmentationModel

HEAD = "segmentation_head."  # of the names of parameters in smp's networks


def last_layer(model: SegmentationModel, num_classes: int) -> list[nn.Parameter]:
    """Weight ``(C, ...)`` and bias ``(C,)``, if it has one, of the layer that puts out the scores; none: not found."""
    modules = [each for name, each in model.network.named_modules() if f"{name}.".startswith(HEAD)]
    for module in reversed(modules):
        own = list(module.parameters(recurse=False))
        if own and all(len(parameter) == num_classes for parameter in own):
            return own
    return []


def label_values_of(criterion: Criterion) -> Tensor | None:
    """t ``(C,)`` of the first squared error, if there is one."""
    return next((each.label_values for each in criterion.modules() if isinstance(each, OutlyingMSELoss)), None)


def start_bias(model: SegmentationModel, scores: Tensor) -> None:
    """Give the layer that puts out the scores the biases ``(C,)``; InputError where it has none."""
    biases = [each for each in last_layer(model, len(scores)) if each.ndim == 1]
    if not biases:
        cure = "leave --bias-init out, or choose --arch unet"
        raise InputError("the scores of this architecture have no bias to start", cure)
    with torch.no_grad():
        biases[0].copy_(scores)


def learn_in_units(optimizer: Optimizer, layer: list[nn.Parameter], units: Tensor) -> None:
    r"""Let each step change row c of a layer by ``units[c]`` times what the optimiser alone would.

    Scores z = t v of a layer that puts out v, each in units of its label value, are trained by the same loss; but Adam,
    whose steps have the size of the rate whatever the gradient, then moves z_c by t_c times as much: the score of a
    rare class, whose label value is large, reaches it in as many steps as that of a frequent one, and a factor on all
    label values (alpha) changes nothing. The network and its checkpoints stay as they are.

    Args:
        optimizer: of the layer, among others; its steps are followed by hooks.
        layer: parameters ``(C, ...)``.
        units: ``(C,)``, positive.

    >>> weight = nn.Parameter(torch.zeros(2, 1))
    >>> optimizer = torch.optim.Adam([weight], lr=0.1)
    >>> learn_in_units(optimizer, [weight], torch.tensor([1.0, 30.0]))
    >>> weight.sum().backward(); optimizer.step(); weight.data.flatten()
    tensor([-0.1000, -3.0000])
    """
    before: list[Tensor] = []

    def keep(*_: Any) -> None:
        before[:] = [parameter.detach().clone() for parameter in layer]

    @torch.no_grad()
    def enlarge(*_: Any) -> None:
        for parameter, old in zip(layer, before, strict=True):
            factor = units.to(parameter).view(-1, *[1] * (parameter.ndim - 1))
            parameter.copy_(old + (parameter - old) * factor)

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(enlarge)
