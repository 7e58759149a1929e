"""Samples made of two images: what is pasted, with which labels, and from (seed, epoch, index) alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from data_trees import write_png
from street_trees import TINY, street_tree

from segloss.datasets import build_dataset
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import training_loader
from segloss.datasets.mixing import Mixing, _rectangle
from segloss.datasets.transforms import train_transform
from segloss.pixel_counts import load_or_count
from segloss.resume import parse_train_config
from segloss.training.data import prepare_training, training_data

SIZE, CROP = (60, 80), (48, 64)
KINDS = ("paste", "classmix", "cutmix")
RARE = (3, 4)  # holes and cracks of the made-up floors


def floor(place: int) -> np.ndarray:
    """Labels of three even classes in stripes, a void patch, and spots of two rare ones in some images."""
    labels = np.repeat(np.arange(SIZE[0]) // 20, SIZE[1]).reshape(SIZE).astype(np.uint8)
    labels[26:34, 10 + 8 * place : 20 + 8 * place] = 255
    rng = np.random.default_rng(place)
    for rare in RARE[: place % 3]:
        for _ in range(3):
            row, column = rng.integers(8, SIZE[0] - 8), rng.integers(12, SIZE[1] - 8)
            cv2.circle(labels, (int(column), int(row)), 3, rare, -1)
    return labels


def painted(labels: np.ndarray, place: int) -> np.ndarray:
    """A picture that shows label and image: blue and green are the label, red the image."""
    return np.stack([labels, 255 - labels, np.full_like(labels, place + 1)], axis=-1)  # as OpenCV writes them


@pytest.fixture
def floors(tmp_path):
    """Six floors with the training transform; nothing of it changes a colour."""
    for place in range(6):
        write_png(tmp_path / "masks/train" / f"{place}.png", floor(place))
        write_png(tmp_path / "images/train" / f"{place}.png", painted(floor(place), place))
    (tmp_path / "classes.yaml").write_text("- tile\n- wood\n- stone\n- hole\n- crack\n", encoding="utf-8")
    transform = train_transform(CROP, 0, color="none", class_pixels=[1] * 5, seeks=True)
    return build_dataset("folder", tmp_path, "train", transform)


def mixing(kind, share=1.0, seed=0):
    holders = {c: np.array([p for p in range(6) if (floor(p) == c).any()]) for c in RARE}
    return Mixing(kind, share, seed, holders if kind == "paste" else {})


def both(floors, kind, key):
    """Labels, picture and image number of a sample before and after mixing."""
    found = []
    for mixer in (None, mixing(kind)):
        floors.mixing = mixer
        item = floors[key]
        red, green, blue = item["image"].numpy()
        labels = item["labels"].numpy()
        inside = labels != 255
        assert (blue[inside] == labels[inside]).all() and (green[inside] == 255 - labels[inside]).all()
        assert labels.dtype == np.int64 and item["image"].dtype == torch.uint8
        found.append((labels, red))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_pixels_shown_and_something_is_taken(floors, kind):
    changed = 0
    for key in [(epoch, index) for epoch in range(4) for index in range(6)]:
        (before, _), (after, _) = both(floors, kind, key)
        changed += int((before != after).any())
    assert changed > 12


def test_pasted_are_rare_classes_alone_and_never_over_rare_ones(floors):
    pasted = np.zeros(5, int)
    for key in [(epoch, index) for epoch in range(6) for index in range(6)]:
        (before, own), (after, shown) = both(floors, "paste", key)
        taken = (before != after) | (own != shown)
        assert set(np.unique(after[taken])) <= {*RARE}
        assert not np.isin(before[taken], RARE).any()
        pasted += np.bincount(after[taken], minlength=5)
    assert (pasted[list(RARE)] > 100).all()


def test_regions_are_taken_whole(floors):
    """Nothing is in front: the own image has no rare class, so that each region of the other comes as it is."""
    mixer = mixing("paste")
    for draw in range(30):
        other = floor(2)
        taken = mixer._taken(np.random.default_rng(draw), floor(0), other, 3, None, 255)
        assert taken.any()
        for c in RARE:
            count, regions = cv2.connectedComponents((other == c).astype(np.uint8), connectivity=8)
            shares = {float(taken[regions == region].mean()) for region in range(1, count)}
            assert shares <= {0.0, 1.0}
        assert taken[np.isin(other, RARE)].sum() == taken.sum()


def test_of_the_sought_class_there_is_always_a_region(floors):
    mixer = mixing("paste")
    takes = [mixer._taken(np.random.default_rng(draw), floor(0), floor(1), 3, None, 255).any() for draw in range(40)]
    assert all(takes)


def test_rare_classes_that_one_image_in_many_holds_come_far_more_often(floors):
    def pixels(mixer):
        floors.mixing = mixer
        items = (floors[epoch, index]["labels"] for epoch in range(5) for index in (0, 3))  # hold none of their own
        return sum(int(torch.isin(labels, torch.tensor(RARE)).sum()) for labels in items)

    assert pixels(None) == 0 < pixels(mixing("paste"))


def test_classmix_takes_half_of_the_classes_and_no_ignored_pixel(floors):
    mixer, other = mixing("classmix"), floor(2)
    for draw in range(20):
        taken = mixer._taken(np.random.default_rng(draw), floor(0), other, None, None, 255)
        chosen = set(np.unique(other[taken]))
        assert 255 not in chosen and len(chosen) == 3
        assert (np.isin(other, [*chosen]) == taken).all()
    assert not mixer._taken(np.random.default_rng(0), floor(0), np.full(SIZE, 255, np.uint8), None, None, 255).any()


def test_cutmix_takes_rectangles_of_every_size_and_the_ignored_pixels_in_them(floors):
    areas = []
    for draw in range(200):
        taken = _rectangle(np.random.default_rng(draw), SIZE)
        rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
        assert taken.sum() == len(rows) * len(columns)
        areas.append(taken.mean())
    assert np.quantile(areas, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.12)
    ignored = 0
    for key in [(epoch, index) for epoch in range(4) for index in range(6)]:
        (before, _), (after, _) = both(floors, "cutmix", key)
        ignored += int(((after == 255) & (before != 255)).sum())
    assert ignored > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_samples_is_mixed_and_the_others_are_as_without(floors, kind):
    keys = [(epoch, index) for epoch in range(10) for index in range(6)]
    floors.mixing = None
    plain = [floors[key]["image"] for key in keys]
    floors.mixing = mixing(kind, 0.0)
    assert all(floors[key]["image"].equal(image) for key, image in zip(keys, plain, strict=True))
    floors.mixing = mixing(kind, 0.5)
    same = [floors[key]["image"].equal(image) for key, image in zip(keys, plain, strict=True)]
    assert 18 < sum(same) < 45


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_on_seed_epoch_and_index_alone(floors, kind):
    floors.mixing = mixing(kind)

    def epoch_of(workers, seed=0):
        floors.mixing = mixing(kind, seed=seed)
        batches = list(training_loader(floors, 2, seed=3, workers=workers, repeat=torch.full((6,), 2.0)))
        return torch.cat([batch["image"].flatten(1) for batch in batches])

    first = epoch_of(0)
    assert epoch_of(2).equal(first)
    assert not epoch_of(0, seed=1).equal(first)
    cache_in_ram([floors])
    assert epoch_of(2).equal(first) and epoch_of(0).equal(first)
    keys = [(0, 1), (1, 1), (0, 1, 1), (0, 2)]
    assert len({floors[key]["image"].numpy().tobytes() for key in keys}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_where_images_label_some_classes_every_pixel_of_a_mixture_is_labelled_for_its_mask(floors, kind, tmp_path):
    (tmp_path / "labelled_classes.csv").write_text("[0-2],tile;wood;crack\n[34],stone;hole\n", encoding="utf-8")
    floors = build_dataset("folder", tmp_path, "train", floors.transform)
    floors.mixing = mixing(kind)
    for key in [(epoch, index) for epoch in range(4) for index in range(6)]:
        item = floors[key]
        inside = item["labels"][item["labels"] != 255]
        assert item["class_mask"][inside].all()
        own = torch.from_numpy(floors.labelled.masks[key[1]])
        assert (item["class_mask"] <= own).all()
        if kind != "cutmix":
            assert item["class_mask"].equal(own)


def test_crops_are_those_of_a_run_without_pasting(floors):
    plain = train_transform(CROP, 0, color="none")
    for index in range(6):
        image, labels = floors.read_pair(index)
        for one, other in zip(
            plain(image, labels, (0, index)), floors.transform(image, labels, (0, index)), strict=True
        ):
            assert (one == other).all()


def test_a_crop_around_a_class_holds_it(floors):
    for index in (1, 2, 4, 5):
        for epoch in range(5):
            _, labels = floors.transform(*floors.read_pair(index), (epoch, index), around=3)
            assert (labels == 3).any()


# ---- through the options


def config_of(tmp_path, *words):
    data = street_tree(tmp_path / "data", train=6)
    return parse_train_config(["--dataset", "camvid", "--data-path", str(data), *TINY, *words])


def prepared(config):
    splits = training_data(config, config.crop_size)
    return prepare_training(config, splits, load_or_count(splits.train)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_options_mix_training_samples_and_no_others(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    splits = prepared(config_of(tmp_path, "--mix", kind, "--mix-share", "0.75"))
    mixer = splits.train.mixing
    assert (mixer.kind, mixer.share, mixer.seed) == (kind, 0.75, 0)
    assert splits.val.mixing is None and splits.test.mixing is None and splits.train_evaluated.mixing is None
    if kind == "paste":
        counts = load_or_count(splits.train)[0].pixels
        rest = [n for c, n in enumerate(counts) if n and c not in mixer.rare]
        assert mixer.rare and max(counts[c] for c in mixer.rare) <= min(rest)
    assert splits.train[0, 0]["image"].shape == (3, 64, 64)


def test_it_is_off_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    config = config_of(tmp_path)
    assert prepared(config).train.mixing is None
    assert prepared(replace(config, mix="cutmix", mix_share=0.0)).train.mixing is None


def test_a_share_without_a_mix_is_said_to_do_nothing():
    assert parse_train_config(["--mix-share", "0.2"]).unused_options() == ["--mix-share does nothing with --mix none"]
    assert parse_train_config(["--mix", "paste", "--mix-share", "0.2"]).unused_options() == []


@pytest.mark.parametrize("rare", [{3}, {3, 4}])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_mirrored_image_the_other_side_is_taken(floors, kind, rare):
    """Holes and cracks as the left and the right hand: of each pixel the label is that of its picture or the other."""
    (floors.root / "classes.yaml").write_text("- tile\n- wood\n- stone\n- left_hand\n- right_hand\n")
    dataset, changed = build_dataset("folder", floors.root, "train", floors.transform), 0
    mixer = mixing(kind)
    for key in [(epoch, index) for epoch in range(4) for index in range(6)]:
        dataset.mixing = None
        before = dataset[key]["labels"].numpy()
        dataset.mixing = replace(mixer, rare={c: of for c, of in mixer.rare.items() if c in rare})
        item = dataset[key]
        labels, shown = item["labels"].numpy(), item["image"][2].numpy()
        hands, inside = (shown == 3) | (shown == 4), labels != 255
        assert (labels == shown)[inside & ~hands].all() and np.isin(labels[inside & hands], (3, 4)).all()
        changed += int((before != labels).any())
    assert changed > 12
