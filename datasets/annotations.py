"""Files that tell regions by outlines instead of masks: recognised here, drawn by ``python -m segloss.rasterise``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segloss.datasets.finding import image_files
from segloss.errors import InputError

KINDS = {"coco": "COCO JSON", "labelme": "LabelMe JSON", "cvat": "CVAT XML", "yolo": "YOLO-seg txt"}
HEAD = 2**16  # bytes of a file that tell what it is
SHARE = r"\s+-?([01]|[01]?\.\d+)(e-?\d+)?"  # of the image's width or height
CLASS = r"\d+(?:\.0+)?"
OUTLINE = re.compile(rf"{CLASS}({SHARE}){{4,}}\s*", re.IGNORECASE)  # then the corners, or middle and sides of a box


def kind_of(path: Path) -> str | None:
    """Which of ``KINDS`` a file is, by its first bytes; None for another."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".xml", ".txt") or not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(HEAD).decode("utf-8-sig", "replace").lstrip()
    if suffix == ".txt":
        lines = head.splitlines()
        return "yolo" if lines and OUTLINE.fullmatch(lines[0] if len(lines) > 1 else head) else None
    if suffix == ".xml":
        return "cvat" if re.match(r"(<\?.*?\?>\s*)?(<!--.*?-->\s*)*<annotations>", head, re.DOTALL) else None
    if re.search(r'"shapes"\s*:\s*\[', head) and re.search(r'"(imagePath|points|shape_type|version)"\s*:', head):
        return "labelme"
    lists = re.search(r'"(images|annotations|categories)"\s*:\s*\[', head)
    inside = re.search(r'"(file_name|category_id|categories)"', head)
    return "coco" if head.startswith("{") and lists and inside else None


def annotation_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Kind and path of every file of outlines below a folder, or of the file itself; hidden ones are left out."""
    for path in [root] if root.is_file() else image_files(root, (".json", ".xml", ".txt")):
        if kind := kind_of(path):
            yield kind, path


def outlines_instead_of_masks(root: Path) -> InputError | None:
    """That there are outlines to be drawn first, and the command; None where there are none.

    >>> print(outlines_instead_of_masks(Path("nowhere")))
    None
    """
    kind, path = next(annotation_files(root), (None, root))
    if kind is None:
        return None
    place = path.parent if root.is_file() else root
    command = f"python -m segloss.rasterise {place} {place.name}-masks"
    return InputError(f"holds {KINDS[kind]}, outlines instead of masks", f"draw them: {command}", path)


def plain_number(value: Any) -> Any:
    """A whole number that was written as a float, as tables do, as an integer; anything else as it is.

    >>> plain_number(1.0), plain_number(0.5), plain_number("1.0")
    (1, 0.5, '1.0')
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_json(path: Path) -> object:
    """InputError for what is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"cannot be read as JSON: {' '.join(str(error).split())}"
        raise InputError(what, "restore the file or remove it", path) from error
