"""Class statistics: per split, with co-occurrence and every recipe, printed, saved and drawn."""

import json

import numpy as np
import pytest
import torch
from data_trees import folder_tree, write_png

from segloss.errors import InputError
from segloss.frequency import cooccurrence, main
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, class_weights_from_counts, label_values_from_counts


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = folder_tree(tmp_path / "data", splits=("train", "val"))
    write_png(root / "masks/train/a.png", np.zeros((12, 17), np.uint8))
    write_png(root / "masks/val/b.png", np.full((12, 17), 255, np.uint8))
    return root


def test_cooccurrence_is_the_number_of_images_with_both():
    histograms = torch.randint(0, 3, (40, 6))
    expected = [[sum(bool(h[a] and h[b]) for h in histograms) for b in range(5)] for a in range(5)]
    assert cooccurrence(histograms).tolist() == expected


def test_the_json_holds_every_split_and_every_recipe(data, tmp_path, capsys):
    flags = ["--dataset", "folder", "--data-path", str(data), "--alpha", "2", "--label-power", "0.7"]
    main([*flags, "--split", "train", "val", "--recipes", "--json", str(tmp_path / "deep/classes.json")])
    found = json.loads((tmp_path / "deep/classes.json").read_text())
    assert found["classes"] == ["wall", "floor", "lamp"]
    assert list(found["splits"]) == ["train", "val"] and found["recipes_from"] == "train"
    train = found["splits"]["train"]
    assert (train["images"], found["splits"]["val"]["images"]) == (4, 4)
    assert sum(train["pixels"]) + train["ignored_pixels"] == 4 * 12 * 17
    assert train["share"] == [pixels / sum(train["pixels"]) for pixels in train["pixels"]]
    assert [row[c] for c, row in enumerate(train["cooccurrence"])] == train["images_with_class"] == [4, 3, 3]
    assert found["splits"]["val"]["images_with_class"] == [3, 3, 3]
    assert list(found["label_values"]) == list(LABEL_VALUES) and list(found["class_weights"]) == list(CLASS_WEIGHTS)
    for recipe, numbers in found["label_values"].items():
        power = 0.7 if recipe == "power" else None
        expected = label_values_from_counts(train["pixels"], alpha=2, label_values=recipe, power=power)
        assert numbers == expected.tolist()
    assert found["class_weights"]["enet"] == class_weights_from_counts(train["pixels"], "enet").tolist()
    printed = capsys.readouterr().out
    assert "folder val: 4 images" in printed and "label values from train" in printed
    for recipe in (*LABEL_VALUES, *CLASS_WEIGHTS):
        assert recipe in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80


def test_the_picture_of_one_and_of_several_splits(data, tmp_path):
    flags = ["--dataset", "folder", "--data-path", str(data), "--output"]
    main([*flags, str(tmp_path / "one.png")])
    main([*flags, str(tmp_path / "two.png"), "--split", "train", "val"])
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG") and two.startswith(b"\x89PNG") and one != two


def test_a_json_that_cannot_be_written_is_one_line(data):
    with pytest.raises(InputError, match=r"--json .*classes\.yaml/x\.json cannot be written"):
        main(["--dataset", "folder", "--data-path", str(data), "--json", str(data / "classes.yaml/x.json")])
