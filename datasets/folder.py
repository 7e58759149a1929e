"""Anybody's data: images/ and masks/ of the same stems, and a class file.

root/classes.yaml (or .yml, .json, .txt)
root/images/train/a.jpg   root/masks/train/a.png      with split folders, or
root/images/a.jpg         root/masks/a.png            without: a hash of the stem decides who is in val
"""

import hashlib
from pathlib import Path

from segloss.datasets.base import (
    MissingSplitError,
    SegmentationDataset,
    Transform,
    list_images,
    pair_by_stem,
    require_folder,
)
from segloss.datasets.classes import ClassTable, read_class_file
from segloss.errors import InputError

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json", "classes.txt")
MASK_FOLDERS = ("masks", "labels", "annotations")
SPLITS = ("train", "val", "test")


def folder(root: Path, split: str, transform: Transform | None = None, val_share: float = 0.2) -> SegmentationDataset:
    """One split of the data below ``root``.

    Args:
        root: holds images/, masks/ (or labels/, annotations/) and a class file.
        split: a folder below images/, or ``train`` / ``val`` where there are no split folders.
        transform: as in :class:`SegmentationDataset`.
        val_share: without split folders: the share of images in ``val``, chosen by a hash of the stem, so that
            adding images moves none of the old ones.

    Raises:
        InputError: something is missing or does not pair.
    """
    require_folder(root, "data folder")
    classes = _class_table(root)
    images = require_folder(root / "images", "folder of images")
    masks = _mask_folder(root)
    if any((images / name).is_dir() for name in SPLITS) or (images / split).is_dir():
        images, masks = images / split, masks / split
        if not images.is_dir():
            raise MissingSplitError(f"{images}: split {split!r} is missing")
        mask_files = list_images(masks) if masks.is_dir() else None
        if mask_files is None and split != "test":
            raise InputError(f"{masks}: masks of split {split!r} are missing")
        pairs = pair_by_stem(list_images(images), mask_files, images, masks)
    else:
        if split not in ("train", "val"):
            raise MissingSplitError(f"{images}: has no folder {split!r}; without split folders there are train and val")
        every = pair_by_stem(list_images(images), list_images(masks), images, masks)
        pairs = _hash_split(every, split, val_share)
    return SegmentationDataset("folder", split, pairs, classes, transform)


def _class_table(root: Path) -> ClassTable:
    for name in CLASS_FILES:
        if (root / name).is_file():
            return read_class_file(root / name)
    raise InputError(
        f"{root / CLASS_FILES[0]}: class file is missing; write the class names there, one '- name' a line"
    )


def _mask_folder(root: Path) -> Path:
    for name in MASK_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"{root / MASK_FOLDERS[0]}: folder of masks is missing (or labels/, annotations/)")


def _stem_hash(stem: str) -> float:
    """Uniform in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big") / 2**64


def _hash_split(pairs: list, split: str, val_share: float) -> list:
    if not 0 < val_share < 1:
        raise InputError(f"--val-share must be between 0 and 1, got {val_share}")
    if len(pairs) < 2:
        raise InputError(f"{pairs[0][0]}: is the only image; a training and a validation image are needed")
    by_hash = sorted(pairs, key=lambda pair: _stem_hash(pair[0].stem))
    below = sum(_stem_hash(pair[0].stem) < val_share for pair in by_hash)
    in_val = min(max(below, 1), len(pairs) - 1)  # a small folder still gets one of each
    chosen = by_hash[:in_val] if split == "val" else by_hash[in_val:]
    return sorted(chosen)
