"""The squared error to outlying labels against its equation, from one pixel to the size of a Cityscapes batch."""

import io
import shutil

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.backends.common import aot_autograd

from segloss.losses import OutlyingMSELoss, build_criterion, label_values_from_counts, outlying_mse_loss

# float32: every term and every partial sum is rounded once, 6e-8 each, and all terms are positive (nothing cancels).
RTOL = 1e-6

SHAPES = [(5, 3), (2, 4, 6), (2, 5, 4, 3), (2, 3, 2, 3, 4), (1, 2, 1, 1), (3, 11, 7, 13)]
LABEL_DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


def loop_loss(logits, labels, label_values, ignore_index=255, reduction="mean"):
    """The docstring's equation in float64 Python numbers, one term after the other."""
    num_classes = logits.shape[1]
    scores = logits.detach().double().reshape(len(logits), num_classes, -1)
    values = label_values.double().tolist()
    per_pixel = []
    for image, ids in zip(scores.mT.tolist(), labels.long().reshape(len(labels), -1).tolist(), strict=True):
        for z, y in zip(image, ids, strict=True):
            if y == ignore_index:
                per_pixel.append(None)
            else:
                per_pixel.append(sum((z[c] - values[y] * (c == y)) ** 2 for c in range(num_classes)))
    if reduction == "none":
        return torch.tensor([(s or 0.0) / num_classes for s in per_pixel], dtype=torch.float64).view(labels.shape)
    valid = [s for s in per_pixel if s is not None]
    total = sum(valid)
    if reduction == "mean":
        total = total / (len(valid) * num_classes) if valid else 0.0
    return torch.tensor(total, dtype=torch.float64)


def teacher_of(labels, label_values):
    """The teacher vectors ``(N, C, *)`` of labels that are all class ids."""
    one_hot = F.one_hot(labels.long(), len(label_values)).movedim(-1, 1)
    return one_hot * label_values.view(1, -1, *[1] * (labels.ndim - 1))


def example(shape, *, seed=0, ignored=0.2, ignore_index=255, scale=3.0, dtype=torch.float32):
    """Random scores, labels with a share of ignored pixels, and label values 1, 2, ... in a mixed order."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = shape[1]
    logits = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    labels = torch.randint(num_classes, (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = ignore_index
    values = (torch.randperm(num_classes, generator=generator) + 1).float()
    return logits, labels, values


def gradient(loss_function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss_function(logits), logits)[0]


# The equation.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_follows_its_equation(shape, reduction):
    logits, labels, values = example(shape)
    labels.view(-1)[0] = 1  # at least one valid pixel
    loss = outlying_mse_loss(logits, labels, values, reduction=reduction)
    expected = loop_loss(logits, labels, values, reduction=reduction)
    assert loss.shape == expected.shape
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=RTOL, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_ignored_pixels_it_is_torchs_mse_loss_of_the_teacher(shape):
    logits, labels, values = example(shape, ignored=0, dtype=torch.float64)
    for t in (values, torch.ones_like(values)):
        expected = F.mse_loss(logits, teacher_of(labels, t).double())
        # float64: only the order of summation differs.
        torch.testing.assert_close(outlying_mse_loss(logits, labels, t), expected, rtol=1e-14, atol=0)


def test_all_values_one_is_the_plain_mse_of_one_hot_labels():
    logits, labels, _ = example((2, 5, 4, 3), ignored=0, dtype=torch.float64)
    one_hot = F.one_hot(labels, 5).movedim(-1, 1).double()
    loss = outlying_mse_loss(logits, labels, torch.ones(5))
    torch.testing.assert_close(loss, F.mse_loss(logits, one_hot), rtol=1e-14, atol=0)  # order of summation


@pytest.mark.parametrize("layout", ["channels_last", "strided", "transposed"])
def test_memory_layout_does_not_matter(layout):
    logits, labels, values = example((3, 11, 14, 26))
    if layout == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        logits, labels = logits[:, :, ::2, 1::3], labels[:, ::2, 1::3]
    else:
        logits, labels = logits.transpose(2, 3), labels.transpose(1, 2)
    assert not logits.is_contiguous()
    for reduction in ("mean", "none"):
        loss = outlying_mse_loss(logits, labels, values, reduction=reduction)
        expected = loop_loss(logits, labels, values, reduction=reduction)
        torch.testing.assert_close(loss.double(), expected, rtol=RTOL, atol=0)
    actual = gradient(lambda z: outlying_mse_loss(z, labels, values), logits)
    expected = gradient(lambda z: outlying_mse_loss(z, labels, values), logits.contiguous())
    torch.testing.assert_close(actual, expected, rtol=RTOL, atol=0)


@pytest.mark.parametrize("dtype", LABEL_DTYPES, ids=str)
def test_every_integer_label_dtype_gives_the_same_loss(dtype):
    ignore_index = -1 if dtype == torch.int8 else 255  # int8 cannot hold 255
    logits, labels, values = example((3, 11, 7, 13), ignore_index=ignore_index)
    expected = outlying_mse_loss(logits, labels, values, ignore_index=ignore_index)
    assert torch.equal(outlying_mse_loss(logits, labels.to(dtype), values, ignore_index=ignore_index), expected)


def test_ignore_index_may_be_minus_100():
    logits, labels, values = example((3, 11, 7, 13))
    renamed = torch.where(labels == 255, -100, labels)
    loss = outlying_mse_loss(logits, renamed, values, ignore_index=-100)
    assert torch.equal(loss, outlying_mse_loss(logits, labels, values))


def test_ignore_index_may_be_a_class_id():
    logits, labels, values = example((3, 4, 7, 13), ignored=0)
    loss = outlying_mse_loss(logits, labels, values, ignore_index=0)
    torch.testing.assert_close(loss.double(), loop_loss(logits, labels, values, ignore_index=0), rtol=RTOL, atol=0)


def test_mean_and_sum_follow_from_the_losses_per_pixel():
    logits, labels, values = example((3, 11, 7, 13), dtype=torch.float64)
    per_pixel = outlying_mse_loss(logits, labels, values, reduction="none")
    valid = labels != 255
    assert bool((per_pixel[~valid] == 0).all())
    assert bool((per_pixel[valid] > 0).all())
    # float64: only the order of operations differs.
    mean = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(mean, per_pixel[valid].mean(), rtol=1e-14, atol=0)
    total = outlying_mse_loss(logits, labels, values, reduction="sum")
    torch.testing.assert_close(total, per_pixel.sum() * 11, rtol=1e-14, atol=0)
    torch.testing.assert_close(total, mean * valid.sum() * 11, rtol=1e-14, atol=0)


# The gradient.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(reduction):
    logits, labels, values = example((2, 3, 2, 3), dtype=torch.float64)
    labels[0, 0, 0] = 255
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: outlying_mse_loss(z, labels, values.double(), reduction=reduction), logits
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_twice_the_residual_over_the_count(shape):
    logits, labels, values = example(shape, dtype=torch.float64)
    labels.view(-1)[0] = 1
    valid = labels != 255
    residual = logits - teacher_of(torch.where(valid, labels, 0), values)
    expected = torch.where(valid.unsqueeze(1), 2 * residual, 0)
    rtol = 1e-14  # float64, a few multiplications in another order
    total = gradient(lambda z: outlying_mse_loss(z, labels, values, reduction="sum"), logits)
    torch.testing.assert_close(total, expected, rtol=rtol, atol=0)
    mean = gradient(lambda z: outlying_mse_loss(z, labels, values), logits)
    torch.testing.assert_close(mean, expected / (valid.sum() * shape[1]), rtol=rtol, atol=0)


def test_label_values_are_a_constant_without_gradient():
    logits, labels, values = example((2, 3, 4))
    values.requires_grad_()
    logits.requires_grad_()
    outlying_mse_loss(logits, labels, values).backward()
    assert logits.grad is not None
    assert values.grad is None


# Ignored pixels.


@pytest.mark.parametrize("stray", [1e6, float("nan"), float("inf"), float("-inf")])
def test_scores_at_ignored_pixels_change_neither_loss_nor_gradient(stray):
    logits, labels, values = example((3, 11, 7, 13))
    poisoned = torch.where((labels == 255).unsqueeze(1), stray, logits)
    assert not torch.equal(poisoned, logits)
    for reduction in ("mean", "sum", "none"):
        loss = outlying_mse_loss(poisoned, labels, values, reduction=reduction)
        assert torch.equal(loss, outlying_mse_loss(logits, labels, values, reduction=reduction))
    actual = gradient(lambda z: outlying_mse_loss(z, labels, values), poisoned)
    assert torch.equal(actual, gradient(lambda z: outlying_mse_loss(z, labels, values), logits))
    assert not bool(torch.where((labels == 255).unsqueeze(1), actual, 0).any())


def test_ignoring_pixels_equals_leaving_them_out():
    logits, labels, values = example((1, 5, 40))
    kept = labels[0] != 255
    loss = outlying_mse_loss(logits[:, :, kept], labels[:, kept], values)
    torch.testing.assert_close(outlying_mse_loss(logits, labels, values), loss, rtol=RTOL, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_no_valid_pixel_gives_zero_loss_and_zero_gradient(dtype):
    logits, _, values = example((2, 3, 4, 5), dtype=dtype)
    labels = torch.full((2, 4, 5), 255, dtype=torch.uint8)
    for reduction in ("mean", "sum"):
        assert float(outlying_mse_loss(logits, labels, values, reduction=reduction)) == 0
        grad = gradient(lambda z, r=reduction: outlying_mse_loss(z, labels, values, reduction=r), logits)
        assert torch.equal(grad, torch.zeros_like(logits))
    assert torch.equal(outlying_mse_loss(logits, labels, values, reduction="none"), torch.zeros_like(labels).to(dtype))


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 5), (2, 3, 0, 5)])
def test_an_empty_batch_gives_zero(shape):
    labels = torch.zeros((shape[0], *shape[2:]), dtype=torch.long)
    assert float(outlying_mse_loss(torch.zeros(shape), labels, torch.ones(3))) == 0


# Inputs that do not fit.


@pytest.mark.parametrize("stray", [-1, 3, 200, -100, 256])
def test_a_label_that_is_no_class_raises_index_error(stray):
    labels = torch.tensor([[0, 1, stray, 255]])
    with pytest.raises(IndexError, match=rf"labels hold {stray}, outside \[0, 3\) and not ignore_index=255"):
        outlying_mse_loss(torch.zeros(1, 3, 4), labels, torch.ones(3))


@pytest.mark.parametrize(
    ("dtype", "stray", "ignore_index"), [(torch.int8, -1, 255), (torch.uint8, 156, -100), (torch.int16, -1, 65535)]
)
def test_an_ignore_index_that_the_label_dtype_cannot_hold_matches_no_label(dtype, stray, ignore_index):
    """Compared in the label's own dtype, 255 is -1 in int8: stray labels would silently be left out."""
    labels = torch.tensor([[0, 1, stray, 2]]).to(dtype)
    with pytest.raises(IndexError, match=f"labels hold {stray}"):
        outlying_mse_loss(torch.zeros(1, 3, 4), labels, torch.ones(3), ignore_index=ignore_index)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((2, 3, 4, 5), (2, 1, 4, 5), r"labels must have shape \(2, 4, 5\).*got \(2, 1, 4, 5\); squeeze dim 1$"),
        (
            (2, 3, 4, 5),
            (2, 5, 4),
            r"shape \(2, 4, 5\) to match logits \(2, 3, 4, 5\), got \(2, 5, 4\)$",
        ),
        ((2, 3, 4, 5), (1, 4, 5), r"labels must have shape \(2, 4, 5\)"),
        ((2, 3, 4, 5), (4, 5), r"labels must have shape \(2, 4, 5\)"),
        ((2, 3), (2, 1), r"labels must have shape \(2,\).*squeeze dim 1$"),
        ((2, 1, 4, 5), (2, 4, 5), "at least two classes in dim 1.*background and foreground"),
        ((3,), (), r"logits must have shape \(N, C, \*\), got \(3,\)"),
    ],
)
def test_shapes_that_do_not_match_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        outlying_mse_loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.long), torch.ones(3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(4), r"label_values must have shape \(3,\) to match logits \(1, 3, 2\), got \(4,\)"),
        (torch.ones(1, 3), r"label_values must have shape \(3,\)"),
        (torch.ones(()), r"label_values must have shape \(3,\)"),
        (torch.tensor([1.0, 0.0, 2.0]), "label_values must be positive"),
        (torch.tensor([1.0, -1.0, 2.0]), "label_values must be positive"),
        (torch.tensor([1.0, float("nan"), 2.0]), "label_values must be positive"),
    ],
)
def test_label_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        outlying_mse_loss(torch.zeros(1, 3, 2), torch.zeros(1, 2, dtype=torch.long), values)


def test_dtypes_that_do_not_fit_are_refused():
    labels = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(TypeError, match=r"logits must be floating point, got torch.int64"):
        outlying_mse_loss(torch.zeros(1, 3, 2, dtype=torch.long), labels, torch.ones(3))
    for dtype in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"labels must hold integer class ids, got {dtype}"):
            outlying_mse_loss(torch.zeros(1, 3, 2), labels.to(dtype), torch.ones(3))


def test_what_is_no_tensor_or_lies_elsewhere_is_named_with_its_cure():
    logits, labels, values = torch.zeros(1, 3, 2), torch.zeros(1, 2, dtype=torch.long), torch.ones(3)
    with pytest.raises(TypeError, match=r"label_values must be a torch.Tensor, got list; take torch.as_tensor of it"):
        outlying_mse_loss(logits, labels, [1.0, 1.0, 1.0])
    with pytest.raises(TypeError, match=r"labels must be a torch.Tensor, got ndarray"):
        outlying_mse_loss(logits, labels.numpy(), values)
    with pytest.raises(ValueError, match=r"labels must be on cpu like logits, got meta; labels.to\('cpu'\)"):
        outlying_mse_loss(logits, labels.to("meta"), values)
    with pytest.raises(ValueError, match=r"label_values must be on meta like logits, got cpu"):
        outlying_mse_loss(logits.to("meta"), labels.to("meta"), values)
    with pytest.raises(ValueError, match=r"weight must be on cpu like logits, got meta"):
        outlying_mse_loss(logits, labels, values, weight=values.to("meta"))
    with pytest.raises(ValueError, match=r"pixel_weight must be on cpu like logits, got meta"):
        outlying_mse_loss(logits, labels, values, pixel_weight=torch.ones(1, 2, device="meta"))


def test_an_unknown_reduction_names_the_choices():
    message = "reduction must be one of mean, sum, none, got 'avg'"
    with pytest.raises(ValueError, match=message):
        outlying_mse_loss(torch.zeros(1, 3, 2), torch.zeros(1, 2, dtype=torch.long), torch.ones(3), reduction="avg")
    with pytest.raises(ValueError, match=message):
        OutlyingMSELoss([1.0, 2.0], reduction="avg")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"at least two classes, got \(1,\)"),
        ([[1.0, 2.0]], r"shape \(C,\).*got \(1, 2\)"),
        ([1.0, 0.0], "positive and finite, got .*0.0"),
        ([1.0, float("nan")], "positive and finite"),
        ([1.0, float("inf")], "positive and finite"),
    ],
)
def test_the_module_refuses_label_values_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        OutlyingMSELoss(values)


# Numerics: each of the measured traps.


def test_expanding_the_square_would_cancel():
    """``sum z^2 - 2 t z_y + t^2`` is off by more than 1 % in float32 near the optimum; the loss is not."""
    values = torch.full((11,), 66.0)
    labels = torch.arange(11).repeat(20).view(1, -1)
    logits = teacher_of(labels, values) + 1e-2
    exact = F.mse_loss(logits.double(), teacher_of(labels, values).double())
    hot = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    expanded = (logits.square().sum(1) - 2 * 66 * hot + 66**2).mean() / 11
    assert abs(expanded - exact) > 0.01 * exact
    torch.testing.assert_close(outlying_mse_loss(logits, labels, values).double(), exact, rtol=RTOL, atol=0)


def test_mean_of_a_cityscapes_batch_is_exact():
    """4 x 19 x 512 x 1024: a running float32 sum over these 40 million squares is off by a percent."""
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(1.0, 20.0)
    logits = torch.empty(4, 19, 512, 1024).uniform_(-3, 5, generator=generator)
    labels = torch.randint(20, (4, 512, 1024), generator=generator, dtype=torch.uint8)
    labels[labels == 19] = 255
    valid = labels != 255
    total = 0.0
    for c in range(19):  # one class at a time: 16 MB of float64
        residual = logits[:, c].double() - values[c] * (labels == c)
        total += float((residual.square_() * valid).sum())
    loss = outlying_mse_loss(logits, labels, values)
    assert float(loss) == pytest.approx(total / (int(valid.sum()) * 19), rel=1e-6)


def test_float16_gradient_of_a_large_batch_does_not_underflow():
    """The factor 2 / (|V| C) alone is below float16; the GradScaler's factor must meet it in float32."""
    shape = (1, 19, 512, 1024)
    values = torch.ones(19)
    labels = torch.zeros(1, 512, 1024, dtype=torch.uint8)
    logits = torch.full(shape, 0.125, dtype=torch.float16)
    factor = 2 / (512 * 1024 * 19)
    assert torch.tensor(factor * 0.125, dtype=torch.float64).half() == 0  # the trap is one at this size
    scale = 2.0**16  # torch.amp.GradScaler's first
    grad = gradient(lambda z: scale * outlying_mse_loss(z, labels, values), logits)
    assert grad.dtype == torch.float16
    # One rounding to float16, 2^-11.
    assert float(grad[0, 1, 0, 0]) == pytest.approx(scale * factor * 0.125, rel=2**-11)
    assert float(grad[0, 0, 0, 0]) == pytest.approx(scale * factor * (0.125 - 1), rel=2**-11)
    assert bool((grad != 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("alpha", [1.0, 6.0])
def test_low_precision_scores_lose_no_more_than_the_plain_formula(dtype, alpha):
    logits, labels, values = example((3, 11, 7, 13), ignored=0, dtype=dtype)
    values = alpha * values
    teacher = teacher_of(labels, values)

    def plain(z):
        return (z - teacher.to(z.dtype)).square().mean()  # F.mse_loss lacks half-precision gradients in torch 2.4

    exact, exact_grad = plain(logits.double()), gradient(plain, logits.double())
    eps = torch.finfo(dtype).eps
    loss = outlying_mse_loss(logits, labels, values)
    assert loss.dtype == torch.float32
    plain_error = abs(plain(logits).double() - exact) / exact
    assert bool(plain_error.isfinite())
    assert abs(loss.double() - exact) / exact <= 2 * plain_error + eps
    torch.testing.assert_close(loss.double(), exact, rtol=RTOL, atol=0)  # and in fact float32 throughout

    grad = gradient(lambda z: outlying_mse_loss(z, labels, values), logits)
    assert grad.dtype == dtype
    plain_error = (gradient(plain, logits).double() - exact_grad).abs()
    error = (grad.double() - exact_grad).abs()
    assert bool((error.max() <= 2 * plain_error.max() + eps * exact_grad.abs().max()).all())


@pytest.mark.parametrize("score", [300.0, -60000.0])
def test_squares_above_float16_do_not_overflow(score):
    logits = torch.full((1, 3, 2, 2), score, dtype=torch.float16)
    labels = torch.tensor([[[0, 1], [2, 255]]])
    values = torch.tensor([1.0, 66.0, 651.0])
    assert not bool(logits.square().isfinite().any())
    loss = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(loss.double(), loop_loss(logits, labels, values), rtol=RTOL, atol=0)


def test_autocast_leaves_the_loss_in_float32():
    torch.manual_seed(0)
    _, labels, values = example((2, 5, 6, 7))
    layer = torch.nn.Conv2d(3, 5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(torch.randn(2, 3, 6, 7))
        loss = outlying_mse_loss(logits, labels, values)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), loop_loss(logits, labels, values), rtol=RTOL, atol=0)
    loss.backward()
    assert bool(layer.weight.grad.isfinite().all())
    assert bool(layer.weight.grad.any())


def test_alpha_only_sets_the_scale():
    """``loss(s z, t) = s^2 loss(z, t / s)``: why a separate logit scale would be the same knob twice."""
    logits, labels, values = example((3, 11, 7, 13), dtype=torch.float64)
    for s in (0.3, 6.0):
        scaled = outlying_mse_loss(s * logits, labels, values.double())
        # float64, a few roundings of 1e-16.
        torch.testing.assert_close(
            scaled, s**2 * outlying_mse_loss(logits, labels, values.double() / s), rtol=1e-13, atol=0
        )
    single = logits.float()  # a power of two scales without any rounding
    assert outlying_mse_loss(4 * single, labels, values) == 16 * outlying_mse_loss(single, labels, values / 4)


# Regimes.


def test_at_the_optimum_loss_and_gradient_are_exactly_zero():
    _, labels, values = example((3, 11, 7, 13))
    values = values * 0.3  # not exact in binary
    logits = teacher_of(torch.where(labels == 255, 0, labels), values)
    assert float(outlying_mse_loss(logits, labels, values)) == 0
    assert not bool(gradient(lambda z: outlying_mse_loss(z, labels, values), logits).any())


def test_confident_scores():
    _, labels, values = example((3, 11, 7, 13), ignored=0)
    logits = teacher_of(labels, values) + torch.randn(3, 11, 7, 13) * 1e-3
    loss = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(loss.double(), loop_loss(logits, labels, values), rtol=RTOL, atol=0)


def test_scores_of_ten_thousand():
    logits, labels, values = example((3, 11, 7, 13))
    logits = 1e4 * logits.sign()
    loss = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(loss.double(), loop_loss(logits, labels, values), rtol=RTOL, atol=0)
    assert bool(gradient(lambda z: outlying_mse_loss(z, labels, values), logits).isfinite().all())


def test_one_valid_pixel_alone_decides():
    logits, labels, values = example((3, 11, 7, 13), ignored=1)
    labels[1, 3, 5] = 4
    z = logits[1, :, 3, 5].double()
    z[4] -= float(values[4])
    loss = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(loss.double(), z.square().mean(), rtol=RTOL, atol=0)
    grad = gradient(lambda z: outlying_mse_loss(z, labels, values), logits)
    assert torch.count_nonzero(grad) == 11


def test_a_class_absent_from_the_labels_is_pulled_to_zero_whatever_its_value():
    logits, labels, values = example((3, 11, 7, 13))
    labels[labels == 2] = 3
    louder = values.clone()
    louder[2] = 1000
    assert torch.equal(outlying_mse_loss(logits, labels, louder), outlying_mse_loss(logits, labels, values))
    grad = gradient(lambda z: outlying_mse_loss(z, labels, values), logits)[:, 2]
    valid = labels != 255
    assert torch.equal(grad[valid].sign(), logits[:, 2][valid].sign())


# Invariances. Sums run in another order: RTOL.


def test_order_of_the_batch_does_not_matter():
    logits, labels, values = example((5, 4, 3, 2))
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = outlying_mse_loss(logits[order], labels[order], values)
    torch.testing.assert_close(loss, outlying_mse_loss(logits, labels, values), rtol=RTOL, atol=0)


def test_order_of_the_pixels_does_not_matter():
    logits, labels, values = example((2, 4, 30))
    order = torch.randperm(30)
    loss = outlying_mse_loss(logits[:, :, order], labels[:, order], values)
    torch.testing.assert_close(loss, outlying_mse_loss(logits, labels, values), rtol=RTOL, atol=0)


def test_renaming_classes_together_with_their_values_does_not_matter():
    logits, labels, values = example((3, 11, 7, 13))
    new_to_old = torch.randperm(11)
    old_to_new = new_to_old.argsort()
    renamed = torch.where(labels == 255, 255, old_to_new[labels.clamp(max=10)])
    loss = outlying_mse_loss(logits[:, new_to_old], renamed, values[new_to_old])
    torch.testing.assert_close(loss, outlying_mse_loss(logits, labels, values), rtol=RTOL, atol=0)


def test_sums_of_parts_add_up_to_the_whole():
    logits, labels, values = example((5, 4, 6, 2))
    whole = outlying_mse_loss(logits, labels, values, reduction="sum")
    parts = [
        outlying_mse_loss(z, y, values, reduction="sum")
        for z, y in ((logits[:2], labels[:2]), (logits[2:, :, :3], labels[2:, :3]), (logits[2:, :, 3:], labels[2:, 3:]))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=RTOL, atol=0)


def test_inputs_stay_unchanged():
    logits, labels, values = example((3, 11, 7, 13))
    logits.requires_grad_()
    before = [tensor.detach().clone() for tensor in (logits, labels, values)]
    for reduction in ("mean", "sum", "none"):
        outlying_mse_loss(logits, labels, values, reduction=reduction).sum().backward()
    for tensor, copy in zip((logits, labels, values), before, strict=True):
        assert torch.equal(tensor, copy)


# The module.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [255, -100])
def test_module_equals_function(reduction, ignore_index):
    logits, labels, values = example((3, 11, 7, 13), ignore_index=ignore_index)
    options = {"ignore_index": ignore_index, "reduction": reduction}
    module = OutlyingMSELoss(values, **options)
    assert torch.equal(module(logits, labels), outlying_mse_loss(logits, labels, values, **options))


def test_module_takes_a_list_and_keeps_its_own_copy():
    assert OutlyingMSELoss([1, 2, 7.5]).label_values.tolist() == [1.0, 2.0, 7.5]
    values = torch.tensor([1.0, 2.0])
    module = OutlyingMSELoss(values)
    values[0] = 9
    assert module.label_values.tolist() == [1.0, 2.0]


def test_module_has_no_parameters_and_its_buffer_moves_with_it():
    module = OutlyingMSELoss([1.0, 2.0])
    assert list(module.parameters()) == []
    assert module.double().label_values.dtype == torch.float64
    assert module.to("meta").label_values.device.type == "meta"


def test_label_values_survive_saving_as_weights_only():
    trained, fresh = OutlyingMSELoss([1.0, 5.5, 2.0]), OutlyingMSELoss([1.0, 1.0, 1.0])
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.label_values.tolist() == [1.0, 5.5, 2.0]


def test_from_counts_takes_every_option_of_the_label_values():
    counts = [500, 20, 0, 90]
    for options in (
        {},
        {"alpha": 6.0},
        {"label_values": "power", "power": 0.75},
        {"label_values": "effective", "beta": 0.9},
        {"label_values": [1.0, 2.0, 3.0, 4.0], "alpha": 2.0},
    ):
        module = OutlyingMSELoss.from_counts(counts, **options)
        assert torch.equal(module.label_values, label_values_from_counts(counts, **options))
    module = OutlyingMSELoss.from_counts(counts, ignore_index=-100, reduction="sum")
    assert (module.ignore_index, module.reduction) == (-100, "sum")


def test_repr_shows_what_was_chosen():
    module = OutlyingMSELoss([1, 2.5, 30], ignore_index=-100)
    assert repr(module) == "OutlyingMSELoss(label_values=[1, 2.5, 30], ignore_index=-100, reduction='mean')"


# All of it at once.


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    batch=st.integers(1, 3),
    num_classes=st.integers(2, 6),
    spatial=st.lists(st.integers(1, 5), max_size=3),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    label_dtype=st.sampled_from(LABEL_DTYPES[:5]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_any_shape_dtype_and_labelling_follows_the_equation(
    data, batch, num_classes, spatial, dtype, label_dtype, reduction, scale
):
    shape = (batch, num_classes, *spatial)
    ignore_index = data.draw(st.sampled_from([255, -100, -1, 0]))
    bounds = torch.iinfo(label_dtype)
    ids = list(range(num_classes))
    if bounds.min <= ignore_index <= bounds.max:
        ids.append(ignore_index)
    pixels = torch.zeros(batch, *spatial).numel()
    labels = torch.tensor(data.draw(st.lists(st.sampled_from(ids), min_size=pixels, max_size=pixels)))
    labels = labels.view(batch, *spatial).to(label_dtype)
    values = torch.tensor(
        data.draw(st.lists(st.floats(0.125, 700, width=32), min_size=num_classes, max_size=num_classes))
    )
    logits, _, _ = example(shape, seed=data.draw(st.integers(0, 2**31)), scale=scale, dtype=dtype)
    loss = outlying_mse_loss(logits, labels, values, ignore_index=ignore_index, reduction=reduction)
    expected = loop_loss(logits, labels, values, ignore_index=ignore_index, reduction=reduction)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    rtol = 1e-13 if dtype == torch.float64 else RTOL
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("fullgraph_of", ["mean", "none"])
def test_a_compiled_model_keeps_one_graph_and_gets_the_same_numbers(fullgraph_of):
    torch.manual_seed(0)
    head = torch.nn.Conv2d(3, 5, 1)
    images, labels = torch.randn(2, 3, 8, 9), torch.randint(0, 5, (2, 8, 9))
    labels[0, 0] = 255
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0, 4.0, 5.0], reduction=fullgraph_of)

    def step(x, y):
        return criterion(head(x), y).sum()

    eager = step(images, labels)
    (expected,) = torch.autograd.grad(eager, head.weight)
    # aot_eager traces forward and backward as inductor does, without needing a compiler; fullgraph raises on a break
    torch.compiler.reset()  # one code object is compiled only so many times
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)(images, labels)
    (got,) = torch.autograd.grad(compiled, head.weight)
    assert torch.equal(compiled, eager)
    torch.testing.assert_close(got, expected)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
@pytest.mark.parametrize("name", ["outlying_mse", "ce"])
def test_generated_code_gets_the_same_numbers_for_images_of_any_size(name, monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # with it torch 2.4's inductor refuses any F.cross_entropy, ours or not
    criterion = build_criterion(name, [100, 20, 3])
    torch.compiler.reset()  # one code object is compiled only so many times
    compiled = torch.compile(criterion, dynamic=True, fullgraph=True)
    for size in ((2, 8, 9), (1, 16, 5), (3, 7, 21)):
        logits, labels = torch.randn(size[0], 3, *size[1:], requires_grad=True), torch.randint(0, 3, size)
        labels[0, 0] = 255
        expected, found = criterion(logits, labels), compiled(logits, labels)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        (wanted,), (got,) = torch.autograd.grad(expected, logits), torch.autograd.grad(found, logits)
        torch.testing.assert_close(got, wanted)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
@pytest.mark.parametrize(
    "options", [{}, {"weight": [1.0, 5.0, 2.0], "reduction": "sum"}, {"upsample": "bilinear"}], ids=str
)
def test_generated_code_makes_the_gradient_once_and_multiplies_it(options):
    """Value and gradient come from one node; a factor from behind, as that of micro-batches, reaches the gradient."""
    torch.manual_seed(0)
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0], **options)
    logits = torch.randn(2, 3, 8, 9).to(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 3, (2, 16, 18) if "upsample" in options else (2, 8, 9))
    labels[0, 0] = 255
    graphs = []

    def look(graph, inputs):
        graphs.append(graph.code)
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    torch.compile(criterion, backend=aot_autograd(fw_compiler=look, bw_compiler=look))(logits, labels).backward()
    assert "outlying_mse_early" in graphs[0] and "segloss" not in graphs[1]
    torch.compiler.reset()
    value = torch.compile(lambda x, y: 0.25 * criterion(x, y))(logits, labels)
    (got,) = torch.autograd.grad(value, logits)
    (wanted,) = torch.autograd.grad(0.25 * criterion(logits, labels), logits)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("shape", [(3, 4, 70, 33), (40, 4, 5), (300, 4), (2, 4, 6, 7, 9)])
def test_bands_of_any_size_give_the_same_loss_and_gradient(shape, monkeypatch):
    from segloss.losses import bands

    torch.manual_seed(1)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (shape[0], *shape[2:]))
    labels[torch.rand(labels.shape) < 0.2] = 255
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    results = []
    for band in (2**20, 1000, 64, 1):
        monkeypatch.setattr(bands, "BAND_ELEMENTS", band)
        loss = outlying_mse_loss(logits, labels, values, reduction="none")
        results.append((loss, *torch.autograd.grad(loss.square().sum(), logits)))
    for loss, gradient in results[1:]:
        # float64 scores: only the order of additions within a pixel could differ, and it does not
        assert torch.equal(loss, results[0][0]) and torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (7, 3), (40, 3, 6)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_follow_the_equation(shape, reduction, monkeypatch):
    from segloss.losses import bands

    monkeypatch.setattr(bands, "BAND_ELEMENTS", 50)
    torch.manual_seed(2)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (shape[0], *shape[2:]))
    labels.view(-1)[0] = 255
    values, weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 4.0])
    pixel_weight = torch.rand(labels.shape, dtype=torch.float64)
    pixel_weight.view(-1)[0] = torch.nan  # at the ignored pixel
    options = {"weight": weight, "pixel_weight": pixel_weight, "reduction": reduction}
    loss = outlying_mse_loss(logits, labels, values, **options)

    scores = logits.movedim(1, -1).reshape(-1, 3)
    terms, total_weight = [], 0.0
    for z, y, own in zip(scores, labels.view(-1).tolist(), pixel_weight.view(-1), strict=True):
        if y == 255:
            terms.append(z.sum() * 0)
            continue
        w = float(weight[y]) * own
        terms.append(w * sum((z[c] - (values[y] if c == y else 0)) ** 2 for c in range(3)))
        total_weight += float(w)
    terms = torch.stack(terms)
    expected = {
        "sum": terms.sum(),
        "mean": terms.sum() / (3 * total_weight),
        "none": (terms / 3).view(labels.shape),
    }[reduction]
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)  # float64; other order of additions
    upstream = torch.randn_like(loss)
    got, wanted = (torch.autograd.grad(value, logits, upstream)[0] for value in (loss, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_weight_of_one_changes_nothing_and_scales_cancel_in_the_mean():
    torch.manual_seed(3)
    logits, labels = torch.randn(2, 4, 6, 5), torch.randint(0, 4, (2, 6, 5))
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    plain = outlying_mse_loss(logits, labels, values)
    ones = outlying_mse_loss(logits, labels, values, weight=torch.ones(4), pixel_weight=torch.ones(labels.shape))
    tens = outlying_mse_loss(logits, labels, values, weight=torch.full((4,), 10.0))
    torch.testing.assert_close(ones, plain)
    torch.testing.assert_close(tens, plain)


def test_all_pixel_weights_zero_give_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    loss = outlying_mse_loss(logits, labels, torch.ones(3), pixel_weight=torch.zeros(1, 4, 4))
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_module_with_class_weights_declares_their_tilt():
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0], weight=[4.0, 2.0, 1.0])
    torch.testing.assert_close(criterion.tilt, torch.tensor([4.0, 4.0, 3.0]))
    posterior = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1)
    optimum = 7 * criterion.tilt.view(1, 3, 1) * posterior
    torch.testing.assert_close(criterion.posterior(optimum), posterior)
    assert criterion.decide(optimum, tau=0.0).item() == 1
    assert "weight" in criterion.state_dict() and "class weights" in repr(criterion)


def test_weights_of_the_wrong_shape_or_sign_are_refused():
    logits, labels = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="weight must have shape"):
        outlying_mse_loss(logits, labels, torch.ones(3), weight=torch.ones(4))
    with pytest.raises(ValueError, match="weight must be positive"):
        outlying_mse_loss(logits, labels, torch.ones(3), weight=torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="pixel_weight must have the shape of labels"):
        outlying_mse_loss(logits, labels, torch.ones(3), pixel_weight=torch.ones(2, 2))
    with pytest.raises(ValueError, match="weight must have shape"):
        OutlyingMSELoss([1.0, 2.0], weight=[1.0, 2.0, 3.0])
