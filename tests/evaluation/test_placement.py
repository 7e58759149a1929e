"""Predictions that do not lie on their labels: mirrored, turned, under each other's names; told where that is clear."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from data_trees import write_png

import eval_seg
from segloss.datasets.classes import ClassTable
from segloss.doctor.command import main as doctor
from segloss.evaluation import placement
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.placement import SYMMETRIES
from segloss.evaluation.score import measure

CLASSES = ClassTable(("ground", "house", "pole"))
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def boxes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A house and a pole somewhere."""
    labels = np.zeros(size, np.uint8)
    for c, (height, width) in ((1, (20, 24)), (2, (30, 10))):
        top, left = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
        labels[top : top + height, left : left + width] = c
    return labels


def road(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Nearly the same left and right."""
    labels = np.zeros(size, np.uint8)
    horizon = int(size[0] * rng.uniform(0.3, 0.6))
    for row in range(horizon, size[0]):
        half = 2 + (row - horizon) // 2
        labels[row, size[1] // 2 - half : size[1] // 2 + half] = 1
    labels[:horizon, : rng.integers(2, 6)] = 2
    return labels


def noisy(labels: np.ndarray, rng: np.random.Generator, wrong: float = 0.05) -> np.ndarray:
    return np.where(rng.random(labels.shape) < wrong, rng.integers(0, 3, labels.shape), labels).astype(np.uint8)


def written(root: Path, true: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> list[str]:
    """What is found in masks called 0, 1, ..."""
    for place, (label, found) in enumerate(zip(true, predicted, strict=True)):
        write_png(root / f"true/{place}.png", label)
        write_png(root / f"pred/{place}.png", np.ascontiguousarray(found))
    source = MaskSource("p", root / "pred", root / "true", CLASSES, workers=2)
    return [str(finding) for finding in source.findings(measure(source)) if "far better" in str(finding)]


def scenes(
    count: int, draw: Draw = boxes, size: tuple[int, int] = (64, 64)
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(3)
    true = [draw(rng, size) for _ in range(count)]
    return true, [noisy(labels, rng) for labels in true]


@pytest.mark.parametrize("how", SYMMETRIES)
def test_predictions_that_were_mirrored_or_turned_are_told(tmp_path, how):
    true, predicted = scenes(14)
    back = {"turned by 90 degrees": "turned by 270 degrees", "turned by 270 degrees": "turned by 90 degrees"}
    (line,) = written(tmp_path, true, [SYMMETRIES[back.get(how, how)](found) for found in predicted])
    assert line.startswith(f"p: predictions fit their labels far better {how}: agreement beyond chance 0.9")
    assert line.endswith(" in 14 images; save them as the labels lie")


@pytest.mark.parametrize("draw", [boxes, road])
@pytest.mark.parametrize("size", [(64, 96), (97, 64)])
def test_so_it_is_of_images_that_are_not_square(tmp_path, draw, size):
    true, predicted = scenes(6, draw, size)
    (line,) = written(tmp_path, true, [found[::-1] for found in predicted])
    assert "upside down" in line


ORDERS = {
    "written by names as text": lambda numbers: sorted(numbers, key=str),
    "read by names as text": lambda numbers: np.argsort(sorted(numbers, key=str)).tolist(),
    "from 1": lambda numbers: [*numbers[1:], numbers[0]],
    "one behind": lambda numbers: [numbers[-1], *numbers[:-1]],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [14, 60])
def test_predictions_under_names_of_other_images_are_told(tmp_path, order, count):
    """Of 60 images the 16 that are looked at hold few of the labels that their predictions are of."""
    true, predicted = scenes(count)
    places = ORDERS[order]([*range(count)])
    (line,) = written(tmp_path, true, [predicted[place] for place in places])
    assert "predictions fit labels of other images far better than their own: " in line
    named = [(int(a), int(b)) for a, b in re.findall(r"(\d+) fits (\d+)", line)]
    assert len(named) == 3 and all(places[a] == b != a for a, b in named)


def shuffled(seed: int) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    def draw(true: list[np.ndarray]) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [boxes(rng, labels.shape) for labels in true]

    return draw


def blocks(true: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8), int)).astype(np.uint8) for _ in true]


BAD = {
    "right": lambda true: [noisy(labels, np.random.default_rng(1)) for labels in true],
    "nearly constant": lambda true: [np.where(np.arange(64)[:, None] < 1, 1, 0 * labels) for labels in true],
    "the same picture": lambda true: [true[0]] * len(true),
    "what is everywhere": lambda true: [np.median(np.stack(true), 0).astype(np.uint8)] * len(true),
    "blocks": blocks,
    "half of the pixels": lambda true: [noisy(labels, np.random.default_rng(1), 0.5) for labels in true],
    "boxes elsewhere": shuffled(1),
    "boxes elsewhere, too": shuffled(2),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("draw", [boxes, road])
@pytest.mark.parametrize("count", [2, 5, 20])
def test_bad_networks_and_alike_scenes_raise_no_alarm(tmp_path, bad, draw, count):
    true, _ = scenes(count, draw)
    assert written(tmp_path, true, [np.asarray(found, np.uint8) for found in BAD[bad](true)]) == []


def test_two_images_that_were_exchanged_are_no_order(tmp_path):
    true, predicted = scenes(14)
    assert written(tmp_path, true, [predicted[1], predicted[0], *predicted[2:]]) == []


def test_it_is_told_by_the_score_and_by_the_doctor(tmp_path, capsys):
    true, predicted = scenes(6)
    written(tmp_path, true, [found[:, ::-1] for found in predicted])
    (tmp_path / "true/classes.txt").write_text("\n".join(CLASSES.names))
    argv = ["--predictions", str(tmp_path / "pred"), "--labels", str(tmp_path / "true")]
    eval_seg.evaluate([*argv, "--output-dir", str(tmp_path / "out")])
    assert "warning: pred: predictions fit their labels far better mirrored left to right" in capsys.readouterr().out
    doctor(argv)
    assert "predictions fit their labels far better mirrored left to right" in " ".join(capsys.readouterr().out.split())


def test_good_predictions_are_not_read_again(tmp_path, monkeypatch):
    true, _ = scenes(6)
    monkeypatch.setattr(placement, "_thumb", None)
    assert written(tmp_path, true, true) == []
