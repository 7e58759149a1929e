"""Made-up streets as a data set: CamVid's 11 classes and void, no files, no download. Never evidence for a method."""

from pathlib import Path

import numpy as np
import torch

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.masks import class_histogram
from segloss.datasets.missing import MissingSplitError
from segloss.datasets.pairing import Pairing
from segloss.datasets.street_scenes import SPLIT_SIZES, render_street
from segloss.datasets.tables import CAMVID_11

SEED = 0
RENDERER_VERSION = 2  # part of the fingerprint: raise it when the renderer draws other labels


class SyntheticStreets(SegmentationDataset):
    """240 / 40 / 60 scenes of 240x180 in train / val / test, each a function of (seed, split, index).

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.
        size: (H, W) of the scenes.
        length: number of scenes; None: the split's own.
    """

    made_up = True

    def __init__(
        self,
        split: str,
        transform: Transform | None = None,
        size: tuple[int, int] = (180, 240),
        length: int | None = None,
    ):
        if split not in SPLIT_SIZES:
            raise MissingSplitError(f"no split {split!r}", f"choose one of {', '.join(SPLIT_SIZES)}", "synthetic")
        names = [Path(f"{split}_{index:04d}.png") for index in range(length or SPLIT_SIZES[split])]
        found = Pairing("made-up streets", [(name, name) for name in names], [name.stem for name in names])
        super().__init__("synthetic", split, found, CAMVID_11, transform)
        self.scene_size = size

    def check_files(self) -> None:
        """There are none."""

    def image_size(self, index: int) -> tuple[int, int]:
        return self.scene_size

    def decode_pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return render_street(SEED, self.split, index, *self.scene_size)

    def read_image(self, index: int) -> np.ndarray:
        return self.decode_pair(index)[0]

    def read_labels(self, index: int) -> np.ndarray:
        return self.decode_pair(index)[1]

    def histogram(self, index: int) -> torch.Tensor:
        return torch.from_numpy(class_histogram(self.read_labels(index), len(self.classes)))

    def fingerprint(self) -> str:
        return f"streets-v{RENDERER_VERSION}-{SEED}-{self.split}-{len(self)}-{self.scene_size[0]}x{self.scene_size[1]}"


def _open(root: None, split: str, transform: Transform | None) -> SyntheticStreets:
    return SyntheticStreets(split, transform)


FORMATS = (Format("synthetic", "made-up streets, no files", _open, made_up=True, splits=tuple(SPLIT_SIZES)),)
