"""The charts of the page: marks stand where their numbers say."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hand_made_scores import comparison, metrics
from hypothesis import given
from hypothesis import strategies as st

from segloss.report.charts import MOST_STEPS, Axis, class_chart, interval_chart, without_interval
from segloss.schema import Interval


@given(st.lists(st.floats(0, 1), max_size=6))
def test_an_axis_holds_all_numbers_between_few_round_ticks(ratios):
    axis = Axis.around(ratios)
    assert 2 <= len(axis.ticks) <= MOST_STEPS + 1
    steps = np.diff(axis.ticks)
    assert np.allclose(steps, steps[0]) and float(f"{steps[0]:.6g}") == pytest.approx(steps[0], rel=1e-6)
    for ratio in ratios:
        assert -0.1 <= axis.place(ratio) <= 100.1


def test_the_ranking_is_drawn_to_scale():
    chart = interval_chart(comparison(a=0.5, b=0.4).ranking)  # with intervals of 2 points to each side
    ticks = [float(tick["text"]) for tick in chart["ticks"]]
    for row, (low, mean, high) in zip(chart["rows"], [(0.48, 0.5, 0.52), (0.38, 0.4, 0.42)], strict=True):
        for key, ratio in (("low", low), ("mean", mean), ("high", high)):
            assert row["at"][key] == pytest.approx(100 * (100 * ratio - ticks[0]) / (ticks[-1] - ticks[0]), abs=0.01)


def test_a_setting_without_interval_or_mean_has_no_mark_of_it():
    chart = interval_chart(comparison(interval=(None, None), p=None).ranking)
    assert [row["at"]["low"] for row in chart["rows"]] == [None, None]
    assert all(row["at"]["mean"] is not None for row in chart["rows"])


def test_bars_are_of_every_run_in_the_order_asked_for_with_intervals_of_their_own():
    runs = {"A": metrics(), "B": metrics(), "C": metrics()}
    rows = class_chart(runs, comparison(), [1, 0, 2], [(1, 1, 1), (2, 2, 2), (3, 3, 3)])
    assert [row["of"].name for row in rows] == ["lamp", "wall", "ghost"] and rows[0]["color"] == (2, 2, 2)
    assert [bar["run"] for bar in rows[0]["bars"]] == ["A", "B", "C"]
    assert [bar["of"] is not None for bar in rows[0]["bars"]] == [True, True, False]  # C is in no setting
    assert [bar["iou"] for bar in rows[2]["bars"]] == [None] * 3 and rows[2]["bars"][0]["of"] is None
    assert re.fullmatch("[0-9.]+", str(rows[0]["bars"][0]["of"].low))


def test_classes_without_an_interval_are_told_with_the_reason():
    few, gone = "no interval: too few blocks of images hold the class", "no interval: there is no such score"
    found = comparison(a=0.5, b=0.4)
    first, *others = found.ranking
    lacking = Interval(0.1, None, None, few), first.classes[1], Interval(None, None, None, gone)
    found = replace(found, ranking=(replace(first, classes=lacking), *others))
    names = ["lamp", "wall", "ghost"]
    assert without_interval(found, names, [1, 0, 2]) == {"too few blocks of images hold the class": ["lamp of A"]}
    both = replace(found, ranking=tuple(replace(row, classes=lacking) for row in found.ranking))
    assert without_interval(both, names, [1, 0, 2]) == {"too few blocks of images hold the class": ["lamp"]}
    none = replace(found, ranking=(replace(first, miou=Interval(0.5, None, None, few), classes=lacking),))
    assert without_interval(none, names, [1, 0, 2]) == {}  # the page says it once, of all
