"""The cache in shared memory: the same items, each file read once, one copy for all processes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import folder_tree, random_image, write_png

from segloss.datasets import build_dataset, cache
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import evaluation_loader, training_loader
from segloss.datasets.synthetic import SyntheticStreets
from segloss.datasets.transforms import EvalTransform, train_transform
from segloss.errors import InputError


@pytest.fixture
def root(tmp_path) -> Path:
    """Five training images of three sizes, two for validation."""
    folder = tmp_path / "data"
    for place, size in enumerate([(40, 50), (40, 50), (33, 47), (61, 20), (61, 20)]):
        folder_tree(folder, images=(f"t{place}",), splits=("train",), size=size)
    return folder_tree(folder, images=("v0", "v1"), splits=("val",), size=(21, 34))


def opened(root: Path, cached: bool = True):
    train = build_dataset("folder", root, "train", train_transform((32, 40), 5, scale_range=(0.75, 1.6)))
    val = build_dataset("folder", root, "val", EvalTransform(0.5))
    if cached:
        cache_in_ram([train, val])
    return train, val


def states(dataset) -> list[bool]:
    return dataset.cache.ready.tolist()


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def batches(loader, epoch: int) -> list:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_items_are_the_same_with_the_cache_and_without(root):
    for plain, cached in zip(opened(root, cached=False), opened(root), strict=True):
        for epoch in range(2):  # filled in the first, read in the second
            for index in range(len(plain)):
                assert equal(plain[epoch, index], cached[epoch, index])


def test_a_second_epoch_reads_no_file(root):
    plain, cached = opened(root, cached=False), opened(root)
    expected = [[dataset[1, index] for index in range(len(dataset))] for dataset in plain]
    for dataset in cached:
        for index in range(len(dataset)):
            dataset[0, index]
    shutil.rmtree(root)
    assert equal([[dataset[1, index] for index in range(len(dataset))] for dataset in cached], expected)
    with pytest.raises(InputError):
        plain[0][0]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_a_worker_reads_all_processes_have(root, start_method):
    """Two loaders, each with two workers of its own that persist; the files go away before any of them reads twice."""
    if start_method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start_method} here")
    (plain, plain_val), (train, val) = opened(root, cached=False), opened(root)
    expected = [batches(training_loader(plain, 1, seed=5, workers=0), epoch) for epoch in range(3)]
    expected_val = list(evaluation_loader(plain_val, 1, workers=0))
    loader, val_loader = training_loader(train, 1, seed=5, workers=2), evaluation_loader(val, 1, workers=2)
    for each in (loader, val_loader):
        each.multiprocessing_context = start_method
    assert set(states(train)) == {False}
    assert equal(batches(loader, 0), expected[0]) and equal(list(val_loader), expected_val)
    assert states(train) == [True] * 5 and states(val) == [True] * 2  # seen from this process
    shutil.rmtree(root)
    for epoch in (1, 2):  # in another order, so by other workers
        assert equal(batches(loader, epoch), expected[epoch])
    assert equal(list(val_loader), expected_val)
    assert equal(batches(training_loader(train, 1, seed=5, workers=0), 2), expected[2])


def test_a_worker_sees_what_this_process_writes_later(root):
    train, _ = opened(root)
    loader = training_loader(train, 1, seed=5, workers=1)
    batches(loader, 0)
    train.cache.memory.fill_(7)
    assert all((batch["labels"] % 248 == 7).all() for batch in batches(loader, 1))  # 7, or 255 at the padding


def test_train_and_val_share_one_block_of_memory_that_holds_nothing_else(root):
    train, val = opened(root)
    assert train.cache.memory.is_shared() and train.cache.ready.is_shared()
    assert train.cache.memory.data_ptr() == val.cache.memory.data_ptr()
    assert train.cache.ready.untyped_storage().data_ptr() == val.cache.ready.untyped_storage().data_ptr()
    assert train.cache.memory.numel() == 4 * (2 * 40 * 50 + 33 * 47 + 2 * 61 * 20 + 2 * 21 * 34)


def test_what_a_caller_does_to_its_arrays_does_not_reach_the_cache(root):
    train, _ = opened(root)
    first = [part.copy() for part in train.read_pair(0)]
    for _ in range(2):
        for part, expected in zip(train.read_pair(0), first, strict=True):
            np.testing.assert_array_equal(part, expected)
            part[:] = 9


def test_a_file_of_another_size_than_its_header_said_is_refused_and_harms_no_neighbour(root):
    train, _ = opened(root)
    others = [train[0, index] for index in (0, 2, 3, 4)]
    write_png(root / "images" / "train" / "t1.jpg", random_image(0, (80, 90)))
    write_png(root / "masks" / "train" / "t1.png", np.zeros((80, 90), np.uint8))
    with pytest.raises(InputError, match=r"t1\.jpg: is 90x80 but was 50x40 \(width x height\) .*; replace the file"):
        train[0, 1]
    assert states(train) == [True, False, *[True] * 3]
    assert equal([train[0, index] for index in (0, 2, 3, 4)], others)


def test_a_mask_of_another_size_than_its_image_is_refused_as_without_cache(root):
    train, _ = opened(root)
    write_png(root / "masks" / "train" / "t1.png", np.zeros((80, 90), np.uint8))
    with pytest.raises(InputError, match="mask is 90x80 but its image"):
        train[0, 1]
    assert not states(train)[1]


def test_images_without_labels_are_read_each_time(root):
    val = build_dataset("folder", root, "val")
    val.pairs = [(image, None) for image, _ in val.pairs]
    cache_in_ram([val])
    for _ in range(2):
        image, labels = val.read_pair(0)
        assert labels is None and image.shape == (21, 34, 3)
    assert states(val) == [False, False]


def test_made_up_scenes_can_be_kept_too():
    plain, cached = (SyntheticStreets("val", size=(45, 60), length=3) for _ in range(2))
    cache_in_ram([cached])
    for _ in range(2):
        assert equal([cached[index] for index in range(3)], [plain[index] for index in range(3)])
    assert states(cached) == [True] * 3


@pytest.mark.parametrize("place", ["shared", "machine"])
def test_too_little_memory_is_answered_in_one_line_before_any_is_taken(root, place, monkeypatch):
    need = 4 * (2 * 40 * 50 + 33 * 47 + 2 * 61 * 20 + 2 * 21 * 34)
    free = {"shared": 10**9, "machine": 10**9}
    monkeypatch.setattr(cache, "free_memory", lambda: free)
    cache_in_ram(opened(root, cached=False))
    free[place] = need  # a tenth must stay free
    with pytest.raises(
        InputError, match=rf"--cache ram needs 0\.00 GiB, but {place} has 0\.00 GiB free.*; leave --cache"
    ):
        cache_in_ram(opened(root, cached=False))
    free[place] = 2 * need
    cache_in_ram(opened(root, cached=False))
    with pytest.raises(InputError):
        cache_in_ram(opened(root, cached=False), copies=2)


def test_the_free_memory_of_this_machine_is_plausible():
    for place, free in cache.free_memory().items():
        assert 2**20 < free < 2**50, place
