"""The one meaning of "mean", in which numbers sums are added up, and the first of the largest scores."""

from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.checks import check_divisor
from segloss.losses.labels import ignored_label, valid_pixels
from segloss.losses.tracing import is_transformed


def select_valid(scores: Tensor, valid: Tensor) -> Tensor:
    """Scores ``(N, C, *)`` whose gradient is 0 where not valid ``(N, *)``, whatever is there: NaN times 0 is NaN.

    For losses whose value leaves these pixels out anyway. The scores themselves are not copied.
    """
    if torch.compiler.is_compiling() or is_transformed(scores, valid):
        return torch.where(valid.unsqueeze(1), scores, 0)  # costs nothing in generated code
    selected: Tensor = _SelectGradient.apply(scores, valid)
    return selected


class _SelectGradient(torch.autograd.Function):
    """The identity, with a gradient of 0 where not valid."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, valid: Tensor) -> Tensor:
        ctx.save_for_backward(valid)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ignored = ctx.saved_tensors[0].logical_not().unsqueeze(1)
        if torch.is_grad_enabled() or is_transformed(grad):  # a second derivative will be asked for, or several at once
            return grad.masked_fill(ignored, 0), None
        # In place: softmax has made this gradient just now, for nobody else.
        return grad.masked_fill_(ignored, 0), None


def exact_sum(values: Tensor) -> Tensor:
    """Sum in float64 where the device has it, as float32 or wider."""
    return values.sum(dtype=wide_dtype(values.device, values.dtype)).to(values.dtype)


def divide(total: Tensor, divisor: Tensor | float) -> Tensor:
    """A scalar over one number, in its own dtype; not divided where that number is 0: no pixel, so the sum is 0."""
    divisor = torch.as_tensor(divisor, device=total.device).detach().reshape(())
    return total / torch.where(divisor == 0, 1, divisor).to(total.dtype)  # a NaN shows


def share_of(loss: Tensor, own: Tensor, divisor: Tensor | float | None, reduction: str) -> Tensor:
    """``loss * own / divisor``: what a batch is of a whole, where its loss is no sum over pixels; loss without one."""
    check_divisor(divisor, reduction)
    return loss if divisor is None else divide(loss * own.to(loss.dtype), divisor)


def weight_sum(
    labels: Tensor, weight: Tensor | None, ignore_index: int | None, pixel_weight: Tensor | None = None
) -> Tensor:
    """Valid pixels, or the sum of their class weights ``(C,)`` times their own: 0-dim, float64 where there is one."""
    wide = wide_dtype(labels.device, torch.float32)
    if weight is None:
        weights = (labels.long() != ignored_label(ignore_index)).float()
    else:
        valid, safe = valid_pixels(labels, len(weight), ignore_index)
        weights = torch.where(valid, weight.detach()[safe], 0)
    if pixel_weight is not None:
        weights = torch.where(weights > 0, weights * pixel_weight.detach(), 0)
    return weights.sum(dtype=wide)


def reduce_pixels(
    per_pixel: Tensor,
    valid: Tensor,
    reduction: str,
    weight_sum: Tensor | None = None,
    divisor: Tensor | float | None = None,
) -> Tensor:
    """Reduce per-pixel losses that are already 0 where ignored.

    ``"mean"`` divides by ``divisor`` where given, else by ``weight_sum`` (the sum of the valid pixels' class weights),
    else by the number of valid pixels; with no valid pixel it is 0, not NaN.
    """
    check_divisor(divisor, reduction)
    if reduction == "none":
        return per_pixel
    total = exact_sum(per_pixel)
    if reduction == "sum":
        return total
    if divisor is None:
        divisor = valid.sum() if weight_sum is None else weight_sum
    return divide(total, divisor)


def working_dtype(logits: Tensor) -> torch.dtype:
    """Arithmetic is float32 or wider: squares of float16 scores overflow above 255."""
    return torch.promote_types(logits.dtype, torch.float32)


def wide_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What sums over many pixels are added up in: float64 where the device has it."""
    return dtype if device.type == "mps" else torch.float64


def first_largest(scores: Tensor, given: Tensor | None = None) -> Tensor:
    """``scores.argmax(1)`` for ``(N, C, *)``: the first of the largest, int64 ``(N, *)``.

    Args:
        given: what the scores were made of; default: themselves.

    Raises:
        InputError: as :func:`undecided` says, or one is NaN that was none; argmax would take NaN for the largest.
    """
    largest, ids = scores.max(1)  # on CPU 6 times faster than argmax over a dimension that is not the last
    in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    in_graph = in_graph or is_transformed(scores)
    if in_graph or scores.device.type == "meta" or bool(largest.isfinite().all()):
        return ids
    best = largest if given is None else given.amax(1)
    pixels = int((undecided(best) | undecided(largest) & best.isinf()).sum())
    if pixels:
        what = f"scores are NaN or -inf at {pixels:,} of {ids.numel():,} pixels, where no class is the largest"
        raise InputError(what, "the network's weights or input are broken: look at both")
    if overflown := int(largest.isnan().sum()):  # else one score is infinite and the largest, or has become so here
        what = f"scores overflow in the decision at {overflown:,} of {ids.numel():,} pixels"
        raise InputError(what, "take a tau nearer to 1, a prior's exponent nearer to 0, or the plain decision")
    return ids


def undecided(largest: Tensor) -> Tensor:
    """Where no class is the largest, by the largest score of each pixel: one is NaN, or all are -inf."""
    return largest.isnan() | (largest == -torch.inf)
