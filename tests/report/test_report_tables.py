"""What is printed and written of hand-made scores: means name their protocol, intervals say why they are missing."""

import csv
import time
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from hand_made_scores import comparison, metrics, spread
from matplotlib.figure import Figure
from matplotlib.text import Text

from segloss.config import CHOICES
from segloss.evaluation.summary import confusions
from segloss.evaluation.sweep import gain
from segloss.measures import MEASURES
from segloss.metrics import PROTOCOLS
from segloss.pixel_counts import PixelCounts
from segloss.report import plots
from segloss.report.plots import (
    plot_class_counts,
    plot_class_iou,
    plot_confusion,
    plot_confusions,
    plot_history,
    plot_predictions,
    plot_reliability,
    plot_sweeps,
)
from segloss.report.tables import write_evaluation, write_tables
from segloss.report.terminal import console, print_class_counts, print_comparison, print_recipes, print_scores
from segloss.report.wording import (
    answer,
    interval_source,
    own_intervals,
    p_text,
    pair_text,
    percent,
    scored_how,
    summary_lines,
    title_of,
)
from segloss.schema import Bin, Comparison, Confusion, RunScores, SweepPoint

ALONE = {"interval": (None, None), "p": None}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_printed_means_name_protocol_and_classes(protocol, capsys):
    print_scores(metrics(protocol=protocol), "run")
    assert f"mIoU 50.0 over 2 of 3 classes (protocol {protocol})" in capsys.readouterr().out
    every = protocol in ("torchvision", "segnet", "smp")
    found = f"over {3 if every else 2} of 3 classes (protocol {protocol})"
    print_comparison(comparison(protocol=protocol))
    assert (
        f"mIoU % {found}, 9 images; 95 % intervals by a jackknife over single images: what" in capsys.readouterr().out
    )
    assert answer(comparison(protocol=protocol)).startswith(f"A: mIoU 50.0 [48.0, 52.0] {found}, ahead of B by 10.0")


def test_settings_with_different_numbers_of_classes_say_so(capsys):
    print_comparison(comparison(change=lambda found: found["ranking"][0].update(classes=[spread(0.5)] * 3)))
    assert "over 2 to 3 of 3 classes" in capsys.readouterr().out


def test_without_an_interval_the_reason_is_given(capsys):
    print_comparison(comparison(**ALONE))
    printed = capsys.readouterr().out
    assert "; no interval: fewer than 6 blocks of images" in printed and "A - B: 10.0 points\n" in printed
    assert "[-" not in printed and ", p" not in printed
    sentence = answer(comparison(**ALONE))
    assert sentence.endswith("about others (single images)).")


def test_where_blocks_and_seeds_come_from_is_said():
    def of(block=38, block_chosen=True, seeds=(True, True)):
        def change(found):
            for row, covered in zip(found["ranking"], seeds, strict=True):
                row["seeds"] = covered

        return interval_source(comparison(block=block, block_chosen=block_chosen, change=change))

    chosen = "95 % intervals by a jackknife over blocks of 38 consecutive images, chosen from the data"
    assert of() == f"{chosen}: what other images may give, other seeds"
    assert of(seeds=(False, False)) == f"{chosen}: what other images may give, not other seeds"
    assert (
        of(seeds=(True, False)) == f"{chosen}: what other images may give, other seeds where a setting has several runs"
    )
    assert "over blocks of 20 consecutive images: what" in of(20, block_chosen=False)
    assert "over single images, chosen from the data: what" in of(1)


@pytest.mark.parametrize(
    ("p", "seeds", "said"),
    [
        (0.0123, True, "p 0.012"),
        (0.9996, True, "p 1.000"),
        (0.0004, True, "p < 0.001"),
        (0.0123, False, "p 0.012, images only"),
        (None, True, ""),
    ],
)
def test_a_p_value_is_printed_to_three_digits_and_says_if_it_leaves_out_the_seeds(p, seeds, said):
    found = comparison(p=p, change=lambda found: found["pairs"][0].update(seeds=seeds))
    assert p_text(found.pairs[0]) == said
    assert pair_text(found.pairs[0]) == f"A - B: 10.0 [5.0, 15.0] points{', ' if said else ''}{said}"


def test_a_sure_difference_of_single_runs_says_that_seeds_are_left_out():
    sentence = "the interval of the difference leaves out 0 (p 0.010, images only); other seeds are another matter."
    assert answer(comparison()).endswith(sentence)
    chance = answer(comparison(interval=(-0.05, 0.25), p=0.2))
    assert chance.endswith(": the difference could be chance (p 0.200, images only).")


def test_a_comparison_of_an_older_file_is_still_read():
    form = {"level": 0.95, "block": 20, "resamples": 2000, "protocol": "cityscapes", "images": 9}
    pair = {"a": "A", "b": "B", "miou": spread(0.1, 0.05, 0.15), "classes": [], "a_leads": 0.99}
    row = {"name": "A", "miou": spread(0.5, 0.4, 0.6), "classes": [], "runs": 2, "members": ["A", "C"]}
    old = Comparison.from_json({**form, "ranking": [row], "pairs": [pair]})
    assert (old.pairs[0].a_leads, old.pairs[0].p_value) == (0.99, None)
    assert old.to_json()["pairs"][0]["a_leads"] == 0.99 and "a_leads" not in comparison().to_json()["pairs"][0]


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


def test_confusions_are_told_in_words(capsys):
    rows = [{"true": "lamp", "predicted": "wall", "share": 0.384, "pixels": 4}]
    rows += [{"true": "wall", "predicted": None, "share": 0.1, "pixels": 9}] * 9
    print_scores(metrics(confusions=rows), "run")
    printed = " ".join(capsys.readouterr().out.split())
    assert "38 % of lamp goes to wall, 10 % of wall goes to no class" in printed
    assert printed.count("goes to no class") == 2
    assert not any("goes to" in line for line in summary_lines(metrics()))


def require_names(printed, name, times):
    """Whole, or folded at words into lines that begin with them; none narrower than the longest word."""
    first = [line.split("  ")[0].strip() for line in printed.splitlines()]
    assert " ".join(word for word in first if word in name).count(name) == times or first.count(name) == times


def test_what_was_left_out_is_printed_up_to_twenty_lines(capsys):
    print_scores(metrics(skipped=[f"f{k}: is cut off" for k in range(500)]), "run")
    printed = capsys.readouterr().out
    assert printed.count("left out: f") == 20 and "left out: 480 more, which metrics.json and the page list" in printed


@pytest.mark.parametrize("name", ["pole", "traffic participant that nobody has a word for", "背景道路"])
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_tables_of_classes_keep_names_and_digits_on_a_narrow_terminal(columns, name, capsys, monkeypatch):
    """80 columns are those of every pipe and log; where the table is wider, it is printed as it is."""
    monkeypatch.setattr(console, "_width", columns)
    content = metrics(boundary_ious=[0.961] * 3).to_json()
    for row in content["classes"]:
        row.update({measure.of_class.key: 0.961 for measure in MEASURES.values()}, name=name, pixels=123_456_789)
    table = {"name": "t", "title": "t", "columns": ["class", "size", "found"], "rows": [[name, "1 to 9", 123_456_789]]}
    means = {measure.of_all.key: 0.961 for measure in MEASURES.values()}
    print_scores(RunScores.from_json({**content, **means, "tables": [table]}), "run")
    printed = capsys.readouterr().out
    assert printed.count("96.1") == 4 * len(MEASURES) and printed.count("123,456,789") == 4 and "…" not in printed
    require_names(printed, name, 4)
    counts = PixelCounts((name,) * 2, (123_456_789, 1), (9, 9), (123_456_790,) * 2, 0, 9, "made", "train")
    print_class_counts(counts, None, "counted")
    printed = capsys.readouterr().out
    require_names(printed, name, 2)
    assert "123,456,789" in printed and "█" * 10 in printed
    values = {f"recipe {k}": [0.123456, 1.0] for k in range(9)}
    statistics = {"splits": {"train": {"rank": [0, 1]}}, "recipes_from": "train", "classes": [name] * 2}
    print_recipes({**statistics, "label_values": values, "class_weights": values})
    printed = capsys.readouterr().out
    require_names(printed, name, 4)
    assert printed.count("0.1235") == 18


@pytest.mark.parametrize("classes", [40, 41, 150, 254])
def test_a_confusion_picture_is_small_whatever_the_number_of_classes(tmp_path, classes):
    names = [f"class number {c}" for c in range(classes)]
    matrix = np.random.default_rng(0).integers(0, 2, (classes, classes + 1)) + 50 * np.eye(
        classes, classes + 1, dtype=int
    )
    found = metrics(confusions=[row.to_json() for row in confusions(matrix, names)])
    started = time.perf_counter()
    write_evaluation(tmp_path, names, {"A": found, "B": found}, {"A": matrix}, comparison(pairs=[]), {})
    height, width = cv2.imread(str(tmp_path / "confusion-A.png")).shape[:2]
    assert height * width < 8e6 and time.perf_counter() - started < 30  # seconds
    assert (height < 1200) == (classes > 40)
    assert len((tmp_path / "confusion-A.csv").read_text().splitlines()) == classes + 1


def test_the_chosen_point_is_marked_in_the_sweep(tmp_path):
    points = [
        SweepPoint(rule, value, "cityscapes", 3, **dict.fromkeys(CHOICES, value / 2))
        for rule in ("tau", "prior")
        for value in (0.0, 0.5, 1.0)
    ]
    pictures = []
    for chosen in ({}, {"A": ("prior", 0.5)}, {"A": ("prior", 0.77)}, {"B": ("tau", 0.5)}):
        plot_sweeps({"A": points}, tmp_path / "sweep.png", chosen)
        pictures.append(cv2.imread(str(tmp_path / "sweep.png")))
    assert pictures[1].shape != pictures[0].shape or (pictures[1] != pictures[0]).any()
    for other in pictures[2:]:  # off the grid, or of another run: no star
        np.testing.assert_array_equal(other, pictures[0])


def drawn_with(names: tuple[str, str], monkeypatch) -> dict[str, Figure]:
    """Every picture with such names of runs and of classes, kept as figures."""
    import matplotlib.pyplot as plt

    figures: dict[str, Figure] = {}
    closed: list[Figure] = []
    monkeypatch.setattr("segloss.report.plots.write_bytes", lambda path, _: figures.update({path.name: closed[-1]}))
    close = plt.close
    monkeypatch.setattr(plt, "close", lambda figure: (closed.append(figure), close(figure)))
    first, second = names
    bins = [Bin(0.0, 0.1, 0.4, 0.4), Bin(0.5, 0.9, 0.8, 0.8)]
    point = SweepPoint("tau", 0.5, "cityscapes", 3, **dict.fromkeys(CHOICES, 0.5))
    split = {"rank": [0, 1], "share": [0.9, 0.1], "cooccurrence": [[2, 1], [1, 1]], "images": 2}
    statistics = {"splits": {"train": split}, "recipes_from": "train", "classes": names, "dataset": first}
    sample = (first, np.zeros((4, 6, 3), np.uint8), *(np.zeros((4, 6), np.uint8),) * 2)
    colors, scores = [(0, 0, 0), (9, 9, 9)], metrics()
    plot_reliability({first: bins, second: bins}, Path("reliability"))
    plot_sweeps({first: [point], second: [point]}, Path("sweep"), {first: ("tau", 0.5)})
    plot_class_counts(statistics, [0.5, 2.0], colors, Path("counts"))
    plot_history(
        [{"epoch": n, **{f"val_iou/{name}": 0.5 for name in names}} for n in (1, 2)], Path("curves"), names, names
    )
    plot_class_iou(
        replace(scores, classes=tuple(replace(row, name=n) for row, n in zip(scores.classes, names, strict=False))),
        colors,
        first,
        Path("iou"),
    )
    plot_confusions([Confusion(first, second, 0.5, 5)], first, Path("confusions"), names)
    plot_confusion(np.eye(2, 3, dtype=int), names, first, Path("confusion"))
    plot_predictions([sample], names, colors, Path("predictions"))
    return figures


@pytest.mark.parametrize("names", [(r"$\frac{$", "x_$"), ("c$ar$", "a$b$c"), ("_background_", "_a"), (r"a\$b", "b")])
def test_names_stand_in_pictures_and_legends_as_they_are_written(names, monkeypatch):
    """A name with ``$`` was a formula, or a traceback; one with ``_`` before it had no entry in the legends."""
    figures = drawn_with(names, monkeypatch)
    assert len(figures) == 8
    for picture, figure in figures.items():
        texts = [text for text in figure.findobj(Text) if any(name in text.get_text() for name in names)]
        assert texts and not any(text.get_parse_math() for text in texts), picture
    of_curves = figures["curves"].axes[2].get_legend()
    for legend in (figures["reliability"].axes[0].get_legend(), of_curves, figures["predictions"].legends[0]):
        assert [text.get_text() for text in legend.get_texts()][:2] == [*names]
    shown = {text.get_text() for text in figures["sweep"].legends[0].get_texts()}
    assert shown == {*names, f"{names[0]}: chosen, tau 0.5"}
    powers = figures["reliability"].axes[1].get_yticklabels()
    assert all(text.get_parse_math() for text in powers) and any("mathdefault" in text.get_text() for text in powers)


def test_names_that_no_font_here_holds_are_numbers_in_pictures_and_told_of_once(monkeypatch, capsys):
    """They were empty boxes. A font that holds them is taken where there is one; here matplotlib's STIX for rings."""
    plots._tell_lacking.cache_clear()
    monkeypatch.setattr("segloss.report.fonts.OTHERS", ("STIXGeneral",))
    names = ("\u16a0\u16a1", "\u20ddx")
    figures = drawn_with(names, monkeypatch)
    for picture in ("counts", "curves", "iou", "confusion", "predictions"):
        figures[picture].canvas.draw()  # as names of ticks are set then
        texts = [text.get_text() for text in figures[picture].findobj(Text)]
        assert "class 0" in texts and names[0] not in texts, picture
        assert names[1] in texts and "class 1" not in texts, picture
        shown = next(text for text in figures[picture].findobj(Text) if text.get_text() == names[1])
        assert shown.get_fontfamily() == ["DejaVu Sans", "STIXGeneral"]
    shown = " ".join(text.get_text() for text in figures["confusions"].findobj(Text))
    assert f"class 0 as {names[1]}" in shown
    told = capsys.readouterr().out
    assert told.count("no font looked for holds \u16a0\u16a1: pictures show numbers of classes") == 1
    assert "fonts-noto-cjk" in told


def test_names_are_drawn_in_the_font_that_matplotlib_is_set_to(monkeypatch, capsys):
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["STIXGeneral"])
    name = "\u20ddx"
    drawn = drawn_with((name, "b"), monkeypatch)["confusion"].findobj(Text)
    assert {*next(text for text in drawn if text.get_text() == name).get_fontfamily()} == {"STIXGeneral"}
    assert capsys.readouterr().out == ""


def test_the_gain_of_a_chosen_point_is_over_the_plain_argmax():
    def point(rule, value, score):
        return SweepPoint(rule, value, "cityscapes", 3, **{**dict.fromkeys(CHOICES), "miou": score})

    table = [point("tau", 0.0, 0.3), point("tau", 1.0, 0.4), point("prior", 0.0, 0.3), point("prior", 0.5, 0.45)]
    assert gain(table, table[3], "miou") == "45.0, 5.0 points above the plain argmax"
    assert gain(table, table[1], "miou") == "40.0, 0.0 points above the plain argmax"
    assert (
        gain(table[2:], table[3], "miou") == "45.0, 15.0 points above the plain argmax"
    )  # a run whose tilt is uniform
    nothing = [point("prior", 0.0, None), table[3]]
    assert gain(nothing, table[3], "miou") == "45.0, the plain argmax has none"


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
    assert (mean["p_value"], mean["block"], mean["seeds"], mean["why"]) == ("0.01", "1", "no", "")
    assert classes[0]["p_value"] == "" and classes[2]["why"].startswith("no interval: there is no such score")


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
