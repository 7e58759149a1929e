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


def rows_of(counts: np.ndarray, names: Sequence[str], kinds: Sequence[str]) -> tuple[tuple[str | int, ...], ...]:
    """Of counts ``(C, K, n)`` a row of a table for each class and kind that has any: class, kind, the n counts.

    >>> rows_of(np.array([[[0, 0], [3, 1]]]), ["pole"], ["thin", "thick"])
    (('pole', 'thick', 3, 1),)
    """
    return tuple(
        (name, kind, *of_kind)
        for name, of_class in zip(names, counts.tolist(), strict=True)
        for kind, of_kind in zip(kinds, of_class, strict=True)
        if any(of_kind)
    )


@dataclass(frozen=True)
class Measure:
    """What is counted of each image beside the confusion matrix, and the scores read from all images' counts.

    Attributes:
        name: the option that asks for it, as a word of Python.
        help: what it is, for ``--help``.
        count: ``(predicted, labels, C)``, two maps of one size, uint8 or, of more than 254 classes, uint16; any value
            from C on is ignored in the labels and no class in the predictions -> counts, an array of one shape for all
            images.
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
