"""What a plan is made from: shares, sizes and images of the classes, image sizes, and the machine."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from segloss.datasets.cache import free_memory
from segloss.inference import pick_device
from segloss.pixel_counts import available_cores, counts_of, image_histograms, images_looked_at, kept_array
from segloss.progress import Progress

if TYPE_CHECKING:
    from segloss.datasets import SegmentationDataset

STEPS = 8  # of the logarithmic scale of sizes, between a number and its double
BINS = 40 * STEPS
SAMPLE = 30  # images of each class whose components are looked at, spread evenly
CRUMB = 4  # pixels: smaller components are slips of the pen and count in no median


@dataclass(frozen=True)
class ClassFacts:
    """One class in the training split.

    Attributes:
        name: of the class table.
        pixels: labelled, as if every image labelled all classes.
        share: of all labelled pixels.
        images: that hold it.
        median_pixels: of its connected components, at full size; 0 where it has none.
        width: in pixels at full size, of the middle image: half of the class's pixels there lie in thinner components;
            1 where all components have fewer than 4 pixels, 0 without any.
        val_images: of the val split that hold it.
    """

    name: str
    pixels: int
    share: float
    images: int
    median_pixels: float
    width: float
    val_images: int


@dataclass(frozen=True)
class MachineFacts:
    """What trains: ``cores``, ``memory_gib`` of the machine and ``gpu_memory_gib``, 0 without a GPU.

    ``cache_gib``: shared memory that is free now, of a container often little; None: unknown.
    """

    cores: int
    memory_gib: float
    gpu_memory_gib: float = 0.0
    cache_gib: float | None = None

    @classmethod
    def found(cls, accelerator: str = "auto") -> "MachineFacts":
        """This machine; InputError for an accelerator that is not there."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
        device = pick_device(accelerator)
        gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        free = min(free_memory().values(), default=None)
        return cls(
            available_cores(),
            memory / 2**30,
            (memory if device.type == "mps" else gpu) / 2**30,
            None if free is None else free / 2**30,
        )


@dataclass(frozen=True)
class Fingerprint:
    """Data and machine as :data:`segloss.plan.rules.RULES` see them.

    Attributes:
        classes: in the order of the class table.
        images, val_images: of the training and the val split.
        size: (H, W) of the middle image by area; ``largest`` of the largest.
        bands: of the images.
        bytes: of the decoded train and val splits.
        machine: what trains.
    """

    classes: tuple[ClassFacts, ...]
    images: int
    val_images: int
    size: tuple[int, int]
    largest: tuple[int, int]
    bands: int
    bytes: int
    machine: MachineFacts

    @property
    def present(self) -> list[ClassFacts]:
        """Classes that have pixels."""
        return [each for each in self.classes if each.pixels]

    @cached_property
    def largest_class(self) -> ClassFacts:
        return max(self.present, key=lambda each: each.pixels)


def components_of(labels: np.ndarray, classes: Iterable[int], num_classes: int) -> np.ndarray:
    r"""Connected components of some classes by size, and one count at each one's width, int64 ``(C, 2, BINS)``.

    Place b of the last dimension stands for :math:`2^{b/8}` to below :math:`2^{(b+1)/8}` pixels. The width of an
    8-connected component is that of a strip of the same mean distance to its edge,
    :math:`w = \max(1, 4 \bar d - 2)`, with d = 1 for pixels at it; half of the class's pixels in the image lie in
    thinner ones.
    """
    found = np.zeros((num_classes, 2, BINS), dtype=np.int64)
    for c in classes:
        mask = (labels == c).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        mask = cv2.copyMakeBorder(mask[top : top + height, left : left + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        inside = mask > 0
        distances = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)[inside]
        areas = stats[1:, cv2.CC_STAT_AREA]
        sums = np.bincount(numbers[inside], distances, minlength=count)[1:]
        whole = areas >= CRUMB
        areas, widths = areas[whole], np.maximum(1, 4 * sums[whole] / areas[whole] - 2)
        found[c, 0] = np.bincount(_place(areas), minlength=BINS)
        if whole.any():
            found[c, 1, int(_place(_median(np.bincount(_place(widths), areas, minlength=BINS))))] = 1
    return found


def _place(values: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.clip(np.floor(STEPS * np.log2(values)), 0, BINS - 1), dtype=np.int64)


def _median(counts: np.ndarray) -> float:
    """Of a histogram of :func:`components_of`; 0 where it is empty."""
    total = counts.sum()
    place = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    return float(2 ** ((place + 0.5) / STEPS)) if total else 0.0


def kept_components(dataset: "SegmentationDataset", held: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """:func:`components_of` of each class in ``SAMPLE`` of the images that hold it, kept in the user's cache.

    Args:
        held: bool ``(images, C)``, which images hold which classes.
    """
    places = [np.flatnonzero(held[:, c]) for c in range(held.shape[1])]
    chosen = np.zeros_like(held)
    for c, of_class in enumerate(places):
        chosen[of_class[np.linspace(0, len(of_class) - 1, min(SAMPLE, len(of_class))).round().astype(int)], c] = True

    total = np.zeros((held.shape[1], 2, BINS), dtype=np.int64)
    lock = Lock()

    def look(index: int) -> None:
        labels = dataset.decode_pair(index)[1] if dataset.bands.gaps else dataset.read_labels(index)
        assert labels is not None
        found = components_of(labels, np.flatnonzero(chosen[index]).tolist(), held.shape[1])
        with lock:  # added up at once: of many classes and images they would fill the memory
            np.add(total, found, out=total)

    def walk() -> np.ndarray:
        images_looked_at(look, np.flatnonzero(chosen.any(1)).tolist(), progress=progress)
        return total

    return kept_array("components", dataset.fingerprint(), total.shape, total.dtype, walk)[0]


def fingerprint_of(
    train: "SegmentationDataset",
    val: "SegmentationDataset",
    machine: MachineFacts,
    progress: Progress | None = None,
) -> Fingerprint:
    """Of two splits and a machine, from the counts that training keeps, some masks and the headers of the images.

    Raises:
        InputError: a mask is missing, unreadable or holds an id that the class table does not know.
    """
    histograms = image_histograms(train, progress=progress)[0]
    counts = counts_of(train, histograms).complete
    components = kept_components(train, histograms[:, :-1].numpy() > 0, progress)
    in_val = (image_histograms(val, progress=progress)[0][:, :-1] > 0).sum(0)
    total = max(1, sum(counts.pixels))
    sizes = sorted((train.image_size(index) for index in range(len(train))), key=lambda size: size[0] * size[1])
    pixels: Any = sum(h * w for h, w in sizes) * (1 + len(val) / len(train))
    return Fingerprint(
        tuple(
            ClassFacts(name, n, n / total, images, _median(sizes_of), _median(widths_of) or float(n > 0), int(held))
            for name, n, images, (sizes_of, widths_of), held in zip(
                counts.class_names, counts.pixels, counts.images, components, in_val, strict=True
            )
        ),
        len(train),
        len(val),
        sizes[len(sizes) // 2],
        sizes[-1],
        train.bands.count,
        int(pixels * (train.bands.pixel_bytes + 1)),
        machine,
    )
