"""Label maps of any kind, as they come from loaders, files and other libraries, as tensors of class ids."""

from collections.abc import Iterable, Mapping
from inspect import getgeneratorlocals
from itertools import chain, islice
from types import GeneratorType, SimpleNamespace
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, IterableDataset, RandomSampler, WeightedRandomSampler

from segloss.errors import InputError
from segloss.losses.labels import as_map, cure_of_ids
from segloss.losses.ranges import is_switch_or_complex


class PilImage(Protocol):
    """An image of PIL, which need not be installed."""

    @property
    def mode(self) -> str: ...
    def getbands(self) -> tuple[str, ...]: ...
    def getchannel(self, channel: int | str) -> Any: ...
    def convert(self, mode: str) -> Any: ...


def is_pil(given: Any) -> bool:
    return type(given).__module__.startswith("PIL.")


def _is_image(given: Any) -> bool:
    return is_pil(given) or getattr(given, "ndim", 0) > 1


def _is_map(given: Any) -> bool:
    """An array or tensor of whole numbers without channels: a label map and no image."""
    if not isinstance(given, Tensor | np.ndarray):
        return False
    if given.ndim != 2 and (given.ndim != 3 or given.shape[0] != 1):  # rows of one map are none
        return False
    return not given.is_floating_point() if isinstance(given, Tensor) else given.dtype.kind in "ui"


def is_one_map(given: Any) -> bool:
    """An array or tensor (H, W) or (H, W, 1), whose first dimension is no batch."""
    ndim = getattr(given, "ndim", None)
    return ndim is not None and ndim - (given.shape[-1:] == (1,)) <= 2


def is_rows(given: Any) -> bool:
    """A label map as a list of its rows, lists of as many numbers each."""
    if not isinstance(given, list | tuple) or not all(isinstance(row, list | tuple) and row for row in given):
        return False
    return len({len(row) for row in given}) == 1 and all(isinstance(row[0], int | np.integer) for row in given)


LABEL_KEYS = ("labels", "label", "masks", "mask", "segmentation", "target")  # of samples that are dictionaries


def label_tensor(given: Any, place: int) -> Tensor:
    """A label map of any kind, or that of a dictionary or of a pair (images, labels), as an integer tensor."""
    if isinstance(given, Mapping):
        keys = [key for key in LABEL_KEYS if key in given]
        maps = [key for key in keys if _is_image(given[key])] if len(keys) > 1 else keys  # whole images have labels too
        if len(maps) != 1:
            what = f"sample {place} is a dictionary of {', '.join(map(str, given)) or 'nothing'}, "
            what += f"of which {' and '.join(maps)} may be the labels" if maps else "without labels"
            raise InputError(what, f"give label maps, or call them alone one of {', '.join(LABEL_KEYS)}")
        given = given[maps[0]]
    if isinstance(given, tuple | list) and len(given) == 2 and all(map(_is_map, given)):
        what = f"sample {place} is a pair of maps of integers, two label maps or an image and its labels"
        raise InputError(what, "give the label maps alone, a batch as one tensor (N, H, W)")
    if isinstance(given, tuple | list) and len(given) == 2 and _is_image(given[0]):
        given = given[1]
    if is_pil(given):
        if len(given.getbands()) > 1:
            what = f"label image {place} must hold class ids, got colours ({given.mode})"
            raise InputError(what, "give ids: mode L, P or I;16")
        given = np.array(given)
    try:
        tensor = as_map(given)
        if tensor.ndim == 0:
            raise ValueError("one number")
    except InputError as error:
        raise InputError(f"label tensor {place}: {error.what}", error.cure) from error
    except (TypeError, ValueError, RuntimeError) as error:
        cure = "give label maps, or pairs (images, labels)"
        raise InputError(
            f"label tensor {place} must be a map of class ids, got {type(given).__name__}", cure
        ) from error
    if tensor.ndim == 3 and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    if isinstance(given, np.ndarray) and given.ndim == 3 and given.shape[2] in (3, 4) and min(given.shape[:2]) > 4:
        what = f"label array {place} must be (H, W) or (N, H, W), got {given.shape}: rows of colours"
        raise InputError(what, "give class ids: of a grey mask that was saved in colours labels[..., 0]")
    if tensor.ndim > 3 and (tensor.ndim != 4 or 1 not in tensor.shape[1:]):
        what = f"label tensor {place} must be (H, W) or (N, H, W), got {tuple(tensor.shape)}"
        raise InputError(what, _cure_of_dimensions(tensor))
    if tensor.is_floating_point() or is_switch_or_complex(tensor):
        what = f"label tensor {place} must hold integer class ids, got {tensor.dtype}"
        raise InputError(what, cure_of_ids(tensor, given))
    return tensor


def _cure_of_dimensions(tensor: Tensor) -> str:
    """What to do about a tensor with more of them than a batch of label maps has."""
    if tensor.is_floating_point() or tensor.is_complex():
        return "of an image and its labels give a pair in a list: [(images, labels)]"
    ids = tensor.long()
    for dim in (1, -1):
        if bool((ids >= 0).all()) and bool((ids.sum(dim) == 1).all()):
            return f"give class ids: of one-hot labels labels.argmax({dim})"
    return "of volumes (*, D, H, W) give the slices: labels.reshape(-1, *labels.shape[-2:])"


def in_order(labels: Any) -> Iterable[Any]:
    """The samples; of a data set that has no iterator of its own as many as its length, which Python does not ask."""
    kind = type(labels)
    if hasattr(kind, "__iter__") or not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")):
        given: Iterable[Any] = labels
        return given
    return (labels[place] for place in range(len(labels)))


def refuse_partial(labels: Any) -> None:
    """InputError for a loader that gives a share of the images, or some more often than others."""
    labels = _loader_behind(labels)
    sampler, share = _sampler_of(labels), ""
    partial = isinstance(sampler, DistributedSampler | WeightedRandomSampler) or _draws_other_than_all(sampler, labels)
    if partial or "Distributed" in type(sampler).__name__:
        share = f"a {type(sampler).__name__} gives a share of the images, or some more often than others"
    elif (workers := getattr(labels, "num_workers", 0)) > 1 and _may_repeat(getattr(labels, "dataset", None)):
        share = f"{workers} workers gives each image {workers} times where its IterableDataset does not part itself"
    elif dropped := _dropped(labels):
        share = f"drop_last leaves out {dropped} of the images, others each time where they are shuffled"
    if share:
        raise InputError(f"a loader with {share}", "count the data set: count_labels(loader.dataset, ...)")


def _may_repeat(dataset: Any) -> bool:
    """Whether each worker may give all of it; those of Hugging Face part themselves."""
    return isinstance(dataset, IterableDataset) and not type(dataset).__module__.startswith("datasets.")


def _loader_behind(labels: Any) -> Any:
    """What generators go through, ``(labels for _, labels in loader)``, or are a method of; else what is given."""
    if not isinstance(labels, GeneratorType):
        return labels
    behind: Any = labels
    while isinstance(behind, GeneratorType):
        known = getgeneratorlocals(behind)
        behind = known.get(".0", known.get("self"))
    order = getattr(behind, "_index_sampler", None)  # of a loader, and of its iterator
    if order is None:
        return labels
    workers = getattr(behind, "_num_workers", getattr(behind, "num_workers", 0))
    dataset = getattr(behind, "_dataset", None) or getattr(behind, "dataset", None)
    batches = order if behind._auto_collation else None
    return SimpleNamespace(sampler=order, batch_sampler=batches, dataset=dataset, num_workers=workers)


def _sampler_of(loader: Any) -> Any:
    """What says which images a loader gives: of one with a ``batch_sampler`` not its ``sampler``, which is all."""
    batches = getattr(loader, "batch_sampler", None)
    if batches is None:
        return getattr(loader, "sampler", None)
    return batches.sampler if getattr(type(batches), "__iter__", None) is BatchSampler.__iter__ else batches


def _draws_other_than_all(sampler: Any, loader: Any) -> bool:
    """Whether it draws images anew, or more or fewer than there are; a subset that somebody chose is their own."""
    if getattr(sampler, "replacement", False):
        return True
    try:
        there = len(loader.dataset)
        batches = getattr(loader, "batch_sampler", None)
        if batches is not None and sampler is batches:  # only going through it tells
            if iter(batches) is batches:  # which uses it up, or has no end
                return True
            given = [*islice(chain.from_iterable(batches), there + 1)]
            return len(given) > len({*given}) or (len(given) < there and "Shard" in type(batches).__name__)
        drawn = len(sampler)
    except (AttributeError, TypeError):
        return False
    if isinstance(sampler, RandomSampler):
        return drawn != there
    return drawn > there and isinstance(next(iter(sampler), None), int)  # of other keys there may be more


def _dropped(labels: Any) -> int:
    """Images of the last batch, where a loader leaves it out; of data sets without a length nothing is known."""
    batches: Any = getattr(labels, "batch_sampler", None)
    if not getattr(batches, "drop_last", False):
        return 0
    try:
        return len(batches.sampler) % int(batches.batch_size)
    except (AttributeError, TypeError):
        return 0
