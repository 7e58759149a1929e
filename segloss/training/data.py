"""The splits of a training run and their loaders."""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segloss.config import TrainConfig
from segloss.datasets import MissingSplitError, SegmentationDataset
from segloss.datasets.bands import choose_bands
from segloss.datasets.base import require_same_classes
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import epoch_length, evaluation_loader, repeat_factors, training_loader
from segloss.datasets.mixing import Mixing
from segloss.datasets.transforms import EvalTransform, train_transform
from segloss.losses import Criterion
from segloss.metrics import class_groups
from segloss.pixel_counts import PixelCounts, image_histograms
from segloss.resume import augmentations_file


@dataclass(frozen=True)
class Splits:
    """The data of one training run.

    Attributes:
        train, val: always there.
        test: None where there is no labelled test split.
        crop_size: (H, W) of the training crops.
        repeat: how often an epoch shows each training image, on average; None: once.
    """

    train: SegmentationDataset
    val: SegmentationDataset
    test: SegmentationDataset | None
    crop_size: tuple[int, int]
    repeat: Tensor | None = None

    @property
    def all(self) -> list[SegmentationDataset]:
        """Those there are."""
        return [split for split in (self.train, self.val, self.test) if split is not None]

    @property
    def train_evaluated(self) -> SegmentationDataset:
        """The training images as validation sees its own: whole, and as they are."""
        dataset = copy.copy(self.train)
        dataset.transform, dataset.mixing = self.val.transform, None
        return dataset

    @property
    def images_per_epoch(self) -> int:
        """On all devices, before what fills no batch is dropped."""
        return epoch_length(len(self.train), self.repeat)


class StepBatches:
    """Training batches that know what the mean over all micro-batches of their optimiser step divides by.

    The labels of the whole step have to be seen before its first backward pass: the loader is read one step ahead. That
    is simpler than rescaling the gradients before the step, which could not serve a sum of losses that divide by
    different numbers, and leaves gradient clipping and the GradScaler as they are.

    Args:
        loader: of micro-batches.
        divisor: of a micro-batch's labels, on the CPU: :meth:`segloss.losses.Criterion.divisor`.
        micro_batches: of one optimiser step.
        epoch_batches: how many an epoch takes, known once it begins.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        divisor: Callable[[Tensor], Tensor],
        micro_batches: int,
        epoch_batches: Callable[[], float],
    ):
        self.loader, self.sampler = loader, loader.sampler  # Lightning tells the sampler the epoch
        self.divisor, self.micro_batches, self.epoch_batches = divisor, micro_batches, epoch_batches

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        sampler: Any = self.sampler
        done = sampler.seen // (sampler.world_size * (self.loader.batch_size or 1))  # of an epoch that is gone on with
        batches = islice(self.loader, int(self.epoch_batches()) - done)
        while step := list(islice(batches, self.micro_batches)):
            whole = torch.stack([self.divisor(batch["labels"]) for batch in step]).sum(0)
            for batch in step:
                yield {**batch, "divisor": whole.float()}  # not every device has float64


class SegmentationData(L.LightningDataModule):
    """Training and validation loaders that know their process's rank."""

    def __init__(self, splits: Splits, config: TrainConfig, workers: int):
        super().__init__()
        self.splits, self.config, self.workers = splits, config, workers
        self.begun = 0, 0  # of a resumed run: the epoch it goes on with, and how many images of it were seen

    def _place(self) -> dict[str, Any]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def train_dataloader(self) -> DataLoader[Any] | StepBatches:
        loader = training_loader(
            self.splits.train,
            self.config.batch_size,
            seed=self.config.seed,
            workers=self.workers,
            repeat=self.splits.repeat,
            **self._place(),
        )
        sampler: Any = loader.sampler
        sampler.begun = self.begun
        sampler.set_epoch(self.begun[0])
        trainer: Any = self.trainer
        micro_batches = int(trainer.accumulate_grad_batches)
        if micro_batches == 1:
            return loader
        criterion: Criterion = copy.deepcopy(trainer.lightning_module.criterion).cpu()
        return StepBatches(loader, criterion.divisor, micro_batches, lambda: trainer.num_training_batches)

    @property
    def images_per_batch(self) -> int:
        """Of all processes together."""
        world_size = self._place()["world_size"]
        return int(world_size * min(self.config.batch_size, self.splits.images_per_epoch // world_size))

    def val_dataloader(self) -> DataLoader[Any]:
        return evaluation_loader(self.splits.val, self.config.batch_size, workers=self.workers, **self._place())


def training_data(config: TrainConfig, crop_size: tuple[int, int] | None) -> Splits:
    """The three splits, which :func:`prepare_training` completes; a crop size of None is found in the first image.

    Raises:
        InputError: train or val is missing or empty, an image has no mask, or a file does not fit.
    """

    def build(split: str) -> SegmentationDataset:
        return config.open(split, EvalTransform(config.image_scale))

    train, val = build("train"), build("val")
    try:
        test = build("test")
    except MissingSplitError:
        test = None
    test = test if test is not None and test.has_labels else None
    opened = [train, val, *([] if test is None else [test])]
    require_same_classes(opened)
    choose_bands(opened, config.channels, config.show_bands)
    if crop_size is None:
        height, width = (min(512, max(32, round(side * config.image_scale))) for side in train.read_image(0).shape[:2])
        crop_size = height, width
    splits = Splits(train, val, test, crop_size)
    for dataset in splits.all:
        dataset.check_files()
    return splits


def _rare_images(train: SegmentationDataset, counts: PixelCounts) -> dict[int, np.ndarray]:
    """Of each of the rarest third of the classes that have pixels the images that hold it."""
    held = image_histograms(train)[0].numpy() > 0
    pixels = counts.complete.pixels
    present = [c for c in range(len(pixels)) if pixels[c]]
    tail = class_groups([pixels[c] for c in present])["tail"]
    return {present[place]: np.flatnonzero(held[:, present[place]]) for place in tail}


def prepare_training(config: TrainConfig, splits: Splits, counts: PixelCounts) -> Splits:
    """The splits with what needs the counts: the training transform and how often each image is seen; and the cache.

    Raises:
        InputError: the user's augmentations cannot be applied, or the cache does not fit into memory.
    """
    splits.train.transform = train_transform(
        splits.crop_size,
        config.seed,
        image_scale=config.image_scale,
        scale_range=config.scale_range,
        color=config.color,
        augmentations=augmentations_file(config),
        guided_crops=config.guided_crops,
        cat_max_ratio=config.cat_max_ratio,
        class_pixels=counts.complete.pixels,
        seeks=config.mix == "paste",
        bands=splits.train.bands,
    )
    if config.mix != "none" and config.mix_share > 0:
        rare = _rare_images(splits.train, counts) if config.mix == "paste" else {}
        splits.train.mixing = Mixing(config.mix, config.mix_share, config.seed, rare)
    if config.augmentations is not None:
        splits.train[0]  # a pipeline that fits no image is answered before a run folder is made
    if config.repeat_threshold > 0:
        part = splits.train.labelled
        labelled = None if part is None else torch.from_numpy(part.masks)
        repeat = repeat_factors(image_histograms(splits.train)[0], config.repeat_threshold, labelled)
        splits = replace(splits, repeat=repeat)
    if config.cache == "ram":
        # The first process looks at what all need: the others start when it has its own.
        first = int(os.environ.get("LOCAL_RANK", 0)) == 0
        cache_in_ram([splits.train, splits.val], copies=config.devices if first else 1)
    return splits
