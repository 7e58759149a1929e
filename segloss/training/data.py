"""The splits of a training run and their loaders."""

import os
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from torch import Tensor

from segloss.config import TrainConfig
from segloss.datasets import MissingSplitError, SegmentationDataset
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import epoch_length, evaluation_loader, repeat_factors, training_loader
from segloss.datasets.transforms import EvalTransform, read_augmentations, train_transform
from segloss.pixel_counts import PixelCounts, image_histograms
from segloss.runs import augmentations_file


class SegmentationData(L.LightningDataModule):
    """Training and validation loaders that know their process's rank."""

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        config: TrainConfig,
        repeat: Tensor | None = None,
    ):
        super().__init__()
        self.train, self.val, self.config, self.repeat = train, val, config, repeat
        self.first_epoch = 0  # of a resumed run: the one it goes on with

    def _place(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def train_dataloader(self):
        config = self.config
        loader = training_loader(
            self.train,
            config.batch_size,
            seed=config.seed,
            workers=config.workers,
            repeat=self.repeat,
            **self._place(),
        )
        loader.sampler.set_epoch(self.first_epoch)
        return loader

    def val_dataloader(self):
        return evaluation_loader(self.val, self.config.batch_size, workers=self.config.workers, **self._place())


@dataclass
class Splits:
    """The data of one training run.

    Attributes:
        train, val: always there.
        test: None where there is no labelled test split.
        repeat: how often an epoch shows each training image, on average; None: once.
    """

    train: SegmentationDataset
    val: SegmentationDataset
    test: SegmentationDataset | None
    repeat: Tensor | None = None

    @property
    def images_per_epoch(self) -> int:
        """On all devices, before what fills no batch is dropped."""
        return epoch_length(len(self.train), self.repeat)


def training_data(config: TrainConfig) -> Splits:
    """The three splits; fills in the config's crop size. :func:`prepare_training` completes the training split.

    Raises:
        InputError: train or val is missing or empty, an image has no mask, or a file does not fit.
    """

    def build(split: str) -> SegmentationDataset:
        return config.open(split, EvalTransform(config.image_scale))

    own = augmentations_file(config)
    if own is not None:
        read_augmentations(own)  # before minutes are spent on the data
    if config.data_path is not None:
        config.data_path = str(Path(config.data_path).absolute())  # a run is evaluated from other folders too
    train, val = build("train"), build("val")
    try:
        test = build("test")
    except MissingSplitError:
        test = None
    if config.crop_size is None:
        height, width = train.read_image(0).shape[:2]
        config.crop_size = [min(512, max(32, round(side * config.image_scale))) for side in (height, width)]
    splits = Splits(train, val, test if test is not None and test.has_labels else None)
    for dataset in filter(None, (train, val, splits.test)):
        dataset.check_files()
    return splits


def prepare_training(config: TrainConfig, splits: Splits, counts: PixelCounts) -> None:
    """What training needs the counts for: its transform and how often each image is seen; and the cache.

    Raises:
        InputError: the user's augmentations cannot be applied, or the cache does not fit into memory.
    """
    splits.train.transform = train_transform(
        tuple(config.crop_size),
        config.seed,
        image_scale=config.image_scale,
        scale_range=tuple(config.scale_range),
        color=config.color,
        augmentations=augmentations_file(config),
        guided_crops=config.guided_crops,
        cat_max_ratio=config.cat_max_ratio,
        class_pixels=counts.pixels,
    )
    if config.augmentations is not None:
        splits.train[0]  # a pipeline that fits no image is answered before a run folder is made
    if config.repeat_threshold > 0:
        splits.repeat = repeat_factors(image_histograms(splits.train)[0], config.repeat_threshold)
    if config.cache == "ram":
        first = (
            int(os.environ.get("LOCAL_RANK", 0)) == 0
        )  # looks at what all need: the others start when it has its own
        cache_in_ram([splits.train, splits.val], copies=config.devices if first else 1)
