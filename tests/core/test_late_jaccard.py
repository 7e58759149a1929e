"""Scores of a prior; soft Jaccard of any loss's posterior; the mixture of both at the end of a training."""

import pytest
import torch
from torch.autograd import gradcheck

from segloss.losses import LOSSES, build_criterion, jaccard_loss
from segloss.losses.late_jaccard import late_jaccard_loss, soft_jaccard_of

COUNTS = [9000, 900, 100]
CLOSED = ("outlying_mse", "mse", "ce", "logit_adjusted", "vector_scaling", "weighted_ce", "weighted_mse",
          "weighted_outlying_mse", "weighted_logit_adjusted", "ce+0.5*dice", "ldam", "ohem_ce")  # fmt: skip


def case(dtype=torch.float32, shape=(2, 3, 5, 7)):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[:, 0] = 255
    return torch.randn(shape, generator=generator, dtype=dtype), labels


@pytest.mark.parametrize("name", CLOSED)
def test_the_scores_of_a_posterior_are_read_back_as_it(name):
    posterior = torch.tensor([0.7, 0.2, 0.1])
    criterion = build_criterion(name, COUNTS)
    read = criterion.posterior(criterion.scores_of(posterior).view(1, 3, 1)).view(3)
    torch.testing.assert_close(read, posterior, rtol=1e-4, atol=1e-5)


PLAIN = ("ce", "weighted_ce", "logit_adjusted", "outlying_mse", "weighted_outlying_mse", "weighted_ce+dice")


@pytest.mark.parametrize("k", [1.0, 3.0])
@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_argmax_is_told_from_posteriors(name, k):
    """From many at once, as that of the scores at the optimum; a true class that counts k times included."""
    criterion = build_criterion(name, [9000, 900, 100], true_channel_weight=k)
    posteriors = torch.distributions.Dirichlet(torch.tensor([1.0, 0.4, 0.2])).sample((500,)).clamp(min=1e-6)
    posteriors = posteriors / posteriors.sum(1, keepdim=True)
    scores = torch.stack([criterion.scores_of(posterior) for posterior in posteriors])
    expected = criterion.decide(scores)
    assert torch.equal(criterion.plain_scores(posteriors).argmax(1), expected)
    assert (expected != posteriors.argmax(1)).sum() > 0 or name == "ce"


@pytest.mark.parametrize(
    "name", ["ce", "weighted_ce", "logit_adjusted", "vector_scaling", "weighted_outlying_mse", "mse"]
)
def test_at_them_the_mean_loss_over_such_pixels_is_lowest(name):
    posterior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    criterion = build_criterion(name, COUNTS)
    z = criterion.scores_of(posterior).detach().requires_grad_(True)
    labels = torch.tensor([[0] * 7 + [1] * 2 + [2]])
    (gradient,) = torch.autograd.grad(criterion(z.view(1, 3, 1).expand(1, 3, 10), labels), z)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_finite_scores_of_a_prior_with_an_empty_class(name):
    from segloss.losses import class_prior

    scores = build_criterion(name, [900, 100, 0]).scores_of(class_prior([900, 100, 0]))
    assert scores.shape == (3,) and scores.isfinite().all()


def test_jaccard_of_a_softmax_is_the_jaccard_loss():
    z, labels = case()
    torch.testing.assert_close(soft_jaccard_of(z.softmax(1), labels), jaccard_loss(z, labels))


def test_it_is_that_of_a_loop_over_pixels():
    z, labels = case(torch.float64)
    posterior, terms = z.softmax(1), []
    for c in labels[labels != 255].unique().tolist():
        hits = union = 0.0
        for n, y, x in torch.nonzero(labels != 255).tolist():
            p, is_class = float(posterior[n, c, y, x]), int(labels[n, y, x]) == c
            hits += p * is_class
            union += p + is_class - p * is_class
        terms.append(1 - hits / union)
    assert float(soft_jaccard_of(posterior, labels)) == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    assert gradcheck(
        lambda p: soft_jaccard_of(p, labels[:1, :2, :3]), posterior[:1, :, :2, :3].clone().requires_grad_()
    )


def test_without_a_valid_pixel_it_is_zero_with_zero_gradient():
    z, labels = case()
    posterior = z.softmax(1).requires_grad_(True)
    soft_jaccard_of(posterior, torch.full_like(labels, 255)).backward()
    assert torch.equal(posterior.grad, torch.zeros_like(z))


def test_no_image_and_a_class_of_more_pixels_than_float16_can_count():
    assert soft_jaccard_of(torch.zeros(0, 2, 4, 4), torch.zeros(0, 4, 4, dtype=torch.long)) == 0
    assert soft_jaccard_of(torch.tensor([[0.5, 0.5]]), torch.tensor([1])) == 0.5
    posterior = torch.zeros(1, 2, 300, 300, dtype=torch.float16)
    posterior[:, 0] = 1
    assert soft_jaccard_of(posterior, torch.zeros(1, 300, 300, dtype=torch.long)) == 0


def test_an_ignored_pixel_that_is_no_number_changes_nothing():
    z, labels = case()
    bad = z.softmax(1).masked_fill((labels == 255).unsqueeze(1), torch.nan)
    assert torch.equal(soft_jaccard_of(bad, labels), soft_jaccard_of(z.softmax(1), labels))


@pytest.mark.parametrize("name", ["outlying_mse", "weighted_ce", "logit_adjusted", "weighted_mse"])
def test_the_mixture_takes_the_posterior_with_the_tilt_divided_out(name):
    z, labels = case()
    criterion = build_criterion(name, COUNTS)
    expected = 0.25 * criterion(z, labels) + 0.75 * soft_jaccard_of(criterion.posterior(z), labels)
    assert torch.equal(late_jaccard_loss(criterion, criterion(z, labels), z, labels), expected)


@pytest.mark.parametrize("name", ["mse", "outlying_mse", "weighted_ce", "vector_scaling"])
def test_a_score_that_is_no_number_at_an_ignored_pixel_changes_neither_value_nor_gradient(name):
    z, labels = case()
    criterion, found = build_criterion(name, COUNTS), []
    for scores in (z, z.masked_fill((labels == 255).unsqueeze(1), torch.nan)):
        scores.requires_grad_(True)
        loss = late_jaccard_loss(criterion, criterion(scores, labels), scores, labels)
        found.append((loss.detach(), *torch.autograd.grad(loss, scores)))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True)) and found[1][1].isfinite().all()


@pytest.mark.parametrize("name", ["mse", "outlying_mse", "weighted_ce"])
def test_descending_it_raises_the_overlap(name):
    z, labels = case()
    criterion = build_criterion(name, COUNTS)
    z = criterion.scores_of(torch.full((3,), 1 / 3)).view(1, 3, 1, 1).expand_as(z).clone().requires_grad_(True)
    before = soft_jaccard_of(criterion.posterior(z), labels)
    (gradient,) = torch.autograd.grad(late_jaccard_loss(criterion, criterion(z, labels), z, labels), z)
    assert gradient.isfinite().all()
    assert soft_jaccard_of(criterion.posterior(z - 0.1 * gradient), labels) < before


def test_images_that_label_some_classes_are_read_over_these():
    z, labels = case()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    criterion = build_criterion("ce", COUNTS)
    changed = z.clone()
    changed[0, 2] += 5
    own = [late_jaccard_loss(criterion, torch.zeros(()), x, labels, class_mask=mask) for x in (z, changed)]
    assert torch.allclose(*own)
