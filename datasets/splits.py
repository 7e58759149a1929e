"""Splits: what they are called, and which images are of which where nothing says so."""

import hashlib
import re
from collections.abc import Callable, Sequence

from segloss.datasets.naming import source_among, sources_of

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
WORDS |= {"test": "test", "testing": "test", "trn": "train", "tst": "test", "eval": "val", "holdout": "test"}
GLUED = re.compile(  # behind a known word: oval, interval, strain and latest speak of no split
    r"(voc|sbd|coco|ade|camvid|cityscapes|kitti|bdd|vistas|nyu|isic|loveda|potsdam|pascal|data|images?|imgs?|masks?"
    r"|labels?|annotations?|lists?|files?|names?|ids?|sets?|splits?|folds?|mini|sub|my|new)(train|val|test)"
)


def splits_of(stem: str) -> list[str]:
    """The splits that a file's name speaks of.

    >>> splits_of("voc2012_trainval"), splits_of("camvidtest"), splits_of("removal")
    (['train', 'val'], ['test'], [])
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower())
    found: list[str] = []
    for word in words:
        if word in WORDS:
            found.append(WORDS[word])
        elif re.match(r"(train|val|test)(?!ed|er|ue|ve|ley|[ei]s|s?$)", word) or GLUED.fullmatch(word):
            found += [part for part in ("train", "val", "test") if part in word]
    return [*dict.fromkeys(found)]


VAL_SHARE = 0.2  # of the images, where nothing says which are val


def hash_split(names: Sequence[str], val_share: float) -> dict[str, list[int]]:
    """Places of the names in ``train`` and ``val``; where there are few, each still gets one. Copies of a picture
    (:func:`sources_of`) stay together."""
    hashes = [*map(picture_hash(names), names)]
    pictures = sorted({*hashes})
    below = sum(one < val_share for one in pictures)
    chosen = {*pictures[: min(max(below, 1), len(pictures) - 1)]}
    in_val = [one in chosen for one in hashes]
    return {split: [place for place, one in enumerate(in_val) if one == (split == "val")] for split in ("train", "val")}


def picture_hash(names: Sequence[str]) -> Callable[[str], float]:
    """Of the picture that a name is a copy of, which need not be among ``names``; where all are of one, of the name."""
    known = {*names}
    several = len({*sources_of(names).values()}) > 1
    return lambda name: _stem_hash(source_among(name, known) if several else name)


def _stem_hash(name: str) -> float:
    """Uniform in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
