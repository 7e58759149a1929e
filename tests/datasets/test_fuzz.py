"""Damaged files: 500 truncations and 500 byte flips each of masks and images crash or hang no loader.

Where the format has checksums (PNG) every change is named. A JPEG has none: flips inside its data give other pixels,
and nothing can tell; what must hold is that reading ends, with an image of the right size or an error with the name.
"""

import re
from itertools import islice

import cv2
import numpy as np
import pytest
from data_trees import write_png

from segloss.datasets.base import SegmentationDataset
from segloss.datasets.loading import training_loader
from segloss.datasets.pairing import Pairing
from segloss.datasets.tables import CAMVID_11
from segloss.doctor.pairs import examine_pair
from segloss.errors import InputError

SIZE = (90, 120)
COUNT = 500


def files(folder, image_suffix: str):
    """A smooth image and a blocky mask, as data sets hold them."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    image = write_png(folder / f"image{image_suffix}", noise)
    blocks = np.kron(rng.integers(0, 12, (9, 12), dtype=np.uint8), np.ones((10, 10), np.uint8))
    return image, write_png(folder / "mask.png", blocks)


def damaged_copies(content: bytes, kind: str):
    rng = np.random.default_rng(1)
    for _ in range(COUNT):
        if kind == "cut":
            yield content[: int(rng.integers(0, len(content)))]
        else:
            copy = bytearray(content)
            copy[int(rng.integers(0, len(content)))] ^= int(rng.integers(1, 256))
            yield bytes(copy)


@pytest.mark.parametrize("kind", ["cut", "flip"])
@pytest.mark.parametrize("part", ["mask.png", "image.png", "image.jpg"])
def test_damaged_files_are_named_or_read_and_never_crash(tmp_path, part, kind):
    image, mask = files(tmp_path, ".jpg" if part == "image.jpg" else ".png")
    dataset = SegmentationDataset("fuzz", "train", Pairing("", [(image, mask)], ["a"]), CAMVID_11)
    whole = dataset[0]
    path = tmp_path / part
    content = path.read_bytes()
    silent = 0
    for damaged in damaged_copies(content, kind):
        path.write_bytes(damaged)
        faults = examine_pair(dataset, 0).faults
        try:
            item = dataset[0]
        except InputError as error:
            assert part in str(error) and "\n" not in str(error)
            assert part in str(faults[0].error)  # the doctor says so too
            continue
        assert not [fault for fault in faults if fault.severity == "error"]
        assert item["image"].shape == whole["image"].shape and item["labels"].shape == whole["labels"].shape
        silent += not ((item["image"] == whole["image"]).all() and (item["labels"] == whole["labels"]).all())
    if part.endswith(".png"):
        assert silent == 0  # checksums
    elif kind == "cut":
        assert silent == 0  # the end mark is missing
    else:
        assert silent > 0  # what docs/data.md says cannot be seen
    path.write_bytes(content)
    assert (dataset[0]["image"] == whole["image"]).all()


@pytest.mark.parametrize(("part", "kind"), [("mask.png", "flip"), ("image.png", "cut"), ("image.jpg", "cut")])
def test_a_damaged_file_met_by_a_worker_ends_the_epoch_with_its_name(tmp_path, part, kind):
    image, mask = files(tmp_path, ".jpg" if part == "image.jpg" else ".png")
    dataset = SegmentationDataset("fuzz", "train", Pairing("", [(image, mask)], ["a"]), CAMVID_11)
    path = tmp_path / part
    content = path.read_bytes()
    for damaged in [*islice(damaged_copies(content, kind), 3), b"", content]:
        path.write_bytes(damaged)
        loader = training_loader(dataset, 1, seed=0, workers=1)
        loader.timeout = 60  # seconds: a worker that hangs is an error too
        if damaged == content:
            assert [batch["image"].shape for batch in loader] == [(1, 3, *SIZE)]
            continue
        with pytest.raises(InputError, match=re.escape(str(path))):
            list(loader)
