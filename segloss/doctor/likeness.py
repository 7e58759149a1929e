"""Copies of a picture in two splits that are not equal to the bit: saved again, resized, turned, mirrored, brighter."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import cv2
import numpy as np

from segloss.datasets import SegmentationDataset
from segloss.doctor.findings import Finding, SplitFacts
from segloss.doctor.neighbours import frames
from segloss.errors import InputError

SIDE = 32  # pixels of a thumbnail
LEAST_STD = 4  # of 255 levels
# Between thumbnails of mean 0 and std 1. Copies, also as JPEG of quality 50, at half the size or 20 levels brighter: up
# to 0.13 and 0.46. Of 1,900 pictures of four data sets no two others are nearer than 0.24, and 1.8 at one pixel.
MEAN_OFF, MOST_OFF = 0.14, 0.6
FINE = 256  # pixels, at which the grain of two pictures is compared
SAME_GRAIN = 0.5  # correlation
AT_A_TIME = 2**24  # distances
NEAREST = 4  # of another split that a picture is held against
MOST_READ = 64  # pairs that look alike are decoded


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """``(side, side)`` gray float32 of an image of any bands."""
    small = cv2.resize(image[..., :3], (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
    return np.asarray(small.astype(np.float32).mean(2))


def shown(image: np.ndarray) -> np.ndarray | None:
    """The thumbnail of a picture; None of one of 8 bits that shows next to nothing: two of these are alike anyhow."""
    small = thumbnail(image)
    return None if image.dtype == np.uint8 and small.std() < LEAST_STD else small


def like_images(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Pictures of two splits, all decoded, that are copies by their thumbnails and their grain."""
    for one, other in combinations(splits, 2):
        pairs = _without_films(one, other, _candidates(one, other))
        copies = [pair for pair in pairs[:MOST_READ] if _same_grain(one.dataset, other.dataset, *pair)]
        if copies:
            (ours, theirs), count = copies[0], len(copies) if len(pairs) <= MOST_READ else len(pairs)
            first, second = one.dataset.pairs[ours][0], other.dataset.pairs[theirs][0]
            what = f"looks like a copy of {first} of {one.dataset.split}, saved anew or turned; images that do: {count}"
            cure = "keep all copies of a picture in one split, or read the scores with care"
            yield Finding("warning", other.dataset.split, InputError(what, cure, second))


def _candidates(one: SplitFacts, other: SplitFacts) -> list[tuple[int, int]]:
    """Places in both splits of pictures whose thumbnails are alike in one of eight turns; those of other pixels."""
    ours, theirs = _thumbnails(one), _thumbnails(other)
    if not ours or not theirs:
        return []
    known, found = list(ours), []
    ours_of_all, theirs_of_all = (_of_all_turns(np.stack([*some.values()])) for some in (ours, theirs))
    squares, rows = (ours_of_all**2).sum(1), max(1, AT_A_TIME // len(ours))
    for start in range(0, len(theirs), rows):  # no two are further apart in the mean of all turns than as they are
        some = theirs_of_all[start : start + rows]
        off = (some**2).sum(1)[:, None] + squares - 2 * some @ ours_of_all.T
        nearest = np.argpartition(off, min(NEAREST, len(known)) - 1)[:, :NEAREST]
        for row, place in enumerate([*theirs][start : start + rows]):
            close = [known[column] for column in nearest[row] if off[row, column] < some.shape[1] * MEAN_OFF**2]
            turns = _turns(theirs[place][None]) if close else []
            alike = [(mean, mate) for mate in close for mean, most in [_off(ours[mate], turns)] if most < MOST_OFF]
            if alike and min(alike)[0] < MEAN_OFF:
                found.append((min(alike)[1], place))
    digests = [dict(zip(facts.places, (pair.digest for pair in facts.pairs), strict=True)) for facts in (one, other)]
    return [(mate, place) for mate, place in found if digests[0][mate] != digests[1][place]]


def _off(one: np.ndarray, turns: Sequence[np.ndarray]) -> tuple[float, float]:
    """How far it is from the nearest of the turns, in the mean and at most."""
    differences = [np.abs(one - turn[0]) for turn in turns]
    return min((float((off**2).mean()) ** 0.5, float(off.max())) for off in differences)


def _of_all_turns(some: np.ndarray) -> np.ndarray:
    """What is the same of every turn: the mean of all, a quarter of which holds all of it."""
    half = SIDE // 2
    return np.asarray(np.mean(_turns(some), 0)[:, :half, :half].reshape(len(some), -1), np.float32)


def _without_films(one: SplitFacts, other: SplitFacts, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without frames of one film, which look alike as they should."""
    if not pairs:
        return []
    found = frames([one.dataset, other.dataset])
    of_place = [{p: (name, n) for name, rows in every.items() for n, p in rows.items()} for every in found]
    small = [_thumbnails(one), _thumbnails(other)]
    every = [*small[0].values()]
    usual = np.median([_off(a, [b[None]])[0] for a, b in zip(every, [*every[len(every) // 2 :], *every], strict=False)])
    films: dict[str, bool] = {}

    def is_film(name: str) -> bool:
        if name not in films:
            of_frame = {
                n: k[p] for rows, k in zip(found, small, strict=True) for n, p in rows.get(name, {}).items() if p in k
            }
            steps = [_off(of_frame[a], [of_frame[b][None]])[0] for a, b in pairwise(sorted(of_frame))]
            films[name] = bool(steps) and float(np.median(steps)) < 0.5 * float(usual)
        return films[name]

    def in_film(ours: int, theirs: int) -> bool:
        (first, _), (second, _) = of_place[0].get(ours, ("", 0)), of_place[1].get(theirs, ("-", 0))
        return first == second and is_film(first)

    return [pair for pair in pairs if not in_film(*pair)]


def _thumbnails(facts: SplitFacts) -> dict[int, np.ndarray]:
    """Place -> thumbnail of mean 0 and std 1, of pictures that show anything."""
    some = ((place, pair.thumbnail) for place, pair in zip(facts.places, facts.pairs, strict=True))
    return {place: _normal(small) for place, small in some if small is not None and small.std() > 0}


def _normal(small: np.ndarray) -> np.ndarray:
    return np.asarray((small - small.mean()) / max(float(small.std()), 1e-12))


def _turns(some: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(kind, turns, (1, 2)) for kind in (some, some[:, :, ::-1]) for turns in range(4)]


def _same_grain(one: SegmentationDataset, other: SegmentationDataset, ours: int, theirs: int) -> bool:
    """Whether what is left without the large shapes is the same: fields of one microscope share no more than these."""
    try:
        pictures = [one.read_image(ours), other.read_image(theirs)]
    except InputError:
        return False  # already among the findings
    side = min(FINE, *(min(picture.shape[:2]) for picture in pictures))
    first, second = (thumbnail(picture, side) for picture in pictures)
    grain, turned = ([_normal(x - cv2.blur(x, (5, 5))) for x in some] for some in ([first], _turned(second)))
    return max(float((grain[0] * x).mean()) for x in turned) > SAME_GRAIN


def _turned(picture: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(turn[0]) for turn in _turns(picture[None])]
