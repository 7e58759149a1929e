"""Anybody's data: images, masks of the same names, and a class file (classes.yaml, .json, .txt or class_dict.csv).

images/train/a.jpg    masks/train/a.png                   split folders (or labels/, annotations/; img_dir/, ann_dir/)
train/images/a.jpg    train/masks/a.png                   the same, the other way round
images/a.jpg          masks/a.png, train.txt              a list file a split: names, or "image mask" paths; classes
JPEGImages/a.jpg      SegmentationClass/a.png             Pascal VOC, ImageSets/Segmentation/train.txt
images/a.jpg          masks/a.png                         nothing else: a hash of the name decides who is in val
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path, PureWindowsPath

from segloss.datasets.annotations import outlines_instead_of_masks
from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.classes import ClassTable, read_class_file, taken_for
from segloss.datasets.finding import image_files, list_images, without_suffix
from segloss.datasets.listing import columns, read_list, rebased, refuse_twice
from segloss.datasets.lists import is_header, list_beside, list_lines, other_list
from segloss.datasets.missing import MissingSplitError, NoDataError, no_masks, no_split, picture_places, require_folder
from segloss.datasets.naming import source_of
from segloss.datasets.pairing import Pairing, pair, paired_with
from segloss.datasets.tables import ADE20K, VOC
from segloss.errors import InputError, unknown_name

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
NUMBERS = re.compile(r"[\d\s,;.]*")  # run lengths, counts, labels
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
    classes, table = _class_table(root, classes)
    images = _kind_folder(root, IMAGE_FOLDERS) or root / IMAGE_FOLDERS[0]
    masks = _kind_folder(root, MASK_FOLDERS) or root / MASK_FOLDERS[0]
    lists = _list_file(root, split, images)
    inside = _split_folder(root, "train")
    if lists is None and inside is not None and _kind_folder(inside, IMAGE_FOLDERS) is not None:
        found = _folders_in_splits(root, split)
    elif lists is not None:
        found = _listed(root, lists, images, masks, split, classes.names)
    elif any(_split_folder(_existing_images(root, images), s) for s in (*SPLIT_NAMES, split)):
        found = _split_folders(root, images, masks, split)
    elif (lists := other_list(root, split, images, masks)) is not None:
        found = _listed(root, lists, images, masks, split, classes.names)
    else:
        found = _hash_split(root, images, masks, split, val_share)
    if root in found.mask_place.parents and found.pairs:
        _tell_other_masks(found, masks if found.mask_place.is_relative_to(masks) else found.mask_place)
    found.form = f"{found.form}; {len(classes)} classes from {table}"
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


Kinds = tuple[dict[str, Path], dict[str, Path]]  # images and masks by name
Named = Callable[[str], str | None]
Paired = Callable[[str], tuple[Path, Path | None] | None]


def _class_table(root: Path, preset: ClassTable | None) -> tuple[ClassTable, str]:
    for name in (*CLASS_FILES, *(OTHER_CLASS_FILES if preset is None else ())):
        if (root / name).is_file():
            try:
                return read_class_file(root / name), name + taken_for(root / name)
            except InputError as error:
                raise NoDataError(*error.args) from error
    if preset is not None:
        return preset, "the built-in table"
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


def _listed(root: Path, lists: Path, images: Path, masks: Path, split: str, classes: Sequence[str]) -> Pairing:
    """A list file's pairs: lines of one name, looked up in images and masks, or of two paths, image and mask.

    Behind either may stand the classes that the image labels.
    """
    images_of = list_images(images) if images.is_dir() else {}
    lines = list_lines(lists, images_of)
    form = lists.relative_to(root).as_posix()
    masks_of = list_images(masks) if masks.is_dir() else None
    lasts = _last_names(images_of)
    name_of = cache(partial(_listed_name, root, beside=lists.parent, images=images, images_of=images_of, lasts=lasts))
    two_of = cache(partial(_two_paths, root, beside=lists.parent, kinds=(images_of, masks_of or {})))
    lines, parts = _classes_aside(lines, name_of, two_of, classes, lists)
    names = [name_of(line) for line in lines]
    unread = names[0] is None and two_of(lines[0]) is None
    if unread and names[1:] and not PureWindowsPath(lines[0]).suffix and is_header(lines[0]):
        lines, names, parts = lines[1:], names[1:], parts[1:]
    if None in names:
        _refuse_doubtful(lists, lines, name_of, (images_of, masks_of or {}))
        two = [two_of(line) for line in lines]
        unknown = [line for line, pair, name in zip(lines, two, names, strict=True) if not (pair or name)]
        _refuse_unknown(root, lists, images, unknown, name_of)
        pairs = _listed_pairs(lists, lines, names, two, masks_of or {})
        refuse_twice(lists, [image for image, _ in pairs])
        shared = sum(mask is not None for _, mask in pairs) - len({mask for _, mask in pairs if mask is not None})
        form += f" of images and masks{f', {shared} of them on the mask of another image' * bool(shared)}"
        found = Pairing(form, pairs, unique_names(root, [image for image, _ in pairs]))
        names = [*found.names]
    else:
        chosen = {name: images_of[name] for name in sorted(name for name in names if name)}
        refuse_twice(lists, [images_of[name] for name in names if name])
        if masks_of is None and split != "test":
            raise no_masks(split, masks)
        form = f"names from {form}, {images.name}/ and {masks.name}/"
        found = pair(chosen, masks_of, form, images, masks, images_of)
        if split == "test" and not found.pairs:
            found = pair(chosen, None, form, images, masks)
        found.lonely_masks = {}  # of other splits
    found.labelled = {name: part for name, part in zip(names, parts, strict=True) if name and part}
    found.lists = lists
    return found


def _classes_aside(
    lines: list[str], name_of: Named, two_of: Paired, classes: Sequence[str], lists: Path
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Lines without a last column of classes, and these classes; InputError for one that there is not."""
    found = [((line, ()) if name_of(line) or two_of(line) else _cut(line, name_of, two_of, classes)) for line in lines]
    for line, (_, part) in zip(lines, found, strict=True):
        unknown = next((name for name in part if name not in classes), None)
        if unknown is not None:
            raise unknown_name("class", unknown, classes, f"{lists}: {line}")
    return [line for line, _ in found], [part for _, part in found]


def _cut(line: str, name_of: Named, two_of: Paired, classes: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What is image, or image and mask, of a line, and the classes behind it; the line where there are none."""
    cuts = [(front, [name.strip(" \"'") for name in re.split(r"[;,|\t]", rest)]) for front, rest in columns(line)]
    for front, names in cuts:
        if two_of(front):
            return front, tuple(filter(None, names))
    for front, names in cuts:
        if name_of(front) and {*names} & {*classes}:
            return front, tuple(filter(None, names))
    return line, ()


def _refuse_doubtful(lists: Path, lines: Sequence[str], name_of: Named, kinds: Kinds) -> None:
    """InputError where each line has the name of an image and of a mask, and a number that may be no name of a mask, or
    the name of another image."""
    images_of, masks_of = kinds
    cuts = [cut[-1] if (cut := [*columns(line)]) else (line, "") for line in lines]
    found = [(name_of(front), number) for front, number in cuts]
    cure = "write one name a line, or the paths of image and mask with their endings"
    if all(name in masks_of and number.isdigit() for name, number in found):
        for line, (name, number) in zip(lines, found, strict=True):
            if name != number:
                what = f"lists {line}: image and mask are both called {name}, so {number} may be a count or a label"
                raise InputError(what, cure, lists)
    named = [(text, name_of(text)) for _, text in cuts]
    others = [n if n and PureWindowsPath(text).suffix in ("", images_of[n].suffix) else None for text, n in named]
    if all(name in masks_of and other not in (None, name) for (name, _), other in zip(found, others, strict=True)):
        raise InputError(f"lists {lines[0]}: two images, or an image and the mask of another?", cure, lists)


def _refuse_unknown(root: Path, lists: Path, images: Path, unknown: list[str], name_of: Named) -> None:
    """InputError for lines that are neither an image nor image and mask; of names and numbers it says what to write."""
    if unknown:
        cuts = (cut for line in unknown for cut in columns(line))
        numbers = any(name_of(front) and NUMBERS.fullmatch(rest) for front, rest in cuts)
        plain = "write one name a line, or move it away if it is no list"
        cure = plain if numbers else "add the files or remove the line"
        where = f"which is no image of {images} and no image and mask below {root}"
        raise InputError(f"lists {unknown[0]} ({len(unknown)} in all), {where}", cure, lists)


def _listed_pairs(
    lists: Path,
    lines: list[str],
    names: list[str | None],
    pairs: list[tuple[Path, Path | None] | None],
    masks_of: dict[str, Path],
) -> list[tuple[Path, Path | None]]:
    """Image and mask of every line; InputError for a line of one name though others are of two."""
    masks = {*masks_of.values()}
    turned = [line for line, pair in zip(lines, pairs, strict=True) if pair and pair[0] in masks]
    if turned:
        raise InputError(f"lists {turned[0]}, whose first file is a mask", "write the image first", lists)
    if None in pairs:
        one, two = lines[pairs.index(None)], lines[names.index(None)]
        what = f"lists {one}, an image, and {two}, image and mask"
        raise InputError(what, "write all lines in one form", lists)
    return [pair for pair in pairs if pair]


def _last_names(images_of: dict[str, Path]) -> dict[str, str]:
    """Images by what their files are called, with ending and without, where no other is called so."""
    called = [(last, name) for name, path in images_of.items() for last in {name.rsplit("/", 1)[-1], _nfc(path.name)}]
    counts = Counter(last for last, _ in called)
    return {last: name for last, name in called if counts[last] == 1}


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _listed_name(
    root: Path, line: str, beside: Path, images: Path, images_of: dict[str, Path], lasts: dict[str, str]
) -> str | None:
    """The image that a line of one name or path means; None if it is none."""
    for text in dict.fromkeys((line, line.strip("\"'"))):
        plain = _nfc(PureWindowsPath(text).as_posix())
        for name in (plain, without_suffix(plain)):
            if name in images_of:
                return name
    path = rebased(root, line, beside)
    if path is None:
        return lasts.get(plain)
    if images not in path.parents:
        return None
    name = _nfc(path.relative_to(images).with_suffix("").as_posix())
    return name if images_of.get(name) == path else None  # another file may have the same stem


def _two_paths(root: Path, line: str, beside: Path, kinds: Kinds) -> tuple[Path, Path | None] | None:
    """Image and mask of a line: paths, or names in the folders of images and masks."""
    for texts in columns(line):
        image, mask = (
            rebased(root, text, beside) or _named(without_suffix(text.strip("\"'")), kind)
            for text, kind in zip(texts, kinds, strict=True)
        )
        if image is not None and mask is not None:
            return image, mask
    return None


def _named(name: str, files: dict[str, Path]) -> Path | None:
    return files.get(_nfc(PureWindowsPath(name).as_posix()))


def unique_names(root: Path, images: list[Path]) -> list[str]:
    """The stems; where two are alike the paths below ``root``, and where these are too, with their endings."""
    paths = [image.relative_to(root) for image in images]
    stems = [path.stem for path in paths]
    plain = [path.with_suffix("").as_posix() for path in paths]
    return next((n for n in (stems, plain) if len({*n}) == len(n)), [path.as_posix() for path in paths])


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


def _stem_hash(name: str) -> float:
    """Uniform in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _hash_split(root: Path, images: Path, masks: Path, split: str, val_share: float) -> Pairing:
    if split not in ("train", "val"):
        raise MissingSplitError(f"has no folder {split!r}", "without split folders there are train and val", images)
    if not 0 < val_share < 1:
        raise InputError(f"--val-share must be between 0 and 1, got {val_share}", "0.2 is usual")
    _refuse_own_folders(images, masks)
    form = f"{images.name}/ and {masks.name}/, {val_share:.0%} of them for val by a hash of the name"
    every = pair(list_images(images), list_images(_existing_masks(root, masks)), form, images, masks)
    if len(every.pairs) < 2:
        if every.lonely_images:  # found out by the caller, who says more
            return every
        raise InputError("is the only image", "a training and a validation image are needed", every.pairs[0][0])
    hash_of = _hash_of(every.names)
    last = max(hash_of(every.names[place]) for place in hash_split(every.names, val_share)["val"])
    return every.only(lambda name: (hash_of(name) <= last) == (split == "val"))


def _refuse_own_folders(images: Path, masks: Path) -> None:
    """InputError where all images lie in folders that the masks have too: splits that somebody made on purpose."""
    places = [{path.relative_to(kind).parts[0] for path in image_files(kind)} for kind in (images, masks)]
    if len(places[0]) > 1 and places[0] <= places[1] and all((images / name).is_dir() for name in places[0]):
        shown = ", ".join(sorted(places[0])[:3])
        what = f"has the folders {shown}{' ...' if len(places[0]) > 3 else ''}, none of which is train or val"
        raise InputError(what, "rename them, or write train.txt and val.txt with a name or path a line", images)


def hash_split(names: Sequence[str], val_share: float) -> dict[str, list[int]]:
    """Places of the names in ``train`` and ``val``; where there are few, each still gets one. Copies of a picture
    (:func:`source_of`) stay together."""
    hashes = [*map(_hash_of(names), names)]
    pictures = sorted({*hashes})
    below = sum(one < val_share for one in pictures)
    chosen = {*pictures[: min(max(below, 1), len(pictures) - 1)]}
    in_val = [one in chosen for one in hashes]
    return {split: [place for place, one in enumerate(in_val) if one == (split == "val")] for split in ("train", "val")}


def _hash_of(names: Sequence[str]) -> Callable[[str], float]:
    """Of the picture that a name is a copy of; where all are of one, of the name."""
    several = len({*map(source_of, names)}) > 1
    return lambda name: _stem_hash(source_of(name) if several else name)
