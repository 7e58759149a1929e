"""The protocol mmseg against mmsegmentation's IoUMetric, run by `make test-mmseg` in an environment of its own."""

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import IoUMetric

from segloss.metrics import ConfusionMatrix, Scores

CLASSES, IGNORED = 5, 255
# name: label ids and predicted ids of each image
CASES = {
    "every class": [(range(5), range(5))] * 3,
    "ignored pixels": [((0, 1, 2, 3, 4, 255), range(5))] * 2,
    "a class absent from both": [((0, 1, 3, 4), (0, 1, 3, 4))] * 2,
    "a class absent from truth but predicted": [((0, 1, 3), range(5))] * 2,
    "a class never predicted": [(range(5), (0, 1, 2))] * 2,
    "unknown ids predicted": [((0, 1, 2, 3, 255), (0, 1, 2, 9, 200, 255))] * 2,
    "images of one class": [((1,), (1,)), ((2,), (2,)), ((1,), (2,))],
    "nothing right": [((0, 1), (2, 3))],
}


def image(labels, predicted, seed):
    """``(labels, predictions)``, half of the pixels right where they may be."""
    generator = np.random.default_rng(seed)
    true, guess = generator.choice(list(labels), (17, 23)), generator.choice(list(predicted), (17, 23))
    right = (generator.random(true.shape) < 0.5) & np.isin(true, list(predicted))
    return torch.from_numpy(true), torch.from_numpy(np.where(right, true, guess))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_protocol_gives_the_numbers_of_the_metric(case):
    metric, confusion = IoUMetric(ignore_index=IGNORED, iou_metrics=["mIoU", "mFscore"]), ConfusionMatrix(CLASSES)
    metric.dataset_meta = {"classes": [str(c) for c in range(CLASSES)]}
    for seed, ids in enumerate(case):
        true, predicted = image(*ids, seed)
        metric.process({}, [{"pred_sem_seg": {"data": predicted}, "gt_sem_seg": {"data": true}}])
        confusion.update(predicted, true)
    scores = Scores.from_confusion(confusion.matrix, "mmseg")
    areas = [sum(area.double() for area in column) for column in zip(*metric.results, strict=True)]
    theirs = IoUMetric.total_area_to_metrics(*areas, ["mIoU", "mFscore"])
    pairs = {"IoU": scores.iou, "Acc": scores.recall, "Precision": scores.precision}
    for name, ours in pairs.items():  # float64 quotients of the same integers
        np.testing.assert_allclose(ours.numpy(), theirs[name], rtol=1e-12, equal_nan=True)
    percent = metric.compute_metrics(metric.results)  # rounded to 0.01 percent, from float32
    means = {"mIoU": scores.miou, "mAcc": scores.mean_accuracy, "aAcc": scores.pixel_accuracy}
    for name, ours in means.items():
        assert 100 * ours == pytest.approx(float(percent[name]), abs=0.0051)
