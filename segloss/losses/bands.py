"""The squared error to outlying labels, a band of pixels at a time: what is neither CUDA nor generated code.

The labels' grid is cut into bands that stay in the cache: read the logits of a band (or interpolate them), subtract the
label, write the gradient, square, add up. Nothing of the size of the logits is kept besides the gradient.
"""

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from segloss.losses.interpolation import BilinearRows
from segloss.losses.labels import valid_pixels
from segloss.losses.reduction import wide_dtype, working_dtype

BAND_ELEMENTS = 2**21  # 8 MiB of float32: outweighs its eight kernel calls, and the last-level cache holds it
GPU_BANDS = 16  # times as large there: a launch costs more
LABELS_AT_ONCE = 2**18
NORM_ELEMENTS = 2**10  # added up in float32


def bands_of(labels: Tensor, num_classes: int) -> Iterator[tuple[slice, slice]]:
    """Slices of samples and rows (dims 0 and 1 of the labels) that cut the grid into bands of BAND_ELEMENTS."""
    most = BAND_ELEMENTS if labels.device.type == "cpu" else BAND_ELEMENTS * GPU_BANDS
    samples, rows = labels.shape[:2]
    per_sample = max(1, num_classes * math.prod(labels.shape[1:]))
    if per_sample <= most:
        step = most // per_sample
        for start in range(0, samples, step):
            yield slice(start, min(start + step, samples)), slice(0, rows)
    else:
        step = max(1, most * rows // per_sample)
        for sample in range(samples):
            for start in range(0, rows, step):
                yield slice(sample, sample + 1), slice(start, min(start + step, rows))


class Grid:
    """How tensors of any shape are seen so that they are cut into bands: their pixels as one dimension.

    ``(N, C)`` is one image of N pixels. Logits whose pixels cannot be one dimension without a copy keep theirs, and
    so do those that are interpolated by rows.
    """

    def __init__(self, logits: Tensor, align_corners: bool | None):
        self.flat = False
        if align_corners is None and logits.ndim > 3:
            with suppress(RuntimeError):  # no view
                logits.view(*logits.shape[:2], -1)
                self.flat = True

    def logits(self, tensor: Tensor) -> Tensor:
        """Logits or their gradient ``(N, C, *)``; always a view."""
        if tensor.ndim == 2:
            return tensor.t().unsqueeze(0)
        return tensor.view(*tensor.shape[:2], -1) if self.flat else tensor

    def per_pixel(self, tensor: Tensor) -> Tensor:
        """Labels, weights or factors ``(N, *)``, or a scalar."""
        if tensor.ndim == 1:
            return tensor.unsqueeze(0)
        return tensor.flatten(1) if self.flat and tensor.ndim else tensor


class _SameSize:
    """Logits that lie on the labels' own grid."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def read(self, samples: slice, rows: slice, out: Tensor) -> None:
        band = self.logits[samples, :, rows]
        out.view(band.shape).copy_(band)

    def write(self, gradient: Tensor, samples: slice, rows: slice, residual: Tensor, factor: Tensor) -> None:
        """Factor times the residual, as this band's part of the gradient."""
        target = gradient[samples, :, rows]
        factor = factor if factor.ndim == 0 else factor.view(len(factor), 1, *target.shape[2:])
        torch.mul(residual.view(target.shape), factor, out=target)


class _Upsampled:
    """Logits ``(N, C, h, w)`` read as if interpolated to the labels' grid, a band of rows at a time."""

    def __init__(self, logits: Tensor, size: torch.Size, align_corners: bool):
        self.logits = logits
        self.rows = BilinearRows(logits.shape[2:], size, align_corners, working_dtype(logits), logits.device)

    def read(self, samples: slice, rows: slice, out: Tensor) -> None:
        self.rows.interpolate(self.logits[samples], rows, out.view(*out.shape[:2], -1, self.rows.width))

    def write(self, gradient: Tensor, samples: slice, rows: slice, residual: Tensor, factor: Tensor) -> None:
        if factor.ndim:
            residual, factor = residual * factor.unsqueeze(1), factor.new_ones(())
        band = residual.view(*residual.shape[:2], -1, self.rows.width)
        self.rows.add_transposed(band, rows, gradient[samples], factor)


class Pixels:
    """Labels and weights of the whole batch, all with a sample and a row dimension."""

    def __init__(
        self,
        grid: Grid,
        labels: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        num_classes: int,
        ignore_index: int,
    ):
        self.labels, self.weight = grid.per_pixel(labels), weight
        self.pixel_weight = None if pixel_weight is None else grid.per_pixel(pixel_weight)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._chunk: tuple[slice, slice, Tensor, Tensor] | None = None

    def band(self, samples: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """``valid`` and ``safe`` labels ``(n, P)``, looked at in chunks of several bands: fewer, longer calls."""
        row_pixels = max(1, math.prod(self.labels.shape[2:]))
        chunk = self._chunk
        if chunk is None or chunk[0] != samples or not chunk[1].start <= rows.start < rows.stop <= chunk[1].stop:
            stop = max(rows.stop, min(self.labels.shape[1], rows.start + LABELS_AT_ONCE // row_pixels))
            labels = self.labels[samples, rows.start : stop].flatten(1)
            valid, safe = valid_pixels(labels, self.num_classes, self.ignore_index)
            self._chunk = chunk = samples, slice(rows.start, stop), valid, safe
        _, chunk_rows, valid, safe = chunk
        part = slice((rows.start - chunk_rows.start) * row_pixels, (rows.stop - chunk_rows.start) * row_pixels)
        return valid[:, part], safe[:, part]

    def weights(self, samples: slice, rows: slice, valid: Tensor, safe: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Class weight times the pixel's own, 0 where ignored, ``(n, P)``; None where neither is given."""
        product = None if self.weight is None else self.weight.to(dtype)[safe]
        if self.pixel_weight is not None:
            own = self.pixel_weight[samples, rows].flatten(1).to(dtype)
            product = own if product is None else product * own
        return None if product is None else torch.where(valid, product, 0)

    def weight_sum(self, dtype: torch.dtype) -> Tensor:
        """Sum of the weights, or number of valid pixels; 0-dim, float64 where the device has it."""
        total = torch.zeros((), dtype=wide_dtype(self.labels.device, dtype), device=self.labels.device)
        plain = self.weight is None and self.pixel_weight is None
        for samples, rows in bands_of(self.labels, max(1, BAND_ELEMENTS // LABELS_AT_ONCE)):
            if plain:
                total += (self.labels[samples, rows].long() != self.ignore_index).sum()
            elif (weights := self.weights(samples, rows, *self.band(samples, rows), dtype)) is not None:
                total += weights.sum()
        self._chunk = None  # the next pass begins at the first band again
        return total


def _subtract_labels_(residual: Tensor, valid: Tensor, safe: Tensor, minus_values: Tensor) -> None:
    """Scores ``(n, C, P)`` to z - teacher, in place; 0 where ignored."""
    # The label is subtracted before squaring: z^2 - 2tz + t^2 cancels near the optimum.
    subtrahend = minus_values.index_select(0, safe.view(-1)).view(safe.shape)
    residual.scatter_add_(1, safe.unsqueeze(1), subtrahend.unsqueeze(1))
    # Filled, not multiplied by 0: a NaN score at an ignored pixel stays out of loss and gradient.
    if len(residual) == 1 and residual.device.type == "cpu":  # several times faster than a mask where few are ignored
        residual.index_fill_(2, valid.logical_not().view(-1).nonzero().view(-1), 0)
    else:
        residual.masked_fill_(valid.logical_not().unsqueeze(1), 0)


def banded_pass(
    logits: Tensor,
    pixels: Pixels,
    label_values: Tensor,
    align_corners: bool | None,
    *,
    value: Tensor | None = None,
    gradient: Tensor | None = None,
    factor: Tensor | None = None,
) -> None:
    """Add w (z - teacher)^2 to ``value``, per pixel if that has pixels; write factor w (z - teacher) to ``gradient``.

    Partial sums are float32 over a part of a band, added up in the dtype of ``value``. ``factor`` is 0-dim or
    ``(N, *)``. Where the gradient can hold the residual, in its dtype and with one factor for all, no other memory is
    touched: most of the time of a step goes into reading and writing it.
    """
    dtype = working_dtype(logits)
    minus_values = -label_values.to(dtype)
    labels = pixels.labels
    source = _SameSize(logits) if align_corners is None else _Upsampled(logits, labels.shape[1:], align_corners)
    memory = torch.empty(0, dtype=dtype, device=logits.device)
    plain = pixels.weight is None and pixels.pixel_weight is None and align_corners is None
    fits = gradient is not None and gradient.ndim == 3 and gradient.dtype == dtype
    for samples, rows in bands_of(labels, logits.shape[1]):
        valid, safe = pixels.band(samples, rows)
        if plain and fits and gradient is not None and factor is not None and factor.ndim == 0:
            residual = gradient[samples, :, rows]
            source.read(samples, rows, residual)
            _subtract_labels_(residual, valid, safe, minus_values)
            if value is not None:
                value += _sum_of_squares(residual, value.dtype)
            residual.mul_(factor)
            continue
        shape = (len(valid), logits.shape[1], valid.shape[1])
        if memory.numel() < math.prod(shape):  # kept from band to band: fresh pages cost more than the arithmetic
            memory = torch.empty(math.prod(shape), dtype=dtype, device=logits.device)
        residual = memory[: math.prod(shape)].view(shape)
        source.read(samples, rows, residual)
        _subtract_labels_(residual, valid, safe, minus_values)
        weights = pixels.weights(samples, rows, valid, safe, dtype)
        if gradient is not None and factor is not None:
            scale = factor if factor.ndim == 0 else factor[samples, rows].flatten(1)
            source.write(gradient, samples, rows, residual, scale if weights is None else scale * weights)
        if value is not None:
            _add_squares_(value, samples, rows, residual, weights)


def _add_squares_(value: Tensor, samples: slice, rows: slice, residual: Tensor, weights: Tensor | None) -> None:
    """Add w residual^2 ``(n, C, P)`` of a band to ``value``, per pixel if that has pixels; the residual is used up."""
    if value.ndim == 0 and weights is None:
        value += _sum_of_squares(residual, value.dtype)
        return
    squares = residual.mul_(residual).sum(1)
    if weights is not None:
        squares *= weights
    if value.ndim:
        value[samples, rows] = squares.view(value[samples, rows].shape)
    else:
        value += squares.sum()


def _sum_of_squares(residual: Tensor, dtype: torch.dtype) -> Tensor:
    """Of ``(n, C, P)``, in one read: norms of short pieces, whose running sums stay exact, squared and added up."""
    whole = residual.shape[2] // NORM_ELEMENTS * NORM_ELEMENTS
    total: Tensor = torch.linalg.vector_norm(residual[..., whole:], dim=2).to(dtype).square_().sum()
    if whole:
        pieces = residual[..., :whole].view(*residual.shape[:2], -1, NORM_ELEMENTS)
        total += torch.linalg.vector_norm(pieces, dim=3).to(dtype).square_().sum()
    return total
