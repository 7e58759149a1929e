"""Weights of another run to begin with, its heads matched by the names of the classes."""

from pathlib import Path

import torch
from torch import nn

from segloss.datasets import ClassTable
from segloss.datasets.bands import RGB, Bands
from segloss.errors import InputError
from segloss.models import IMAGENET_MEAN, IMAGENET_STD, SegmentationModel
from segloss.runs import Run

MOST_SPREAD = 4.0  # of new images beside those that the normalisation is of; 8 bits in 12 differ by 16, in 16 by 257


def _heads(model: SegmentationModel, classes: int) -> list[str]:
    """Names of the tensors with a row for each class: those of the last layer of each head."""
    found = []
    for head in ("segmentation_head", "classification_head"):
        layers = [
            (name, layer)
            for name, layer in model.named_modules()
            if name.startswith(f"network.{head}") and isinstance(layer, nn.Conv2d | nn.Linear)
        ]
        if layers:
            name, layer = layers[-1]
            found += [f"{name}.{part}" for part, tensor in layer.named_parameters() if len(tensor) == classes]
    return found


@torch.no_grad()
def start_from(run: Run, model: SegmentationModel, classes: ClassTable, bands: Bands = RGB) -> str:
    """Copy a run's weights into a new model; of the heads the rows of classes of the same name. Says which.

    Normalisation comes along: the weights were trained with it.

    Args:
        bands: of the new images.

    Raises:
        InputError: another network, other bands, or numbers of another kind and size.
    """
    theirs, ours = run.model.state_dict(), model.state_dict()
    old, heads = run.classes.names, _heads(model, len(classes))
    kept = {name: old.index(name) for name in classes.names if name in old}
    wrong = [
        name
        for name in dict.fromkeys((*ours, *theirs))  # a smaller network may fit into a larger one
        if name not in heads and not name.startswith("network.classification_head")
        if name not in theirs or name not in ours or theirs[name].shape != ours[name].shape
    ]
    if wrong:
        config, count = run.config, run.bands.count
        cure = f"add --arch {config.arch} --encoder {config.encoder}, or give it as --encoder-weights"
        if model.mean.numel() != count:
            cure = f"give images of {count} bands, or the run as --encoder-weights, fitted to others"
        raise InputError(
            f"is of {config.arch} with encoder {config.encoder} for {count} bands: {len(wrong)} tensors do "
            f"not fit this network (first: {wrong[0]})",
            cure,
            run.path,
        )
    spread = float((model.std / run.model.std).median())
    if run.bands.dtype != bands.dtype and not 1 / MOST_SPREAD <= spread <= MOST_SPREAD:
        what = f"began on images of {run.bands.dtype}, whose normalisation does not fit {bands.dtype}"
        raise InputError(
            f"{what}: they spread {spread:.2g} times as far", "give images of the kind it has seen", run.path
        )
    for name, tensor in ours.items():
        source = theirs.get(name)
        if source is None:
            continue
        if name not in heads:
            tensor.copy_(source) if source.shape == tensor.shape else None
            continue
        for place, of_class in enumerate(classes.names):
            if of_class in kept:
                tensor[place] = source[kept[of_class]]
    return told(run.path, kept, classes.names, old)


@torch.no_grad()
def fit_normalisation(model: SegmentationModel, bands: Bands) -> list[str]:
    """ImageNet's mean and std for 8-bit RGB where those of the encoder's run are of larger numbers; a line says so."""
    if not bands.is_rgb or float(model.mean.max()) <= 1:
        return []
    for buffer, values in ((model.mean, IMAGENET_MEAN), (model.std, IMAGENET_STD)):
        buffer.copy_(torch.tensor(values).view_as(buffer))
    return ["the run of --encoder-weights has seen more than 8 bits: of 8-bit RGB ImageNet's mean and std are taken"]


def told(path: Path, kept: dict[str, int], new: tuple[str, ...] | list[str], old: tuple[str, ...] | list[str]) -> str:
    """One line: whose weights, which classes keep their scores, which begin anew, which are left behind."""
    parts = {
        "kept": list(kept),
        "new": [name for name in new if name not in kept],
        "left behind": [name for name in old if name not in kept],
    }
    listed = [f"{what}: {', '.join(names)}" for what, names in parts.items() if names]
    return f"begins with the weights of {path}; classes {'; '.join(listed)}"
