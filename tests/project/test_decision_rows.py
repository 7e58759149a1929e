"""benchmarks/decisions.py: every way to decide, on an untrained network of made-up streets."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import decisions
import rule

from segloss.datasets.synthetic import SyntheticStreets
from segloss.evaluation.comparison import class_ious


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    open_split = partial(SyntheticStreets, size=(32, 64), length=6)
    run = rule.untrained(open_split("train"), "resnet18", tmp_path_factory.mktemp("run"))
    ways = decisions.ways_of(run, open_split)
    return open_split("test"), ways, decisions.counts_of(run, open_split("test"), ways)


def test_every_way_is_fitted_and_none_is_the_same_object(scored):
    _, ways, _ = scored
    assert list(ways) == list(decisions.MEANING)
    fitted = {name: way.decision.terms for name, way in ways.items() if way.decision.rule == "iou"}
    assert len(fitted) == 7 and None not in fitted.values()
    assert {name for name, terms in fitted.items() if terms.counts == "labels"} == {n for n in fitted if "labels" in n}


def test_all_ways_are_counted_on_the_same_labelled_pixels(scored):
    dataset, _, counts = scored
    true = np.stack([np.bincount(dataset.read_labels(n).ravel(), minlength=256)[:11] for n in range(len(dataset))])
    for name, found in counts.items():
        np.testing.assert_array_equal(found[:, 1], true, err_msg=name)
        assert (found[:, 0] <= np.minimum(found[:, 1], found[:, 2])).all()
        assert (found[:, 2].sum(1) == true.sum(1)).all()


def test_no_way_passes_the_bound_that_was_fitted_to_the_test_labels(scored):
    """All pixels are in the sample of images as small as these, so that these are candidates of the fit."""
    _, _, counts = scored
    miou = {name: np.nanmean(class_ious(found.sum(0))) for name, found in counts.items()}
    assert max(miou[name] for name in ("plain", "tau 0", "iou, test")) <= miou["iou, test labels"]


def test_the_page_has_a_line_for_each_way_and_the_gain_of_it(tmp_path, scored):
    _, ways, counts = scored
    for seed in (0, 1):
        row = {"name": f"camvid-ce-s{seed}", "dataset": "camvid", "arm": "ce", "seed": seed}
        row |= {"decisions": {name: str(way.decision) for name, way in ways.items()}}
        blocks = {name: np.concatenate([found + seed] * 2).tolist() for name, found in counts.items()}
        decisions.write_row(tmp_path / f"{row['name']}.json", row | {"blocks": blocks})
    decisions.write_page(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "### ce, 2 seeds" in page
    lines = [
        line for line in page.splitlines() if line.count("|") == 5 and not line.startswith(("| decision", "| ---"))
    ]
    assert [line.split(" | ")[0].removeprefix("| ").split(" (")[0] for line in lines] == list(decisions.MEANING)
    plain, *others = (line.split("|")[4].strip() for line in lines)
    assert plain == "" and all(others)
