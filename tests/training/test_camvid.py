"""The real data: set SEGLOSS_CAMVID to CamVid's folder (train/ trainannot/ val/ ...) and run `pytest -m camvid`."""

import csv
import json
import os

import pytest

import eval_seg
import train_seg
from segloss.datasets import build_dataset
from segloss.losses import class_ranks
from segloss.pixel_counts import count_dataset

ROOT = os.environ.get("SEGLOSS_CAMVID")
pytestmark = [
    pytest.mark.camvid,
    pytest.mark.skipif(not ROOT, reason="CamVid is not at hand: SEGLOSS_CAMVID is not set"),
]

TRAIN = (10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967)
TEST = (6870982, 9906732, 473895, 10390661, 3731857, 4530895, 406612, 476807, 1599124, 255232, 76220)


@pytest.mark.parametrize(("split", "images", "pixels"), [("train", 367, TRAIN), ("test", 233, TEST)])
def test_pixel_counts_are_the_known_ones(split, images, pixels):
    dataset = build_dataset("camvid", ROOT, split)
    counts = count_dataset(dataset)
    assert (counts.image_count, counts.pixels) == (images, pixels)
    assert sum(counts.pixels) + counts.ignored_pixels == images * 360 * 480


def test_ranks_are_the_known_ones():
    names = build_dataset("camvid", ROOT, "train").classes.names
    by_rank = [name for _, name in sorted(zip(class_ranks(TRAIN).tolist(), names, strict=True))]
    assert by_rank == (
        "road building sky tree car pavement sign_symbol fence pole pedestrian bicyclist".split()  # noqa: SIM905
    )


def test_val_split_has_101_images_of_360x480():
    dataset = build_dataset("camvid", ROOT, "val")
    assert len(dataset) == 101
    assert dataset[0]["image"].shape == (3, 360, 480) and dataset[0]["labels"].shape == (360, 480)


def test_a_short_training_learns_and_its_evaluation_agrees(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    folder = tmp_path / "run"
    flags = ["--dataset", "camvid", "--data-path", ROOT, "--encoder", "resnet18", "--output-dir", str(folder)]
    flags += ["--image-scale", "0.25", "--crop-size", "64", "96", "--epochs", "3", "--encoder-lr-factor", "1"]
    train_seg.train([*flags, "--workers", "0", "--batch-size", "8"])
    with (folder / "history.csv").open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[2] < losses[1] < losses[0]
    metrics = json.loads((folder / "test_metrics.json").read_text())
    assert metrics["pixel_accuracy"] > 0.4  # always answering "building" or "road" gives 27 %
    assert [row["pixels"] for row in metrics["classes"]] == list(TEST)
    eval_seg.evaluate(["--checkpoint", str(folder), "--workers", "0"])
    assert json.loads((folder / "eval-test/metrics.json").read_text())["runs"] == {"run": metrics}
