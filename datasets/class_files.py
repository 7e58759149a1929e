"""Class files: ``.yaml``, ``.json``, ``.txt`` and ``.csv`` -> a class table."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segloss.datasets.classes import (
    IGNORED_NAMES,
    LABELME_IGNORED,
    MOST_CLASSES,
    WHOLE,
    ClassTable,
    Color,
    distinct_colors,
    ignored_in,
)
from segloss.datasets.plain_files import read_json, read_yaml
from segloss.errors import InputError
from segloss.losses.labels import IGNORE_INDEX

MOST_BYTES = 2**20  # of a class file


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
        if path.stat().st_size > MOST_BYTES:
            what = f"has {path.stat().st_size:,} bytes, more than {MOST_CLASSES} classes need"
            raise InputError(what, "write a name and, where needed, id and color of each class", path)
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte-order mark first
        readers = {".txt": _read_text, ".csv": _read_csv, ".json": read_json}
        content = readers.get(path.suffix, read_yaml)(text)
        plain = path.suffix == ".txt" and all(isinstance(entry, str) for entry in content["classes"])
        if isinstance(content, list):
            content = {"classes": content}
        if set(content) & {"classes", "names"} != {"classes"} or isinstance(content["classes"], dict):
            content = _from_mapping(content)
        if not isinstance(content["classes"], list):
            raise KeyError  # the letters of a text or the keys of a mapping would be taken for names
        _require_keys(content, {"classes", "ignore"})
        entries = _without_labelmes([_entry(e) for e in content["classes"]])
        ignored = content.get("ignore")
        ignored = [*ignored] if isinstance(ignored, list) else [] if ignored is None else [ignored]
        void = [e for e in entries if e.get("id") == IGNORE_INDEX and e["name"].lower() in IGNORED_NAMES]
        entries = [e for e in entries if e not in void]
        ignored += [part for e in void for part in (e["id"], e.get("color")) if part is not None]
        ignored_colors = [_color(i) for i in ignored if isinstance(i, list)]
        has_categories = any("category" in e for e in entries)
        return ClassTable(
            names=tuple(e["name"] for e in entries),
            ids=tuple(_whole_number(e.get("id", place)) for place, e in enumerate(entries)),
            colors=_colors_of(entries),
            ignore_ids=tuple(_whole_number(i) for i in ignored if not isinstance(i, list)),
            categories=tuple(str(e.get("category", "")) for e in entries) if has_categories else (),
            mask_colors=_mask_colors(entries, ignored_colors),
            header=_text_lines(text)[0] if plain else "",
        )
    except InputError as error:
        raise InputError(error.what, error.cure, path) from error
    except (OSError, ValueError, csv.Error, yaml.YAMLError, RecursionError) as error:
        what = f"cannot be read as a class file: {' '.join(str(error).split())}"
        raise InputError(what, "see docs/data.md for its forms", path) from error
    except (LookupError, TypeError, AttributeError) as error:
        what = "expected a list of names, or classes: with name, id and color each, and ignore: with ids"
        raise InputError(what, "see docs/data.md for its forms", path) from error


def said_otherwise(table: ClassTable, path: Path, others: Sequence[Path]) -> list[InputError]:
    """What other class files that lie there say of a colour, or else an id, of which ``path`` says something else."""
    found = []
    for other in others:
        try:
            theirs = table if other.samefile(path) else read_class_file(other)
        except (InputError, OSError):  # whatever it is, it is not read for classes
            continue
        by_color = bool(table.mask_colors and theirs.mask_colors)
        if table.mask_colors and not by_color and {*map(_plain, theirs.names)} <= {*map(_plain, table.names)}:
            continue  # colours say what is what, and the other is a list of the same names in some order
        ours, named = _named(table, by_color), _named(theirs, by_color)
        differs = next((key for key in named if _plain(ours.get(key, named[key])) != _plain(named[key])), None)
        if differs is not None:
            what = f"says that {differs} is {named[differs]}, {path.name} that it is {ours[differs]}, and is not read"
            found.append(InputError(what, "keep the one by which the masks were made", other))
    return found


def _named(table: ClassTable, by_color: bool) -> dict[object, str]:
    if by_color:
        return {color: table.names[c] for color, c in table.mask_colors if c < len(table)}
    return dict(zip(table.ids, table.names, strict=True))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


HEADERS = {
    *("id", "ids", "index", "value", "r", "g", "b", "color", "colour"),
    *(f"{part}{end}" for part in ("name", "class", "label", "categor") for end in ("", "s", "es", "y", "ies")),
    *(f"{part}{between}name{end}" for part in ("class", "label") for between in ("", "_", "-") for end in ("", "s")),
}
CVAT_ROW = re.compile(r"(.+?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*:.*:.*")  # label:color_rgb:parts:actions
COLOR_ROW = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(\S.*)")
LETTERED = r"(?=.*[^\W\d])(.*[^\s:=,;])[\s:=,;]+"  # a name, which may end in a digit: zone1, zone 1
NAME_COLOR = re.compile(LETTERED + r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)")
ID_ROW = re.compile(LETTERED + r"(-?\d+)")


def _text_lines(text: str) -> tuple[str, list[str]]:
    """The header, if there is one, and the other lines without comments."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and {*filter(None, re.split(r"[\s,;:]+", lines[0].lower()))} <= HEADERS:
        return lines[0], lines[1:]
    return "", lines


def _read_text(text: str) -> dict[str, Any]:
    lines = _text_lines(text)[1]
    if all(line.startswith("- ") for line in lines):  # a list of YAML
        lines = [line[2:].strip() for line in lines]
    lines = [re.sub(r"^([\"'])(.+)\1$", r"\2", line.rstrip(",; \t")) for line in lines]
    odd = next((line for line in lines if re.match(r"(\d+[\s,;]+){4}|.*\D([\s,;]+\d+){4}$", line)), None)
    if odd is not None:
        raise InputError(f"line {odd!r} has more than three numbers", "write ids and colors into classes.yaml")
    colored = [row for row in map(COLOR_ROW.fullmatch, lines) if row]
    cvat = [row for row in map(CVAT_ROW.fullmatch, lines) if row]
    numbered = [row for row in map(ID_ROW.fullmatch, lines) if row]
    if lines and len(colored) == len(lines):
        return _split_ignored([{"name": row[4], "color": [int(row[k]) for k in (1, 2, 3)]} for row in colored])
    named_colors = [row for row in map(NAME_COLOR.fullmatch, lines) if row]
    if lines and len(named_colors) == len(lines):
        names = [row[1].strip(" \t:=,;") for row in named_colors]
        colors = [[int(row[k]) for k in (2, 3, 4)] for row in named_colors]
        return _split_ignored([{"name": name, "color": color} for name, color in zip(names, colors, strict=True)])
    if lines and len(cvat) == len(lines):
        return _split_ignored([{"name": row[1].strip(), "color": [int(row[k]) for k in (2, 3, 4)]} for row in cvat])
    named = {row[1].strip(" \t:=,;").lower(): int(row[2]) for row in numbered}
    if len(named) == len(lines) == len({*named.values()}) > 1:
        return {"classes": [{"name": row[1].strip(" \t:=,;"), "id": int(row[2])} for row in numbered]}
    odd = next((line for line in lines if re.match(r"\d+[\s:,;.)=]", line)), None)
    if odd is not None:
        cure = "write names only, or ids and colors into classes.yaml"
        raise InputError(f"line {odd!r} begins with a number", cure)
    odd = next((line for line in lines if re.search(r"[,;:=]\s*\d+\s*$|:\d+,", line)), None)
    if odd is not None:
        raise InputError(f"line {odd!r} ends with a number, other lines do not", "write ids into classes.yaml")
    return {"classes": lines}


def _without_labelmes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The classes without labelme's first row, which the others are not counted from."""
    if entries and entries[0]["name"] == LABELME_IGNORED and "id" not in entries[0]:
        entries = entries[1:]
    if any(e["name"] == LABELME_IGNORED for e in entries):
        cure = "put it first and leave out its id, or write its id under ignore in classes.yaml"
        raise InputError(f"{LABELME_IGNORED} is not the first line, or has an id", cure)
    return entries


def taken_for(path: Path) -> str:
    """What of a text file's lines is no name, in words: numbers at their ends that are ids, or the first, a header."""
    if path.suffix != ".txt":
        return ""
    text = path.read_text(encoding="utf-8-sig")
    classes, header = _read_text(text)["classes"], _text_lines(text)[0]
    if all(isinstance(entry, dict) and "color" not in entry for entry in classes):
        return ", a name and its id a line"
    return f", without its first line {header!r} (a header)" if header and isinstance(classes[0], str) else ""


CSV_NAMES = {"class": "name", "class_name": "name", "classname": "name", "red": "r", "green": "g", "blue": "b"}
ID_NAMES = (
    *("index", "value", "code", "gray", "grey", "pixel_value", "pixel", "mask_value", "gray_value", "grey_value"),
    *(f"{of}{number}" for of in ("class_", "class", "label_", "label") for number in ("id", "idx", "index")),
)
CSV_NAMES |= dict.fromkeys(ID_NAMES, "id")


def _read_csv(text: str) -> dict[str, Any]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=max(",;\t|", key=first.count))
    given = [re.sub(r"[\s-]+", "_", str(key).strip().lower()) for key in reader.fieldnames or ()]
    columns = [CSV_NAMES.get(key, key) for key in given]
    if not {*columns} & {"name", "label"}:
        raise InputError(f"begins with {first.strip()!r}, which names no columns", "write name,r,g,b above the rows")
    twice = next((key for key in columns if columns.count(key) > 1), None)
    if twice is not None:
        both = " and ".join(key for key, column in zip(given, columns, strict=True) if column == twice)
        raise InputError(f"has two columns {twice!r}: {both}", "keep one of them")
    rows = [dict(zip(columns, (str(value or "").strip() for value in row.values()), strict=False)) for row in reader]
    needed = ("name", "id") if "id" in columns and not {*"rgb"} & {*columns} else ("name", "r", "g", "b")
    missing = [key for key in needed if any(not row.get(key) for row in rows)]
    if missing:
        raise InputError(f"a row has no {missing[0]!r}", "the columns are name, r, g, b, or name, id")
    if "id" not in columns:
        _refuse_other_ids(columns, rows)
    ids = [{"id": int(row["id"])} if row.get("id") else {} for row in rows]
    colors = [{"color": [int(row[k]) for k in "rgb"]} if "r" in needed else {} for row in rows]
    return _split_ignored([{"name": row["name"], **i, **c} for row, i, c in zip(rows, ids, colors, strict=True)])


def _refuse_other_ids(columns: list[str], rows: list[dict[str, str]]) -> None:
    """InputError for a column of distinct whole numbers that may be the classes' ids, and are not those of the rows."""
    for column in (column for column in columns if column not in ("name", *"rgb")):
        cells = [row.get(column, "") for row in rows]
        numbers = [float(cell) for cell in cells if WHOLE.fullmatch(cell)]
        if len({*numbers}) == len(cells) and numbers != [*range(len(cells))]:
            what = f"has a column {column!r} of numbers, which may be the ids of the classes"
            raise InputError(what, "call it id, or remove it if a class has the number of its row, from 0")


def _split_ignored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows named void are ignored; the others keep their id, or their row's number, as index masks have it."""
    rows = _without_labelmes(rows)
    entries = [{"id": place, **row} for place, row in enumerate(rows)]
    ignored = [e for e in entries if e["name"].lower() in IGNORED_NAMES]
    kept = [e for e in entries if e not in ignored]
    return {
        "classes": kept,
        "ignore": [IGNORE_INDEX, *(e["id"] for e in ignored), *(e["color"] for e in ignored if "color" in e)],
    }


MEANT_IGNORED = {"ignore_index", "ignore_label", "ignore_id", "ignore_ids", "ignored", "ignore_value"}


def _from_mapping(content: dict[str, Any]) -> dict[str, Any]:
    """``{name: id}`` or ``{id: name}``, the whole file or under ``classes:`` or ``names:``, as entries of a list."""
    own = content.get("classes", content.get("names", content))
    if isinstance(own, list):
        return {**{key: value for key, value in content.items() if key != "names"}, "classes": own}
    for key in content.keys() & MEANT_IGNORED:
        raise InputError(f"unknown key {key!r}", "write the ids that are ignored as ignore: [255]")
    rest = {"ignore": content["ignore"]} if "ignore" in content else {}
    pairs = [pair for pair in own.items() if own is not content or pair[0] != "ignore"]
    if pairs and all(type(value) is int for _, value in pairs):
        return {"classes": [{"name": name, "id": value} for name, value in pairs], **rest}
    by_id = "classes" not in content and all(str(key).isdigit() for key, _ in pairs)  # as YOLO's names:
    if pairs and by_id and all(isinstance(value, str) for _, value in pairs):
        return {"classes": [{"name": value, "id": int(key)} for key, value in pairs], **rest}
    raise KeyError


def _mask_colors(entries: list[dict[str, Any]], ignored: list[Color]) -> tuple[tuple[Color, int], ...]:
    """Colours of RGB masks, if each class has one of its own."""
    if not all(e.get("color") is not None for e in entries):
        return ()
    own = [(_color(e["color"]), place) for place, e in enumerate(entries)]
    return (*own, *((color, ignored_in(len(entries))) for color in ignored))


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
