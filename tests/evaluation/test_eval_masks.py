"""eval_seg.py on folders of masks and its operating points, from the command line to the files."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import random_mask, write_png
from street_trees import TINY, street_tree

import eval_seg
import train_seg
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import InputError
from segloss.evaluation.parts import part_of, require_parts
from segloss.files import take_lock
from segloss.metrics import PROTOCOLS, ConfusionMatrix
from segloss.pixel_counts import PixelCounts
from segloss.report.tables import clear_results

ROOT = Path(__file__).resolve().parents[2]
COUNT = 12


@pytest.fixture
def masks(tmp_path) -> Path:
    """true/ and two folders of predictions, one worse than the other."""
    for place in range(COUNT):
        labels = random_mask(place, (20, 30))
        write_png(tmp_path / f"true/f{place:03d}.png", labels)
        for folder, wrong in (("good", 0.1), ("bad", 0.5)):
            rng = np.random.default_rng(place)
            predicted = np.where(rng.random(labels.shape) < wrong, rng.integers(0, 3, labels.shape), labels % 3)
            write_png(tmp_path / f"{folder}/f{place:03d}.png", predicted.astype(np.uint8))
    (tmp_path / "classes.txt").write_text("wall\nfloor\nlamp\n")
    return tmp_path


def evaluated(masks: Path, *flags: str, folders=("bad", "good")) -> dict:
    places = [str(masks / name) for name in folders]
    eval_seg.evaluate(
        ["--predictions", *places, "--labels", str(masks / "true"), "--output-dir", str(masks / "o"), *flags]
    )
    return json.loads((masks / "o/metrics.json").read_text())


def test_what_is_taken_off_names_and_part_labels_is_said_before_anything_is_scored(masks, capsys):
    """Words and folders were left out, and rows of labelled_classes.csv read, without a line."""
    for path in [*(masks / "good").iterdir()]:
        path.rename(path.with_name(f"left_{path.name}"))
    (masks / "labelled_classes.csv").write_text("f00[0-4],wall;floor\n")
    evaluated(masks)
    lines = capsys.readouterr().out.splitlines()
    part = "5 of 12 images label a part of the classes (labelled_classes.csv)"
    assert lines[1:3] == [f"form: bad: {part}", f"form: good: predictions named left_NAME, {part}"]


def by_hand(masks: Path, folder: str) -> ConfusionMatrix:
    import cv2

    confusion = ConfusionMatrix(3)
    for path in sorted((masks / "true").iterdir()):
        pair = [torch.from_numpy(cv2.imread(str(p), -1)).long() for p in (masks / folder / path.name, path)]
        confusion.update(*pair)
    return confusion


def test_folders_of_masks_are_scored_and_compared(masks, capsys):
    found = evaluated(masks, "--boundary", "--block", "2")
    for folder in ("bad", "good"):
        expected = by_hand(masks, folder).compute().to_dict(["wall", "floor", "lamp"])
        metrics = found["runs"][folder]
        assert metrics["miou"] == pytest.approx(expected["miou"], rel=1e-12)
        assert [row["iou"] for row in metrics["classes"]] == [row["iou"] for row in expected["classes"]]
        assert metrics["images"] == COUNT and 0 < metrics["boundary_miou"] < 1
    comparison = found["comparison"]
    assert [row["name"] for row in comparison["ranking"]] == ["good", "bad"]
    assert comparison["block"] == 2 and comparison["block_chosen"] is False
    (pair,) = comparison["pairs"]
    difference = found["runs"]["good"]["miou"] - found["runs"]["bad"]["miou"]
    assert pair["miou"]["estimate"] == pytest.approx(difference) and pair["miou"]["low"] > 0
    assert pair["p_value"] < 0.001 and pair["seeds"] is False
    printed = capsys.readouterr().out
    assert "good - bad: " in printed and "3 classes: wall, floor, lamp" in printed
    with (masks / "o/comparison.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["mIoU", "wall", "floor", "lamp"]
    assert (masks / "o/report.html").is_file()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_named_in_every_output(masks, protocol, capsys):
    (masks / "classes.txt").write_text("wall\nfloor\nlamp\ndoor\n")  # a class that is nowhere
    found = evaluated(masks, "--protocol", protocol, folders=("good",))
    assert found["runs"]["good"]["protocol"] == found["comparison"]["protocol"] == protocol
    (row,) = found["comparison"]["ranking"]
    miou = found["runs"]["good"]["miou"]  # ranked by the number that the class table shows
    assert row["miou"]["estimate"] == (miou if miou is None else pytest.approx(miou, rel=1e-12))
    assert row["members"] == ["good"] and found["comparison"]["images"] == COUNT
    assert f"of 4 classes (protocol {protocol}), mean accuracy" in capsys.readouterr().out
    page = (masks / "o/report.html").read_text()
    averaged = found["runs"]["good"]["classes_averaged"]
    assert f"Protocol {protocol};" in page and f"{averaged} of 4 classes (protocol {protocol}).</strong>" in page
    for table in ("runs", "per_class"):
        with (masks / f"o/{table}.csv").open(newline="") as file:
            rows = {(row["run"], row["protocol"], row["classes_averaged"]) for row in csv.DictReader(file)}
        assert rows == {("good", protocol, str(averaged))}


def test_names_and_groups(masks, capsys):
    shutil.copytree(masks / "good", masks / "good-again")
    flags = ["--names", "x", "y 2", "z", "--group", "bad", "good", "good"]
    found = evaluated(masks, *flags, folders=("bad", "good", "good-again"))
    assert list(found["runs"]) == ["x", "y 2", "z"]
    assert [(row["name"], row["runs"]) for row in found["comparison"]["ranking"]] == [("good", 2), ("bad", 1)]
    for name in ("../../escape", "", "a/b"):
        with pytest.raises(InputError, match="--names must be names of files: not empty, without '/'"):
            evaluated(masks, "--names", "x", name)


def test_files_of_an_earlier_evaluation_do_not_stand_beside_new_ones(masks):
    evaluated(masks)
    kept = ("mine.sqlite", "confusion-mine.csv", "notes.html", "predictions/bad/f000.png")
    for name in kept:
        (masks / "o" / name).parent.mkdir(parents=True, exist_ok=True)
        (masks / "o" / name).write_text("mine")
    (masks / "o/sweep.csv").write_text("of a run, scored here before")
    before = (masks / "o/good.sqlite").stat().st_mtime_ns
    evaluated(masks, folders=("good",))
    left = {path.relative_to(masks / "o").as_posix() for path in (masks / "o").rglob("*") if path.is_file()}
    written = {"metrics.json", "report.html", "runs.csv", "per_class.csv", "comparison.csv", "good.sqlite"}
    assert left == {*kept, *written, "confusion-good.csv", "confusion-good.png"}
    assert (masks / "o/good.sqlite").stat().st_mtime_ns == before  # nothing was scored again
    write_png(masks / "good/f000.png", np.full((20, 30), 7, np.uint8))
    (masks / "good/f001.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="is not a readable image"):
        evaluated(masks, folders=("good",))
    assert not (masks / "o/metrics.json").exists() and not (masks / "o/report.html").exists()


HOLD = (
    "import pathlib, sys, time; from segloss.report.tables import alone_in\nwith alone_in(pathlib.Path(sys.argv[1])):"
)


@pytest.mark.skipif(os.name != "posix", reason="no locks there")
def test_two_evaluations_at_once_in_one_folder_are_refused_and_clear_nothing(masks):
    """With other names of runs both ended well, and files of both stood side by side."""
    before = evaluated(masks, folders=("good",))
    code = f"{HOLD}\n    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", code, str(masks / "o")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"another evaluation is writing there: process {other.pid} on .+; wait"):
            evaluated(masks, folders=("bad",))
        other.kill()
    assert json.loads((masks / "o/metrics.json").read_text()) == before and not (masks / "o/bad.sqlite").exists()
    evaluated(masks, folders=("bad",))  # who was killed holds nothing
    assert not (masks / "o/good.sqlite").exists() and not (masks / "o/eval.lock").exists()


@pytest.mark.skipif(os.name != "posix", reason="no locks there")
def test_a_lock_that_its_holder_took_away_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    import fcntl

    lockf, path = fcntl.lockf, tmp_path / "lock"
    stale = iter([path])
    monkeypatch.setattr(fcntl, "lockf", lambda *how: (lockf(*how), [each.unlink() for each in [*stale]]))
    file = take_lock(path)
    assert os.path.samestat(os.fstat(file), path.stat())
    os.close(file)


@pytest.mark.parametrize("content", ["", "[]", "5", '{"runs": {"good": {}}}', '{"runs": 5, "comparison": {}}'])
def test_a_metrics_file_of_somebody_else_clears_nothing(tmp_path, content):
    names = ("metrics.json", "sweep.csv", "good.sqlite")
    for name in names:
        (tmp_path / name).write_text(content)
    clear_results(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["good.sqlite", "metrics.json", "sweep.csv"])


def test_head_and_tail_are_those_of_the_training_counts(masks):
    """The same predictions had other thirds as a folder than as a run."""
    counts = PixelCounts(("wall", "floor", "lamp"), (5, 900, 40), (1, 9, 4), (99, 999, 99), 0, 9)
    counts.save(masks / "pixel_counts.json")
    flags = ["--training-counts", str(masks / "pixel_counts.json")]
    groups = evaluated(masks, *flags, folders=("good",))["runs"]["good"]["groups"]
    assert groups["by_pixels_of"] == "training"
    assert [groups[name]["classes"] for name in ("head", "middle", "tail")] == [["floor"], ["lamp"], ["wall"]]
    replace(counts, class_names=("wall", "floor", "lamps")).save(masks / "pixel_counts.json")
    with pytest.raises(InputError, match="counts other classes than wall, floor, lamp; give --training-counts"):
        evaluated(masks, *flags)
    (masks / "pixel_counts.json").write_text("{")
    with pytest.raises(InputError, match=r"pixel_counts\.json: cannot be read as pixel counts"):
        evaluated(masks, *flags)
    with pytest.raises(InputError, match=r"nowhere: is no file; give --training-counts a run's pixel_counts\.json"):
        evaluated(masks, "--training-counts", "nowhere")


def test_bad_predictions_stop_or_are_left_out_and_reported(masks, capsys):
    (masks / "bad/f003.png").write_bytes((masks / "bad/f003.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"bad/f003\.png: is cut off.*--skip-bad"):
        evaluated(masks)
    write_png(masks / "good/f007.png", random_mask(0, (20, 29), (0, 1)))
    with pytest.raises(InputError, match=r"good: 1 of 12 predictions are not of .* f007 \(29x20, .*--skip-bad"):
        evaluated(masks)
    assert not (masks / "o/metrics.json").exists()
    found = evaluated(masks, "--skip-bad")
    # Every figure is over the images that both have; what each has more is said beside.
    assert [found["runs"][name]["images"] for name in ("bad", "good")] == [COUNT - 2] * 2
    for row in found["comparison"]["ranking"]:
        assert row["miou"]["estimate"] == pytest.approx(found["runs"][row["name"]]["miou"], rel=1e-12)
        assert found["runs"][row["name"]]["own"]["images"] == COUNT - 1 and row["miou"]["low"] is not None
        assert found["runs"][row["name"]]["own"]["miou"] != found["runs"][row["name"]]["miou"]
    page = (masks / "o/report.html").read_text()
    assert "All figures are over the 10 images that all runs have." in page
    assert "Over all 11 of its own, good has mIoU" in page
    assert len(found["runs"]["bad"]["skipped"]) == 1 and "f003.png" in found["runs"]["bad"]["skipped"][0]
    printed = capsys.readouterr().out
    assert "left out: f007" in printed and "the 10 images that all have; over all 11 of its own: mIoU" in printed
    # The two folders are compared on what both have, not place by place.
    confusion = ConfusionMatrix(3)
    import cv2

    for path in sorted((masks / "true").iterdir()):
        if path.stem not in ("f003", "f007"):
            confusion.update(
                *[torch.from_numpy(cv2.imread(str(p), -1)).long() for p in (masks / "good" / path.name, path)]
            )
    best = found["comparison"]["ranking"][0]
    assert best["name"] == "good" and best["miou"]["estimate"] == pytest.approx(confusion.compute().miou)


def test_missing_and_extra_predictions_are_left_out_of_every_figure(masks, capsys):
    (masks / "good/f000.png").unlink()
    write_png(masks / "bad/extra.png", random_mask(0, (20, 30)))
    with pytest.raises(InputError, match=r"no (prediction|label) in .*--skip-bad leaves such images out"):
        evaluated(masks)
    found = evaluated(masks, "--skip-bad")
    assert [run["images"] for run in found["runs"].values()] == [COUNT - 1] * 2 and found["comparison"]["images"] == 11
    assert "own" not in found["runs"]["good"] and found["runs"]["bad"]["own"]["images"] == COUNT
    whole = evaluated(masks, "--skip-bad", folders=("bad",))["runs"]["bad"]
    assert whole["miou"] == pytest.approx(found["runs"]["bad"]["own"]["miou"], rel=1e-12) and "own" not in whole
    printed = capsys.readouterr().out
    assert "left out: f000: no prediction in" in printed and "left out: extra: no label in" in printed
    with (masks / "o/runs.csv").open(newline="") as file:
        assert [row["skipped"] for row in csv.DictReader(file)] == ["1"]


def test_scores_by_sub_folder_and_by_sequence(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("wall\nfloor\n")
    for sequence, wrong in (("east/A_f", 0), ("west/A_f", 1), ("west/B_f", 0)):
        for frame in range(3):
            labels = random_mask(frame, (8, 9), (0, 1))
            write_png(tmp_path / f"true/{sequence}{frame:03}.png", labels)
            write_png(tmp_path / f"p/{sequence}{frame:03}.png", 1 - labels if wrong else labels)
    for by, expected in (
        ("folder", {"east": (3, 1.0), "west": (6, None)}),
        ("sequence", {"east/A": (3, 1.0), "west/A": (3, 0.0), "west/B": (3, 1.0)}),
    ):
        parts = evaluated(tmp_path, "--by", by, folders=("p",))["runs"]["p"]["parts"]
        assert {part["name"]: part["images"] for part in parts} == {
            name: number for name, (number, _) in expected.items()
        }
        assert all(part["miou"] == expected[part["name"]][1] for part in parts if part["name"] != "west")
        assert "mIoU % of parts" in capsys.readouterr().out and 'id="parts"' in (tmp_path / "o/report.html").read_text()
        with (tmp_path / "o/by_part.csv").open(newline="") as file:
            assert [row["name"] for row in csv.DictReader(file)] == list(expected)
    assert "parts" not in evaluated(tmp_path, folders=("p",))["runs"]["p"] and not (tmp_path / "o/by_part.csv").exists()


@pytest.mark.parametrize(
    ("names", "by", "message"),
    [
        (["f1", "f2"], "folder", "--by folder: all images are in one folder: names without one; try --by sequence"),
        (["x/a", "x/b"], "folder", "--by folder: all images are in one folder: x; try --by sequence"),
        (["A_1", "A_2"], "sequence", "--by sequence: all images are in one sequence: A; try --by folder"),
        (["a", "b"], "sequence", "--by sequence: every image is a sequence of its own, as a; names must end with"),
    ],
)
def test_parts_that_are_none_are_refused_before_the_work(names, by, message):
    with pytest.raises(InputError, match=message):
        require_parts(names, by)


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("0001TP_008550", "0001TP"),
        ("Seq05VD_f00000", "Seq05VD"),
        ("0016E5_07959", "0016E5"),
        ("bonn/bonn_000012_000019", "bonn/bonn_000012"),
        ("bear/00012", "bear"),
        ("drive-3.frame12", "drive-3"),
        ("still", "still"),
    ],
)
def test_a_sequence_is_a_name_without_the_number_of_the_frame(name, sequence):
    assert part_of(name, "sequence") == sequence


def test_predictions_in_other_ids_are_warned_of(tmp_path, capsys):
    ids = np.array(CITYSCAPES.ids, np.uint8)
    for place in range(2):
        labels = random_mask(place, (40, 50), range(19))
        write_png(tmp_path / f"true/{place}.png", ids[labels])
        write_png(tmp_path / f"p/{place}.png", labels)
    found = evaluated(tmp_path, "--class-table", "cityscapes", folders=("p",))["runs"]["p"]
    valid = sum(row["pixels"] for row in found["classes"])
    assert 0.5 * valid < found["unknown_predictions"] < valid == 2 * 40 * 50
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "of the pixels are predicted as no class; these look like trainIds; give --prediction-ids train" in warning


@pytest.mark.parametrize(("step", "where"), [(1, "behind"), (-1, "before")])
def test_ids_shifted_by_one_are_warned_of_though_all_are_classes(tmp_path, step, where, capsys):
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    labels = random_mask(0, (40, 50), (1, 2, 3, 255))
    write_png(tmp_path / "true/0.png", labels)
    write_png(tmp_path / "p/0.png", np.where(labels == 255, 0, labels.astype(int) + step).astype(np.uint8))
    assert evaluated(tmp_path, folders=("p",))["runs"]["p"]["unknown_predictions"] == 0
    said = f"warning: p: 100.0% of the pixels are predicted as the class {where} the true one; the ids seem to begin"
    assert said in capsys.readouterr().out


def test_a_model_that_predicts_one_class_everywhere_is_not_taken_for_shifted_ids(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    labels = random_mask(0, (40, 50), (0, 2, 3))
    labels[:30] = 1
    write_png(tmp_path / "true/0.png", labels)
    write_png(tmp_path / "p/0.png", np.full((40, 50), 2, np.uint8))
    matrix = evaluated(tmp_path, folders=("p",))["runs"]["p"]
    assert matrix["classes"][1]["recall"] == 0 and "warning" not in capsys.readouterr().out


def test_a_few_pixels_of_no_class_are_counted_without_warning(masks, capsys):
    predicted = random_mask(0, (20, 30), (0, 1, 2))
    predicted[:2, 0] = 77
    write_png(masks / "true/f000.png", np.zeros((20, 30), np.uint8))
    write_png(masks / "good/f000.png", predicted)
    assert evaluated(masks, folders=("good",))["runs"]["good"]["unknown_predictions"] == 2
    assert "warning" not in capsys.readouterr().out


def test_a_killed_evaluation_writes_no_metrics_and_goes_on(tmp_path):
    for place in range(400):
        write_png(tmp_path / f"true/{place:04d}.png", random_mask(place, (40, 50)))
    shutil.copytree(tmp_path / "true", tmp_path / "same")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    folders = ["--predictions", str(tmp_path / "same"), "--labels", str(tmp_path / "true"), "--boundary"]
    command = [sys.executable, str(ROOT / "eval_seg.py"), *folders, "--output-dir", str(tmp_path / "o")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store = tmp_path / "o/same.sqlite"
    for _ in range(2000):
        if (store.exists() and store.stat().st_size > 40_000) or child.poll() is not None:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "o/metrics.json").exists() or child.returncode == 0
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "o/metrics.json").read_text())["runs"]["same"]
    assert metrics["images"] == 400
    truth = [random_mask(place, (40, 50)) for place in range(400)]
    assert sum(row["pixels"] for row in metrics["classes"]) == sum(int((mask < 255).sum()) for mask in truth)


def test_an_evaluation_that_is_stopped_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    write_png(tmp_path / "true/a.png", random_mask(1, (40, 50)))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segloss.evaluation.score.score_all", stopped)
    folders = ["--predictions", str(tmp_path / "true"), "--labels", str(tmp_path / "true")]
    monkeypatch.setattr(sys, "argv", ["eval_seg.py", *folders, "--output-dir", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    said = f"interrupted; what was scored is kept: go on with --output-dir {tmp_path / 'o'}\n"
    assert stop.value.code == 130 and capsys.readouterr().err == said


MEASURED = """
import resource, sys
import eval_seg
eval_seg.main()
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def many_pairs(root: Path, count: int) -> list[str]:
    """The flags to score them; written as copies of a few files, which is what makes them in seconds."""
    pngs = [write_png(root / "one.png", random_mask(seed, (8, 8), (0, 1))).read_bytes() for seed in range(8)]
    for folder, step in (("true", 1), ("p", 3)):
        (root / folder).mkdir()
        for place in range(count):
            (root / folder / f"{place:05d}.png").write_bytes(pngs[step * place % 8])
    (root / "classes.txt").write_text("a\nb\n")
    (root / "p/00321.png").write_bytes(pngs[0][:40])
    return ["--predictions", str(root / "p"), "--labels", str(root / "true"), "--output-dir", str(root / "o")]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is counted in KiB there")
def test_ten_thousand_pairs_in_little_memory_and_a_corrupt_one_is_named(tmp_path, monkeypatch, capsys):
    """About 30 s on two cores."""
    peaks = {}
    for count in (500, 10_000):
        (tmp_path / str(count)).mkdir()
        flags = many_pairs(tmp_path / str(count), count)
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *flags, "--skip-bad"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        peaks[count] = int(done.stdout.split("peak ")[-1]) / 1024  # MiB
        metrics = json.loads((tmp_path / f"{count}/o/metrics.json").read_text())["runs"]["p"]
        assert metrics["images"] == count - 1
        assert len(metrics["skipped"]) == 1 and "00321.png: is cut off" in metrics["skipped"][0]
    # Measured: 10 MiB.
    assert peaks[10_000] - peaks[500] < 40, peaks
    monkeypatch.setattr(sys, "argv", ["eval_seg.py", *flags])
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1
    assert "00321.png: is cut off" in line and "--skip-bad leaves such images out" in line


# ---- the operating point of a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = street_tree(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run"), *TINY]
        train_seg.train([*flags, "--epochs", "1"])
    return root / "run"


def point_of(run: Path) -> dict:
    (entry,) = json.loads((run / "decision.json").read_text()).values()
    return entry["point"]


def scores(run: Path, out: Path, *flags: str) -> dict:
    eval_seg.evaluate(["--checkpoint", str(run), "--output-dir", str(out), "--workers", "0", *flags])
    return json.loads((out / "metrics.json").read_text())["runs"]["run"]


def test_the_chosen_point_decides_the_saved_predictions_too(run, tmp_path):
    flags = ["--split", "val", "--sweep-tau", "--choose-metric", "pixel_accuracy", "--protocol", "segnet"]
    scores(run, tmp_path / "sweep", *flags, "--choose-on", "val_1")
    kept = point_of(run)
    assert (kept["images"], kept["choose_on"], kept["protocol"]) == (1, ["val_1"], "segnet")
    found = scores(run, tmp_path / "auto", "--decision", "auto", "--save-predictions", "--save", "ids", "color")
    assert found["decision"] == f"{kept['rule']} {kept['value']:g}"
    for kind in ("ids", "color"):
        folder = tmp_path / f"auto/predictions/run/{kind}"
        flags = [
            "--predictions",
            str(folder),
            "--labels",
            str(run.parent / "data/testannot"),
            "--class-table",
            "camvid",
        ]
        eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / kind)])
        read = json.loads((tmp_path / kind / "metrics.json").read_text())["runs"][kind]
        assert read["classes"] == found["classes"]


def test_a_point_chosen_on_one_split_is_used_on_another(run, tmp_path, capsys):
    plain = scores(run, tmp_path / "plain", "--split", "val")
    flags = ["--sweep-tau", "--choose-metric", "pixel_accuracy"]
    swept = scores(run, tmp_path / "sweep", "--split", "val", *flags)
    assert swept["classes"] == plain["classes"]  # a sweep changes no score
    with (tmp_path / "sweep/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["rule"] for row in rows} == {"tau", "prior", "iou"}  # the rule that training fitted, beside the curves
    at_one = next(row for row in rows if (row["rule"], float(row["value"])) == ("tau", 1.0))
    assert float(at_one["miou"]) == pytest.approx(plain["miou"], rel=1e-12)
    kept = point_of(run)
    assert kept["score"] == max(float(row["pixel_accuracy"]) for row in rows if row["rule"] != "iou")
    chosen = scores(run, tmp_path / "auto", "--split", "val", "--decision", "auto")
    assert chosen["pixel_accuracy"] == pytest.approx(kept["score"], rel=1e-12)
    assert chosen["decision"] == f"{kept['rule']} {kept['value']:g}"
    assert "kept in" in capsys.readouterr().out


def test_choosing_on_some_images(run, tmp_path):
    names = sorted(path.stem for path in (run.parent / "data/val").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(names[:2]))
    flags = ["--split", "val", "--sweep-tau", "--choose-metric", "miou", "--choose-on"]
    scores(run, tmp_path / "a", *flags, str(tmp_path / "list.txt"))
    kept = point_of(run)
    assert (kept["images"], kept["split"], kept["metric"]) == (2, "val", "miou")
    assert kept["protocol"] == "cityscapes"
    scores(run, tmp_path / "a", *flags, names[2], "val_0")  # beginnings of names
    assert point_of(run)["images"] == 2


@pytest.mark.parametrize(
    ("lines", "words", "message"),
    [
        (None, ["nobody"], "no image of val is called 'nobody'; words are beginnings and lines of a file whole names"),
        (None, ["val_0", "nobody"], "no image of val is called 'nobody'"),
        ("", ["FILE"], "list.txt: lists no image; write one name a line"),
        ("val_0\nval_\nx y\n", ["FILE"], "list.txt: no image of val is called 'val_' and 1 more; .* such as 'val_0'"),
        ("\xff", ["FILE"], "list.txt: cannot be read as text"),
    ],
)
def test_a_choice_on_nothing_is_refused_before_the_work(run, tmp_path, monkeypatch, lines, words, message):
    if lines is not None:
        (tmp_path / "list.txt").write_text(lines, encoding="latin-1")
    words = [str(tmp_path / "list.txt") if word == "FILE" else word for word in words]
    flags = ["--split", "val", "--sweep-tau", "--choose-metric", "miou", "--choose-on", *words]
    with pytest.raises(InputError, match=f"--choose-on.*{message}"):
        scores(run, tmp_path / "b", *flags)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "test", "--sweep-tau", "--choose-metric", "miou"], "would tune on it"),
        (["--choose-metric", "miou"], "--choose-metric must be given with --sweep-tau"),
        (["--choose-on", "x"], "--choose-on must be given with --choose-metric"),
        (["--decision", "some"], "--decision must be plain, tau VALUE, prior VALUE, iou or auto, got some"),
        (["--protocol", "voc"], "choose one of cityscapes, mmseg"),
        (["--block", "0"], "--block must be at least 1"),
        (["--block", "long"], "--block must be at least 1, a whole number, or auto, got long"),
        (["--block", "2.5"], "--block must be at least 1, a whole number, or auto, got 2.5"),
        (["--predictions", "x"], "give either --checkpoint"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(run, flags, message):
    with pytest.raises(InputError, match=message):
        eval_seg.evaluate(["--checkpoint", str(run), *flags])


def test_auto_without_a_choice_says_how_to_choose(run, tmp_path):
    (run / "decision.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"no decision was fitted to or chosen for .*; run eval_seg\.py --checkpoint"):
        scores(run, tmp_path / "o", "--decision", "auto")


def test_a_second_evaluation_makes_nothing_again(run, tmp_path, monkeypatch):
    first = scores(run, tmp_path / "o")
    from segloss.evaluation import run_source

    def refuse(*_, **__):
        raise AssertionError("inferred again")

    monkeypatch.setattr(run_source, "image_result", refuse)
    assert scores(run, tmp_path / "o") == first
    with pytest.raises(AssertionError, match="inferred again"):
        scores(run, tmp_path / "o", "--boundary")
