"""Data sets: pairs of images and label maps, from files or made up. Installed as ``segloss.datasets``."""

import os
from pathlib import Path

from segloss.datasets.base import MissingSplitError, NoDataError, SegmentationDataset, Transform
from segloss.datasets.classes import ClassTable
from segloss.errors import InputError, unknown_name

DATASETS = ("camvid", "cityscapes", "cityscapes-coarse", "ade20k", "voc", "folder", "synthetic")


def build_dataset(
    name: str,
    root: str | Path | None,
    split: str,
    transform: Transform | None = None,
    *,
    val_share: float = 0.2,
    classes: int | None = None,
    lonely: bool = False,
) -> SegmentationDataset:
    """A split of a data set by name.

    Args:
        name: one of ``DATASETS``.
        root: its folder; ``synthetic`` needs none, Cityscapes' default is ``$CITYSCAPES_DATASET``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.
        val_share: of ``folder`` without split folders.
        classes: of ``camvid``: 11 or 32.
        lonely: leave out images without mask instead of refusing them.

    Raises:
        NoDataError: missing folder or class file.
        InputError: unknown name, missing or empty split, image without mask.
    """
    dataset = _build(name, root, split, transform, val_share, classes)
    if not lonely:
        dataset.check_partners()
    return dataset


def _build(
    name: str, root: str | Path | None, split: str, transform: Transform | None, val_share: float, classes: int | None
) -> SegmentationDataset:
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    if classes is not None and name != "camvid":
        raise InputError(f"--classes {classes} chooses among CamVid's forms; {name} has the classes of its table")
    if name == "synthetic":
        from segloss.datasets.synthetic import SyntheticStreets

        return SyntheticStreets(split, transform)
    if name.startswith("cityscapes"):
        from segloss.datasets.cityscapes import ROOT_VARIABLE, cityscapes

        place = _required_root(name, root or os.environ.get(ROOT_VARIABLE), f" (or ${ROOT_VARIABLE})")
        return cityscapes(place, split, transform, coarse=name == "cityscapes-coarse")
    place = _required_root(name, root)
    if name == "camvid":
        from segloss.datasets.camvid import camvid

        return camvid(place, split, transform, classes)
    from segloss.datasets.folder import folder
    from segloss.datasets.tables import ADE20K, VOC

    return folder(place, split, transform, val_share, name=name, classes={"ade20k": ADE20K, "voc": VOC}.get(name))


def _required_root(name: str, root: str | Path | None, also: str = "") -> Path:
    if root is None:
        raise NoDataError(f"data set {name!r} needs --data-path{also}, the folder that holds it")
    return Path(root)


__all__ = ["DATASETS", "ClassTable", "MissingSplitError", "NoDataError", "SegmentationDataset", "build_dataset"]
