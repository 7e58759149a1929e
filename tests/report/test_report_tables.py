"""What is printed and written of hand-made scores: means name their protocol, intervals say why they are missing."""

import csv

import pytest
from hand_made_scores import comparison, metrics, spread

from segloss.metrics import PROTOCOLS
from segloss.report.tables import write_tables
from segloss.report.terminal import print_comparison, print_scores
from segloss.report.wording import answer, own_intervals, pair_text, percent, scored_how, summary_lines, title_of
from segloss.schema import SweepPoint

ALONE = {"interval": (None, None), "leads": None}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_printed_means_name_protocol_and_classes(protocol, capsys):
    print_scores(metrics(protocol=protocol), "run")
    assert f"mIoU 50.0 over 2 of 3 classes (protocol {protocol})" in capsys.readouterr().out
    every = protocol in ("torchvision", "segnet", "smp")
    found = f"over {3 if every else 2} of 3 classes (protocol {protocol})"
    print_comparison(comparison(protocol=protocol))
    assert f"mIoU % {found}, 9 images; 95 % intervals from 2000 resamples" in capsys.readouterr().out
    assert answer(comparison(protocol=protocol)).startswith(f"A: mIoU 50.0 [48.0, 52.0] {found}, ahead of B by 10.0")


def test_settings_with_different_numbers_of_classes_say_so(capsys):
    print_comparison(comparison(change=lambda found: found["ranking"][0].update(classes=[spread(0.5)] * 3)))
    assert "over 2 to 3 of 3 classes" in capsys.readouterr().out


def test_without_an_interval_the_reason_is_given(capsys):
    print_comparison(comparison(**ALONE))
    printed = capsys.readouterr().out
    assert "; no interval: all images are one block" in printed and "A - B: 10.0 points\n" in printed
    assert "[-" not in printed and "- %" not in printed
    sentence = answer(comparison(**ALONE))
    assert sentence.endswith("ahead of B by 10.0 points (no interval: all images are one block).")


def test_equal_runs_are_level():
    assert ", level with B: 0.0 [-1.0, 1.0] points." in answer(comparison(b=0.5, interval=(-0.01, 0.01)))
    assert ", level with B: 0.0 points (no interval" in answer(comparison(b=0.5, **ALONE))
    assert pair_text(comparison(b=0.5001, interval=(-0.01, 0.01)).pairs[0]).endswith(": 0.0 [-1.0, 1.0] points, level")
    assert percent(-1e-5) == "0.0" and percent(-0.001) == "-0.1"


def test_runs_without_a_mean_are_not_compared(capsys):
    def without(found):
        for row in (*found["ranking"], *found["pairs"]):
            row["miou"] = spread(None)

    found = comparison(protocol="torchvision", change=without, **ALONE)
    print_comparison(found)
    assert "no mean, as a class is absent" in capsys.readouterr().out
    assert "not to be compared with B: one of the two has no mean." in answer(found)


def test_what_was_scored_is_named_where_it_is_not_plain():
    plain = {"tta_scales": [1.0], "tta_flip": False, "tile": None, "tile_overlap": 0.5}
    usual = {"decision": "tau 1", "views": plain, "image_scale": 1.0, "precision": "32-true"}
    assert scored_how(metrics()) == scored_how(metrics(**usual)) == []
    assert title_of("ce", metrics(**usual)) == "ce on camvid test: 9 images"
    views = {"tta_scales": [0.75, 1.0], "tta_flip": True, "tile": [256, 512], "tile_overlap": 0.25}
    other = {"decision": "prior 0.5", "views": views, "image_scale": 0.5, "precision": "bf16-mixed"}
    expected = (
        "prior 0.5, TTA scales 0.75 1, TTA flip, tile 256x512, overlap 0.25, image scale 0.5, precision bf16-mixed"
    )
    assert title_of("ce", metrics(**other, skipped=["f1"])) == f"ce on camvid test: 9 images, 1 left out, {expected}"


def test_predictions_of_no_class_are_printed_where_there_are_any():
    assert "predicted as no class: 3 pixels (3 %)" in summary_lines(metrics(unknown_predictions=3))
    assert not any("no class" in line for line in summary_lines(metrics(unknown_predictions=0)))


def rows_of(path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_table_on_disk_names_protocol_and_classes(tmp_path, protocol):
    runs = {name: metrics(protocol=protocol) for name in "AB"}
    point = SweepPoint("tau", 1.0, protocol, 2, miou=0.5, mean_accuracy=None, pixel_accuracy=0.7, tail_miou=None)
    sweeps = {name: [point] for name in runs}
    write_tables(tmp_path, ("wall", "lamp", "ghost"), runs, comparison(protocol=protocol), sweeps)
    for table, lines in (("runs", 2), ("per_class", 6), ("comparison", 4), ("sweep", 2)):
        rows = rows_of(tmp_path / f"{table}.csv")
        assert len(rows) == lines and {row["protocol"] for row in rows} == {protocol}, table
        if table != "comparison":
            assert {row["classes_averaged"] for row in rows} == {"2"}, table
    averaged = "3" if protocol in ("torchvision", "segnet", "smp") else "2"
    mean, *classes = rows_of(tmp_path / "comparison.csv")
    assert (mean["class"], mean["a_classes_averaged"], mean["b_classes_averaged"]) == ("mIoU", averaged, averaged)
    assert [row["class"] for row in classes] == ["wall", "lamp", "ghost"] and classes[0]["a_classes_averaged"] == ""


def test_runs_csv_holds_all_means_of_each_run(tmp_path):
    full = metrics(
        calibration={"ece": 0.1, "brier": 0.2, "bins": []},
        boundary_miou=0.3,
        boundary_ious=(0.25, 0.35, None),
        categories={"miou": 0.4, "iou": {"flat": 0.4}},
        skipped=["f1: is cut off"],
        unknown_predictions=7,
        decision="tau 0",
    )
    write_tables(tmp_path, ("wall", "lamp", "ghost"), {"A": full, "B": metrics()}, comparison(), {})
    a, b = rows_of(tmp_path / "runs.csv")
    assert list(a)[:9] == [
        *("run", "scored", "protocol", "classes_averaged"),
        *("miou", "low", "high", "mean_accuracy", "pixel_accuracy"),
    ]
    expected = {"miou": 0.5, "low": 0.48, "high": 0.52, "head": 0.5, "ece": 0.1, "brier": 0.2, "boundary_miou": 0.3}
    assert {key: float(a[key]) for key in expected} == pytest.approx(expected)
    assert (a["scored"], a["category_miou"], a["skipped"], a["unknown_predictions"]) == ("tau 0", "0.4", "1", "7")
    assert (b["scored"], b["ece"], b["boundary_miou"], b["skipped"]) == ("plain", "", "", "0")
    assert [row["boundary_iou"] for row in rows_of(tmp_path / "per_class.csv")] == ["0.25", "0.35", "", "", "", ""]


def test_an_interval_is_a_runs_own_only_if_it_was_compared_alone_and_whole():
    runs = {"A": metrics(), "B": metrics(), "C": metrics()}

    def group(found):  # the group is called A, as a run of the other group is
        found["ranking"][0].update(runs=2, members=["B", "C"])
        found["ranking"][1].update(members=["A"])

    found = comparison(change=group)
    assert own_intervals(runs, found) == {"A": found.ranking[1].miou}
    assert own_intervals({**runs, "A": metrics(images=10)}, found) == {}
