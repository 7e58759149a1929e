"""LabelMe JSON, one file an image: polygons, rectangles, circles and masks."""

import base64
import binascii
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets.annotations import read_json
from segloss.datasets.finding import IMAGE_SUFFIXES
from segloss.errors import InputError
from segloss.files import composed
from segloss.rasterise.regions import (
    FILLED,
    Region,
    Ring,
    around,
    bitmap,
    ellipse,
    has_ring_within,
    polygons,
    rectangle,
    ring_of,
)
from segloss.rasterise.sources import NOT_UNDERSTOOD, Fault, Images, Item, Picture, Source, folder_split


def read_labelme(files: Sequence[Path], root: Path, images: Images) -> Source:
    """A picture of each file; classes in the order of the alphabet."""
    source, holes = Source(), list[str]()
    for path in files:
        try:
            content = read_json(path)
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                raise InputError("is no LabelMe file (shapes)", "remove it", path)
        except InputError as error:
            source.faults.append(Fault(error))
            continue
        split = folder_split(path, root)
        sides = content.get("imageHeight"), content.get("imageWidth")
        size = (sides[0], sides[1]) if type(sides[0]) is int and type(sides[1]) is int else None
        try:
            image = images.find(str(content.get("imagePath") or ""), path.parent, split)
            if (own := _beside(path, images)) is not None and own.stem != image.stem:
                cure = "mend imagePath if it is of the one beside it, else call the file as its image"
                source.fault(path, f"lies beside {own.name}, and its imagePath is {image.name}", cure)
                continue
        except ValueError as error:
            source.fault(path, str(error), "add the image, say --image-dir, or remove the file")
            continue
        picture = Picture(image, split, path, size=size)
        rows = [(f"shape {place}", shape) for place, shape in enumerate(content["shapes"])]
        made = [(where, partial(_item, where, shape), partial(_extent, shape)) for where, shape in rows]
        picture.items = source.items(path, made)
        source.pictures.append(picture)
        holes += [f"{path}: group {group} of {label}" for label, group in _nested(content["shapes"])]
    source.add_classes(sorted(source.labels))
    if holes:
        what = f"{len(holes)} groups have an outline within another, the first: {holes[0]}"
        source.notes.append(f"{what}: {FILLED}")
    return source


def _nested(shapes: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Class and ``group_id`` of polygons of which one lies within another, as if it were a hole."""
    groups: dict[tuple[str, Any], list[Ring]] = {}
    for shape in shapes:
        with suppress(*NOT_UNDERSTOOD):  # a fault where it is drawn
            if shape.get("group_id") is not None and (shape.get("shape_type") or "polygon") == "polygon":
                ring = ring_of([number for point in shape["points"] for number in point])
                groups.setdefault((str(shape["label"]).strip(), shape["group_id"]), []).append(ring)
    yield from (key for key, rings in groups.items() if has_ring_within(rings))


def _beside(path: Path, images: Images) -> Path | None:
    """The image of the file's own name in its folder."""
    names = (composed(f"{path.stem}{suffix}") for suffix in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)))
    there = (image for name in names for image in images.by_name.get(name, []))
    return next((image for image in there if image.parent == path.parent), None)


def _item(where: str, shape: dict[str, Any]) -> Item:
    label = "" if shape["label"] is None else str(shape["label"]).strip()
    if not label:
        raise ValueError("has no label")
    return Item(f"{where} ({label})", label, _region(shape))


def _extent(shape: dict[str, Any]) -> Region | None:
    return None if shape.get("shape_type") == "circle" else around(shape["points"])  # a circle reaches beyond its two


def _region(shape: dict[str, Any]) -> Region:
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "polygon" or (kind in ("rectangle", "rotation") and len(points) == 4):  # the last: X-AnyLabeling's
        return polygons([ring_of([number for point in points for number in point])])
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"is a {kind}, which has no area")
    (left, top), (right, bottom) = points
    if kind == "rectangle":
        return rectangle(left, top, right, bottom)
    if kind == "circle":  # its middle, and a point of its line
        radius = math.hypot(right - left, bottom - top)
        return ellipse(left, top, radius, radius)
    return bitmap(_decoded(shape.get("mask")), round(left), round(top))


def _decoded(text: Any) -> np.ndarray:
    import cv2

    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError("its mask cannot be read") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if pixels is None:
        raise ValueError("its mask cannot be read")
    return np.asarray(pixels > 0)
