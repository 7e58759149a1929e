"""YOLO's text files of outlines, Roboflow's too: a class number and x y of the corners, in shares of the image."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from segloss.datasets.annotations import plain_number
from segloss.datasets.finding import image_files
from segloss.datasets.folder import IMAGE_NAMES
from segloss.datasets.list_lines import read_list
from segloss.datasets.plain_files import read_yaml
from segloss.datasets.splits import SPLIT_NAMES
from segloss.errors import InputError
from segloss.rasterise.regions import Region, Shares, around, ring_of, whole
from segloss.rasterise.sources import Images, Item, Picture, Source, folder_split

LABELS = "labels"
NAME_FILES = ("classes.txt", "obj.names", f"{LABELS}/classes.txt")
LOST_CURE = "add it, or take the line out of the YAML file"
SHARES = (-0.5, 1.5)  # outside the image is cut off; beyond these it is no share


def read_yolo(
    files: Sequence[Path],
    root: Path,
    images: Images,
    *,
    fill_boxes: bool = False,
    names: Sequence[str] = (),
    config_file: Path | None = None,
) -> Source:
    """A picture of each image that has a folder of labels, without a text file an empty one; classes of data.yaml.

    Args:
        names: of the classes by number, where no file tells them.
        config_file: the data.yaml that is meant; None: the one with names below ``root``.

    Raises:
        InputError: there are no class names, or several files tell different ones.
    """
    below = (path for path in image_files(root, (".txt",)) if LABELS in path.relative_to(root.parent).parts)
    listed = {path for path in below if path.name not in NAME_FILES}
    source, unseen = Source(), {*files} | listed
    config, place = _config(sorted(root.glob("*.y*ml")) if config_file is None else [config_file])
    if "kpt_shape" in config:
        what = "has kpt_shape: its labels are boxes and keypoints, which are no outlines"
        raise InputError(what, "export segmentation, or take kpt_shape out if the texts hold outlines", place)
    known = _names(config, place or root) or _listed_names(root) or [*names]
    if not known:
        raise InputError("holds no class names", "write classes.txt, one name a line, or give --class-table", root)
    source.add_classes(known)
    if isinstance(count := config.get("nc"), int) and count != len(known):
        source.notes.append(f"{place}: nc is {count}, but there are {len(known)} names")
    for image, split in _chosen(config, root, images, source):
        path = _labels_of(image, images.root)
        if not path.parent.is_dir():
            continue
        unseen.discard(path)
        picture = Picture(image, split, path)
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path.is_file() else []
        rows = [(f"line {place}", line) for place, line in enumerate(lines, 1) if line.strip()]
        made = [
            (where, partial(_item, where, line.split(), known, fill_boxes), partial(_extent, line))
            for where, line in rows
        ]
        picture.items = source.items(path, made)
        source.pictures.append(picture)
    for path in sorted(unseen):
        source.fault(path, "has no image", "add the image or remove the file")
    return source


def _config(files: Sequence[Path]) -> tuple[dict[str, Any], Path | None]:
    """What the file with names, or the only one, says, and which it is; nothing where there is none."""
    found, broken = [], []
    for path in files:
        try:
            content = read_yaml(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            broken.append(InputError(f"cannot be read as YAML: {' '.join(str(error).split())}", "mend that line", path))
            continue
        if isinstance(content, dict) and ("names" in content or len(files) == 1):
            found.append((content, path))
    if not found:
        if broken:
            raise broken[0]
        return {}, None
    other = next((path for content, path in found if content != found[0][0]), None)
    if other is not None:
        raise InputError(f"says something else than {found[0][1].name}", "give the one that is meant as SOURCE", other)
    return found[0]


def _names(config: dict[str, Any], path: Path) -> list[str]:
    """The names by number, of a list or of a mapping from each number from 0."""
    names = config.get("names") or []
    if isinstance(names, dict):
        try:
            by_number = {int(number): name for number, name in names.items()}
            names = [by_number[number] for number in range(len(by_number))]
        except (KeyError, ValueError) as error:
            raise InputError("names are not numbered from 0 without a gap", "number them so", path) from error
    return [str(name).strip() for name in names]


def _listed_names(root: Path) -> list[str]:
    place = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    return [] if place is None else read_list(place)


def _labels_of(image: Path, root: Path) -> Path:
    """``labels`` for the last folder of images in its path; beside it where there is none.

    One that ``root`` is or lies in, as folders above may be called by chance, does not where texts lie beside it alone.
    """
    parts, inside = [*image.parts], len(root.parts)
    at = next((place for place in range(len(parts) - 2, -1, -1) if parts[place].lower() in IMAGE_NAMES), None)
    if at is not None:
        labels = Path(*parts[:at], LABELS, *parts[at + 1 :])
        if at >= inside or labels.parent.is_dir() or not any(image.parent.glob("*.txt")):
            return labels.with_suffix(".txt")
    return image.with_suffix(".txt")


def _chosen(config: dict[str, Any], root: Path, images: Images, source: Source) -> Iterator[tuple[Path, str]]:
    """Images and their splits: by train, val and test of data.yaml, else by the names of their folders."""
    told = {split: _places(config, names, root) for split, names in SPLIT_NAMES.items()}
    if not any(place for places in told.values() for _, place in places):
        found = [(image, folder_split(image, images.root)) for image in images.all]
        lost = next((f"its {split} is {value}" for split, places in told.items() for value, _ in places), None)
        if lost is not None and all(split for image, split in found if _labels_of(image, images.root).parent.is_dir()):
            source.notes.append(f"{root}: {lost}, which is not there: splits are those of folders")
        elif lost is not None:
            source.fault(root, f"{lost}, which is not there", LOST_CURE)
        yield from found
        return
    for split, places in told.items():
        for value, place in places:
            if place is None:
                what = f"its {split} is {value}, which is not there"
                if split == "train":
                    source.fault(root, what, LOST_CURE)
                else:  # many files name splits that were not exported
                    source.notes.append(f"{root}: {what}")
                continue
            if place.is_dir():
                yield from ((image, split) for image in images.all if place.resolve() in image.resolve().parents)
                continue
            for line in read_list(place, images.by_name):
                try:
                    yield images.find(line, place.parent, split), split
                except ValueError as error:
                    source.fault(f"{place}: {line}", str(error), "add the image or remove the line")


def _places(config: dict[str, Any], names: Sequence[str], root: Path) -> list[tuple[str, Path | None]]:
    """Folders or lists of a split, below the file's own folder whatever ``..`` or path its writer had; None: none."""
    given = [value for name in names for value in _as_list(config.get(name))]
    found: list[tuple[str, Path | None]] = []
    for value in given:
        path = PureWindowsPath(value)  # either kind of slash
        parts = [part for part in path.parts if part not in ("..", path.anchor)]
        tails = (root.joinpath(*parts[first:]) for first in range(max(1, len(parts) - 1)))
        found.append((value, next((place for place in tails if place.is_dir() or place.is_file()), None)))
    return found


def _as_list(value: object) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)] if value else []


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]


def _pixels(shares: list[float], height: int, width: int) -> list[float]:
    return [share * (height if place % 2 else width) for place, share in enumerate(shares)]


def _extent(line: str) -> Region | None:
    shares = [float(word) for word in line.split()[1:]]
    shares = _corners(shares) if len(shares) == 4 else shares
    if around(shares) is None or max(map(abs, shares)) > SHARES[1]:
        return None
    return lambda height, width: (around(_pixels(shares, height, width)) or whole)(height, width)


def _class_number(word: str) -> int:
    try:
        number = plain_number(float(word))
    except ValueError:
        number = None
    if not isinstance(number, int):
        raise ValueError(f"its class is {word}, no whole number")
    return number


def _item(where: str, words: list[str], names: Sequence[str], fill_boxes: bool) -> Item:
    number, shares = _class_number(words[0]), [float(word) for word in words[1:]]
    if not 0 <= number < len(names):
        raise ValueError(f"is of class {number}, but there are {len(names)} names")
    if len(shares) == 4:
        if not fill_boxes:
            raise ValueError("is a box, not an outline (--fill-boxes fills it)")
        shares = _corners(shares)
    ring = ring_of(shares)
    if not SHARES[0] <= min(ring) <= max(ring) <= SHARES[1]:
        raise ValueError(f"holds {max(ring, key=abs):g}, which is no share of the image in 0..1")
    return Item(where, names[number], Shares(ring))
