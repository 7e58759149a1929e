"""BDD100K, semantic segmentation: images/10k/SPLIT/*.jpg with labels/sem_seg/masks/SPLIT/*.png; 19 classes.

Source: Yu et al., "BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning", CVPR 2020.
"""

from dataclasses import replace
from pathlib import Path

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.finding import list_images
from segloss.datasets.missing import MissingSplitError, no_masks, no_split, require_folder
from segloss.datasets.pairing import pair
from segloss.datasets.tables import CITYSCAPES, TRAIN_IDS
from segloss.losses.labels import IGNORE_INDEX

SPLITS = ("train", "val", "test")
# Images and masks: as now downloaded, and as once (masks NAME_train_id.png).
PLACES = (("images/10k", "labels/sem_seg/masks"), ("seg/images", "seg/labels"))

# The classes of Cityscapes under their trainIds. Source: bdd100k/label/label.py of the data set's toolkit.
BDD100K = replace(CITYSCAPES, ids=tuple(range(19)), ignore_ids=(IGNORE_INDEX,), mask_ids=TRAIN_IDS)


def bdd100k(root: Path, split: str, transform: Transform | None = None) -> SegmentationDataset:
    """One split of BDD100K's 10k images below ``root``, 7000 / 1000 / 2000; those of test have no labels.

    Args:
        root: holds images/ and labels/, or seg/; or a folder bdd100k/ that does.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.

    Raises:
        InputError: a folder is missing or the split is empty.
    """
    require_folder(root, "data folder of BDD100K")
    if split not in SPLITS:
        raise MissingSplitError(f"no split {split!r}", f"BDD100K has {', '.join(SPLITS)}", root)
    roots = [place for place in (root, root / "bdd100k") if place.is_dir()]
    there = [(place / i / split, place / m / split) for place in roots for i, m in PLACES]
    images, masks = next((pair for pair in there if pair[0].is_dir()), there[0])
    if not images.is_dir():
        raise no_split(split, images)
    labelled = split != "test"
    if labelled and not masks.is_dir():
        raise no_masks(split, masks, "unpack the semantic segmentation labels there")
    form = f"BDD100K, {' and '.join(p.relative_to(root).as_posix() for p in (images, masks)[: 1 + labelled])}"
    listed = list_images(masks) if labelled else None
    return SegmentationDataset(
        "bdd100k", split, pair(list_images(images), listed, form, images, masks), BDD100K, transform
    )


FORMATS = (Format("bdd100k", "BDD100K, 10k images", bdd100k, tables={"bdd100k": BDD100K}, splits=SPLITS),)
