"""Data sets: pairs of images and label maps, from files or made up. Installed as ``segloss.datasets``."""

from pathlib import Path

from segloss.datasets.base import MissingSplitError, SegmentationDataset, Transform
from segloss.datasets.classes import ClassTable
from segloss.errors import InputError, unknown_name

DATASETS = ("camvid", "folder", "synthetic")


def build_dataset(
    name: str,
    root: str | Path | None,
    split: str,
    transform: Transform | None = None,
    *,
    val_share: float = 0.2,
) -> SegmentationDataset:
    """A split of a data set by name.

    Args:
        name: one of ``DATASETS``.
        root: its folder; ``synthetic`` needs none.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.
        val_share: of ``folder`` without split folders.

    Raises:
        InputError: unknown name, missing folder, empty split, image without mask.
    """
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    if name == "synthetic":
        from segloss.datasets.synthetic import SyntheticStreets

        return SyntheticStreets(split, transform)
    if root is None:
        raise InputError(f"data set {name!r} needs --data-path, the folder that holds it")
    if name == "camvid":
        from segloss.datasets.camvid import camvid

        return camvid(Path(root), split, transform)
    from segloss.datasets.folder import folder

    return folder(Path(root), split, transform, val_share)


__all__ = ["DATASETS", "ClassTable", "MissingSplitError", "SegmentationDataset", "build_dataset"]
