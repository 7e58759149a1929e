"""Which images of a run are worth a look: where most is wrong, where the rarest class is, and where it is found."""

from collections.abc import Iterable

import numpy as np

from segloss.evaluation.results import Totals
from segloss.evaluation.source import Source
from segloss.evaluation.summary import members_of_groups
from segloss.report.image_cards import ShownImage

EXTREMES = 3  # images of each kind, of each run, unless more are asked for
MOST_RUNS = 4  # whose images are shown


def extremes(source: Source, totals: Totals, most: int = EXTREMES) -> list[ShownImage]:
    """The worst images of a run by wrong pixels and by the rarest class, and the best that hold a rare class.

    Pixels are counted, not averaged over classes, so that one false pixel makes no image the worst. The rarest class is
    the one of fewest training pixels (or, where these are not known, true ones) that some image holds; the rare ones
    are the tail's. An image is shown once, and ``most`` of each kind. The network runs once more on them.
    """
    hits, true, predicted = np.moveaxis(totals.counts, 1, 0)
    pixels = true.sum(1)
    wrong = pixels - hits.sum(1)
    order = totals.counts[:, 1].sum(0).tolist() if source.training_pixels is None else source.training_pixels
    there = [c for c in range(len(order)) if true[:, c].any()]
    found: dict[int, tuple[str, str]] = {}

    def take(kind: str, places: Iterable[int], said: dict[int, str]) -> None:
        new = [place for place in places if place in said and place not in found]
        found.update((place, (kind, said[place])) for place in new[:most])

    counted = {k: f"{wrong[k]:,} ({100 * wrong[k] / pixels[k]:.1f} %)" for k in np.flatnonzero(wrong).tolist()}
    take("most wrong pixels", np.argsort(-wrong, kind="stable").tolist(), counted)
    if there:
        c = min(there, key=lambda c: order[c])
        name, off = source.classes.names[c], true[:, c] + predicted[:, c] - 2 * hits[:, c]
        said = {
            k: f"{off[k]:,} missed or invented, {true[k, c]:,} true" for k in np.flatnonzero(off * true[:, c]).tolist()
        }
        rarest = "the rarest class" if source.training_pixels is None else "the rarest class in training"
        take(f"most wrong pixels of {name}, {rarest}", np.argsort(-off, kind="stable").tolist(), said)
    tail = members_of_groups(true.sum(0).tolist(), source.training_pixels)["tail"]
    held = np.flatnonzero(true[:, tail].any(1)).tolist()
    union = (true + predicted - hits)[:, tail].sum(1)
    iou = hits[:, tail].sum(1) / np.maximum(union, 1)
    said = {
        k: f"IoU {100 * iou[k]:.1f} of " + ", ".join(source.classes.names[c] for c in tail if true[k, c]) for k in held
    }
    take("best with a rare class", np.lexsort((wrong, -iou)).tolist(), said)
    return [
        ShownImage(kind, totals.names[place], said, *source.picture(totals.names[place]))
        for place, (kind, said) in found.items()
    ]
