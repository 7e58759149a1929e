"""Means of the same masks by every protocol, against the libraries they are named after or their definitions."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from segloss.datasets.tables import CITYSCAPES
from segloss.metrics import PROTOCOLS, ConfusionMatrix, Scores, class_groups, grouped_confusion

CLASSES = 4
IGNORED = 255


def image(labels, predicted, *, seed=0, size=(9, 7), right=0.5):
    """Random ``(labels, predictions)`` of the ids given; where a label may be predicted it often is."""
    generator = np.random.default_rng(seed)
    true = generator.choice(labels, size)
    guess = generator.choice(predicted, size)
    same = (generator.random(size) < right) & np.isin(true, predicted)
    return true, np.where(same, true, guess)


# name: pairs of label ids and predicted ids, one per image
IMAGES = {
    "random": [([0, 1, 2, 3], [0, 1, 2, 3])] * 3,
    "ignored pixels": [([0, 1, 2, 3, 255], [0, 1, 2, 3])] * 3,
    "a class absent from both": [([0, 1, 3], [0, 1, 3])] * 2,
    "a class absent from truth but predicted": [([0, 1, 3], [0, 1, 2, 3])] * 2,
    "a class never predicted": [([0, 1, 2, 3], [0, 1, 3])] * 2,
    "a class in one image only": [([0, 1], [0, 1]), ([0, 1, 2, 3], [0, 1, 2, 3])],
    "255 predicted": [([0, 1, 2, 3, 255], [0, 1, 2, 3, 255])] * 2,
    "unknown ids predicted": [([0, 1, 2, 3, 255], [0, 1, 2, 3, 4, 9, 200])] * 2,
    "one-class images": [([1], [1]), ([2], [2]), ([1], [2])],
    "an image of ignored pixels only": [([255], [0, 1]), ([0, 1, 2, 3], [0, 1, 2, 3])],
    "nothing right": [([0, 1], [2, 3])],
}
UNKNOWN = ("255 predicted", "unknown ids predicted")


def images_of(case):
    return [image(*ids, seed=seed) for seed, ids in enumerate(IMAGES[case])]


def counts_of(images):
    """Right, true and predicted pixels per image and class ``(images, C)``, by a loop over classes."""
    rows = []
    for true, predicted in images:
        valid = true != IGNORED
        rows.append(
            [
                [np.sum(valid & (true == c) & (predicted == c)) for c in range(CLASSES)],
                [np.sum(valid & (true == c)) for c in range(CLASSES)],
                [np.sum(valid & (predicted == c)) for c in range(CLASSES)],
            ]
        )
    return [torch.tensor(np.array(rows)[:, k]) for k in range(3)]


def both_ways(images, protocol):
    """Scores from the confusion matrix; those from the counts of images must be the same."""
    scores = Scores.from_counts(*counts_of(images), protocol)
    confusion = ConfusionMatrix(CLASSES)
    for true, predicted in images:
        confusion.update(torch.from_numpy(predicted), torch.from_numpy(true))
    if protocol != "per-image":
        other = Scores.from_confusion(confusion.matrix, protocol)
        for name in ("iou", "recall", "precision", "f1", "pixels"):
            assert torch.equal(torch.nan_to_num(getattr(scores, name), -1), torch.nan_to_num(getattr(other, name), -1))
        for name in ("miou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou", "classes_averaged"):
            np.testing.assert_equal(getattr(scores, name), getattr(other, name))
    return scores


# The libraries.


@pytest.mark.parametrize("case", IMAGES)
def test_smp_equals_its_library(case):
    smp = pytest.importorskip("segmentation_models_pytorch.metrics")
    images = images_of(case)
    true, predicted = (torch.from_numpy(np.stack(maps)).long() for maps in zip(*images, strict=True))
    stats = smp.get_stats(predicted, true, mode="multiclass", ignore_index=IGNORED, num_classes=CLASSES)
    scores = both_ways(images, "smp")
    # The library divides in float32.
    assert scores.miou == pytest.approx(float(smp.iou_score(*stats, reduction="macro")), abs=1e-6)
    assert scores.mean_accuracy == pytest.approx(float(smp.recall(*stats, reduction="macro")), abs=1e-6)
    assert scores.classes_averaged == CLASSES


@pytest.mark.parametrize("case", IMAGES)
def test_per_image_equals_torchmetrics(case):
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    metric = segmentation.MeanIoU(num_classes=CLASSES, per_class=False, input_format="one-hot").set_dtype(torch.float64)
    images = images_of(case)
    for true, predicted in images:  # an id that is no class, and an ignored pixel, is a column of zeros
        valid = true != IGNORED
        planes = [
            torch.from_numpy(np.stack([valid & (ids == c) for c in range(CLASSES)]))[None] for ids in (predicted, true)
        ]
        metric.update(*planes)
    assert both_ways(images, "per-image").miou == pytest.approx(float(metric.compute()), abs=1e-6)


def test_per_image_equals_torchmetrics_on_a_batch_of_class_numbers():
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    images = [image([0, 1], [0, 1]), image([0, 2, 3], [0, 1, 3], seed=1), image([3], [3], seed=2)]
    true, predicted = (torch.from_numpy(np.stack(maps)).long() for maps in zip(*images, strict=True))
    metric = segmentation.MeanIoU(num_classes=CLASSES, input_format="index")
    scores = both_ways(images, "per-image")
    assert scores.miou == pytest.approx(float(metric(predicted, true)), abs=1e-6)
    assert scores.miou != pytest.approx(both_ways(images, "cityscapes").miou, abs=0.001)


def test_per_image_needs_the_counts_of_images():
    with pytest.raises(ValueError, match=r"protocol per-image needs the counts of each image: Scores\.from_counts"):
        Scores.from_confusion(torch.eye(3), "per-image")


# The definitions of what is not installed, as those programs write them.


def nan_mean(values):
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def mmseg(images):
    """mmsegmentation 1.x, ``IoUMetric.intersect_and_union`` and ``total_area_to_metrics``."""
    totals = torch.zeros(3, CLASSES, dtype=torch.float64)
    for true, predicted in images:
        label, pred = torch.from_numpy(true), torch.from_numpy(predicted)
        mask = label != IGNORED
        pred, label = pred[mask], label[mask]
        intersect = pred[pred == label]
        for place, ids in enumerate((intersect, label, pred)):
            totals[place] += torch.histc(ids.float(), bins=CLASSES, min=0, max=CLASSES - 1)
    hits, label, pred = totals
    iou, accuracy = hits / (pred + label - hits), hits / label
    return nan_mean(iou.tolist()), nan_mean(accuracy.tolist()), float(hits.sum() / label.sum())


def torchvision(images):
    """``ConfusionMatrix`` of torchvision's reference scripts for segmentation."""
    matrix = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for true, predicted in images:
        a, b = torch.from_numpy(true).flatten(), torch.from_numpy(predicted).flatten()
        known = (a >= 0) & (a < CLASSES)
        matrix += torch.bincount(CLASSES * a[known] + b[known], minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    h = matrix.double()
    accuracy = torch.diag(h) / h.sum(1)
    iou = torch.diag(h) / (h.sum(1) + h.sum(0) - torch.diag(h))
    return float(iou.mean()), float(accuracy.mean()), float(torch.diag(h).sum() / h.sum())


def segnet(images):
    """What SegNet's MATLAB, semseg and PaddleSeg do: every class counts, one without pixels as 0."""
    iou, accuracy, right, valid = [], [], 0, 0
    for c in range(CLASSES):
        hits = sum(int(np.sum((true == c) & (predicted == c))) for true, predicted in images)
        area = sum(int(np.sum(true == c)) for true, _ in images)
        union = area + sum(int(np.sum((true != IGNORED) & (predicted == c))) for true, predicted in images) - hits
        iou.append(hits / union if union else 0.0)
        accuracy.append(hits / area if area else 0.0)
        right, valid = right + hits, valid + area
    return sum(iou) / CLASSES, sum(accuracy) / CLASSES, right / valid if valid else math.nan


def means(scores):
    return scores.miou, scores.mean_accuracy, scores.pixel_accuracy


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("reference", [mmseg, segnet, torchvision], ids=lambda f: f.__name__)
def test_means_follow_the_definition(case, reference):
    if reference is torchvision and case in UNKNOWN:
        pytest.skip("its references count an argmax, which is always a class")
    images = images_of(case)
    expected = reference(images)
    # float64 quotients of the same integers, summed in another order.
    np.testing.assert_allclose(means(both_ways(images, reference.__name__)), expected, rtol=1e-12, equal_nan=True)


def test_an_absent_class_tells_the_protocols_apart():
    images = images_of("a class absent from both")
    miou = {protocol: both_ways(images, protocol).miou for protocol in PROTOCOLS}
    three = nan_mean(both_ways(images, "cityscapes").iou.tolist())
    assert miou["cityscapes"] == miou["mmseg"] == pytest.approx(three, rel=1e-15)
    assert miou["segnet"] == pytest.approx(three * 3 / 4, rel=1e-12)
    assert miou["smp"] == pytest.approx((three * 3 + 1) / 4, rel=1e-12)
    assert math.isnan(miou["torchvision"])
    averaged = {protocol: both_ways(images, protocol).classes_averaged for protocol in PROTOCOLS}
    assert averaged == {"cityscapes": 3, "mmseg": 3, "torchvision": 4, "segnet": 4, "smp": 4, "per-image": 3}


def test_protocols_agree_where_every_class_is_there():
    images = images_of("random")
    pooled = [means(both_ways(images, protocol)) for protocol in PROTOCOLS if protocol != "per-image"]
    np.testing.assert_allclose(pooled, np.broadcast_to(pooled[0], np.shape(pooled)), rtol=1e-15)


def test_no_image_with_a_valid_pixel_gives_nan_or_the_value_of_an_absent_class():
    images = [image([255], [0, 1, 255])]
    expected = {"segnet": 0.0, "smp": 1.0}
    for protocol in PROTOCOLS:
        np.testing.assert_equal(both_ways(images, protocol).miou, expected.get(protocol, math.nan))


def test_an_unknown_protocol_names_the_choices():
    with pytest.raises(ValueError, match=r"protocol must be one of cityscapes, .*per-image, got 'coco'"):
        Scores.from_confusion(torch.eye(3), "coco")


# Scores that no protocol changes.


@pytest.mark.parametrize("case", IMAGES)
def test_f1_and_frequency_weighted_iou_follow_their_definitions(case):
    images = images_of(case)
    scores = both_ways(images, "cityscapes")
    weighted, valid = 0.0, sum(int(np.sum(true != IGNORED)) for true, _ in images)
    for c in range(CLASSES):
        pairs = [(true == c, (predicted == c) & (true != IGNORED)) for true, predicted in images]
        tp, fn, fp = (sum(int(np.sum(f(t, p))) for t, p in pairs) for f in (_tp, _fn, _fp))
        f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan
        np.testing.assert_allclose(float(scores.f1[c]), f1, rtol=1e-12, equal_nan=True)
        weighted += (tp + fn) / valid * (tp / (tp + fp + fn)) if tp + fn else 0
    assert scores.frequency_weighted_iou == pytest.approx(weighted, rel=1e-12)


def _tp(true, predicted):
    return true & predicted


def _fn(true, predicted):
    return true & ~predicted


def _fp(true, predicted):
    return ~true & predicted


# Groups of classes.


@pytest.mark.parametrize(("count", "third"), [(2, 1), (3, 1), (4, 2), (5, 2), (11, 4), (19, 7)])
def test_head_and_tail_are_a_third_each_rounded_up(count, third):
    pixels = np.random.default_rng(count).permutation(count) * 10 + 5
    groups = class_groups(pixels.tolist())
    assert (len(groups["head"]), len(groups["tail"])) == (third, third)
    assert sorted(c for members in groups.values() for c in members) == list(range(count))
    assert all(members == sorted(members) for members in groups.values())
    by_group = [sorted(pixels[groups[name]]) for name in ("head", "middle", "tail") if groups[name]]
    assert all(more[0] > less[-1] for more, less in pairwise(by_group))


def test_classes_of_equal_frequency_are_grouped_by_number():
    assert class_groups([5, 5, 5, 5, 5]) == {"head": [0, 1], "middle": [2], "tail": [3, 4]}
    assert class_groups([0, 7, 0]) == {"head": [1], "middle": [0], "tail": [2]}


def test_grouped_confusion_is_the_matrix_of_grouped_ids():
    groups = ["flat", "object", "flat", "sky"]
    number = np.array([0, 1, 0, 2, 99])  # 99: predictions that are no class
    true, predicted = image([0, 1, 2, 3], [0, 1, 2, 3, 4], size=(20, 30))
    classes, categories = ConfusionMatrix(4), ConfusionMatrix(3)
    classes.update(torch.from_numpy(predicted), torch.from_numpy(true))
    categories.update(torch.from_numpy(number[predicted]), torch.from_numpy(number[true]))
    names, matrix = grouped_confusion(classes.matrix, groups)
    assert names == ["flat", "object", "sky"]
    assert matrix.dtype == torch.int64 and torch.equal(matrix, categories.matrix)
    square = grouped_confusion(classes.matrix[:, :4], groups)[1]
    assert torch.equal(square[:, :3], categories.matrix[:, :3]) and int(square[:, 3].sum()) == 0


@pytest.mark.parametrize(
    ("label_ids", "predicted_ids"),
    [
        (list(range(34)), list(range(34))),  # ignored ids of evaluated categories among them
        ([7, 8, 11, 0], [7, 8, 11, 9, 14, 3]),
        ([7, 24], [8, 25, 26]),
        ([23], [23]),
        ([0, 1], [7, 8]),
    ],
    ids=["every id", "ignored ids of the same category predicted", "right category, wrong class", "one", "none"],
)
def test_categories_equal_the_official_cityscapes_evaluation(tmp_path, label_ids, predicted_ids):
    from PIL import Image

    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    args = copy.copy(official.args)
    args.evalInstLevelScore = args.evalPixelAccuracy = False
    matrix, confusion = official.generateMatrix(args), ConfusionMatrix(19)
    to_train = np.full(256, 255)
    for label in official.labels:
        if not label.ignoreInEval:
            to_train[label.id] = label.trainId
    for seed in range(2):
        true, predicted = image(label_ids, predicted_ids, seed=seed, size=(23, 31))
        files = [str(tmp_path / f"{seed}_{name}.png") for name in ("prediction", "truth")]
        for file, ids in zip(files, (predicted, true), strict=True):
            Image.fromarray(ids.astype(np.uint8)).save(file)
        official.evaluatePair(*files, matrix, {}, {}, args)
        confusion.update(torch.from_numpy(to_train[predicted]), torch.from_numpy(to_train[true]))
    names, grouped = grouped_confusion(confusion.matrix, CITYSCAPES.categories)
    expected = {name: official.getIouScoreForCategory(name, matrix, args) for name in official.category2labels}
    assert math.isnan(expected.pop("void"))
    assert set(names) == set(expected)
    scores = Scores.from_confusion(grouped)
    for name, iou in zip(names, scores.iou.tolist(), strict=True):
        np.testing.assert_allclose(iou, expected[name], rtol=1e-12, equal_nan=True)
    np.testing.assert_allclose(scores.miou, official.getScoreAverage(expected, args), rtol=1e-12, equal_nan=True)
