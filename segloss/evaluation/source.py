"""What a source of results is: a trained run on a split, or a folder of predicted masks or maps."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segloss.datasets import ClassTable
from segloss.errors import Finding
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.suspects import Suspects
from segloss.schema import Origin

Result = tuple[int, ImageResult]  # the image's place, and what was counted of it


class Source(Protocol):
    """Where results come from: a trained run, or a folder of predicted masks."""

    name: str
    classes: ClassTable
    training_pixels: tuple[int, ...] | None  # orders the classes for head, middle and tail
    suspects: Suspects | None

    def __len__(self) -> int: ...

    @property
    def names(self) -> Sequence[str]:
        """Of its images, in their order."""

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        """Of each image those whose change makes an earlier result void."""

    @property
    def sees_all(self) -> bool:
        """Whether somebody wants to see every image, also those whose results are there."""

    @property
    def bad(self) -> Mapping[int, str]:
        """Place -> line, of the images that the last pass left out because they cannot be used."""

    def take_bad(self, bad: Mapping[int, str]) -> None:
        """What passes elsewhere left out; InputError where nothing is left."""

    def batches(self, places: Sequence[int]) -> list[list[int]]:
        """The images at these places as they are looked at together."""

    def describe(self) -> Origin:
        """What was scored, for the metrics schema."""

    def identity(self) -> dict[str, Any]:
        """All that the results depend on, the same wherever the files lie."""

    def key(self) -> dict[str, Any]:
        """The identity, and the state of these very files."""

    def results(self, done: Collection[str]) -> Iterator[Result]:
        """(place, result) of every image whose name is not among those done."""

    def picture(self, name: str) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """Image, if there is one, labels and predicted class numbers of one sample."""

    def findings(self, totals: Totals) -> list[Finding]:
        """What makes its scores doubtful, errors first, by what was counted."""
