"""Anybody's data: images, masks of the same names, and a class file (classes.yaml, .json, .txt or class_dict.csv).

images/train/a.jpg    masks/train/a.png                   split folders (or labels/, annotations/; img_dir/, ann_dir/)
train/images/a.jpg    train/masks/a.png                   the same, the other way round
images/a.jpg          masks/a.png, train.txt              a list file a split: names, or "image mask" paths; classes
JPEGImages/a.jpg      SegmentationClass/a.png             Pascal VOC, ImageSets/Segmentation/train.txt
images/a.jpg          masks/a.png                         nothing else: a hash of the name decides who is in val
"""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segloss.datasets.annotations import outlines_instead_of_masks
from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.class_files import read_class_file, said_otherwise, taken_for
from segloss.datasets.classes import ClassTable
from segloss.datasets.finding import image_files, list_images
from segloss.datasets.list_files import list_beside, other_list
from segloss.datasets.list_lines import read_list
from segloss.datasets.list_pairs import listed
from segloss.datasets.missing import MissingSplitError, NoDataError, no_masks, no_split, picture_places, require_folder
from segloss.datasets.pairing import Pairing, pair, paired_with
from segloss.datasets.splits import SPLIT_NAMES, VAL_SHARE, hash_split, picture_hash
from segloss.datasets.tables import ADE20K, VOC
from segloss.errors import InputError

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json", "classes.txt", "class_dict.csv", "label_colors.txt")
OTHER_CLASS_FILES = ("labelmap.txt", "labels.txt", "class_names.txt", "classes.csv")  # CVAT's, labelme's
IMAGE_FOLDERS = ("images", "img_dir", "JPEGImages", "image", "imgs", "img")
IMAGE_NAMES = frozenset(name.lower() for name in IMAGE_FOLDERS)  # of which any capitals are meant too
MASK_FOLDERS = (
    *("masks", "labels", "annotations", "ann_dir", "SegmentationClassPNG", "SegmentationClass", "mask", "label", "gt"),
    *("gts", "annotation", "groundtruth", "ground_truth", "SegmentationClassRaw"),
)
OF_MASKS = re.compile(r"mask|label|anno|ann_dir|class|gts?$|truth|manual|seg|target|trimap")  # in a folder's name
NO_CLASSES = re.compile(r"object|instance|panoptic")
SAYS_LABELS = re.compile(r"masks|label|anno|ann_dir|class|gts?$|truth|seg")  # mask/ may be the field of view
OF_RETINAS = re.compile(r"manual|target")  # beside such a one
LIST_FOLDERS = (".", "ImageSets/Segmentation", "splits")


def folder(
    root: Path,
    split: str,
    transform: Transform | None = None,
    val_share: float = VAL_SHARE,
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
        NoDataError: there is no folder or class file, or outlines lie there instead of masks.
        InputError: something else is missing.
    """
    try:
        dataset = _open(root, split, transform, val_share, name, classes)
    except InputError:
        _refuse_outlines(root)
        raise
    if not dataset.pairs:
        _refuse_outlines(root)
    return dataset


def _refuse_outlines(root: Path) -> None:
    """NoDataError where files of outlines lie and no mask does."""
    places = [root, *(path for path in root.glob("*") if path.is_dir())]
    kinds = [kind for place in places if (kind := _kind_folder(place, MASK_FOLDERS)) is not None]
    if not any(True for kind in kinds for _ in image_files(kind)) and (outlines := outlines_instead_of_masks(root)):
        raise NoDataError(*outlines.args)


def _open(
    root: Path, split: str, transform: Transform | None, val_share: float, name: str, classes: ClassTable | None
) -> SegmentationDataset:
    require_folder(root, "data folder")
    classes, table, doubts = _class_table(root, classes)
    images = _kind_folder(root, IMAGE_FOLDERS) or root / IMAGE_FOLDERS[0]
    masks = _kind_folder(root, MASK_FOLDERS) or root / MASK_FOLDERS[0]
    lists = _list_file(root, split, images)
    inside = _split_folder(root, "train")
    if lists is None and inside is not None and _kind_folder(inside, IMAGE_FOLDERS) is not None:
        found = _folders_in_splits(root, split)
    elif lists is not None:
        found = listed(root, lists, images, masks, split, classes.names)
    elif any(_split_folder(_existing_images(root, images), s) for s in (*SPLIT_NAMES, split)):
        found = _split_folders(root, images, masks, split)
    elif (lists := other_list(root, split, images, masks)) is not None:
        found = listed(root, lists, images, masks, split, classes.names)
    else:
        found = _hash_split(root, images, masks, split, val_share)
    if root in found.mask_place.parents and found.pairs:
        _tell_other_masks(found, masks if found.mask_place.is_relative_to(masks) else found.mask_place)
    found.form = f"{found.form}; {len(classes)} classes from {table}"
    found.doubts += doubts
    return SegmentationDataset(name, split, found, classes, transform)


def _tell_other_masks(found: Pairing, masks: Path) -> None:
    """Note folders beside that of the masks whose files are called as masks of most images too, and are not read.

    Raises:
        InputError: manual1/ or target/ has as many as mask/, which says no labels: of retinas it is the field of view.
    """
    images = {name: image for name, (image, _) in zip(found.names, found.pairs, strict=True)} | found.lonely_images
    inside = found.mask_place.relative_to(masks)
    for other in sorted(path for path in masks.parent.iterdir() if path.is_dir() and not path.samefile(masks)):
        word = other.name.lower()
        if word.startswith(".") or not OF_MASKS.search(word) or NO_CLASSES.search(word):
            continue
        there = paired_with(images, other / inside)
        plain = not any(map(SAYS_LABELS.search, (word, masks.name.lower())))
        if plain and OF_RETINAS.search(word) and there >= len(found.pairs):
            what = f"{masks.name}/ and {other.name}/ both hold masks of the images"
            cure = f"call the one that is meant {MASK_FOLDERS[0]}, and move the other away"
            raise InputError(what, cure, masks.parent)
        if 2 * there > len(images):
            found.other_masks.append(other / inside)
            found.form += f"; {other.name}/ holds masks of these images too, not read"


_OPTIONS = {"val_share": "folder without split folders or lists: share of images in val"}
FORMATS = (
    Format("ade20k", "ADE20K", partial(folder, name="ade20k", classes=ADE20K), {"ade20k": ADE20K}, _OPTIONS),
    Format("voc", "Pascal VOC", partial(folder, name="voc", classes=VOC), {"voc": VOC}, _OPTIONS),
    Format("folder", "your images, masks and class file", folder, options=_OPTIONS),
)


def _class_table(root: Path, preset: ClassTable | None) -> tuple[ClassTable, str, list[InputError]]:
    """The class table, where it is from, and what other class files beside that one say."""
    there = [path for name in (*CLASS_FILES, *OTHER_CLASS_FILES) if (path := root / name).is_file()]
    if there and (preset is None or there[0].name in CLASS_FILES):
        try:
            table = read_class_file(there[0])
            return table, there[0].name + taken_for(there[0]), said_otherwise(table, there[0], there[1:])
        except InputError as error:
            raise NoDataError(*error.args) from error
    if preset is not None:
        return preset, "the built-in table", []
    cure = "write the class names there, one '- name' a line"
    raise NoDataError("class file is missing", cure, root / CLASS_FILES[0])


def _list_file(root: Path, split: str, images: Path) -> Path | None:
    """The file that lists a split; None where the data has no lists.

    Raises:
        InputError: only this one is missing, or two folders hold lists of the split that say other things.
    """
    there = [path for place in LIST_FOLDERS if (path := root / place / f"{split}.txt").is_file()]
    for path in there[1:]:
        if not path.samefile(there[0]) and sorted(read_list(path)) != sorted(read_list(there[0])):
            raise InputError(f"lists images of {split}, and {there[0]} others", "keep one of the two", path)
    for place in LIST_FOLDERS:
        paths = {s: root / place / f"{s}.txt" for s in (*SPLIT_NAMES, split)}
        for path in paths.values():
            if path.is_symlink() and not path.exists():
                raise InputError("is a link to a file that is not there", "mend the link or remove it", path)
        if paths[split].is_file():
            return paths[split]
        if paths["train"].is_file():
            if (beside := list_beside(paths["train"], split, images)) is not None:
                return beside
            what, cure = f"is missing, so there is no split {split!r}", "write the list, or choose another split"
            if there:
                cure = f"put the lists side by side: {there[0]} lies elsewhere"
            raise MissingSplitError(what, cure, paths[split])
    return None


def _kind_folder(place: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders, in capitals or not, that holds an image, else the first there is."""
    entries = sorted(os.scandir(place), key=lambda entry: entry.name) if place.is_dir() else []
    folders = [Path(entry.path) for entry in entries if _is_folder(entry)]
    there = [folder for name in names for folder in folders if folder.name.lower() == name.lower()]
    return next((folder for folder in there if any(image_files(folder))), there[0] if there else None)


def _folders_in_splits(root: Path, split: str) -> Pairing:
    """``train/images`` and ``train/masks``."""
    place = _split_folder(root, split)
    if place is None:
        raise no_split(split, root / split)
    images, masks = _kind_folder(place, IMAGE_FOLDERS), _kind_folder(place, MASK_FOLDERS)
    if images is None or (masks is None and split != "test"):
        what = f"folder of {'images' if images is None else 'masks'} is missing"
        raise InputError(what, "add it, or check --data-path", place)
    form = f"{place.name}/{images.name}/ and {place.name}/{(masks or images).name}/"
    return pair(list_images(images), _masks_of(masks, split), form, images, masks or place)


def _masks_of(folder: Path | None, split: str) -> dict[str, Path] | None:
    """Masks of a folder; None where a test split has none."""
    listed = None if folder is None else list_images(folder)
    return None if split == "test" and not listed else listed


def _split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split by any of its names, in capitals or not."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
    names = SPLIT_NAMES.get(split, (split.lower(),))
    there = [
        Path(entry.path) for name in names for entry in entries if entry.name.lower() == name and _is_folder(entry)
    ]
    filled = [path for path in there if any(True for _ in image_files(path))]
    if len(filled) > 1:
        what = f"has the folders {filled[0].name} and {filled[1].name}, both of {split}"
        raise InputError(what, "join them, or rename one", folder)
    return next(iter(filled or there), None)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """False, and no error, for what links to itself."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _split_folders(root: Path, images: Path, masks: Path, split: str) -> Pairing:
    image_folder = _split_folder(images, split)
    if image_folder is None:
        raise no_split(split, images / split)
    mask_folder = _split_folder(_existing_masks(root, masks), split)
    if mask_folder is None and split != "test":
        raise no_masks(split, masks / image_folder.name)
    form = f"{images.name}/{image_folder.name} and {masks.name}/{(mask_folder or image_folder).name}"
    return pair(list_images(image_folder), _masks_of(mask_folder, split), form, image_folder, mask_folder or masks)


def _existing_images(root: Path, images: Path) -> Path:
    if not images.is_dir():
        places = picture_places(root)
        lie = f"pictures lie in {', '.join(places[:4])}{' ...' if places[4:] else ''}"
        link = "rename or link those of images to images/ and those of masks to masks/"
        cure = f"{lie}: {link}, or write train.txt and val.txt of lines 'image mask'" if places else "check --data-path"
        raise NoDataError("folder of images is missing", cure, images)
    return images


def _existing_masks(root: Path, masks: Path) -> Path:
    if not masks.is_dir():
        what = f"folder of masks is missing (or {', '.join(MASK_FOLDERS[1:])})"
        raise InputError(what, "add it, or check --data-path", root / MASK_FOLDERS[0])
    return masks


def _hash_split(root: Path, images: Path, masks: Path, split: str, val_share: float) -> Pairing:
    if split not in ("train", "val"):
        raise MissingSplitError(f"has no folder {split!r}", "without split folders there are train and val", images)
    if not 0 < val_share < 1:
        raise InputError(f"--val-share must be between 0 and 1, got {val_share}", "0.2 is usual")
    _refuse_own_folders(images, masks)
    form = f"{images.name}/ and {masks.name}/, {val_share:.0%} of them for val by a hash of the name"
    every = pair(list_images(images), list_images(_existing_masks(root, masks)), form, images, masks)
    every.by_hash = True
    if len(every.pairs) < 2:
        if every.lonely_images:  # found out by the caller, who says more
            return every
        raise InputError("is the only image", "a training and a validation image are needed", every.pairs[0][0])
    hashed = picture_hash(every.names)
    last = max(hashed(every.names[place]) for place in hash_split(every.names, val_share)["val"])
    return every.only(lambda name: (hashed(name) <= last) == (split == "val"))


def _refuse_own_folders(images: Path, masks: Path) -> None:
    """InputError where all images lie in folders that the masks have too: splits that somebody made on purpose."""
    places = [{path.relative_to(kind).parts[0] for path in image_files(kind)} for kind in (images, masks)]
    if len(places[0]) > 1 and places[0] <= places[1] and all((images / name).is_dir() for name in places[0]):
        shown = ", ".join(sorted(places[0])[:3])
        what = f"has the folders {shown}{' ...' if len(places[0]) > 3 else ''}, none of which is train or val"
        raise InputError(what, "rename them, or write train.txt and val.txt with a name or path a line", images)
