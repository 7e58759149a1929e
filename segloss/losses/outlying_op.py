"""The operator behind ``outlying_mse_loss``: value and gradient in one pass, nothing label-sized times C kept.

On CUDA the kernels of ``outlying_triton`` do the work. Elsewhere the labels' grid is cut into bands that stay in the
cache: read the logits of a band (or interpolate them), subtract the label, write the gradient, square, add up. On CPU
one pass makes both value and gradient, and the backward pass only hands the gradient over. CUDA, half precision and
compiled graphs recompute the residual in the backward pass instead, so that nothing is kept in between and a
GradScaler's factor is applied before the gradient is rounded. As ``torch.library`` operators value and gradient are
one node each in a compiled graph.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.losses.interpolation import BilinearRows
from segloss.losses.reduction import valid_pixels, wide_dtype, working_dtype

BAND_ELEMENTS = 2**21  # 8 MiB of float32: outweighs its eight kernel calls, and the last-level cache holds it
GPU_BANDS = 16  # times as large there: a launch costs more
LABELS_AT_ONCE = 2**18
NORM_ELEMENTS = 2**10  # added up in float32


def _bands(labels: Tensor, num_classes: int) -> Iterator[tuple[slice, slice]]:
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


class _Pixels:
    """Labels and weights of the whole batch, all with a sample and a row dimension."""

    def __init__(
        self, labels: Tensor, weight: Tensor | None, pixel_weight: Tensor | None, num_classes: int, ignore_index: int
    ):
        self.labels, self.weight, self.pixel_weight = labels, weight, pixel_weight
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
        for samples, rows in _bands(self.labels, max(1, BAND_ELEMENTS // LABELS_AT_ONCE)):
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


def _banded_pass(
    logits: Tensor,
    pixels: _Pixels,
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
    for samples, rows in _bands(labels, logits.shape[1]):
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
    total = torch.linalg.vector_norm(residual[..., whole:], dim=2).to(dtype).square_().sum()
    if whole:
        pieces = residual[..., :whole].unflatten(2, (-1, NORM_ELEMENTS))
        total += torch.linalg.vector_norm(pieces, dim=3).to(dtype).square_().sum()
    return total


class _Grid:
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

    def pixels(self, tensor: Tensor) -> Tensor:
        """Labels, weights or factors ``(N, *)``, or a scalar."""
        if tensor.ndim == 1:
            return tensor.unsqueeze(0)
        return tensor.flatten(1) if self.flat and tensor.ndim else tensor


def _pixels_of(
    grid: _Grid, logits: Tensor, labels: Tensor, weight: Tensor | None, pixel_weight: Tensor | None, ignore: int
) -> _Pixels:
    if pixel_weight is not None:
        pixel_weight = grid.pixels(pixel_weight)
    return _Pixels(grid.pixels(labels), weight, pixel_weight, logits.shape[1], ignore)


def _divisor(weight_sum: Tensor, num_classes: int, reduction: str) -> Tensor:
    """What the sum is divided by: C times the sum of weights, 1 for ``"sum"``, C for ``"none"``; never 0."""
    if reduction == "mean":
        return torch.where(weight_sum > 0, weight_sum, 1) * num_classes
    return torch.full_like(weight_sum, num_classes if reduction == "none" else 1)


def _kernels(logits: Tensor, align_corners: bool | None) -> ModuleType | None:
    """The Triton kernels, where they apply."""
    if logits.device.type != "cuda" or align_corners is not None:
        return None
    try:
        from segloss.losses import outlying_triton
    except ImportError:  # no Triton, for instance on Windows
        return None
    return outlying_triton if outlying_triton.usable(logits.device) else None


def _value(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
    reduction: str,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss and its divisor; ``gradient``, if given, becomes that of the value (not for ``"none"``)."""
    dtype, per_pixel = working_dtype(logits), reduction == "none"
    grid = _Grid(logits, align_corners)
    images, pixels = grid.logits(logits), _pixels_of(grid, logits, labels, weight, pixel_weight, ignore_index)
    kernels = None if gradient is not None else _kernels(logits, align_corners)
    if kernels:
        value, weight_sum = kernels.value_sums(
            images, pixels.labels, label_values, weight, pixels.pixel_weight, ignore_index, per_pixel
        )
        divisor = _divisor(weight_sum, pixels.num_classes, reduction)
    else:
        divisor = _divisor(pixels.weight_sum(dtype), pixels.num_classes, reduction)
        value = torch.empty(pixels.labels.shape, dtype=dtype, device=logits.device) if per_pixel else divisor * 0
        if gradient is not None:
            gradient = grid.logits(gradient)
        factor = (2 / divisor).to(dtype)
        _banded_pass(images, pixels, label_values, align_corners, value=value, gradient=gradient, factor=factor)
    return (value / divisor).to(dtype).view(labels.shape if per_pixel else ()), divisor


def _gradient(
    grad: Tensor,
    divisor: Tensor,
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
) -> Tensor:
    """2 grad w (z - teacher) / divisor, in the logits' dtype and memory layout; ``grad`` is a scalar or ``(N, *)``."""
    dtype = working_dtype(logits)
    # An upsampled gradient is added up over bands, which half precision would round each time.
    result = torch.empty_like(logits) if align_corners is None else torch.zeros_like(logits, dtype=dtype)
    grid = _Grid(logits, align_corners)
    images, gradient = grid.logits(logits), grid.logits(result)
    pixels = _pixels_of(grid, logits, labels, weight, pixel_weight, ignore_index)
    factor = grid.pixels((2 * grad / divisor).to(dtype))
    if kernels := _kernels(logits, align_corners):
        kernels.write_gradient(
            gradient, images, pixels.labels, label_values, weight, pixels.pixel_weight, factor, ignore_index
        )
    else:
        _banded_pass(images, pixels, label_values, align_corners, gradient=gradient, factor=factor)
    return result.to(logits.dtype)


# One node each in a compiled graph.
_value_op = torch.library.custom_op(
    "segloss::outlying_mse",
    _value,
    mutates_args=(),
    schema="(Tensor logits, Tensor labels, Tensor label_values, Tensor? weight, Tensor? pixel_weight, "
    "bool? align_corners, int ignore_index, str reduction) -> (Tensor, Tensor)",
)
_gradient_op = torch.library.custom_op(
    "segloss::outlying_mse_grad",
    _gradient,
    mutates_args=(),
    schema="(Tensor grad, Tensor divisor, Tensor logits, Tensor labels, Tensor label_values, Tensor? weight, "
    "Tensor? pixel_weight, bool? align_corners, int ignore_index) -> Tensor",
)


@_value_op.register_fake
def _(logits, labels, label_values, weight, pixel_weight, align_corners, ignore_index, reduction):
    dtype = working_dtype(logits)
    value = torch.empty(labels.shape if reduction == "none" else (), dtype=dtype, device=logits.device)
    return value, torch.empty((), dtype=wide_dtype(logits.device, dtype), device=logits.device)


@_gradient_op.register_fake
def _(grad, divisor, logits, labels, label_values, weight, pixel_weight, align_corners, ignore_index):
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.align_corners, ctx.ignore_index, _ = inputs
    ctx.save_for_backward(output[1], *tensors)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple:
    return _gradient_op(grad, *ctx.saved_tensors, ctx.align_corners, ctx.ignore_index), *[None] * 7


_value_op.register_autograd(_backward, setup_context=_setup_context)


def _differentiable_value(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
    divisor: Tensor,
) -> Tensor:
    """The loss per pixel, ``(N, *)``, over the divisor, in plain operations that can be differentiated twice."""
    scores = logits.to(working_dtype(logits))
    if align_corners is not None:
        scores = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    hot = label_values.to(scores)[safe].unsqueeze(1)
    residual = scores.scatter_add(1, safe.unsqueeze(1), -hot)
    per_pixel = torch.where(valid.unsqueeze(1), residual, 0).square().sum(1)
    if weight is not None:
        per_pixel = per_pixel * weight.to(scores)[safe]
    if pixel_weight is not None:
        per_pixel = per_pixel * torch.where(valid, pixel_weight.to(scores), 0)
    return per_pixel / divisor.to(scores)


class _OutlyingMSE(torch.autograd.Function):
    """The same in eager mode. With ``one_pass`` value and gradient are made together, and backward hands it over."""

    @staticmethod
    def forward(
        one_pass: bool,
        logits: Tensor,
        labels: Tensor,
        label_values: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        align_corners: bool | None,
        ignore_index: int,
        reduction: str,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        gradient = None
        if one_pass:
            make = torch.empty_like if align_corners is None else torch.zeros_like
            gradient = make(logits, dtype=working_dtype(logits))
        value, divisor = _value(
            logits, labels, label_values, weight, pixel_weight, align_corners, ignore_index, reduction, gradient
        )
        return value, divisor, gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor | None]) -> None:
        _setup_context(ctx, inputs[1:], output[:2])
        ctx.per_pixel = inputs[-1] == "none"
        ctx.mark_non_differentiable(*(tensor for tensor in output[1:] if tensor is not None))
        ctx.set_materialize_grads(False)
        ctx.gradient = output[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple:
        if grad is None:
            return (None,) * 9
        divisor, logits, labels, label_values, weight, pixel_weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: a second derivative will be asked for
            with torch.enable_grad():
                value = _differentiable_value(
                    logits, labels, label_values, weight, pixel_weight, ctx.align_corners, ctx.ignore_index, divisor
                )
                value = value if ctx.per_pixel else value.sum()
                (gradient,) = torch.autograd.grad(value, logits, grad.to(value.dtype), create_graph=True)
            return None, gradient, *[None] * 7
        # Handed over once: whoever gets it may change it in place. A retained graph makes its own the second time.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = _gradient(
                grad, divisor, logits, labels, label_values, weight, pixel_weight, ctx.align_corners, ctx.ignore_index
            )
        elif grad.device.type != "cpu" or float(grad) != 1:
            gradient.mul_(grad)
        return None, gradient.to(logits.dtype), *[None] * 7


def outlying_mse(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """The loss of checked inputs; ``align_corners`` None means that logits and labels have one size."""
    inputs = (logits, labels, label_values, weight, pixel_weight, align_corners, ignore_index, reduction)
    if torch.compiler.is_compiling():
        return _value_op(*inputs)[0]
    one_pass = (
        torch.is_grad_enabled()
        and logits.requires_grad
        and reduction != "none"
        # Where the gradient is as large as the logits it is made early only if that is exact and saves a pass.
        and (align_corners is not None or (logits.device.type == "cpu" and working_dtype(logits) == logits.dtype))
    )
    return _OutlyingMSE.apply(one_pass, *inputs)[0]
