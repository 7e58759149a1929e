"""What trained scores mean: the posterior, the operating point tau, and the tilt that every criterion declares."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    JaccardLoss,
    OutlyingMSELoss,
    TverskyLoss,
    decide,
    posterior,
)

T = torch.tensor([1.0, 4.0, 2.0, 66.0, 7.0])
WEIGHTS = [0.2, 1.0, 3.0, 0.7, 12.0]
TAUS = [-1.0, 0.0, 0.25, 0.5, 1.0, 1.75]


def probabilities(shape, seed=0):
    """Random float64 posteriors, classes in dim 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2).softmax(1)


def per_class(vector, ndim=4):
    return vector.view(1, -1, *[1] * (ndim - 2))


@st.composite
def scores(draw, dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64)):
    """Scores ``(N, C, *)``, ties and all-negative pixels included, and label values."""
    num_classes = draw(st.integers(2, 6))
    shape = (draw(st.integers(1, 3)), num_classes, *draw(st.lists(st.integers(1, 4), max_size=2)))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from([1e-5, 1.0, 100.0]))
    logits = logits - draw(st.sampled_from([0.0, 1.0])) * logits.abs().amax()
    if draw(st.booleans()):
        logits = logits.round()
    values = draw(st.lists(st.floats(0.25, 700, width=32), min_size=num_classes, max_size=num_classes))
    if draw(st.booleans()):  # classes that only rounding tells apart once z is divided by t
        logits = logits[:, :1].abs() * per_class(torch.tensor(values), logits.ndim)
    return logits.to(dtype), torch.tensor(values)


# The posterior of outlying scores.


@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 6), (2, 5, 3, 4), (2, 5, 3, 2, 2)])
def test_posterior_recovers_the_probabilities_at_the_optimum(shape):
    expected = probabilities(shape)
    logits = per_class(T, len(shape)) * expected
    # float64: a product, three quotients and a sum, each rounded to 1e-16.
    torch.testing.assert_close(posterior(logits, T), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_posterior_of_narrow_scores_is_float32(dtype):
    logits = (per_class(T) * probabilities((2, 5, 3, 4))).to(dtype)
    actual = posterior(logits, T)
    assert actual.dtype == torch.float32
    # Computed in float32 from what the narrow dtype holds.
    torch.testing.assert_close(actual.double(), posterior(logits.double(), T), rtol=1e-6, atol=0)


def test_negative_scores_get_probability_zero():
    logits = torch.tensor([[3.0, -1.0, 2.0, -0.5, 0.0]])
    assert posterior(logits, T).tolist() == [[0.75, 0.0, 0.25, 0.0, 0.0]]


def test_posterior_is_one_hot_where_no_score_is_positive():
    logits = torch.tensor([[-1.0, -3.0, -3.0, -60.0, -7.0], [0.0, 0.0, -1.0, 0.0, -2.0]])
    # z / t of the first row: -1, -0.75, -1.5, -0.91, -1.
    assert posterior(logits, T).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(scores())
def test_posterior_sums_to_one_and_lies_between_zero_and_one(case):
    logits, values = case
    actual = posterior(logits, values)
    assert float(actual.min()) >= 0
    assert float(actual.max()) <= 1
    # C quotients and a sum, rounded to 6e-8 each.
    torch.testing.assert_close(actual.sum(1), torch.ones_like(actual[:, 0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1e30, 1e38])
def test_posterior_of_denormal_and_huge_scores_still_sums_to_one(size):
    logits = size * torch.tensor([[3.0, 2.0, -1.0]])
    actual = posterior(logits, torch.ones(3))
    assert float(actual.sum()) == pytest.approx(1, rel=1e-6)  # float32
    assert actual.argmax(1).tolist() == [0]


def test_posterior_leaves_its_input_unchanged():
    logits = probabilities((2, 5, 3)) - 0.3
    before = logits.clone()
    posterior(logits, T)
    decide(logits, T, 0.0)
    assert torch.equal(logits, before)


# Decisions.


@settings(max_examples=200, deadline=None)
@given(scores())
def test_natural_decision_is_the_argmax_of_the_posterior(case):
    """Exactly so where the posterior has one largest class; in a tie, decide names one of the tied."""
    logits, values = case
    probability, decision = posterior(logits, values), decide(logits, values, 0.0)
    largest = probability.amax(1)
    assert torch.equal(probability.gather(1, decision.unsqueeze(1)).squeeze(1), largest)
    unique = (probability == largest.unsqueeze(1)).sum(1) == 1
    assert torch.equal(decision[unique], probability.argmax(1)[unique])


def test_rounding_can_tie_two_classes_of_the_posterior_that_decide_tells_apart():
    """Why the property above excepts ties: dividing neighbouring floats by the sum may give the same float."""
    logits = torch.tensor([[0.6995072364807129, 0.6995072960853577, 0.07825686782598495]])
    probability = posterior(logits, torch.ones(3))
    assert logits[0, 0] < logits[0, 1]
    assert probability[0, 0] == probability[0, 1]
    assert decide(logits, torch.ones(3), 0.0).tolist() == [1]


@settings(max_examples=100, deadline=None)
@given(scores())
def test_decision_at_tau_one_is_the_plain_argmax(case):
    logits, values = case
    decision = decide(logits, values)
    assert decision.dtype == torch.int64
    assert torch.equal(decision, logits.argmax(1))
    assert torch.equal(decide(logits, values, 1.0), decision)


@pytest.mark.parametrize("tau", TAUS)
def test_decision_follows_its_formula(tau):
    logits = torch.randn(40, 5, 9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = (logits * per_class(T.double() ** (tau - 1))).argmax(1)
    assert torch.equal(decide(logits, T, tau), expected)  # random float64: no ties


@pytest.mark.parametrize("tau", TAUS)
def test_decision_at_the_optimum_weighs_the_probabilities_by_t_to_the_tau(tau):
    probability = probabilities((40, 5, 9, 3))
    expected = (per_class(T.double() ** tau) * probability).argmax(1)
    assert torch.equal(decide(per_class(T) * probability, T, tau), expected)


def test_a_larger_tau_decides_more_often_for_the_class_with_the_largest_value():
    logits = per_class(T) * probabilities((40, 5, 9, 3))
    shares = [float((decide(logits, T, tau) == 3).double().mean()) for tau in sorted(TAUS)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


@pytest.mark.parametrize("tau", TAUS)
def test_ties_go_to_the_first_class(tau):
    assert decide(torch.ones(2, 3, 4), torch.full((3,), 2.0), tau).tolist() == [[0] * 4] * 2


def test_label_values_of_the_wrong_shape_are_refused():
    for function in (posterior, decide):
        with pytest.raises(ValueError, match=r"label_values must have shape \(5,\).*got \(4,\)"):
            function(torch.zeros(2, 5, 3), torch.ones(4))


# The contract of every criterion: at its optimum the raw argmax is argmax u P, with u its tilt.

OUTLYING = OutlyingMSELoss(T)
SOFTMAX = [CrossEntropyLoss(), CrossEntropyLoss(weight=WEIGHTS)]
FOCAL = [FocalLoss(), FocalLoss(weight=WEIGHTS), FocalLoss(gamma=0.5), FocalLoss(gamma=0, weight=WEIGHTS)]


def optimum(criterion, probability):
    """Scores whose reading is ``probability``: t P, or log(w P)."""
    ndim = probability.ndim
    if isinstance(criterion, OutlyingMSELoss):
        return per_class(criterion.label_values, ndim) * probability
    tilt = torch.ones(probability.shape[1]) if criterion.tilt is None else criterion.tilt
    return (per_class(tilt, ndim) * probability).log()


@pytest.mark.parametrize("criterion", [OUTLYING, *SOFTMAX], ids=repr)
def test_criterion_reads_the_probabilities_back_at_the_optimum(criterion):
    probability = probabilities((10, 5, 9, 3))
    logits = optimum(criterion, probability)
    # float64 log and exp: an error of 1e-16 in a logit of size ~10.
    torch.testing.assert_close(criterion.posterior(logits), probability, rtol=1e-13, atol=0)
    assert torch.equal(criterion.decide(logits, 0.0), probability.argmax(1))


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("criterion", [OUTLYING, *SOFTMAX], ids=repr)
def test_criterion_decides_by_the_probabilities_times_its_tilt_to_the_tau(criterion, tau):
    probability = probabilities((10, 5, 9, 3), seed=1)
    tilt = torch.ones(5) if criterion.tilt is None else criterion.tilt
    expected = (per_class(tilt.double()) ** tau * probability).argmax(1)
    assert torch.equal(criterion.decide(optimum(criterion, probability), tau), expected)


@pytest.mark.parametrize("criterion", [OUTLYING, *SOFTMAX, *FOCAL], ids=repr)
def test_criterion_decides_by_plain_argmax_unless_told_otherwise(criterion):
    logits = torch.randn(4, 5, 9, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(criterion.decide(logits), logits.argmax(1))


def test_weights_and_label_values_are_the_tilt():
    assert torch.equal(OUTLYING.tilt, T)
    assert CrossEntropyLoss().tilt is None
    assert FocalLoss().tilt is None
    assert CrossEntropyLoss(weight=WEIGHTS).tilt.tolist() == torch.tensor(WEIGHTS).tolist()


def test_module_reads_scores_as_the_functions_do():
    logits = torch.randn(4, 5, 9, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(OUTLYING.posterior(logits), posterior(logits, T))
    assert torch.equal(OUTLYING.decide(logits, 0.25), decide(logits, T, 0.25))


@pytest.mark.parametrize("criterion", [*SOFTMAX, *FOCAL], ids=repr)
def test_posterior_of_narrow_softmax_scores_is_float32(criterion):
    logits = torch.randn(4, 5, 9, generator=torch.Generator().manual_seed(0)).half()
    assert criterion.posterior(logits).dtype == torch.float32
    assert torch.equal(criterion.posterior(logits), criterion.posterior(logits.float()))


@pytest.mark.parametrize("criterion", [OUTLYING, *SOFTMAX], ids=repr)
def test_the_declared_optimum_is_where_the_gradient_vanishes(criterion):
    """All pixels look alike and carry the classes in proportions P: the loss must be stationary at ``optimum``."""
    pixels = torch.tensor([50, 30, 15, 4, 1])
    labels = torch.arange(5).repeat_interleave(pixels).view(1, -1)
    probability = (pixels.double() / pixels.sum()).view(1, 5)
    score = optimum(criterion, probability).requires_grad_()
    loss = criterion(score.unsqueeze(2).expand(1, 5, labels.numel()), labels)
    (gradient,) = torch.autograd.grad(loss, score)
    # float64; weights and label values are float32 numbers, taken as they are.
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-14)
    assert float(loss.detach()) > 0


def fitted(criterion, labels: torch.Tensor, groups: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Scores ``(1, C, G)`` at which the loss is smallest when all pixels of a group must have the same."""
    score = torch.zeros(1, num_classes, int(groups.max()) + 1, dtype=torch.float64, requires_grad=True)
    exact = {"tolerance_grad": 1e-11, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS([score], max_iter=500, line_search_fn="strong_wolfe", **exact)

    def step():
        optimizer.zero_grad()
        loss = criterion(score[:, :, groups], labels)
        loss.backward()
        return loss

    optimizer.step(step)
    return score.detach()


@pytest.mark.parametrize("criterion", FOCAL, ids=repr)
def test_focal_scores_give_the_probabilities_back_where_the_loss_is_smallest(criterion):
    pixels = torch.tensor([30, 50, 15, 4, 1])
    labels = torch.arange(5).repeat_interleave(pixels).view(1, -1)
    score = fitted(criterion, labels, torch.zeros(100, dtype=torch.int64), 5)
    torch.testing.assert_close(
        criterion.posterior(score)[0, :, 0], pixels / 100.0, rtol=1e-5, atol=0, check_dtype=False
    )
    assert int(criterion.decide(score, 0.0)) == 1
    if criterion.weight is None:  # what tau = 1 rests on: the factor flattens the probabilities, but keeps their order
        assert score[0, :, 0].argsort().tolist() == pixels.argsort().tolist()


def test_certain_focal_scores_are_finite():
    score = torch.tensor([[[200.0], [0.0], [-200.0]]])
    for gamma in (0.5, 2.0, 5.0):
        found = FocalLoss(gamma=gamma).posterior(score)
        torch.testing.assert_close(found, torch.tensor([[[1.0], [0.0], [0.0]]]))


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_losses_of_regions_decide_for_a_class_that_is_not_the_most_probable(loss):
    """What their docstrings say: 900 pixels with P = 0.02 of the second class, 100 with 0.4, which all go to it."""
    labels = torch.zeros(1, 1000, dtype=torch.int64)
    labels[0, :18] = 1
    labels[0, 900:940] = 1
    groups = (torch.arange(1000) >= 900).long()
    score = fitted(loss(), labels, groups, 2)
    assert loss().decide(score).tolist() == [[0, 1]]
    assert CrossEntropyLoss().decide(fitted(CrossEntropyLoss(), labels, groups, 2)).tolist() == [[0, 0]]
