"""Folds for cross-validation: train and val together, dealt out by sequences of images."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from segloss.datasets.base import SegmentationDataset
from segloss.datasets.naming import in_number_order, source_of, sources_of, tiles_of
from segloss.datasets.pairing import Pairing
from segloss.errors import InputError

# A frame's number at the end of a name, with what leads up to it: _008550 of 0001TP_008550, _f00000 of Seq05VD_f00000.
FRAME_NUMBER = re.compile(r"[/_.\- ]*(?:(?<![a-zA-Z])[a-zA-Z]{0,5})?\d+$")

LEAST = 0.25  # of the even share of a fold; of CamVid's three sequences the shortest is 0.40 of a third


def part_of(name: str, by: str) -> str:
    """The folder that an image lies in, or its sequence: its name without the number of the frame, of a copy
    (:func:`source_of`) that of the picture.

    >>> [part_of(name, "sequence") for name in ("0001TP_008550", "bonn/bonn_000012_000019", "bear/00012")]
    ['0001TP', 'bonn/bonn_000012', 'bear']
    """
    return name.rpartition("/")[0] if by == "folder" else FRAME_NUMBER.sub("", source_of(name))


def read_fold(text: str, least: int = 2) -> tuple[int, int]:
    """``"2/5"`` as (2, 5); ValueError for what is no fold of at least two, or ``least``."""
    number, of = (int(part) for part in text.split("/"))
    if not 1 <= number <= of or of < least:
        raise ValueError(text)
    return number, of


def deal(names: Sequence[str], folds: int, sequences: Sequence[str] | None = None) -> tuple[list[int], str]:
    """The fold of each image, from 1, and in words how they were dealt.

    Sequences (default: :func:`part_of` of each name) stay whole, the longest first to the fold that has fewest images.
    Where there are fewer than folds, each is cut into as many runs of consecutive images, so that neighbours in time
    are in one fold but at the cuts; where a fold would hold less than ``LEAST`` of its even share, as of photographs by
    several cameras, the longest is, and the next as long as that helps. The same names are dealt alike in any order.

    >>> deal(["a_1", "a_2", "b_1", "c_1", "c_2", "c_3"], 2)
    ([2, 2, 2, 1, 1, 1], 'by sequence')
    >>> deal(["a_1", "a_2", "a_9", "a_10"], 2)
    ([1, 1, 2, 2], 'in runs of consecutive images')
    """
    of, pictures = sequences or sequences_of(names), sources_of(names)
    found: dict[str, list[str]] = {}
    for name, sequence in sorted(zip(names, of, strict=True)):
        found.setdefault(sequence, []).append(name)
    if len(found) < folds:
        fold_of: dict[str, int] = {}
        for members in found.values():
            runs = _runs(members, folds, pictures)
            fold_of |= {name: number for number, run in enumerate(runs, 1) for name in run}
        return [fold_of[name] for name in names], "in runs of consecutive images"
    longest, *others = sorted(found.values(), key=_longest_first)
    how = "by sequence" if len(found) < len(names) else "image by image"
    cut: list[list[str]] = []
    fold_of, held = _emptiest_first([longest, *others], folds)
    share = len(names) / folds
    while min(held) < LEAST * share < share < len(longest):
        cut += _runs(longest, math.ceil(len(longest) / share), pictures)
        how, (longest, *others) = "by sequence, the longest in runs of consecutive images", others
        fold_of, held = _emptiest_first([*cut, longest, *others], folds)
    return [fold_of[name] for name in names], how


def sequences_of(names: Sequence[str]) -> list[str]:
    """Of each name the sequence (:func:`part_of`), of a tile (:func:`tiles_of`) its scene, of a copy
    (:func:`sources_of`) that of the picture."""
    pictures = sources_of(names)
    tiles = tiles_of(pictures.values())
    every = (pictures[name] for name in names)
    return [tiles[name].scene if name in tiles else part_of(name, "sequence") for name in every]


def _runs(members: Sequence[str], count: int, pictures: Mapping[str, str]) -> list[list[str]]:
    """Consecutive images, about as many in each; copies of a picture in one run where there are pictures enough."""
    if len({pictures[name] for name in members}) < count:
        pictures = {name: name for name in members}
    order = in_number_order({pictures[name] for name in members})
    run_of = {picture: place * count // len(order) for place, picture in enumerate(order)}
    return [[name for name in members if run_of[pictures[name]] == run] for run in range(count)]


def _longest_first(members: list[str]) -> tuple[int, str]:
    return -len(members), members[0]


def _emptiest_first(groups: Sequence[list[str]], folds: int) -> tuple[dict[str, int], list[int]]:
    """The fold of each image, whole groups to the fold that has fewest images, and how many each fold has."""
    fold_of: dict[str, int] = {}
    held = [0] * folds
    for members in sorted(groups, key=_longest_first):
        least = held.index(min(held))
        held[least] += len(members)
        fold_of |= dict.fromkeys(members, least + 1)
    return fold_of, held


def fold_split(parts: Sequence[SegmentationDataset], split: str, fold: str) -> SegmentationDataset:
    """The ``split``, train or val, of a fold of the images of all ``parts``.

    Raises:
        InputError: parts without files of their own, or fewer images than folds.
    """
    number, folds = read_fold(fold)
    first = parts[0]
    if any(type(part) is not SegmentationDataset for part in parts):
        raise InputError("needs images in files", "leave it out, or write the images to a folder", f"--fold {fold}")
    for part in parts[1:]:
        if part.classes != first.classes:
            what = f"the masks of {part.split} are read by other ids than those of {first.split}"
            raise InputError(what, "save both alike, or leave --fold out", f"--fold {fold}")
    if any(part.found.labelled for part in parts):
        what = "lists with a column of classes cannot be parted anew"
        raise InputError(what, "say it in labelled_classes.csv, or leave --fold out", f"--fold {fold}")
    names = [name for part in parts for name in part.names]
    sequences = sequences_of(names)
    if len({*names}) < len(names):
        names = [f"{part.split}/{name}" for part in parts for name in part.names]
    if len(names) < folds:
        raise InputError(f"{len(names)} images are fewer than folds", "take fewer folds", f"--fold {fold}")
    numbers, how = deal(names, folds, sequences)
    chosen = [place for place, n in enumerate(numbers) if (n == number) == (split == "val")]
    pairs = [pair for part in parts for pair in part.pairs]
    form = f"{first.found.form}; fold {number} of {folds} of {' and '.join(part.split for part in parts)}, {how}"
    found: Pairing = replace(
        first.found,
        form=form,
        pairs=[pairs[place] for place in chosen],
        names=[names[place] for place in chosen],
        lonely_images={name: path for part in parts for name, path in part.found.lonely_images.items()},
        lonely_masks={name: path for part in parts for name, path in part.found.lonely_masks.items()},
    )
    made = SegmentationDataset(first.name, split, found, first.classes, first.transform)
    made.root = first.root
    return made
