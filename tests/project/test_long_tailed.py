"""benchmarks/long_tailed.py and why.py: long-tailed digits, what is compared, and numbers behind the pictures."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import long_tailed  # noqa: E402
import why  # noqa: E402

from segloss.errors import InputError  # noqa: E402
from segloss.losses import LOSSES, build_criterion  # noqa: E402


def test_ninety_to_two_images_a_class_and_none_in_both_splits():
    images, labels, test_images, test_labels, counts = long_tailed.split_of(3)
    assert sorted(counts) == sorted(long_tailed.COUNTS) and (max(counts), min(counts)) == (90, 2)
    assert torch.bincount(labels).tolist() == counts
    assert torch.bincount(test_labels).tolist() == [long_tailed.TESTED] * 10
    assert not {*map(bytes, images.numpy())} & {*map(bytes, test_images.numpy())}
    assert long_tailed.split_of(4)[4] != counts


def test_every_loss_is_an_arm_that_can_be_built():
    assert {*LOSSES} <= {*long_tailed.ARMS}
    for name, options in long_tailed.ARMS.values():
        criterion = build_criterion(name, long_tailed.COUNTS, ignore_index=None, **options)
        assert criterion(torch.zeros(3, 10), torch.arange(3)).isfinite()


def test_intervals_are_students_over_seeds():
    values = np.array([0.8, 0.9, 0.7])  # deviation 0.1, quantile 4.303
    assert long_tailed.with_interval(values) == "80.0 +- 24.8"


def test_balanced_accuracy_is_the_mean_recall():
    labels = torch.tensor([c for c in range(10) for _ in range(3)])
    assert long_tailed.balanced_accuracy(torch.zeros(30).long(), labels) == pytest.approx(0.1)


def test_a_table_of_the_asked_losses():
    command = [sys.executable, str(BENCHMARKS / "long_tailed.py"), "--seeds", "2", "--losses", "mse"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()
    assert rows[0].startswith("| loss | plain | tau 0 |") and {row.split("|")[1].strip() for row in rows[2:]} == {
        *("ce", "mse")
    }
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_widths_are_those_of_components():
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:7] = mask[5:55, 20:32] = True
    mask[58, 58] = True  # a slip of the pen
    widths = why.widths_of(mask)
    assert abs(widths[30, 5] - 2) < 0.5 and abs(widths[30, 25] - 12) < 1.5
    assert widths[58, 58] == widths[0, 0] == 0


def test_learning_is_followed_by_class(monkeypatch):
    monkeypatch.setattr(why, "MOST_STEPS", 20)
    counts = torch.tensor(why.split_of(0)[4], dtype=torch.float32)
    recalls, accuracies = why.learning(why.criteria_of(counts)["squared, p 0.75"], 0)
    assert recalls.shape == (3, 10) and accuracies.shape == (3, 2)
    assert recalls[-1].mean() == pytest.approx(accuracies[-1, 0])  # as many test images of each
    assert accuracies[-1, 0] > accuracies[0, 0]


HISTORY = {"road": [0.5, 0.75], "pole": [0.0, 0.25]}


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """A row with its history and one without, and folders of runs with theirs and with less."""
    about = {"name": "camvid-ce-s0", "dataset": "camvid", "protocol": "long", "arm": "ce", "seed": 0, "scores": {}}
    (tmp_path / "camvid-long-ce-s0.json").write_text(json.dumps({**about, "history": HISTORY}))
    (tmp_path / "older.json").write_text(json.dumps(about))
    for name in ("camvid-long-weighted_ce_jaccard-s0", "camvid-rank-s0", "half"):
        (tmp_path / name).mkdir()
        text = "epoch,val_iou/road,val_iou/pole,seconds\n1,0.5,0,2.5\n2,0.75,0.25,2.5\n"
        (tmp_path / name / "history.csv").write_text(text)
        if name != "half":
            (tmp_path / name / "pixel_counts.json").write_text('{"class_names": ["pole", "road"], "pixels": [1, 9]}')
    (tmp_path / "empty").mkdir()
    return {path.name.removesuffix(".json"): path for path in tmp_path.iterdir()}


def test_histories_are_taken_from_rows_and_from_runs_and_have_the_names_of_the_pages(places, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(why, "draw_epochs", lambda found, path: drawn.update({path: found}))
    names = ("camvid-long-ce-s0", "camvid-long-weighted_ce_jaccard-s0", "camvid-rank-s0")
    folder = tmp_path / "not/there"
    why.main(["--histories", *(str(places[name]) for name in names), "--output", str(folder), "--suffix=-x"])
    called = ("ce, 60 epochs", "the default, 60 epochs", "rank (the paper's)")
    assert drawn == {folder / "why-epochs-x.png": dict.fromkeys(called, HISTORY)}
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--histories", "older", "older.json: is an older row, without history; give the folder of its run"),
        ("--histories", "empty", "empty: is no run: history.csv is missing; give folders that train_seg.py wrote"),
        ("--histories", "half", "half: is no run: pixel_counts.json is missing"),
        ("--runs", "empty", "empty: is no run: history.csv is missing"),
    ],
)
def test_what_is_no_row_and_no_run_is_one_line(places, option, name, said):
    with pytest.raises(InputError) as found:
        why.main([option, str(places[name])])
    assert said in str(found.value)


def test_a_run_without_a_test_split_is_told_of_before_the_work(places, tmp_path, monkeypatch):
    def opened(split: str) -> None:
        if split == "test":
            raise InputError("has no test split", "give one", tmp_path)

    monkeypatch.setattr(why, "load_run", lambda path: SimpleNamespace(config=SimpleNamespace(open=opened)))
    monkeypatch.setattr(why, "looked_at", None)
    with pytest.raises(InputError, match="has no test split"):
        why.main(["--runs", str(places["camvid-rank-s0"])])


def test_two_seeds_of_an_arm_are_two_panels():
    paths = [Path("a/camvid-ce-s0"), Path("a/camvid-ce-s1"), Path("a/camvid-rank-s0.json"), Path("a/mine")]
    assert [*why.titled(paths)] == ["ce\na/camvid-ce-s0", "ce\na/camvid-ce-s1", "rank (the paper's)", "mine"]


@pytest.mark.parametrize(
    "words", [["long_tailed.py", "--seeds", "1"], ["long_tailed.py", "--losses", "mse2"], ["why.py"]]
)
def test_bad_options_end_with_status_2(words):
    done = subprocess.run([sys.executable, str(BENCHMARKS / words[0]), *words[1:]], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
