"""What the tests of segmentation_models_pytorch expect of its losses and counts, as cases for ours.

Sources (qubvel-org/segmentation_models.pytorch): tests/test_losses.py, tests/test_metrics.py. Its losses take
probabilities of one binary channel too; here a binary problem has two classes, and p is the pair (1 - p, p).
"""

import pytest
import torch
from torch import Tensor

from segloss.losses import cross_entropy_loss, dice_loss, focal_loss, jaccard_loss, tversky_loss
from segloss.metrics import ConfusionMatrix, Scores


def pair(probabilities: list[float]) -> Tensor:
    """Logits (1, 2, P) of these probabilities of class 1."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([1 - p, p]).log().clamp(min=-1e3).unsqueeze(0)


def of_foreground(loss, predicted: list[float], true: list[int]) -> float:
    """The loss of class 1 alone, as in a binary mode."""
    return float(loss(pair(predicted), torch.tensor([true]), reduction="none")[1])


@pytest.mark.parametrize(
    ("true", "predicted", "jaccard", "dice"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 1, 1),
        ([0, 1, 1, 0], [0, 1, 1, 0], 1, 1),
        ([1, 1, 1, 1], [1, 1, 0, 0], 1 / 2, 2 / 3),
        ([0, 1, 0], [1, 0, 1], 0, 0),
        ([1, 1, 1], [0, 0, 0], 0, 0),
        ([1], [1], 1, 1),
    ],
)
def test_overlap_of_the_foreground(true, predicted, jaccard, dice):
    assert of_foreground(jaccard_loss, predicted, true) == pytest.approx(1 - jaccard, abs=1e-12)
    assert of_foreground(dice_loss, predicted, true) == pytest.approx(1 - dice, abs=1e-12)
    halves = lambda *given, **options: tversky_loss(*given, alpha=0.5, beta=0.5, **options)  # noqa: E731
    assert of_foreground(halves, predicted, true) == pytest.approx(1 - dice, abs=1e-12)


@pytest.mark.parametrize("predicted", [[0, 0, 0], [1, 1, 1]])
@pytest.mark.parametrize("loss", [jaccard_loss, dice_loss, tversky_loss])
def test_a_foreground_that_no_label_holds_is_left_out(loss, predicted):
    assert of_foreground(loss, predicted, [0, 0, 0]) == 0


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 0),
        ([0, 0, 1, 1], [1, 1, 0, 0], 1),
        ([0, 1, 0, 1], [1, 1, 0, 0], 1 - 1 / 3),
    ],
)
def test_jaccard_over_classes(predicted, true, expected):
    assert float(jaccard_loss(pair(predicted), torch.tensor([true]))) == pytest.approx(expected, abs=1e-12)


def test_focal_loss_prefers_what_is_right():
    labels = torch.tensor([1, 0, 2])
    good = torch.tensor([[0.0, 10, 0], [10, 0, 0], [0, 0, 10]])
    bad = torch.tensor([[0.0, -10, 0], [0, 10, 0], [0, 0, 10]])
    assert focal_loss(good, labels) < focal_loss(bad, labels)


def test_label_smoothing_with_an_ignored_label():
    """Its test prints the loss; the value by hand: every pixel alike, so the mean is one pixel's."""
    logits = 18 * torch.eye(4, dtype=torch.float64) - 9
    labels = torch.tensor([0, 1, -100, 3])
    loss = cross_entropy_loss(logits, labels, label_smoothing=0.1, ignore_index=-100)
    log_sum = torch.logsumexp(logits[0], 0)
    expected = 0.9 * (log_sum - 9) + 0.1 / 4 * ((log_sum - 9) + 3 * (log_sum + 9))
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)


def counts(predicted: Tensor, true: Tensor) -> tuple[list[int], list[int], list[int]]:
    """True positives, false positives and false negatives of three classes."""
    confusion = ConfusionMatrix(3)
    confusion.update(predicted, true)
    hits = confusion.matrix.diagonal()
    return hits.tolist(), (confusion.matrix[:, :3].sum(0) - hits).tolist(), (confusion.matrix.sum(1) - hits).tolist()


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([0, 1, 2, 1], [0, 1, 2, 2], ([1, 1, 1], [0, 1, 0], [0, 0, 1])),
        ([0, 1, 2], [0, 1, 2], ([1, 1, 1], [0, 0, 0], [0, 0, 0])),
        ([2, 1, 0], [2, 2, 0], ([1, 0, 1], [0, 1, 0], [0, 0, 1])),
        ([0, 1, 2, 1], [0, 1, 255, 2], ([1, 1, 0], [0, 1, 0], [0, 0, 1])),
    ],
)
def test_counts_of_each_class(predicted, true, expected):
    assert counts(torch.tensor([predicted]), torch.tensor([true])) == expected


def test_volumes_and_maps_are_counted_alike():
    volume = torch.randint(0, 3, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    hits, misplaced, missed = counts(volume, volume)
    assert sum(hits) == volume.numel() and not any(misplaced) and not any(missed)


def test_one_hot_maps_are_refused_by_their_shape():
    with pytest.raises(ValueError, match="must have the same shape"):
        counts(torch.eye(3, dtype=torch.long).unsqueeze(0), torch.tensor([[0, 1, 2]]))


@pytest.mark.parametrize("stray", [3, -1])
def test_a_label_that_is_no_class_is_refused_and_a_prediction_that_is_none_is_a_miss(stray):
    """Theirs refuses both."""
    with pytest.raises(ValueError, match=f"labels hold {stray}"):
        counts(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, stray]]))
    assert counts(torch.tensor([[0, 1, stray]]), torch.tensor([[0, 1, 2]])) == ([1, 1, 0], [0, 0, 0], [0, 0, 1])


def test_an_absent_class_has_1_by_their_protocol():
    confusion = torch.tensor([[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert Scores.from_confusion(confusion, "smp").miou == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert Scores.from_confusion(confusion).miou == pytest.approx((2 / 3 + 1 / 2) / 2)
