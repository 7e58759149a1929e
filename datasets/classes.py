"""Class tables: which id of a mask file is which class, its colour, and what is ignored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from segloss.errors import InputError
from segloss.files import composed
from segloss.losses.labels import IGNORE_INDEX

STRAY = 254  # what 8-bit class maps hold for an id that the table does not know; so they can have 254 classes, 0..253
MOST_CLASSES = 4096  # a confusion matrix of them takes 128 MiB
WHOLE = re.compile(r"-?\d+(\.0*)?")  # an id as people write it
Color = tuple[int, int, int]


def map_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Of a map of class numbers, whose largest value is what is ignored, and the one before it what is no class."""
    return np.uint8 if num_classes <= STRAY else np.uint16


def ignored_in(num_classes: int) -> int:
    """What a map of so many classes holds where pixels are ignored: 255, of more than 254 classes 65535."""
    return int(np.iinfo(map_dtype(num_classes)).max)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set in training order: class c has the name ``names[c]``.

    Attributes:
        names: one per class, unique; umlauts of one character (:func:`segloss.files.composed`).
        ids: the value of each class in mask files, 0..65535; predictions are saved with these.
        colors: RGB of each class, for pictures.
        ignore_ids: values in mask files that are not scored. 255 always is, unless it is a class; of more than 254
            classes 65535 is too.
        categories: of each class, or empty.
        mask_ids: every value a mask file may hold, with the class number or :attr:`ignored` it stands for; several
            values may stand for one class. Default: ``ids`` and ``ignore_ids``.
        mask_colors: the same for the colours of RGB masks; empty: colour masks are refused.
        header: the first line of a text file of names, which was taken for a header and for no class.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore_ids: tuple[int, ...] = field(default=(IGNORE_INDEX,))
    categories: tuple[str, ...] = ()
    mask_ids: tuple[tuple[int, int], ...] = ()
    mask_colors: tuple[tuple[Color, int], ...] = ()
    header: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(map(composed, self.names)))
        ids = tuple(self.ids) or tuple(range(len(self.names)))
        clash = sorted({*self.ignore_ids} & {*ids} - {IGNORE_INDEX})
        if clash:
            raise InputError(f"id {clash[0]} is both a class and ignored", "remove it from one of the two")
        ignore_ids = tuple(sorted({*self.ignore_ids, IGNORE_INDEX, self.ignored} - {*ids}))
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "colors", tuple(self.colors) or distinct_colors(len(self.names)))
        object.__setattr__(self, "ignore_ids", ignore_ids)
        own = (*zip(ids, range(len(ids)), strict=True), *((i, self.ignored) for i in ignore_ids))
        object.__setattr__(self, "mask_ids", tuple(self.mask_ids) or own)
        self._check()

    def _check(self) -> None:
        if not 2 <= len(self.names) <= MOST_CLASSES:
            what = f"a class table needs 2 to {MOST_CLASSES} classes, got {len(self.names)}"
            raise InputError(what, f"add or join classes; these are {', '.join(self.names[:8]) or 'none'}")
        if len(self.ids) != len(self.names) or len(self.colors) != len(self.names):
            raise InputError(
                f"a class table needs one id and one color per class, got {len(self.names)} names, "
                f"{len(self.ids)} ids, {len(self.colors)} colors",
                "make them as many",
            )
        for what, values in (("name", self.names), ("id", self.ids)):
            twice = sorted({str(v) for v in values if values.count(v) > 1})
            if twice:
                raise InputError(f"class {what} given twice: {', '.join(twice)}", "rename or remove one")
        outside = [i for i in (*self.ids, *self.ignore_ids) if not 0 <= i < 2**16]
        if outside:
            raise InputError(f"class ids must be in 0..65535, got {outside}", "give the ids that the masks hold")
        twice = sorted(str(color) for color, _ in self.mask_colors if [c for c, _ in self.mask_colors].count(color) > 1)
        if twice:
            raise InputError(f"class color given twice: {twice[0]}", "give each class a color of its own")
        if self.categories and len(self.categories) != len(self.names):
            what = f"a class table needs one category per class, got {len(self.categories)}"
            raise InputError(what, "give each class one, or none")
        no_colors = [c for c in self.colors if len(c) != 3 or not all(0 <= value <= 255 for value in c)]
        if no_colors:
            raise InputError(f"class colors must be three numbers in 0..255 each, got {no_colors[0]}", "give R, G, B")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignored(self) -> int:
        """What stands for ignored pixels in maps of class numbers: 255, of more than 254 classes 65535."""
        return ignored_in(len(self.names))

    @property
    def stray(self) -> int:
        """What :func:`segloss.datasets.masks.lookup` gives for an id that the table does not know."""
        return self.ignored - 1

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, as kept in checkpoints and run folders; how mask files are read is the data set's business."""
        return {
            "names": list(self.names),
            "ids": list(self.ids),
            "colors": [list(c) for c in self.colors],
            "ignore_ids": list(self.ignore_ids),
            "categories": list(self.categories),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "ClassTable":
        return cls(
            names=tuple(table["names"]),
            ids=tuple(table["ids"]),
            colors=tuple(tuple(c) for c in table["colors"]),
            ignore_ids=tuple(table["ignore_ids"]),
            categories=tuple(table.get("categories", ())),
        )


def distinct_colors(count: int) -> tuple[Color, ...]:
    """The colour map of Pascal VOC without its black: the bits of the id spread over the channels, high bits first."""
    colors = []
    for label in range(1, count + 1):
        red, green, blue = (sum((label >> (3 * bit + c) & 1) << (7 - bit) for bit in range(8)) for c in range(3))
        colors.append((red, green, blue))
    return tuple(colors)


IGNORED_NAMES = ("void", "unlabeled", "unlabelled", "unlabel", "ignore", "ignored", "ignore label")
LABELME_IGNORED = "__ignore__"  # labelme's first row; it has the id -1, stored as 255
DOUBTFUL_NAMES = {"nodata", "unknown", "unclassified", "undefined", "invalid", "dontcare"}  # which may be classes


def void_among(names: Sequence[str]) -> tuple[str, str] | None:
    """The first class whose name says that nobody could tell, however its words are joined, and the cure."""
    words = {name: re.sub(r"[\W_]+", " ", name.lower()).strip() for name in names}
    cure = "put its id under ignore in the class file"
    if void := next((name for name in names if words[name] in IGNORED_NAMES), None):
        return void, cure
    doubtful = next((name for name in names if words[name].replace(" ", "") in DOUBTFUL_NAMES), None)
    return None if doubtful is None else (doubtful, f"{cure}, or call it void in class_dict.csv")


HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # leftHand, LHand
SIDE = re.compile(r"(left|right|(?<![^\W_])[lr](?![^\W_]))")  # one letter only where it is a word
OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


@cache
def mirrored_classes(names: tuple[str, ...]) -> tuple[int, ...]:
    """What each class is in a mirrored image, where names differ in their side alone; empty: all are what they were.

    >>> mirrored_classes(("skin", "left_hand", "Right Hand", "l_eye", "r_eye", "left"))
    (0, 2, 1, 4, 3, 5)
    """
    numbers: dict[tuple[str, ...], list[int]] = {}
    parts = [_by_sides(name) for name in names]
    for number, own in enumerate(parts):
        numbers.setdefault(own, []).append(number)
    found = [*range(len(names))]
    for number, own in enumerate(parts):
        other = numbers.get(tuple(OTHER_SIDE[part] if place % 2 else part for place, part in enumerate(own)), [])
        if len(other) == len(numbers[own]) == 1:  # else nobody can tell which is meant
            found[number] = other[0]
    return tuple(found) if found != sorted(found) else ()


def _by_sides(name: str) -> tuple[str, ...]:
    """A name without joints and capitals, cut before and after its sides, which stand at odd places."""
    parts = SIDE.split(HUMP.sub(" ", name).lower())
    return tuple(part if place % 2 else re.sub(r"[\W_]+", "", part) for place, part in enumerate(parts))


def told_as_mirrored(names: tuple[str, ...]) -> str:
    """The pairs of :func:`mirrored_classes` in words; empty where there are none."""
    pairs = [f"{names[c]} and {names[other]}" for c, other in enumerate(mirrored_classes(names)) if c < other]
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 4 else ""
    return f"{'; '.join(pairs[: 3 if more else 4])}{more}"
