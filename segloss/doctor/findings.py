"""What the doctor notes: findings, and the facts of files and splits that they are drawn from."""

from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.errors import Finding as Finding
from segloss.errors import InputError
from segloss.errors import Severity as Severity

SAMPLE = 16  # files of each split that `--check sample` decodes


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file.

    Attributes:
        kind: of the fault; those of one kind and cure are one finding.
        error: what, where, and the cure.
        severity: of the finding.
        values: that tell faults of one kind and cure apart.
    """

    kind: str
    error: InputError
    severity: Severity = "error"
    values: str = ""


@dataclass
class PairFacts:
    """What one image and its mask look like."""

    faults: list[Fault] = field(default_factory=list)
    ids: Counter[int] = field(default_factory=Counter)  # id in the mask file -> pixels
    colors: dict[int, int] = field(default_factory=dict)  # id -> its colour in the file's palette
    histogram: np.ndarray | None = None  # (C + 1,), the ignored pixels last
    digest: str = ""  # of the pixels of the image
    mask_digest: str = ""  # of a mask that is decoded whole
    blank: bool = False  # the image is of one colour
    thumbnail: np.ndarray | None = None  # of the image, where all are decoded
    gray: bool = False  # it is RGB without a colour
    levels: tuple[tuple[float, float], ...] = ()  # between which most numbers of each band lie; of RGB those of all

    @property
    def values(self) -> frozenset[int]:
        return frozenset(self.ids)

    def has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.faults)


@dataclass
class SplitFacts:
    """One split and everything found in it."""

    dataset: SegmentationDataset
    places: list[int]
    pairs: list[PairFacts]
    header_faults: list[Fault] = field(default_factory=list)  # of the files that are not among the pairs

    @property
    def histogram(self) -> np.ndarray:
        zero = np.zeros(len(self.dataset.classes) + 1, dtype=np.int64)
        return sum((facts.histogram for facts in self.pairs if facts.histogram is not None), zero)

    @property
    def values(self) -> frozenset[int]:
        return frozenset().union(*(facts.values for facts in self.pairs))

    def masks_where(self, fits: Callable[[frozenset[int]], bool]) -> list[Path | None]:
        """The mask files whose ids fit."""
        pairs = zip(self.places, self.pairs, strict=True)
        return [self.dataset.pairs[place][1] for place, facts in pairs if fits(facts.values)]


def more_files(files: Sized) -> str:
    return f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
