"""Labels that are likely wrong: planted errors come first, in tables and on the page."""

import csv
import sys

import cv2
import numpy as np
import pytest
import torch
from data_trees import random_mask, write_png

import eval_seg
from segloss.datasets.street_scenes import render_street
from segloss.evaluation.suspects import MARGIN, Suspects, regions_of

SIZE = (96, 144)
BUILDING, ROAD, TREE, CAR = 1, 3, 5, 8


def network_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """What a good network would say of true labels: sure inside, unsure and a little off at the outlines."""
    moved = np.roll(labels, seed % 3 - 1, axis=1)
    truth = np.stack([cv2.GaussianBlur((moved == c).astype(np.float32), (7, 7), 0) for c in range(11)])
    scores = 8 * truth + np.random.default_rng(seed).normal(0, 0.3, truth.shape)
    return (np.exp(scores) / np.exp(scores).sum(0)).astype(np.float32)


def planted_tree(root) -> dict[str, tuple[int, int, int, int]]:
    """Labels of six streets, three of which hold an error; the box of each by the name of its image."""
    planted = {}
    for k in range(6):
        labels = render_street(3, "train", k, *SIZE)[1]
        name = f"street{k}"
        (root / "maps").mkdir(parents=True, exist_ok=True)
        np.savez(root / f"maps/{name}.npz", network_of(labels, k))
        if k == 1:  # a block labelled as another class
            labels[70:90, 40:70] = np.where(labels[70:90, 40:70] == ROAD, CAR, ROAD)
            planted[name] = (40, 70, 30, 20)
        if k == 3:  # painted over by the class around it, as of an object that was forgotten
            labels[20:44, 90:120] = np.where(labels[20:44, 90:120] == TREE, BUILDING, TREE)
            planted[name] = (90, 20, 30, 24)
        if k == 4:  # void taken for a class is labelled; what is void says nothing
            labels[5:25, 5:35] = np.where(labels[5:25, 5:35] == CAR, BUILDING, CAR)
            planted[name] = (5, 5, 30, 20)
            labels[60:90, 60:100] = 255
        write_png(root / f"true/{name}.png", np.where(labels == 255, 11, labels).astype(np.uint8))
    return planted


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def flags_of(root, out, *more: object) -> list[str]:
    folders = ["--predictions", root / "maps", "--labels", root / "true", "--class-table", "camvid"]
    return [str(flag) for flag in (*folders, "--output-dir", out, *more)]


def test_planted_label_errors_come_first(tmp_path, capsys):
    planted = planted_tree(tmp_path)
    eval_seg.evaluate(flags_of(tmp_path, tmp_path / "out", "--suspects", 12))
    rows = rows_of(tmp_path / "out/suspects-maps.csv")
    assert 3 < len(rows) <= 12 and {row["image"] for row in rows[:3]} == planted.keys()
    for row in rows[:3]:
        left, top, width, height = planted[row["image"]]
        assert left <= int(row["left"]) and int(row["left"]) + int(row["width"]) <= left + width
        assert top <= int(row["top"]) and int(row["top"]) + int(row["height"]) <= top + height
        assert float(row["confidence"]) > 0.9 and row["labelled"] != row["predicted"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[2] > 2 * scores[3]
    images = rows_of(tmp_path / "out/suspect-images-maps.csv")
    assert {row["image"] for row in images[:3]} == planted.keys()
    assert float(images[0]["score"]) == scores[0] and 0 < float(images[0]["share"]) < 0.2
    page = (tmp_path / "out/suspects-maps.html").read_text()
    assert page.count("<figure>") == len(rows) and f"1. labelled <strong>{rows[0]['labelled']}</strong>" in page
    assert "12 regions in" in capsys.readouterr().out


def flood(mask: np.ndarray) -> list[np.ndarray]:
    """8-connected components of a mask, pixel by pixel."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        waiting, region = [left.pop()], np.zeros_like(mask)
        while waiting:
            y, x = waiting.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(region)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_those_of_the_definition(seed):
    labels = cv2.resize(random_mask(seed, (5, 6), (0, 1, 2, 255)), (24, 21), interpolation=cv2.INTER_NEAREST)
    scores = np.random.default_rng(seed).normal(size=(3, 5, 6)).astype(np.float32) * 6
    scores = np.stack([cv2.resize(channel, (24, 21), interpolation=cv2.INTER_LINEAR) for channel in scores])
    posterior = torch.from_numpy(scores).softmax(0)
    found = {(s.labelled, s.predicted, s.box): s for s in regions_of(posterior, torch.from_numpy(labels), "a")}
    p, expected = posterior.numpy(), 0
    best = p.argmax(0)
    own = np.take_along_axis(p, np.where(labels < 3, labels, 0)[None].astype(int), 0)[0]
    lead = np.where(labels < 3, p.max(0) - own, 0)
    for y in range(3):
        for k in range(3):
            for region in flood((labels == y) & (best == k) & (lead >= MARGIN)):
                expected += 1
                rows, columns = np.nonzero(region)
                box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
                one = found[y, k, tuple(map(int, box))]
                outside = np.argwhere(~np.pad(region, 1))
                depth = max(np.hypot(*(outside - (r + 1, c + 1)).T).min() for r, c in zip(rows, columns, strict=True))
                assert one.pixels == len(rows) and one.confidence == pytest.approx(p.max(0)[region].mean(), rel=1e-5)
                # OpenCV's distance with a 5 x 5 mask is within a few percent.
                assert one.score == pytest.approx(lead[region].mean() * depth, rel=0.06)
    assert len(found) == expected > 3


def test_the_best_do_not_depend_on_the_order_of_images():
    generator = torch.Generator().manual_seed(0)
    images = []
    for k in range(8):
        labels = torch.randint(0, 4, (12, 12), generator=generator)
        posterior = (6 * torch.randn(1, 4, 12, 12, generator=generator)).softmax(1)
        images.append(({"name": str(k), "labels": labels.byte()}, labels, posterior))
    found = []
    for order in (images, images[::-1]):
        suspects = Suspects(5)
        for image in order:
            suspects(*image)
        found.append([(s.image, s.box, s.score) for s in suspects.best] + [i.image for i in suspects.ranked_images])
    assert found[0] == found[1] and len(found[0]) == 5 + 8


def test_a_network_that_agrees_or_is_unsure_suspects_nothing(tmp_path, capsys):
    labels = torch.from_numpy(random_mask(0, (9, 9), (0, 1, 255)))
    agrees = torch.stack([(labels == 0).float(), (labels != 0).float()])
    assert regions_of(agrees, labels, "a") == [] and regions_of(0.4 + 0.2 * agrees.flip(0), labels, "a") == []
    assert regions_of(agrees.flip(0), torch.full_like(labels, 255), "a") == []
    write_png(tmp_path / "true/a.png", labels.numpy())
    (tmp_path / "classes.txt").write_text("back\ncrack\n")
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps/a.npz", agrees.numpy())
    folders = ["--predictions", str(tmp_path / "maps"), "--labels", str(tmp_path / "true"), "--suspects", "5"]
    eval_seg.evaluate([*folders, "--output-dir", str(tmp_path / "out")])
    assert "Nowhere is the network sure" in (tmp_path / "out/suspects-maps.html").read_text()
    assert rows_of(tmp_path / "out/suspects-maps.csv") == []
    np.savez(tmp_path / "maps/a.npz", agrees.flip(0).numpy())
    eval_seg.evaluate([*folders, "--output-dir", str(tmp_path / "out")])
    assert len(rows_of(tmp_path / "out/suspects-maps.csv")) > 0


def test_names_in_the_tables_run_nothing_and_are_escaped(tmp_path):
    name = "=cmd<b>"
    write_png(tmp_path / f"true/{name}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "classes.txt").write_text("<i>back\n=crack\n")
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / f"maps/{name}.npz", np.stack([np.zeros((8, 8)), np.ones((8, 8))]).astype(np.float32))
    folders = ["--predictions", str(tmp_path / "maps"), "--labels", str(tmp_path / "true"), "--suspects", "5"]
    eval_seg.evaluate([*folders, "--output-dir", str(tmp_path / "out")])
    (row,) = rows_of(tmp_path / "out/suspects-maps.csv")
    assert (row["image"], row["labelled"], row["predicted"]) == (f"'{name}", "<i>back", "'=crack")
    assert (row["width"], row["height"], row["pixels"], row["score"]) == ("8", "8", "64", "4.0")
    page = (tmp_path / "out/suspects-maps.html").read_text()
    assert "=cmd&lt;b&gt;" in page and "<b>" not in page and "<i>back" not in page


def test_later_evaluations_take_the_tables_out_again(tmp_path):
    planted_tree(tmp_path)
    eval_seg.evaluate(flags_of(tmp_path, tmp_path / "out", "--suspects", 3))
    assert len(rows_of(tmp_path / "out/suspects-maps.csv")) == 3
    eval_seg.evaluate(flags_of(tmp_path, tmp_path / "out"))
    assert not [*(tmp_path / "out").glob("suspect*")]


def test_folders_of_class_numbers_have_no_suspects(tmp_path, monkeypatch, capsys):
    for folder in ("maps", "true"):
        write_png(tmp_path / f"{folder}/a.png", np.zeros((8, 8), np.uint8))
    monkeypatch.setattr(sys, "argv", ["eval_seg.py", *flags_of(tmp_path, tmp_path / "out", "--suspects", 3)])
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1
    assert "--suspects needs probability maps, which --predictions do not hold" in line
