"""Report pages for tests: of two folders of masks, and of hand-made scores with all that can be measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from data_trees import random_mask, write_png
from hand_made_scores import comparison, metrics

import eval_seg
from segloss.config import CHOICES
from segloss.datasets import ClassTable
from segloss.evaluation.counting import confusion_of
from segloss.evaluation.extremes import MOST_RUNS, extremes
from segloss.evaluation.results import ImageResult, Totals
from segloss.report.pages import write_report
from segloss.report.tables import write_evaluation
from segloss.schema import Comparison, Part, RunScores, SweepPoint

NASTY = "<script>document.title = 'broken'</script>"


def page_of_masks(root: Path) -> Path:
    """A comparison of two folders of masks whose class and file names would be code if they were not escaped."""
    for place in range(8):
        labels = np.kron(random_mask(place, (6, 8), (0, 1, 2, 255)), np.ones((8, 8), np.uint8))
        name = f"{place} <img src=x onerror=alert(1)>"
        write_png(root / "true" / f"{name}.png", labels)
        for wrong, folder in ((20, "good & bold"), (200, "bad")):
            predicted = np.where(labels == 255, 0, labels)
            spoilt = np.random.default_rng(place).choice(predicted.size, wrong, replace=False)
            predicted.ravel()[spoilt] = (predicted.ravel()[spoilt] + 1) % 3
            write_png(root / folder / f"{name}.png", predicted)
    (root / "classes.json").write_text(f'["wall", "{NASTY}", "lamp"]'.replace("'", "`"))
    folders = ["--predictions", str(root / "bad"), str(root / "good & bold"), "--labels", str(root / "true")]
    eval_seg.evaluate([*folders, "--output-dir", str(root / "out")])
    return root / "out/report.html"


class Painted:
    """Three images of two classes and noise, as a source of pictures."""

    classes = ClassTable(names=("wall", "lamp", "ghost"), colors=((200, 0, 0), (0, 200, 0), (0, 0, 200)))

    def __init__(self, name: str):
        self.name, self.training_pixels = name, None
        self.labels = {f"f{place}": random_mask(place, (40, 60), (0, 1, 255)) for place in range(3)}

    def picture(self, name: str):
        labels = self.labels[name]
        image = np.repeat(labels[..., None], 3, axis=2)
        return image, labels, np.where(labels == 255, 0, 1 - labels.clip(max=1)).astype(np.uint8)

    def totals(self) -> Totals:
        pictures = {name: self.picture(name) for name in self.labels}
        return Totals.of(ImageResult(name, *confusion_of(p[2], p[1], 3)) for name, p in pictures.items())


def hand_made_page(folder: Path, runs: dict[str, RunScores], compared: Comparison, sweeps: dict | None = None) -> Path:
    sources = [Painted(name) for name in runs]
    totals = {source.name: source.totals() for source in sources}
    matrices = {name: total.matrix for name, total in totals.items()}
    plots = write_evaluation(folder, Painted.classes.names, runs, matrices, compared, sweeps or {})
    shown = {source.name: extremes(source, totals[source.name]) for source in sources[:MOST_RUNS]}
    write_report(folder / "report.html", Painted.classes, runs, matrices, compared, plots, shown)
    return folder / "report.html"


def page_of_everything(root: Path) -> Path:
    """Five runs in two settings, an image left out of one, all that can be measured, and class names that are long."""
    bins = [{"from": 0.9, "share": 1.0, "accuracy": 0.8, "confidence": 0.95}]
    measured = {
        "calibration": {"ece": 0.123, "brier": 0.456, "bins": bins},
        "boundary_miou": 0.321,
        "boundary_ious": (0.25, 0.35, None),
        "categories": {"miou": 0.654, "iou": {"flat": 0.611, "object": None}},
        "decision": "tau 0.5",
        "unknown_predictions": 3,
    }
    runs = {name: metrics() for name in ("run 10", "run 9", "A", NASTY, "B")}
    runs["run 10"] = metrics(**measured)
    own = {"name": "all of its own", "images": 9, "classes_averaged": 2, "miou": 0.4321}
    runs = {name: replace(scores, images=8) for name, scores in runs.items()}
    runs["run 10"] = replace(runs["run 10"], own=Part(**own))
    runs["A"] = metrics(images=8, skipped=["f1: is cut off"], miou=None)

    def in_groups(found):
        found["ranking"][0].update(runs=4, members=["run 10", "run 9", NASTY, "B"])
        found["ranking"][1].update(name="B", runs=1, members=["A"])
        found["pairs"][0].update(b="B")

    points = [
        SweepPoint(rule, value, "cityscapes", 3, **dict.fromkeys(CHOICES, value))
        for rule in ("tau", "prior")
        for value in (0.0, 0.5, 1.0)
    ]
    compared = comparison(images=8, change=in_groups)
    return hand_made_page(root, runs, compared, {"run 10": points})
