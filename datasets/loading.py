"""Samplers and loaders: who sees which sample when, the same for any number of workers or devices."""

import copy
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segloss.datasets.base import Sample, SegmentationDataset
from segloss.errors import InputError


def repeat_factors(histograms: Tensor, threshold: float, labelled: Tensor | None = None) -> Tensor:
    r"""How often each image is seen in an epoch: more often where it holds a class that few images hold.

    .. math::
        r_i = \max_{c \in i} \max(1, \sqrt{T / f_c})

    f_c is the share of the images that hold class c, among those that label it.

    Args:
        histograms: pixels of each class in each image, int64 ``(images, C + 1)``, the ignored ones last.
        threshold: T; classes in a larger share of the images are left alone. 0: all are.
        labelled: bool ``(images, C)``, the classes that each image labels; None: all.

    Returns:
        float64 ``(images,)``, at least 1.

    Source: Gupta, Dollar & Girshick, LVIS, CVPR 2019, section 5.
    """
    present = histograms[:, :-1] > 0
    images = len(histograms) if labelled is None else labelled.sum(dim=0).clamp_min(1)
    share = (present.double().sum(dim=0) / images).clamp_min(1 / len(histograms))  # absent classes repeat no image
    factors = (threshold / share).sqrt().clamp_min(1)
    return (present * factors).amax(dim=1).clamp_min(1)


def epoch_length(length: int, repeat: Tensor | None) -> int:
    """Images of one epoch on all devices: the same in every epoch, as the schedule is planned from it."""
    return length if repeat is None else math.ceil(float(repeat.sum()))


GROUPS_AT_A_TIME = 4  # of those that are read together, in a shuffled epoch
Key = tuple[int, ...]  # (epoch, index), and what else tells samples apart


class EpochSampler(Sampler[Key]):
    """Yields ``(epoch, index)``, so that a sample's randomness travels with its key.

    Of an image seen several times in an epoch the later keys are ``(epoch, index, 1)``, ``(epoch, index, 2)`` ...

    With persistent workers an epoch set on the data set would never arrive there. Each of ``world_size`` processes
    takes every ``world_size``-th entry; in training the rest that would not fill all processes is dropped, in
    evaluation every sample is seen exactly once.

    Args:
        length: of the data set.
        shuffle: permute by (seed, epoch).
        seed: of the permutation.
        rank, world_size: this process among all.
        repeat: expected number of times that each image is seen in a shuffled epoch, ``(length,)``, at least 1. They
            are scaled up until their sum is an integer; each epoch rounds them up or down.
        groups: of each sample, ``(length,)``: a shuffled epoch takes some groups at a time, in random order.
    """

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        repeat: Tensor | None = None,
        groups: Tensor | None = None,
    ):
        self.images, self.groups = length, groups
        self.length = epoch_length(length, repeat)
        self.repeat = None if repeat is None else repeat.double() * (self.length / repeat.double().sum())
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.begun = 0, 0  # an epoch, and how many of its entries all processes have seen: the rest is yielded

    @property
    def seen(self) -> int:
        """How many entries of the epoch all processes together have seen before."""
        return self.begun[1] if self.epoch == self.begun[0] else 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def _stop(self) -> int:
        return self.length - self.length % self.world_size if self.shuffle else self.length

    def __len__(self) -> int:
        return len(range(self.rank, self._stop(), self.world_size))

    def __iter__(self) -> Iterator[Key]:
        order = torch.arange(self.length)
        occurrence = torch.zeros_like(order)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            if self.repeat is not None:
                order, occurrence = self._repeated(self.repeat, generator)
            shuffled = torch.randperm(self.length, generator=generator)
            if self.groups is not None:
                turn = torch.randperm(int(self.groups.max()) + 1, generator=generator) // GROUPS_AT_A_TIME
                shuffled = shuffled[turn[self.groups[order[shuffled]]].argsort(stable=True)]
            order, occurrence = order[shuffled], occurrence[shuffled]
        mine = slice(self.seen + self.rank, self._stop(), self.world_size)
        for index, again in zip(order[mine].tolist(), occurrence[mine].tolist(), strict=True):
            yield (self.epoch, index, again) if again else (self.epoch, index)

    def _repeated(self, repeat: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Every image as often as this epoch shows it, and which of its times each is.

        Systematic sampling of the fractions: one offset for all cumulative sums, so that their number is always the
        same; in a random order, so that neighbours in the data set are not tied to each other.
        """
        times = repeat.floor()
        images = torch.randperm(self.images, generator=generator)
        sums = (repeat - times)[images].cumsum(0)
        sums[-1] = self.length - times.sum()  # without the sum's rounding errors
        steps = (sums + torch.rand(1, generator=generator).double()).floor()
        times[images] += steps.diff(prepend=steps.new_zeros(1))
        counts = times.long()
        order = torch.arange(self.images).repeat_interleave(counts)
        return order, torch.arange(self.length) - (counts.cumsum(0) - counts)[order]


def collate_samples(samples: list[Sample]) -> list[Sample]:
    """Samples of any size stay a list; labels become uint8 (int32), an eighth of what goes between processes."""
    return [{**sample, "labels": _smaller(sample["labels"])} if "labels" in sample else sample for sample in samples]


def _smaller(labels: Tensor) -> Tensor:
    """uint8, or int32 where there are values beyond."""
    return labels.to(torch.uint8 if not labels.numel() or int(labels.max()) < 256 else torch.int32)


def collate_training(samples: list[Sample]) -> dict[str, Any]:
    """Stack equally sized samples: ``image`` ``(N, B, h, w)``, ``labels`` ``(N, h, w)``; their ``name``;
    ``class_mask`` bool ``(N, C)`` where the samples have one."""
    samples = collate_samples(samples)
    keys = [key for key in ("image", "labels", "class_mask") if key in samples[0]]
    stacked: dict[str, Any] = {key: torch.stack([sample[key] for sample in samples]) for key in keys}
    return {**stacked, "name": [sample["name"] for sample in samples]}


@dataclass
class _Batches(Dataset[Any]):
    """Collated batches; in the place of one the InputError that reading it raised."""

    dataset: Dataset[Sample]
    collate: Callable[[list[Sample]], Any]

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # both kinds have one

    def __getitems__(self, keys: list[Key]) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except InputError as error:
            return error


def _keep_on(worker: int) -> None:
    """Ctrl-C and SIGTERM often reach all processes of a run: the main one decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch


class Loader(DataLoader[Any]):
    """A loader whose workers send an InputError as the value it is; the main process raises it.

    What a worker raises arrives as the text of its traceback.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own iterator class
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _loader(batches: _Batches, batch_size: int, sampler: Iterable[Key], workers: int, **options: bool) -> Loader:
    options["persistent_workers"] = workers > 0
    plain: dict[str, Any] = {"num_workers": workers, "collate_fn": _as_it_is, "worker_init_fn": _keep_on, **options}
    return Loader(batches, batch_size, sampler=sampler, **plain)


def training_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    *,
    seed: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    repeat: Tensor | None = None,
) -> Loader:
    """Shuffled full batches; a data set smaller than one batch gives one batch of all it has."""
    groups = getattr(dataset, "groups", None)  # any data set of samples will do
    ours: dict[str, Any] = {"rank": rank, "world_size": world_size, "repeat": repeat, "groups": groups}
    sampler = EpochSampler(len(dataset), shuffle=True, seed=seed, **ours)
    if len(sampler) == 0:
        what = f"{len(dataset)} training images cannot be shared among {world_size} devices"
        raise InputError(what, "give fewer --devices", dataset.name)
    batches, size = _Batches(dataset, collate_training), min(batch_size, len(sampler))
    return _loader(batches, size, sampler, workers, drop_last=True, pin_memory=torch.cuda.is_available())


def evaluation_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    *,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    places: Sequence[int] | None = None,
) -> Loader:
    """Every sample once, or those of ``places``, in order, as lists of samples."""
    everything = EpochSampler(len(dataset), shuffle=False, rank=rank, world_size=world_size)
    sampler = everything if places is None else [(0, place) for place in places]
    return _loader(_Batches(dataset, collate_samples), batch_size, sampler, workers)


class _AsFiled(Dataset[Sample]):
    """Samples at the size of their files, with their ``place``; of large ones ``name`` and ``size`` alone."""

    def __init__(self, dataset: SegmentationDataset):
        self.dataset = copy.copy(dataset)
        self.dataset.transform = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample:
        place = key[1]
        if not self.dataset.is_large(place):
            return {**self.dataset[key], "place": place}
        return {"name": self.dataset.sample_name(place), "size": self.dataset.image_size(place), "place": place}


def window_loader(dataset: SegmentationDataset, places: Sequence[int], *, workers: int) -> Loader:
    """Samples to be seen in windows, as lists of one: unscaled, and large ones not decoded."""
    return _loader(_Batches(_AsFiled(dataset), collate_samples), 1, [(0, place) for place in places], workers)
