"""Which images of a run are worth a look: those of lowest and highest mean IoU."""

import numpy as np

from segloss.evaluation.comparison import class_ious
from segloss.evaluation.results import Totals
from segloss.evaluation.score import Source
from segloss.report.pages import ShownImage

EXTREMES = 3  # worst and best images of each run
MOST_RUNS = 4  # whose images are shown


def extremes(source: Source, totals: Totals) -> list[ShownImage]:
    """The images whose classes have the lowest and the highest mean IoU; images without a labelled pixel are left out.

    The network runs once more on them.
    """
    labelled = np.any(totals.counts[:, 1], axis=1, keepdims=True)
    ious = np.nanmean(np.where(labelled, class_ious(totals.counts), -1), axis=1)
    order = [int(place) for place in np.argsort(ious, kind="stable") if ious[place] >= 0]
    worst, best = order[:EXTREMES], order[::-1][: max(0, min(EXTREMES, len(order) - EXTREMES))]
    return [
        ShownImage(kind, totals.names[place], float(ious[place]), *source.picture(totals.names[place]))
        for kind, places in (("worst", worst), ("best", best))
        for place in places
    ]
