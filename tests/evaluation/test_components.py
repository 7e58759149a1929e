"""Connected components found, missed and invented, against a flood fill and by hand."""

import csv
import json

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png

import eval_seg
from segloss.measures import MEASURES
from segloss.measures.components import SIZE_NAMES, component_f1, components_of
from segloss.schema import RunScores


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected components of a mask, pixel by pixel."""
    left, found = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True)), []
    while left:
        region, waiting = set(), [left.pop()]
        while waiting:
            y, x = waiting.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(region)
    return found


def by_flood(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, 4, 3), int)
    for c in range(num_classes):
        true, seen = labels == c, (predicted == c) & (labels < num_classes)
        for region in flood(true):
            hit = sum(seen[place] for place in region)
            counts[c, _size(region), 0 if 2 * hit >= len(region) else 1] += 1
        for region in flood(seen):
            if not any(true[place] for place in region):
                counts[c, _size(region), 2] += 1
    return counts


def _size(region: set) -> int:
    return sum(len(region) >= edge for edge in (100, 1000, 10_000))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(37, 41), (1, 50), (130, 120)])
def test_counts_are_those_of_a_flood_fill(seed, size):
    """Blobs of all sizes, ignored pixels in the truth, and predictions that are no class."""
    coarse = (max(1, size[0] // (3 + 5 * seed)), max(1, size[1] // (3 + 5 * seed)))
    labels, predicted = (
        cv2.resize(random_mask(s, coarse, ids), size[::-1], interpolation=cv2.INTER_NEAREST)
        for s, ids in ((seed, (0, 1, 2, 255)), (seed + 50, (0, 1, 2, 3, 254, 255)))
    )
    agree = random_mask(seed + 99, size, (0, 1, 1)) > 0
    predicted = np.where(agree, labels, predicted).astype(np.uint8)
    found = components_of(predicted, labels, 3)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, by_flood(predicted, labels, 3))


def crack(rows: slice, columns: slice, size=(40, 40)) -> np.ndarray:
    picture = np.zeros(size, np.uint8)
    picture[rows, columns] = 1
    return picture


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (crack(slice(10, 12), slice(0, 20)), (1, 0, 0)),  # the half of it, exactly
        (crack(slice(10, 12), slice(0, 19)), (0, 1, 0)),  # less: missed, but what was seen is not invented
        (crack(slice(8, 14), slice(0, 40)), (1, 0, 0)),  # three times as thick
        (crack(slice(20, 25), slice(0, 5)), (0, 1, 1)),
        (crack(slice(0, 0), slice(0, 0)), (0, 1, 0)),
        (crack(slice(12, 13), slice(0, 40)), (0, 1, 1)),  # beside it, though it touches
    ],
)
def test_found_missed_and_invented_by_hand(predicted, expected):
    labels = crack(slice(10, 12), slice(0, 40))
    assert tuple(components_of(predicted, labels, 2)[1].sum(0)) == expected


def test_diagonal_pixels_are_one_component():
    labels = np.eye(9, dtype=np.uint8)
    assert components_of(labels, labels, 2)[1].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_ignored_pixels_are_of_no_component():
    labels = crack(slice(10, 12), slice(0, 40))
    predicted = labels.copy()
    labels[30:35, 30:35] = 255
    predicted[30:35, 30:35] = 1  # nothing is known there
    assert components_of(predicted, labels, 2)[1].sum(0).tolist() == [1, 0, 0]
    labels[:, 20] = 255  # cuts it in two
    assert components_of(predicted, labels, 2)[1].sum(0).tolist() == [2, 0, 0]


def test_the_size_is_the_components_own():
    labels = np.zeros((120, 120), np.uint8)
    labels[:9, :11], labels[20:30, :10], labels[40:, 20:] = 1, 1, 1  # 99, 100, 8000 pixels
    predicted = np.where(labels == 1, 0, 1).astype(np.uint8)
    predicted[20:30, :10] = 1
    counts = components_of(predicted, labels, 2)[1]
    assert counts[:, :2].tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]] and counts[:, 2].sum() == 0


def test_counts_add_up_over_images_and_a_class_without_components_has_no_ratio():
    pairs = [(random_mask(k, (20, 20), (0, 1)), random_mask(k + 9, (20, 20), (0, 1, 255))) for k in range(3)]
    counts = [components_of(*pair, 3) for pair in pairs]
    total = MEASURES["components"].add(MEASURES["components"].add(*counts[:2]), counts[2])
    np.testing.assert_array_equal(total, sum(counts))
    found, missed, invented = total[1].sum(0)
    ratios = component_f1(total)
    assert ratios[1] == pytest.approx(2 * found / (2 * found + missed + invented)) and np.isnan(ratios[2])


def test_16_bit_maps_count_like_8_bit_ones():
    predicted, labels = random_mask(0, (20, 20), (0, 1, 7)), random_mask(1, (20, 20), (0, 1))
    expected = components_of(predicted, labels, 2)
    np.testing.assert_array_equal(components_of(predicted.astype(np.uint16), labels.astype(np.uint16), 2), expected)


def test_tables_are_in_json_csv_terminal_and_page(tmp_path, capsys):
    sums = np.zeros((2, 4, 3), int)
    for k in range(3):
        labels, predicted = np.zeros((2, 40, 40), np.uint8)
        labels[5:8, k : k + 20], predicted[5:8, 5:30], predicted[30 + k :, :3] = 1, 1, 1
        write_png(tmp_path / f"true/{k}.png", labels)
        write_png(tmp_path / f"pred/{k}.png", predicted)
        sums += by_flood(predicted, labels, 2)
    (tmp_path / "classes.txt").write_text("=back\ncrack\n")
    folders = ["--predictions", str(tmp_path / "pred"), "--labels", str(tmp_path / "true"), "--components"]
    eval_seg.evaluate([*folders, "--output-dir", str(tmp_path / "out")])
    scores = json.loads((tmp_path / "out/metrics.json").read_text())["runs"]["pred"]
    (table,) = scores["tables"]
    expected = [
        [name, size, *sums[c, s].tolist()]
        for c, name in enumerate(("=back", "crack"))
        for s, size in enumerate(SIZE_NAMES)
        if sums[c, s].any()
    ]
    assert table["rows"] == expected and len(expected) == 2
    assert scores["classes"][1]["component_f1"] == pytest.approx(component_f1(sums)[1])
    read = RunScores.from_json(scores)
    assert read.tables[0].rows[0] == tuple(expected[0]) and read.to_json() == scores
    with (tmp_path / "out/components.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["run", "class", "pixels", "found", "missed", "invented"]
    assert rows[1] == ["pred", "'=back", *map(str, expected[0][1:])]
    printed, page = capsys.readouterr().out, (tmp_path / "out/report.html").read_text()
    assert "Connected components" in printed and "mean component F1" in printed
    assert "<h3>Connected components</h3>" in page and '<th class="number" scope="col">invented</th>' in page
    eval_seg.evaluate([*folders[:-1], "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out/components.csv").exists()
    assert "tables" not in json.loads((tmp_path / "out/metrics.json").read_text())["runs"]["pred"]
