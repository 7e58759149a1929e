"""Augmentation and samplers: labels stay labels, and a sample is a function of (seed, epoch, index)."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from data_trees import folder_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.datasets import build_dataset
from segloss.datasets.loading import EpochSampler, collate_samples, evaluation_loader, training_loader
from segloss.datasets.transforms import EvalTransform, TrainTransform, resize_image

IGNORED = 255


def blocks(seed: int, size: tuple[int, int], classes: int = 5, side: int = 8) -> np.ndarray:
    """Labels in squares, so that scaling and flipping leave whole areas."""
    rows, columns = (-(-length // side) for length in size)
    coarse = np.random.default_rng(seed).integers(0, classes, (rows, columns), dtype=np.uint8)
    return np.kron(coarse, np.ones((side, side), np.uint8))[: size[0], : size[1]]


def painted(labels: np.ndarray) -> np.ndarray:
    """A picture that shows its labels as greys 60 levels apart."""
    return np.repeat((labels * 60)[..., None], 3, axis=2)


sizes = st.tuples(st.integers(3, 90), st.integers(3, 90))


@given(sizes, st.tuples(st.integers(32, 64), st.integers(32, 64)), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_training_samples_have_the_crop_size_and_no_new_label(size, crop, index):
    labels = blocks(index, size) * 40  # 0, 40, ... 160: any average of two of them would be new or wrong
    transform = TrainTransform(1.0, (0.5, 2.0), crop, seed=0)
    image, out = transform(painted(blocks(index, size)), labels, (0, index))
    assert image.shape == (*crop, 3) and image.dtype == np.uint8
    assert out.shape == crop and out.dtype == np.uint8
    assert set(np.unique(out)) <= {*np.unique(labels), IGNORED}


@given(sizes, st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_padded_pixels_and_no_others_are_ignored(size, index):
    """At scale 1 as many pixels are ignored as the image lacks, and those it has form one rectangle."""
    crop = (48, 56)
    transform = TrainTransform(1.0, (1.0, 1.0), crop, seed=3)
    image, labels = transform(np.full((*size, 3), 255, np.uint8), np.ones(size, np.uint8), (0, index))
    kept = [min(length, side) for length, side in zip(size, crop, strict=True)]
    inside = labels == 1
    assert inside.sum() == np.prod(kept)
    assert (labels[~inside] == IGNORED).all()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert [np.ptp(rows) + 1, np.ptp(columns) + 1] == kept
    # White stays the brightest under any colour step, padding is a middle grey.
    if not inside.all():
        assert image[inside].min() > image[~inside].max()


def test_image_and_labels_move_together():
    """The colour step changes greys but not their order, so each label keeps a band of its own inside its areas."""
    labels = blocks(0, (96, 128), side=16)
    image = painted(labels)
    transform = TrainTransform(1.0, (0.8, 1.5), (64, 80), seed=1)
    for index in range(30):
        out_image, out = transform(image, labels, (0, index))
        neighbours = np.stack([np.roll(out, shift, (0, 1)) for shift in ((2, 0), (-2, 0), (0, 2), (0, -2))])
        inner = (neighbours == out).all(axis=0)
        inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
        bands = [out_image[inner & (out == c)] for c in range(5)]
        bands = [band for band in bands if len(band)]
        assert len(bands) >= 3
        for darker, brighter in pairwise(bands):
            assert np.percentile(darker, 98) < np.percentile(brighter, 2)


def test_half_of_the_samples_are_mirrored():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    transform = TrainTransform(1.0, (1.0, 1.0), (40, 40), seed=0)
    mirrored = [transform(painted(labels), labels, (0, index))[1][0, 0] == 1 for index in range(200)]
    assert 0.4 < np.mean(mirrored) < 0.6  # binomial, three standard deviations


@pytest.mark.parametrize("image_scale", [0.5, 2.0])
def test_image_scale_multiplies_the_random_scale(image_scale):
    """A square of 40 comes out between 40 * scale * 0.8 and 40 * scale * 1.2, and not always the same."""
    labels = np.full((120, 120), 2, np.uint8)
    labels[40:80, 40:80] = 1
    transform = TrainTransform(image_scale, (0.8, 1.2), (320, 320), seed=0)
    sides = []
    for index in range(40):
        square = transform(painted(labels), labels, (0, index))[1] == 1
        sides.append(np.ptp(np.flatnonzero(square.any(axis=0))) + 1)
    relative = np.array(sides) / (40 * image_scale)
    assert 0.8 - 0.03 < relative.min() < 0.88  # 0.03: half a pixel on each side of a square of 20
    assert 1.12 < relative.max() < 1.2 + 0.03


def test_the_same_key_gives_the_same_sample_and_another_key_another():
    labels = blocks(0, (60, 80))
    image = painted(labels)

    def sample(seed, key):
        return TrainTransform(1.0, (0.75, 1.6), (48, 64), seed)(image, labels, key)

    first = sample(0, (3, 7))
    for part, again in zip(first, sample(0, (3, 7)), strict=True):
        np.testing.assert_array_equal(part, again)
    for seed, key in ((1, (3, 7)), (0, (4, 7)), (0, (3, 8)), (0, (7, 3))):
        other = sample(seed, key)
        assert any((part != changed).any() for part, changed in zip(first, other, strict=True)), (seed, key)


def test_a_sample_does_not_depend_on_the_samples_before_it():
    labels = blocks(0, (60, 80))
    transform = TrainTransform(1.0, (0.75, 1.6), (48, 64), seed=0)
    forwards = [transform(painted(labels), labels, (0, index)) for index in range(6)]
    backwards = [transform(painted(labels), labels, (0, index)) for index in reversed(range(6))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_inputs_and_the_global_random_states_are_left_alone():
    labels = blocks(0, (60, 80))
    image = painted(labels)
    before = image.copy(), labels.copy()
    states = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    transform = TrainTransform(1.0, (0.75, 1.6), (48, 64), seed=0)
    for index in range(10):
        transform(image, labels, (0, index))
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


# ---- evaluation


@pytest.mark.parametrize(("factor", "size"), [(1.0, (37, 53)), (0.5, (18, 26)), (2.0, (74, 106)), (0.001, (1, 1))])
def test_evaluation_resizes_the_image_and_leaves_the_labels_alone(factor, size):
    labels = blocks(0, (37, 53))
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    out_image, out_labels = EvalTransform(factor)(image, labels, (0, 0))
    assert out_image.shape == (*size, 3) and out_image.dtype == np.uint8
    np.testing.assert_array_equal(out_labels, labels)
    if factor == 1:
        np.testing.assert_array_equal(out_image, image)


def test_evaluation_takes_images_without_labels():
    image, labels = EvalTransform(0.5)(np.zeros((20, 30, 3), np.uint8), None, (0, 0))
    assert image.shape == (10, 15, 3)
    assert labels is None


def test_shrinking_averages_areas():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    means = image.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 0.5) - means).max() <= 0.5


# ---- samplers


def test_a_shuffled_epoch_is_a_permutation_and_another_epoch_another_one():
    sampler = EpochSampler(50, shuffle=True, seed=4)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        assert list(sampler) == keys
        epochs.append([index for _, index in keys])
        assert sorted(epochs[-1]) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert [index for _, index in EpochSampler(50, shuffle=True, seed=5)] != epochs[0]


def test_without_shuffling_the_order_is_that_of_the_data():
    assert list(EpochSampler(4, shuffle=False)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


@given(st.integers(1, 40), st.integers(1, 6), st.booleans(), st.integers(0, 5))
@settings(deadline=None)
def test_ranks_share_the_data_without_overlap(length, world_size, shuffle, epoch):
    seen, lengths = [], []
    for rank in range(world_size):
        sampler = EpochSampler(length, shuffle=shuffle, seed=1, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        indices = [index for _, index in sampler]
        assert len(sampler) == len(indices)
        seen += indices
        lengths.append(len(indices))
    assert len(set(seen)) == len(seen)
    if shuffle:  # all processes step together, so what does not fill them all is left out
        assert set(lengths) == {length // world_size}
    else:  # scores must count each image once: none padded, none left out
        assert sorted(seen) == list(range(length))


# ---- loaders


@pytest.fixture(scope="module")
def train_split(tmp_path_factory):
    root = folder_tree(tmp_path_factory.mktemp("data"), images=[f"i{i}" for i in range(7)], splits=("train",))
    return build_dataset("folder", root, "train", TrainTransform(1.0, (0.75, 1.6), (32, 40), seed=5))


def batches_of(loader, epoch: int) -> list[dict]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def assert_same_batches(some: list[dict], others: list[dict]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["labels"], other["labels"])


def test_samples_do_not_depend_on_the_number_of_workers_nor_on_resuming(train_split):
    uninterrupted = training_loader(train_split, 3, seed=5, workers=0)
    expected = [batches_of(uninterrupted, epoch) for epoch in range(2)]
    assert not torch.equal(expected[0][0]["image"], expected[1][0]["image"])
    for workers in (1, 2):
        loader = training_loader(train_split, 3, seed=5, workers=workers)  # its workers persist over the epochs
        for epoch in range(2):
            assert_same_batches(batches_of(loader, epoch), expected[epoch])
    resumed = training_loader(train_split, 3, seed=5, workers=2)
    assert_same_batches(batches_of(resumed, 1), expected[1])


def test_training_batches_are_full_and_stacked(train_split):
    batches = list(training_loader(train_split, 3, seed=0, workers=0))
    assert len(batches) == 2  # of 7 images one is left over
    for batch in batches:
        assert set(batch) == {"image", "labels"}
        assert batch["image"].shape == (3, 3, 32, 40) and batch["image"].dtype == torch.uint8
        assert batch["labels"].shape == (3, 32, 40) and batch["labels"].dtype == torch.int64


def test_fewer_images_than_a_batch_give_one_batch_of_all(train_split):
    (batch,) = training_loader(train_split, 100, seed=0, workers=0)
    assert batch["image"].shape[0] == 7
    (batch,) = training_loader(train_split, 100, seed=0, workers=0, rank=1, world_size=2)
    assert batch["image"].shape[0] == 3


def test_evaluation_sees_every_sample_once_in_order_at_its_own_size(tmp_path):
    for place, size in enumerate([(12, 17), (9, 30), (20, 8)]):
        folder_tree(tmp_path, images=(f"i{place}",), splits=("val",), size=size)
    dataset = build_dataset("folder", tmp_path, "val", EvalTransform())
    loader = evaluation_loader(dataset, 2, workers=0)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 1]
    samples = [sample for batch in batches for sample in batch]
    assert [sample["name"] for sample in samples] == ["i0", "i1", "i2"]
    assert [sample["size"] for sample in samples] == [(12, 17), (9, 30), (20, 8)]
    shares = [evaluation_loader(dataset, 2, workers=0, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(sample["name"] for share in shares for batch in share for sample in batch) == ["i0", "i1", "i2"]
    assert collate_samples(samples) is samples
