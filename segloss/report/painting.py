"""Label maps as colours: painted, over images, and as errors."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

PICTURE_WIDTH = 480  # pixels; wider pictures are scaled down


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colors: Sequence[Sequence[int]],
    strength: float = 0.55,
    clear: int | None = None,
) -> np.ndarray:
    """Labels painted over an image, both ``(H, W)``; ignored pixels are hatched in black, class ``clear`` is left."""
    painted = paint(labels, colors).astype(np.float32)
    mixed = image * (1 - strength) + painted * strength
    if clear is not None:
        mixed[labels == clear] = image[labels == clear]
    diagonals = np.add.outer(*map(np.arange, labels.shape))
    hatch = (labels >= len(colors)) & (diagonals // max(2, labels.shape[1] // 120) % 2 == 0)
    mixed[hatch] = 0
    return mixed.astype(np.uint8)


def data_uri(picture: np.ndarray, most: int = PICTURE_WIDTH) -> str:
    """An RGB picture as a JPEG inside the page, at most so many pixels wide."""
    height, width = picture.shape[:2]
    if width > most:
        size = (most, max(1, round(height * most / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


ERROR_COLOR = (220, 40, 40)
IGNORED_COLOR = (0, 0, 0)
CORRECT_COLOR = (225, 225, 225)


def paint(labels: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Class numbers ``(H, W)`` -> RGB ``(H, W, 3)`` uint8; what is no class is black."""
    table = np.array([*colors, (0, 0, 0)], dtype=np.uint8)
    return np.asarray(table[np.minimum(labels, len(colors))])


def paint_errors(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """RGB: light where right, red where wrong, black where ignored."""
    picture = np.where((predicted == labels)[..., None], CORRECT_COLOR, ERROR_COLOR)
    picture[labels >= num_classes] = IGNORED_COLOR
    return picture.astype(np.uint8)
