"""Pairs of image and mask files as samples: read, checked, mapped to classes, transformed."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from segloss.datasets.classes import STRAY, ClassTable
from segloss.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
Transform = Callable[[np.ndarray, np.ndarray | None, tuple[int, int]], tuple[np.ndarray, np.ndarray | None]]


class MissingSplitError(InputError):
    """The data set has no such split."""


class SegmentationDataset(Dataset):
    """Images with one label map each.

    An item is ``{"image": uint8 (3, h, w) RGB, "labels": int64 (H, W), "name": str, "size": (H, W)}``; labels are
    class numbers with 255 where ignored, and are missing where the split has none. Without a transform h, w are H, W.
    The key is an index, or ``(epoch, index)``: a transform sees both and so draws the same numbers in whatever
    worker or resumed run the sample is made.

    Args:
        name: of the data set, for messages and files.
        split: ``"train"``, ``"val"``, ``"test"`` ...
        pairs: image file and mask file (or None) of each sample.
        classes: the class table.
        transform: ``(image (H, W, 3) uint8, labels (H, W) uint8 or None, (epoch, index))`` -> the same two.
    """

    def __init__(
        self,
        name: str,
        split: str,
        pairs: Sequence[tuple[Path, Path | None]],
        classes: ClassTable,
        transform: Transform | None = None,
    ):
        self.name = name
        self.split = split
        self.pairs = list(pairs)
        self.classes = classes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def has_labels(self) -> bool:
        return all(mask is not None for _, mask in self.pairs)

    def sample_name(self, index: int) -> str:
        """The image file's stem."""
        return self.pairs[index][0].stem

    def read_image(self, index: int) -> np.ndarray:
        """uint8 ``(H, W, 3)`` RGB; InputError if the file cannot be read."""
        return read_image(self.pairs[index][0])

    def read_labels(self, index: int) -> np.ndarray:
        """uint8 ``(H, W)``, class numbers, 255 ignored; InputError if the file is unreadable or holds a stray id."""
        path = self.pairs[index][1]
        if path is None:
            raise InputError(f"{self.pairs[index][0]}: split {self.split} has no masks; choose a split with labels")
        return map_ids(read_mask(path), self.classes, path)

    def read_pair(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image and labels of one sample; InputError unless they have the same size."""
        image = self.read_image(index)
        if self.pairs[index][1] is None:
            return image, None
        labels = self.read_labels(index)
        if image.shape[:2] != labels.shape:
            path, mask = self.pairs[index]
            raise size_mismatch(mask, labels.shape, path, image.shape[:2])
        return image, labels

    def check_files(self) -> None:
        """Look at both ends of every file: InputError for an image that is none or cut off, a mask of another size."""
        for image, mask in self.pairs:
            size = image_size(image)
            require_whole(image)
            if mask is not None and image_size(mask) != size:
                raise size_mismatch(mask, image_size(mask), image, size)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, labels = self.read_pair(index)
        size = image.shape[:2]
        if self.transform is not None:
            image, labels = self.transform(image, labels, (epoch, index))
        item = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "name": self.sample_name(index),
            "size": (int(size[0]), int(size[1])),
        }
        if labels is not None:
            item["labels"] = torch.from_numpy(labels.astype(np.int64))
        return item

    def fingerprint(self) -> str:
        """Changes when a mask file is added, removed, renamed or rewritten, or when the class table changes."""
        digest = hashlib.sha256(repr((self.name, self.split, self.classes.to_dict())).encode())
        for _, mask in self.pairs:
            status = mask.stat() if mask is not None else None
            digest.update(repr((mask and mask.name, status and (status.st_size, status.st_mtime_ns))).encode())
        return digest.hexdigest()


def _read_file(path: Path, flags: int) -> np.ndarray:
    try:
        data = np.fromfile(path, dtype=np.uint8)  # not cv2.imread: it cannot open every path on Windows
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    decoded = cv2.imdecode(data, flags) if data.size else None
    if decoded is None:
        raise unreadable(path)
    return decoded


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) from the file's header, turned as its EXIF orientation says; InputError if it is no image."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            lying = picture.getexif().get(0x0112, 1) >= 5  # the orientation tag's values 5-8 swap the sides
    except OSError as error:
        raise unreadable(path) from error
    return (width, height) if lying else (height, width)


def require_whole(path: Path) -> None:
    """InputError for a JPEG or PNG without its end; it is decoded only if the end is not where it should be."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(max(0, path.stat().st_size - 1024))
        end = file.read()
    mark = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}.get(start[:2])
    if mark is not None and mark not in end:
        _read_file(path, cv2.IMREAD_COLOR)


def unreadable(path: Path) -> InputError:
    return InputError(f"{path}: is not a readable image; replace the file or remove it with its partner")


def size_mismatch(mask: Path, mask_size: tuple[int, ...], image: Path, size: tuple[int, ...]) -> InputError:
    return InputError(
        f"{mask}: mask is {mask_size[1]}x{mask_size[0]} but its image {image.name} is {size[1]}x{size[0]} "
        "(width x height); export the mask at the image's size"
    )


def read_image(path: Path) -> np.ndarray:
    """uint8 ``(H, W, 3)`` RGB from any 8-bit image file."""
    return cv2.cvtColor(_read_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_mask(path: Path) -> np.ndarray:
    """uint8 ``(H, W)`` ids from a single-channel or palette image; InputError for colour or 16-bit masks."""
    mask = _read_file(path, cv2.IMREAD_UNCHANGED)
    if mask.ndim == 3:
        return _read_palette_indices(path)  # cv2 hands out a palette's colours, not its indices
    if mask.dtype != np.uint8:
        raise InputError(f"{path}: mask has {mask.dtype} pixels; save class ids as 8-bit single-channel PNG")
    step = _grey_step(path)
    return mask if step == 1 else mask // step


def _grey_step(path: Path) -> int:
    """What cv2 multiplies the ids of a 1-, 2- or 4-bit PNG by, to fill 0..255: id 1 of 1 bit would come out as 255."""
    with path.open("rb") as file:
        header = file.read(25)
    return 255 // (2 ** header[24] - 1) if header.startswith(b"\x89PNG") and header[24] < 8 else 1


def _read_palette_indices(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode != "P":
            channels = len(picture.getbands())
            raise InputError(f"{path}: mask has {channels} channels; save class ids as single-channel or palette PNG")
        return np.array(picture)


def map_ids(mask: np.ndarray, classes: ClassTable, path: Path) -> np.ndarray:
    """Ids of a mask file -> class numbers, uint8; InputError that names file, value and cure for an unknown id."""
    labels = cv2.LUT(mask, classes.lookup)
    stray = labels == STRAY
    if stray.any():
        values = np.unique(mask[stray])
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise InputError(
            f"{path}: holds id {shown} on {stray.mean():.2%} of its pixels, which the class table does not know "
            f"(ids {_ranges(classes.ids)}, ignored {_ranges(classes.ignore_ids)}); {_cure(values, classes)}"
        )
    return labels


def _cure(values: np.ndarray, classes: ClassTable) -> str:
    if set(values.tolist()) <= {128, 255} | set(range(250, 255)) and len(classes) <= 3:
        return "a mask of 0 and 255 must be saved as 0 and 1"
    return "correct the mask, or add the id as a class or to the ignored ids"


def _ranges(ids: Sequence[int]) -> str:
    """``0-10, 255`` rather than every number."""
    parts: list[list[int]] = []
    for i in sorted(ids):
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(f"{low}-{high}" if high > low else str(low) for low, high in parts)


def list_images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem, sorted; InputError if two files share a stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(f"{path}: same stem as {found[path.stem].name}; keep one of the two")
            found[path.stem] = path
    return found


def require_folder(path: Path, what: str) -> Path:
    """The path, or an InputError if it is no folder."""
    if not path.is_dir():
        raise InputError(f"{path}: {what} is missing; check --data-path")
    return path


def pair_by_stem(
    images: dict[str, Path], masks: dict[str, Path] | None, folder: Path, mask_folder: Path
) -> list[tuple[Path, Path | None]]:
    """One pair per image, sorted by stem; InputError if there is none or one has no mask. ``masks`` None: no labels."""
    if not images:
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)}); check --data-path and --split")
    if masks is None:
        return [(path, None) for _, path in sorted(images.items())]
    lonely = sorted(set(images) - set(masks))
    if lonely:
        more = f" and {len(lonely) - 1} more" if len(lonely) > 1 else ""
        raise InputError(
            f"{images[lonely[0]]}: image without mask{more}; expected {mask_folder / lonely[0]}.png, "
            "add the mask or remove the image"
        )
    return [(path, masks[stem]) for stem, path in sorted(images.items())]
