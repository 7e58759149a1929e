"""How a folder of images and one of masks call the same image."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from segloss.errors import InputError

Endings = dict[str, list[tuple[str, str]]]
Words = tuple[str, str]  # before and after what tells a folder's files apart


@dataclass(frozen=True)
class Naming:
    """How two folders call the same image: by the same name, but for words of their own.

    Attributes:
        words, mask_words: that the names of either have.
        endings: of each image what its masks have after its name, and their names, where that is the difference.
        files: the images by the names of their files, where masks are called by these.
    """

    words: Words = ("", "")
    mask_words: Words = ("", "")
    endings: Endings = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def key(self, name: str) -> str:
        return _without(name, *self.words)

    def mask_key(self, name: str) -> str:
        return self.files.get(name, name) if self.files else _without(name, *self.mask_words)

    def mask_name(self, name: str) -> str:
        """What the mask of an image is called, with its folder."""
        if self.files:
            return next((file for file, image in self.files.items() if image == name), name)
        folder, slash, last = self.key(name).rpartition("/")
        return folder + slash + self.mask_words[0] + last + self.mask_words[1]

    @property
    def said(self) -> str:
        """Behind the form of a data set."""
        (before, after), (mask_before, mask_after) = self.words, self.mask_words
        if self.files:
            return ", masks named as the files of the images, with their endings"
        if self.endings:
            return f", masks named NAME{mask_after}"
        named = f", images named {before}NAME{after}, masks {mask_before}NAME{mask_after}"
        return named if before + after + mask_before + mask_after else ""

    def several(self, name: str) -> list[str]:
        """Names of the masks of an image, where it has more than one."""
        ending = self.mask_words[1]
        masks = [mask for end, mask in self.endings.get(name, ()) if end == ending or not end.endswith(ending)]
        return masks if len(masks) > 1 else []

    def require_one(self, name: str, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
        """InputError that lists the masks of an image that has several."""
        if several := self.several(name):
            cure = "keep one in the folder, or write list files of image and mask"
            raise InputError(f"has several masks: {files_named(several, masks)}", cure, images[name])


def files_named(names: Sequence[str], files: Mapping[str, Path]) -> str:
    return ", ".join(files[name].name for name in names[:4]) + (", ..." if len(names) > 4 else "")


def learn_naming(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Naming:
    """From most of the files: the same names; masks called as their image or its file, and an ending; own words."""
    endings = _endings(images, masks)
    if endings is None:
        return Naming()
    files = {f"{name}{path.suffix}": name for name, path in images.items()}
    most, suffixes = min(len(images), len(masks)), {path.suffix for path in images.values()}
    if len(suffixes) > 1 and 2 * len({*files} & {*masks}) > most:
        return Naming(files=files)
    if ending := _usual_ending(endings, most):
        return Naming(mask_words=("", ending), endings=endings)
    (before, after), (mask_before, mask_after) = _own_words(images, masks) or (("", ""), ("", ""))
    if before == mask_before:  # no word of either's own
        before = mask_before = ""
    if after == mask_after:
        after = mask_after = ""
    return Naming((before, after), (mask_before, mask_after))


def _endings(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Endings | None:
    """Of each image what its masks have after its name, and their names; None where a mask has just the name.

    A number is not cut: ``10_mask`` is none of ``1``. An ending of digits alone is a number too.
    """
    if any(name in masks for name in images):
        return None
    found: Endings = {}
    for mask in masks:
        for cut in range(len(mask) - 1, 0, -1):
            if mask[:cut] in images and not (mask[cut].isdigit() and mask[cut - 1].isdigit()):
                if not mask[cut:].isdigit():
                    found.setdefault(mask[:cut], []).append((mask[cut:], mask))
                break
    return found


def _usual_ending(endings: Endings, most: int) -> str:
    counts = Counter(end for of_image in endings.values() for end, _ in of_image)
    ending, count = min(counts.items(), key=lambda item: (-item[1], item[0])) if counts else ("", 0)
    return ending if 2 * count > most else ""


def _own_words(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[Words, Words] | None:
    """Words that all images have, and those that all masks have, without which most names are the same.

    Words of different numbers are of different things: ``day1_007`` is none of ``day2_007``.
    """
    for ours in _common_words(images):
        names = {_without(name, *ours) for name in images}
        for theirs in _common_words(masks):
            if any(map(_other_number, ours, theirs)):
                continue
            if 2 * len(names & {_without(name, *theirs) for name in masks}) > min(len(images), len(masks)):
                return ours, theirs
    return None


def _other_number(ours: str, theirs: str) -> bool:
    numbers = re.findall(r"\d+", ours), re.findall(r"\d+", theirs)
    return all(numbers) and numbers[0] != numbers[1]


COPY = re.compile(r"\.rf\.(?=\d*[a-zA-Z])(?=[a-zA-Z]*\d)[0-9a-zA-Z]{16,}$")


def source_of(name: str) -> str:
    """The picture that an image is a copy of, by the hash that Roboflow puts behind each; any other name is its own.

    >>> source_of("IMG_1_jpg.rf.0123456789abcdef0123456789abcdef"), source_of("scan.rf.001")
    ('IMG_1_jpg', 'scan.rf.001')
    """
    return COPY.sub("", name)


AUGMENTED = re.compile(  # what augmentation, or a second saving, puts behind the name of the picture
    r"[ _.\-]+(aug(ment(ed|ation)?)?|([hv]|(horizontal|vertical)[ _-]?)flip(ped)?|flip(ped)?"
    r"([ _-]?([hvxy]|lr|ud|(horizontal|vertical)(ly)?))?|mirror(ed)?|r(ot(at(e|ed|ion))?)?[ _-]?(90|180|270)"
    r"|rot(at(e|ed|ion))?|transposed?|bright(er|ness)?|dark(er)?|contrast|gamma|hue|saturation|gr[ae]y(scale)?"
    r"|jitter(ed)?|blur(red)?|nois[ey]|crop(ped)?|shift(ed)?|scaled?|zoom(ed)?|shear(ed)?|elastic|copy)[ _-]*\d*$",
    re.IGNORECASE,
)


def sources_of(names: Collection[str]) -> dict[str, str]:
    """Of each name the picture that it is a copy of: as :func:`source_of` has it, or another of the names, behind
    which an augmentation has written what it did.

    >>> sources_of(["a", "a_hflip", "a_rot90_aug3", "b_hflip"])
    {'a': 'a', 'a_hflip': 'a', 'a_rot90_aug3': 'a', 'b_hflip': 'b_hflip'}
    """
    known = {*names}
    return {name: source_among(name, known) for name in names}


def source_among(name: str, known: Collection[str]) -> str:
    """The picture that a name is a copy of, as :func:`sources_of` has it of known names."""
    return _base_of(source_of(name), known)


def _base_of(name: str, known: Collection[str]) -> str:
    short = name
    while (cut := AUGMENTED.sub("", short)) != short and cut:
        short = cut
        if short in known:
            return _base_of(short, known)
    return name


# The scene, and the place in it of a tile: scene_32_64, scene_r0_c1, x32_y64, row3_col4, scene_x0y256
TILE = re.compile(
    r"^(?:(.*?)[/_.\- ]+)?(row|col|[rcxy])?[_-]?(\d{1,6})(?:[_-]|(?=[rcxy]))(row|col|[rcxy])?[_-]?(\d{1,6})$",
    re.IGNORECASE,
)
AXES = ({"r", "c"}, {"row", "col"}, {"x", "y"})
OFFSET = 16  # pixels from tile to tile at the least; patients and slices, dates and frames count by less
FILLED, FEWEST = 0.25, 8  # of the places of a scene, and tiles: dates and times fill next to none


@dataclass(frozen=True)
class Tile:
    """Where a tile lies by its name: the scene, and two numbers, that are pixels or the numbers of row and column."""

    scene: str
    place: tuple[int, int]
    in_pixels: bool


def tiles_of(names: Collection[str]) -> dict[str, Tile]:
    """The names that are of tiles cut from larger pictures; those of dates, patients or frames are not.

    Two numbers at the end are a place where letters say so, or where both go on by pixels, and tiles fill the scenes.

    >>> {tile.scene for tile in tiles_of([f"s{s}_{y}_{x}" for s in (1, 2) for y in (0, 64) for x in (0, 64)]).values()}
    {'s1', 's2'}
    >>> tiles_of([f"case_{patient:03d}_{slice:03d}" for patient in range(9) for slice in range(9)])
    {}
    """
    forms: dict[tuple[str, ...], dict[str, Tile]] = {}
    for name in names:
        if found := TILE.match(name):
            scene, one, first, other, second = found.groups("")
            marks = one.lower(), other.lower()
            if marks == ("", "") or {*marks} in AXES:
                forms.setdefault(marks, {})[name] = Tile(scene, (int(first), int(second)), False)
    every: dict[str, Tile] = {}
    for said, tiles in forms.items():
        in_pixels = min(_usual_step({tile.place[axis] for tile in tiles.values()}) for axis in (0, 1)) >= OFFSET
        if (in_pixels or any(said)) and len(tiles) >= max(FEWEST, FILLED * _room(tiles.values())):
            every |= {name: Tile(tile.scene, tile.place, in_pixels) for name, tile in tiles.items()}
    return every


def _usual_step(numbers: Collection[int]) -> int:
    """Between neighbours; 0 of a single number."""
    order = sorted(numbers)
    steps = sorted(after - before for before, after in pairwise(order))
    return steps[len(steps) // 2] if steps else 0


def _room(tiles: Iterable[Tile]) -> int:
    """How many tiles the rows and columns of all scenes have room for."""
    scenes: dict[str, tuple[set[int], set[int]]] = {}
    for tile in tiles:
        for numbers, number in zip(scenes.setdefault(tile.scene, (set(), set())), tile.place, strict=True):
            numbers.add(number)
    return sum(len(rows) * len(columns) for rows, columns in scenes.values())


def in_number_order(names: Collection[str]) -> list[str]:
    """Sorted as text, but for numbers, which are sorted by what they are worth.

    >>> in_number_order(["f_10", "f_2", "f_1"])
    ['f_1', 'f_2', 'f_10']
    """
    longest = max(map(len, names), default=0)
    return sorted(names, key=lambda name: (re.sub(r"\d+", lambda number: number[0].zfill(longest), name), name))


def _common_words(names: Collection[str]) -> list[Words]:
    """What all names begin and end with, up to where a word or number ends; the longest first, nothing at the last."""
    lasts = [name.rsplit("/", 1)[-1] for name in names]
    if len(lasts) < 2:
        return [("", "")]
    before = _common_start(lasts)
    after = _common_start([last[len(before) :][::-1] for last in lasts])[::-1]
    first = re.match(r"(.*[\W_]|.*[^\W\d_](?=\d*$))?", before)
    last = re.search(r"([\W_].*|(?<=\d)[^\W\d_].*)?$", after.lstrip("0123456789"))
    starts = [*dict.fromkeys((first[0] if first else "", ""))]
    ends = [*dict.fromkeys((last[0] if last else "", ""))]
    return [(start, end) for start in starts for end in ends]


def _common_start(names: Collection[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((place for place, letter in enumerate(first) if letter != last[place]), len(first))]


def _without(name: str, before: str, after: str) -> str:
    folder, slash, last = name.removesuffix(after).rpartition("/")
    return folder + slash + last.removeprefix(before)
