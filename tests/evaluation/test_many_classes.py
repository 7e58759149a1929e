"""More than 254 classes: 16-bit masks from the class file through loading, counting, loss and scores to saved files."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from data_trees import random_image, write_png

import eval_seg
import segloss
from segloss.config import DataOptions
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.classes import MOST_CLASSES, ClassTable, distinct_colors
from segloss.datasets.loading import evaluation_loader, training_loader
from segloss.datasets.transforms import train_transform
from segloss.doctor import command as doctor
from segloss.errors import InputError
from segloss.evaluation.counting import confusion_of
from segloss.evaluation.predictions import PredictionWriter
from segloss.frequency import command as frequency
from segloss.losses import build_criterion
from segloss.measures.boundary import boundary_of
from segloss.pixel_counts import count_dataset

C, SIZE = 300, (40, 56)
IGNORED = 65535


def blocks(seed: int, ids) -> np.ndarray:
    coarse = np.random.default_rng(seed).choice(np.array([*ids], np.uint16), (10, 14))
    if len(ids) > 254:
        coarse[0, :2] = 255, 254
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)


@pytest.fixture
def tree(tmp_path):
    """Images and 16-bit masks of 300 classes; true and predicted masks side by side, too."""
    (tmp_path / "classes.txt").write_text("\n".join(f"thing {k}" for k in range(C)))
    for split, names in (("train", "abc"), ("val", "de")):
        for name in names:
            write_png(tmp_path / f"images/{split}/{name}.png", random_image(ord(name), SIZE))
            write_png(tmp_path / f"masks/{split}/{name}.png", blocks(ord(name), [*range(C), *[IGNORED] * 20]))
            write_png(tmp_path / f"pred/{split}/{name}.png", blocks(ord(name) + 50, [*range(C + 5), IGNORED]))
    return tmp_path


def masks_of(tree, split="val", folder="masks") -> list[np.ndarray]:
    return [cv2.imread(str(path), -1) for path in sorted((tree / folder / split).iterdir())]


def folders_of(tree) -> list[str]:
    folders = ["--predictions", tree / "pred/val", "--labels", tree / "masks/val", "--output-dir", tree / "out"]
    return [*map(str, folders), "--class-table", str(tree / "classes.txt")]


def evaluate(tree, *flags: object) -> dict:
    eval_seg.evaluate([*folders_of(tree), *map(str, flags)])
    return json.loads((tree / "out/metrics.json").read_text())["runs"]["val"]


def reference(tree) -> np.ndarray:
    """The confusion matrix, pixel by pixel; the last column is no class."""
    matrix = np.zeros((C, C + 1), np.int64)
    for true, predicted in zip(masks_of(tree), masks_of(tree, folder="pred"), strict=True):
        for y, p in zip(true.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if y != IGNORED:
                matrix[y, min(p, C)] += 1
    return matrix


@pytest.mark.parametrize("flags", [[], ["--boundary", "--components"]], ids=["plain", "measures"])
def test_masks_of_300_classes_are_scored_like_their_definition(tree, flags):
    mixed = np.where(np.indices(SIZE)[0] < 30, masks_of(tree)[0], masks_of(tree, "val", "pred")[0])
    write_png(tree / "pred/val/d.png", mixed)
    found, matrix = evaluate(tree, *flags), reference(tree)
    scores = segloss.Scores.from_confusion(torch.from_numpy(matrix))
    assert found["miou"] == pytest.approx(scores.miou, rel=1e-12) and 0.1 < scores.miou < 0.9
    assert found["unknown_predictions"] == matrix[:, -1].sum() > 0
    assert found["ignored_pixels"] == sum((mask == IGNORED).sum() for mask in masks_of(tree)) > 0
    assert [row["pixels"] for row in found["classes"]] == matrix.sum(1).tolist() and matrix[255].sum() > 0
    confusion = segloss.ConfusionMatrix(C)
    for true, predicted in zip(masks_of(tree), masks_of(tree, folder="pred"), strict=True):
        confusion.update(predicted.astype(np.int64), true.astype(np.int64))
    np.testing.assert_array_equal(confusion.matrix.numpy(), matrix)


def test_a_map_of_300_classes_gets_a_posterior_of_as_many(tree):
    for path in (tree / "pred/val").iterdir():
        hot = np.eye(C + 5, dtype=np.float32)[np.minimum(cv2.imread(str(path), -1), C + 4)][..., :C]
        np.save(path.with_suffix(".npy"), (hot.transpose(2, 0, 1) + 1e-4) / (hot.sum(2) + C * 1e-4))
        path.unlink()
    found = evaluate(tree, "--decision", "iou", "--suspects", "3")
    assert found["decision"] == "iou" and found["calibration"]["nll"] > 0
    assert (tree / "out/suspects-val.csv").read_text().count("\n") == 4


def test_loading_counts_every_class_and_the_ignored_pixels(tree):
    dataset = DataOptions(dataset="folder", data_path=str(tree)).open("train")
    masks = masks_of(tree, "train")
    for place, mask in enumerate(masks):
        sample = dataset[place]
        assert sample["labels"].dtype == torch.int64
        np.testing.assert_array_equal(sample["labels"].numpy(), mask)
    counts = count_dataset(dataset)
    every = np.stack(masks)
    assert counts.pixels == tuple((every == c).sum() for c in range(C)) and counts.pixels[255] > 0
    assert counts.ignored_pixels == (every == IGNORED).sum()
    assert segloss.count_labels([mask.astype(np.int64) for mask in masks], C).pixels == counts.pixels


@pytest.mark.parametrize("cached", [False, True])
def test_loaders_and_crops_keep_16_bit_labels(tree, cached):
    dataset = DataOptions(dataset="folder", data_path=str(tree)).open("train")
    if cached:
        cache_in_ram([dataset])
    for _ in range(2):
        found = [sample["labels"] for batch in evaluation_loader(dataset, 2, workers=0) for sample in batch]
        for labels, mask in zip(found, masks_of(tree, "train"), strict=True):
            np.testing.assert_array_equal(labels.long().numpy(), mask)
    pixels = count_dataset(dataset).pixels
    dataset.transform = train_transform((64, 64), 0, class_pixels=pixels, guided_crops=0.5, scale_range=(0.9, 1.1))
    (batch,) = training_loader(dataset, 3, seed=0, workers=0)
    values = set(batch["labels"].unique().tolist())
    assert IGNORED in values and values - {IGNORED} <= {*range(C)} and max(values - {IGNORED}) > 255
    assert (batch["labels"] == IGNORED).float().mean() > 0.3  # what lies outside the image


def test_small_masks_of_many_classes_load_whatever_values_they_hold(tree):
    """A batch of an 8-bit mask and a 16-bit one."""
    write_png(tree / "masks/train/a.png", blocks(1, range(200)).astype(np.uint8))
    dataset = DataOptions(dataset="folder", data_path=str(tree)).open("train")
    (batch,) = training_loader(dataset, 3, seed=0, workers=0)
    first = batch["labels"][batch["name"].index("a")]
    np.testing.assert_array_equal(first.numpy(), cv2.imread(str(tree / "masks/train/a.png"), -1))


def test_frequency_and_doctor_look_at_300_classes(tree, capsys, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tree / "cache"))
    flags = ["--dataset", "folder", "--data-path", str(tree)]
    frequency.main([*flags, "--recipes", "--json", str(tree / "stats.json")])
    statistics = json.loads((tree / "stats.json").read_text())
    every = np.stack(masks_of(tree, "train"))
    assert statistics["splits"]["train"]["pixels"] == [(every == c).sum() for c in range(C)]
    assert "thing 299" in capsys.readouterr().out
    doctor.main([*flags, "--output", str(tree / "doctor.html")])
    assert "0 errors" in capsys.readouterr().out and (tree / "doctor.html").is_file()
    write_png(tree / "masks/train/a.png", blocks(3, (7, 299, 300)))
    with pytest.raises(SystemExit):
        doctor.main(flags)
    assert "holds id 300 on" in capsys.readouterr().out
    write_png(tree / "masks/train/a.png", blocks(3, (7, 299, 65534)))
    with pytest.raises(InputError, match="holds id 65534 on"):
        DataOptions(dataset="folder", data_path=str(tree)).open("train")[0]


@pytest.mark.parametrize("loss", ["outlying_mse", "ce", "weighted_ce+0.5*dice", "logit_adjusted", "ldam"])
def test_criteria_from_counts_ignore_65535_and_not_class_255(loss):
    generator = torch.Generator().manual_seed(0)
    criterion = build_criterion(loss, [k + 1 for k in range(C)])
    logits = torch.randn(1, C, 4, 4, generator=generator)
    labels = torch.randint(0, C, (1, 4, 4), generator=generator)
    labels[0, 0] = 255
    full = criterion(logits, labels)
    labels[0, 0, 0] = IGNORED
    assert criterion.ignore_index == IGNORED and criterion(logits, labels) != full
    assert torch.isfinite(criterion(logits, labels))
    assert build_criterion(loss, [3, 2, 1]).ignore_index == 255
    assert (
        build_criterion(loss, [1] * 255).ignore_index == 255
        and build_criterion(loss, [1] * 256).ignore_index == IGNORED
    )
    assert build_criterion(loss, [1] * C, ignore_index=-1).ignore_index == -1


def test_the_confusion_matrix_counts_class_255_of_300():
    confusion = segloss.ConfusionMatrix(C)
    confusion.update(torch.tensor([255, 3, 4]), torch.tensor([255, 255, IGNORED]))
    assert confusion.matrix[255, 255] == confusion.matrix[255, 3] == confusion.ignored == 1
    assert segloss.ConfusionMatrix(255).ignore_index == segloss.ConfusionMatrix(11).ignore_index == 255
    assert segloss.ConfusionMatrix(C, ignore_index=255).ignore_index == 255  # who says so is believed
    with pytest.raises(InputError, match="ignore_index must be an integer or None, got 'automatic'"):
        segloss.ConfusionMatrix(C, ignore_index="automatic")


@pytest.mark.parametrize("kinds", [["ids"], ["ids", "color"]])
def test_predictions_are_saved_in_16_bit(tree, kinds):
    dataset = DataOptions(dataset="folder", data_path=str(tree)).open("val")
    predicted = torch.from_numpy(blocks(9, range(C)).astype(np.int64))
    PredictionWriter(tree / "saved", dataset.classes, kinds, dataset)({"name": "d"}, predicted)
    written = cv2.imread(str(next((tree / "saved").rglob("d.png"))), -1)
    if kinds == ["ids"]:
        assert written.dtype == np.uint16
        np.testing.assert_array_equal(written, predicted.numpy())


def test_pictures_of_posteriors_of_300_classes_are_refused(tree):
    dataset = DataOptions(dataset="folder", data_path=str(tree)).open("val")
    with pytest.raises(InputError, match="--save probability_png is for at most 254 classes; save probability"):
        PredictionWriter(tree / "saved", dataset.classes, ["probability_png"], dataset)


def test_colours_of_many_classes_are_distinct_and_those_of_few_as_before():
    assert len(set(distinct_colors(MOST_CLASSES))) == MOST_CLASSES
    assert distinct_colors(3) == ((128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_ids_to_65534_stand_for_classes_and_others_are_ignored_as_stated():
    table = ClassTable(tuple(map(str, range(C))), ids=tuple(range(65535 - C, 65535)), ignore_ids=(0, 7))
    assert table.ignored == IGNORED and table.ignore_ids == (0, 7, 255, IGNORED)
    assert table.mask_ids[-1] == (IGNORED, IGNORED) and table.mask_ids[C - 1] == (65534, C - 1)
    with pytest.raises(InputError, match="id 65500 is both a class and ignored"):
        ClassTable(tuple(map(str, range(C))), ids=tuple(range(65535 - C, 65535)), ignore_ids=(65500,))


def test_the_confusion_matrix_stays_bounded(monkeypatch, capsys, tmp_path):
    with pytest.raises(InputError, match="needs 2 to 4096 classes, got 4097"):
        ClassTable(tuple(map(str, range(MOST_CLASSES + 1))))
    matrix, ignored = confusion_of(np.full((2, 2), 4095, np.uint16), np.array([[4095, 0], [65535, 9]], np.uint16), 4096)
    assert matrix.shape == (4096, 4097) and matrix.nbytes < 2**27 + 2**16 and ignored == 1 and matrix[4095, 4095] == 1


def test_boundaries_of_16_bit_maps_are_those_of_8_bit_ones():
    labels, predicted = blocks(0, (0, 1, 2, IGNORED)), blocks(1, (0, 1, 2, 3))
    narrow = np.where(labels == IGNORED, 255, labels).astype(np.uint8)
    np.testing.assert_array_equal(boundary_of(predicted, labels, 3), boundary_of(predicted.astype(np.uint8), narrow, 3))


def test_8_bit_masks_of_255_classes_have_no_ignored_value_left(tmp_path):
    table = ClassTable(tuple(map(str, range(255))))
    assert table.ignored == IGNORED and table.ignore_ids == (255, IGNORED)
    table = ClassTable(tuple(map(str, range(256))))
    assert table.ignore_ids == (IGNORED,)


def test_a_stray_id_is_one_line(tree, monkeypatch, capsys):
    write_png(tree / "masks/val/d.png", blocks(0, (1, 2, 400)))
    monkeypatch.setattr(sys, "argv", ["eval_seg.py", *folders_of(tree)])
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1
    assert "d.png: holds id 400 on" in line and "(ids 0-299, ignored 65535)" in line
