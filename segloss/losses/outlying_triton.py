"""The operator's CUDA kernels: one read of the logits for the value; one read and one write for the gradient.

A program handles a block of pixels of one image and walks through the classes in tiles. Sums leave the program as one
float32 number per block and are added up in float64 in a fixed order, so that results repeat to the last bit. Imported
only where a CUDA tensor comes by and Triton is installed; without either the bands of plain PyTorch calls do the work.
"""

# The kernels are in Triton's language, in which annotations have a meaning of their own.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import warnings
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from segloss.losses.labels import ignored_words
from segloss.losses.reduction import wide_dtype, working_dtype

TILE = 2048  # logits a program holds at a time


@triton.jit
def _labels_of_block(
    labels, values, pixels, blocks, num_classes, ignore_index, BLOCK_P: tl.constexpr, WORK: tl.constexpr
):  # fmt: skip
    """Of this program's pixels: image, position, is it labelled, class, label value, and is the label out of range."""
    image = tl.program_id(0).to(tl.int64) // blocks
    at = (tl.program_id(0).to(tl.int64) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    label = tl.load(labels + image * pixels + at, mask=at < pixels, other=0).to(tl.int64)
    labelled = (at < pixels) & (label != ignore_index)
    stray = labelled & ((label < 0) | (label >= num_classes))
    valid = labelled & ((label >= 0) & (label < num_classes))
    value = tl.load(values + label, mask=valid, other=0).to(WORK)
    return image, at, valid, label, value, stray


@triton.jit
def _weights_of_block(
    weight, pixel_weight, image, at, valid, label, pixels, HAS_WEIGHT: tl.constexpr, HAS_PIXEL_WEIGHT: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    product = valid.to(WORK)
    if HAS_WEIGHT:
        product *= tl.load(weight + label, mask=valid, other=0).to(WORK)
    if HAS_PIXEL_WEIGHT:
        product *= tl.load(pixel_weight + image * pixels + at, mask=valid, other=0).to(WORK)
    return product


@triton.jit
def _value_kernel(
    logits, labels, values, weight, pixel_weight, per_pixel, sums, weight_sums, strays,
    pixels, blocks, num_classes, stride_n, stride_c, stride_p, ignore_index,
    HAS_WEIGHT: tl.constexpr, HAS_PIXEL_WEIGHT: tl.constexpr, PER_PIXEL: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    image, at, valid, label, value, stray = _labels_of_block(
        labels, values, pixels, blocks, num_classes, ignore_index, BLOCK_P, WORK
    )
    weights = _weights_of_block(
        weight, pixel_weight, image, at, valid, label, pixels, HAS_WEIGHT, HAS_PIXEL_WEIGHT, WORK
    )
    squares = tl.zeros((BLOCK_P,), WORK)
    for first in range(0, num_classes, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C).to(tl.int64)
        where = image * stride_n + c[:, None] * stride_c + at[None, :] * stride_p
        # Selected after a load that no label masks: such loads are wide, and a NaN at an ignored pixel stays out.
        z = tl.load(logits + where, mask=(c < num_classes)[:, None] & (at < pixels)[None, :], other=0).to(WORK)
        z = tl.where(valid[None, :], z, 0)
        # The label is subtracted before squaring: z^2 - 2tz + t^2 cancels near the optimum.
        residual = z - tl.where(c[:, None] == label[None, :], value[None, :], 0)
        squares += tl.sum(residual * residual, axis=0)
    squares *= weights
    block = tl.program_id(0)
    if PER_PIXEL:
        tl.store(per_pixel + image * pixels + at, squares, mask=at < pixels)
    else:
        tl.store(sums + block, tl.sum(squares, axis=0))
    tl.store(weight_sums + block, tl.sum(weights, axis=0))
    tl.store(strays + block, tl.sum(stray.to(tl.int32), axis=0))


@triton.jit
def _gradient_kernel(
    gradient, logits, labels, values, weight, pixel_weight, factor,
    pixels, blocks, num_classes, stride_n, stride_c, stride_p, out_stride_n, out_stride_c, out_stride_p, ignore_index,
    HAS_WEIGHT: tl.constexpr, HAS_PIXEL_WEIGHT: tl.constexpr, PER_PIXEL: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    image, at, valid, label, value, _ = _labels_of_block(
        labels, values, pixels, blocks, num_classes, ignore_index, BLOCK_P, WORK
    )
    scale = _weights_of_block(weight, pixel_weight, image, at, valid, label, pixels, HAS_WEIGHT, HAS_PIXEL_WEIGHT, WORK)
    if PER_PIXEL:
        scale *= tl.load(factor + image * pixels + at, mask=valid, other=0).to(WORK)
    else:
        scale *= tl.load(factor).to(WORK)
    for first in range(0, num_classes, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C).to(tl.int64)
        where = image * stride_n + c[:, None] * stride_c + at[None, :] * stride_p
        z = tl.load(logits + where, mask=(c < num_classes)[:, None] & (at < pixels)[None, :], other=0).to(WORK)
        residual = z - tl.where(c[:, None] == label[None, :], value[None, :], 0)
        # Selected, not multiplied: the factor itself may be infinite under a GradScaler.
        result = tl.where(valid[None, :], residual * scale[None, :], 0)
        target = image * out_stride_n + c[:, None] * out_stride_c + at[None, :] * out_stride_p
        tl.store(gradient + target, result, mask=(c < num_classes)[:, None] & (at < pixels)[None, :])


def _tile(logits: Tensor) -> tuple[int, int]:
    """Classes and pixels of a tile: long along the dimension that is contiguous in memory."""
    classes = triton.next_power_of_2(logits.shape[1])
    block_c = min(classes, 64) if logits.stride(1) == 1 and logits.stride(2) != 1 else min(classes, 8)
    return block_c, TILE // block_c


def _arguments(
    logits: Tensor, labels: Tensor, label_values: Tensor, weight: Tensor | None, pixel_weight: Tensor | None
) -> tuple[list[Tensor], int, dict[str, Any]]:
    """Tensors in kernel order (a stand-in where there is none), blocks of an image, constants; logits ``(N, C, P)``."""
    block_c, block_p = _tile(logits)
    labels = labels.flatten(1).contiguous()
    tensors = [logits, labels, label_values.contiguous()]
    tensors.append(label_values if weight is None else weight.contiguous())
    tensors.append(label_values if pixel_weight is None else pixel_weight.flatten(1).contiguous())
    constants = {
        "HAS_WEIGHT": weight is not None,
        "HAS_PIXEL_WEIGHT": pixel_weight is not None,
        "BLOCK_C": block_c,
        "BLOCK_P": block_p,
        "WORK": tl.float64 if logits.dtype == torch.float64 else tl.float32,
    }
    return tensors, triton.cdiv(logits.shape[2], block_p), constants


def value_sums(
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    per_pixel: bool,
) -> tuple[Tensor, Tensor]:
    """Sum of w (z - teacher)^2, or that of each pixel ``(N, *)``, and the sum of w, in float64 where it is a sum."""
    flat = logits.flatten(2)
    dtype = working_dtype(logits)
    tensors, blocks, constants = _arguments(flat, labels, label_values, weight, pixel_weight)
    programs = blocks * len(flat)
    sums, weight_sums = torch.empty(2, programs, dtype=dtype, device=logits.device)
    strays = torch.empty(programs, dtype=torch.int32, device=logits.device)
    pixels = torch.empty(labels.shape if per_pixel else (1,), dtype=dtype, device=logits.device)
    if programs:
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            _value_kernel[(programs,)](
                *tensors, pixels, sums, weight_sums, strays,
                flat.shape[2], blocks, flat.shape[1], *flat.stride(), ignore_index, PER_PIXEL=per_pixel, **constants,
            )  # fmt: skip
    torch._assert_async(
        strays.sum() == 0,
        f"labels outside [0, {flat.shape[1]}) and not {ignored_words(ignore_index)}; map or ignore them",
    )
    wide = wide_dtype(logits.device, dtype)
    return pixels if per_pixel else sums.sum(dtype=wide), weight_sums.sum(dtype=wide)


def write_gradient(
    gradient: Tensor,
    logits: Tensor,
    labels: Tensor,
    label_values: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    factor: Tensor,
    ignore_index: int,
) -> None:
    """``gradient`` becomes factor w (z - teacher); ``factor`` is 0-dim or ``(N, *)``."""
    flat, target = logits.flatten(2), gradient.flatten(2)
    tensors, blocks, constants = _arguments(flat, labels, label_values, weight, pixel_weight)
    if not blocks * len(flat):
        return
    with torch.cuda.device_of(logits):
        _gradient_kernel[(blocks * len(flat),)](
            target, *tensors, factor.contiguous(),
            flat.shape[2], blocks, flat.shape[1], *flat.stride(), *target.stride(), ignore_index,
            PER_PIXEL=factor.ndim > 0, **constants,
        )  # fmt: skip
    if target.data_ptr() != gradient.data_ptr():  # a memory layout in which height and width cannot be one dimension
        gradient.copy_(target.view(gradient.shape))


@lru_cache(maxsize=16)
def usable(device: torch.device) -> bool:
    """Whether the kernels run there: Triton needs a C compiler the first time and a GPU that is not too old."""
    try:
        logits, labels = torch.zeros(1, 2, 1, device=device), torch.zeros(1, 1, dtype=torch.int64, device=device)
        value_sums(logits, labels, torch.ones(2, device=device), None, None, 255, False)
    except torch.cuda.OutOfMemoryError:  # says nothing about Triton
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"segloss: Triton does not work here, plain PyTorch computes the loss: {reason}", stacklevel=2)
        return False
    return True
