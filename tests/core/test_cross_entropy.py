"""Cross entropy and its focal form against torch's own and against a float64 loop; the criteria by name."""

import io
import math

import pytest
import torch
import torch.nn.functional as F

from segloss.losses import (
    LOSSES,
    CrossEntropyLoss,
    FocalLoss,
    OutlyingMSELoss,
    build_criterion,
    class_weights_from_counts,
    cross_entropy_loss,
    focal_loss,
    label_values_from_counts,
)

SHAPES = [(5, 3), (2, 4, 6), (2, 5, 4, 3), (2, 3, 2, 3, 4), (1, 2, 1, 1), (3, 11, 7, 13)]
COUNTS = [9000, 900, 0, 100]

# float32: exp, log and the sums over classes and pixels round by 6e-8 each.
RTOL = 2e-6


def example(shape, *, seed=0, ignored=0.2, scale=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    labels.view(-1)[0] = 1  # at least one valid pixel
    weight = torch.rand(shape[1], generator=generator) + 0.1
    return logits, labels, weight


def loop_focal(logits, labels, gamma, weight=None, reduction="mean"):
    """The docstring's equation in float64 Python numbers, one pixel after the other."""
    num_classes = logits.shape[1]
    scores = logits.detach().double().reshape(len(logits), num_classes, -1).mT.tolist()
    ids = labels.long().reshape(len(labels), -1).tolist()
    weights = [1.0] * num_classes if weight is None else weight.double().tolist()
    terms, weight_sum = [], 0.0
    for image, image_ids in zip(scores, ids, strict=True):
        for z, y in zip(image, image_ids, strict=True):
            if y == 255:
                terms.append(0.0)
                continue
            others = sum(math.exp(z[c] - z[y]) for c in range(num_classes) if c != y)
            terms.append(weights[y] * (others / (1 + others)) ** gamma * math.log1p(others))
            weight_sum += weights[y]
    if reduction == "none":
        return torch.tensor(terms, dtype=torch.float64).view(labels.shape)
    total = math.fsum(terms)
    return torch.tensor(total / weight_sum if reduction == "mean" else total, dtype=torch.float64)


def gradient(loss_function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss_function(logits), logits)[0]


# Cross entropy against torch's.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_equals_torchs(shape, weighted, reduction):
    logits, labels, weight = example(shape)
    weight = weight if weighted else None
    actual = cross_entropy_loss(logits, labels, weight=weight, reduction=reduction)
    expected = F.cross_entropy(logits, labels, weight, ignore_index=255, reduction=reduction)
    torch.testing.assert_close(actual, expected, rtol=RTOL, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_cross_entropy_equals_torchs(weighted):
    logits, labels, weight = example((3, 11, 7, 13), dtype=torch.float64)
    weight = weight.double() if weighted else None
    actual = gradient(lambda z: cross_entropy_loss(z, labels, weight=weight), logits)
    expected = gradient(lambda z: F.cross_entropy(z, labels, weight, ignore_index=255), logits)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)  # float64


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 255])
def test_any_ignore_index(ignore_index):
    logits, labels, weight = example((3, 11, 7, 13))
    labels = torch.where(labels == 255, ignore_index, labels)
    actual = cross_entropy_loss(logits, labels, weight=weight, ignore_index=ignore_index)
    expected = F.cross_entropy(logits, labels, weight, ignore_index=ignore_index)
    torch.testing.assert_close(actual, expected, rtol=RTOL, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_every_integer_label_dtype_gives_the_same_loss(dtype):
    logits, labels, weight = example((3, 11, 7, 13))
    expected = focal_loss(logits, labels, weight=weight)
    assert torch.equal(focal_loss(logits, labels.to(dtype), weight=weight), expected)


# The focal form.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss_follows_its_equation(gamma, weighted, reduction):
    logits, labels, weight = example((3, 11, 7, 13))
    weight = weight if weighted else None
    actual = focal_loss(logits, labels, gamma=gamma, weight=weight, reduction=reduction)
    expected = loop_focal(logits, labels, gamma, weight, reduction)
    # -log p is rounded to 1e-7 absolute where p is near 1 (logits of size 10, eps 1.2e-7 each): atol.
    torch.testing.assert_close(actual.double(), expected, rtol=RTOL * (1 + gamma), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_focal_loss_of_any_shape_in_float64(shape):
    logits, labels, weight = example(shape, dtype=torch.float64)
    actual = focal_loss(logits, labels, weight=weight)
    torch.testing.assert_close(actual, loop_focal(logits, labels, 2.0, weight), rtol=1e-12, atol=0)


def test_gamma_zero_is_cross_entropy():
    logits, labels, weight = example((3, 11, 7, 13))
    for w in (None, weight):
        assert torch.equal(focal_loss(logits, labels, gamma=0, weight=w), cross_entropy_loss(logits, labels, weight=w))


def test_gamma_near_zero_goes_to_cross_entropy():
    logits, labels, _ = example((3, 11, 7, 13), dtype=torch.float64)
    near = focal_loss(logits, labels, gamma=1e-9)
    # (1 - p) ** gamma = 1 + gamma log(1 - p), and log(1 - p) is above -50 here.
    torch.testing.assert_close(near, cross_entropy_loss(logits, labels), rtol=1e-7, atol=0)


def test_well_classified_pixels_count_less():
    logits = torch.tensor([[4.0, 0.0], [0.5, 0.0], [-2.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.long)
    factor = focal_loss(logits, labels, reduction="none") / cross_entropy_loss(logits, labels, reduction="none")
    p = logits.softmax(1)[:, 0]
    torch.testing.assert_close(factor, (1 - p) ** 2, rtol=1e-5, atol=0)  # float32 1 - p at p = 0.98
    assert factor[0] < factor[1] < factor[2] < 1


def test_focal_factor_keeps_its_digits_at_confident_pixels():
    """``1 - exp(-ce)`` would keep three of seven at p = 1 - 4.5e-5."""
    logits = torch.tensor([[10.0, 0.0], [8.0, 0.0], [12.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.long)
    ce = cross_entropy_loss(logits, labels, reduction="none").double()
    focal = focal_loss(logits, labels, gamma=1, reduction="none")
    torch.testing.assert_close(focal.double(), -torch.expm1(-ce) * ce, rtol=RTOL, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradcheck(gamma, reduction):
    logits, labels, weight = example((2, 3, 2), ignored=0, dtype=torch.float64)
    labels[0, 0] = 255
    logits[1, labels[1, 0], 0] += 8  # a confident pixel, p = 0.999
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: focal_loss(z, labels, gamma=gamma, weight=weight.double(), reduction=reduction), logits
    )


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_pixel_of_probability_one_has_zero_loss_and_zero_gradient(dtype, gamma):
    """There 1 - p is 0 and its power below 1 has no finite derivative."""
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], dtype=dtype)
    labels = torch.tensor([0])
    assert float(focal_loss(logits, labels, gamma=gamma)) == 0
    assert not bool(gradient(lambda z: focal_loss(z, labels, gamma=gamma), logits).any())


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_hopeless_pixel_keeps_a_finite_loss_and_the_full_gradient(gamma):
    logits = torch.tensor([[-1e4, 1e4, -1e4]])
    labels = torch.tensor([0])
    assert float(focal_loss(logits, labels, gamma=gamma)) == 2e4
    assert gradient(lambda z: focal_loss(z, labels, gamma=gamma), logits).tolist() == [[-1.0, 1.0, 0.0]]


def test_low_precision_scores_are_computed_in_float32():
    for dtype in (torch.float16, torch.bfloat16):
        logits, labels, weight = example((3, 11, 7, 13), dtype=dtype)
        loss = focal_loss(logits, labels, weight=weight)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, focal_loss(logits.float(), labels, weight=weight))
        grad = gradient(lambda z, y=labels, w=weight: focal_loss(z, y, weight=w), logits)
        assert grad.dtype == dtype


def test_autocast_leaves_the_loss_in_float32():
    logits, labels, weight = example((3, 11, 7, 13), dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_loss(logits, labels, weight=weight)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, focal_loss(logits, labels, weight=weight))


# Ignored pixels and inputs that do not fit.


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_valid_pixel_gives_zero_loss_and_zero_gradient(gamma, weighted):
    logits, labels, weight = example((2, 3, 4, 5))
    labels = torch.full_like(labels, 255)
    options = {"gamma": gamma, "weight": weight if weighted else None}
    for reduction in ("mean", "sum"):
        assert float(focal_loss(logits, labels, reduction=reduction, **options)) == 0
        grad = gradient(lambda z, r=reduction: focal_loss(z, labels, reduction=r, **options), logits)
        assert torch.equal(grad, torch.zeros_like(logits))
    assert not bool(focal_loss(logits, labels, reduction="none", **options).any())


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_finite_scores_at_ignored_pixels_change_neither_loss_nor_gradient(gamma):
    logits, labels, weight = example((3, 11, 7, 13))
    ignored = (labels == 255).unsqueeze(1)
    other = torch.where(ignored, 1e4 * logits, logits)

    def loss(z):
        return focal_loss(z, labels, gamma=gamma, weight=weight)

    assert torch.equal(loss(other), loss(logits))
    assert torch.equal(gradient(loss, other), gradient(loss, logits))
    assert not bool(torch.where(ignored, gradient(loss, other), 0).any())


@pytest.mark.parametrize("stray", [float("nan"), float("inf")])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_scores_that_are_no_numbers_at_ignored_pixels_do_not_change_the_loss(gamma, stray):
    """Nor the gradient at valid pixels; at the ignored ones it is what ``F.cross_entropy`` gives."""
    logits, labels, weight = example((3, 11, 7, 13))
    ignored = (labels == 255).unsqueeze(1)
    poisoned = torch.where(ignored, stray, logits)

    def loss(z):
        return focal_loss(z, labels, gamma=gamma, weight=weight)

    assert torch.equal(loss(poisoned), loss(logits))
    difference = torch.where(ignored, 0, gradient(loss, poisoned) - gradient(loss, logits))
    assert not bool(difference.any())


@pytest.mark.parametrize("function", [cross_entropy_loss, focal_loss])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.tensor([[0, 1, 3]])}, IndexError, r"labels hold 3, outside \[0, 3\)"),
        ({"labels": torch.tensor([[0, -1, 2]])}, IndexError, "labels hold -1"),
        ({"labels": torch.zeros(1, 1, 3, dtype=torch.long)}, ValueError, r"labels must have shape \(1, 3\)"),
        ({"labels": torch.zeros(1, 3)}, TypeError, "labels must hold integer class ids, got torch.float32"),
        ({"logits": torch.zeros(1, 3, 3, dtype=torch.long)}, TypeError, "logits must be floating point"),
        ({"weight": torch.ones(2)}, ValueError, r"weight must have shape \(3,\).*got \(2,\)"),
        ({"weight": torch.tensor([1.0, 0.0, 1.0])}, ValueError, "weight must be positive"),
        ({"reduction": "avg"}, ValueError, "reduction must be one of mean, sum, none, got 'avg'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(function, change, error, message):
    inputs = {"logits": torch.zeros(1, 3, 3), "labels": torch.tensor([[0, 1, 2]])}
    with pytest.raises(error, match=message):
        function(**{**inputs, **change})


@pytest.mark.parametrize("gamma", [-0.5, math.nan])
def test_a_gamma_that_cannot_be_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma must be >= 0 and finite, got {gamma}"):
        focal_loss(torch.zeros(1, 3), torch.tensor([0]), gamma=gamma)


def test_inputs_stay_unchanged():
    logits, labels, weight = example((3, 11, 7, 13))
    logits.requires_grad_()
    before = [tensor.detach().clone() for tensor in (logits, labels, weight)]
    focal_loss(logits, labels, weight=weight).backward()
    for tensor, copy in zip((logits, labels, weight), before, strict=True):
        assert torch.equal(tensor, copy)


# The modules.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_modules_equal_the_functions(weighted, reduction):
    logits, labels, weight = example((3, 11, 7, 13))
    options = {"weight": weight if weighted else None, "reduction": reduction, "ignore_index": 3}
    labels[labels == 255] = 3
    assert torch.equal(
        FocalLoss(gamma=1.5, **options)(logits, labels), focal_loss(logits, labels, gamma=1.5, **options)
    )
    assert torch.equal(CrossEntropyLoss(**options)(logits, labels), cross_entropy_loss(logits, labels, **options))


def test_weight_is_a_buffer_that_moves_and_is_the_modules_own():
    weight = torch.tensor([1.0, 2.0])
    module = FocalLoss(weight=weight)
    weight[0] = 9
    assert module.weight.tolist() == [1.0, 2.0]
    assert list(module.parameters()) == []
    assert module.double().weight.dtype == torch.float64
    assert module.to("meta").weight.device.type == "meta"


@pytest.mark.parametrize("module", [CrossEntropyLoss, FocalLoss])
def test_weight_survives_saving_as_weights_only(module):
    trained, fresh = module(weight=[1.0, 5.5, 2.0]), module(weight=[1.0, 1.0, 1.0])
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.weight.tolist() == [1.0, 5.5, 2.0]


def test_without_weight_there_is_nothing_to_save():
    assert CrossEntropyLoss().state_dict() == {}
    assert FocalLoss().state_dict() == {}


def test_cross_entropy_from_counts_takes_the_recipes_of_the_class_weights():
    pixels = [10000, 5000, 0, 1000]
    expected = class_weights_from_counts(COUNTS, pixels_of_images=pixels)
    options = {"class_weights": "median_frequency", "pixels_of_images": pixels}
    module = CrossEntropyLoss.from_counts(COUNTS, **options, ignore_index=-1, reduction="sum")
    assert torch.equal(module.weight, expected)
    assert (module.ignore_index, module.reduction) == (-1, "sum")
    module = CrossEntropyLoss.from_counts(COUNTS, class_weights="enet")
    assert torch.equal(module.weight, class_weights_from_counts(COUNTS, "enet"))


def test_repr_shows_what_was_chosen():
    assert repr(FocalLoss(gamma=1.5)) == "FocalLoss(gamma=1.5, ignore_index=255, reduction='mean')"
    assert "class weights" in repr(CrossEntropyLoss(weight=[1.0, 2.0]))
    assert "class weights" not in repr(CrossEntropyLoss())


# Criteria by name.


@pytest.mark.parametrize("name", LOSSES)
def test_every_named_criterion_gives_a_loss_with_a_gradient(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels, _ = example((2, 4, 6, 5))
    logits.requires_grad_()
    criterion(logits, labels).backward()
    assert bool(logits.grad.isfinite().all())
    assert bool(logits.grad.any())
    assert criterion.posterior(logits).shape == logits.shape
    assert criterion.decide(logits).shape == labels.shape


def test_named_criteria_are_the_losses_of_that_name():
    logits, labels, _ = example((2, 4, 6, 5))
    one_hot = F.one_hot(labels.clamp(max=3), 4).movedim(-1, 1).float()
    valid = (labels != 255).unsqueeze(1).expand_as(logits)
    weight = class_weights_from_counts(COUNTS)
    expected = {
        "mse": F.mse_loss(logits[valid], one_hot[valid]),
        "ce": F.cross_entropy(logits, labels, ignore_index=255),
        "weighted_ce": F.cross_entropy(logits, labels, weight, ignore_index=255),
        "focal": loop_focal(logits, labels, 2.0).float(),
        "outlying_mse": OutlyingMSELoss([1, 2, 4, 3])(logits, labels),  # the ranks of COUNTS
    }
    for name, loss in expected.items():
        actual = build_criterion(name, COUNTS)(logits, labels)
        torch.testing.assert_close(actual, loss, rtol=1e-5, atol=0, msg=name)  # float32, other order of summation


def test_options_reach_the_criterion():
    options = {"alpha": 6.0, "label_values": "power", "power": 0.75}
    outlying = build_criterion("outlying_mse", COUNTS, **options)
    assert torch.equal(outlying.label_values, label_values_from_counts(COUNTS, **options))
    assert build_criterion("mse", COUNTS, **options).label_values.tolist() == [6.0] * 4
    assert build_criterion("focal", COUNTS, gamma=0.7).gamma == 0.7
    pixels = [10000, 5000, 0, 1000]
    weighted = build_criterion("weighted_ce", COUNTS, pixels_of_images=pixels)
    assert torch.equal(weighted.weight, class_weights_from_counts(COUNTS, pixels_of_images=pixels))
    weighted = build_criterion("weighted_ce", COUNTS, class_weights="inverse_sqrt")
    assert torch.equal(weighted.weight, class_weights_from_counts(COUNTS, "inverse_sqrt"))


@pytest.mark.parametrize("name", ["cee", "", "ce+", "2*", "ce*2", "x*ce", "weighted_", "ce dice"])
def test_an_unknown_loss_names_the_choices(name):
    with pytest.raises(ValueError, match="unknown loss") as error:
        build_criterion(name, COUNTS)
    assert ", ".join(LOSSES) in str(error.value)
