"""Cityscapes: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/ or gtCoarse/ masks; 19 classes.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.finding import list_images
from segloss.datasets.missing import MissingSplitError, no_masks, no_split, require_folder
from segloss.datasets.naming import Naming
from segloss.datasets.pairing import Pairing, pair, unique_by
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, in_train_ids
from segloss.errors import InputError

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
        raise MissingSplitError(f"no split {split!r}", f"Cityscapes has {', '.join(SPLITS)}", root)
    if split == "test":
        images = _images(root, split)
        found = pair(unique_by(images, _key(images)), None, f"{IMAGES}/{split}", root / IMAGES / split, root)
    else:
        labels = COARSE if split == "train_extra" or (coarse and split == "train") else FINE
        found = _labelled(root, split, labels)
        if coarse and split == "train" and (root / IMAGES / "train_extra").is_dir():
            found = _joined(found, _labelled(root, "train_extra", COARSE))
    kinds = {mask.stem.endswith(LABEL_ENDINGS["trainIds"]) for _, mask in found.pairs if mask is not None}
    if len(kinds) > 1:
        raise InputError(found.form, "make both parts of one kind", root / COARSE)
    classes = in_train_ids(CITYSCAPES) if True in kinds else CITYSCAPES
    found.form = f"Cityscapes, {found.form}"
    return SegmentationDataset("cityscapes-coarse" if coarse else "cityscapes", split, found, classes, transform)


FORMATS = (
    Format(
        "cityscapes",
        "Cityscapes with fine labels",
        cityscapes,
        tables={"cityscapes": CITYSCAPES},
        variable="CITYSCAPES_DATASET",
        splits=SPLITS,
    ),
    Format(
        "cityscapes-coarse",
        "trained on the coarse ones",
        partial(cityscapes, coarse=True),
        variable="CITYSCAPES_DATASET",
        splits=SPLITS,
        finer_val=True,
    ),
)


def _frame(name: str) -> str:
    """``CITY_SEQ_FRAME`` of a file name."""
    return re.split(r"_(?:leftImg8bit|gtFine|gtCoarse)", name.rsplit("/", 1)[-1])[0]


def _of_city(name: str) -> str:
    """The frame with the folder of its city, where two cities have frames of one name."""
    return f"{name.rpartition('/')[0]}/{_frame(name)}"


def _key(*folders: dict[str, Path]) -> Callable[[str], str]:
    return _frame if all(len({*map(_frame, names)}) == len(names) for names in folders) else _of_city


def _images(root: Path, split: str) -> dict[str, Path]:
    folder = root / IMAGES / split
    if not folder.is_dir():
        raise no_split(split, folder)
    return list_images(folder)


def _labelled(root: Path, split: str, labels: str) -> Pairing:
    folder = root / labels / split
    if not folder.is_dir():
        cure = f"unpack gtFine there: with {COARSE} alone only train can be read, by --dataset cityscapes-coarse"
        raise no_masks(split, folder, *[cure] * (root / COARSE / split).is_dir())
    files = list_images(folder)
    for ending in LABEL_ENDINGS.values():
        masks = {name: path for name, path in files.items() if name.endswith(ending)}
        if masks:
            form = f"{labels}/{split}, {ending[1:]} masks"
            images = _images(root, split)
            key = _key(images, masks)
            found = pair(unique_by(images, key), unique_by(masks, key), form, root / IMAGES / split, folder)
            return replace(found, naming=Naming(mask_words=("", f"_{labels}{ending}")))
    wanted = " or ".join(f"*{ending}.png" for ending in LABEL_ENDINGS.values())
    raise InputError(f"holds no {wanted}", "check --data-path", folder)


def _joined(a: Pairing, b: Pairing) -> Pairing:
    both = {*a.names} & {*b.names}
    if both:
        raise InputError(f"frame {min(both)} is in train and in train_extra", "keep one of the two")
    return Pairing(
        f"{a.form}; {b.form}",
        a.pairs + b.pairs,
        a.names + b.names,
        a.lonely_images | b.lonely_images,
        a.lonely_masks | b.lonely_masks,
        a.mask_place,
        naming=a.naming,
    )
