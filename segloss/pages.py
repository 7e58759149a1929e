"""Self-contained HTML pages: pictures inside, no network, every name escaped."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segloss.files import write_text
from segloss.report import paint

PICTURE_WIDTH = 480  # pixels; wider pictures are scaled down


def overlay(
    image: np.ndarray, labels: np.ndarray, colors: Sequence[Sequence[int]], strength: float = 0.55
) -> np.ndarray:
    """Labels painted over an image, both ``(H, W)``; ignored pixels are hatched in black."""
    painted = paint(labels, colors).astype(np.float32)
    mixed = image * (1 - strength) + painted * strength
    rows, columns = np.indices(labels.shape, sparse=True)
    hatch = (labels >= len(colors)) & ((rows + columns) // max(2, labels.shape[1] // 120) % 2 == 0)
    mixed[hatch] = 0
    return mixed.astype(np.uint8)


def data_uri(picture: np.ndarray) -> str:
    """An RGB picture as a JPEG inside the page."""
    height, width = picture.shape[:2]
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill ``templates/TEMPLATE``; everything put in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    write_text(path, environment.get_template(template).render(**content))
