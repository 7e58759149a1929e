"""benchmarks/evidence_scores.py: what a row keeps of a run, on an untrained network of made-up streets."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import evidence_scores
import rule

from segloss.datasets.synthetic import SyntheticStreets
from segloss.evaluation.comparison import class_ious
from segloss.inference import infer_dataset
from segloss.metrics import ConfusionMatrix


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    open_split = partial(SyntheticStreets, size=(32, 64), length=6)
    return rule.untrained(open_split("train"), "resnet18", tmp_path_factory.mktemp("run")), open_split


@pytest.fixture
def row(opened, monkeypatch):
    monkeypatch.setattr(evidence_scores, "opened", lambda path, root: opened)
    return evidence_scores.score(Path("run"), Path("data"), block=4, test=True)


def test_test_scores_are_those_of_the_network_s_decisions(opened, row):
    run, open_split = opened
    expected = ConfusionMatrix(11)
    for sample, logits in infer_dataset(run.model, run.criterion, open_split("test"), device=torch.device("cpu")):
        expected.update(run.criterion.decide(logits), sample["labels"][None].long())
    scores = expected.compute()
    plain = row["scores"]["test"]["plain"]
    assert plain["miou"] == scores.miou and plain["pixel_accuracy"] == scores.pixel_accuracy
    np.testing.assert_array_equal(np.array(plain["iou"], dtype=float), scores.iou)
    blocks = np.array(plain["blocks"])
    assert blocks.shape == (2, 3, 11)
    np.testing.assert_array_equal(class_ious(blocks.sum(0)), scores.iou)


def test_every_decision_is_scored_on_both_splits_and_auto_is_one_of_them(row):
    names = list(evidence_scores.DECISIONS)
    assert list(row["scores"]["val"]) == list(row["scores"]["test"]) == list(row["decisions"]) == names
    assert row["auto"] in ("plain", "iou", "labels")


def test_a_half_of_val_is_decided_by_what_the_other_half_says(opened):
    run, open_split = opened
    val = open_split("val")
    halves = tuple(
        evidence_scores.sample_of(run, val, device=torch.device("cpu"), places=range(part, len(val), 2))
        for part in (0, 1)
    )
    found = evidence_scores.held_out_scores(run, halves)
    by_hand = ConfusionMatrix(11, ignore_index=None)
    for mine, other in (halves, halves[::-1]):
        terms = evidence_scores.iou_decision(other, counts="labels", tilt=run.criterion.tilt)
        by_hand.update(terms.decide(mine.posterior), mine.labels)
    assert found["labels"]["miou"] == by_hand.compute().miou
    assert len(found["labels"]["iou"]) == 11
