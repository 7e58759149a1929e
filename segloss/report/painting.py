"""Label maps as colours: painted, over images, and as errors."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segloss.measures.error_places import places_of
from segloss.report.color_vision import CORRECT_COLOR, ERROR_COLORS, IGNORED_COLOR, Colors

PICTURE_WIDTH = 480  # pixels; wider pictures are scaled down
BACKGROUND = ("background", "bg", "_background_")  # where there is nothing: its pixels are not painted


def clear_class(names: Sequence[str]) -> int | None:
    """The number of the class that is nothing but background, if there is one.

    >>> clear_class(["Background", "crack"]), clear_class(["road", "sky"])
    (0, None)
    """
    return next((place for place, name in enumerate(names) if name.lower() in BACKGROUND), None)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its data, and its size in pixels, so that nothing moves when it appears."""

    uri: str
    width: int
    height: int


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colors: Colors,
    strength: float = 0.55,
    clear: int | None = None,
) -> np.ndarray:
    """Labels painted over an image, both ``(H, W)``; ignored pixels are hatched in black, class ``clear`` is left."""
    painted = paint(labels, colors).astype(np.float32)
    mixed = image * (1 - strength) + painted * strength
    if clear is not None:
        mixed[labels == clear] = image[labels == clear]
    mixed[(labels >= len(colors)) & stripes(labels.shape)] = 0
    return mixed.astype(np.uint8)


def stripes(shape: tuple[int, ...]) -> np.ndarray:
    """Every other diagonal stripe of a picture ``(H, W)``, to hatch with."""
    height, width = shape[:2]
    return np.asarray(np.add.outer(np.arange(height), np.arange(width)) // max(2, width // 120) % 2 == 0)


def jpeg(picture: np.ndarray, most: int = PICTURE_WIDTH) -> Picture:
    """An RGB picture as a JPEG, at most so many pixels wide."""
    picture = _at_most(picture, most, cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return _picture("jpeg", encoded.tobytes(), picture)


def label_picture(labels: np.ndarray, colors: Colors, clear: int | None = None, most: int = PICTURE_WIDTH) -> Picture:
    """Class numbers ``(H, W)`` as a PNG of just these colours; class ``clear`` is transparent, no class is hatched."""
    labels = _at_most(labels, most, cv2.INTER_NEAREST)
    painted = np.dstack([paint(labels, colors), np.full(labels.shape, 255, np.uint8)])
    other = labels >= len(colors)
    painted[other] = np.where(stripes(labels.shape)[..., None], (0, 0, 0, 255), (255, 255, 255, 255))[other]
    if clear is not None:
        painted[labels == clear] = 0
    return _png(painted)


def error_picture(predicted: np.ndarray, labels: np.ndarray, num_classes: int, most: int = PICTURE_WIDTH) -> Picture:
    """:func:`paint_errors` as a PNG of just these colours."""
    painted = _at_most(paint_errors(predicted, labels, num_classes), most, cv2.INTER_NEAREST)
    return _png(np.dstack([painted, np.full(painted.shape[:2], 255, np.uint8)]))


def _at_most(picture: np.ndarray, most: int, how: int) -> np.ndarray:
    height, width = picture.shape[:2]
    if width <= most:
        return picture
    return np.asarray(cv2.resize(picture, (most, max(1, round(height * most / width))), interpolation=how))


def _png(picture: np.ndarray) -> Picture:
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    return _picture("png", encoded.tobytes(), picture)


def _picture(kind: str, content: bytes, picture: np.ndarray) -> Picture:
    height, width = picture.shape[:2]
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height)


def paint(labels: np.ndarray, colors: Colors) -> np.ndarray:
    """Class numbers ``(H, W)`` -> RGB ``(H, W, 3)`` uint8; what is no class is black."""
    table = np.array([*colors, (0, 0, 0)], dtype=np.uint8)
    return np.asarray(table[np.minimum(labels, len(colors))])


def paint_errors(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """RGB: light where right, black where ignored, and where wrong the colour of the place (``ERROR_COLORS``)."""
    picture = np.array(ERROR_COLORS, dtype=np.uint8)[places_of(labels)]
    picture[predicted == labels] = CORRECT_COLOR
    picture[labels >= num_classes] = IGNORED_COLOR
    return picture
