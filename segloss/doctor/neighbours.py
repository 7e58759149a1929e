"""Neighbouring frames of one sequence, or copies of one picture, in training and evaluation."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise

import cv2
import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.datasets.naming import Tile, sources_of, tiles_of
from segloss.doctor.findings import SAMPLE, Finding
from segloss.errors import InputError

NUMBER = re.compile(r"(\d+)")


def frames(datasets: Sequence[SegmentationDataset]) -> list[dict[str, dict[int, int]]]:
    """Of each data set: sequence -> number of the frame -> place.

    The frame's number is the last in a name that differs between names alike in all but numbers: in
    ``drive_0001_cam2`` it is 1, unless there are more cameras.
    """
    numbers: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for name in (name for dataset in datasets for name in dataset.names):
        parts = NUMBER.split(name)
        numbers[tuple(parts[::2])].append(tuple(parts[1::2]))
    columns = {}
    for texts, rows in numbers.items():
        differing = [place for place, column in enumerate(zip(*rows, strict=True)) if len({*column}) > 1]
        columns[texts] = differing[-1] if differing else len(rows[0]) - 1
    found = []
    for dataset in datasets:
        sequences: dict[str, dict[int, int]] = defaultdict(dict)
        for place, name in enumerate(dataset.names):
            parts = NUMBER.split(name)
            if len(parts) > 1:
                at = 2 * columns[tuple(parts[::2])] + 1
                sequences["".join([*parts[:at], "#", *parts[at + 1 :]])][int(parts[at])] = place
        found.append(sequences)
    return found


def neighbours(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Frames of val or test next to a training frame of the same sequence that look alike."""
    train = next((dataset for dataset in datasets if dataset.split == "train"), None)
    if train is None:
        return
    found = frames(datasets)
    known = found[list(datasets).index(train)]
    for dataset, sequences in zip(datasets, found, strict=True):
        pairs = [] if dataset is train else _adjacent(known, sequences)
        if pairs and _look_alike(train, dataset, pairs):
            ours, theirs = dataset.names[pairs[0][1]], train.names[pairs[0][0]]
            what = f"a neighbouring frame of {theirs} in train; {len(pairs)} of {len(dataset)} images have one"
            fault = InputError(what, "split by sequence, or read the scores with care", ours)
            yield Finding("warning", dataset.split, fault)


def shared_pictures(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Copies of one picture, by their names, in two splits."""
    for one, other in combinations(datasets, 2):
        sources = sources_of({*one.names, *other.names})
        same = {*one.names} & {*other.names}  # names that begin anew in each split tell nothing
        pictures = [{sources[n]: n for n in d.names if sources[n] not in same} for d in (one, other)]
        ours, theirs = pictures
        if both := sorted({*ours} & {*theirs}):
            what = f"a copy of the picture of {ours[both[0]]} in {one.split}; pictures in both: {len(both)}"
            cure = "keep all copies of a picture in one split, or read the scores with care"
            yield Finding("warning", other.split, InputError(what, cure, theirs[both[0]]))


def shared_scenes(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """Tiles of val or test that are cut from a picture of which train has tiles, by their names."""
    train = next((dataset for dataset in datasets if dataset.split == "train"), None)
    tiles = tiles_of([name for dataset in datasets for name in dataset.names])
    if train is None or not tiles:
        return
    for dataset in datasets:
        anew = {tiles[name].scene for name in {*train.names} & {*dataset.names} & {*tiles}}  # scenes of either's own
        known: dict[str, list[str]] = defaultdict(list)
        for name in train.names:
            if name in tiles and tiles[name].scene not in anew:
                known[tiles[name].scene].append(name)
        places = {scene: np.array([tiles[name].place for name in names]) for scene, names in known.items()}
        ours = [name for name in dataset.names if name in tiles and known.get(tiles[name].scene)]
        if dataset is train or not ours:
            continue
        side = min(min(header.size) for header in dataset.headers().values()) if dataset.headers() else 0
        overlapping = [name for name in ours if _overlaps(tiles[name], places[tiles[name].scene], side)]
        what = f"a tile of the picture of which {known[tiles[ours[0]].scene][0]} is one, in train; {len(ours)} of "
        what += f"{len(dataset)} images are of such pictures" + (f", {len(overlapping)} overlap" if overlapping else "")
        cure = "keep all tiles of a picture in one split, as --fold does, or read the scores with care"
        yield Finding("warning", dataset.split, InputError(what, cure, (overlapping or ours)[0]))


def _overlaps(tile: Tile, places: np.ndarray, side: int) -> bool:
    return tile.in_pixels and bool((np.abs(places - tile.place).max(1) < side).any())


def _adjacent(train: dict[str, dict[int, int]], other: dict[str, dict[int, int]]) -> list[tuple[int, int]]:
    """(place in train, place in the other split) of frames with none between them and at most the usual step apart."""
    pairs = []
    for sequence in sorted(set(train) & set(other)):
        numbers = sorted({*train[sequence], *other[sequence]})
        step = max(_usual_step(train[sequence]), _usual_step(other[sequence]))
        for low, high in pairwise(numbers):
            for a, b in ((low, high), (high, low)):
                if a in train[sequence] and b in other[sequence] and high - low <= step:
                    pairs.append((train[sequence][a], other[sequence][b]))
    return list({other: (one, other) for one, other in pairs}.values())


def _usual_step(frames: Iterable[int]) -> float:
    steps = np.diff(sorted(frames))
    return float(np.median(steps)) if len(steps) else 0.0


def _look_alike(train: SegmentationDataset, other: SegmentationDataset, pairs: list[tuple[int, int]]) -> bool:
    """Whether neighbours differ by less than half of what images of the two splits usually do; by thumbnails."""
    some = pairs[:: max(1, len(pairs) // SAMPLE)][:SAMPLE]
    try:
        ours = np.stack([_thumbnail(train.read_picture(a)) for a, _ in some])
        theirs = np.stack([_thumbnail(other.read_picture(b)) for _, b in some])
        spread = max(1, len(train) // SAMPLE)
        any_of_train = np.stack([_thumbnail(train.read_picture(a)) for a in range(0, len(train), spread)])
    except InputError:
        return False  # already among the findings
    near = np.abs(ours - theirs).mean((1, 2))
    usual = np.abs(any_of_train[:, None] - theirs[None]).mean((2, 3))
    return float(np.median(near)) < 0.5 * float(np.median(usual))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    return grey.astype(np.float32)
