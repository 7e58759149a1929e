"""The weight of the true class's error: value, gradient, optimum, and how scores are read back."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from segloss.losses import build_criterion
from segloss.losses.outlying import MSELoss, OutlyingMSELoss, outlying_mse_loss, without_true_channel_weight

VALUES = torch.tensor([1.0, 2.5, 7.0])


def by_hand(z, labels, k, weight=None, pixel_weight=None, reduction="mean"):
    """The equation, pixel by pixel, float64; 255 is ignored."""
    terms, total = [], 0.0
    own = torch.ones(labels.shape) if pixel_weight is None else pixel_weight
    for scores, y, o in zip(z.double().movedim(1, -1).reshape(-1, 3), labels.flatten(), own.flatten(), strict=True):
        if y == 255:
            terms.append(torch.zeros((), dtype=torch.float64))
            continue
        w = float(o) * (1 if weight is None else float(weight[y]))
        errors = [(scores[c] - VALUES[y]) ** 2 * k if c == y else scores[c] ** 2 for c in range(3)]
        terms.append(w * sum(errors))
        total += w
    terms = torch.stack(terms)
    if reduction == "none":
        return (terms / 3).view(labels.shape)
    return terms.sum() if reduction == "sum" else terms.sum() / (3 * total) if total else terms.sum()


def case(shape=(3, 5, 7), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, shape, generator=generator)
    labels[0, 0] = 255
    return torch.randn(shape[0], 3, *shape[1:], generator=generator, dtype=dtype) * 4, labels


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("k", [0.25, 3.0, 11.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_value_is_that_of_the_equation(reduction, k, weighted):
    z, labels = case()
    extra = {"weight": torch.tensor([0.5, 1.0, 4.0]), "pixel_weight": torch.rand(labels.shape)} if weighted else {}
    loss = outlying_mse_loss(z, labels, VALUES, true_channel_weight=k, reduction=reduction, **extra)
    expected = by_hand(z, labels, k, reduction=reduction, **extra)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_the_value():
    z, labels = case((1, 2, 3), torch.float64)
    assert gradcheck(
        lambda z: outlying_mse_loss(z, labels, VALUES.double(), true_channel_weight=5.0), z.requires_grad_(True)
    )


def test_a_weight_of_one_changes_no_bit():
    z, labels = case()
    plain = outlying_mse_loss(z, labels, VALUES)
    assert torch.equal(outlying_mse_loss(z, labels, VALUES, true_channel_weight=1.0), plain)
    assert OutlyingMSELoss(VALUES, true_channel_weight=1.0).posterior_formula == "outlying"


def test_ignored_scores_that_are_no_numbers_change_nothing_and_no_valid_pixel_gives_zero():
    z, labels = case()
    bad = z.clone().masked_fill((labels == 255).unsqueeze(1), torch.nan).requires_grad_(True)
    loss = outlying_mse_loss(bad, labels, VALUES, true_channel_weight=3.0)
    loss.backward()
    assert torch.equal(loss.detach(), outlying_mse_loss(z, labels, VALUES, true_channel_weight=3.0))
    assert bad.grad.isfinite().all()
    assert outlying_mse_loss(z, torch.full_like(labels, 255), VALUES, true_channel_weight=3.0) == 0


@pytest.mark.parametrize("masked", [False, True])
def test_parts_of_a_batch_add_up(masked):
    z, labels = case((4, 3, 5))
    mask = torch.tensor([[True, True, True], [True, False, True]] * 2) if masked else None
    criterion = OutlyingMSELoss(VALUES, weight=[1.0, 2.0, 3.0], true_channel_weight=3.0)
    whole = criterion.divisor(labels, class_mask=mask)
    parts = [
        criterion(z[i : i + 2], labels[i : i + 2], divisor=whole, class_mask=None if mask is None else mask[i : i + 2])
        for i in (0, 2)
    ]
    torch.testing.assert_close(sum(parts), criterion(z, labels, class_mask=mask))


def test_smaller_scores_are_interpolated_first():
    z, labels = case((2, 8, 6))
    small = z[..., ::2, ::2].contiguous()
    large = F.interpolate(small, (8, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        OutlyingMSELoss(VALUES, upsample="bilinear", true_channel_weight=3.0)(small, labels),
        outlying_mse_loss(large, labels, VALUES, true_channel_weight=3.0),
    )
    half = {"upsample": "bilinear", "true_channel_weight": 3.0, "reduction": "none"}
    bf16 = small.bfloat16()
    computed = outlying_mse_loss(bf16, labels, VALUES, **half)  # it was interpolated in half precision
    torch.testing.assert_close(computed, outlying_mse_loss(bf16.float(), labels, VALUES, **half))


@pytest.mark.parametrize("k", [0.25, 1.0, 3.0, 11.0])
@pytest.mark.parametrize("weight", [None, [4.0, 1.0, 0.2]])
def test_the_scores_of_a_posterior_are_the_minimum_and_are_read_back(k, weight):
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    criterion = OutlyingMSELoss(VALUES, weight=weight, true_channel_weight=k)
    z = criterion.scores_of(p).requires_grad_(True)
    w = torch.ones(3) if weight is None else torch.tensor(weight)
    pixels, labels = z.view(1, 3, 1).expand(1, 3, 3), torch.arange(3).view(1, 3)
    loss = outlying_mse_loss(
        pixels, labels, VALUES.double(), weight=w.double(), pixel_weight=p.view(1, 3), true_channel_weight=k
    )
    (gradient,) = torch.autograd.grad(loss, z)
    assert gradient.abs().max() < 1e-9
    torch.testing.assert_close(criterion.posterior(z.view(1, 3, 1)).view(3), p, rtol=1e-6, atol=1e-7)
    assert int(criterion.decide(z.view(1, 3, 1), 0.0)) == 0


def test_scores_beyond_the_label_values_keep_their_order():
    z = torch.linspace(-3, 3, 61)
    read = without_true_channel_weight(z.view(1, 1, -1), torch.ones(1), 4.0).flatten()
    assert (read.diff() > 0).all()
    criterion = OutlyingMSELoss(VALUES, true_channel_weight=4.0)
    z, _ = case()
    assert torch.equal(criterion.posterior(z).argmax(1), criterion.decide(z, 0.0))
    assert torch.equal(criterion.decide(z), z.argmax(1))


@pytest.mark.parametrize("name", ["outlying_mse", "mse", "weighted_outlying_mse", "outlying_mse+0.5*mse"])
def test_it_is_had_by_name(name):
    z, labels = case()
    counts = [9000, 900, 100]
    changed = build_criterion(name, counts, true_channel_weight=3.0)
    assert "true_channel_weight=3" in repr(changed)
    assert changed(z, labels) > build_criterion(name, counts)(z, labels)


@pytest.mark.parametrize("k", [0, -1, float("nan"), float("inf"), "3", True])
def test_other_weights_are_refused(k):
    with pytest.raises((ValueError, TypeError), match="true_channel_weight"):
        MSELoss([1.0, 1.0], true_channel_weight=k)
    with pytest.raises((ValueError, TypeError), match="true_channel_weight"):
        outlying_mse_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2).long(), torch.ones(2), true_channel_weight=k)
