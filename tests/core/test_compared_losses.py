"""The losses the outlying label is compared with: one contract for all, an independent reference for each."""

import copy
import io
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.losses import (
    CLASS_WEIGHTS,
    LOSSES,
    CrossEntropyLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    OHEMCrossEntropyLoss,
    OutlyingMSELoss,
    SumLoss,
    TverskyLoss,
    VectorScalingLoss,
    build_criterion,
    class_prior,
    class_weights_from_counts,
    cross_entropy_loss,
    dice_loss,
    jaccard_loss,
    ldam_loss,
    logit_adjusted_loss,
    lovasz_softmax_loss,
    ohem_cross_entropy_loss,
    tversky_loss,
    vector_scaling_loss,
)

COUNTS = [9000, 900, 0, 100]
SUMS = ("ce+dice", "0.3*weighted_focal+2*lovasz", "mse+0.5*outlying_mse")
NAMES = (*LOSSES, *(f"weighted_{name}" for name in LOSSES), *SUMS)
REGIONS = ("dice", "jaccard", "tversky", "lovasz")
SHAPES = [(5, 4), (2, 4, 6), (2, 4, 5, 3), (2, 4, 2, 3, 2)]


def example(shape=(2, 4, 6, 5), seed=0, ignored=0.2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    labels.view(-1)[0] = 1  # at least one valid pixel
    return logits, labels


def gradient(criterion, logits, labels):
    leaf = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(criterion(leaf, labels), leaf)
    return grad


# What every loss keeps.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_trailing_shape_is_one_list_of_pixels(name, shape):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example(shape, ignored=0)
    flat = logits.movedim(1, -1).reshape(-1, 4)
    torch.testing.assert_close(criterion(logits, labels), criterion(flat, labels.flatten()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_pixels_equals_leaving_them_out(name):
    if "ohem" in name:
        pytest.skip("its least share is one of all pixels")
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    valid = labels != 255
    kept, kept_labels = logits.movedim(1, -1)[valid], labels[valid]
    torch.testing.assert_close(criterion(logits, labels), criterion(kept, kept_labels), rtol=1e-5, atol=1e-7)
    grad = gradient(criterion, logits, labels).movedim(1, -1)
    assert not bool(grad[~valid].any())
    torch.testing.assert_close(grad[valid], gradient(criterion, kept, kept_labels), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_arithmetic_is_float32_or_wider(name, dtype):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example(dtype=dtype)
    loss = criterion(logits, labels)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(loss.float(), criterion(logits.float(), labels), rtol=1e-5, atol=1e-7)
    assert gradient(criterion, logits, labels).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_no_valid_pixel_gives_zero_with_zero_gradient(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    labels.fill_(255)
    assert criterion(logits, labels) == 0
    assert not bool(gradient(criterion, logits, labels).any())


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_any_integer_type_and_none_out_of_range(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    expected = criterion(logits, labels)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(criterion(logits, labels.to(dtype)), expected)
    labels[1, 5, 4] = 4
    with pytest.raises(IndexError, match=r"labels hold 4, outside \[0, 4\)"):
        criterion(logits, labels)
    with pytest.raises(ValueError, match="squeeze dim 1"):
        criterion(logits, labels.unsqueeze(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stray", [7, -100, -1])
def test_a_label_out_of_range_stops_a_compiled_loss_too(name, stray):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example((1, 4, 7))
    labels[0, 3] = stray
    torch.compiler.reset()  # one code object is compiled only so many times
    for loss in (criterion, torch.compile(criterion, backend="aot_eager", fullgraph=True)):
        with pytest.raises((IndexError, RuntimeError), match=r"outside \[0, 4\)"):
            loss(logits, labels)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_score_at_an_ignored_pixel_changes_neither_value_nor_gradient(name, value):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    stray = logits.clone()
    stray.movedim(1, -1)[labels == 255] = value
    torch.testing.assert_close(criterion(stray, labels), criterion(logits, labels), rtol=0, atol=0)
    expected = gradient(criterion, logits, labels)
    torch.testing.assert_close(gradient(criterion, stray, labels), expected, rtol=0, atol=0)
    assert not expected.movedim(1, -1)[labels == 255].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_score_at_a_valid_pixel_shows(name):
    logits, labels = example()
    logits[:, 0][labels == 1] = math.nan
    assert build_criterion(name, COUNTS)(logits, labels).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_buffers_stay_float32_when_a_model_is_cast_with_its_criterion(name, dtype):
    counts = [10**9, 10**6, 10, 3]  # priors and weights beyond float16
    criterion, cast = (build_criterion(name, counts) for _ in range(2))
    cast.to(dtype)
    logits, labels = example()
    assert torch.equal(cast(logits, labels), criterion(logits, labels))
    assert all(buffer.dtype == torch.float32 for buffer in cast.buffers())
    assert all(buffer.dtype == torch.float64 for buffer in cast.double().buffers())
    assert all(buffer.device.type == "meta" for buffer in cast.half().to("meta").buffers())


@pytest.mark.parametrize("state", ["random", "confident", "converged"])
@pytest.mark.parametrize("name", NAMES)
def test_error_of_value_and_gradient_against_float64(name, state):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example((2, 4, 40, 50))
    hot = F.one_hot(labels.where(labels != 255, 0), 4).movedim(-1, 1)
    if state != "random":
        logits = logits + (300 if state == "confident" else 12) * hot
    exact = logits.double()
    value, expected = criterion(logits, labels).double(), criterion(exact, labels)
    # Of terms near 0, -log p = log(1 + e^-12), float32 keeps what is left beside 1.
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    got, wanted = gradient(criterion, logits, labels).double(), gradient(criterion, exact, labels)
    assert (got - wanted).norm() <= 1e-4 * wanted.norm() + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_loss_of_any_shape_and_dtype_is_that_of_float64(data):
    name = data.draw(st.sampled_from([name for name in NAMES if "lovasz" not in name]))  # its order ties in half
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=0, max_size=3)))
    batch, dtype = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([torch.float64, torch.float32, torch.half]))
    logits, labels = example((batch, 4, *shape), seed=data.draw(st.integers(0, 99)), dtype=dtype)
    labels = labels.to(data.draw(st.sampled_from([torch.uint8, torch.int16, torch.int64])))
    criterion = build_criterion(name, COUNTS)
    torch.testing.assert_close(
        criterion(logits, labels).double(), criterion(logits.double(), labels), rtol=1e-5, atol=1e-6
    )
    got, wanted = gradient(criterion, logits, labels), gradient(criterion, logits.double(), labels)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), wanted, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_belong_together(name):
    logits, labels = example()
    build = type(build_criterion(name, COUNTS)).from_counts
    losses = {r: build(COUNTS, reduction=r)(logits, labels) for r in ("mean", "sum", "none")}
    expected_shape = (4,) if name in REGIONS else labels.shape
    assert losses["none"].shape == expected_shape
    if isinstance(build(COUNTS), OutlyingMSELoss):  # whose "none" is the mean over classes
        losses["none"] = losses["none"] * 4
    torch.testing.assert_close(losses["none"].sum(), losses["sum"], rtol=1e-5, atol=0)
    assert losses["mean"] <= losses["sum"]


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_value(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example((2, 4, 3, 3), dtype=torch.float64)
    logits.requires_grad_()
    # In float64, away from the ties at which OHEM and Lovasz change their pixels.
    assert torch.autograd.gradcheck(lambda z: criterion(z, labels), logits)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_as_weights_only(name):
    saved = build_criterion(name, COUNTS)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other = build_criterion(name, [1, 2, 3, 4])
    other.load_state_dict(torch.load(file, weights_only=True))
    logits, labels = example()
    assert torch.equal(other(logits, labels), saved(logits, labels))
    assert torch.equal(copy.deepcopy(saved)(logits, labels), saved(logits, labels))
    assert not list(saved.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_readings_of_the_scores_agree(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    probabilities = criterion.posterior(logits)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(labels.shape), rtol=0, atol=1e-5)
    assert torch.equal(criterion.decide(logits), logits.argmax(1))
    certain = probabilities.topk(2, 1).values
    certain = certain[:, 0] - certain[:, 1] > 1e-6  # not where rounding ties them
    assert torch.equal(criterion.decide(logits, tau=0.0)[certain], probabilities.argmax(1)[certain])


@pytest.mark.parametrize("name", NAMES)
def test_repr_names_the_options(name):
    assert ("factors=[" if "+" in name else "reduction='mean'") in repr(build_criterion(name, COUNTS))


@pytest.mark.parametrize("recipe", CLASS_WEIGHTS)
@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_of_every_recipe_for_every_loss(name, recipe):
    weighted = build_criterion(f"weighted_{name}", COUNTS, class_weights=recipe)
    weight = class_weights_from_counts(COUNTS, recipe)
    assert torch.equal(weighted.weight, weight)
    plain = build_criterion(name, COUNTS)
    assert plain.weight is None
    logits, labels = example()
    if name == "ohem_ce":  # by hand below
        return
    kind = type(plain)
    terms = kind.from_counts(COUNTS, reduction="none")(logits, labels)
    if name in REGIONS:
        present = torch.tensor([bool((labels == c).any()) for c in range(4)])
        expected = (terms * weight).sum() / weight[present].sum()
    else:
        per_pixel = torch.where(labels == 255, 0, weight[labels.where(labels != 255, 0)])
        expected = (terms * per_pixel).sum() / per_pixel.sum()
    torch.testing.assert_close(weighted(logits, labels), expected, rtol=1e-5, atol=0)


# A proper loss: where it is smallest, the posterior it reads is the true one.


@pytest.mark.parametrize(
    "criterion",
    [
        CrossEntropyLoss(),
        CrossEntropyLoss(weight=[1.0, 4.0, 0.5]),
        CrossEntropyLoss(label_smoothing=0.2),
        CrossEntropyLoss(label_smoothing=0.2, weight=[1.0, 4.0, 0.5]),
        LogitAdjustedLoss([0.7, 0.2, 0.1]),
        LogitAdjustedLoss([0.7, 0.2, 0.1], tau=0.5, weight=[1.0, 4.0, 0.5]),
        VectorScalingLoss([1.0, 0.8, 0.5], [-0.3, -1.0, -2.0], weight=[1.0, 4.0, 0.5]),
        OutlyingMSELoss([1.0, 2.0, 5.0]),
        OutlyingMSELoss([1.0, 2.0, 5.0], weight=[1.0, 4.0, 0.5]),
    ],
    ids=repr,
)
def test_the_posterior_is_true_where_the_loss_is_smallest(criterion):
    truth = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(10).ge(6).long() + torch.arange(10).ge(9)  # 6, 3 and 1 pixels of ten

    optimizer = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = criterion(scores.expand(10, 3), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    logits = scores.detach().unsqueeze(0)
    torch.testing.assert_close(criterion.posterior(logits)[0], truth, rtol=0, atol=1e-6)
    if criterion.tilt is not None:
        tilted = truth * criterion.tilt.double()
        assert int(criterion.decide(logits)) == int(tilted.argmax())
    assert int(criterion.decide(logits, tau=0.0)) == 0


# Each against a reference of its own.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing_is_torchs(weighted, reduction):
    logits, labels = example()
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0]) if weighted else None
    expected = F.cross_entropy(logits, labels, weight, ignore_index=255, label_smoothing=0.1, reduction=reduction)
    got = cross_entropy_loss(logits, labels, weight=weight, label_smoothing=0.1, reduction=reduction)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_adds_the_log_prior(tau):
    logits, labels = example()
    prior = torch.tensor([0.7, 0.2, 0.06, 0.04])
    expected = F.cross_entropy(logits + tau * prior.log().view(1, 4, 1, 1), labels, ignore_index=255)
    torch.testing.assert_close(logit_adjusted_loss(logits, labels, prior, tau=tau), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(LogitAdjustedLoss(prior, tau=tau).tilt, prior**-tau)


def test_balanced_softmax_weighs_the_sum_by_the_counts():
    """Ren et al. write it as -log(n_y e^z_y / sum of n_c e^z_c)."""
    logits, labels = example(ignored=0, dtype=torch.float64)
    counts = torch.tensor([9000.0, 900.0, 5.0, 100.0], dtype=torch.float64)
    exponentials = counts.view(1, 4, 1, 1) * logits.exp()
    hot = exponentials.gather(1, labels.unsqueeze(1)).squeeze(1)
    expected = -(hot / exponentials.sum(1)).log().mean()
    got = LogitAdjustedLoss.from_counts(counts)(logits, labels)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)  # the prior is a float32 buffer


def test_prior_of_a_class_without_pixels_is_that_of_the_rarest():
    torch.testing.assert_close(class_prior(COUNTS), torch.tensor([0.9, 0.09, 0.01, 0.01]))


def loop(logits, labels, term):
    """Mean over valid pixels of ``term(z, y)``, in Python numbers."""
    scores = logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    terms = [term(z, y) for z, y in zip(scores, labels.flatten().tolist(), strict=True) if y != 255]
    return torch.tensor(sum(terms) / len(terms), dtype=torch.float64)


def minus_log_softmax(z, y):
    return math.log(sum(math.exp(s) for s in z)) - z[y]


def test_vector_scaling_follows_its_equation():
    logits, labels = example(dtype=torch.float64)
    scales, shifts = [1.0, 0.75, 0.5, 0.25], [-0.5, -1.0, -2.0, -4.0]

    def term(z, y):
        return minus_log_softmax([d * s + i for d, s, i in zip(scales, z, shifts, strict=True)], y)

    got = vector_scaling_loss(logits, labels, torch.tensor(scales), torch.tensor(shifts))
    torch.testing.assert_close(got, loop(logits, labels, term), rtol=1e-12, atol=0)
    made = VectorScalingLoss.from_counts([800, 100, 50, 50], gamma=1 / 3, tau=2.0)
    torch.testing.assert_close(made.scales, torch.tensor([1.0, 1 / 2, 16 ** (-1 / 3), 16 ** (-1 / 3)]))
    torch.testing.assert_close(made.shifts, 2 * torch.tensor([0.8, 0.1, 0.05, 0.05]).log())


def test_ldam_follows_its_equation():
    logits, labels = example(dtype=torch.float64)
    counts = [1600, 100, 16, 1]
    margins = [0.5 * (1 / n) ** 0.25 for n in counts]

    def term(z, y):
        return minus_log_softmax([2 * (s - (margins[y] if c == y else 0)) for c, s in enumerate(z)], y)

    criterion = LDAMLoss.from_counts(counts, scale=2.0)
    torch.testing.assert_close(criterion.margins, torch.tensor(margins))
    torch.testing.assert_close(criterion(logits, labels), loop(logits, labels, term), rtol=1e-7, atol=0)
    torch.testing.assert_close(
        ldam_loss(logits, labels, torch.tensor(margins), scale=2.0), loop(logits, labels, term), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("threshold", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("min_share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_ohem_keeps_the_hard_pixels(threshold, min_share, weighted):
    logits, labels = example((2, 4, 10, 10), dtype=torch.float64)
    weights = [0.5, 1.0, 2.0, 4.0] if weighted else [1.0] * 4
    scores = logits.movedim(1, -1).reshape(-1, 4).tolist()
    terms = [(minus_log_softmax(z, y), y) for z, y in zip(scores, labels.flatten().tolist(), strict=True) if y != 255]
    terms.sort(reverse=True)
    least = math.ceil(min_share * labels.numel())
    kept = [(loss, y) for rank, (loss, y) in enumerate(terms) if rank < least or math.exp(-loss) < threshold]
    total, weight_sum = sum(weights[y] * loss for loss, y in kept), sum(weights[y] for _, y in kept)
    options = {"weight": torch.tensor(weights)} if weighted else {}
    got = ohem_cross_entropy_loss(logits, labels, threshold=threshold, min_share=min_share, **options)
    torch.testing.assert_close(
        got, torch.tensor(total / (weight_sum or 1), dtype=torch.float64), rtol=1e-10, atol=1e-15
    )
    per_pixel = ohem_cross_entropy_loss(logits, labels, threshold=threshold, min_share=min_share, reduction="none")
    assert int((per_pixel > 0).sum()) == len(kept)
    assert (0 < len(kept) < len(terms)) == ((threshold, min_share) not in {(1.0, 0.0), (1.0, 0.25)} and min_share < 1)


def soft_counts(logits, labels):
    """Per class: true positives, false positives, false negatives, in Python numbers."""
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1]).softmax(1).tolist()
    counts = [[0.0, 0.0, 0.0] for _ in rows[0]]
    for p, y in zip(rows, labels.flatten().tolist(), strict=True):
        if y == 255:
            continue
        for c, probability in enumerate(p):
            if c == y:
                counts[c][0] += probability
                counts[c][2] += 1 - probability
            else:
                counts[c][1] += probability
    return counts


@pytest.mark.parametrize(
    ("function", "alpha", "beta"),
    [
        (dice_loss, 0.5, 0.5),
        (jaccard_loss, 1, 1),
        (tversky_loss, 0.3, 0.7),
        (lambda *a, **o: tversky_loss(*a, alpha=2, beta=0.1, **o), 2, 0.1),
    ],
)
def test_region_losses_follow_their_equation_over_the_classes_present(function, alpha, beta):
    logits, labels = example((2, 5, 6, 7), dtype=torch.float64)
    labels[labels == 2] = 3  # class 2 is absent
    expected = [
        1 - tp / (tp + alpha * fp + beta * fn) if c != 2 else 0.0
        for c, (tp, fp, fn) in enumerate(soft_counts(logits, labels))
    ]
    per_class = function(logits, labels, reduction="none")
    torch.testing.assert_close(per_class, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(function(logits, labels), per_class.sum() / 4, rtol=1e-12, atol=0)


@pytest.mark.parametrize("function", [dice_loss, jaccard_loss, tversky_loss])
def test_counts_made_by_hand_have_the_gradients_of_plain_operations(function):
    logits, labels = example((2, 5, 6, 7), dtype=torch.float64)
    plain = torch.func.grad(function)(logits, labels)  # leaves what is made by hand
    leaf = logits.requires_grad_()
    terms = function(leaf, labels, reduction="none")
    each = torch.autograd.grad(terms, leaf, torch.eye(5, dtype=torch.float64), is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(each[0].sum(0) / 5, plain, rtol=1e-12, atol=1e-15)
    for c in range(5):
        (one,) = torch.autograd.grad(terms[c], leaf, retain_graph=True)
        torch.testing.assert_close(each[0][c], one, rtol=1e-12, atol=1e-15)
    few = leaf.detach()[:1, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: function(z, labels[:1, :2, :2]), few)


def test_dice_and_jaccard_are_smps_where_all_classes_are_present():
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, labels = example((2, 4, 12, 12), ignored=0)
    torch.testing.assert_close(dice_loss(logits, labels), losses.DiceLoss("multiclass")(logits, labels))
    torch.testing.assert_close(jaccard_loss(logits, labels), losses.JaccardLoss("multiclass")(logits, labels))
    tversky = losses.TverskyLoss("multiclass", alpha=0.3, beta=0.7)(logits, labels)
    torch.testing.assert_close(tversky_loss(logits, labels), tversky)


def test_lovasz_is_smps():
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, labels = example((2, 4, 12, 12))
    expected = losses.LovaszLoss("multiclass", ignore_index=255)(logits, labels)
    torch.testing.assert_close(lovasz_softmax_loss(logits, labels), expected)


def test_lovasz_is_the_convex_closure_of_the_jaccard_index():
    """On errors of 0 and 1 it is 1 - IoU itself; between them, the expectation over a common threshold."""
    logits, labels = example((1, 3, 2, 4), dtype=torch.float64, ignored=0)
    probabilities, total = logits.softmax(1), []
    for c in range(3):
        is_class = (labels == c).flatten()
        if not bool(is_class.any()):
            continue
        error = (is_class.double() - probabilities[:, c].flatten()).abs()
        levels = [0.0, *sorted(error.tolist()), 1.0]
        loss = 0.0
        for low, high in itertools.pairwise(levels):
            mistaken = error > (low + high) / 2
            predicted = is_class ^ mistaken
            union = int((predicted | is_class).sum())
            loss += (high - low) * (1 - int((predicted & is_class).sum()) / union)
        total.append(loss)
    expected = torch.tensor(sum(total) / len(total), dtype=torch.float64)
    torch.testing.assert_close(lovasz_softmax_loss(logits, labels), expected, rtol=1e-12, atol=0)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_everything():
    labels = torch.tensor([[[0, 1, 2, 255]]])
    one_hot = F.one_hot(labels.where(labels != 255, 0), 3).movedim(-1, 1).float()
    for name in REGIONS:
        criterion = build_criterion(name, [3, 2, 1])
        assert float(criterion(100 * one_hot, labels)) == pytest.approx(0, abs=1e-6)
        assert float(criterion(100 * one_hot.roll(1, 1), labels)) == pytest.approx(1, abs=1e-6)


# Sums.


def test_a_sum_is_the_sum_of_its_terms():
    logits, labels = example()
    ce, dice = build_criterion("ce", COUNTS), build_criterion("weighted_dice", COUNTS)
    total = build_criterion("ce + 0.5 * weighted_dice", COUNTS)
    assert isinstance(total, SumLoss)
    torch.testing.assert_close(total(logits, labels), ce(logits, labels) + 0.5 * dice(logits, labels))
    halved = build_criterion("0.5*ce", COUNTS)
    torch.testing.assert_close(halved(logits, labels), 0.5 * ce(logits, labels))


def test_a_sum_reads_scores_as_its_first_term_of_pixels_does():
    logits, _ = example()
    first = build_criterion("logit_adjusted", COUNTS)
    total = build_criterion("logit_adjusted+dice", COUNTS)
    assert torch.equal(total.tilt, first.tilt)
    assert torch.equal(total.posterior(logits), first.posterior(logits))
    assert torch.equal(total.decide(logits, 0.3), first.decide(logits, 0.3))


@pytest.mark.parametrize("name", ["weighted_ce", "logit_adjusted", "vector_scaling", "0.5*weighted_ce+focal"])
def test_a_sum_of_pixels_and_regions_reads_the_same_in_either_order(name):
    logits, _ = example()
    pixels, sums = build_criterion(name, COUNTS), [f"0.75*jaccard+dice+{name}", f"{name}+0.75*jaccard+dice"]
    for total in (build_criterion(each, COUNTS) for each in sums):
        assert torch.equal(total.posterior(logits), pixels.posterior(logits))
        assert torch.equal(total.decide(logits, 0.3), pixels.decide(logits, 0.3))
        assert total.posterior_formula == pixels.posterior_formula
    nested = SumLoss([(1.0, build_criterion("dice+lovasz", COUNTS)), (1.0, pixels)])
    assert torch.equal(nested.posterior(logits), pixels.posterior(logits))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "at least one"),
        ([(0.0, CrossEntropyLoss())], "positive and finite, got 0"),
        ([(1.0, CrossEntropyLoss()), (1.0, OutlyingMSELoss([1.0, 2.0]))], "cannot share their scores"),
        ([(1.0, CrossEntropyLoss()), (1.0, TverskyLoss(ignore_index=0))], "same ignore_index and reduction"),
        ([(1.0, CrossEntropyLoss(reduction="none"))], "not 'none'"),
    ],
)
def test_sums_that_cannot_be_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        SumLoss(terms)


# Options that cannot be.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CrossEntropyLoss(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\)"),
        (lambda: OHEMCrossEntropyLoss(threshold=0), r"threshold must be in \(0, 1\]"),
        (lambda: OHEMCrossEntropyLoss(min_share=2), r"min_share must be in \[0, 1\]"),
        (lambda: LDAMLoss([0.5, 0.1], scale=0), "scale must be positive"),
        (lambda: LDAMLoss.from_counts([2, 1], max_margin=-1), "max_margin must be positive"),
        (lambda: LogitAdjustedLoss([0.5, 0.0]), "prior must be positive"),
        (lambda: VectorScalingLoss([1.0, 1.0], [0.0]), r"shifts must be finite, of shape \(2,\)"),
        (lambda: VectorScalingLoss.from_counts([2, 1], gamma=-1), "gamma must be >= 0"),
        (lambda: TverskyLoss(alpha=0), "alpha must be positive and finite, got 0"),
        (lambda: TverskyLoss(beta=math.inf), "beta must be positive and finite, got inf"),
        (lambda: OHEMCrossEntropyLoss.from_counts([2, 1], weight=[1, 2], class_weights="enet"), "not both"),
        (lambda: CrossEntropyLoss.from_counts([2, 1], beta=0.9), "beta belong to class_weights"),
        (lambda: LogitAdjustedLoss([0.5, 0.5], tau=math.nan), "tau must be finite"),
        (lambda: logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.0, 0.0])), "prior must be"),
        (lambda: CrossEntropyLoss.from_counts([2, 1], class_weights="enett"), "recipe must be one of"),
    ],
)
def test_options_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_model_keeps_one_graph(name):
    criterion = build_criterion(name, COUNTS)
    logits, labels = example()
    logits.requires_grad_()
    torch.compiler.reset()  # one code object is compiled only so many times
    compiled = torch.compile(lambda z: criterion(z, labels), backend="aot_eager", fullgraph=True)(logits)
    (got,) = torch.autograd.grad(compiled, logits)
    torch.testing.assert_close(compiled, criterion(logits, labels))
    torch.testing.assert_close(got, gradient(criterion, logits.detach(), labels))


def test_beta_is_that_of_label_values_and_class_weights():
    made = OutlyingMSELoss.from_counts(COUNTS, label_values="effective", class_weights="effective", beta=0.9)
    assert torch.equal(made.weight, class_weights_from_counts(COUNTS, "effective", beta=0.9))
    assert not torch.equal(made.weight, class_weights_from_counts(COUNTS, "effective"))
