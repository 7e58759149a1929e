"""COCO JSON, Roboflow's too: polygons, run lengths, crowds. https://cocodataset.org/#format-data"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from segloss.datasets.annotations import plain_number, read_json
from segloss.errors import InputError
from segloss.rasterise.drawing import IGNORED
from segloss.rasterise.regions import (
    FILLED,
    LEAST_SIDE,
    Region,
    around,
    box_of,
    has_ring_within,
    overlap,
    polygons,
    rectangle,
    ring_of,
    run_lengths,
)
from segloss.rasterise.sources import NOT_UNDERSTOOD, Images, Item, Picture, Source, named_split, split_of

YES = ("1", "True")
KEYPOINTS = "keypoints"  # in the names of COCO's files and of what their categories hold
LEAST_OVERLAP = 0.5
MISSED = {
    "run lengths": "written row by row? COCO's are column by column",
    "outlines": "x and y swapped, or of another size of the image?",
}
LISTED = 6  # classes of which a note tells one by one


def read_coco(
    files: Sequence[Path], root: Path, images: Images, *, fill_boxes: bool = False, crowds: str = "auto"
) -> Source:
    """Pictures of all ``images`` of the files, those without annotations too; classes by category id.

    Args:
        crowds: ``draw`` as the others, ``ignore``, or ``auto``: ignore unless they may be brush masks.

    Raises:
        InputError: a file is no COCO JSON of instances, or its crowds may be brush masks.
    """
    source = Source()
    of_instances = {split_of(file, root) for file in files if not re.search(f"captions|{KEYPOINTS}", file.stem)}
    for path in files:
        is_other = KEYPOINTS in path.stem and split_of(path, root) in of_instances
        content = _content(path, source, is_other)
        if content is None:
            continue
        categories = _categories(content, path, source)
        source.add_classes(categories.values())
        _tell_crowds(content, categories, path, crowds, source)
        _tell_holes(content, path, source)
        if _is_elsewhere(content, path, source):
            continue
        of_file = split_of(path, root)
        of_image: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        known = {_id(entry) for entry in content["images"]}
        if len(known) < len(content["images"]):
            raise InputError("gives an image no id, or two images one", "number the images", path)
        for place, entry in enumerate(content["annotations"]):
            where = f"annotation {_id(entry) or f'number {place}'}"
            if (image := _id(entry, "image_id")) not in known:
                source.fault(f"{path}: {where}", f"is of image_id {image or None}, which is not listed")
                continue
            of_image[image].append((where, entry))
        for entry in content["images"]:
            split = named_split(_id(entry, "split") or _id(entry, "subset")) or of_file
            try:
                name, size = str(entry["file_name"]), (int(entry["height"]), int(entry["width"]))
                picture = Picture(images.find(name, path.parent, split), split, path, size=size)
            except (ValueError, KeyError, TypeError) as error:
                why = str(error) if type(error) is ValueError else "has no file_name, height and width"
                source.fault(f"{path}: image {_id(entry)}", why, "add the image, say --image-dir, or remove it")
                continue
            rows = of_image[_id(entry)]
            made = [
                (where, partial(_item, row, categories, where, fill_boxes, crowds == "draw"), partial(_extent, row))
                for where, row in rows
            ]
            picture.items = source.items(path, made)
            source.pictures.append(picture)
    return source


def _id(entry: Any, key: str = "id") -> str:
    """As text, since some write numbers so; nothing where there is none."""
    return str(plain_number(entry[key])) if isinstance(entry, dict) and entry.get(key) is not None else ""


def _content(path: Path, source: Source, is_other: bool) -> dict[str, Any] | None:
    """None for captions, which have no categories, and for keypoints where another file has the split's outlines."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise InputError("is no COCO file (images, annotations, categories)", "export instances", path)
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in content["annotations"]):
        cure = "its PNGs are the masks: convert them with panopticapi, or give the instances file as SOURCE"
        raise InputError("is COCO panoptic", cure, path)
    categories = content.get("categories")
    if is_other and categories and all(isinstance(entry, dict) and KEYPOINTS in entry for entry in categories):
        source.notes.append(f"{path}: has keypoints, and other files the instances, passed over")
        return None
    if isinstance(categories, list):
        return content
    source.notes.append(f"{path}: has no categories and so no instances, passed over")
    return None


def _categories(content: dict[str, Any], path: Path, source: Source) -> dict[str, str]:
    """Names by id, in the order of the ids; without a group that only holds the others, as Roboflow writes one."""
    try:
        named = {int(entry["id"]): entry for entry in content["categories"]}
        names = {str(number): _name(named[number]["name"]) for number in sorted(named)}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("a category has no id and name", "write both for each", path) from error
    if len(named) < len(content["categories"]):
        raise InputError("gives two categories one id", "number the categories", path)
    for name, count in Counter(names.values()).items():
        if count > 1:
            of_name = [number for number, own in names.items() if own == name]
            source.notes.append(f"{path}: categories {' and '.join(of_name)} are called {name!r}: they are one class")
    used = {_id(entry, "category_id") for entry in content["annotations"]}
    holders = {entry.get("supercategory") for entry in named.values()}
    for number, name in [*names.items()]:
        if number not in used and name in holders and named[int(number)].get("supercategory") in (None, "none", ""):
            source.notes.append(f"{path}: category {name!r} holds others and has no annotation: it is no class")
            del names[number]
    return names


def _name(value: Any) -> str:
    """ValueError for what is no name."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError("has no name")
    return str(value).strip()


def _is_crowd(value: Any) -> bool:
    if str(value) not in ("0", "1", "True", "False", "None"):
        raise ValueError(f"has iscrowd {value!r}, neither 0 nor 1")
    return str(value) in YES


def _says_ignore(entry: dict[str, Any]) -> bool:
    """By a key that COCO itself does not have: whatever else stands there says nothing."""
    return str(entry.get("ignore")).lower() in ("1", "1.0", "true")


def _tell_crowds(content: dict[str, Any], names: dict[str, str], path: Path, crowds: str, source: Source) -> None:
    """How many of each class are ignored; InputError where crowds may be brush masks: CVAT exports these so."""
    entries = [entry for entry in content["annotations"] if isinstance(entry, dict)]
    all_of, groups, ignored = Counter[str](), Counter[str](), Counter[str]()
    for entry in entries:
        name = names.get(_id(entry, "category_id"), "")
        is_group = str(entry.get("iscrowd")) in YES
        all_of[name] += 1
        groups[name] += is_group
        ignored[name] += (is_group and crowds != "draw") or _says_ignore(entry)
    runs = [entry for entry in entries if isinstance(entry.get("segmentation"), dict)]
    if crowds == "auto" and runs and all(str(entry.get("iscrowd")) in YES for entry in runs):
        for name, count in groups.items():
            if name and name.lower() not in IGNORED and 2 * count > all_of[name]:
                told = f"{count} of {all_of[name]} annotations of {name!r} are crowds"
                cure = "draw them with --crowds draw, or say --crowds ignore (groups that nobody told apart)"
                raise InputError(f"{told}, as all run lengths are: brush masks?", cure, path)
    most = sorted((name for name in ignored if name and ignored[name]), key=lambda name: -ignored[name] / all_of[name])
    if most:
        told = ", ".join(f"{ignored[name]} of {all_of[name]} annotations of {name!r}" for name in most[:LISTED])
        more = f" and some of {len(most) - LISTED} more classes" if len(most) > LISTED else ""
        source.notes.append(f"{path}: {told}{more} are crowds or say ignore, and are ignored")


def _tell_holes(content: dict[str, Any], path: Path, source: Source) -> None:
    found = [_id(entry) for entry in content["annotations"] if _has_hole(entry)]
    if found:
        what = f"{len(found)} annotations have an outline within another, the first: annotation {found[0]}"
        source.notes.append(f"{path}: {what}: {FILLED}")


def _has_hole(entry: Any) -> bool:
    outline = entry.get("segmentation") if isinstance(entry, dict) else None
    if not isinstance(outline, list) or len(outline) < 2:
        return False
    try:
        return has_ring_within([ring_of(ring) for ring in outline])
    except NOT_UNDERSTOOD:  # a fault where it is drawn
        return False


def _is_elsewhere(content: dict[str, Any], path: Path, source: Source) -> bool:
    """Whether most outlines lie in the first pixel or elsewhere than the boxes beside them, which is a fault of the
    file; of fewer that miss their boxes a note."""
    farthest = [max(numbers) for numbers in map(_numbers, content["annotations"]) if numbers]
    in_shares = sum(number <= 1 for number in farthest)
    if 2 * in_shares > len(farthest):
        what = f"{in_shares} of {len(farthest)} outlines lie in the first pixel: shares of the image?"
        source.fault(path, what, "write coordinates in pixels")
        return True
    sizes = {_id(entry): entry for entry in content["images"]}
    fits: dict[str, list[bool]] = {kind: [] for kind in MISSED}
    for entry in content["annotations"]:
        with suppress(*NOT_UNDERSTOOD):  # a fault where it is drawn
            found = _fits_box(entry, sizes[_id(entry, "image_id")])
            if found is not None:
                fits["run lengths" if isinstance(entry["segmentation"], dict) else "outlines"].append(found)
    faulty = False
    for kind, fitting in fits.items():
        missed = fitting.count(False)
        what = f"{missed} of {len(fitting)} {kind} do not fit the bbox beside them: {MISSED[kind]}"
        if 2 * missed > len(fitting):
            source.fault(path, what, "mend them, or take bbox out where that is what is wrong")
            faulty = True
        elif missed:
            source.notes.append(f"{path}: {what}")
    return faulty


def _numbers(entry: Any) -> list[float]:
    """Of all corners of a polygon; none where there is no such."""
    outline = entry.get("segmentation") if isinstance(entry, dict) else None
    try:
        return [number for ring in outline for number in ring_of(ring)] if isinstance(outline, list) else []
    except NOT_UNDERSTOOD:  # a fault where it is drawn
        return []


def _fits_box(entry: dict[str, Any], image: dict[str, Any]) -> bool | None:
    """None where there is nothing to compare; some write the right and lower edge in place of width and height."""
    left, top, width, height = map(float, entry["bbox"])
    outline = entry["segmentation"]
    if min(width, height) < LEAST_SIDE or not outline:
        return None
    if isinstance(outline, dict):
        own = box_of(run_lengths(outline["size"], outline["counts"])(*outline["size"]))
    else:
        numbers = _numbers(entry)
        own = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    right, bottom = float(image["width"]), float(image["height"])
    inside = (max(own[0], 0), max(own[1], 0), min(own[2], right), min(own[3], bottom))
    boxes = [(left, top, left + width, top + height), (left, top, width, height)]
    return any(overlap(one, box) >= LEAST_OVERLAP for one in (own, inside) for box in boxes)


def _item(entry: dict[str, Any], names: dict[str, str], where: str, fill_boxes: bool, draw_crowds: bool) -> Item:
    number = _id(entry, "category_id")
    if number not in names:
        raise ValueError(f"is of category {number or None}, which is not listed")
    crowd = _is_crowd(entry.get("iscrowd")) and not draw_crowds
    return Item(where, names[number], _region(entry, fill_boxes), crowd=crowd or _says_ignore(entry))


def _extent(entry: dict[str, Any]) -> Region | None:
    """Its box, else what is around its outline."""
    left, top, width, height = map(float, entry.get("bbox") or [0] * 4)
    if width > 0 and height > 0:
        return around([left, top, left + width, top + height])
    return around([number for ring in entry["segmentation"] for number in ring])


def _region(entry: dict[str, Any], fill_boxes: bool) -> Region:
    outline, box = entry.get("segmentation"), entry.get("bbox")
    if isinstance(outline, dict):
        return run_lengths(outline.get("size"), outline.get("counts"))
    if outline and isinstance(outline, list):
        return polygons([ring_of(ring) for ring in outline])
    if not box:
        raise ValueError("has no segmentation")
    if not fill_boxes:
        raise ValueError("has a box but no outline (--fill-boxes fills it)")
    left, top, width, height = map(float, box)
    return rectangle(left, top, left + width, top + height)
