"""The loss that interpolates on its way, against F.interpolate in float64 followed by the loss."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from segloss.losses import OutlyingMSELoss, bands, outlying_mse_loss

VALUES = torch.tensor([1.0, 5.0, 2.0])
SIZES = [
    ((4, 6), (16, 24)),  # an integer ratio
    ((5, 7), (9, 20)),  # odd ratios
    ((33, 65), (129, 257)),  # DeepLab's 4n + 1
    ((1, 1), (5, 6)),
    ((3, 4), (3, 4)),  # the same size
    ((9, 8), (4, 3)),  # smaller labels
    ((7, 1), (1, 9)),
]


def case(size, new_size, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(2, 3, *size, generator=generator)).to(dtype)
    labels = torch.randint(0, 3, (2, *new_size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, labels


def both(logits, labels, align_corners, upstream=None, **options):
    """Value and gradient of ours, then of interpolate-then-loss in float64."""
    results = []
    for dtype in (logits.dtype, torch.float64):
        leaf = logits.to(dtype).requires_grad_()
        if dtype == logits.dtype and not results:
            value = outlying_mse_loss(leaf, labels, VALUES, upsample="bilinear", align_corners=align_corners, **options)
        else:
            full = F.interpolate(leaf, labels.shape[1:], mode="bilinear", align_corners=align_corners)
            value = outlying_mse_loss(full, labels, VALUES, **options)
        (grad,) = torch.autograd.grad(value, leaf, None if upstream is None else upstream.to(value))
        results += [value.detach().double(), grad.double()]
    return results


def assert_near(got, expected, tolerance):
    """Relative to the norm of all entries: single ones may cancel to nothing."""
    assert got.shape == expected.shape
    assert float((got - expected).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "new_size"), SIZES)
@pytest.mark.parametrize("band", [2**20, 100, 1])
def test_it_is_interpolate_then_loss(size, new_size, align_corners, band, monkeypatch):
    monkeypatch.setattr(bands, "BAND_ELEMENTS", band)
    logits, labels = case(size, new_size)
    value, grad, expected, expected_grad = both(logits, labels, align_corners)
    assert_near(value, expected, 1e-6)
    assert_near(grad, expected_grad, 1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_weights_and_reductions(reduction, align_corners, monkeypatch):
    monkeypatch.setattr(bands, "BAND_ELEMENTS", 200)
    logits, labels = case((5, 7), (9, 20), torch.float64)
    options = {
        "reduction": reduction,
        "weight": torch.tensor([0.5, 1.0, 4.0]),
        "pixel_weight": torch.rand(labels.shape, dtype=torch.float64),
    }
    upstream = torch.randn(labels.shape) if reduction == "none" else torch.tensor(0.3)
    value, grad, expected, expected_grad = both(logits, labels, align_corners, upstream, **options)
    assert_near(value, expected, 1e-12)
    assert_near(grad, expected_grad, 1e-12)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    align_corners=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
def test_any_size(size, new_size, align_corners, dtype, seed):
    logits, labels = case(size, new_size, dtype, seed)
    if not bool((labels != 255).any()):
        labels[0, 0, 0] = 1
    value, grad, expected, expected_grad = both(logits, labels, align_corners)
    assert_near(value, expected, 1e-12 if dtype == torch.float64 else 1e-6)
    # The gradient is added up in float32 and rounded once to half precision.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-9}[dtype]
    assert_near(grad, expected_grad, tolerance)


def test_a_long_axis_keeps_its_digits():
    """512 to 2047: torch's own float32 positions are off by 1e-5 there; ours are made in float64."""
    logits, labels = case((1, 512), (1, 2047))
    value, grad, expected, expected_grad = both(logits, labels, False)
    assert_near(value, expected, 1e-6)
    assert_near(grad, expected_grad, 1e-6)


def test_scores_that_touch_only_ignored_pixels_may_be_nan():
    logits, labels = case((4, 4), (16, 16))
    logits[0, :, 0, 0] = torch.nan  # reaches the new pixels 0 ... 5 both ways
    labels[0, :6, :6] = 255
    logits.requires_grad_()
    loss = outlying_mse_loss(logits, labels, VALUES, upsample="bilinear")
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())
    assert bool((logits.grad[0, :, 0, 0] == 0).all())


def test_all_ignored_is_zero_with_zero_gradient():
    logits, labels = case((4, 4), (9, 9))
    logits.requires_grad_()
    loss = outlying_mse_loss(logits, torch.full_like(labels, 255), VALUES, upsample="bilinear")
    loss.backward()
    assert loss == 0
    assert not bool(logits.grad.any())


def test_a_stray_label_raises_index_error():
    logits, labels = case((4, 4), (9, 9))
    labels[1, 8, 8] = 3
    with pytest.raises(IndexError, match=r"labels hold 3, outside \[0, 3\)"):
        outlying_mse_loss(logits, labels, VALUES, upsample="bilinear")


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((2, 3, 4, 5), (2, 1, 16, 20), r"shape \(2, 16, 20\).*got \(2, 1, 16, 20\); squeeze dim 1"),
        ((2, 3, 4, 5), (1, 16, 20), r"shape \(2, 16, 20\)"),
        ((2, 3, 20), (2, 40), r"upsample needs logits of shape \(N, C, h, w\)"),
        ((2, 3, 0, 5), (2, 16, 20), "not empty"),
    ],
)
def test_shapes_that_cannot_be_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        outlying_mse_loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), VALUES, upsample="bilinear")


def test_another_mode_is_refused_at_once():
    with pytest.raises(ValueError, match="upsample must be None or 'bilinear', got 'nearest'"):
        OutlyingMSELoss(VALUES, upsample="nearest")


def test_smaller_logits_without_upsample_name_the_cure():
    with pytest.raises(ValueError, match=r'interpolate the logits, or take OutlyingMSELoss\(upsample="bilinear"\)'):
        outlying_mse_loss(torch.zeros(2, 3, 4, 5), torch.zeros(2, 16, 20, dtype=torch.int64), VALUES)


def test_the_module_says_and_does_the_same():
    logits, labels = case((5, 7), (9, 20))
    criterion = OutlyingMSELoss(VALUES, upsample="bilinear", align_corners=True)
    assert "upsample='bilinear', align_corners=True" in repr(criterion)
    expected = outlying_mse_loss(logits, labels, VALUES, upsample="bilinear", align_corners=True)
    assert torch.equal(criterion(logits, labels), expected)
    counted = OutlyingMSELoss.from_counts([9, 1, 5], upsample="bilinear", align_corners=True)
    assert counted.upsample == "bilinear" and counted.align_corners


class Largest(TorchDispatchMode):
    """Counts the elements of every tensor that torch makes, and keeps the largest number but for some."""

    def __init__(self, but: int = 0):
        super().__init__()
        self.elements, self.but = 0, but

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                elements = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, elements if elements != self.but else 0)
        return out


def test_no_tensor_of_the_full_size_is_ever_made():
    """Every tensor that torch makes in a step is counted: none has the elements of the interpolated logits."""
    logits, labels = torch.randn(1, 19, 256, 256, requires_grad=True), torch.randint(0, 19, (1, 1024, 1024))
    values = torch.arange(1.0, 20.0)
    with Largest() as watch:
        outlying_mse_loss(logits, labels, values, upsample="bilinear").backward()
    assert watch.elements <= 2 * bands.BAND_ELEMENTS < 19 * 1024 * 1024 / 4
    with Largest() as watch:
        full = F.interpolate(logits, (1024, 1024), mode="bilinear")
        outlying_mse_loss(full, labels, values).backward()
    assert watch.elements == 19 * 1024 * 1024  # the watch does see one


@pytest.mark.parametrize("shape", [(1, 19, 1024, 512), (1, 19, 1, 512, 1024), (1, 19, 2, 256, 1024), (1, 19, 1, 2**19)])
def test_beside_the_gradient_no_tensor_grows_with_the_logits_whatever_their_shape(shape):
    logits, labels = torch.randn(shape, requires_grad=True), torch.randint(0, 19, (1, *shape[2:]))
    with Largest(but=logits.numel()) as watch:  # the logits' own storage and that of their gradient
        outlying_mse_loss(logits, labels, torch.arange(1.0, 20.0)).backward()
    assert 0 < watch.elements <= bands.BAND_ELEMENTS < logits.numel() / 4
