"""The operator behind ``outlying_mse_loss``: value and gradient in one pass, nothing label-sized times C kept.

On CUDA the kernels of ``outlying_triton`` do the work, elsewhere the passes of ``bands``. On CPU one pass makes both
value and gradient, and the backward pass only hands the gradient over. CUDA, float16 and compiled graphs recompute the
residual in the backward pass instead, so that nothing is kept in between and a GradScaler's factor is applied before
the gradient is rounded; so does bfloat16 if such a factor arrives. As ``torch.library`` operators value and gradient
are one node each in a compiled graph.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.losses.bands import Grid, Pixels, banded_pass
from segloss.losses.memory import gradient_like
from segloss.losses.reduction import exact_sum, is_transformed, valid_pixels, weight_sum, wide_dtype, working_dtype

SMALL_ELEMENTS = 2**16  # of logits: below it calls cost more than memory, and plain operations are fewer


def _divisor(weights: Tensor, num_classes: int, reduction: str) -> Tensor:
    """What the sum is divided by: C times the sum of weights, 1 for ``"sum"``, C for ``"none"``; never 0."""
    if reduction == "mean":
        return torch.where(weights > 0, weights, 1) * num_classes
    return torch.full_like(weights, num_classes if reduction == "none" else 1)


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
    grid = Grid(logits, align_corners)
    images = grid.logits(logits)
    pixels = Pixels(grid, labels, weight, pixel_weight, logits.shape[1], ignore_index)
    kernels = None if gradient is not None else _kernels(logits, align_corners)
    if kernels:
        value, weights = kernels.value_sums(
            images, pixels.labels, label_values, weight, pixels.pixel_weight, ignore_index, per_pixel
        )
        divisor = _divisor(weights, pixels.num_classes, reduction)
    else:
        divisor = _divisor(pixels.weight_sum(dtype), pixels.num_classes, reduction)
        value = torch.empty(pixels.labels.shape, dtype=dtype, device=logits.device) if per_pixel else divisor * 0
        if gradient is not None:
            gradient = grid.logits(gradient)
        factor = (2 / divisor).to(dtype)
        banded_pass(images, pixels, label_values, align_corners, value=value, gradient=gradient, factor=factor)
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
    result = gradient_like(logits, logits.dtype) if align_corners is None else torch.zeros_like(logits, dtype=dtype)
    grid = Grid(logits, align_corners)
    images, gradient = grid.logits(logits), grid.logits(result)
    pixels = Pixels(grid, labels, weight, pixel_weight, logits.shape[1], ignore_index)
    factor = grid.per_pixel((2 * grad / divisor).to(dtype))
    if kernels := _kernels(logits, align_corners):
        kernels.write_gradient(
            gradient, images, pixels.labels, label_values, weight, pixels.pixel_weight, factor, ignore_index
        )
    else:
        banded_pass(images, pixels, label_values, align_corners, gradient=gradient, factor=factor)
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
def _(logits: Tensor, labels: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype, reduction = working_dtype(logits), rest[-1]
    value = torch.empty(labels.shape if reduction == "none" else (), dtype=dtype, device=logits.device)
    return value, torch.empty((), dtype=wide_dtype(logits.device, dtype), device=logits.device)


@_gradient_op.register_fake
def _(grad: Tensor, divisor: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.align_corners, ctx.ignore_index, _ = inputs
    ctx.save_for_backward(output[1], *tensors)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradient_op(grad, *ctx.saved_tensors, ctx.align_corners, ctx.ignore_index), *[None] * 7


_value_op.register_autograd(_backward, setup_context=_setup_context)


def _residual(
    logits: Tensor, labels: Tensor, label_values: Tensor, align_corners: bool | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """z - teacher ``(N, C, *)``, 0 where ignored, with ``valid`` and ``safe`` labels, in plain operations."""
    scores = logits.to(working_dtype(logits))
    if align_corners is not None:
        scores = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=align_corners)
    valid, safe = valid_pixels(labels, logits.shape[1], ignore_index)
    hot = label_values.to(scores)[safe].unsqueeze(1)
    residual = scores.scatter_add(1, safe.unsqueeze(1), -hot)
    return torch.where(valid.unsqueeze(1), residual, 0), valid, safe


def _pixel_weights(
    residual: Tensor, weight: Tensor | None, pixel_weight: Tensor | None, valid: Tensor, safe: Tensor
) -> Tensor | None:
    """Class weight times the pixel's own ``(N, *)``; not a number where it is ignored and its own is none."""
    product = None if weight is None else weight.to(residual)[safe]
    if pixel_weight is not None:
        own = torch.where(valid, pixel_weight.to(residual), 0)
        product = own if product is None else product * own
    return product


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
    residual, valid, safe = _residual(logits, labels, label_values, align_corners, ignore_index)
    per_pixel = residual.square().sum(1)
    weights = _pixel_weights(residual, weight, pixel_weight, valid, safe)
    return (per_pixel if weights is None else per_pixel * weights) / divisor.to(residual)


def _small_value(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
    reduction: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, divisor and gradient of few pixels, in as few calls as it takes."""
    residual, valid, safe = _residual(logits, labels, label_values, align_corners, ignore_index)
    weights = _pixel_weights(residual, weight, pixel_weight, valid, safe)
    wide = wide_dtype(logits.device, residual.dtype)
    total = valid.sum(dtype=wide) if weights is None else torch.where(valid, weights, 0).sum(dtype=wide)
    divisor = _divisor(total, logits.shape[1], reduction)
    squares, factor = residual.square().sum(1), (2 / divisor).to(residual.dtype)
    if weights is not None:
        squares, factor = squares * weights, (factor * weights).unsqueeze(1)
    value = squares.sum(dtype=wide) / divisor
    return value.to(residual.dtype), divisor, (residual * factor).to(logits.dtype)


def _plain_value(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    align_corners: bool | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """The loss in plain operations, which ``torch.func`` and forward-mode differentiation can follow."""
    divisor = _divisor(weight_sum(labels, weight, ignore_index, pixel_weight), logits.shape[1], reduction)
    value = _differentiable_value(
        logits, labels, label_values, weight, pixel_weight, align_corners, ignore_index, divisor
    )
    return value if reduction == "none" else exact_sum(value)


class _OutlyingMSE(torch.autograd.Function):
    """The same in eager mode. With ``one_pass`` value and gradient are made together, and backward hands it over."""

    # Without setup_context, whose signature is bound anew at each call; torch.func does not come here.
    @staticmethod
    def forward(ctx: Any, one_pass: bool, *inputs: Any) -> Tensor:
        logits, align_corners, reduction = inputs[0], inputs[-3], inputs[-1]
        gradient: Tensor | None = None
        few = logits.device.type == "cpu" and logits.numel() <= SMALL_ELEMENTS
        if few and align_corners is None and reduction != "none":
            value, divisor, made = _small_value(*inputs)
            gradient = made if one_pass else None  # the value is the same to the last bit
        else:
            if one_pass and align_corners is None:
                gradient = gradient_like(logits, logits.dtype)
            elif one_pass:  # added up over bands, which half precision would round each time
                gradient = torch.zeros_like(logits, dtype=working_dtype(logits))
            value, divisor = _value(*(*inputs, gradient))
        _setup_context(ctx, inputs, (value, divisor))
        ctx.per_pixel, ctx.gradient = inputs[-1] == "none", gradient
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        divisor, logits, labels, label_values, weight, pixel_weight = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed(grad):  # a second derivative will be asked for, or several at once
            with torch.enable_grad():
                value = _differentiable_value(
                    logits, labels, label_values, weight, pixel_weight, ctx.align_corners, ctx.ignore_index, divisor
                )
                value = value if ctx.per_pixel else value.sum()
                (gradient,) = torch.autograd.grad(value, logits, grad.to(value.dtype), create_graph=True)
            return None, gradient, *[None] * 7
        # Handed over once: whoever gets it may change it in place. A retained graph makes its own the second time.
        gradient, ctx.gradient = ctx.gradient, None
        scaled = gradient is not None and (grad.device.type != "cpu" or float(grad) != 1)
        if gradient is None or (scaled and gradient.dtype != working_dtype(logits)):  # rounded once, not twice
            gradient = _gradient(
                grad, divisor, logits, labels, label_values, weight, pixel_weight, ctx.align_corners, ctx.ignore_index
            )
        elif scaled:
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
    if is_transformed(*inputs):
        return _plain_value(*inputs)
    if torch.compiler.is_compiling():
        compiled: Tensor = _value_op(*inputs)[0]
        return compiled
    one_pass = (
        torch.is_grad_enabled()
        and logits.requires_grad
        and reduction != "none"
        # Where the gradient is as large as the logits it is made early only if that is exact and saves a pass: in
        # float16 it would underflow before a GradScaler's factor arrives.
        and (align_corners is not None or (logits.device.type == "cpu" and logits.dtype != torch.float16))
    )
    value: Tensor = _OutlyingMSE.apply(one_pass, *inputs)
    return value
