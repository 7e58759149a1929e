"""Class tables: which id of a mask file is which class, its colour, and what is ignored."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from segloss.errors import InputError
from segloss.losses.reduction import IGNORE_INDEX

STRAY = 254  # what `lookup` gives for an id that the table does not know; so there can be 254 classes, 0..253
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set in training order: class c has the name ``names[c]``.

    Attributes:
        names: one per class, unique.
        ids: the value of each class in the mask files, 0..255.
        colors: RGB of each class, for pictures.
        ignore_ids: values in the mask files that are not scored. 255 always is.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore_ids: tuple[int, ...] = field(default=(IGNORE_INDEX,))

    def __post_init__(self):
        ids = tuple(self.ids) or tuple(range(len(self.names)))
        clash = sorted({*self.ignore_ids} & {*ids} - {IGNORE_INDEX})
        if clash:
            raise InputError(f"id {clash[0]} is both a class and ignored; remove it from one of the two")
        ignore_ids = tuple(sorted({*self.ignore_ids, IGNORE_INDEX} - {*ids}))
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "colors", tuple(self.colors) or distinct_colors(len(self.names)))
        object.__setattr__(self, "ignore_ids", ignore_ids)
        self._check()

    def _check(self) -> None:
        if not 2 <= len(self.names) <= STRAY:
            raise InputError(f"a class table needs 2 to {STRAY} classes, got {len(self.names)}: {list(self.names)}")
        if len(self.ids) != len(self.names) or len(self.colors) != len(self.names):
            raise InputError(
                f"a class table needs one id and one color per class, got {len(self.names)} names, "
                f"{len(self.ids)} ids, {len(self.colors)} colors"
            )
        for what, values in (("name", self.names), ("id", self.ids)):
            twice = sorted({str(v) for v in values if values.count(v) > 1})
            if twice:
                raise InputError(f"class {what} given twice: {', '.join(twice)}")
        outside = [i for i in (*self.ids, *self.ignore_ids) if not 0 <= i <= 255]
        if outside:
            raise InputError(f"class ids must be in 0..255, got {outside}")
        no_colors = [c for c in self.colors if len(c) != 3 or not all(0 <= value <= 255 for value in c)]
        if no_colors:
            raise InputError(f"class colors must be three numbers in 0..255 each, got {no_colors[0]}")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def lookup(self) -> np.ndarray:
        """uint8 ``(256,)``: value in the mask file -> class, 255 where ignored, ``STRAY`` where unknown."""
        table = np.full(256, STRAY, dtype=np.uint8)
        table[list(self.ignore_ids)] = IGNORE_INDEX
        table[list(self.ids)] = np.arange(len(self.names))
        return table

    def to_dict(self) -> dict:
        """Plain lists, as kept in checkpoints and run folders."""
        return {
            "names": list(self.names),
            "ids": list(self.ids),
            "colors": [list(c) for c in self.colors],
            "ignore_ids": list(self.ignore_ids),
        }

    @classmethod
    def from_dict(cls, table: dict) -> "ClassTable":
        return cls(
            names=tuple(table["names"]),
            ids=tuple(table["ids"]),
            colors=tuple(tuple(c) for c in table["colors"]),
            ignore_ids=tuple(table["ignore_ids"]),
        )


def distinct_colors(count: int) -> tuple[Color, ...]:
    """The colour map of Pascal VOC without its black: the bits of the id spread over the channels, high bits first."""
    colors = []
    for label in range(1, count + 1):
        rgb = [sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        colors.append(tuple(rgb))
    return tuple(colors)


def read_class_file(path: Path) -> ClassTable:
    """A class table from ``classes.yaml``, ``.json`` or ``.txt``.

    YAML and JSON hold either a list or ``{"classes": [...], "ignore": [ids]}``; an entry is a name or
    ``{"name": ..., "id": ..., "color": [r, g, b]}``. A text file holds one name a line. Where no id is given,
    the class's place in the list, from 0, is its id.

    Raises:
        InputError: the file cannot be read as that.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte-order mark first
        if path.suffix == ".txt":
            content = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as a class file: {' '.join(str(error).split())}") from error
    if isinstance(content, list):
        content = {"classes": content}
    try:
        if not isinstance(content["classes"], list):
            raise TypeError  # the letters of a text or the keys of a mapping would be taken for names
        _require_keys(content, {"classes", "ignore"})
        entries = [_entry(e) for e in content["classes"]]
        return ClassTable(
            names=tuple(e["name"] for e in entries),
            ids=tuple(_whole_number(e.get("id", place)) for place, e in enumerate(entries)),
            colors=_colors_of(entries),
            ignore_ids=tuple(_whole_number(i) for i in content.get("ignore", [IGNORE_INDEX])),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a list of names, or classes: with name, id and color each, and ignore: with ids"
        ) from error


def _require_keys(mapping: dict, known: set[str]) -> None:
    unknown = sorted(map(str, set(mapping) - known))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _entry(entry: object) -> dict:
    """A class as ``{"name": ...}`` with id and color where given; YAML's bare no, on and blank are no names."""
    entry = entry if isinstance(entry, dict) else {"name": entry}
    _require_keys(entry, {"name", "id", "color"})
    name = entry["name"]
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise InputError(f"a class is named {name!r}; write the name in quotes")
    return {**entry, "name": str(name)}


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"an id must be a whole number, got {value!r}")
    return value


def _colors_of(entries: list[dict]) -> tuple[Color, ...]:
    given = [e.get("color") for e in entries]
    automatic = distinct_colors(len(entries))
    return tuple(
        automatic[place] if color is None else tuple(int(value) for value in color) for place, color in enumerate(given)
    )


CAMVID_11 = ClassTable(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign_symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_ids=(11, 255),
)
