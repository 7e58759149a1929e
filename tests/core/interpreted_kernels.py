"""The CUDA kernels of the loss on CPU, in Triton's interpreter; run by test_outlying_triton.py in a process of its own.

The interpreter has to be chosen (TRITON_INTERPRET=1) before Triton is first imported.
"""

import os

import pytest
import torch

from segloss.losses.outlying_op import outlying_mse
from segloss.losses.outlying_triton import value_sums, write_gradient

assert os.environ["TRITON_INTERPRET"] == "1"


def case(shape, dtype=torch.float32, label_dtype=torch.int64, ignored=0.2, seed=0):
    """Logits (N, C, *), labels with ignored pixels, label values, class and pixel weights."""
    generator = torch.Generator().manual_seed(seed)
    classes = shape[1]
    logits = (3 * torch.randn(shape, generator=generator)).to(dtype)
    labels = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    values = torch.rand(classes, generator=generator) * 9 + 1
    weight = torch.rand(classes, generator=generator) + 0.5
    pixel_weight = torch.rand(labels.shape, generator=generator)
    return logits, labels.to(label_dtype), values, weight, pixel_weight


def reference(logits, labels, values, weight, pixel_weight, reduction):
    """Value and gradient of the banded operator in float64, which has tests of its own against the plain formula."""
    logits = logits.detach().double().requires_grad_()
    value = outlying_mse(logits, labels, values.double(), weight, pixel_weight, None, 255, reduction)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


SHAPES = [(2, 3, 40, 70), (1, 19, 9, 33), (3, 11, 50), (2, 150, 3, 5), (1, 2, 2100)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_and_gradient_are_those_of_the_bands(shape, weighted):
    logits, labels, values, weight, pixel_weight = case(shape)
    if not weighted:
        weight = pixel_weight = None
    total, weight_sum = value_sums(logits, labels, values, weight, pixel_weight, 255, False)
    expected, gradient = reference(logits, labels, values, weight, pixel_weight, "sum")
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    valid = labels != 255
    pixels = torch.where(valid, pixel_weight * weight[labels.where(valid, 0)], 0) if weighted else valid
    torch.testing.assert_close(weight_sum, pixels.double().sum(), rtol=1e-6, atol=0)
    made = torch.full_like(logits, torch.nan)
    write_gradient(made, logits, labels, values, weight, pixel_weight, torch.tensor(2.0), 255)
    torch.testing.assert_close(made.double(), gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int16, torch.int32])
def test_all_dtypes_of_logits_and_labels(dtype, label_dtype):
    logits, labels, values, *_ = case((2, 5, 20, 30), dtype, label_dtype)
    total, _ = value_sums(logits, labels, values, None, None, 255, False)
    expected, gradient = reference(logits, labels, values, None, None, "sum")
    torch.testing.assert_close(total, expected, rtol=1e-12 if dtype == torch.float64 else 1e-6, atol=0)
    made = torch.empty_like(logits)
    write_gradient(made, logits, labels, values, None, None, torch.tensor(2.0), 255)
    assert made.dtype == dtype
    torch.testing.assert_close(
        made.double(), gradient.to(dtype).double(), rtol=1e-2 if dtype != torch.float64 else 1e-12, atol=0
    )


def test_a_value_and_a_factor_per_pixel():
    logits, labels, values, weight, _ = case((2, 7, 6, 11))
    pixels, _ = value_sums(logits, labels, values, weight, None, 255, True)
    expected, gradient = reference(logits, labels, values, weight, None, "none")
    torch.testing.assert_close(pixels.double() / 7, expected, rtol=1e-5, atol=1e-6)
    made = torch.empty_like(logits)
    write_gradient(made, logits, labels, values, weight, None, torch.full(labels.shape, 2 / 7), 255)
    torch.testing.assert_close(made.double(), gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "every second column", "rows and classes"])
def test_memory_layouts(layout):
    logits, labels, values, *_ = case((2, 5, 12, 16))
    if layout == "channels_last":
        strided = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        strided = logits.transpose(2, 3).contiguous().transpose(2, 3)
    elif layout == "every second column":
        strided = torch.empty(2, 5, 12, 32)[..., ::2].copy_(logits)
    else:
        strided = torch.empty(2, 12, 5, 16).transpose(1, 2).copy_(logits)
    assert not strided.is_contiguous()
    total, _ = value_sums(strided, labels, values, None, None, 255, False)
    expected, gradient = reference(logits, labels, values, None, None, "sum")
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    made = torch.empty_like(strided)
    write_gradient(made, strided, labels, values, None, None, torch.tensor(2.0), 255)
    torch.testing.assert_close(made.double(), gradient, rtol=1e-5, atol=1e-6)


def test_ignored_pixels_are_not_read():
    logits, labels, values, *_ = case((1, 3, 8, 8))
    poisoned = torch.where((labels == 255).unsqueeze(1), torch.nan, logits)
    total, count = value_sums(poisoned, labels, values, None, None, 255, False)
    torch.testing.assert_close(total, reference(logits, labels, values, None, None, "sum")[0], rtol=1e-6, atol=0)
    assert count == (labels != 255).sum()
    made = torch.empty_like(logits)
    write_gradient(made, poisoned, labels, values, None, None, torch.tensor(torch.inf), 255)
    assert bool((made.movedim(1, -1)[labels == 255] == 0).all())


@pytest.mark.parametrize("stray", [-1, 3, 254])
def test_labels_out_of_range_are_refused(stray):
    logits, labels, values, *_ = case((1, 3, 8, 8))
    labels[0, 4, 4] = stray
    with pytest.raises(RuntimeError, match=r"outside \[0, 3\)"):
        value_sums(logits, labels, values, None, None, 255, False)


def test_no_pixel_at_all():
    total, weight_sum = value_sums(
        torch.zeros(0, 3, 4), torch.zeros(0, 4, dtype=torch.int64), torch.ones(3), None, None, 255, False
    )
    assert total == 0
    assert weight_sum == 0
    write_gradient(
        torch.zeros(0, 3, 4),
        torch.zeros(0, 3, 4),
        torch.zeros(0, 4, dtype=torch.int64),
        torch.ones(3),
        None,
        None,
        torch.tensor(1.0),
        255,
    )


def test_the_same_sums_to_the_last_bit_every_time():
    logits, labels, values, weight, pixel_weight = case((1, 19, 64, 64))
    first = value_sums(logits, labels, values, weight, pixel_weight, 255, False)
    again = value_sums(logits, labels, values, weight, pixel_weight, 255, False)
    assert torch.equal(torch.stack(first), torch.stack(again))
