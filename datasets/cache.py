"""Decoded images and label maps in memory that all loader processes share: each file is read once.

The memory is one uint8 tensor for all data sets. Forked workers inherit it and spawned ones are sent its handle, so
neither persistent workers nor new ones for each epoch hold a copy of their own.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segloss.datasets.bands import RGB, Bands
from segloss.datasets.classes import map_dtype
from segloss.errors import InputError

if TYPE_CHECKING:
    from segloss.datasets.base import SegmentationDataset

Pair = tuple[np.ndarray, np.ndarray | None]
SHARE_TO_FILL = 0.9  # the rest is left to the batches, which workers send through the same memory
SHARED_MEMORY, MEMINFO = Path("/dev/shm"), Path("/proc/meminfo")  # of Linux; elsewhere nothing is asked


@dataclass
class RamCache:
    """The pairs of one data set, filled by whichever process reads one first.

    Attributes:
        memory: shared, uint8: of each pair the image ``(H, W, N)``, then the labels ``(H, W)`` of type ``labels``.
        ready: shared, bool: the pairs that are there.
        sizes: (H, W) of each pair, from the files' headers.
        starts: of each pair in ``memory``.
        bands: N, and the dtype of images.
    """

    memory: Tensor
    ready: Tensor
    sizes: Sequence[tuple[int, int]]
    starts: Sequence[int]
    labels: type = np.uint8
    bands: Bands = RGB

    def read(self, index: int, decode: Callable[[int], Pair], path: Path) -> Pair:
        """A pair as arrays of the caller's own; ``decode(index)`` makes it the first time (without labels: always).

        Raises:
            InputError: the image that ``path`` decodes to has not the size of its header; or as ``decode``.
        """
        image, labels = self._views(index)
        if self.ready[index]:
            return image.copy(), labels.copy()
        pair = decode(index)
        if pair[0].shape != image.shape:
            (height, width), (real_height, real_width) = self.sizes[index], pair[0].shape[:2]
            sizes = f"is {real_width}x{real_height} but was {width}x{height} (width x height)"
            raise InputError(f"{sizes} when its header was read", "replace the file, or leave --cache out", path)
        if pair[1] is not None:
            image[:], labels[:] = pair
            self.ready[index] = True  # last: two processes may fill a pair at once, none reads half of one
        return pair

    def _views(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        (height, width), start = self.sizes[index], self.starts[index]
        of_image = height * width * self.bands.pixel_bytes
        of_labels = height * width * np.dtype(self.labels).itemsize
        both = self.memory[start : start + of_image + of_labels].numpy()
        image = both[:of_image].view(self.bands.array_dtype).reshape(height, width, self.bands.count)
        labels: np.ndarray = both[of_image:].view(self.labels)
        return image, labels.reshape(height, width)


def bytes_per_pixel(bands: Bands, labels: type) -> int:
    """Of an image and its labels."""
    return bands.pixel_bytes + np.dtype(labels).itemsize


def cache_in_ram(datasets: "Sequence[SegmentationDataset]", copies: int = 1) -> None:
    """Give the data sets a common cache; call it before their loaders start workers.

    Args:
        datasets: of any kind and image sizes.
        copies: processes on this machine that have done so when all have, beside those that have already.

    Raises:
        InputError: it would not fit into memory; or a file is no image.
    """
    sizes = [[dataset.image_size(index) for index in range(len(dataset))] for dataset in datasets]
    kinds = [map_dtype(len(dataset.classes)) for dataset in datasets]
    bytes_of = (
        # Places are multiples of 4 bytes, as floats need them.
        -(-h * w * bytes_per_pixel(dataset.bands, kind) // 4) * 4
        for dataset, kind, some in zip(datasets, kinds, sizes, strict=True)
        for h, w in some
    )
    starts = list(accumulate(bytes_of, initial=0))
    require_memory(starts[-1] * copies)
    memory = torch.empty(starts[-1], dtype=torch.uint8)
    ready = torch.zeros(len(starts) - 1, dtype=torch.bool)
    for tensor in (memory, ready):
        tensor.share_memory_()  # type: ignore[no-untyped-call]  # torch has no types for it
    first = 0
    for dataset, kind, some in zip(datasets, kinds, sizes, strict=True):
        last = first + len(some)
        dataset.cache = RamCache(memory, ready[first:last], some, starts[first:last], kind, dataset.bands)
        first = last


def require_memory(need: int) -> None:
    """InputError unless that many bytes of shared memory are free, as far as the system tells."""
    for place, free in free_memory().items():
        if need > SHARE_TO_FILL * free:
            raise InputError(
                f"--cache ram needs {need / 2**30:.2f} GiB, but {place} has {free / 2**30:.2f} GiB free, a tenth of "
                "which is kept for batches",
                "leave --cache out, or free memory (of a container: --shm-size)",
            )


def free_memory() -> dict[str, int]:
    free = {}
    if SHARED_MEMORY.is_dir():
        free[str(SHARED_MEMORY)] = shutil.disk_usage(SHARED_MEMORY).free
    if MEMINFO.is_file():
        available = re.search(r"MemAvailable:\s*(\d+) kB", MEMINFO.read_text())
        if available:
            free["the machine"] = int(available[1]) * 1024
    return free
