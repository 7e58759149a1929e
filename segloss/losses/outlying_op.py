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


def _as_images(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, C)`` seen as one image of N pixels, so that it is cut into bands too; everything else as it is."""
    return (logits.t().unsqueeze(0), labels.unsqueeze(0)) if logits.ndim == 2 else (logits, labels)


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


def _residual_(out: Tensor, logits: Tensor, labels: Tensor, minus_values: Tensor, ignore_index: int) -> Tensor:
    """Write z - teacher into ``out (n, C, P)``, 0 at ignored pixels; returns which pixels count, ``(n, P)``."""
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
    return valid


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
    logits: Tensor, labels: Tensor, label_values: Tensor, ignore_index: int, per_pixel: bool
) -> tuple[Tensor, Tensor]:
    """Sum over classes of (z - teacher)^2: over all pixels, or of each ``(N, *)``; and the number of valid pixels.

    Partial sums are float32 over one band, added up in float64.
    """
    dtype = working_dtype(logits)
    wide = dtype if logits.device.type == "mps" else torch.float64
    minus_values = -label_values.to(dtype)
    total = torch.zeros((), dtype=wide, device=logits.device)
    count = torch.zeros((), dtype=torch.int64, device=logits.device)
    result = torch.empty(labels.shape if per_pixel else (), dtype=dtype, device=logits.device)
    pixels = result.unsqueeze(0) if logits.ndim == 2 else result
    images, image_labels = _as_images(logits, labels)
    scratch = _Scratch(dtype)
    for samples, rows in _bands(images):
        band = images[samples, :, rows]
        residual = scratch.like(band)
        valid = _residual_(residual, band, image_labels[samples, rows], minus_values, ignore_index)
        residual.mul_(residual)
        if per_pixel:
            target = pixels[samples, rows]
            target.copy_(residual.sum(1).view(target.shape))
        else:
            total += residual.sum()
        count += valid.sum()
    return (result if per_pixel else total.to(dtype)), count


@torch.library.custom_op("segloss::outlying_mse_grad", mutates_args=())
def outlying_mse_grad(grad: Tensor, logits: Tensor, labels: Tensor, label_values: Tensor, ignore_index: int) -> Tensor:
    """2 grad (z - teacher), in the logits' dtype and memory layout; ``grad`` is a scalar or ``(N, *)``."""
    dtype = working_dtype(logits)
    minus_values = -label_values.to(dtype)
    factor = 2 * grad.to(dtype)
    if factor.ndim and logits.ndim == 2:
        factor = factor.unsqueeze(0)
    result = torch.empty_like(logits)
    plain = result.is_contiguous() or (result.ndim == 4 and result.is_contiguous(memory_format=torch.channels_last))
    in_place = plain and result.dtype == dtype
    images, image_labels = _as_images(logits, labels)
    gradients, _ = _as_images(result, labels)
    scratch = _Scratch(dtype)
    for samples, rows in _bands(images):
        band, target = images[samples, :, rows], gradients[samples, :, rows]
        residual = target.view(len(target), target.shape[1], -1) if in_place else scratch.like(band)
        _residual_(residual, band, image_labels[samples, rows], minus_values, ignore_index)
        residual.mul_(factor if factor.ndim == 0 else factor[samples, rows].flatten(1).unsqueeze(1))
        if not in_place:
            target.copy_(residual.view(target.shape))
    return result


@outlying_mse_sum.register_fake
def _(logits, labels, label_values, ignore_index, per_pixel):
    value = torch.empty(labels.shape if per_pixel else (), dtype=working_dtype(logits), device=logits.device)
    return value, torch.empty((), dtype=torch.int64, device=logits.device)


@outlying_mse_grad.register_fake
def _(grad, logits, labels, label_values, ignore_index):
    return torch.empty_like(logits)


def _setup_context(ctx, inputs, output) -> None:
    logits, labels, label_values, ignore_index, _ = inputs
    ctx.save_for_backward(logits, labels, label_values)
    ctx.ignore_index = ignore_index


def _backward(ctx, grad_value: Tensor, grad_count: Tensor):
    logits, labels, label_values = ctx.saved_tensors
    grad = outlying_mse_grad(grad_value, logits, labels, label_values, ctx.ignore_index)
    return grad, None, None, None, None


outlying_mse_sum.register_autograd(_backward, setup_context=_setup_context)
