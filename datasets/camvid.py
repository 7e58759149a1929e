"""CamVid, 11 classes, in the form of the SegNet tutorial: train/ trainannot/ val/ valannot/ test/ testannot/.

Source: Brostow et al., "Semantic object classes in video: a high-definition ground truth database", 2009.
"""

from pathlib import Path, PureWindowsPath

from segloss.datasets.base import (
    MissingSplitError,
    SegmentationDataset,
    Transform,
    list_images,
    pair_by_stem,
    require_folder,
)
from segloss.datasets.classes import CAMVID_11
from segloss.errors import InputError


def camvid(root: Path, split: str, transform: Transform | None = None) -> SegmentationDataset:
    """One split of CamVid below ``root``; 367 / 101 / 233 images of 480x360 in train / val / test.

    An optional ``{split}.txt`` ("image mask" a line) chooses the files; only the file names in it are used, since
    its paths carry the prefix of whoever wrote it. Without ``{split}annot`` the split has no labels.

    Raises:
        InputError: a folder is missing, the split is empty, or an image has no mask.
    """
    require_folder(root, "data folder of CamVid")
    folder, mask_folder = root / split, root / f"{split}annot"
    if not folder.is_dir():
        raise MissingSplitError(f"{folder}: split {split!r} is missing; CamVid has train, val and test folders")
    images = list_images(folder)
    list_file = root / f"{split}.txt"
    if list_file.is_file():
        images = _chosen(images, list_file)
    masks = list_images(mask_folder) if mask_folder.is_dir() else None
    if masks is None and split != "test":
        raise InputError(f"{mask_folder}: masks of split {split!r} are missing; check --data-path")
    pairs = pair_by_stem(images, masks, folder, mask_folder)
    return SegmentationDataset("camvid", split, pairs, CAMVID_11, transform)


def _chosen(images: dict[str, Path], list_file: Path) -> dict[str, Path]:
    text = list_file.read_text(encoding="utf-8-sig", errors="replace")
    stems = [PureWindowsPath(line.split()[0]).stem for line in text.splitlines() if line.strip()]  # "/" and "\\" part
    missing = [stem for stem in stems if stem not in images]
    if missing:
        raise InputError(
            f"{list_file}: lists {missing[0]} ({len(missing)} in all) that is not in {list_file.with_suffix('')}"
        )
    return {stem: images[stem] for stem in stems}
