"""Cityscapes: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/ or gtCoarse/ masks; 19 classes.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

import re
from dataclasses import replace
from pathlib import Path

from segloss.datasets.base import MissingSplitError, Pairing, SegmentationDataset, Transform, pair, require_folder
from segloss.datasets.images import list_images
from segloss.datasets.tables import CITYSCAPES, TRAIN_IDS
from segloss.errors import InputError

ROOT_VARIABLE = "CITYSCAPES_DATASET"
SPLITS = ("train", "val", "test", "train_extra")
IMAGES, FINE, COARSE = "leftImg8bit", "gtFine", "gtCoarse"


def cityscapes(
    root: Path, split: str, transform: Transform | None = None, *, coarse: bool = False
) -> SegmentationDataset:
    """One split of Cityscapes below ``root``; 2975 / 500 / 1525 images of 2048x1024 in train / val / test.

    Masks are ``*_labelIds.png`` as downloaded, mapped to the 19 classes; where there are none, ``*_labelTrainIds.png``.
    The test split has no labels (the masks of the download are dummies). Predictions are saved in labelIds, as the
    benchmark takes them.

    Args:
        root: holds leftImg8bit/ and gtFine/ or gtCoarse/.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"train_extra"`` (coarse labels only).
        transform: as in :class:`SegmentationDataset`.
        coarse: train on gtCoarse, and on train_extra too where it is there; val stays fine.

    Raises:
        InputError: a folder is missing or the split is empty.
    """
    require_folder(root, "data folder of Cityscapes")
    require_folder(root / IMAGES, "folder of Cityscapes' images")
    if split not in SPLITS:
        raise MissingSplitError(f"{root}: no split {split!r}; Cityscapes has {', '.join(SPLITS)}")
    if split == "test":
        found = pair(_images(root, split), None, f"{IMAGES}/{split}", root / IMAGES / split, root)
    else:
        labels = COARSE if split == "train_extra" or (coarse and split == "train") else FINE
        found = _labelled(root, split, labels)
        if coarse and split == "train" and (root / IMAGES / "train_extra").is_dir():
            found = _joined(found, _labelled(root, "train_extra", COARSE))
            if "labelTrainIds" in found.form and "labelIds" in found.form:
                raise InputError(f"{root / COARSE}: {found.form}; make both parts of one kind")
    train_ids = any(mask is not None and "labelTrainIds" in mask.name for _, mask in found.pairs)
    classes = replace(CITYSCAPES, mask_ids=TRAIN_IDS) if train_ids else CITYSCAPES
    found.form = f"Cityscapes, {found.form}"
    return SegmentationDataset("cityscapes-coarse" if coarse else "cityscapes", split, found, classes, transform)


def _frame(name: str) -> str:
    """``CITY_SEQ_FRAME`` of a file name."""
    return re.split(r"_(?:leftImg8bit|gtFine|gtCoarse)", name.rsplit("/", 1)[-1])[0]


def _images(root: Path, split: str) -> dict[str, Path]:
    folder = root / IMAGES / split
    if not folder.is_dir():
        raise MissingSplitError(f"{folder}: split {split!r} is missing; check --data-path")
    return {_frame(name): path for name, path in list_images(folder).items()}


def _labelled(root: Path, split: str, labels: str) -> Pairing:
    folder = root / labels / split
    if not folder.is_dir():
        cure = "check --data-path"
        if (root / COARSE / split).is_dir():
            cure = f"unpack gtFine there: with {COARSE} alone only train can be read, by --dataset cityscapes-coarse"
        raise InputError(f"{folder}: masks of split {split!r} are missing; {cure}")
    files = list_images(folder)
    for kind in ("labelIds", "labelTrainIds"):
        masks = {_frame(name): path for name, path in files.items() if name.endswith(f"_{kind}")}
        if masks:
            break
    else:
        raise InputError(f"{folder}: holds no *_labelIds.png or *_labelTrainIds.png; check --data-path")
    return pair(_images(root, split), masks, f"{labels}/{split}, {kind} masks", root / IMAGES / split, folder)


def _joined(a: Pairing, b: Pairing) -> Pairing:
    return Pairing(
        f"{a.form}; {b.form}",
        a.pairs + b.pairs,
        a.names + b.names,
        a.lonely_images | b.lonely_images,
        a.lonely_masks | b.lonely_masks,
        a.mask_place,
    )
