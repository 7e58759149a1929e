"""What the doctor notes: findings, and the facts of files and splits that they are drawn from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.errors import InputError

SAMPLE = 16  # files of each split that `--check sample` decodes


@dataclass(frozen=True)
class Finding:
    """One fault: where and what in one line, and the cure."""

    severity: str  # "error" or "warning"
    split: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.split}: {self.what}" + (f"; {self.cure}" if self.cure else "")

    @classmethod
    def of(cls, split: str, error: InputError) -> "Finding":
        """An error of the loaders; what follows its last semicolon is the cure."""
        what, _, cure = str(error).rpartition("; ")
        return cls("error", split, what or cure, cure if what else "")


@dataclass
class PairFacts:
    """What one image and its mask look like."""

    faults: list[tuple[str, str, str, str]] = field(default_factory=list)  # kind, severity, what, cure
    values: frozenset[int] = frozenset()  # ids in the mask file
    histogram: np.ndarray | None = None  # (C + 1,), the ignored pixels last
    digest: str = ""

    def add(self, kind: str, error: InputError, severity: str = "error") -> None:
        found = Finding.of("", error)
        self.faults.append((kind, severity, found.what, found.cure))

    def has(self, kind: str) -> bool:
        return any(fault[0] == kind for fault in self.faults)


@dataclass
class SplitFacts:
    """One split and everything found in it."""

    dataset: SegmentationDataset
    places: list[int]
    pairs: list[PairFacts]

    @property
    def histogram(self) -> np.ndarray:
        zero = np.zeros(len(self.dataset.classes) + 1, dtype=np.int64)
        return sum((facts.histogram for facts in self.pairs if facts.histogram is not None), zero)

    @property
    def values(self) -> set[int]:
        return set().union(*(facts.values for facts in self.pairs))

    def masks_where(self, fits: Callable[[frozenset[int]], bool]) -> list[Path | None]:
        """The mask files whose ids fit."""
        pairs = zip(self.places, self.pairs, strict=True)
        return [self.dataset.pairs[place][1] for place, facts in pairs if fits(facts.values)]
