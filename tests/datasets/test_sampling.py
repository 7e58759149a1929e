"""Repeat-factor sampling: images of rare classes come more often, in epochs of one length, on any number of ranks."""

import csv
import math

import pytest
import torch
import yaml
from data_trees import folder_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from street_trees import TINY, street_tree

import train_seg
from segloss.datasets import build_dataset
from segloss.datasets.loading import EpochSampler, epoch_length, repeat_factors, training_loader
from segloss.datasets.transforms import train_transform
from segloss.errors import InputError
from segloss.pixel_counts import image_histograms
from segloss.resume import parse_train_config

factors = st.lists(st.floats(1, 6), min_size=1, max_size=60).map(lambda values: torch.tensor(values).double())


def keys_of(repeat, epoch: int, seed: int = 3, **place) -> list[tuple[int, ...]]:
    sampler = EpochSampler(len(repeat), shuffle=True, seed=seed, repeat=repeat, **place)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len(keys) == len(sampler)
    return keys


def times_of(keys, images: int) -> torch.Tensor:
    return torch.bincount(torch.tensor([key[1] for key in keys]), minlength=images)


# ---- factors


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=12),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_factors_are_those_of_the_equation(rows, threshold):
    histograms = torch.tensor(rows)
    expected = []
    for image in rows:
        factor = 1.0
        for c in range(3):
            share = sum(row[c] > 0 for row in rows) / len(rows)
            if image[c] > 0:
                factor = max(factor, math.sqrt(threshold / share))
        expected.append(factor)
    assert repeat_factors(histograms, threshold).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_class_in_one_of_a_hundred_images_repeats_it_and_no_other():
    histograms = torch.zeros(100, 4, dtype=torch.int64)
    histograms[:, 0], histograms[7, 2] = 50, 1
    repeat = repeat_factors(histograms, 0.25)
    assert repeat[7] == pytest.approx(5) and repeat.sum() == pytest.approx(104)  # sqrt(0.25 / 0.01)


# ---- epochs


@given(factors, st.integers(0, 5))
@settings(deadline=None)
def test_every_epoch_has_the_same_length_and_each_image_its_factor_rounded_up_or_down(repeat, epoch):
    length = epoch_length(len(repeat), repeat)
    assert 0 <= length - float(repeat.sum()) < 1
    times = times_of(keys_of(repeat, epoch), len(repeat)).double()
    assert times.sum() == length
    scaled = repeat * length / repeat.sum()
    assert (times >= (scaled - 1e-9).floor()).all() and (times <= (scaled + 1e-9).ceil()).all()
    assert times.min() >= 1


def test_over_many_epochs_an_image_comes_as_often_as_its_factor_says():
    repeat = torch.tensor([1.0, 1.25, 1.5, 3.1, 2.15, 1.0])  # their sum is 10
    epochs = 2000
    mean = sum(times_of(keys_of(repeat, epoch), 6) for epoch in range(epochs)) / epochs
    error = 4 * 0.5 / math.sqrt(epochs)  # four standard errors of a rounding, at most
    assert (mean - repeat).abs().max() < error


def test_roundings_of_neighbours_are_not_tied_to_each_other():
    """Of eight images at 1.5 four are repeated; in one fixed order it would always be every other one."""
    seen = {tuple(times_of(keys_of(torch.full((8,), 1.5), epoch), 8).tolist()) for epoch in range(100)}
    assert all(sum(times) == 12 for times in seen) and len(seen) > 30  # of 70 choices of four


@given(factors, st.integers(0, 5))
@settings(deadline=None)
def test_keys_of_an_epoch_are_all_different_and_count_the_times_of_an_image(repeat, epoch):
    keys = keys_of(repeat, epoch)
    assert len(set(keys)) == len(keys)
    occurrences: dict[int, list[int]] = {}
    for key in keys:
        assert key[0] == epoch and (len(key) == 2 or key[2] > 0)
        occurrences.setdefault(key[1], []).append(0 if len(key) == 2 else key[2])
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in occurrences.values())


def test_an_epoch_is_a_function_of_seed_and_epoch_and_shuffled():
    repeat = torch.linspace(1, 3, 30)
    first = keys_of(repeat, 2)
    assert keys_of(repeat, 2) == first
    assert keys_of(repeat, 2, seed=4) != first
    indices = [[key[1] for key in keys_of(repeat, epoch)] for epoch in range(3)]
    assert indices[0] != indices[1] != indices[2]
    assert indices[0] != sorted(indices[0])


@given(factors, st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None)
def test_ranks_share_an_epoch_evenly_and_without_overlap(repeat, world_size, epoch):
    shares = [keys_of(repeat, epoch, rank=rank, world_size=world_size) for rank in range(world_size)]
    length = epoch_length(len(repeat), repeat)
    assert {len(share) for share in shares} == {length // world_size}
    together = [key for share in shares for key in share]
    assert len(set(together)) == len(together)
    whole = keys_of(repeat, epoch)
    assert set(together) <= set(whole)


def test_factors_of_one_change_how_images_are_drawn_but_not_which():
    keys = keys_of(torch.ones(20), 4)
    assert sorted(keys) == [(4, index) for index in range(20)]


# ---- through the loader


def test_two_views_of_one_image_in_an_epoch_are_augmented_differently(tmp_path):
    root = folder_tree(tmp_path, images=("a", "b"), splits=("train",), size=(60, 80))
    transform = train_transform((32, 40), 5, scale_range=(0.75, 1.6))
    dataset = build_dataset("folder", root, "train", transform)
    loader = training_loader(dataset, 4, seed=5, workers=0, repeat=torch.tensor([3.0, 1.0]))
    assert len(loader) == 1
    (batch,) = loader
    images = [image.numpy().tobytes() for image in batch["image"]]
    assert len(set(images)) == 4
    plain = {dataset[0, index]["image"].numpy().tobytes() for index in range(2)}
    assert plain <= set(images)  # the first view of an image is the one it has without repeats


# ---- through train_seg.py


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """A tiny run with every option of the data on."""
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("- HorizontalFlip\n- Rotate: {limit: 10}\n")
    data = street_tree(tmp_path / "data")
    return [
        *("--dataset", "camvid", "--data-path", str(data), "--output-dir", str(tmp_path / "run"), *TINY),
        *("--repeat-threshold", "1", "--guided-crops", "0.5", "--cat-max-ratio", "0.75"),
        *("--augmentations", "own.yaml", "--cache", "ram"),
    ]


def test_a_run_repeats_images_as_planned_and_goes_on_with_its_pipeline(command, tmp_path, capsys):
    train_seg.train(command)
    dataset = build_dataset("camvid", tmp_path / "data", "train")
    images = math.ceil(float(repeat_factors(image_histograms(dataset)[0], 1.0).sum()))
    assert images > 10
    assert f"plan    2 epochs of {images} images with repeats, {images // 4} steps, batch 4" in capsys.readouterr().out
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [images // 4, 2 * (images // 4)]
    asked, used = (yaml.safe_load((tmp_path / "run" / name).read_text()) for name in ("config.yaml", "used.yaml"))
    assert (asked["augmentations"], used["augmentations"]) == ("own.yaml", str(tmp_path / "own.yaml"))

    resume = ["--resume", "--output-dir", str(tmp_path / "run"), "--epochs", "3"]
    assert parse_train_config([*resume, "--cache", "none"]).cache == "none"
    with pytest.raises(InputError, match=r"--guided-crops was 0\.5"):
        parse_train_config([*resume, "--guided-crops", "0"])
    train_seg.train(resume)
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        assert int(list(csv.DictReader(file))[-1]["step"]) == 3 * (images // 4)


@pytest.mark.parametrize("content", ["- HorizontalFlop\n", "- Normalize\n"])
def test_a_pipeline_that_cannot_be_used_is_answered_before_a_run_folder_is_made(command, tmp_path, content):
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(InputError, match=r"own\.yaml: "):
        train_seg.train(command)
    assert not (tmp_path / "run").exists()
