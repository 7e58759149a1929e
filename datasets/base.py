"""Pairs of image and mask files as samples: read, checked, mapped to classes, transformed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from segloss.datasets.bands import RGB, Bands, read_bands
from segloss.datasets.cache import Pair, RamCache
from segloss.datasets.classes import ClassTable, mirrored_classes
from segloss.datasets.finding import ARRAYS
from segloss.datasets.images import image_size, read_header
from segloss.datasets.masks import READER, class_histogram, label_histogram, map_mask, read_mask
from segloss.datasets.missing import unread_pictures
from segloss.datasets.opening import Header, unreadable
from segloss.datasets.pairing import Pairing
from segloss.datasets.rows import LARGE, Rows, image_rows, mask_rows, sliced
from segloss.datasets.tiffs import mask_beside
from segloss.datasets.whole import has_end
from segloss.errors import InputError

if TYPE_CHECKING:
    from segloss.datasets.labelled import Labelled
    from segloss.datasets.mixing import Mixing

Color = Literal["none", "light", "strong"]  # random colour changes, of segloss.datasets.transforms.COLORS
Transform = Callable[[np.ndarray, np.ndarray | None, tuple[int, ...]], Pair]
Sample = dict[str, Any]  # what an item of SegmentationDataset holds


PIECE = 2**12  # bytes of an image that tell whether it was replaced


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
        transform: ``(image (H, W, 3) uint8, labels (H, W) or None, (epoch, index, ...))`` -> the same two; one that
            mirrors samples has an attribute ``mirrored``: whether the last one is.

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
        found = self.found
        for name, path in found.lonely_images.items():
            count = len(found.lonely_images)
            more = f" and {count - 1} more" if count > 1 else ""
            mask = found.mask_place / f"{found.naming.mask_name(name)}.png"
            cure = f"expected {mask}, add the mask or remove the image"
            raise InputError(f"image without mask{more}{unread_pictures(found.mask_place)}", cure, path)

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
                read_mask(mask)  # says what else is wrong with it, a turn by EXIF for instance
                raise size_mismatch(mask, image_size(mask), image, size)

    def by_side(
        self, labels: np.ndarray | None, class_mask: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Labels of the last sample that the transform made, and the classes that it labels (None: all): where it is
        mirrored, what was a left hand is a right one now (:func:`mirrored_classes`)."""
        others = mirrored_classes(self.classes.names)
        if not others or not getattr(self.transform, "mirrored", False):
            return labels, class_mask
        class_mask = None if class_mask is None else class_mask[[*others]]
        if labels is None:
            return None, class_mask
        named = labels.copy()
        for c, other in enumerate(others):
            if c != other:
                named[labels == c] = other
        return named, class_mask

    def __getitem__(self, key: int | tuple[int, ...]) -> Sample:
        key = key if isinstance(key, tuple) else (0, key)
        index = key[1]
        image, labels = self.read_pair(index)
        size = image.shape[:2]
        class_mask = None if self.labelled is None else self.labelled.masks[index]
        if self.transform is not None:
            image, labels = self.transform(image, labels, key)
            labels, class_mask = self.by_side(labels, class_mask)
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
        images label change, and with :data:`READER`."""
        digest = hashlib.sha256(repr((READER, self.name, self.split, self.classes.to_dict())).encode())
        digest.update(repr((self.classes.mask_ids, self.classes.mask_colors)).encode())
        if self.labelled is not None:
            digest.update(self.labelled.masks.tobytes())
        for name, (_, mask) in zip(self.names, self.pairs, strict=True):
            digest.update(repr((name, mask and file_state(mask))).encode())
        if self.bands.gaps:
            digest.update(self.images_state().encode())
        return digest.hexdigest()

    def images_state(self) -> str:
        """Changes when an image file is rewritten, or read as other bands, and with :data:`READER`."""
        states = [
            (name, file_state(image), (beside := mask_beside(image)) and file_state(beside))
            for name, (image, _) in zip(self.names, self.pairs, strict=True)
        ]
        content = repr((READER, states, self.bands.count, self.bands.dtype, self.bands.gaps))
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


def file_length(path: Path | None) -> int:
    """In bytes, the same wherever a copy of the file lies; 0 of what is no file."""
    return path.stat().st_size if path is not None and path.is_file() else 0


def require_same_classes(datasets: Iterable[SegmentationDataset]) -> None:
    """InputError unless all labelled splits have the same classes in one order, by which their labels are numbered."""
    labelled = [dataset for dataset in datasets if dataset.has_labels]
    for first, other in pairwise(labelled):
        for place, names in enumerate(zip_longest(first.classes.names, other.classes.names)):
            if names[0] != names[1]:
                ours, theirs = (repr(name) if name else "none" for name in names)
                what = f"class {place} is {ours} in {first.split} and {theirs} in {other.split}"
                cure = f"save {other.split} with the classes of {first.split}, in their order"
                raise InputError(what, cure, first.name)


def size_mismatch(mask: Path, mask_size: tuple[int, ...], image: Path, size: tuple[int, ...]) -> InputError:
    what = f"mask is {mask_size[1]}x{mask_size[0]} but its image {image.name} is {size[1]}x{size[0]} (width x height)"
    turned = "save the array as (height, width, bands)" if image.suffix.lower() == ARRAYS else None
    return InputError(what, turned or "export the mask at the image's size", mask)


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
        finer_val: val is labelled better than train, so that ``--fold`` would score on worse labels.
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
    finer_val: bool = False
