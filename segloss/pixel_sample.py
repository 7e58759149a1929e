"""A bounded, repeatable sample of a data set's posteriors, so that a network runs once for every fit on them."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from segloss.losses.checks import check_tensor
from segloss.losses.labels import as_map, check_class_ids, ignore_index_of, ignored_label

Batch = Tensor | tuple[Tensor, Tensor]
Source = Tensor | Iterable[Batch] | Callable[[], Iterable[Batch]]

BLOCK_VALUES = 2**17  # 512 KiB of float32: a block and its temporaries stay in a core's cache


class PixelSample:
    """Posteriors, and labels where given, of at most ``max_mib`` of pixels, however many images are fed.

    A pixel is kept by a hash of its place in the stream: all at first, then one in two, in four ..., always the
    highest rate that fits. What is held therefore depends on the images and their order alone, not on how they were
    batched or on chance. Arithmetic that follows is on the CPU; only kept pixels leave the posterior's device.

    >>> sample = PixelSample()
    >>> sample.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 255]))
    >>> sample.posterior, sample.labels
    (tensor([[0.9000, 0.1000]]), tensor([0]))

    Args:
        ignore_index: pixels with this label are left out; auto: 255, or 65535 where 255 is a class. Without labels
            every pixel counts.
        pixel_stride: of rows and columns (every spatial dim), only each so many-th is looked at.
        max_mib: bound of the posteriors held, in MiB at 4 bytes a value; 256 is 6.1 M pixels of 11 classes or
            0.45 M of 150. Labels and hashes add 16 bytes a pixel.

    Attributes:
        seen: pixels that were looked at and not ignored.
        level: one pixel in ``2 ** level`` is kept.
    """

    def __init__(self, *, ignore_index: int | str | None = "auto", pixel_stride: int = 1, max_mib: float = 256):
        if pixel_stride < 1:
            raise ValueError(f"pixel_stride must be at least 1, got {pixel_stride}")
        if not max_mib > 0:
            raise ValueError(f"max_mib must be positive, got {max_mib}")
        ignored_label(ignore_index_of(2, ignore_index))
        self.ignore_index, self.pixel_stride, self.max_mib = ignore_index, pixel_stride, max_mib
        self.seen = self.level = self.pixels = self._place = 0
        self._held = torch.empty(0, 0, dtype=torch.float32, device="cpu")
        self._hashes = torch.empty(0, dtype=torch.int64, device="cpu")
        self._labels: Tensor | None = None

    @classmethod
    def of(cls, source: Source, labels: Tensor | None = None, **options: Any) -> "PixelSample":
        """Of one posterior ``(N, C, *)`` and its labels, or of an iterable, or a callable that returns one, of
        posteriors or pairs (posterior, labels), arrays too; ``options`` as above. Raises as :meth:`update`."""
        sample = cls(**options)
        if isinstance(source, Tensor) or _is_array(source):
            sample.update(as_map(source), None if labels is None else as_map(labels))
            return sample
        if labels is not None:
            raise ValueError("labels go with a posterior tensor; let an iterable source yield pairs instead")
        for batch in source() if callable(source) else source:
            sample.update(*([batch] if isinstance(batch, Tensor) or _is_array(batch) else batch))
        return sample

    @torch.no_grad()
    def update(self, posterior: Tensor, labels: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            posterior: P(c|x), shape ``(N, C, *)``, any floating dtype and device; kept as float32. Arrays too.
            labels: class ids ``(N, *)``, integer, or None; all batches have them or none has.

        Raises:
            TypeError: a dtype does not fit.
            ValueError: a shape does not fit, a label is outside ``[0, C)`` and not ignored, or a pixel that is
                looked at and not ignored has NaN, a negative value or a sum that is not 1.
        """
        posterior = as_map(posterior) if _is_array(posterior) else posterior
        labels = as_map(labels) if _is_array(labels) else labels
        _check_shapes(posterior, labels)
        if not self._held.numel():
            capacity = max(1, int(self.max_mib * 2**20) // (4 * posterior.shape[1]))
            with torch.inference_mode(False):  # what is made in that mode cannot be written to outside
                # The system maps pages as they are written.
                self._held = self._held.new_empty(posterior.shape[1], capacity)
                self._hashes = self._hashes.new_empty(capacity)
                self._labels = None if labels is None else torch.empty_like(self._hashes)
        if posterior.shape[1] != len(self._held):
            raise ValueError(f"posterior must have {len(self._held)} classes as before, got {posterior.shape[1]}")
        if (labels is None) != (self._labels is None):
            raise ValueError("labels must come with every batch or with none; feed the two kinds to two samples")
        strided = [slice(min(self.pixel_stride, size) // 2, None, self.pixel_stride) for size in posterior.shape[2:]]
        looked_at = (slice(None), slice(None), *strided)
        posterior = posterior[looked_at]
        valid = torch.ones_like(posterior[:, 0], dtype=torch.bool)
        if labels is not None:
            labels = labels[looked_at[1:]].to(posterior.device).long()
            valid = labels != ignored_label(ignore_index_of(posterior.shape[1], self.ignore_index))
        _check_values(posterior, labels, valid)
        self.seen += int(valid.sum())
        hashes = _scattered(torch.arange(self._place, self._place + valid.numel(), device=valid.device))
        self._place += valid.numel()
        kept = valid.flatten() & self._passes(hashes)
        columns = posterior.movedim(1, 0).flatten(1)[:, kept].float().cpu()
        self._append(columns, hashes[kept].cpu(), None if labels is None else labels.flatten()[kept].cpu())

    def _passes(self, hashes: Tensor) -> Tensor:
        return (hashes & ((1 << self.level) - 1)) == 0

    def coarse(self, pixels: int) -> "PixelSample":
        """This sample, or where it holds more than ``pixels`` a copy at the highest rate that gives no more."""
        if self.pixels <= pixels:
            return self
        other, hashes = copy.copy(self), self._hashes[: self.pixels]
        while other.pixels > pixels:
            other.level += 1
            other.pixels = int(other._passes(hashes).sum())
        stays = other._passes(hashes).nonzero()[:, 0]
        other._held, other._hashes = self._held[:, : self.pixels][:, stays], hashes[stays]
        other._labels = None if self._labels is None else self._labels[stays]
        return other

    def _append(self, columns: Tensor, hashes: Tensor, labels: Tensor | None) -> None:
        """Put new pixels behind the held ones; lower the rate first until all fit."""
        held, old, new = self.pixels, self._hashes[: self.pixels], torch.ones_like(hashes, dtype=torch.bool)
        rate = self.level
        while held + int(new.sum()) > len(self._hashes):
            self.level += 1
            new = self._passes(hashes)
            held = int(self._passes(old).sum())
        stays = self._passes(old).nonzero()[:, 0] if self.level > rate else None
        end = held + int(new.sum())
        pairs = [*zip(self._held, columns, strict=True), (self._hashes, hashes)]
        if self._labels is not None and labels is not None:
            pairs.append((self._labels, labels))
        for row, added in pairs:
            if stays is not None:
                row[:held] = row[: self.pixels][stays]
            row[held:end] = added if len(added) == end - held else added[new]
        self.pixels = end

    @property
    def posterior(self) -> Tensor:
        """``(pixels, C)`` float32, a view whose memory runs along the pixels of one class."""
        return self._held[:, : self.pixels].T

    @property
    def labels(self) -> Tensor | None:
        """``(pixels,)`` int64, or None."""
        return None if self._labels is None else self._labels[: self.pixels]

    def map(self, function: Callable[[Tensor], Tensor]) -> "PixelSample":
        """The same pixels with ``function`` of their posteriors ``(n, C)``, such as :meth:`Calibration.apply`."""
        other = copy.copy(self)
        other._held, other._hashes = torch.empty_like(self._held), self._hashes.clone()
        other._labels = None if self._labels is None else self._labels.clone()
        start = 0
        for block, _ in blocks(self.posterior):
            changed = function(block.T)
            other._held[:, start : start + len(changed)] = changed.T
            start += len(changed)
        return other


def blocks(posterior: Tensor, labels: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Cache-sized pieces ``(C, n)`` and ``(n,)`` of a posterior ``(pixels, C)`` and its labels (none: empty)."""
    labels = posterior.new_empty(0, dtype=torch.int64) if labels is None else labels
    size = max(256, BLOCK_VALUES // posterior.shape[1])
    for start in range(0, len(posterior), size):
        yield posterior[start : start + size].T, labels[start : start + size]


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array_interface__")


def _scattered(places: Tensor) -> Tensor:
    """A hash in [0, 2^32) whose low bits are as good as random: T. Mueller's; no product leaves int64."""
    mixed = places & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed >> 16) ^ mixed) * 0x45D9F3B & 0xFFFFFFFF
    return (mixed >> 16) ^ mixed


def _check_shapes(posterior: Tensor, labels: Tensor | None) -> None:
    if not isinstance(posterior, Tensor) or not posterior.is_floating_point():
        found = posterior.dtype if isinstance(posterior, Tensor) else type(posterior).__name__
        raise TypeError(f"posterior must be a floating-point tensor, got {found}")
    if posterior.ndim < 2 or posterior.shape[1] < 2:
        raise ValueError(
            f"posterior must have shape (N, C, *) with at least two classes, got {tuple(posterior.shape)}; "
            "a binary problem has two, background and foreground"
        )
    if labels is None:
        return
    check_tensor("labels", labels)
    check_class_ids("labels", labels)
    expected = (len(posterior), *posterior.shape[2:])
    if tuple(labels.shape) != expected:
        raise ValueError(
            f"labels must have shape {expected} to match posterior {tuple(posterior.shape)}, got "
            f"{tuple(labels.shape)}; interpolate the scores to the labels' size first"
        )


def _check_values(posterior: Tensor, labels: Tensor | None, valid: Tensor) -> None:
    num_classes = posterior.shape[1]
    total = posterior.sum(1, dtype=torch.float32)
    # bfloat16 rounds by 0.4 % at most, and a sum of rounded values is off by no more.
    fits = ((total - 1).abs() < 0.01) & (posterior.amin(1) >= 0)
    if not bool(fits[valid].all()):
        wrong = (valid & ~fits).nonzero()[0].tolist()
        values = posterior.movedim(1, -1)[tuple(wrong)].float()
        if bool(values.isnan().any()):
            raise ValueError("posterior must be finite, got NaN; the network's scores are broken, or its input is")
        raise ValueError(
            f"posterior must be >= 0 and sum to 1 over dim 1, got a pixel of sum {float(values.sum()):.4g} and "
            f"smallest value {float(values.min()):.4g}; turn scores into criterion.posterior(logits) first"
        )
    if labels is not None:
        stray = labels[valid & ((labels < 0) | (labels >= num_classes))]
        if len(stray):
            raise ValueError(f"labels hold {int(stray[0])}, outside [0, {num_classes}); map or ignore it")
