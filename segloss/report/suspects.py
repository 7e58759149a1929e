"""Regions whose label is likely wrong, as tables and as a page of crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segloss.datasets import ClassTable
from segloss.files import write_csv
from segloss.report.pages import write_page
from segloss.report.painting import jpeg, paint

BOX_COLOR = (255, 255, 255)
PANEL = 240  # pixels, the larger side of a crop on the page


@dataclass(frozen=True)
class Suspect:
    """A connected region that is labelled as one class where the network is sure of another.

    Attributes:
        image: its name.
        box: left, top, width and height in pixels.
        labelled, predicted: class numbers.
        pixels: of the region.
        confidence: mean probability of the predicted class.
        score: how likely the label is wrong, and how much of it, in pixels.
        frame: left, top, right and bottom of the crops.
        labels, predictions: crops of class numbers, every ``step``-th row and column.
    """

    image: str
    box: tuple[int, int, int, int]
    labelled: int
    predicted: int
    pixels: int
    confidence: float
    score: float
    frame: tuple[int, int, int, int]
    labels: np.ndarray
    predictions: np.ndarray
    step: int


@dataclass(frozen=True)
class SuspectImage:
    """Of an image: the largest score of a region, how many there are, their pixels and share of the labelled ones."""

    image: str
    score: float
    regions: int
    pixels: int
    share: float


def write_suspects(
    folder: Path,
    name: str,
    title: str,
    classes: ClassTable,
    suspects: Sequence[Suspect],
    images: Sequence[SuspectImage],
    picture: Callable[[str], np.ndarray | None],
) -> Path:
    """suspects-NAME.csv, suspect-images-NAME.csv and the page suspects-NAME.html, all in the order given.

    Args:
        picture: RGB ``(H, W, 3)`` of an image's name, None where there is none beside the masks.

    Returns:
        The page.
    """
    header = ("image", "left", "top", "width", "height", "labelled", "predicted", "pixels", "confidence", "score")
    rows = [
        (s.image, *s.box, classes.names[s.labelled], classes.names[s.predicted], s.pixels, s.confidence, s.score)
        for s in suspects
    ]
    write_csv(folder / f"suspects-{name}.csv", header, rows)
    columns = ("image", "score", "regions", "pixels", "share")
    write_csv(folder / f"suspect-images-{name}.csv", columns, (vars(image).values() for image in images))
    page = folder / f"suspects-{name}.html"
    shown = [_shown(suspect, classes, picture(suspect.image)) for suspect in suspects]
    used = sorted({int(c) for s in suspects for crop in (s.labels, s.predictions) for c in np.unique(crop)})
    legend = [(classes.names[c], classes.colors[c]) for c in used if c < len(classes)]
    write_page(page, "suspects.html", title=title, suspects=shown, images=images, legend=legend)
    return page


def _shown(suspect: Suspect, classes: ClassTable, image: np.ndarray | None) -> dict[str, Any]:
    """A suspect in words, and its crops side by side with the region's box drawn in."""
    crops = {"label": paint(suspect.labels, classes.colors), "prediction": paint(suspect.predictions, classes.colors)}
    height, width = suspect.labels.shape
    factor = PANEL / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    panels = {kind: cv2.resize(crop, size, interpolation=cv2.INTER_NEAREST) for kind, crop in crops.items()}
    left, top, right, bottom = suspect.frame
    if image is not None:
        shown = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
        panels = {"image": shown, **panels}
    x, y, w, h = suspect.box
    scale = np.array([size[0] / (right - left), size[1] / (bottom - top)])
    ends = [np.round((np.array(corner) - (left, top)) * scale).astype(int) for corner in ((x, y), (x + w, y + h))]
    for panel in panels.values():
        for color, thickness in (((0, 0, 0), 3), (BOX_COLOR, 1)):
            cv2.rectangle(panel, ends[0].tolist(), (ends[1] - 1).tolist(), color, thickness)
    gap = np.full((size[1], 4, 3), 255, np.uint8)
    strip = np.concatenate([part for panel in panels.values() for part in (panel, gap)][:-1], axis=1)
    return {
        "of": suspect,
        "labelled": classes.names[suspect.labelled],
        "predicted": classes.names[suspect.predicted],
        "picture": jpeg(strip, strip.shape[1]),
        "panels": list(panels),
    }
