"""What a network does not find is said, with what to do about it."""

import numpy as np
import pytest
import torch

from segloss.datasets import ClassTable
from segloss.evaluation import summary
from segloss.evaluation.counting import confusion_of
from segloss.evaluation.predictions import CountByRule
from segloss.evaluation.results import ImageResult, Totals
from segloss.iou_rule import IoUDecision
from segloss.metrics import Scores
from segloss.report.alarms import gain_by_rule, not_found
from segloss.schema import MaskOrigin, RunScores

CLASSES = ClassTable(("road", "crack", "pole", "bird"))
LABELS = np.repeat(np.array([0, 0, 0, 1, 1, 2], np.uint8), 50).reshape(6, 50)  # no bird


def scored(predicted: np.ndarray) -> RunScores:
    totals = Totals.of([ImageResult("a", *confusion_of(predicted, LABELS, 4))])
    return summary.summarise(totals, CLASSES, MaskOrigin(predictions="p", labels="t"))


def by_rule(predicted: np.ndarray) -> Scores:
    return Scores.from_confusion(torch.from_numpy(confusion_of(predicted, LABELS, 4)[0]))


def test_classes_that_are_found_raise_no_alarm():
    assert not_found(scored(LABELS)) == not_found(scored(LABELS), by_rule(LABELS)) == []


def test_a_lost_class_is_named_with_the_cure_and_an_absent_one_is_not():
    (line,) = not_found(scored(np.where(LABELS == 1, 0, LABELS).astype(np.uint8)))
    assert line.startswith("hardly found, with fewer than 5 % of the pixels recalled: crack; train longer")
    for cure in ("--guided-crops", "--encoder-weights", "--loss weighted_ce", "python -m segloss.plan"):
        assert cure in line


def test_a_class_that_training_never_saw_needs_labels_and_no_other_training():
    nothing = np.zeros_like(LABELS)
    unseen, gone = not_found(scored(nothing), by_rule(LABELS), training_pixels=(9, 0, 0, 0))[0], "hardly found"
    assert unseen == (
        "not found, as no pixel of train is labelled so: crack, pole; give train images that hold it, or ignore it in "
        "the class file"
    )
    lines = not_found(scored(nothing), training_pixels=(9, 1, 0, 0))
    assert [line.split(":")[0].split(",")[0] for line in lines] == ["not found", gone]
    assert "pole" in lines[0] and "crack" in lines[1] and "pole" not in lines[1]
    assert not_found(scored(LABELS), training_pixels=(9, 0, 0, 0)) == []


@pytest.mark.parametrize(("right", "lost"), [(0, True), (4, True), (5, False)])
def test_five_percent_is_the_limit(right, lost):
    predicted = LABELS.copy()
    predicted[3:5] = 0
    predicted[3, :right] = 1  # of 100
    assert bool(not_found(scored(predicted))) is lost


def test_what_the_rule_finds_needs_another_decision_alone():
    nothing = np.zeros_like(LABELS)
    half = np.where((LABELS == 1) & (np.arange(50) < 25), 1, 0).astype(np.uint8)
    found, gone = not_found(scored(nothing), by_rule(half))
    assert found == "found by the decision for mean IoU alone: crack (50.0 % of its pixels); use --decision iou"
    assert gone.startswith("hardly found, with fewer than 5 % of the pixels recalled: pole; ")


def test_what_the_rule_calls_everywhere_is_not_found_by_it():
    road, crack, pole = [0, 0, 2000, 0], [0, 100, 0, 0], [0, 0, 50, 0]
    everywhere = Scores.from_confusion(torch.tensor([road, crack, pole, [0, 0, 0, 0]]))
    assert everywhere.recall[2] == 1 and 0 < everywhere.iou[2] < 0.05
    (line,) = not_found(scored(np.where(LABELS == 2, 0, LABELS).astype(np.uint8)), everywhere)
    assert line.startswith("hardly found, with fewer than 5 % of the pixels recalled: pole; ")


def test_the_gain_names_the_means_and_the_rarest():
    told = gain_by_rule(scored(np.zeros_like(LABELS)), by_rule(LABELS))
    assert told == (
        "decided for mean IoU (--decision iou): mIoU 16.7 -> 100.0; IoU of the rarest: pole 0.0 -> 100.0, "
        "crack 0.0 -> 100.0, road 50.0 -> 100.0"
    )


def test_the_rule_is_counted_beside_the_decision_that_is_scored():
    generator = torch.Generator().manual_seed(0)
    rule = IoUDecision((1.0, 0.7, 0.9), (0.1, 0.0, 0.0), 0.5, 0.4, "posterior", 10, True, 1, "plain")
    count, expected = CountByRule(rule, 3), torch.zeros(3, 3, dtype=torch.int64)
    for _ in range(3):
        posterior = torch.rand(1, 3, 4, 5, generator=generator).softmax(1)
        labels = torch.randint(0, 3, (4, 5), generator=generator)
        labels[0, 0] = 255
        count({"labels": labels}, labels, posterior)
        slope, offset = (torch.tensor(each).view(3, 1, 1) for each in (rule.slope, rule.offset))
        decided = (posterior[0] * slope - offset).argmax(0)
        valid = labels != 255
        for true, guess in zip(labels[valid].tolist(), decided[valid].tolist(), strict=True):
            expected[true, guess] += 1
    assert torch.equal(count.confusion.matrix[:, :3], expected) and count.confusion.ignored == 3
