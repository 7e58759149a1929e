"""Images of one place on a map in training and evaluation."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.datasets.opening import Ground
from segloss.doctor.findings import Finding
from segloss.errors import InputError

SHARED = 0.05  # of the smaller image: tiles that are cut side by side may share a row or two

Place = tuple[float, np.ndarray, Path]  # its left end, its corners, the image


def shared_ground(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Images of val or test that lie on ground of train, as the tags of GeoTIFFs say."""
    train = next((dataset for dataset in datasets if dataset.split == "train" and not dataset.made_up), None)
    known = {} if train is None else _places(train)
    for dataset in datasets if known else ():
        found = [] if dataset is train or dataset.made_up else [*_on_ground(_places(dataset), known)]
        if found:
            path, other = min(found)
            what = f"lies on ground of {other} of train; {len(found)} of {len(dataset)} images lie on ground of train"
            cure = "split by place, or read the scores with care"
            yield Finding("warning", dataset.split, InputError(what, cure, path))


def _places(dataset: SegmentationDataset) -> dict[str, list[Place]]:
    """Of each system of coordinates the images, from left to right."""
    found: dict[str, list[Place]] = {}
    for path, header in dataset.headers().items():
        if isinstance(header.ground, Ground):
            corners = np.array(header.ground.corners)
            found.setdefault(header.ground.system, []).append((float(corners[:, 0].min()), corners, path))
    return {system: sorted(places, key=lambda place: place[0]) for system, places in found.items()}


def _on_ground(ours: dict[str, list[Place]], theirs: dict[str, list[Place]]) -> Iterator[tuple[Path, Path]]:
    """Each of our images that lies on one of theirs, and the first such."""
    for system in {*ours} & {*theirs}:
        places = theirs[system]
        lefts = [left for left, _, _ in places]
        ends = np.array([(*corners.min(0), *corners.max(0)) for _, corners, _ in places])
        widest = (ends[:, 2] - ends[:, 0]).max()
        for left, corners, path in ours[system]:
            (_, low), (right, high) = corners.min(0), corners.max(0)
            first, last = bisect_left(lefts, left - widest), bisect_left(lefts, right)
            some = ends[first:last]
            near = (some[:, 2] > left) & (some[:, 1] < high) & (some[:, 3] > low)
            for place in np.flatnonzero(near) + first:
                if _shared(corners, places[place][1]) >= SHARED:
                    yield path, places[place][2]
                    break


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two pieces share, of that of the smaller."""
    size = np.ptp(one, axis=0).max()  # numbers near 1, as OpenCV counts in float32
    both = [((corners - one[0]) / size).astype(np.float32) for corners in (one, other)]
    area, _ = cv2.intersectConvexConvex(*both)
    return float(area) / max(1e-12, min(cv2.contourArea(corners) for corners in both))
