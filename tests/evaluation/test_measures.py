"""A metric with counts of its own: declared in one module, found in files, tables, terminal and page."""

import csv
import json

import numpy as np
import pytest
from data_trees import random_mask, write_png
from street_trees import TINY, street_tree

import eval_seg
import train_seg
from segloss.evaluation import sources
from segloss.evaluation.results import ImageResult, Totals
from segloss.measures import MEASURES, Column, Measure


def count_upper_half(predicted, labels, num_classes):
    """Right and true pixels of each class above the middle."""
    half = slice(0, labels.shape[0] // 2)
    pairs = [(labels[half] == c, predicted[half] == c) for c in range(num_classes)]
    return np.array([[(true & found).sum(), true.sum()] for true, found in pairs])


def shares(counts):
    with np.errstate(invalid="ignore"):
        return counts[:, 0] / counts[:, 1]


MADE_UP = Measure(
    "upper_half",
    "recall above the middle",
    count_upper_half,
    shares,
    of_class=Column("upper_recall", "recall above", short="above"),
    of_all=Column("upper_mean", "mean recall above"),
)


@pytest.fixture
def asked(monkeypatch):
    """The measure is registered, and every evaluation is asked for it and for boundary IoU."""
    monkeypatch.setitem(MEASURES, MADE_UP.name, MADE_UP)
    monkeypatch.setattr(sources, "counted_of", lambda _: ("boundary", MADE_UP.name))


def require_everywhere(folder, name, capsys):
    """Its numbers in metrics.json; the same in per_class.csv, runs.csv, terminal and page."""
    scores = json.loads((folder / "metrics.json").read_text())["runs"][name]
    of_classes = [row["upper_recall"] for row in scores["classes"]]
    known = [ratio for ratio in of_classes if ratio is not None]
    assert scores["upper_mean"] == pytest.approx(np.mean(known), rel=1e-12) and len(known) > 0
    assert "boundary_miou" in scores
    for table, key, expected in (
        ("per_class", "upper_recall", of_classes),
        ("runs", "upper_mean", [scores["upper_mean"]]),
    ):
        with (folder / f"{table}.csv").open(newline="") as file:
            cells = [row[key] for row in csv.DictReader(file) if row["run"] == name]
        assert cells == ["" if ratio is None else str(ratio) for ratio in expected]
    printed = capsys.readouterr().out
    mean = f"{100 * scores['upper_mean']:.1f}"
    assert f"mean recall above {mean}" in printed and " above " in printed.split("pixels")[0]
    page = (folder / "report.html").read_text()
    assert ">mean recall above</th>" in page and ">recall above</th>" in page and f">{mean}</td>" in page
    return scores


def test_a_made_up_measure_of_folders_of_masks_is_found_everywhere(tmp_path, asked, capsys):
    hits, true = np.zeros(3), np.zeros(3)
    for place in range(4):
        labels, guess = random_mask(place, (9, 8), (0, 1, 255)), random_mask(place + 9, (9, 8), (0, 1))
        write_png(tmp_path / f"true/{place}.png", labels)
        write_png(tmp_path / f"pred/{place}.png", guess)
        for c in range(3):
            hits[c] += ((labels[:4] == c) & (guess[:4] == c)).sum()
            true[c] += (labels[:4] == c).sum()
    (tmp_path / "classes.txt").write_text("a\nb\nghost\n")
    folders = ["--predictions", str(tmp_path / "pred"), "--labels", str(tmp_path / "true")]
    eval_seg.evaluate([*folders, "--output-dir", str(tmp_path / "out")])
    found = require_everywhere(tmp_path / "out", "pred", capsys)
    assert [row["upper_recall"] for row in found["classes"]] == [hits[0] / true[0], hits[1] / true[1], None]


def test_a_made_up_measure_of_a_run_is_found_everywhere(tmp_path, asked, capsys, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    data, run = street_tree(tmp_path / "data"), tmp_path / "run"
    train_seg.train(["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(run), *TINY, "--epochs", "1"])
    capsys.readouterr()
    flags = ["--checkpoint", str(run), "--workers", "0", "--save-predictions", "--output-dir", str(tmp_path / "out")]
    eval_seg.evaluate(flags)
    of_run = require_everywhere(tmp_path / "out", "run", capsys)
    masks = ["--predictions", str(tmp_path / "out/predictions/run"), "--labels", str(data / "testannot")]
    eval_seg.evaluate([*masks, "--class-table", "camvid", "--output-dir", str(tmp_path / "masks")])
    assert require_everywhere(tmp_path / "masks", "run", capsys)["classes"] == of_run["classes"]


def test_a_measure_says_how_its_counts_add_up(monkeypatch):
    largest = Measure("largest", "", count_upper_half, shares, MADE_UP.of_class, MADE_UP.of_all, add=np.maximum)
    monkeypatch.setitem(MEASURES, "largest", largest)
    counts = [np.array([[1, 5], [4, 2]]), np.array([[3, 2], [0, 9]]), np.array([[2, 2], [2, 2]])]
    totals = Totals.of(ImageResult(str(k), np.eye(2, 3, dtype=int), 0, {"largest": c}) for k, c in enumerate(counts))
    np.testing.assert_array_equal(totals.counted["largest"], [[3, 5], [4, 9]])


def test_every_measure_is_a_switch_under_its_name_and_its_columns_are_its_own():
    assert list(MEASURES) == [measure.name for measure in MEASURES.values()] and "boundary" in MEASURES
    for measure in MEASURES.values():
        assert measure.option.default is False and measure.option.help == measure.help != ""
    keys = [column.key for measure in MEASURES.values() for column in (measure.of_class, measure.of_all)]
    assert len(set(keys)) == len(keys)


def test_the_mean_of_a_measure_leaves_out_classes_without_a_score():
    assert MADE_UP.mean(np.array([0.5, np.nan, 0.25])) == 0.375
    assert np.isnan(MADE_UP.mean(np.array([np.nan, np.nan])))
