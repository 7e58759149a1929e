"""Anybody's data: images, masks of the same names, and a class file (classes.yaml, .json, .txt or class_dict.csv).

images/train/a.jpg    masks/train/a.png                   split folders (or labels/, annotations/; img_dir/, ann_dir/)
images/a.jpg          masks/a.png, train.txt              a list file a split: names, or "image mask" paths
JPEGImages/a.jpg      SegmentationClass/a.png             Pascal VOC, ImageSets/Segmentation/train.txt
images/a.jpg          masks/a.png                         nothing else: a hash of the name decides who is in val
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from segloss.datasets.base import MissingSplitError, Pairing, SegmentationDataset, Transform, pair, require_folder
from segloss.datasets.classes import ClassTable, read_class_file
from segloss.datasets.images import list_images
from segloss.errors import InputError

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json", "classes.txt", "class_dict.csv", "label_colors.txt")
IMAGE_FOLDERS = ("images", "img_dir", "JPEGImages")
MASK_FOLDERS = ("masks", "labels", "annotations", "ann_dir", "SegmentationClass")
LIST_FOLDERS = (".", "ImageSets/Segmentation", "splits")
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}


def folder(
    root: Path,
    split: str,
    transform: Transform | None = None,
    val_share: float = 0.2,
    *,
    name: str = "folder",
    classes: ClassTable | None = None,
) -> SegmentationDataset:
    """One split of the data below ``root``.

    Args:
        root: as above.
        split: ``train``, ``val`` or ``test``, or any other folder or list file there is.
        transform: as in :class:`SegmentationDataset`.
        val_share: without split folders or lists: the share of images in ``val``, chosen by a hash of the name, so
            that adding images moves none of the old ones.
        name: of the data set.
        classes: used where ``root`` holds no class file.

    Raises:
        InputError: something is missing.
    """
    require_folder(root, "data folder")
    classes, table = _class_table(root, classes)
    images = root / next((name for name in IMAGE_FOLDERS if (root / name).is_dir()), IMAGE_FOLDERS[0])
    masks = root / next((name for name in MASK_FOLDERS if (root / name).is_dir()), MASK_FOLDERS[0])
    lists = _list_file(root, split)
    if lists is not None:
        found = _listed(root, lists, images, masks, split)
    elif any(_split_folder(require_folder(images, "folder of images"), s) for s in (*SPLIT_NAMES, split)):
        found = _split_folders(root, images, masks, split)
    else:
        found = _hash_split(root, images, masks, split, val_share)
    found.form = f"{found.form}; {len(classes)} classes from {table}"
    return SegmentationDataset(name, split, found, classes, transform)


def _class_table(root: Path, preset: ClassTable | None) -> tuple[ClassTable, str]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            return read_class_file(root / name), name
    if preset is not None:
        return preset, "the built-in table"
    raise InputError(
        f"{root / CLASS_FILES[0]}: class file is missing; write the class names there, one '- name' a line"
    )


def _list_file(root: Path, split: str) -> Path | None:
    """The file that lists a split; None where the data has no lists. InputError if only this one is missing."""
    for place in LIST_FOLDERS:
        paths = {s: root / place / f"{s}.txt" for s in (*SPLIT_NAMES, split)}
        if paths[split].is_file():
            return paths[split]
        if paths["train"].is_file():
            raise MissingSplitError(f"{paths[split]}: is missing, so there is no split {split!r}")
    return None


def _listed(root: Path, lists: Path, images: Path, masks: Path, split: str) -> Pairing:
    """A list file's pairs: lines of one name, looked up in images and masks, or of two paths, image and mask."""
    text = lists.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{lists}: lists nothing; write one name, or image and mask, a line")
    form = f"{lists.relative_to(root).as_posix()}"
    if all(len(line) == 2 for line in lines):
        pairs = [(_rebased(root, image, lists), _rebased(root, mask, lists)) for image, mask in lines]
        return Pairing(f"{form} of images and masks", pairs, _unique_names([image for image, _ in pairs]))
    images_of = list_images(require_folder(images, "folder of images"))
    names = [_without_suffix(line[0]) for line in lines]
    missing = [name for name in names if name not in images_of]
    if missing:
        raise InputError(f"{lists}: lists {missing[0]} ({len(missing)} in all) that is not in {images}")
    masks_of = list_images(masks) if masks.is_dir() else None
    if masks_of is not None and split == "test" and not any(name in masks_of for name in names):
        masks_of = None
    if masks_of is None and split != "test":
        raise InputError(f"{masks}: masks of split {split!r} are missing")
    form = f"names from {form}, {images.name}/ and {masks.name}/"
    found = pair({name: images_of[name] for name in sorted(names)}, masks_of, form, images, masks)
    found.lonely_masks = []  # of other splits
    return found


def _without_suffix(name: str) -> str:
    plain = PureWindowsPath(name).as_posix()
    return plain if "." not in plain.rsplit("/", 1)[-1] else plain.rsplit(".", 1)[0]


def _rebased(root: Path, text: str, lists: Path) -> Path:
    """A path of a list below ``root``, whatever prefix its writer had."""
    parts = PureWindowsPath(text).parts
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if start + 1 <= len(parts) and not PureWindowsPath(*parts[start:]).anchor and path.is_file():
            return path
    raise InputError(f"{lists}: lists {text}, which is not below {root}")


def _unique_names(images: list[Path]) -> list[str]:
    stems = [image.stem for image in images]
    return stems if len(set(stems)) == len(stems) else [f"{image.parent.name}/{image.stem}" for image in images]


def _split_folder(folder: Path, split: str) -> Path | None:
    return next((folder / s for s in SPLIT_NAMES.get(split, (split,)) if (folder / s).is_dir()), None)


def _split_folders(root: Path, images: Path, masks: Path, split: str) -> Pairing:
    image_folder = _split_folder(images, split)
    if image_folder is None:
        raise MissingSplitError(f"{images / split}: split {split!r} is missing")
    mask_folder = _split_folder(_existing_masks(root, masks), split)
    if mask_folder is None and split != "test":
        raise InputError(f"{masks / image_folder.name}: masks of split {split!r} are missing")
    form = f"{images.name}/{image_folder.name} and {masks.name}/{(mask_folder or image_folder).name}"
    listed = None if mask_folder is None else list_images(mask_folder)
    return pair(list_images(image_folder), listed, form, image_folder, mask_folder or masks)


def _existing_masks(root: Path, masks: Path) -> Path:
    if not masks.is_dir():
        raise InputError(f"{root / MASK_FOLDERS[0]}: folder of masks is missing (or {', '.join(MASK_FOLDERS[1:])})")
    return masks


def _stem_hash(name: str) -> float:
    """Uniform in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _hash_split(root: Path, images: Path, masks: Path, split: str, val_share: float) -> Pairing:
    if split not in ("train", "val"):
        raise MissingSplitError(f"{images}: has no folder {split!r}; without split folders there are train and val")
    if not 0 < val_share < 1:
        raise InputError(f"--val-share must be between 0 and 1, got {val_share}")
    form = f"{images.name}/ and {masks.name}/, {val_share:.0%} of them for val by a hash of the name"
    every = pair(list_images(images), list_images(_existing_masks(root, masks)), form, images, masks)
    if len(every.pairs) < 2:
        if every.lonely_images:  # found out by the caller, who says more
            return every
        raise InputError(f"{every.pairs[0][0]}: is the only image; a training and a validation image are needed")
    return every.only(hash_split(every.names, val_share)[split])


def hash_split(names: Sequence[str], val_share: float) -> dict[str, list[int]]:
    """Places of the names in ``train`` and ``val``; where there are few, each still gets one."""
    by_hash = sorted(range(len(names)), key=lambda place: _stem_hash(names[place]))
    below = sum(_stem_hash(name) < val_share for name in names)
    in_val = min(max(below, 1), len(names) - 1)
    return {"train": sorted(by_hash[in_val:]), "val": sorted(by_hash[:in_val])}
