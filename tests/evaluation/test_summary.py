"""The metrics schema against values worked out from the pixels themselves."""

import json
import math

import numpy as np
import pytest

from segloss.datasets.classes import ClassTable
from segloss.evaluation import summary
from segloss.evaluation.counting import BINS, confusion_of
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.summary import calibration, mean_of
from segloss.measures.boundary import boundary_of
from segloss.metrics import PROTOCOLS
from segloss.schema import MaskOrigin, RunScores

CLASSES = ClassTable(("sky", "car", "bus", "pole", "bird"), categories=("far", "near", "near", "near", "far"))


def images(seed=0, count=3, absent=()):
    """Random ``(predicted, labels)`` of 5 classes; some pixels ignored, some predictions no class."""
    generator = np.random.default_rng(seed)
    ids = [c for c in range(5) if c not in absent]
    for _ in range(count):
        labels = generator.choice(np.array([*ids, 255], np.uint8), (20, 30))
        guess = generator.choice(np.array([*ids, 200], np.uint8), labels.shape)
        yield np.where(generator.random(labels.shape) < 0.6, labels, guess).astype(np.uint8), labels


def totals_of(pairs, boundary=False):
    kept = []
    for place, (predicted, labels) in enumerate(pairs):
        kept.append(ImageResult(str(place), *confusion_of(predicted, labels, 5)))
        if boundary:
            kept[-1].counted["boundary"] = boundary_of(predicted, labels, 5)
    return Totals.of(kept)


def summarise(totals, classes, **how):
    """As JSON, which reads back as the same scores."""
    scores = summary.summarise(totals, classes, MaskOrigin(predictions="p", labels="t"), **how)
    content = scores.to_json()
    assert RunScores.from_json(json.loads(json.dumps(content))) == scores
    return content


def iou(pairs, members):
    """Of all pixels of some classes together."""
    hits = union = 0
    for predicted, labels in pairs:
        true, found = np.isin(labels, members), np.isin(predicted, members) & (labels != 255)
        hits, union = hits + int((true & found).sum()), union + int((true | found).sum())
    return hits / union if union else math.nan


def test_every_number_follows_from_the_pixels():
    pairs = list(images())
    metrics = summarise(totals_of(pairs), CLASSES, training_pixels=[900, 50, 3, 20, 10])
    labels = np.stack([y for _, y in pairs])
    expected = [iou(pairs, [c]) for c in range(5)]
    assert metrics["images"] == 3 and metrics["ignored_pixels"] == (labels == 255).sum()
    assert [row["name"] for row in metrics["classes"]] == list(CLASSES.names)
    for c, row in enumerate(metrics["classes"]):
        assert row["iou"] == pytest.approx(expected[c], rel=1e-12)
        assert row["pixels"] == (labels == c).sum() and row["images"] == (labels == c).any((1, 2)).sum()
    assert metrics["miou"] == pytest.approx(np.mean(expected), rel=1e-12)
    groups = metrics["groups"]
    assert groups["by_pixels_of"] == "training"
    for name, members in {"head": [0, 1], "middle": [3], "tail": [2, 4]}.items():
        assert groups[name]["classes"] == [CLASSES.names[c] for c in members]
        assert groups[name]["miou"] == pytest.approx(np.mean([expected[c] for c in members]), rel=1e-12)
    worst = int(np.argmin(expected))
    assert metrics["worst_class"] == {"name": CLASSES.names[worst], "iou": metrics["classes"][worst]["iou"]}
    categories = {"far": iou(pairs, [0, 4]), "near": iou(pairs, [1, 2, 3])}
    assert metrics["categories"]["iou"] == pytest.approx(categories, rel=1e-12)
    assert metrics["categories"]["miou"] == pytest.approx(sum(categories.values()) / 2, rel=1e-12)
    assert not {"boundary_miou", "calibration"} & set(metrics)


def test_without_training_pixels_those_of_the_evaluation_order_the_classes():
    totals = totals_of(images())
    groups = summarise(totals, CLASSES)["groups"]
    pixels = totals.matrix.sum(1)
    assert groups["by_pixels_of"] == "evaluation"
    order = sorted(range(5), key=lambda c: -pixels[c])
    assert {CLASSES.names[c] for c in order[:2]} == set(groups["head"]["classes"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("absent", [(), (2,), (2, 4), (0, 1, 2, 3, 4)], ids=str)
def test_a_summary_is_json_whatever_is_absent(protocol, absent):
    totals = totals_of(list(images(absent=absent)), boundary=True)
    totals.calibration = np.zeros((BINS, 3))
    read = json.loads(json.dumps(summarise(totals, CLASSES, protocol=protocol), allow_nan=False))
    assert read["protocol"] == protocol
    for c in absent:
        row = read["classes"][c]
        assert row["iou"] is None and row["boundary_iou"] is None and row["pixels"] == row["images"] == 0
    if len(absent) == 5:
        assert "worst_class" not in read and read["boundary_miou"] is None and read["groups"]["tail"]["miou"] is None


def test_boundary_iou_is_that_of_the_summed_bands():
    pairs = list(images(absent=(3,)))
    metrics = summarise(totals_of(pairs, boundary=True), CLASSES)
    both, either = np.sum([boundary_of(p, y, 5) for p, y in pairs], axis=0).T
    expected = [both[c] / either[c] for c in (0, 1, 2, 4)]
    found = [row["boundary_iou"] for row in metrics["classes"]]
    assert found.pop(3) is None and found == pytest.approx(expected, rel=1e-12)
    assert metrics["boundary_miou"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_per_image_is_the_mean_over_pairs_of_image_and_class():
    pairs = [*images(0, 1), *images(1, 1, absent=(1, 2, 3))]
    ious = [iou([pair], [c]) for pair in pairs for c in range(5)]
    metrics = summarise(totals_of(pairs), CLASSES, protocol="per-image")
    assert metrics["miou"] == pytest.approx(np.nanmean(ious), rel=1e-12)
    assert metrics["classes"][0]["iou"] == pytest.approx(iou(pairs, [0]), rel=1e-12)


def test_calibration_follows_its_definition():
    generator = np.random.default_rng(0)
    confidence, right = generator.random(4000) ** 0.3, generator.random(4000) < 0.7
    ece, counts = 0.0, np.zeros((BINS, 3))
    for k in range(BINS):
        inside = (confidence >= k / BINS) & (confidence < (k + 1) / BINS)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        counts[k] = inside.sum(), confidence[inside].sum(), right[inside].sum()
    totals = totals_of(images(count=1))
    totals.calibration, totals.brier = counts, 1234.0
    found = calibration(totals)
    assert found.ece == pytest.approx(ece, rel=1e-12) and ece > 0.05
    assert found.brier == pytest.approx(1234 / 4000, rel=1e-12)
    assert sum(row.share for row in found.bins) == pytest.approx(1, rel=1e-12)
    assert all(row.from_ <= row.confidence <= row.from_ + 1 / BINS for row in found.bins)
    assert len(found.bins) == np.count_nonzero(counts[:, 0]) < BINS


def test_the_mean_of_some_classes_leaves_out_those_without_iou():
    import torch

    ious = torch.tensor([0.5, math.nan, 0.25], dtype=torch.float64)
    assert mean_of(ious, [0, 1, 2]) == 0.375 and math.isnan(mean_of(ious, [1])) and math.isnan(mean_of(ious, []))


@pytest.mark.parametrize("training", [None, [900, 5, 3, 50, 20]])
def test_groups_and_the_worst_class_are_of_classes_that_labels_hold(training):
    """Tail and worst class were of classes in no label, of which one predicted pixel makes an IoU of 0."""
    labels = np.tile(np.repeat(np.array([0, 0, 0, 3, 3, 4], np.uint8), 5), (20, 1))
    predicted = np.where(np.arange(30) % 5 == 0, np.where(labels == 4, 1, 2), labels).astype(np.uint8)
    metrics = summarise(totals_of([(predicted, labels)]), CLASSES, training_pixels=training)
    groups = {name: metrics["groups"][name]["classes"] for name in ("head", "middle", "tail")}
    if training is None:
        assert groups == {"head": ["sky"], "middle": ["pole"], "tail": ["bird"]}
        assert metrics["groups"]["tail"]["miou"] == pytest.approx(0.8)
    else:  # the tail of the training is in no label
        assert groups == {"head": ["sky", "pole"], "middle": ["bird"], "tail": []}
        assert metrics["groups"]["tail"]["miou"] is None
    assert metrics["classes"][1]["iou"] == 0 and metrics["worst_class"]["iou"] == pytest.approx(0.8)


def test_no_label_at_all_has_no_groups():
    ignored = np.full((4, 5), 255, np.uint8)
    metrics = summarise(totals_of([(np.zeros((4, 5), np.uint8), ignored)]), CLASSES)
    assert metrics["groups"]["head"] == {"classes": [], "miou": None} and "worst_class" not in metrics
