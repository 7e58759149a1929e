"""CVAT XML 1.1 for images: polygons, boxes, ellipses, masks and layers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from segloss.errors import InputError
from segloss.rasterise.regions import Region, around, bitmap, ellipse, polygons, rectangle, ring_of
from segloss.rasterise.sources import Images, Item, Picture, Source, folder_split, named_split

WITHOUT_PIXELS = ("attribute", "tag")  # of the image as a whole


def read_cvat(files: Sequence[Path], root: Path, images: Images) -> Source:
    """A picture of each image element; classes in the order of the task's labels, else of the alphabet.

    Raises:
        InputError: a file is no XML, or of a video.
    """
    source = Source()
    for path in files:
        try:
            tree = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise InputError(f"cannot be read as XML: {error}", "export it again", path) from error
        if tree.find("track") is not None:
            raise InputError("is of a video (tracks)", "export it as CVAT for images 1.1", path)
        source.add_classes(str(name.text).strip() for name in tree.findall("meta//labels/label/name") if name.text)
        for element in tree.iter("image"):
            name, subset = element.get("name", ""), element.get("subset", "")
            split = named_split(subset) or (subset if subset.lower() != "default" else "") or folder_split(path, root)
            try:
                image = images.find(name, path.parent, split)
                size = int(element.get("height", "")), int(element.get("width", ""))
            except ValueError as error:
                why = str(error) if str(error).startswith("its") else "has no height and width"
                source.fault(f"{path}: image {name}", why, "add the image, say --image-dir, or remove it")
                continue
            picture = Picture(image, split or folder_split(image, images.root), path, size=size)
            shapes = [shape for shape in element if shape.tag not in WITHOUT_PIXELS]
            rows = [(f"image {name}, shape {place} ({shape.tag})", shape) for place, shape in enumerate(shapes)]
            made = [(where, partial(_item, where, shape), partial(_extent, shape)) for where, shape in rows]
            picture.items = source.items(path, made)
            source.pictures.append(picture)
    source.add_classes(sorted(source.labels))
    return source


def _item(where: str, shape: ElementTree.Element) -> Item:
    label = shape.get("label", "").strip()
    if not label:
        raise ValueError("has no label")
    return Item(f"{where} of {label}", label, _region(shape), order=int(shape.get("z_order") or 0))


def _points(shape: ElementTree.Element) -> list[float]:
    return [float(text) for point in shape.get("points", "").split(";") for text in point.split(",")]


def _extent(shape: ElementTree.Element) -> Region | None:
    if shape.tag != "mask":
        return around(_points(shape))
    left, top, width, height = (float(shape.get(name, "")) for name in ("left", "top", "width", "height"))
    return around([left, top, left + width - 1, top + height - 1])


def _region(shape: ElementTree.Element) -> Region:
    def number(name: str, default: str = "") -> float:
        return float(shape.get(name, default))

    turn = number("rotation", "0")
    if shape.tag == "polygon":
        return polygons([ring_of(_points(shape))])
    if shape.tag == "box":
        return rectangle(number("xtl"), number("ytl"), number("xbr"), number("ybr"), turn)
    if shape.tag == "ellipse":
        return ellipse(number("cx"), number("cy"), number("rx"), number("ry"), turn)
    if shape.tag != "mask":
        raise ValueError(f"is a {shape.tag}, which has no area")
    width, height = int(number("width")), int(number("height"))
    runs = [int(text) for text in shape.get("rle", "").split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"its run lengths do not fill {height} x {width} pixels")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)  # row by row, outside first
    return bitmap(pixels, int(number("left")), int(number("top")))
