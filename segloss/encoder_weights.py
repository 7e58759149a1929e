"""Weights files of encoders: whose keys they hold, behind which prefix, and for how many bands."""

import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from segloss.errors import InputError
from segloss.hub import read_shared
from segloss.weight_files import require_whole, weights_file


def load_encoder_weights(encoder: nn.Module, path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Load a weights file into an smp encoder, strictly: every tensor of the encoder must be in the file.

    Keys may be those of the encoder itself or of the timm model inside a ``tu-`` encoder, either behind any prefix:
    ``encoder.``, ``module.``, and ``model.network.encoder.`` in the checkpoints of segloss.

    Returns:
        mean and std of a checkpoint of segloss, None of other files.

    Raises:
        InputError: the file is missing, unreadable, lacks tensors or shapes of this encoder, holds several such, or is
            of a deeper one.
    """
    weights = _read_weights(path)
    inner = getattr(encoder, "model", None)
    modules = [module for module in (inner, encoder) if isinstance(module, nn.Module)]
    for module in modules:
        wanted = _learnt_tensors(module)
        if fitting := _fitting(weights, wanted):
            prefix = _one_of(fitting, path)
            _require_no_more(weights, prefix, wanted, path)
            nn.Module.load_state_dict(module, fitting[prefix], strict=False)  # smp's own of mit_* takes no strict
            if "model.mean" not in weights or "model.std" not in weights:
                return None
            mean, std = (tuple(weights[f"model.{name}"].flatten().tolist()) for name in ("mean", "std"))
            return mean, std
    wanted = _learnt_tensors(modules[0])
    absent = [key for key in wanted if key not in weights]
    example = absent[0] if absent else next(k for k in wanted if weights[k].shape != wanted[k].shape)
    problem = f"lacks {len(absent)} of" if absent else "has other shapes than"
    raise InputError(
        f"{problem} the {len(wanted)} tensors of this encoder (first: {example})",
        "choose the --encoder that these weights belong to",
        where=path,
    )


def _fitting(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors wanted as the file holds them, by the prefix that they stand behind, the shortest first."""
    first = next(iter(wanted), "")
    found = {}
    prefixes = {key.removesuffix(first) for key in weights if key.endswith(first)}
    for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
        if wanted and all(f"{prefix}{key}" in weights for key in wanted):
            own = {key: _for_bands(weights[f"{prefix}{key}"], tensor) for key, tensor in wanted.items()}
            if all(own[key].shape == tensor.shape for key, tensor in wanted.items()):
                found[prefix] = own
    return found


def _one_of(fitting: Mapping[str, Mapping[str, Tensor]], path: Path) -> str:
    """The shortest prefix; InputError where others as short have other numbers, a line on stderr of longer ones."""
    chosen = next(iter(fitting))
    others = [
        prefix
        for prefix, tensors in fitting.items()
        if not all(torch.equal(tensor, fitting[chosen][name]) for name, tensor in tensors.items())
    ]
    if as_short := [prefix for prefix in others if len(prefix) == len(chosen)]:
        named = " and ".join(f"{prefix}*" for prefix in (chosen, *as_short))
        raise InputError(f"holds several such encoders: {named}", "keep one of them in the file", path)
    if others and chosen:
        named = ", ".join(f"{prefix}*" for prefix in others)
        print(f"warning: {path}: the encoder is {chosen}*, not that of {named}", file=sys.stderr)
    return chosen


def _require_no_more(weights: Iterable[str], prefix: str, wanted: Iterable[str], path: Path) -> None:
    """InputError where the file holds further blocks of the same make: those of a deeper encoder, whose first ones are
    of no use without the others. A classifier is none of them."""
    own, kinds = {*wanted}, {_without_numbers(key) for key in wanted}
    names = [key.removeprefix(prefix) for key in weights if key.startswith(prefix)]
    if more := [name for name in names if name not in own and _without_numbers(name) in kinds]:
        what = f"holds {len(more)} tensors of further blocks (first: {more[0]}), so it is of a deeper encoder"
        raise InputError(what, "choose the --encoder that these weights belong to", where=path)


def _without_numbers(key: str) -> str:
    """The name of a tensor, whichever block of its stage it is of.

    >>> _without_numbers("layer1.0.conv1.weight")
    'layer1.#.conv1.weight'
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "#", key)


def _for_bands(weight: Tensor, wanted: Tensor) -> Tensor:
    """A first convolution of RGB for as many bands as are wanted; others as they are."""
    from timm.models import adapt_input_conv

    if weight.ndim != 4 or weight.shape[1] != 3 or weight.shape[::2] != wanted.shape[::2]:
        return weight
    return adapt_input_conv(wanted.shape[1], weight)


def _learnt_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its state without the batch counters of normalisation layers, which many weights files leave out."""
    return {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}


def encoder_weights_file(path: Path) -> Path:
    """The file itself, or that of a run."""
    try:
        return weights_file(path)
    except InputError as error:
        cure = "--encoder-weights takes none, imagenet, a file or a run folder"
        raise InputError("no such weights file", cure, path) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    path = encoder_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return read_shared(path).get("state_dict") or load_file(path)
        warn_of_old_torch(path)
        with suppress(zipfile.BadZipFile):  # torch once wrote other files
            require_whole(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # zip, pickle and safetensors each raise their own kinds
        what = f"cannot be read as weights ({type(error).__name__})"
        raise InputError(what, "use another file", where=path) from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError("holds no dictionary of tensors", where=path)
    return weights


def warn_of_old_torch(path: Path) -> None:
    """A line on stderr where a checkpoint made for it could run code (CVE-2025-32434, CVE-2026-24747)."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        what = f"{path}: a forged checkpoint can run code under torch {torch.__version__}"
        cure = "load only files you trust, or update torch to 2.10; a .safetensors file cannot"
        print(f"warning: {what}; {cure}", file=sys.stderr)
