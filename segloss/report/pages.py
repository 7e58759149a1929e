"""Self-contained HTML pages: pictures inside, no network, every name escaped."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets import ClassTable
from segloss.files import write_text
from segloss.report.painting import PICTURE_WIDTH, data_uri, paint, paint_errors
from segloss.report.tables import run_row
from segloss.report.wording import (
    answer,
    classes_in_mean,
    interval_source,
    is_level,
    own_intervals,
    percent,
    title_of,
    unknown_share,
    unknown_text,
)


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill ``templates/TEMPLATE``; everything put in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["percent"] = percent
    write_text(path, environment.get_template(template).render(**content))


def png_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@dataclass(frozen=True)
class ShownImage:
    """One image of a run on the page.

    Attributes:
        kind: why it is shown, ``"worst"`` or ``"best"``.
        name, miou: of the image; the mean of the IoUs of the classes in it.
        image: RGB ``(H, W, 3)`` uint8, None where there is none beside the masks.
        labels, predicted: class numbers ``(H, W)`` uint8.
    """

    kind: str
    name: str
    miou: float
    image: np.ndarray | None
    labels: np.ndarray
    predicted: np.ndarray


def write_report(
    path: Path,
    classes: ClassTable,
    metrics: dict[str, dict],
    matrices: dict[str, np.ndarray],
    comparison: dict,
    plots: dict[str, Path],
    shown: dict[str, Sequence[ShownImage]],
) -> None:
    """The page of an evaluation: who is best, by how much, on which classes, and what it looks like.

    Args:
        path: of the HTML file.
        classes: of all runs.
        metrics, matrices: by name of the run: the metrics schema, and ``confusion[true, predicted]``.
        comparison: of :func:`segloss.evaluation.comparison.compare`.
        plots: title -> PNG file.
        shown: by name of the run: images to look at; of some runs only.
    """
    first = next(iter(metrics.values()))
    resampled = f"{interval_source(comparison).capitalize()}."
    grouped = f"by the classes' pixels in {first['groups']['by_pixels_of']}"
    write_page(
        path,
        "report.html",
        title=_title(metrics, comparison),
        answer=answer(comparison),
        how=f"Protocol {first['protocol']}; head, middle and tail {grouped}. {resampled}",
        left_out=_left_out(metrics, comparison),
        ranking=_ranking(comparison),
        grouped=any(row["members"] != [row["name"]] for row in comparison["ranking"]),
        runs=_runs(metrics, own_intervals(metrics, comparison)),
        pairs=comparison["pairs"],
        is_level=is_level,
        resampled=resampled,
        names=list(metrics),
        classes=_classes(metrics, classes.colors),
        details=[_details(name, m, classes.colors) for name, m in metrics.items()],
        categories=_categories(metrics),
        plots={title: png_uri(picture) for title, picture in plots.items()},
        confusion=[_heat_map(name, matrix, classes.names) for name, matrix in matrices.items()],
        images=[_pictures(name, images, classes.colors) for name, images in shown.items()],
        images_of=f"Of the first {len(shown)} of {len(metrics)} runs." if len(shown) < len(metrics) else "",
        colors=list(zip(classes.names, classes.colors, strict=True)),
    )


def _title(metrics: dict[str, dict], comparison: dict) -> str:
    """``camvid test: 233 images, 2 runs``; where not all saw the same images, how many they are compared on."""
    first, images = next(iter(metrics.values())), comparison["images"]
    where = f"{first['dataset']} {first['split']}" if "dataset" in first else f"masks of {Path(first['labels']).name}"
    runs = f"{len(metrics)} run{'s' if len(metrics) > 1 else ''}"
    if any(m["images"] != images for m in metrics.values()):
        return f"{where}: {runs} compared on {images} images"
    return f"{where}: {images} images, {runs}"


def _left_out(metrics: dict[str, dict], comparison: dict) -> dict:
    """``line``: what the scores and the comparison lack, empty if nothing; ``items``: one by one."""
    skipped = {name: m["skipped"] for name, m in metrics.items() if m.get("skipped")}
    lines = []
    if skipped:
        lines.append(f"Left out: {', '.join(f'{len(texts)} of {name}' for name, texts in skipped.items())}.")
    if any(m["images"] != comparison["images"] for m in metrics.values()):
        lines.append(f"The comparison is over the {comparison['images']} images that all runs have.")
    return {"line": " ".join(lines), "items": [f"{name}: {text}" for name in skipped for text in skipped[name]]}


def _ranking(comparison: dict) -> list[dict]:
    """The settings, best first; equal means share a rank."""
    means = [row["miou"]["estimate"] for row in comparison["ranking"]]
    protocol = comparison["protocol"]
    return [
        {
            "rank": None if mean is None else 1 + sum(other is not None and other > mean for other in means),
            "name": row["name"],
            "members": ", ".join(row["members"]),
            "images": comparison["images"],
            "miou": row["miou"],
            "classes": f"{classes_in_mean(row, protocol)} of {len(row['classes'])}",
        }
        for mean, row in zip(means, comparison["ranking"], strict=True)
    ]


RUN_COLUMNS = {
    "mIoU": "miou",
    "head": "head",
    "middle": "middle",
    "tail": "tail",
    "mean accuracy": "mean_accuracy",
    "pixel accuracy": "pixel_accuracy",
    "frequency-weighted IoU": "frequency_weighted_iou",
    "category mIoU": "category_miou",
    "boundary mIoU": "boundary_miou",
    "calibration error": "ece",
    "Brier score": "brier",
}


def _runs(metrics: dict[str, dict], intervals: dict[str, dict]) -> dict:
    """The table of runs: columns that some run has a number for, and the runs' cells."""
    lines = {name: run_row(name, m, intervals.get(name, {})) for name, m in metrics.items()}
    columns = {
        title: key for title, key in RUN_COLUMNS.items() if any(line[key] is not None for line in lines.values())
    }
    rows = [
        {
            **line,
            "cells": [line[key] for key in columns.values()],
            "worst": metrics[name].get("worst_class", {}).get("name", "–"),
            "classes": len(metrics[name]["classes"]),
            "unknown": unknown_share(metrics[name]),
        }
        for name, line in lines.items()
    ]
    how = any(row["scored"] != "plain" for row in rows)
    return {"columns": list(columns), "rows": rows, "how": how, "unknown": any(row["unknown"] for row in rows)}


def _classes(metrics: dict[str, dict], colors: Sequence[Sequence[int]]) -> list[dict]:
    """IoU of each class in every run, the class of most pixels first; pixels and images are the first run's."""
    every = list(metrics.values())
    rows = [
        {**row, "color": color, "ious": [m["classes"][c]["iou"] for m in every]}
        for c, (row, color) in enumerate(zip(every[0]["classes"], colors, strict=True))
    ]
    return sorted(rows, key=lambda row: -row["pixels"])


def _details(name: str, metrics: dict, colors: Sequence[Sequence[int]]) -> dict:
    """All that was counted of each class in one run."""
    columns = {"IoU": "iou", "recall": "recall", "precision": "precision", "F1": "f1"}
    if "boundary_miou" in metrics:
        columns["boundary IoU"] = "boundary_iou"
    rows = [
        {**row, "cells": [row[key] for key in columns.values()], "color": color}
        for row, color in zip(metrics["classes"], colors, strict=True)
    ]
    lines = [title_of(name, metrics), metrics.get("checkpoint") or metrics.get("predictions"), unknown_text(metrics)]
    return {
        "name": name,
        "lines": [line for line in lines if line],
        "columns": list(columns),
        "rows": sorted(rows, key=lambda row: -row["pixels"]),
    }


def _categories(metrics: dict[str, dict]) -> dict[str, list]:
    """Category -> its IoU in every run; empty where the classes have no categories."""
    found = [m.get("categories", {}).get("iou", {}) for m in metrics.values()]
    return {name: [ious.get(name) for ious in found] for name in next(filter(None, found), {})}


def _heat_map(name: str, matrix: np.ndarray, class_names: Sequence[str]) -> dict:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    columns = [*class_names, *(["no class"] if matrix[:, -1].any() else [])]
    rows = zip(class_names, shares[:, : len(columns)].tolist(), strict=True)
    return {"name": name, "columns": columns, "rows": [{"name": true, "shares": row} for true, row in rows]}


def _pictures(name: str, shown: Sequence[ShownImage], colors: Sequence[Sequence[int]]) -> dict:
    """Images of a run as image, truth, prediction and errors side by side."""
    pictures = []
    for one in shown:
        panels = {
            "truth": paint(one.labels, colors),
            "prediction": paint(one.predicted, colors),
            "errors": paint_errors(one.predicted, one.labels, len(colors)),
        }
        if one.image is not None:
            panels = {"image": one.image, **panels}
        uri = data_uri(np.concatenate(list(panels.values()), axis=1), len(panels) * PICTURE_WIDTH * 3 // 4)
        pictures.append({"uri": uri, "name": one.name, "kind": one.kind, "miou": one.miou, "panels": list(panels)})
    return {"name": name, "pictures": pictures}
