"""Pairs of image and mask files as samples: read, checked, mapped to classes, transformed."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from segloss.datasets.bands import RGB, Bands, read_bands
from segloss.datasets.cache import Pair, RamCache
from segloss.datasets.classes import ClassTable
from segloss.datasets.images import (
    ARRAYS,
    IMAGE_SUFFIXES,
    OTHER_PICTURES,
    Header,
    has_end,
    image_size,
    read_header,
    unreadable,
)
from segloss.datasets.masks import class_histogram, label_histogram, map_mask, read_mask
from segloss.datasets.rows import LARGE, Rows, image_rows, mask_rows, sliced
from segloss.errors import InputError

if TYPE_CHECKING:
    from segloss.datasets.labelled import Labelled
    from segloss.datasets.mixing import Mixing

Color = Literal["none", "light", "strong"]  # random colour changes, of segloss.datasets.transforms.COLORS
Transform = Callable[[np.ndarray, np.ndarray | None, tuple[int, ...]], Pair]
Sample = dict[str, Any]  # what an item of SegmentationDataset holds


PIECE = 2**12  # bytes of an image that tell whether it was replaced


class MissingSplitError(InputError):
    """The data set has no such split."""


def no_split(split: str, place: Path) -> MissingSplitError:
    return MissingSplitError(f"split {split!r} is missing", "add the folder, or check --data-path", place)


def no_masks(split: str, place: Path, cure: str = "add the folder, or check --data-path") -> InputError:
    return InputError(f"masks of split {split!r} are missing", cure, place)


class NoDataError(InputError):
    """There is no such data set: unknown name, no folder or no class file that can be read."""


@dataclass
class Pairing:
    """Images and masks brought together by name.

    Attributes:
        form: where and how they were found, in words.
        pairs: image file and mask file (or None) of each sample.
        names: of the samples, unique.
        lonely_images, lonely_masks: files without partner by name, left out of ``pairs``.
        mask_place: folder in which masks were looked for.
        labelled: classes that a list says single images label, by name of the sample; the others label all.
        lists: that list.
    """

    form: str
    pairs: list[tuple[Path, Path | None]]
    names: list[str]
    lonely_images: dict[str, Path] = field(default_factory=dict)
    lonely_masks: dict[str, Path] = field(default_factory=dict)
    mask_place: Path = Path()
    labelled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Path = Path()

    def only(self, belongs: Callable[[str], bool]) -> "Pairing":
        """The files of one split, with partner or without."""
        chosen = [place for place, name in enumerate(self.names) if belongs(name)]
        return replace(
            self,
            pairs=[self.pairs[place] for place in chosen],
            names=[self.names[place] for place in chosen],
            lonely_images={name: path for name, path in self.lonely_images.items() if belongs(name)},
            lonely_masks={name: path for name, path in self.lonely_masks.items() if belongs(name)},
        )


class SegmentationDataset(Dataset[Sample]):
    """Images with one label map each.

    An item is ``{"image": uint8 (3, h, w) RGB, "labels": int64 (H, W), "name": str, "size": (H, W)}``; labels are
    class numbers with ``classes.ignored`` where ignored, and are missing where the split has none. Without a transform
    h, w are H, W. Images of N ``bands`` other than 8-bit RGB are ``(N, h, w)``, float32 unless of 8 bits, and labels
    are ignored where these hold nothing. Where ``labelled`` says so, ``"class_mask"``, bool ``(C,)``, holds the classes
    that the image labels.
    The key is an index, or ``(epoch, index)`` and what else tells samples apart: a transform sees all of it and so
    draws the same numbers in whatever worker or resumed run the sample is made.

    Args:
        name: of the data set, for messages and files.
        split: ``"train"``, ``"val"``, ``"test"`` ...
        found: the files.
        classes: the class table.
        transform: ``(image (H, W, 3) uint8, labels (H, W) or None, (epoch, index, ...))`` -> the same two.

    Attributes:
        bands: of the images; :func:`segloss.datasets.bands.choose_bands` finds those that are not 8-bit RGB.
        cache: where decoded pairs are kept, if anywhere (:func:`segloss.datasets.cache.cache_in_ram`).
        labelled: which classes each image labels; None: all. Pixels of other classes are ignored.
        mixing: makes samples of two; None: no sample is.
        root: the data folder, where it is known.
        groups: which samples are read together, a number each ``(length,)``; None: any order costs the same.
        made_up: no files lie behind the pairs.
    """

    made_up: ClassVar[bool] = False
    groups: torch.Tensor | None = None

    def __init__(
        self,
        name: str,
        split: str,
        found: Pairing,
        classes: ClassTable,
        transform: Transform | None = None,
    ):
        self.name = name
        self.split = split
        self.found = found
        self.pairs, self.names = found.pairs, found.names
        self.classes = classes
        self.transform = transform
        self.cache: RamCache | None = None
        self.bands: Bands = RGB
        self._headers: dict[Path, Header] = {}
        self.labelled: Labelled | None = None
        self.mixing: Mixing | None = None
        self.root: Path | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def has_labels(self) -> bool:
        return all(mask is not None for _, mask in self.pairs)

    def sample_name(self, index: int) -> str:
        """Unique in the split; predictions are saved under it."""
        return self.names[index]

    def headers(self) -> dict[Path, Header]:
        """What the headers of the images say, read once; those that cannot be read are left out."""
        for path, _ in self.pairs:
            if path not in self._headers:
                with suppress(InputError):
                    self._headers[path] = read_header(path)
        return self._headers

    def read_image(self, index: int) -> np.ndarray:
        """``(H, W, N)``, uint8 RGB unless there are other ``bands``; InputError if the file cannot be read."""
        return read_bands(self.pairs[index][0], self.bands)[0]

    def read_picture(self, index: int) -> np.ndarray:
        """The image as people see it, uint8 ``(H, W, 3)`` RGB; InputError if the file cannot be read."""
        return self.bands.picture(self.read_image(index))

    def read_labels(self, index: int) -> np.ndarray:
        """Class numbers ``(H, W)`` as :func:`map_mask` has them; InputError for an unreadable file or a stray id."""
        path = self.pairs[index][1]
        if path is None:
            raise self._no_masks(index)
        labels = map_mask(read_mask(path), self.classes, path)
        return labels if self.labelled is None else self.labelled.of_image(labels, index)

    def _no_masks(self, index: int) -> InputError:
        what = f"split {self.split} has no masks"
        return InputError(what, "choose a split with labels", self.pairs[index][0])

    def histogram(self, index: int) -> torch.Tensor:
        """Pixels of each class in one label map, int64 ``(C + 1,)``, the ignored ones last."""
        path = self.pairs[index][1]
        if path is None:
            raise self._no_masks(index)
        if self.bands.gaps:
            labels = self.decode_pair(index)[1]
            assert labels is not None
            return torch.from_numpy(class_histogram(labels, len(self.classes)))
        counts = label_histogram(read_mask(path), self.classes, path)
        return torch.from_numpy(counts if self.labelled is None else self.labelled.of_histogram(counts, index))

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image, without decoding it."""
        return image_size(self.pairs[index][0])

    def is_large(self, index: int) -> bool:
        """Whether an image is read by rows and not decoded whole, by its header: of 8-bit RGB alone."""
        height, width = self.image_size(index)
        return self.bands.is_rgb and height * width > LARGE

    def image_rows(self, index: int) -> Rows:
        """As :meth:`read_image`, a few rows at a time: ``(first, behind the last)`` -> ``(rows, W, N)``."""
        return image_rows(self.pairs[index][0]) if self.is_large(index) else sliced(self.read_image(index))

    def picture_rows(self, index: int) -> Rows:
        """As :meth:`read_picture`, a few rows at a time."""
        if not self.is_large(index):
            return sliced(self.read_picture(index))
        read = self.image_rows(index)
        return lambda top, bottom: self.bands.picture(read(top, bottom))

    def label_rows(self, index: int) -> Rows:
        """As :meth:`read_labels`, a few rows at a time."""
        path = self.pairs[index][1]
        if path is None or not self.is_large(index):
            return sliced(self.read_labels(index))
        size, (height, width) = self.image_size(index), image_size(path)
        if (height, width) != size:
            raise size_mismatch(path, (height, width), self.pairs[index][0], size)
        read = mask_rows(path)

        def labels(top: int, bottom: int) -> np.ndarray:
            rows = map_mask(read(top, bottom), self.classes, path)
            return rows if self.labelled is None else self.labelled.of_image(rows, index)

        return labels

    def read_pair(self, index: int) -> Pair:
        """Image and labels of one sample, from the cache if there is one; InputError as :meth:`decode_pair`."""
        if self.cache is None:
            return self.decode_pair(index)
        return self.cache.read(index, self.decode_pair, self.pairs[index][0])

    def decode_pair(self, index: int) -> Pair:
        """Image and labels of one sample from their files; InputError unless they have the same size."""
        path, mask = self.pairs[index]
        image, empty = (self.read_image(index), None) if self.bands.is_rgb else read_bands(path, self.bands)
        if mask is None:
            return image, None
        labels = self.read_labels(index)
        if image.shape[:2] != labels.shape:
            raise size_mismatch(mask, labels.shape, path, image.shape[:2])
        if empty is not None:
            labels[empty] = self.classes.ignored
        return image, labels

    def check_partners(self) -> None:
        """InputError for an image without mask."""
        lonely = [*self.found.lonely_images.values()]
        if lonely:
            more = f" and {len(lonely) - 1} more" if len(lonely) > 1 else ""
            cure = f"expected {self.found.mask_place / lonely[0].stem}.png, add the mask or remove the image"
            raise InputError(f"image without mask{more}{unread_pictures(self.found.mask_place)}", cure, lonely[0])

    def check_files(self) -> None:
        """Look at both ends of every file.

        Raises:
            InputError: an image is none, is cut off or has other bands than the set, or a mask another size.
        """
        for index, (image, mask) in enumerate(self.pairs):
            header = self._headers.get(image) or read_header(image)
            self.bands.require(header, image)
            size = header.size
            if not has_end(image):
                self.read_image(index)  # decoded only if the end is not where it mostly is
            if mask is not None and image_size(mask) != size:
                raise size_mismatch(mask, image_size(mask), image, size)

    def __getitem__(self, key: int | tuple[int, ...]) -> Sample:
        key = key if isinstance(key, tuple) else (0, key)
        index = key[1]
        image, labels = self.read_pair(index)
        size = image.shape[:2]
        if self.transform is not None:
            image, labels = self.transform(image, labels, key)
        class_mask = None if self.labelled is None else self.labelled.masks[index]
        if self.mixing is not None and labels is not None:
            image, labels, class_mask = self.mixing(self, image, labels, class_mask, key)
        if image.dtype == np.uint16:
            image = image.astype(np.float32)  # which every device can add and average
        item: Sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "name": self.sample_name(index),
            "size": (int(size[0]), int(size[1])),
        }
        if labels is not None:
            item["labels"] = torch.from_numpy(labels.astype(np.int64))
        if class_mask is not None:
            item["class_mask"] = torch.from_numpy(class_mask.copy())
        return item

    def fingerprint(self) -> str:
        """Changes when a mask file is added, removed, renamed or rewritten, or when the classes or what of them the
        images label change."""
        digest = hashlib.sha256(repr((self.name, self.split, self.classes.to_dict())).encode())
        digest.update(repr((self.classes.mask_ids, self.classes.mask_colors)).encode())
        if self.labelled is not None:
            digest.update(self.labelled.masks.tobytes())
        for name, (_, mask) in zip(self.names, self.pairs, strict=True):
            digest.update(repr((name, mask and file_state(mask))).encode())
        if self.bands.gaps:
            digest.update(self.images_state().encode())
        return digest.hexdigest()

    def images_state(self) -> str:
        """Changes when an image file is rewritten, or read as other bands."""
        states = [(name, file_state(image)) for name, (image, _) in zip(self.names, self.pairs, strict=True)]
        content = repr((states, self.bands.count, self.bands.dtype, self.bands.gaps))
        return hashlib.sha256(content.encode()).hexdigest()

    def images_digest(self) -> str:
        """Changes when an image is replaced, wherever the files lie: by name, length and three pieces of each."""
        if self.made_up:
            return ""
        digest = hashlib.sha256()
        for name, (image, _) in zip(self.names, self.pairs, strict=True):
            try:
                with image.open("rb") as file:
                    length = file.seek(0, os.SEEK_END)
                    digest.update(repr((name, length)).encode())
                    for start in (0, length // 2, max(0, length - PIECE)):
                        file.seek(start)
                        digest.update(file.read(PIECE))
            except OSError as error:
                raise unreadable(image, error) from error
        return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int, int]:
    """Changes when the file is written, though its size and time of writing be set to what they were: by the time at
    which it last changed in any way, which archives and copies cannot set. One look at the directory, no reading."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class Format:
    """A kind of data set, as ``--dataset`` names it. A module of this folder registers its own: ``FORMATS = (...)``.

    Attributes:
        name: of ``--dataset``, in small letters.
        help: what it is, in a few words.
        open: ``(root, split, transform, **options)`` -> the split, a :class:`SegmentationDataset`; InputError for what
            is missing or does not fit, MissingSplitError for a split that it does not have.
        tables: class tables by their names for ``--class-table``; none where each data set brings its own.
        options: of ``build_dataset``, as far as ``open`` takes them, and what they do.
        variable: of the environment, that names the folder where ``--data-path`` does not.
        made_up: there is no folder; ``open`` gets None.
        anywhere: ``--data-path`` may be more than a folder; ``open`` gets it as text.
        splits: all that there can be; empty: those that the folder has.
    """

    name: str
    help: str
    open: Callable[..., SegmentationDataset]
    tables: Mapping[str, ClassTable] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    variable: str | None = None
    made_up: bool = False
    anywhere: bool = False
    splits: tuple[str, ...] = ()


def no_images(place: Path) -> InputError:
    """What is said of a folder without images; pictures in it that are not read are named."""
    what, unread = f"holds no images ({', '.join(IMAGE_SUFFIXES)})", unread_pictures(place)
    cure = "save them as PNG or JPEG" if unread else "check --data-path and --split"
    return InputError(f"{what}{unread}", cure, place)


def unread_pictures(place: Path) -> str:
    """``, but a.heic and 3 more, which are not read``: pictures of other formats below a folder; else nothing."""
    if place == Path():  # nobody said where
        return ""
    others = sorted(path for path in place.rglob("*") if path.suffix.lower() in OTHER_PICTURES)
    if not others:
        return ""
    return f", but {others[0].name}{f' and {len(others) - 1} more' if others[1:] else ''}, not a format that is read"


def size_mismatch(mask: Path, mask_size: tuple[int, ...], image: Path, size: tuple[int, ...]) -> InputError:
    what = f"mask is {mask_size[1]}x{mask_size[0]} but its image {image.name} is {size[1]}x{size[0]} (width x height)"
    turned = "save the array as (height, width, bands)" if image.suffix.lower() == ARRAYS else None
    return InputError(what, turned or "export the mask at the image's size", mask)


def require_folder(path: Path, what: str) -> Path:
    """The path, or a NoDataError if it is no folder."""
    if not path.is_dir():
        raise NoDataError(f"{what} is missing", "check --data-path", path)
    return path


def read_list(path: Path) -> list[str]:
    """The lines of a list file, in UTF-8 or UTF-16, without empty ones and comments; InputError if none is left."""
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    lines = [line.strip() for line in content.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError("lists nothing", "write one name, or image and mask, a line", path)
    return lines


BETWEEN = re.compile(r"\t+|\s*[,;|]\s*| +")  # the columns of a list; names may hold some too


def columns(line: str) -> Iterator[tuple[str, str]]:
    """A line of a list cut in two, at each place where it may be meant."""
    for found in BETWEEN.finditer(line):
        yield line[: found.start()], line[found.end() :]


def rebased(root: Path, text: str, beside: Path | None = None) -> Path | None:
    """A file of a list below ``root``, whatever prefix its writer had; None for one that lies outside.

    ``..`` is followed from ``root`` and from the list's folder ``beside``; behind it a bare name is no file of ours.
    """
    parts = PureWindowsPath(text.strip().strip("\"'")).parts
    above = max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0)
    inside = os.path.normpath(root.absolute())
    for start in (root, beside or root) if above else ():
        path = Path(os.path.normpath(start.absolute().joinpath(*parts)))
        if path.is_file():
            return root / path.relative_to(inside) if path.is_relative_to(inside) else None
    for first in range(above, len(parts) - bool(above)):
        path = root.joinpath(*parts[first:])
        if not PureWindowsPath(*parts[first:]).anchor and path.is_file():
            return path
    return None


def refuse_twice(path: Path, listed: Sequence[Hashable]) -> None:
    """InputError if a list file names an image twice."""
    twice = next((image for image, count in Counter(listed).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"listed twice in {path}", "remove one of the lines", str(twice))


def pair(
    images: dict[str, Path],
    masks: dict[str, Path] | None,
    form: str,
    place: Path,
    mask_place: Path,
    folder: dict[str, Path] | None = None,
) -> Pairing:
    """One pair per name that both have; ``masks`` None: a split without labels.

    Where no name is the same but masks are called like their image and one ending (``a_mask``, ``a_L``), that ending is
    taken off; where images and masks have words of their own (``sat_1``, ``mask_1``), these are.

    Args:
        images: those wanted.
        folder: all that lie there, from which endings and words are learnt; default: ``images``.

    Raises:
        InputError: there is no image, or several masks of one.
    """
    if not images:
        raise no_images(place)
    if masks is None:
        return Pairing(f"{form}, without masks", [(path, None) for path in images.values()], list(images))
    naming = learn_naming(images if folder is None else folder, masks)
    for name in images:
        naming.require_one(name, images, masks)
    of_image = {name: naming.key(name) for name in images}
    masks = {naming.mask_key(name): path for name, path in masks.items()}
    form += naming.said
    both = [name for name in images if of_image[name] in masks]
    wanted = {*of_image.values()}
    return Pairing(
        form,
        [(images[name], masks[of_image[name]]) for name in both],
        both,
        {name: path for name, path in images.items() if of_image[name] not in masks},
        {name: path for name, path in masks.items() if name not in wanted},
        mask_place,
    )


def unique_by(files: Mapping[str, Path], key: Callable[[str], str]) -> dict[str, Path]:
    """The files under other keys; InputError for two of one key."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        if key(name) in found:
            raise InputError(f"is of the same name, {key(name)}, as {found[key(name)]}", "keep one of the two", path)
        found[key(name)] = path
    return found


Endings = dict[str, list[tuple[str, str]]]
Words = tuple[str, str]  # before and after what tells a folder's files apart


@dataclass(frozen=True)
class Naming:
    """How two folders call the same image: by the same name, but for words of their own.

    Attributes:
        words, mask_words: that the names of either have.
        endings: of each image what its masks have after its name, and their names, where that is the difference.
    """

    words: Words = ("", "")
    mask_words: Words = ("", "")
    endings: Endings = field(default_factory=dict)

    def key(self, name: str) -> str:
        return _without(name, *self.words)

    def mask_key(self, name: str) -> str:
        return _without(name, *self.mask_words)

    @property
    def said(self) -> str:
        """Behind the form of a data set."""
        (before, after), (mask_before, mask_after) = self.words, self.mask_words
        if self.endings:
            return f", masks named NAME{mask_after}"
        named = f", images named {before}NAME{after}, masks {mask_before}NAME{mask_after}"
        return named if before + after + mask_before + mask_after else ""

    def require_one(self, name: str, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
        """InputError that lists the masks of an image that has several."""
        ending = self.mask_words[1]
        several = [mask for end, mask in self.endings.get(name, ()) if end == ending or not end.endswith(ending)]
        if len(several) > 1:
            shown = ", ".join(masks[mask].name for mask in several[:4]) + (", ..." if len(several) > 4 else "")
            cure = "keep one in the folder, or write list files of image and mask"
            raise InputError(f"has several masks: {shown}", cure, images[name])


def learn_naming(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Naming:
    """From most of the files: the same names; masks called as their image and an ending; words of either's own."""
    endings = _endings(images, masks)
    if endings is None:
        return Naming()
    if ending := _usual_ending(endings, min(len(images), len(masks))):
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
    """Words that all images have, and those that all masks have, without which most names are the same."""
    for ours in _common_words(images):
        names = {_without(name, *ours) for name in images}
        for theirs in _common_words(masks):
            if 2 * len(names & {_without(name, *theirs) for name in masks}) > min(len(images), len(masks)):
                return ours, theirs
    return None


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
