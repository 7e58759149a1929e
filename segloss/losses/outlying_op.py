"""The operator behind ``outlying_mse_loss``: its sum and gradient in one pass each, nothing label-sized times C kept.

The logits are read in bands that stay in the cache: copy, subtract the label, square, add up. The backward pass
recomputes the residual from the logits and writes the gradient, so nothing but the logits lives in between, and a
GradScaler's factor is applied before the gradient is rounded to half precision. As ``torch.library`` operators they
are one node each in a compiled graph.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from segloss.losses.reduction import valid_pixels, working_dtype

BAND_ELEMENTS = 2**20  # 4 MiB of float32: small enough for the caches, large enough for its dozen kernel calls


def _as_images(logits: Tensor, labels: Tensor, pixel_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """``(N, C)`` seen as one image of N pixels, so that it is cut into bands too; everything else as it is."""
    if logits.ndim > 2:
        return logits, labels, pixel_weight
    return logits.t().unsqueeze(0), labels.unsqueeze(0), None if pixel_weight is None else pixel_weight.unsqueeze(0)


def _bands(logits: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of samples and of rows (dim 2) that cut the logits into bands; off the CPU one band is all."""
    samples, rows = logits.shape[0], logits.shape[2]
    per_sample = max(1, logits.numel() // max(1, samples))
    if logits.device.type != "cpu" or logits.numel() <= BAND_ELEMENTS:
        yield slice(0, samples), slice(0, rows)
    elif per_sample <= BAND_ELEMENTS:
        step = BAND_ELEMENTS // per_sample
        for start in range(0, samples, step):
            yield slice(start, start + step), slice(0, rows)
    else:
        step = max(1, BAND_ELEMENTS * rows // per_sample)
        for sample in range(samples):
            for start in range(0, rows, step):
                yield slice(sample, sample + 1), slice(start, start + step)


def _residual_(
    out: Tensor, logits: Tensor, labels: Tensor, minus_values: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Write z - teacher into ``out (n, C, P)``, 0 where ignored; returns ``valid`` and ``safe`` labels ``(n, P)``."""
    valid, safe = valid_pixels(labels.flatten(1), logits.shape[1], ignore_index)
    out.view(logits.shape).copy_(logits)
    # The label is subtracted before squaring: z^2 - 2tz + t^2 cancels near the optimum.
    subtrahend = minus_values.index_select(0, safe.view(-1)).view(safe.shape)
    out.scatter_add_(1, safe.unsqueeze(1), subtrahend.unsqueeze(1))
    # Filled, not multiplied by 0: a NaN score at an ignored pixel stays out of loss and gradient.
    if len(out) == 1 and out.device.type == "cpu":  # several times faster than a mask where few are ignored
        out.index_fill_(2, valid.logical_not().view(-1).nonzero().view(-1), 0)
    else:
        out.masked_fill_(valid.logical_not().unsqueeze(1), 0)
    return valid, safe


def _pixel_weights(
    valid: Tensor, safe: Tensor, weight: Tensor | None, pixel_weight: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """Class weight times the pixel's own, 0 where ignored, ``(n, P)``; None where neither is given."""
    if weight is None and pixel_weight is None:
        return None
    product = torch.ones((), dtype=dtype, device=valid.device)
    if weight is not None:
        product = product * weight.to(dtype)[safe]
    if pixel_weight is not None:
        product = product * pixel_weight.flatten(1).to(dtype)
    return torch.where(valid, product, 0)


class _Scratch:
    """One band of working memory, made once for all bands of a shape."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.memory: Tensor | None = None

    def like(self, band: Tensor) -> Tensor:
        shape = (band.shape[0], band.shape[1], math.prod(band.shape[2:]))
        if self.memory is None or self.memory.shape != shape:
            self.memory = torch.empty(shape, dtype=self.dtype, device=band.device)
        return self.memory


@torch.library.custom_op("segloss::outlying_mse_sum", mutates_args=())
def outlying_mse_sum(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    per_pixel: bool,
) -> tuple[Tensor, Tensor]:
    """Sum over classes of w (z - teacher)^2: over all pixels, or of each ``(N, *)``; and the sum of w.

    w is the class weight times the pixel weight, 1 where not given, so that their sum is the number of valid pixels.
    Partial sums are float32 over one band, added up in float64.
    """
    dtype = working_dtype(logits)
    wide = dtype if logits.device.type == "mps" else torch.float64
    minus_values = -label_values.to(dtype)
    total = torch.zeros((), dtype=wide, device=logits.device)
    weight_sum = torch.zeros((), dtype=wide, device=logits.device)
    result = torch.empty(labels.shape if per_pixel else (), dtype=dtype, device=logits.device)
    pixels = result.unsqueeze(0) if logits.ndim == 2 else result
    images, image_labels, image_weights = _as_images(logits, labels, pixel_weight)
    scratch = _Scratch(dtype)
    for samples, rows in _bands(images):
        band = images[samples, :, rows]
        residual = scratch.like(band)
        valid, safe = _residual_(residual, band, image_labels[samples, rows], minus_values, ignore_index)
        band_weight = None if image_weights is None else image_weights[samples, rows]
        weights = _pixel_weights(valid, safe, weight, band_weight, dtype)
        squares = residual.mul_(residual)
        if per_pixel or weights is not None:
            squares = squares.sum(1) if weights is None else squares.sum(1) * weights
        if per_pixel:
            target = pixels[samples, rows]
            target.copy_(squares.view(target.shape))
        else:
            total += squares.sum()
        weight_sum += (valid if weights is None else weights).sum()
    return (result if per_pixel else total.to(dtype)), weight_sum


@torch.library.custom_op("segloss::outlying_mse_grad", mutates_args=())
def outlying_mse_grad(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
) -> Tensor:
    """2 grad w (z - teacher), in the logits' dtype and memory layout; ``grad`` is a scalar or ``(N, *)``."""
    dtype = working_dtype(logits)
    minus_values = -label_values.to(dtype)
    factor = 2 * grad.to(dtype)
    if factor.ndim and logits.ndim == 2:
        factor = factor.unsqueeze(0)
    result = torch.empty_like(logits)
    plain = result.is_contiguous() or (result.ndim == 4 and result.is_contiguous(memory_format=torch.channels_last))
    in_place = plain and result.dtype == dtype
    images, image_labels, image_weights = _as_images(logits, labels, pixel_weight)
    gradients, _, _ = _as_images(result, labels, None)
    scratch = _Scratch(dtype)
    for samples, rows in _bands(images):
        band, target = images[samples, :, rows], gradients[samples, :, rows]
        residual = target.view(len(target), target.shape[1], -1) if in_place else scratch.like(band)
        valid, safe = _residual_(residual, band, image_labels[samples, rows], minus_values, ignore_index)
        band_weight = None if image_weights is None else image_weights[samples, rows]
        weights = _pixel_weights(valid, safe, weight, band_weight, dtype)
        band_factor = factor if factor.ndim == 0 else factor[samples, rows].flatten(1)
        band_factor = band_factor if weights is None else band_factor * weights
        residual.mul_(band_factor if band_factor.ndim == 0 else band_factor.unsqueeze(1))
        if not in_place:
            target.copy_(residual.view(target.shape))
    return result


@outlying_mse_sum.register_fake
def _(logits, labels, label_values, weight, pixel_weight, ignore_index, per_pixel):
    value = torch.empty(labels.shape if per_pixel else (), dtype=working_dtype(logits), device=logits.device)
    wide = value.dtype if logits.device.type == "mps" else torch.float64
    return value, torch.empty((), dtype=wide, device=logits.device)


@outlying_mse_grad.register_fake
def _(grad, logits, labels, label_values, weight, pixel_weight, ignore_index):
    return torch.empty_like(logits)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.ignore_index, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_value: Tensor, grad_weight_sum: Tensor):
    return outlying_mse_grad(grad_value, *ctx.saved_tensors, ctx.ignore_index), *[None] * 6


outlying_mse_sum.register_autograd(_backward, setup_context=_setup_context)
