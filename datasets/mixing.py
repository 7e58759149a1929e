"""Training samples made of two: regions of rare classes pasted from another image, ClassMix, CutMix.

All randomness is a function of the seed and the sample's key: the same for any number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from segloss.datasets.classes import mirrored_classes

Mix = Literal["none", "paste", "classmix", "cutmix"]
OTHER = 2**31  # in the key of the other image's augmentation, where a repeated image has its number


@dataclass(frozen=True)
class Mixing:
    """What is done to a share of the training samples, once they have the size of a crop.

    The other image is augmented by the same transform. With M the pixels taken from it, image and labels are those of
    the other on M and the sample's own elsewhere; ignored pixels come along as what they are.

    - ``paste``: a rare class is drawn, all alike, then an image that holds it and a crop around one of its pixels. M:
      of the connected regions of rare classes in that crop each with probability 1/2, one of the drawn class at least,
      whole and where they are; the sample's own rare regions stay in front.
    - ``classmix``: M: half of the classes in the other image, rounded up.
    - ``cutmix``: M: a rectangle anywhere, of the crop's form, its area's share uniform in (0, 1).

    Attributes:
        kind: one of these.
        share: of the samples that are mixed.
        seed: any non-negative integer.
        rare: class -> places of the images that hold it, of ``paste``.

    Source: Ghiasi et al., "Simple Copy-Paste", CVPR 2021 (of instances there, of connected regions here); Olsson et
    al., "ClassMix", WACV 2021; Yun et al., "CutMix", ICCV 2019.
    """

    kind: Mix
    share: float
    seed: int
    rare: Mapping[int, np.ndarray]

    def __call__(
        self, dataset: Any, image: np.ndarray, labels: np.ndarray, class_mask: np.ndarray | None, key: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The sample mixed or as it was, and the classes that are labelled on all of it.

        Args:
            dataset: of the sample and the other one, a :class:`segloss.datasets.SegmentationDataset`.
            image, labels, class_mask: of the sample; None: it labels all classes.
            key: (epoch, index, ...) of the sample.
        """
        draws = np.random.default_rng(np.random.SeedSequence([self.seed, *key], spawn_key=(0,)))
        if draws.random() >= self.share:
            return image, labels, class_mask
        sought = int(draws.choice([*self.rare])) if self.kind == "paste" else None
        place = int(draws.choice(len(dataset) if sought is None else self.rare[sought]))
        around = {} if sought is None else {"around": sought}
        other, other_labels = dataset.transform(*dataset.read_pair(place), (*key, OTHER, place), **around)
        labelled = None if dataset.labelled is None else dataset.labelled.masks[place]
        other_labels, labelled = dataset.by_side(other_labels, labelled)
        sides = mirrored_classes(dataset.classes.names)
        if sides and sought is not None and not (other_labels == sought).any():
            sought = sides[sought]
        taken = self._taken(draws, labels, other_labels, sought, class_mask, dataset.classes.ignored)
        image = np.where(taken[..., None], other, image)
        labels = np.where(taken, other_labels, labels)
        if class_mask is not None and self.kind == "cutmix":
            class_mask = class_mask & labelled
            labels[np.isin(labels, np.flatnonzero(~class_mask))] = dataset.classes.ignored
        return image, labels, class_mask

    def _taken(
        self,
        draws: np.random.Generator,
        labels: np.ndarray,
        other: np.ndarray,
        sought: int | None,
        class_mask: np.ndarray | None,
        ignored: int,
    ) -> np.ndarray:
        """M, bool ``(h, w)``."""
        if self.kind == "cutmix":
            return _rectangle(draws, labels.shape)
        present = [int(c) for c in np.unique(other) if c != ignored and (class_mask is None or class_mask[c])]
        if self.kind == "classmix":
            return np.isin(other, draws.permutation(present)[: -(-len(present) // 2)])
        taken = np.zeros(labels.shape, bool)
        for c in (c for c in present if c in self.rare or c == sought):
            count, regions = cv2.connectedComponents((other == c).astype(np.uint8), connectivity=8)
            chosen = np.flatnonzero(draws.random(count - 1) < 0.5) + 1
            if c == sought and not len(chosen):
                chosen = draws.integers(1, count, 1)
            taken |= np.isin(regions, chosen)
        return taken & ~np.isin(labels, [*self.rare])


def _rectangle(draws: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    taken, scale = np.zeros(size, bool), draws.random() ** 0.5
    height, width = (round(side * scale) for side in size)
    top, left = draws.integers(size[0] - height + 1), draws.integers(size[1] - width + 1)
    taken[top : top + height, left : left + width] = True
    return taken
