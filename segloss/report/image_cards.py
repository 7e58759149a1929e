"""Images on the page: panels of one, what they show in words, and which errors they hold, to filter by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segloss.measures.error_places import PLACES, places_of
from segloss.report.color_vision import Color, shown_colors
from segloss.report.painting import clear_class, error_picture, jpeg, label_picture
from segloss.report.wording import percent, place_shares

MOST_NAMED = 3  # classes in the text of a panel
KINDS = ("missed", "invented", *PLACES)  # of errors, to filter by


@dataclass(frozen=True)
class ShownImage:
    """One image of a run on the page.

    Attributes:
        kind: why it is shown, such as ``"most wrong pixels"``.
        name: of the image.
        said: the number it was chosen by, in words.
        image: RGB ``(H, W, 3)`` uint8, None where there is none beside the masks.
        labels, predicted: class numbers ``(H, W)`` uint8.
    """

    kind: str
    name: str
    said: str
    image: np.ndarray | None
    labels: np.ndarray
    predicted: np.ndarray


def page_colors(names: Sequence[str], colors: Sequence[Color]) -> tuple[Color, ...]:
    """Colours of the classes on the page, apart to everybody's eyes; background, which is not painted, has its own."""
    clear = clear_class(names)
    apart = iter(shown_colors([color for place, color in enumerate(colors) if place != clear]))
    return tuple(color if place == clear else next(apart) for place, color in enumerate(colors))


def error_counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, dict[int, int]]:
    """Kind of an error -> class -> wrong pixels: missed and where they lie by true, invented by predicted class."""
    wrong = (labels < num_classes) & (predicted != labels)
    place = places_of(labels)
    chosen = {"missed": labels[wrong], "invented": predicted[wrong]}
    chosen |= {name: labels[wrong & (place == number)] for number, name in enumerate(PLACES)}
    return {kind: _counted(values, num_classes) for kind, values in chosen.items()}


def _counted(values: np.ndarray, num_classes: int) -> dict[int, int]:
    pixels = np.bincount(values, minlength=num_classes)[:num_classes]
    return {int(c): int(pixels[c]) for c in np.flatnonzero(pixels)}


def card(one: ShownImage, names: Sequence[str], colors: Sequence[Color]) -> dict[str, Any]:
    """Titled panels with their texts, and the wrong pixels of each kind and class."""
    clear, count = clear_class(names), len(names)
    errors = error_counts(one.labels, one.predicted, count)
    at = {place: sum(errors[place].values()) for place in PLACES}
    wrong, labelled = sum(at.values()), int((one.labels < count).sum())
    panels = [
        ("truth", label_picture(one.labels, colors, clear), _classes_text(one.labels, names)),
        ("prediction", label_picture(one.predicted, colors, clear), _classes_text(one.predicted, names)),
        ("errors", error_picture(one.predicted, one.labels, count), _errors_text(wrong, labelled, at)),
    ]
    if one.image is not None:
        panels.insert(0, ("image", jpeg(one.image), "photograph"))
    return {
        "kind": one.kind,
        "name": one.name,
        "said": one.said,
        "panels": [
            {"title": title, "picture": picture, "text": f"{title} of {one.name}: {text}"}
            for title, picture, text in panels
        ],
        "errors": errors,
        "at": at,
    }


def _classes_text(labels: np.ndarray, names: Sequence[str]) -> str:
    """``road 41.0 %, sky 30.2 %, tree 9.9 %``: the classes of most pixels."""
    pixels = np.bincount(labels.ravel(), minlength=len(names))[: len(names)]
    order = [c for c in np.argsort(-pixels, kind="stable").tolist() if pixels[c]]
    said = [f"{names[c]} {percent(pixels[c] / labels.size)} %" for c in order[:MOST_NAMED]]
    more = [f"{len(order) - MOST_NAMED} more"] if len(order) > MOST_NAMED else []
    return ", ".join([*said, *more]) or "no class"


def _errors_text(wrong: int, labelled: int, at: dict[str, int]) -> str:
    if not wrong:
        return "none"
    return f"{percent(wrong / labelled)} % of the labelled pixels are wrong; of these {place_shares(at)}"
