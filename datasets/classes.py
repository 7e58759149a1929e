"""Class tables: which id of a mask file is which class, its colour, and what is ignored."""

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        ids: the value of each class in mask files, 0..65535; predictions are saved with these.
        colors: RGB of each class, for pictures.
        ignore_ids: values in mask files that are not scored. 255 always is.
        categories: of each class, or empty.
        mask_ids: every value a mask file may hold, with the class number or 255 it stands for; several values may
            stand for one class. Default: ``ids`` and ``ignore_ids``.
        mask_colors: the same for the colours of RGB masks; empty: colour masks are refused.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore_ids: tuple[int, ...] = field(default=(IGNORE_INDEX,))
    categories: tuple[str, ...] = ()
    mask_ids: tuple[tuple[int, int], ...] = ()
    mask_colors: tuple[tuple[Color, int], ...] = ()

    def __post_init__(self) -> None:
        ids = tuple(self.ids) or tuple(range(len(self.names)))
        clash = sorted({*self.ignore_ids} & {*ids} - {IGNORE_INDEX})
        if clash:
            raise InputError(f"id {clash[0]} is both a class and ignored", "remove it from one of the two")
        ignore_ids = tuple(sorted({*self.ignore_ids, IGNORE_INDEX} - {*ids}))
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "colors", tuple(self.colors) or distinct_colors(len(self.names)))
        object.__setattr__(self, "ignore_ids", ignore_ids)
        own = (*zip(ids, range(len(ids)), strict=True), *((i, IGNORE_INDEX) for i in ignore_ids))
        object.__setattr__(self, "mask_ids", tuple(self.mask_ids) or own)
        self._check()

    def _check(self) -> None:
        if not 2 <= len(self.names) <= STRAY:
            what = f"a class table needs 2 to {STRAY} classes, got {len(self.names)}"
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
        red, green, blue = (sum((label >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3)) for c in range(3))
        colors.append((red, green, blue))
    return tuple(colors)


IGNORED_NAMES = ("void", "unlabeled", "unlabelled", "unlabel", "ignore", "ignored", "ignore label")


def read_class_file(path: Path) -> ClassTable:
    """A class table from ``.yaml``, ``.json``, ``.txt`` or ``.csv``.

    YAML and JSON hold either a list or ``{"classes": [...], "ignore": [...]}``; a class is a name or
    ``{"name": ..., "id": ..., "color": [r, g, b], "category": ...}``, an ignored entry an id or a colour; a single id
    needs no list. A text file holds one name a line, or "R G B name" (CamVid's label_colors.txt). A CSV file has the
    columns name, r, g, b. Where no id is given, the class's place in the list, from 0, is its id. If every class has a
    colour, masks may be colour images. In the two forms that cannot say what is ignored, a class named void or
    unlabeled is.

    Raises:
        InputError: the file cannot be read as that.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte-order mark first
        content = {".txt": _read_text, ".csv": _read_csv, ".json": json.loads}.get(path.suffix, yaml.safe_load)(text)
        if isinstance(content, list):
            content = {"classes": content}
        if not isinstance(content["classes"], list):
            raise KeyError  # the letters of a text or the keys of a mapping would be taken for names
        _require_keys(content, {"classes", "ignore"})
        entries = [_entry(e) for e in content["classes"]]
        ignored = content.get("ignore")
        ignored = ignored if isinstance(ignored, list) else [] if ignored is None else [ignored]
        ignored_colors = [_color(i) for i in ignored if isinstance(i, list)]
        has_categories = any("category" in e for e in entries)
        return ClassTable(
            names=tuple(e["name"] for e in entries),
            ids=tuple(_whole_number(e.get("id", place)) for place, e in enumerate(entries)),
            colors=_colors_of(entries),
            ignore_ids=tuple(_whole_number(i) for i in ignored if not isinstance(i, list)),
            categories=tuple(str(e.get("category", "")) for e in entries) if has_categories else (),
            mask_colors=_mask_colors(entries, ignored_colors),
        )
    except InputError as error:
        raise InputError(error.what, error.cure, path) from error
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        what = f"cannot be read as a class file: {' '.join(str(error).split())}"
        raise InputError(what, "see docs/data.md for its forms", path) from error
    except (LookupError, TypeError, AttributeError) as error:
        what = "expected a list of names, or classes: with name, id and color each, and ignore: with ids"
        raise InputError(what, "see docs/data.md for its forms", path) from error


def _read_text(text: str) -> dict[str, Any]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    colored = [re.fullmatch(r"(\d+)\s+(\d+)\s+(\d+)\s+(\S.*)", line) for line in lines]
    if not all(colored):
        odd = next((line for line in lines if re.match(r"\d+[\s:,]", line)), None)
        if odd is not None:
            cure = "write names only, or ids and colors into classes.yaml"
            raise InputError(f"line {odd!r} begins with a number", cure)
        return {"classes": lines}
    return _split_ignored([{"name": row[4], "color": [int(row[k]) for k in (1, 2, 3)]} for row in colored if row])


def _read_csv(text: str) -> dict[str, Any]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    lower = [{str(key).strip().lower(): str(value or "").strip() for key, value in row.items()} for row in rows]
    missing = [key for key in ("name", "r", "g", "b") if any(not row.get(key) for row in lower)]
    if missing:
        raise InputError(f"a row has no {missing[0]!r}", "the columns are name, r, g, b")
    return _split_ignored([{"name": row["name"], "color": [int(row[k]) for k in "rgb"]} for row in lower])


def _split_ignored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows named void are ignored; the others keep their row's number as id, as index masks have it."""
    entries = [{**row, "id": place} for place, row in enumerate(rows)]
    ignored = [e for e in entries if e["name"].lower() in IGNORED_NAMES]
    kept = [e for e in entries if e not in ignored]
    return {"classes": kept, "ignore": [IGNORE_INDEX, *(e["id"] for e in ignored), *(e["color"] for e in ignored)]}


def _mask_colors(entries: list[dict[str, Any]], ignored: list[Color]) -> tuple[tuple[Color, int], ...]:
    """Colours of RGB masks, if each class has one of its own."""
    if not all(e.get("color") is not None for e in entries):
        return ()
    own = [(_color(e["color"]), place) for place, e in enumerate(entries)]
    return (*own, *((color, IGNORE_INDEX) for color in ignored))


def _require_keys(mapping: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(map(str, set(mapping) - known))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}", f"known are {', '.join(sorted(known))}")


def _entry(entry: object) -> dict[str, Any]:
    """A class as ``{"name": ...}`` with id and color where given; YAML's bare no, on and blank are no names."""
    entry = entry if isinstance(entry, dict) else {"name": entry}
    _require_keys(entry, {"name", "id", "color", "category"})
    name = entry["name"]
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise InputError(f"a class is named {name!r}", "write the name in quotes")
    return {**entry, "name": str(name)}


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"an id must be a whole number, got {value!r}", "write the value that the masks hold")
    return value


def _colors_of(entries: list[dict[str, Any]]) -> tuple[Color, ...]:
    given = [e.get("color") for e in entries]
    automatic = distinct_colors(len(entries))
    return tuple(automatic[place] if color is None else _color(color) for place, color in enumerate(given))


def _color(value: object) -> Color:
    if not (isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)):
        raise InputError(f"a color is three numbers in 0..255 each, got {value!r}", "write it as [r, g, b]")
    return value[0], value[1], value[2]
