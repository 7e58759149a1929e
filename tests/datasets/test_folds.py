"""Folds: every image of train and val is validated on once, and sequences stay whole."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from data_trees import cityscapes_tree, folder_tree
from street_trees import street_tree, write_scene

from segloss.config import DataOptions, TrainConfig
from segloss.datasets import build_dataset
from segloss.datasets.folds import deal, fold_split, part_of, sequences_of
from segloss.errors import InputError
from segloss.flags import from_plain_dict


def names_of(lengths: dict[str, int]) -> list[str]:
    return [f"{sequence}_{frame:05d}" for sequence, length in lengths.items() for frame in range(length)]


@pytest.mark.parametrize(
    ("lengths", "folds"),
    [
        (dict.fromkeys("abcdefg", 7), 3),
        ({"a": 50, "b": 3, "c": 3, "d": 3}, 2),
        ({c: k for k, c in enumerate("abcdefgh", 1)}, 5),
    ],
)
def test_sequences_stay_whole_and_folds_are_as_even_as_they_can_be(lengths, folds):
    names = names_of(lengths)
    numbers, how = deal(names, folds)
    of_sequence = {part_of(name, "sequence"): set() for name in names}
    for name, number in zip(names, numbers, strict=True):
        of_sequence[part_of(name, "sequence")].add(number)
    assert how == "by sequence" and all(len(found) == 1 for found in of_sequence.values())
    sizes = Counter(numbers)
    assert set(sizes) == {*range(1, folds + 1)}
    assert max(sizes.values()) - min(sizes.values()) <= max(lengths.values())


def test_fewer_sequences_than_folds_are_cut_into_runs_of_neighbours():
    names = names_of({"drive": 23, "city": 8})
    numbers, how = deal(names, 5)
    assert how == "in runs of consecutive images"
    for sequence in ("drive", "city"):
        own = [n for name, n in zip(names, numbers, strict=True) if name.startswith(sequence)]
        assert own == sorted(own) and set(own) == {1, 2, 3, 4, 5}
        assert max(Counter(own).values()) - min(Counter(own).values()) <= 1


def test_runs_of_frames_whose_numbers_have_no_zeros_are_runs_of_neighbours():
    """Frame 10 came before 2, so that a run ended in the midst of the drive several times."""
    numbers, _ = deal([f"drive_{frame}" for frame in range(200)], 5)
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("lengths", "folds"),
    [({"IMG": 400, "DSC": 14, "x": 1, "y": 1, "z": 1}, 5), ({"a": 150, "b": 150, "c": 73, "d": 1, "e": 1}, 5)],
)
def test_the_longest_sequences_are_cut_where_folds_would_be_of_an_image_or_two(lengths, folds):
    names = names_of(lengths)
    numbers, how = deal(names, folds)
    assert how == "by sequence, the longest in runs of consecutive images"
    assert max(Counter(numbers).values()) < 1.2 * len(names) / folds
    for sequence, length in lengths.items():
        own = [n for name, n in zip(names, numbers, strict=True) if name.startswith(f"{sequence}_")]
        runs = 1 + sum(a != b for a, b in pairwise(own))
        assert runs == len({*own}) <= -(-length * folds // len(names))


@pytest.mark.parametrize(("folds", "sizes"), [(2, [305, 163]), (3, [305, 101, 62])])
def test_the_sequences_of_camvid_stay_whole(folds, sizes):
    numbers, how = deal(names_of({"0001TP": 62, "0006R0": 101, "0016E5": 305}), folds)
    assert ([numbers.count(fold + 1) for fold in range(folds)], how) == (sizes, "by sequence")


def test_frames_with_zeros_before_their_numbers_are_dealt_by_their_names_as_text():
    names = sorted([f"{c}{frame:04d}" for c in ("a-", "a", "a_", "a b", "B", "") for frame in range(7, 1100, 90)])
    sequences = {}
    for name in names:
        sequences.setdefault(part_of(name, "sequence"), []).append(name)
    expected = {name: k * 9 // len(own) + 1 for own in sequences.values() for k, name in enumerate(own)}
    assert len(sequences) < 9 and deal(names, 9)[0] == [expected[name] for name in names]


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("street12", "street"), ("street7", "street"), ("town_street012", "town_street"), ("img12", ""), ("d/img12", "d"),
     ("Seq05VD_f00120", "Seq05VD"), ("a1b22", "a1"), ("2024_drive9", "2024"),
     ("IMG_1_jpg.rf.00112233445566778899aabbccddeeff", "IMG_1_jpg"), ("a_1.rf.12", "a_1.rf")],
)  # fmt: skip
def test_all_digits_of_a_frames_number_are_taken_off_whatever_word_is_before_them(name, sequence):
    assert part_of(name, "sequence") == sequence


def test_images_without_sequences_are_dealt_one_by_one():
    numbers, how = deal(["apple", "bear", "cat", "dog"], 2)
    assert how == "image by image" and sorted(numbers) == [1, 1, 2, 2]


@pytest.mark.parametrize("lengths", [{"a": 9, "b": 4, "c": 4}, {"a": 9}, {"a": 1, "b": 1, "c": 1}])
def test_the_order_of_the_names_changes_nothing(lengths):
    names = names_of(lengths)
    shuffled = random.Random(0).sample(names, len(names))
    assert dict(zip(names, deal(names, 3)[0], strict=True)) == dict(zip(shuffled, deal(shuffled, 3)[0], strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return street_tree(tmp_path_factory.mktemp("streets"), train=9, val=4, test=2)


def opened(data: Path, split: str, fold: str | None, dataset: str = "camvid"):
    options = {"dataset": dataset, "data_path": str(data), "fold": fold}
    return from_plain_dict(DataOptions, options).open(split)


def test_every_image_is_validated_on_once_and_never_trained_on_then(data):
    everything = sorted(opened(data, "train", None).names + opened(data, "val", None).names)
    validated = []
    for number in range(1, 4):
        train, val = (opened(data, split, f"{number}/3") for split in ("train", "val"))
        assert sorted(train.names + val.names) == everything and len(val) >= 4
        assert {image for image, _ in train.pairs}.isdisjoint(image for image, _ in val.pairs)
        assert val[0]["labels"].shape == (64, 96) and f"fold {number} of 3 of train and val" in val.found.form
        validated += val.names
    assert sorted(validated) == everything
    assert opened(data, "test", "1/3").names == opened(data, "test", None).names


def test_names_that_both_splits_have_are_told_apart(tmp_path):
    (tmp_path / "classes.yaml").write_text("classes:\n" + "".join(f"  - {{name: c{k}, id: {k}}}\n" for k in range(11)))
    for split, count in (("train", 6), ("val", 3)):
        for index in range(count):
            write_scene(tmp_path / f"images/{split}/{index}.png", tmp_path / f"masks/{split}/{index}.png", split, index)
    val = opened(tmp_path, "val", "1/3", "folder")
    train = opened(tmp_path, "train", "1/3", "folder")
    assert (len(opened(tmp_path, "val", "1/2", "folder")), len(opened(tmp_path, "train", "1/2", "folder"))) == (5, 4)
    assert len({*val.names, *train.names}) == 9 and all(name.startswith(("train/", "val/")) for name in val.names)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "a/b", "2/5/7", "", "-1/3"])
def test_what_is_no_fold_is_refused(fold):
    with pytest.raises(InputError, match="--fold must be K/N, the K-th of N folds, such as 2/5, got"):
        from_plain_dict(TrainConfig, {"fold": fold})


def test_what_cannot_be_dealt_is_refused_in_one_line(data):
    with pytest.raises(InputError, match=r"--fold 1/99: 13 images are fewer than folds; take fewer folds"):
        opened(data, "val", "1/99")
    with pytest.raises(InputError, match=r"--fold 1/3: needs images in files; leave it out, or write"):
        from_plain_dict(DataOptions, {"dataset": "synthetic", "fold": "1/3"}).open("val")


def test_coarse_labels_are_not_dealt_out_among_fine_ones(tmp_path):
    """The fold's val held images of train with their coarse masks, and was scored on these."""
    root = cityscapes_tree(tmp_path, coarse=True)
    options = {"dataset": "cityscapes-coarse", "data_path": str(root), "fold": "1/2"}
    with pytest.raises(InputError, match=r"--fold 1/2: train of cityscapes-coarse is labelled worse than val"):
        from_plain_dict(DataOptions, options).open("val")
    assert len(from_plain_dict(DataOptions, options | {"fold": None}).open("val"))


def test_lists_with_classes_and_masks_of_other_ids_cannot_be_parted_anew(tmp_path):
    root = folder_tree(tmp_path, images="abcd", ids=(0, 1, 2))
    for split, names in (("train", "ab"), ("val", "cd")):
        (root / f"{split}.txt").write_text("".join(f"{name} wall;floor\n" for name in names))
    with pytest.raises(InputError, match="column of classes cannot be parted anew; say it in"):
        from_plain_dict(DataOptions, {"dataset": "folder", "data_path": str(root), "fold": "1/2"}).open("train")
    parts = [build_dataset("folder", root, split) for split in ("train", "val")]
    for part in parts:
        part.found.labelled = {}
    parts[1].classes = replace(parts[1].classes, mask_ids=((7, 0), (8, 1)))
    with pytest.raises(InputError, match="masks of val are read by other ids than those of train"):
        fold_split(parts, "train", "1/2")


@pytest.mark.parametrize("names", [[f"{k:03d}" for k in range(20)], [f"img_{chr(97 + k)}x" for k in range(20)]])
def test_augmented_copies_stay_with_their_picture_in_folds(names):
    """In runs of one sequence too."""
    copies = [name + end for name in names for end in ("", "_hflip", "_rot90")]
    fold_of = dict(zip(copies, deal(copies, 4)[0], strict=True))
    assert all(fold_of[name] == fold_of[f"{name}_hflip"] == fold_of[f"{name}_rot90"] for name in names)
    assert sorted(Counter(fold_of.values()).values()) == [15] * 4


GRID = [(row, column) for row in range(6) for column in range(5)]
TILES = {  # the name of a place in a scene: whether these are tiles of it
    "{scene}_{row_px}_{column_px}": True,
    "{scene}-{row_px:05d}-{column_px:05d}": True,
    "{scene}_r{row}_c{column}": True,
    "{scene}_x{column_px}y{row_px}": True,
    "{scene}/row_{row}_col_{column}": True,
    "{scene}_{row:03d}_{column:03d}": False,  # patients and their slices
    "{scene}_2020{row:02d}01_{row_px}{column_px:04d}": False,  # dates and times
    "{scene}_{row:06d}_{column_px:06d}": False,  # drives and every 64th frame
    "{scene}E{row_px}_{column_px}": False,
}


@pytest.mark.parametrize("form", TILES)
def test_tiles_of_one_picture_are_one_sequence(form):
    places = [(scene, row, column) for scene in ("city", "port2") for row, column in GRID]
    names = [form.format(scene=s, row=r, column=c, row_px=64 * r, column_px=64 * c) for s, r, c in places]
    assert (sequences_of(names) == [scene for scene, _, _ in places]) == TILES[form]
    if not TILES[form]:
        assert sequences_of(names) == [part_of(name, "sequence") for name in names]


def test_dates_and_times_are_no_places():
    names = [f"cam_{200000 + 100 * month}_{60000 + 3700 * month}" for month in range(1, 13)]
    assert sequences_of(names) == [part_of(name, "sequence") for name in names]


def test_tiles_of_one_picture_alone_are_dealt_in_runs_of_rows():
    numbers, how = deal([f"city_{64 * row}_{64 * column}" for row, column in GRID], 3)
    assert how == "in runs of consecutive images"
    assert numbers == [1] * 10 + [2] * 10 + [3] * 10
