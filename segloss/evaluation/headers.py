"""What the headers of images say that reading them passes over: a turn, and bits that are not read."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from segloss.datasets import SegmentationDataset
from segloss.datasets.bands import Bands
from segloss.datasets.opening import Header
from segloss.errors import InputError


def header_doubts(image: Path, header: Header, bands: Bands) -> Iterator[tuple[str, InputError]]:
    """Kind and line of each doubt about one image that is read as ``bands`` say."""
    if header.turn != 1:
        yield "orientation", InputError("is turned by its EXIF orientation, masks are not", "save it upright", image)
    if header.dtype != bands.dtype:
        yield "depth", InputError("has 16 bits, of which the upper 8 are read", "scale it to 8 bits", image)


def doubts_of_images(dataset: SegmentationDataset) -> Iterator[InputError]:
    """One line of each kind: the first image, and how many more."""
    kinds: dict[str, list[InputError]] = defaultdict(list)
    headers = dataset.headers()
    for image, _ in dataset.pairs:
        for kind, doubt in header_doubts(image, headers[image], dataset.bands) if image in headers else ():
            kinds[kind].append(doubt)
    for doubts in kinds.values():
        first, more = doubts[0], f" (and {len(doubts) - 1} more files)" if doubts[1:] else ""
        yield InputError(f"{first.what}{more}", first.cure, first.where)
