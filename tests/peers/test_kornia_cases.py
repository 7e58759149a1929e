"""What kornia's own tests expect of its losses and counts, as cases for ours: the same inputs, our definitions.

Sources (kornia/kornia): tests/losses/test_dice.py, test_tversky.py, test_lovaz_softmax.py, test_focal_loss.py and
tests/metrics/test_confusion.py, test_mean_iou.py. Where a definition differs, both values stand here and the difference
is listed in docs/losses.md.
"""

import math

import pytest
import torch
from torch import Tensor

from segloss.losses import dice_loss, focal_loss, lovasz_softmax_loss, tversky_loss
from segloss.metrics import ConfusionMatrix

TRUE = torch.tensor([[2, 2, 0, 0, 1, 0, 0, 2, 1, 1, 0, 0, 1, 2, 1, 0]])
PREDICTED = torch.tensor([[2, 1, 0, 0, 0, 0, 0, 1, 0, 2, 2, 1, 0, 0, 2, 2]])
SQUARES = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]])


def scores_of(probabilities: list) -> Tensor:
    """Logits (N, C, *) whose softmax is exactly this."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def averaged_per_image(loss, logits: Tensor, labels: Tensor, **options) -> Tensor:
    """Kornia's mean: of each image's own loss."""
    return torch.stack([loss(logits[i : i + 1], labels[i : i + 1], **options) for i in range(len(logits))]).mean()


@pytest.mark.parametrize("loss", [dice_loss, tversky_loss])
def test_nearly_perfect_scores_lose_nearly_nothing(loss):
    logits = torch.tensor([10.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 1, 2)
    assert float(loss(logits, torch.zeros(2, 1, 2, dtype=torch.long))) == pytest.approx(0, abs=1e-3)


def test_dice_over_classes_leaves_out_those_that_no_label_holds():
    """Kornia's macro mean counts the absent class with a loss of 1."""
    right, wrong = (math.exp(x) / (math.exp(10) + math.exp(1)) for x in (10, 1))
    logits = torch.tensor([[[10.0, 10, 10, 1], [1, 1, 1, 10]]])
    hits = 3 * right + wrong
    first = 1 - 2 * hits / (4 + hits)
    assert float(dice_loss(logits, torch.zeros(1, 4, dtype=torch.long))) == pytest.approx(first, rel=1e-6)
    kornia_macro = (first + 1) / 2
    assert kornia_macro == pytest.approx(0.5714, abs=1e-3)


@pytest.mark.parametrize("ignored", [-100, 255])
@pytest.mark.parametrize(("loss", "expected"), [(dice_loss, 1 / 3), (tversky_loss, 1 - 1 / 1.7)])
def test_ignored_pixels_are_in_no_sum(loss, expected, ignored):
    """One pixel right and one missed of class 0: TP 1, FN 1."""
    logits = torch.zeros(2, 2, 1, 4, dtype=torch.float64)
    logits[:, 0, :, 0], logits[:, 1, :, 1:] = 100, 100
    labels = torch.zeros(2, 1, 4, dtype=torch.long)
    labels[..., 2:] = ignored
    assert float(loss(logits, labels, ignore_index=ignored)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.7, 0.3), (0.5, 0.5), (1.0, 1.0)])
def test_tversky_over_the_batch_and_over_each_image(alpha, beta):
    """Absent classes are left out by both; kornia averages over images, here the batch is one region."""
    logits = scores_of(
        [
            [[[0.5, 0.25, 0.125, 0.5]], [[0.25, 0.5, 0.125, 0.25]], [[0.25, 0.25, 0.75, 0.25]]],
            [[[0.5, 0.25, 0.5, 0.25]], [[0.25, 0.5, 0.25, 0.5]], [[0.25, 0.25, 0.25, 0.25]]],
        ]
    )
    labels = torch.tensor([[[0, 1, 1, 0]], [[2, 2, 2, 2]]])
    options = {"alpha": alpha, "beta": beta}
    each = [1 / (1 + alpha * 0.375 + beta), 0.625 / (0.625 + alpha * 0.5 + beta * 1.375), 1 / (1 + beta * 3)]
    kornia = 1 - ((each[0] + each[1]) / 2 + each[2]) / 2
    assert float(averaged_per_image(tversky_loss, logits, labels, **options)) == pytest.approx(kornia, rel=1e-9)
    # The second image's probabilities of classes 0 and 1 are 1.5 each, the first one's of class 2 are 1.5.
    whole = [
        1 / (1 + alpha * 1.875 + beta),
        0.625 / (0.625 + alpha * 2.0 + beta * 1.375),
        1 / (1 + alpha * 1.5 + beta * 3),
    ]
    assert float(tversky_loss(logits, labels, **options)) == pytest.approx(1 - sum(whole) / 3, rel=1e-9)


def test_channels_that_nothing_holds_change_nothing():
    labels, losses = torch.tensor([[[0, 1, 1, 0]]]), []
    for classes in (2, 3, 4):
        logits = torch.full((1, classes, 1, 4), -40.0)
        logits[:, :2] = torch.tensor([[[[2.0, 0.0, 1.0, 2.0]], [[0.0, 2.0, 2.0, 0.0]]]])
        losses.append(float(tversky_loss(logits, labels, alpha=0.3, beta=0.7)))
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-7)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (1.0, 1e-9), (1e-9, 1.0)])
def test_a_present_class_that_is_never_hit_loses_all(alpha, beta):
    logits = torch.tensor([[[[100.0, 100.0]], [[-100.0, -100.0]], [[-100.0, -100.0]]]], requires_grad=True)
    loss = tversky_loss(logits, torch.tensor([[[0, 1]]]), alpha=alpha, beta=beta)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 - 1 / (1 + alpha) + 1) / 2, rel=1e-6)
    assert logits.grad.isfinite().all()


def test_one_pixel_of_a_rare_class_among_many_is_no_loss_when_right():
    labels = torch.zeros((1, 128, 192), dtype=torch.int64)
    labels[0, 0, 0] = 1
    logits = torch.full((1, 3, 128, 192), -40.0).scatter_(1, labels[:, None], 40.0).requires_grad_()
    loss = tversky_loss(logits, labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_images_in_half_precision_are_added_up_in_a_wider_type(dtype):
    logits = torch.full((1, 2, 512, 512), -2.0, dtype=dtype)
    logits[:, 0] = 2.0
    logits.requires_grad_()
    labels = torch.zeros((1, 512, 512), dtype=torch.int64)
    labels[:, :8] = 255
    loss = dice_loss(logits, labels)
    loss.backward()
    p = math.exp(2) / (math.exp(2) + math.exp(-2))
    assert float(loss.detach()) == pytest.approx(1 - 2 * p / (1 + p), abs=1e-7)  # p in float32
    assert logits.grad.isfinite().all() and not logits.grad[:, :, :8].any()


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0]])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 3.0]])
def test_lovasz_of_the_present_classes(labels, weight):
    """Errors of one true pixel each: the extension is its error, or the largest where another one errs more."""
    logits = scores_of([[[[0.6, 0.21, 0.12]], [[0.29, 0.68, 0.19]], [[0.11, 0.11, 0.69]]]])
    per_class = [0.4, 0.32, 0.31] if labels == [0, 1, 2] else [0.69]  # kornia adds 0.68 and 0.69 for absent ones
    if labels == [0, 0, 0]:  # errors 0.4, 0.79, 0.88, each a third of the class
        per_class = [(0.88 + 0.79 + 0.4) / 3]
        assert per_class[0] == pytest.approx(0.69)
    weights = [1.0, 1.0, 1.0] if weight is None else weight
    expected = sum(w * x for w, x in zip(weights, per_class, strict=False)) / sum(weights[: len(per_class)])
    given = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    assert float(lovasz_softmax_loss(logits, torch.tensor([[labels]]), weight=given)) == pytest.approx(expected)


def test_gradient_of_lovasz():
    logits = scores_of([[[[0.6, 0.21, 0.12]], [[0.29, 0.68, 0.19]], [[0.11, 0.11, 0.69]]]]).requires_grad_()
    lovasz_softmax_loss(logits, torch.tensor([[[0, 1, 2]]])).backward()
    expected = [[[-0.08, 0.0476, 0.0276]], [[0.058, -0.0725333333, 0.0437]], [[0.022, 0.0249333333, -0.0713]]]
    torch.testing.assert_close(logits.grad[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("loss", [dice_loss, tversky_loss, lovasz_softmax_loss])
def test_the_names_of_classes_do_not_matter(loss, order):
    logits = torch.tensor([[[[1.2, -0.3, 0.7]], [[0.1, 1.4, -0.2]], [[-0.8, 0.2, 1.6]]]], dtype=torch.float64)
    labels, permutation = torch.tensor([[[0, 1, 2]]]), torch.tensor(order)
    permuted = loss(logits[:, permutation], permutation.argsort()[labels])
    assert float(permuted) == pytest.approx(float(loss(logits, labels)), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_extreme_scores_at_ignored_pixels_count_nowhere(gamma, reduction):
    extreme = torch.finfo(torch.float32).max
    labels = torch.tensor([255, 0])
    found = []
    for first in ([extreme, -extreme], [0.0, 0.0], [math.inf, 0.0], [math.nan, 0.0]):
        logits = torch.tensor([first, [0.0, 0.0]], requires_grad=True)
        loss = focal_loss(logits, labels, gamma=gamma, reduction=reduction).sum()
        loss.backward()
        assert not logits.grad[0].any()
        found.append((float(loss.detach()), logits.grad[1].tolist()))
    assert all(each == found[0] for each in found)
    assert found[0][0] == pytest.approx(
        0.5**gamma * math.log(2)
    )  # kornia's mean divides by all pixels and by C as well


def matrix_of(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    confusion = ConfusionMatrix(classes)
    confusion.update(predicted, true)
    assert not confusion.matrix[:, classes].any()
    return confusion.matrix[:, :classes]


@pytest.mark.parametrize(
    ("predicted", "true", "classes", "expected"),
    [
        ([[1, 1, 1, 1, 0, 0, 0, 1]], [[1, 1, 1, 1, 0, 0, 0, 0]], 2, [[3, 1], [0, 4]]),
        (PREDICTED, TRUE, 3, [[4, 1, 2], [3, 0, 2], [1, 2, 1]]),
        (PREDICTED + 1, TRUE + 1, 4, [[0, 0, 0, 0], [0, 4, 1, 2], [0, 3, 0, 2], [0, 1, 2, 1]]),
        (SQUARES, SQUARES, 4, [[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]]),
    ],
)
def test_counts_of_pairs(predicted, true, classes, expected):
    got = matrix_of(torch.as_tensor(predicted), torch.as_tensor(true), classes)
    assert got.tolist() == expected


def test_iou_of_each_class():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.tensor([[1, 1, 1, 1, 0, 0, 0, 1]]), torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]]))
    assert confusion.compute().iou.tolist() == [0.75, 0.8]
    absent = ConfusionMatrix(4)
    true = SQUARES.where(SQUARES > 1, 0)
    predicted = torch.where(SQUARES > 1, SQUARES, torch.where(SQUARES == 0, 3, 2))
    absent.update(predicted, true)
    iou = absent.compute().iou
    assert iou[[0, 2, 3]].tolist() == [0, 0.5, 0.5]
    assert math.isnan(iou[1])  # kornia: 1


def test_small_integers_do_not_wrap_round():
    labels = torch.tensor([[[20, 0, 5], [5, 20, 0]]], dtype=torch.uint8)
    assert matrix_of(labels, labels, 21).equal(matrix_of(labels.long(), labels.long(), 21))
    assert int(matrix_of(labels, labels, 21)[20, 20]) == 2


def test_an_empty_batch_counts_nothing():
    assert not matrix_of(torch.zeros(0, 4, 4, dtype=torch.long), torch.zeros(0, 4, 4, dtype=torch.long), 3).any()
