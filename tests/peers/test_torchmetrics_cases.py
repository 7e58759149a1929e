"""What torchmetrics' tests expect of Jaccard index, confusion matrix and Dice score, as cases for our scores.

Sources (Lightning-AI/torchmetrics): tests/unittests/classification/test_jaccard.py and test_confusion_matrix.py,
tests/unittests/segmentation/test_dice.py.
"""

import math

import pytest
import torch

from segloss.metrics import ConfusionMatrix, Scores


def scores(predicted, true, classes: int = 3, ignored: int | None = 255) -> Scores:
    confusion = ConfusionMatrix(classes, ignore_index=ignored)
    confusion.update(torch.as_tensor(predicted), torch.as_tensor(true))
    return confusion.compute()


def test_thirds_of_which_the_first_half_is_taken_for_one_class():
    true = torch.arange(120) % 3
    predicted = true.clone()
    predicted[:60] = 1
    assert scores(true, true).iou.tolist() == [1, 1, 1]
    assert scores(predicted, true).iou.tolist() == pytest.approx([0.5, 0.5, 0.5])


NONE = math.nan


@pytest.mark.parametrize(
    ("predicted", "true", "classes", "expected"),
    [
        ([0], [0], 2, [1, NONE]),
        ([0, 0], [0, 0], 2, [1, NONE]),
        ([1], [1], 2, [NONE, 1]),
        ([1, 1], [1, 1], 2, [NONE, 1]),
        ([0, 2], [0, 2], 3, [1, NONE, 1]),
        ([2, 0], [2, 0], 3, [1, NONE, 1]),
        ([0, 1], [0, 1], 3, [1, 1, NONE]),
        ([1, 0], [1, 0], 3, [1, 1, NONE]),
        ([0, 1], [0, 0], 3, [0.5, 0, NONE]),  # predicted but not in the truth
        ([0, 0], [0, 1], 3, [0.5, 0, NONE]),  # in the truth but not predicted
    ],
)
def test_absent_classes(predicted, true, classes, expected):
    """Their absent_score is what a protocol puts in the place of NaN."""
    found = scores(predicted, true, classes)
    assert found.iou.tolist() == pytest.approx(expected, nan_ok=True)
    confusion = ConfusionMatrix(classes)
    confusion.update(torch.tensor(predicted), torch.tensor(true))
    for protocol, absent in (("smp", 1.0), ("segnet", 0.0)):
        filled = [absent if math.isnan(each) else each for each in expected]
        assert Scores.from_confusion(confusion.matrix, protocol).miou == pytest.approx(sum(filled) / classes)


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        (None, [1, 1 / 2, 2 / 3]),
        (-1, [1, 1 / 2, 2 / 3]),
        (255, [1, 1 / 2, 2 / 3]),
        (0, [NONE, 1 / 2, 2 / 3]),
        (1, [1, 0, 2 / 3]),  # theirs drops the class; here its pixels are out, and pixel 2 is taken for it
        (2, [1, 1, NONE]),
    ],
)
def test_an_ignored_class_is_left_out_with_its_pixels(ignored, expected):
    found = scores([0, 1, 1, 2, 2], [0, 1, 2, 2, 2], ignored=ignored)
    assert found.iou.tolist() == pytest.approx(expected, nan_ok=True)


def test_rows_of_absent_classes_have_no_recall():
    """Theirs warns, and writes 0."""
    found = scores([0, 1, 2, 1], [0, 1, 2, 2], classes=5)
    assert found.recall[:3].tolist() == [1, 1, 0.5]
    assert found.recall[3:].isnan().all() and found.mean_accuracy == pytest.approx(2.5 / 3)


def test_dice_of_images_that_lack_classes():
    """Class 1: 9 of 36 pixels; class 3: 4 of 16 in one image, 4 false ones in another: 2*4/(4+4+16)."""
    true, predicted = (torch.zeros(3, 10, 10, dtype=torch.long) for _ in range(2))
    true[0, :6, :6], predicted[0, :3, :3] = 1, 1
    true[0, 6:, 6:], predicted[0, 8:, 8:] = 3, 3
    predicted[1, :2, :2] = 3
    f1 = scores(predicted, true, classes=4).f1
    assert f1[[1, 3]].tolist() == pytest.approx([0.4, 1 / 3])
    assert math.isnan(f1[2])


def test_of_nothing_there_is_no_score():
    found = scores(torch.full((2, 4, 4), 1), torch.full((2, 4, 4), 255))
    assert math.isnan(found.miou) and found.classes_averaged == 0
