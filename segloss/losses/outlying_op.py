"""The operator behind ``outlying_mse_loss``: value and gradient in one pass, nothing label-sized times C kept.

On CUDA the kernels of ``outlying_triton`` do the work, elsewhere the passes of ``bands``. On CPU one pass makes both
value and gradient, and the backward pass only hands the gradient over; in float16, whose range is small, it is kept
larger by a power of two, taken out together with a GradScaler's factor. CUDA recomputes the residual in the backward
pass, so that nothing is kept in between; so does half precision in compiled graphs, and where the factor that arrives
would round the gradient a second time. As ``torch.library`` operators they are one node each of a graph; on CPU a
compiled graph multiplies the gradient, made early, in its own memory.
"""

import math
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss.losses.bands import Grid, Pixels, banded_pass
from segloss.losses.labels import valid_pixels
from segloss.losses.memory import gradient_like
from segloss.losses.reduction import exact_sum, weight_sum, wide_dtype, working_dtype
from segloss.losses.tracing import is_transformed

HALF_ELEMENTS = 2**18  # of float16 logits: fewer are not divided by as much as a GradScaler, from 2^16, multiplies by
SMALL_ELEMENTS = 2**16  # of logits: below it calls cost more than memory, and plain operations are fewer


class Inputs(NamedTuple):
    """Checked inputs of the loss, in the operators' order; ``align_corners`` None: logits and labels have one size."""

    logits: Tensor
    labels: Tensor
    label_values: Tensor
    weight: Tensor | None
    pixel_weight: Tensor | None
    align_corners: bool | None
    ignore_index: int
    reduction: str

    def pixels(self, grid: Grid) -> Pixels:
        return Pixels(grid, self.labels, self.weight, self.pixel_weight, self.logits.shape[1], self.ignore_index)


def _divisor(weights: Tensor, num_classes: int, reduction: str) -> Tensor:
    """What the sum is divided by: C times the sum of weights, 1 for ``"sum"``, C for ``"none"``; never 0."""
    if reduction == "mean":
        return torch.where(weights > 0, weights, 1) * num_classes
    return torch.full_like(weights, num_classes if reduction == "none" else 1)


def _enlarged(x: Inputs, divisor: Tensor) -> float:
    """The power of two by which a gradient made early is kept larger: in float16 the most that cannot overflow."""
    if x.logits.dtype != torch.float16 or x.align_corners is not None:
        return 1.0
    most = torch.finfo(torch.float16).max
    weight = 1.0 if x.weight is None else float(x.weight.max())
    largest = 2 / float(divisor) * weight * (most + float(x.label_values.max()))
    return 2.0 ** math.floor(math.log2(most / largest)) if 0 < largest < math.inf else 1.0


def _kernels(logits: Tensor, align_corners: bool | None) -> ModuleType | None:
    """The Triton kernels, where they apply."""
    if logits.device.type != "cuda" or align_corners is not None:
        return None
    try:
        from segloss.losses import outlying_triton
    except ImportError:  # no Triton, for instance on Windows
        return None
    return outlying_triton if outlying_triton.usable(logits.device) else None


def _value(x: Inputs, gradient: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The loss and its divisor; ``gradient``, if given, becomes that of the value, enlarged (not for ``"none"``)."""
    dtype, per_pixel = working_dtype(x.logits), x.reduction == "none"
    grid = Grid(x.logits, x.align_corners)
    images, pixels = grid.logits(x.logits), x.pixels(grid)
    kernels = None if gradient is not None else _kernels(x.logits, x.align_corners)
    if kernels:
        value, weights = kernels.value_sums(
            images, pixels.labels, x.label_values, x.weight, pixels.pixel_weight, x.ignore_index, per_pixel
        )
        divisor = _divisor(weights, pixels.num_classes, x.reduction)
    else:
        divisor = _divisor(pixels.weight_sum(dtype), pixels.num_classes, x.reduction)
        value = torch.empty(pixels.labels.shape, dtype=dtype, device=x.logits.device) if per_pixel else divisor * 0
        factor = (2 / divisor).to(dtype)
        if gradient is not None:
            gradient, factor = grid.logits(gradient), factor * _enlarged(x, divisor)
        banded_pass(images, pixels, x.label_values, x.align_corners, value=value, gradient=gradient, factor=factor)
    return (value / divisor).to(dtype).view(x.labels.shape if per_pixel else ()), divisor


def _early(x: Inputs) -> tuple[Tensor, Tensor]:
    """Value and gradient in one pass, for a factor of 1."""
    gradient = _empty_gradient(x)
    return _value(x, gradient)[0], gradient


def _gradient(grad: Tensor, divisor: Tensor, x: Inputs) -> Tensor:
    """2 grad w (z - teacher) / divisor, in the logits' dtype and memory layout; ``grad`` is a scalar or ``(N, *)``."""
    result = _empty_gradient(x)
    grid = Grid(x.logits, x.align_corners)
    images, gradient, pixels = grid.logits(x.logits), grid.logits(result), x.pixels(grid)
    factor = grid.per_pixel((2 * grad / divisor).to(working_dtype(x.logits)))
    if kernels := _kernels(x.logits, x.align_corners):
        kernels.write_gradient(
            gradient, images, pixels.labels, x.label_values, x.weight, pixels.pixel_weight, factor, x.ignore_index
        )
    else:
        banded_pass(images, pixels, x.label_values, x.align_corners, gradient=gradient, factor=factor)
    return result.to(x.logits.dtype)


def _empty_gradient(x: Inputs) -> Tensor:
    """Memory for the gradient; where it is upsampled it is added up over bands, which half precision would round."""
    if x.align_corners is None:
        return gradient_like(x.logits, x.logits.dtype)
    return torch.zeros_like(x.logits, dtype=working_dtype(x.logits))


# One node each in a compiled graph.
INPUTS = (
    "Tensor logits, Tensor labels, Tensor label_values, Tensor? weight, Tensor? pixel_weight, bool? align_corners, "
    "int ignore_index, str reduction"
)
_value_op = torch.library.custom_op(
    "segloss::outlying_mse",
    lambda *inputs: _value(Inputs(*inputs)),
    mutates_args=(),
    schema=f"({INPUTS}) -> (Tensor, Tensor)",
)
_gradient_op = torch.library.custom_op(
    "segloss::outlying_mse_grad",
    lambda grad, divisor, *inputs: _gradient(grad, divisor, Inputs(*inputs)),
    mutates_args=(),
    schema=f"(Tensor grad, Tensor divisor, {INPUTS}) -> Tensor",
)


_early_op = torch.library.custom_op(
    "segloss::outlying_mse_early",
    lambda *inputs: _early(Inputs(*inputs)),
    mutates_args=(),
    schema=f"({INPUTS}) -> (Tensor, Tensor)",
)


@_value_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor]:
    x = Inputs(*inputs)
    dtype, device = working_dtype(x.logits), x.logits.device
    value = torch.empty(x.labels.shape if x.reduction == "none" else (), dtype=dtype, device=device)
    return value, torch.empty((), dtype=wide_dtype(device, dtype), device=device)


@_gradient_op.register_fake
def _(grad: Tensor, divisor: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, align_corners, ignore_index, reduction = inputs
    ctx.options = align_corners, ignore_index, reduction
    ctx.save_for_backward(output[1], *tensors)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradient_op(grad, *ctx.saved_tensors, *ctx.options), *[None] * 7


_value_op.register_autograd(_backward, setup_context=_setup_context)


@_early_op.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty((), dtype=working_dtype(logits), device=logits.device), torch.empty_like(logits)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _hand_over(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return ctx.saved_tensors[0] * grad, *[None] * 7


_early_op.register_autograd(_hand_over, setup_context=_keep_gradient)


def _weighted_squares(x: Inputs) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """In plain operations: z - teacher ``(N, C, *)``, 0 where ignored; the pixels' weights ``(N, *)``, not a number
    where one is ignored and its own is none; w |z - teacher|^2; which pixels are valid."""
    residual = x.logits.to(working_dtype(x.logits))
    if x.align_corners is not None:
        residual = F.interpolate(residual, x.labels.shape[1:], mode="bilinear", align_corners=x.align_corners)
    valid, safe = valid_pixels(x.labels, x.logits.shape[1], x.ignore_index)
    hot = x.label_values.to(residual)[safe].unsqueeze(1)
    residual = torch.where(valid.unsqueeze(1), residual.scatter_add(1, safe.unsqueeze(1), -hot), 0)
    weights = None if x.weight is None else x.weight.to(residual)[safe]
    if x.pixel_weight is not None:
        own = torch.where(valid, x.pixel_weight.to(residual), 0)
        weights = own if weights is None else weights * own
    squares = residual.square().sum(1)
    return residual, weights, squares if weights is None else squares * weights, valid


def _small_value(x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Value, divisor and gradient of few pixels, in as few calls as it takes."""
    residual, weights, squares, valid = _weighted_squares(x)
    wide = wide_dtype(x.logits.device, residual.dtype)
    total = valid.sum(dtype=wide) if weights is None else torch.where(valid, weights, 0).sum(dtype=wide)
    divisor = _divisor(total, x.logits.shape[1], x.reduction)
    factor = (2 / divisor).to(residual.dtype)
    if weights is not None:
        factor = (factor * weights).unsqueeze(1)
    value = squares.sum(dtype=wide) / divisor
    return value.to(residual.dtype), divisor, (residual * factor).to(x.logits.dtype)


def _plain_value(x: Inputs, divisor: Tensor) -> Tensor:
    """The loss in plain operations, which autograd differentiates twice and ``torch.func`` can follow."""
    squares = _weighted_squares(x)[2]
    squares = squares / divisor.to(squares)
    return squares if x.reduction == "none" else exact_sum(squares)


class _OutlyingMSE(torch.autograd.Function):
    """The same in eager mode. With ``one_pass`` value and gradient are made together, and backward hands it over."""

    # Without setup_context, whose signature is bound anew at each call; torch.func does not come here.
    @staticmethod
    def forward(ctx: Any, one_pass: bool, *inputs: Any) -> Tensor:
        x = Inputs(*inputs)
        gradient: Tensor | None
        few = x.logits.device.type == "cpu" and x.logits.numel() <= SMALL_ELEMENTS
        if few and x.align_corners is None and x.reduction != "none":
            value, divisor, made = _small_value(x)
            gradient = made if one_pass else None  # the value is the same to the last bit
        else:
            gradient = _empty_gradient(x) if one_pass else None
            value, divisor = _value(x, gradient)
        _setup_context(ctx, inputs, (value, divisor))
        ctx.gradient, ctx.enlarged = gradient, 1.0 if gradient is None else _enlarged(x, divisor)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        divisor, *tensors = ctx.saved_tensors
        x = Inputs(*tensors, *ctx.options)
        if torch.is_grad_enabled() or is_transformed(grad):  # a second derivative will be asked for, or several at once
            with torch.enable_grad():
                value = _plain_value(x, divisor)
                (again,) = torch.autograd.grad(value, x.logits, grad.to(value.dtype), create_graph=True)
            return None, again, *[None] * 7
        # Handed over once: whoever gets it may change it in place. A retained graph makes its own the second time.
        gradient: Tensor | None = ctx.gradient
        ctx.gradient = None
        if gradient is not None and gradient.dtype == working_dtype(x.logits):
            if grad.device.type != "cpu" or float(grad) != 1:
                gradient.mul_(grad)
        elif gradient is not None and (factor := float(grad) / ctx.enlarged) != 1:
            # Rounded once: a power of two that makes smaller takes no digit that the result could hold.
            exact = 0 < factor < 1 and math.frexp(factor)[0] == 0.5
            gradient = gradient.mul_(factor) if exact else None
        if gradient is None:
            gradient = _gradient(grad, divisor, x)
        return None, gradient.to(x.logits.dtype), *[None] * 7


def _early_is_exact(x: Inputs) -> bool:
    """Whether the gradient may be made before the factor arrives that it is multiplied by, and saves a pass."""
    if x.align_corners is not None:
        return True
    scaled = x.reduction == "mean" and x.pixel_weight is None and x.logits.numel() >= HALF_ELEMENTS
    return x.logits.device.type == "cpu" and (x.logits.dtype != torch.float16 or scaled)


def outlying_mse(*inputs: Any) -> Tensor:
    """The loss of checked :class:`Inputs`."""
    x = Inputs(*inputs)
    if is_transformed(*x):
        weights = weight_sum(x.labels, x.weight, x.ignore_index, x.pixel_weight)
        return _plain_value(x, _divisor(weights, x.logits.shape[1], x.reduction))
    one_pass = torch.is_grad_enabled() and x.logits.requires_grad and x.reduction != "none" and _early_is_exact(x)
    if torch.compiler.is_compiling():
        early = one_pass and x.logits.device.type == "cpu" and x.logits.dtype == working_dtype(x.logits)
        compiled: Tensor = (_early_op if early else _value_op)(*x)[0]
        return compiled
    value: Tensor = _OutlyingMSE.apply(one_pass, *x)
    return value
