"""Outlines, rectangles, ellipses and run lengths as the run lengths of pycocotools, which draws them.

A pixel belongs to a polygon as in COCO's own tools; where its line crosses itself, inside is what an odd number of
crossings parts from the outside. What lies outside the image is cut off.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segloss.errors import InputError

Runs = dict[str, Any]  # {"size": [H, W], "counts": bytes}, column by column
Region = Callable[[int, int], Runs]  # (H, W) of the image -> its pixels; ValueError for what cannot be drawn
Ring = list[float]  # x, y, x, y ... in pixels
Box = tuple[float, float, float, float]  # left, top, right, bottom
FARTHEST = 1e6  # pixels from the origin; pycocotools takes memory for every one that a line crosses
LEAST_SIDE = 4  # pixels of a rectangle that is known as one
OFF_RIGHT = 0.1  # pixels that a corner of one may be off, as numbers are rounded; who draws by hand is off by more
FILLED = "these are filled, as by COCO's tools; a hole is a smaller outline called background"
CORNERS = 96  # of the polygon that stands for an ellipse: at a radius of 1000 pixels half a pixel off


def _tools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError("pycocotools is missing", 'pip install "segloss-imbalanced[rasterise]"') from error
    return mask


def require_tools() -> None:
    """InputError where pycocotools is missing."""
    _tools()


def ring_of(numbers: Any) -> Ring:
    """Checked corners of a polygon; ValueError for fewer than three, or for what are no coordinates."""
    if not isinstance(numbers, list | tuple) or len(numbers) % 2:
        raise ValueError("its outline is no list of x and y")
    if len(numbers) < 6:
        raise ValueError(f"its outline has {len(numbers) // 2} points, not three or more")
    ring = [float(number) for number in numbers]
    if not all(math.isfinite(number) and abs(number) <= FARTHEST for number in ring):
        raise ValueError("its outline has a point that is no number or far outside any image")
    return ring


@dataclass(frozen=True)
class Outline:
    """All that lies in one of the rings."""

    rings: Sequence[Ring]

    def __call__(self, height: int, width: int) -> Runs:
        tools = _tools()
        runs: Runs = tools.merge(tools.frPyObjects(list(self.rings), height, width))
        return runs

    @property
    def box(self) -> Box:
        """Around the corners, whether these lie in the image or not."""
        x, y = ([number for ring in self.rings for number in ring[first::2]] for first in (0, 1))
        return min(x), min(y), max(x), max(y)


@dataclass(frozen=True)
class Shares:
    """All that lies in a ring whose corners are given in shares of the image."""

    ring: Ring

    def outline(self, height: int, width: int) -> Outline:
        return Outline([[share * (height if place % 2 else width) for place, share in enumerate(self.ring)]])

    def __call__(self, height: int, width: int) -> Runs:
        return self.outline(height, width)(height, width)


def polygons(rings: Sequence[Ring]) -> Region:
    """All that lies in one of the rings."""
    return Outline(rings)


def rectangle_of(ring: Ring) -> str:
    """``upright`` or ``turned`` where it has four corners, all of right angles, and no side below ``LEAST_SIDE``.

    >>> rectangle_of([0, 0, 9, 0, 9, 5, 0, 5, 0, 0]), rectangle_of([0, 0, 9, 0, 12, 5, 3, 5])
    ('upright', '')
    """
    corners = np.array(ring).reshape(-1, 2)
    corners = corners[:-1] if (corners[0] == corners[-1]).all() else corners
    if len(corners) != 4:
        return ""
    sides = np.roll(corners, -1, 0) - corners
    lengths = np.hypot(*sides.T)
    if lengths.min() < LEAST_SIDE:
        return ""
    off = np.abs((sides * np.roll(sides, -1, 0)).sum(1)) / np.maximum(lengths, np.roll(lengths, -1))
    if off.max() > OFF_RIGHT:
        return ""
    return "upright" if np.abs(sides).min(1).max() <= OFF_RIGHT else "turned"


def has_ring_within(rings: Sequence[Ring]) -> bool:
    """Whether no corner of one ring is outside of another, and not all are on its line."""
    import cv2

    corners = [np.array(ring, np.float32).reshape(-1, 2) for ring in rings]
    low, high = np.array([ring.min(0) for ring in corners]), np.array([ring.max(0) for ring in corners])
    within = (low[:, None] >= low).all(2) & (high[:, None] <= high).all(2)
    for inner, outer in np.argwhere(within & ~np.eye(len(rings), dtype=bool)):
        sides = [cv2.pointPolygonTest(corners[outer], corner, False) for corner in corners[inner].tolist()]
        if min(sides) >= 0 and max(sides) > 0:
            return True
    return False


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Region:
    """Around (x, y) with the two radii, turned clockwise as seen."""
    turns = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
    return polygons([_turned(np.stack([across * np.cos(turns), down * np.sin(turns)], 1), x, y, degrees)])


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> Region:
    """Turned clockwise, as seen, around its middle."""
    half = np.array([abs(right - left), abs(bottom - top)]) / 2
    corners = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return polygons([_turned(corners, (left + right) / 2, (top + bottom) / 2, degrees)])


def _turned(points: np.ndarray, x: float, y: float, degrees: float) -> Ring:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ring_of((points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)).ravel().tolist())


def around(points: Any) -> Region | None:
    """The pixels that the rectangle around x, y, x, y ... touches; None or ValueError: these are no coordinates."""
    corners = np.asarray(points, float).reshape(-1, 2)
    if not corners.size or not (np.abs(corners) <= FARTHEST).all():
        return None
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.floor(corners.max(0)) + 1
    return rectangle(left, top, right, bottom)


def whole(height: int, width: int) -> Runs:
    """Every pixel."""
    return rectangle(0, 0, width, height)(height, width)


def run_lengths(size: Any, counts: Any) -> Region:
    """COCO's own, a list of numbers or their compressed text; ValueError unless they fill the image."""

    def draw(height: int, width: int) -> Runs:
        if list(size or ()) != [height, width]:
            raise ValueError(f"its run lengths are for {size} (height, width), the image has {[height, width]}")
        numbers = counts if isinstance(counts, list) else _uncompressed(counts)
        if not all(type(number) is int and number >= 0 for number in numbers) or sum(numbers) != height * width:
            raise ValueError(f"its run lengths do not fill {height} x {width} pixels")
        runs: Runs = _tools().frPyObjects({"size": [height, width], "counts": numbers}, height, width)
        return runs

    return draw


def _uncompressed(text: Any) -> list[int]:
    """COCO's text of run lengths as numbers; pycocotools reads beyond the end of one that is cut off.

    Six bits a letter from "0": five of the number, low first, and whether more follow; each is the difference to the
    number before the last, from the fourth on.
    """
    letters = text.encode("latin-1", "replace") if isinstance(text, str) else b"\xff"
    numbers: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = letter - 48
        if not 0 <= bits < 64:
            raise ValueError("its run lengths cannot be read")
        value, shift = value | (bits & 31) << shift, shift + 5
        if not bits & 32:
            value -= (bits >> 4 & 1) << shift  # the highest bit is the sign
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return numbers


def bitmap(pixels: np.ndarray, left: int, top: int) -> Region:
    """A piece ``(h, w)`` of the image whose upper left pixel is (left, top)."""

    def draw(height: int, width: int) -> Runs:
        whole = np.zeros((height, width), np.uint8, order="F")
        rows, columns = pixels.shape
        there = whole[max(0, top) : max(0, top + rows), max(0, left) : max(0, left + columns)]
        there |= pixels[max(0, -top) :, max(0, -left) :][: there.shape[0], : there.shape[1]].astype(bool)
        runs: Runs = _tools().encode(whole)
        return runs

    return draw


def area(runs: Runs) -> int:
    return int(_tools().area(runs))


def box_of(runs: Runs) -> Box:
    """The box around its pixels."""
    left, top, width, height = map(float, _tools().toBbox(runs))
    return left, top, left + width, top + height


def overlap(one: Box, other: Box) -> float:
    """Intersection over union.

    >>> overlap((0, 0, 4, 2), (2, 0, 4, 2))
    0.5
    """
    both = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    both *= max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    either = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other)) - both
    return both / either if either > 0 else 0.0


def pixels_of(runs: Runs) -> np.ndarray:
    """bool ``(H, W)``."""
    drawn: np.ndarray = _tools().decode(runs).astype(bool)
    return drawn
