"""Pixel counts per class: counted once per data set, checked, saved and found again.

``count_labels`` serves any iterable of label tensors and needs torch alone. ``image_histograms`` reads the masks of a
data set in parallel, or finds what an earlier call saved; ``load_or_count`` adds them up.
"""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from segloss.errors import InputError, cure_of_black_and_white
from segloss.files import composed, write_bytes, write_json
from segloss.label_maps import in_order, is_one_map, is_pil, is_rows, label_tensor, refuse_partial
from segloss.losses.labels import (
    ignore_index_of,
    ignored_label,
    ignored_words,
    refuse_one_hot,
    require_num_classes,
)
from segloss.progress import Progress
from segloss.ranks import here

if TYPE_CHECKING:
    from segloss.datasets import SegmentationDataset

Found = TypeVar("Found")


@dataclass(frozen=True)
class PixelCounts:
    """How often each class occurs in the labels of one split.

    Attributes:
        class_names: C names.
        pixels: labelled pixels of each class.
        images: images that hold the class.
        pixels_of_images: labelled pixels (of any class) of those images; median-frequency weights need it. Of an image
            that labels a part of the classes all pixels.
        ignored_pixels: pixels left out everywhere above.
        image_count: images seen.
        dataset, split: where the labels came from.
        fingerprint: of the mask files; empty for label tensors.
        images_digest: of the image files, the same wherever they lie; empty for label tensors.
        labelled_images, seen_pixels: of each class the images that label it, and their pixels as in
            ``pixels_of_images``; empty where every image labels all classes.
        ignore_index: the label that was left out, which losses made from these counts leave out too; auto: 255, or
            65535 where 255 is a class.
    """

    class_names: tuple[str, ...]
    pixels: tuple[int, ...]
    images: tuple[int, ...]
    pixels_of_images: tuple[int, ...]
    ignored_pixels: int
    image_count: int
    dataset: str = ""
    split: str = ""
    fingerprint: str = ""
    images_digest: str = ""
    labelled_images: tuple[int, ...] = ()
    seen_pixels: tuple[int, ...] = ()
    ignore_index: int | str | None = "auto"

    @property
    def complete(self) -> "PixelCounts":
        r"""As if every image labelled all classes: what losses, priors and sampling are made from.

        .. math:: n'_c = \mathrm{round}\left(n_c \max_k N_k / N_c\right)

        N_c: ``seen_pixels``; ``pixels_of_images`` grows alike. A class that no image labels keeps its 0.

        >>> PixelCounts(("a", "b"), (80, 10), (4, 1), (90, 20), 0, 4, seen_pixels=(100, 25)).complete.pixels
        (80, 40)
        """
        if not self.seen_pixels:
            return self
        most = max(self.seen_pixels)
        pixels, around = (
            tuple(round(n * most / seen) if seen else n for n, seen in zip(each, self.seen_pixels, strict=True))
            for each in (self.pixels, self.pixels_of_images)
        )
        return replace(self, pixels=pixels, pixels_of_images=around, labelled_images=(), seen_pixels=())

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "PixelCounts":
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        if isinstance(names := plain.get("class_names"), tuple) and all(isinstance(name, str) for name in names):
            plain["class_names"] = tuple(map(composed, names))  # as class tables have them, whatever wrote it
        return cls(**plain)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), self.to_dict())

    def _check(self) -> None:
        """ValueError unless the numbers can be counts."""
        names, numbers = self.class_names, (self.pixels, self.images, self.pixels_of_images)
        of_labelled = [each for each in (self.labelled_images, self.seen_pixels) if each != ()]
        if not all(isinstance(each, tuple) and len(each) == len(names) for each in of_labelled):
            raise ValueError("expected one number for each class")
        if not all(isinstance(each, tuple) and len(each) == len(names) for each in (names, *numbers)):
            raise ValueError("expected one number for each class")
        if not all(
            isinstance(name, str) for name in (*names, self.dataset, self.split, self.fingerprint, self.images_digest)
        ):
            raise ValueError("names must be texts")
        if len({*names}) < len(names):
            raise ValueError("a class is named twice")
        if self.ignore_index not in ("auto", None) and type(self.ignore_index) is not int:
            raise ValueError(f"ignore_index must be a number, auto or nothing, got {self.ignore_index!r}")
        for each in (*numbers, *of_labelled, (self.ignored_pixels, self.image_count)):
            _check_whole("counts", each)
        for name, pixels, images, around in zip(names, *numbers, strict=True):
            if images > self.image_count or (pixels > 0) != (images > 0) or not images <= pixels <= around:
                raise ValueError(f"the counts of {name} contradict each other")

    @classmethod
    def load(cls, path: str | Path) -> "PixelCounts":
        """Read what :meth:`save` wrote; InputError if the file holds something else."""
        try:
            counts = cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
            counts._check()
            return counts
        except FileNotFoundError as error:
            raise InputError("is missing", "give a run's pixel_counts.json", where=path) from error
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            what = f"cannot be read as pixel counts: {error}"
            raise InputError(what, "give a run's pixel_counts.json", where=path) from error


def _check_whole(what: str, values: Iterable[object]) -> None:
    if any(type(value) is not int or value < 0 for value in values):
        raise ValueError(f"{what} must be whole numbers of at least 0")


def _summarise(
    histograms: Iterable[Tensor], class_names: Sequence[str], labelled: Tensor | None = None, **origin: str
) -> PixelCounts:
    """Add up one int64 histogram ``(C + 1,)`` per image; the last entry is the ignored pixels.

    ``labelled``, bool ``(images, C)``: the classes that each image labels.
    """
    num_classes = len(class_names)
    pixels = torch.zeros(num_classes + 1, dtype=torch.int64, device="cpu")  # whatever torch.set_default_device says
    images, pixels_of_images, seen = (torch.zeros_like(pixels[:-1]) for _ in range(3))
    image_count = 0
    for histogram in histograms:
        present = histogram[:-1] > 0
        mask = None if labelled is None else labelled[image_count]
        around = histogram[:-1].sum() if mask is None or mask.all() else histogram.sum()
        pixels += histogram
        images += present
        pixels_of_images += present * around
        if mask is not None:
            seen += mask * around
        image_count += 1
    return PixelCounts(
        class_names=tuple(class_names),
        pixels=tuple(pixels[:-1].tolist()),
        images=tuple(images.tolist()),
        pixels_of_images=tuple(pixels_of_images.tolist()),
        ignored_pixels=int(pixels[-1]),
        image_count=image_count,
        labelled_images=() if labelled is None else tuple(labelled.sum(0).tolist()),
        seen_pixels=() if labelled is None else tuple(seen.tolist()),
        **origin,
    )


def _refuse_black_and_white(counts: PixelCounts, ignore_index: int | str | None) -> PixelCounts:
    """The counts, or an InputError where 255 of two classes was taken for the label that is ignored."""
    zero_alone = len(counts.pixels) == 2 and counts.pixels[0] and not counts.pixels[1]
    if ignore_index == "auto" and zero_alone and counts.ignored_pixels:
        require_two_classes(counts)
    return counts


def count_labels(
    labels: Iterable[Any],
    num_classes: int,
    *,
    ignore_index: int | str | None = "auto",
    class_names: Sequence[str] | None = None,
) -> PixelCounts:
    """Count label maps, for :meth:`OutlyingMSELoss.from_counts` and all other losses; ``.pixels`` are the bare numbers.

    >>> count_labels([torch.tensor([[0, 1], [1, 255]])], num_classes=2).pixels
    (1, 2)

    Args:
        labels: integer maps, each one image ``(H, W)`` or a batch ``(N, H, W)``, of which each map counts as an image
            (a volume's slices): tensors, numpy arrays, PIL images, nested lists; one map alone; or what a
            ``DataLoader`` yields, pairs (images, labels) or dictionaries with ``labels`` (or another of
            ``LABEL_KEYS``), whose labels are counted; or a data set of either. Count whole label maps: random crops
            give other shares each time. Single labels ``(N,)``, of a classifier, are the pixels of one image together,
            in batches of any size: of images of one pixel each all median-frequency weights would be 1. A point cloud
            or a sequence that is an image of its own is ``(1, N)``.
        num_classes: C, at least 2.
        ignore_index: this label is left out; auto: 255, or 65535 where 255 is a class; None: all count.
        class_names: default ``class 0`` ...

    Raises:
        ValueError: a label is outside ``[0, C)`` and not ignored; the message names tensor and value.
        InputError: something is no label map of integers, or there is none; maps are one-hot; of two classes one
            alone and 255 occur (masks of 0 and 255); a loader leaves images out or repeats them.
    """
    num_classes = require_num_classes(num_classes)
    names = class_names or [f"class {c}" for c in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"class_names must hold {num_classes} names, got {len(names)}")
    if len({*names}) < num_classes:
        raise ValueError(f"class_names must differ, got {', '.join(map(str, names))}")

    ignored = ignored_label(ignore_index_of(num_classes, ignore_index))
    refuse_partial(labels)
    if is_pil(labels) or is_rows(labels) or is_one_map(labels):
        labels = [labels]
    labels = in_order(labels)

    def histogram(image: Tensor, place: int) -> Tensor:
        flat = image.reshape(-1).long()
        valid = flat[flat != ignored]
        if valid.numel() and (int(valid.min()) < 0 or int(valid.max()) >= num_classes):
            stray = int(valid.min()) if int(valid.min()) < 0 else int(valid.max())
            raise ValueError(
                f"label tensor {place} holds {stray}, outside [0, {num_classes}) and not "
                f"{ignored_words(ignored)}; map the label or ignore it"
            )
        counts = torch.bincount(valid, minlength=num_classes).cpu()
        return torch.cat([counts, counts.new_tensor([flat.numel() - valid.numel()])])

    def histograms() -> Iterator[Tensor]:
        population = None  # of single labels, however they are parted into batches
        for place, given in enumerate(labels):
            tensor = label_tensor(given, place)
            refuse_one_hot("labels", tensor, num_classes)
            if tensor.ndim == 1:
                found = histogram(tensor, place)
                population = found if population is None else population + found
                continue
            for image in tensor if tensor.ndim > 2 else [tensor]:
                yield histogram(image, place)
        if population is not None:
            yield population

    counts = _summarise(histograms(), names)
    if not counts.image_count:
        used_up = "a generator that was used up gives nothing more: make a new one"
        raise InputError("labels gave no label map", used_up if isinstance(labels, Iterator) else "give some")
    return replace(_refuse_black_and_white(counts, ignore_index), ignore_index=ignore_index)


def images_looked_at(
    look: Callable[[int], Found],
    places: Sequence[int],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Found]:
    """What ``look(index)`` finds in the images at ``places``, in ``workers`` threads (default: one per core)."""
    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        results: Iterable[Found] = pool.map(look, places)
        if progress is not None:
            results = progress(results, len(places))
        return list(results)
    finally:
        pool.shutdown(cancel_futures=True)


def count_images(
    dataset: "SegmentationDataset", *, workers: int | None = None, progress: Progress | None = None
) -> Tensor:
    """Pixels of each class in each image, int64 ``(images, C + 1)``, the ignored ones last; reads every mask.

    The processes of a job (:mod:`segloss.ranks`) read a share each, and all of them get the whole.

    Raises:
        InputError: a mask is missing, unreadable or holds an id that the class table does not know.
    """
    share = here().share(range(len(dataset)))
    found = images_looked_at(dataset.histogram, share, workers=workers, progress=progress)
    own = torch.stack(found) if found else torch.zeros(0, len(dataset.classes) + 1, dtype=torch.int64)
    return torch.from_numpy(here().whole_array(own.numpy(), len(dataset)))


def count_dataset(
    dataset: "SegmentationDataset", *, workers: int | None = None, progress: Progress | None = None
) -> PixelCounts:
    """Read every mask of a data set and count; as :func:`count_images`."""
    return counts_of(dataset, count_images(dataset, workers=workers, progress=progress))


def counts_of(dataset: "SegmentationDataset", histograms: Tensor) -> PixelCounts:
    """The histograms of a split added up."""
    origin = {"dataset": dataset.name, "split": dataset.split}
    origin |= {"fingerprint": dataset.fingerprint(), "images_digest": dataset.images_digest()}
    labelled = None if dataset.labelled is None else torch.from_numpy(dataset.labelled.masks)
    return _summarise(histograms, dataset.classes.names, labelled, **origin)


def some_of(names: Sequence[str]) -> str:
    """At most eight of them, and how many there are."""
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def require_two_classes(counts: PixelCounts) -> PixelCounts:
    """The counts, or an InputError where there is nothing to tell apart."""
    present = [name for name, pixels in zip(counts.class_names, counts.pixels, strict=True) if pixels]
    if len(present) < 2:
        raise InputError(
            f"{present[0] if present else 'no class'} alone has pixels, of {some_of(counts.class_names)} "
            f"({counts.ignored_pixels:,} pixels are ignored)",
            f"check the ids in the masks: where they are 0 and 255, {cure_of_black_and_white(counts.class_names)}",
            where=f"{counts.dataset} {counts.split}".strip() or "labels",
        )
    return counts


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Where counts are kept between runs: ``$SEGLOSS_CACHE``, else ``segloss`` in the user's cache folder."""
    if os.environ.get("SEGLOSS_CACHE"):
        return Path(os.environ["SEGLOSS_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segloss"


def image_histograms(
    dataset: "SegmentationDataset", *, workers: int | None = None, progress: Progress | None = None
) -> tuple[Tensor, str]:
    """As :func:`count_images`, from the user's cache where no mask has changed since.

    Returns:
        The histograms, and where they came from: a path, or ``"counted"``.
    """
    fits = (len(dataset), len(dataset.classes) + 1)

    def count() -> "np.ndarray[Any, Any]":
        found: np.ndarray[Any, Any] = count_images(dataset, workers=workers, progress=progress).numpy()
        return found

    histograms, source = kept_array("counts", dataset.fingerprint(), fits, np.dtype(np.int64), count)
    return torch.from_numpy(histograms), source


def kept_array(
    kind: str,
    fingerprint: str,
    shape: tuple[int, ...],
    dtype: "np.dtype[Any]",
    count: Callable[[], "np.ndarray[Any, Any]"],
) -> tuple["np.ndarray[Any, Any]", str]:
    """What was counted of the files of this fingerprint, from the user's cache, or else counted and kept there.

    Of the processes of a job the first looks into its cache and writes there.

    Returns:
        The array, and where it came from: a path, or ``"counted"``.
    """
    path = cache_folder() / f"{kind}-{fingerprint[:32]}.npz"

    def saved() -> "np.ndarray[Any, Any] | None":
        with suppress(Exception), np.load(path, allow_pickle=False) as content:
            found: np.ndarray[Any, Any] = content["histograms"]
            if (str(content["fingerprint"]), found.dtype, found.shape) == (fingerprint, dtype, shape):
                return found
        return None

    found = here().from_first(saved)
    if found is not None:
        return found, str(path)
    counted = count()
    if here().rank == 0:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, fingerprint=fingerprint, histograms=counted)
        with suppress(OSError):  # a cache that cannot be written costs a recount, nothing else
            write_bytes(path, buffer.getvalue())
    return counted, "counted"


def load_or_count(
    dataset: "SegmentationDataset",
    *,
    run_folder: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[PixelCounts, str]:
    """Saved counts whose fingerprint still fits (run folder first, then the user's cache), else count and save.

    Returns:
        The counts, and where they came from: a path, or ``"counted"``.
    """
    saved = None if run_folder is None else run_folder / "pixel_counts.json"
    if saved is not None and saved.is_file():
        with suppress(InputError):
            counts = PixelCounts.load(saved)
            if counts.fingerprint == dataset.fingerprint():
                return counts, str(saved)
    histograms, source = image_histograms(dataset, workers=workers, progress=progress)
    return counts_of(dataset, histograms), source
