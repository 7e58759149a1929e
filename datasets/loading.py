"""Samplers and collation: who sees which sample when, the same for any number of workers or devices."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from segloss.datasets.base import SegmentationDataset
from segloss.errors import InputError


class EpochSampler(Sampler):
    """Yields ``(epoch, index)``, so that a sample's randomness travels with its key.

    With persistent workers an epoch set on the data set would never arrive there. Each of ``world_size`` processes
    takes every ``world_size``-th entry; in training the rest that would not fill all processes is dropped, in
    evaluation every sample is seen exactly once.

    Args:
        length: of the data set.
        shuffle: permute by (seed, epoch).
        seed: of the permutation.
        rank, world_size: this process among all.
    """

    def __init__(self, length: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1):
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def _stop(self) -> int:
        return self.length - self.length % self.world_size if self.shuffle else self.length

    def __len__(self) -> int:
        return len(range(self.rank, self._stop(), self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
        for index in order[: self._stop()][self.rank :: self.world_size].tolist():
            yield self.epoch, index


def collate_training(samples: list[dict]) -> dict:
    """Stack equally sized samples: ``image`` uint8 ``(N, 3, h, w)``, ``labels`` int64 ``(N, h, w)``."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in ("image", "labels")}


def collate_samples(samples: list[dict]) -> list[dict]:
    """Samples of any size stay a list."""
    return samples


def training_loader(
    dataset: SegmentationDataset,
    batch_size: int,
    *,
    seed: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Shuffled full batches; a data set smaller than one batch gives one batch of all it has."""
    sampler = EpochSampler(len(dataset), shuffle=True, seed=seed, rank=rank, world_size=world_size)
    if len(sampler) == 0:
        raise InputError(f"{dataset.name}: {len(dataset)} training images cannot be shared among {world_size} devices")
    return DataLoader(
        dataset,
        batch_size=min(batch_size, len(sampler)),
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_training,
        drop_last=True,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(
    dataset: SegmentationDataset, batch_size: int, *, workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Every sample once, in order, as lists of samples."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), shuffle=False, rank=rank, world_size=world_size),
        num_workers=workers,
        collate_fn=collate_samples,
        persistent_workers=workers > 0,
    )
