"""Pictures with items to masks: who lies on top, what is ignored, and what does not fit the image."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segloss.datasets.classes import IGNORED_NAMES, LABELME_IGNORED, ClassTable
from segloss.datasets.images import read_header
from segloss.errors import InputError
from segloss.losses.labels import IGNORE_INDEX
from segloss.rasterise.regions import Box, Outline, Runs, Shares, area, pixels_of, rectangle_of
from segloss.rasterise.sources import NOT_UNDERSTOOD, Fault, Item, Picture, Source

BACKGROUND = ("background", "_background_", "__background__")
IGNORED = (*IGNORED_NAMES, LABELME_IGNORED)
REACH = 0.1  # of a side of the image, beyond which an outline reaches well beyond it
FEW = 4  # outlines, fewer of which may lie anywhere by chance
FEWEST_BOXES, NEARLY_ALL, MANY = 8, 0.95, 0.25  # rectangles, and their shares of all outlines; some things are such


@dataclass(frozen=True)
class Legend:
    """What is written for which name.

    Attributes:
        classes: the class table of the masks.
        unlabelled: id of pixels that no annotation covers.
        ignored: id of what is not scored.
    """

    classes: ClassTable
    unlabelled: int
    ignored: int

    def id_of(self, label: str) -> int:
        """ValueError for a name that is no class."""
        plain = label.lower()
        if label not in self.classes.names and plain in IGNORED:
            return self.ignored
        name = next((each for each in self.classes.names if each.lower() in BACKGROUND), label)
        found = name if plain in BACKGROUND else label
        if found not in self.classes.names:
            raise ValueError(f"is of class {label!r}, which the class table does not have")
        return self.classes.ids[self.classes.names.index(found)]


def legend_of(names: Sequence[str], unlabelled: str, table: ClassTable | None) -> Legend:
    """The ids of masks: of ``table``, else background 0 and the names from 1 on, without 255.

    Raises:
        InputError: too many classes, no background where pixels are to be that, or no id to ignore.
    """
    if table is None:
        own = [name for name in names if name.lower() not in (*BACKGROUND, *IGNORED)]
        background = next((name for name in names if name.lower() in BACKGROUND), BACKGROUND[0])
        kept = [background, *own] if unlabelled == "background" or background in names else own
        ids = [number for number in range(len(kept) + 1) if number != IGNORE_INDEX]
        table = ClassTable(tuple(kept), tuple(ids[: len(kept)]))
    ignored = next(iter({IGNORE_INDEX} - {*table.ids} or sorted(table.ignore_ids)), None)
    if ignored is None:
        raise InputError(f"{IGNORE_INDEX} is the id of a class, and none is ignored", "add ignore: with an id")
    legend = Legend(table, ignored, ignored)
    if unlabelled == "ignore":
        return legend
    try:
        return Legend(table, legend.id_of(BACKGROUND[0]), ignored)
    except ValueError as error:
        cure = "add it to the class table, or give --unlabelled ignore"
        raise InputError("pixels without annotation are background, which is no class", cure) from error


def size_of(picture: Picture) -> tuple[tuple[int, int], str]:
    """(H, W) of the image as it is shown, and what its EXIF orientation means for its annotations, if anything.

    Raises:
        InputError: it cannot be read, or the annotations are for another size.
    """
    height, width, turn = read_header(picture.image)[:3]
    shown = (width, height) if turn >= 5 else (height, width)
    if picture.size not in (None, shown):
        stated = f"{picture.size[1]}x{picture.size[0]}" if picture.size else ""
        what = f"is {shown[1]}x{shown[0]}, its annotations in {picture.source.name} are for {stated} (width x height)"
        cure = "annotate and train on images of one size"
        if turn >= 5 and picture.size == (height, width):
            what, cure = f"{what}: they are for the picture before its EXIF turn", "save it upright without the tag"
        raise InputError(what, cure, picture.image)
    note = "is turned by its EXIF orientation; its annotations are read as drawn on the picture as it is shown"
    return shown, "" if turn == 1 else f"{picture.image}: {note}"


def refuse_beyond(source: Source) -> None:
    """Leave out files whose outlines are for a larger size of the images, with a fault each: most of them reach well
    beyond the right or lower edge, and none beyond the left or upper one, as pieces of a large image have them.

    A few outlines of a file speak only with those of all files. Others that reach beyond are noted.
    """
    found: dict[Path, list[tuple[bool, bool]]] = {}  # of each outline: whether beyond such an edge, or the others
    first: dict[Path, str] = {}
    for picture in source.pictures:
        try:
            height, width = size_of(picture)[0]
        except InputError:  # a fault where it is drawn
            continue
        for item in picture.items:
            box = _box_of(item)
            if not item.label or box is None:
                continue
            beyond = box[2] > (1 + REACH) * width or box[3] > (1 + REACH) * height
            before = box[0] < -REACH * width or box[1] < -REACH * height
            found.setdefault(picture.source, []).append((beyond, before))
            if beyond or before:
                first.setdefault(picture.source, f"{item.where} on {picture.image.name}, {width}x{height}")
    every = [beyond for of_file in found.values() for beyond, _ in of_file]
    together = len(every) >= FEW and 2 * sum(every) > len(every)
    noted: list[str] = []
    count_noted = 0
    for path, where in first.items():
        count, many = len(found[path]), sum(beyond for beyond, _ in found[path])
        large = 2 * many > count and not any(before for _, before in found[path])
        if large and (together or count >= FEW):
            what = f"{many} of {count} outlines reach well beyond the image, the first: {where}"
            source.fault(path, f"{what}: of another size of it?", "resize the outlines with the images, or export both")
            source.pictures = [picture for picture in source.pictures if picture.source != path]
        else:
            count_noted += sum(beyond or before for beyond, before in found[path])
            noted.append(f"{path}: {where}")
    if noted:
        what = f"{count_noted} of {len(every)} outlines reach well beyond the image and are cut off"
        source.notes.append(f"{what}, the first: {noted[0]}")


def tell_rectangles(source: Source) -> None:
    """A note where outlines look like boxes: nearly all are rectangles, as of YOLO-OBB, or many are upright ones."""
    kinds: list[str] = []
    first = ""
    for picture in source.pictures:
        try:
            size = size_of(picture)[0]
        except InputError:  # a fault where it is drawn
            continue
        for item in picture.items:
            outline = item.region.outline(*size) if isinstance(item.region, Shares) else item.region
            if item.label and not item.crowd and isinstance(outline, Outline):
                kinds.append(rectangle_of(outline.rings[0]) if len(outline.rings) == 1 else "")
                first = first or (f"{picture.source}: {item.where} on {picture.image.name}" if kinds[-1] else "")
    upright, every = kinds.count("upright"), len(kinds) - kinds.count("")
    if every >= FEWEST_BOXES and (every >= NEARLY_ALL * len(kinds) or upright >= MANY * len(kinds)):
        what = f"{every} of {len(kinds)} outlines are rectangles, drawn with all that is in them, the first: {first}"
        source.notes.append(f"{what}: if they are boxes around things, draw outlines, or leave these images out")


def _box_of(item: Item) -> Box | None:
    """Around what its outline and the box beside it have in common, within the image or not; None where neither is."""
    boxes: list[Box] = [item.region.box] if isinstance(item.region, Outline) else []
    with suppress(*NOT_UNDERSTOOD):
        extent = item.extent()
        boxes += [extent.box] if isinstance(extent, Outline) else []
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return max(left), max(top), min(right), min(bottom)


def draw(picture: Picture, legend: Legend, on_top: str, source: Source) -> np.ndarray | None:
    """The mask, uint8 or uint16 ``(H, W)``; faults and notes go to ``source``. None where the image cannot be used.

    Crowds lie below everything. Above them, with ``on_top="smaller"``, an item covers those of more pixels, of equal
    ones the earlier; with ``"later"`` it covers those before it in the file, CVAT's of a lower z_order first.
    """
    try:
        (height, width), note = size_of(picture)
    except InputError as error:
        source.faults.append(Fault(error))
        return None
    source.notes += [note] if note else []
    layers: list[tuple[tuple[int, int], Runs, int]] = []
    for item in picture.items:
        drawn = _drawn(picture, item, legend, (height, width), source)
        if drawn is not None:
            runs, value, crowd = drawn
            order = -area(runs) if on_top == "smaller" else item.order
            layers.append(((int(not crowd), order), runs, value))
    most = max(*legend.classes.ids, legend.ignored)
    mask = np.full((height, width), legend.unlabelled, np.uint8 if most < 2**8 else np.uint16)
    for _, runs, value in sorted(layers, key=lambda layer: layer[0]):
        mask[pixels_of(runs)] = value
    return mask


def _drawn(
    picture: Picture, item: Item, legend: Legend, size: tuple[int, int], source: Source
) -> tuple[Runs, int, bool] | None:
    """Pixels, id, and whether they lie below all else; None where it is of no class, and so of what is not drawn."""
    where = f"{picture.source}: {item.where}"
    try:
        value = legend.ignored if item.crowd else legend.id_of(item.label)
    except ValueError as error:
        source.fault(where, str(error))
        return None
    try:
        runs = item.region(*size)
    except InputError:
        raise
    except ValueError as error:
        stand_in = source.left_out(picture.source, item.where, str(error), item.extent)
        return stand_in.region(*size), legend.ignored, True
    if item.label and not area(runs):
        source.notes.append(f"{where}: covers no pixel of {picture.image.name}")
    elif item.label:
        source.covers = True
    return runs, value, item.crowd
