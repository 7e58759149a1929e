"""What a counted metric declares of itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segloss.options import Option
from segloss.schema import CountTable


@dataclass(frozen=True)
class Column:
    """A number's key in JSON and CSV, and its title on the page and, where it must be shorter, in the terminal."""

    key: str
    title: str
    short: str = ""


@dataclass(frozen=True)
class Measure:
    """What is counted of each image beside the confusion matrix, and the scores read from all images' counts.

    Attributes:
        name: the option that asks for it, as a word of Python.
        help: what it is, for ``--help``.
        count: ``(predicted, labels, C)``, two uint8 maps of one size, 255 in the labels where ignored, any other value
            in the predictions no class -> counts, an array of one shape for all images.
        scores: counts of all images -> one ratio of each class, ``(C,)``, NaN where there is none.
        of_class, of_all: where the ratios and their mean stand.
        add: counts of some images and of others -> of both.
        table: counts of all images and names of the classes -> what one ratio of a class cannot say, if anything.
    """

    name: str
    help: str
    count: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    scores: Callable[[np.ndarray], np.ndarray]
    of_class: Column
    of_all: Column
    add: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add
    table: Callable[[np.ndarray, Sequence[str]], CountTable] | None = None

    @property
    def option(self) -> Option:
        """The switch that asks for it."""
        return Option(False, self.help)

    def mean(self, scores: np.ndarray) -> float:
        """Over the classes that have a score; NaN where none has."""
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if len(known) else float("nan")
