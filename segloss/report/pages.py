"""Self-contained HTML pages: pictures inside, no network, every name escaped."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets import ClassTable
from segloss.files import write_text
from segloss.report.painting import PICTURE_WIDTH, data_uri, paint, paint_errors
from segloss.report.plots import MOST_CLASSES
from segloss.report.tables import run_row
from segloss.report.wording import (
    answer,
    class_ratios,
    classes_in_mean,
    confusion_text,
    counted_in,
    interval_source,
    is_level,
    own_intervals,
    p_text,
    part_table,
    percent,
    title_of,
    unknown_share,
    unknown_text,
)
from segloss.schema import Comparison, Interval, RunOrigin, RunScores

Colors = Sequence[Sequence[int]]  # RGB, 0..255
Runs = Mapping[str, RunScores]


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
        kind: why it is shown, such as ``"most wrong pixels"``.
        name: of the image.
        said: the number it was chosen by, in words.
        image: RGB ``(H, W, 3)`` uint8, None where there is none beside the masks.
        labels, predicted: class numbers ``(H, W)`` uint8.
    """

    kind: str
    name: str
    said: str
    image: np.ndarray | None
    labels: np.ndarray
    predicted: np.ndarray


def write_report(
    path: Path,
    classes: ClassTable,
    runs: Runs,
    matrices: Mapping[str, np.ndarray],
    comparison: Comparison,
    plots: Mapping[str, Path],
    shown: Mapping[str, Sequence[ShownImage]],
) -> None:
    """The page of an evaluation: who is best, by how much, on which classes, and what it looks like.

    Args:
        path: of the HTML file.
        classes: of all runs.
        runs, matrices: by name of the run: the scores, and ``confusion[true, predicted]``.
        comparison: of :func:`segloss.evaluation.comparison.compare`.
        plots: title -> PNG file.
        shown: by name of the run: images to look at; of some runs only.
    """
    first = next(iter(runs.values()))
    source = interval_source(comparison)
    intervals = f"{source[0].upper()}{source[1:]}."
    grouped = f"by the classes' pixels in {first.groups.by_pixels_of}"
    write_page(
        path,
        "report.html",
        title=_title(runs, comparison),
        answer=answer(comparison),
        how=f"Protocol {first.protocol}; head, middle and tail {grouped}. {intervals}",
        left_out=_left_out(runs, comparison),
        ranking=_ranking(comparison),
        grouped=any(row.members != (row.name,) for row in comparison.ranking),
        runs=_runs(runs, own_intervals(runs, comparison)),
        pairs=comparison.pairs,
        standing=lambda pair: "level" if is_level(pair) else p_text(pair) or "–",
        intervals=intervals,
        names=list(runs),
        classes=_classes(runs, classes.colors),
        details=[_details(name, scores, classes.colors) for name, scores in runs.items()],
        categories=_categories(runs),
        parts=part_table(runs)[1],
        most_classes=MOST_CLASSES,
        plots={title: png_uri(picture) for title, picture in plots.items()},
        confusion=[
            {"name": name, "words": [confusion_text(row) for row in runs[name].confusions or ()]}
            | (_heat_map(matrix, classes.names) if len(classes) <= MOST_CLASSES else {"rows": []})
            for name, matrix in matrices.items()
        ],
        images=[_pictures(name, images, classes.colors) for name, images in shown.items()],
        images_of=f"Of the first {len(shown)} of {len(runs)} runs." if len(shown) < len(runs) else "",
        colors=list(zip(classes.names, classes.colors, strict=True)),
    )


def _title(runs: Runs, comparison: Comparison) -> str:
    """``camvid test: 233 images, 2 runs``."""
    origin, images = next(iter(runs.values())).origin, comparison.images
    if isinstance(origin, RunOrigin):
        where = f"{origin.dataset} {origin.split}"
    else:
        where = f"masks of {Path(origin.labels).name}"
    return f"{where}: {images} images, {len(runs)} run{'s' if len(runs) > 1 else ''}"


def _left_out(runs: Runs, comparison: Comparison) -> dict[str, Any]:
    """``line``: what the scores and the comparison lack, empty if nothing; ``items``: one by one."""
    skipped = {name: scores.origin.skipped for name, scores in runs.items() if scores.origin.skipped}
    lines = []
    if skipped:
        lines.append(f"Left out: {', '.join(f'{len(texts)} of {name}' for name, texts in skipped.items())}.")
    if any(scores.own for scores in runs.values()):
        lines.append(f"All figures are over the {comparison.images} images that all runs have.")
        lines += [
            f"Over all {own.images} of its own, {name} has mIoU {percent(own.miou)} of {own.classes_averaged} classes."
            for name, scores in runs.items()
            if (own := scores.own)
        ]
    return {"line": " ".join(lines), "items": [f"{name}: {text}" for name in skipped for text in skipped[name]]}


def _ranking(comparison: Comparison) -> list[dict[str, Any]]:
    """The settings, best first; equal means share a rank."""
    means = [row.miou.estimate for row in comparison.ranking]
    return [
        {
            "rank": None if mean is None else 1 + sum(other is not None and other > mean for other in means),
            "name": row.name,
            "members": ", ".join(row.members),
            "images": comparison.images,
            "miou": row.miou,
            "classes": f"{classes_in_mean(row, comparison.protocol)} of {len(row.classes)}",
        }
        for mean, row in zip(means, comparison.ranking, strict=True)
    ]


def _runs(runs: Runs, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """The table of runs: columns that some run has a number for, and the runs' cells."""
    lines = {name: run_row(name, scores, intervals.get(name)) for name, scores in runs.items()}
    titles = {
        "mIoU": "miou",
        "head": "head",
        "middle": "middle",
        "tail": "tail",
        "mean accuracy": "mean_accuracy",
        "pixel accuracy": "pixel_accuracy",
        "frequency-weighted IoU": "frequency_weighted_iou",
        "category mIoU": "category_miou",
        **{measure.of_all.title: measure.of_all.key for measure in counted_in(runs.values())},
        "calibration error": "ece",
        "Brier score": "brier",
    }
    columns = {title: key for title, key in titles.items() if any(line[key] is not None for line in lines.values())}
    rows = [
        {
            **line,
            "cells": [line[key] for key in columns.values()],
            "worst": worst.name if (worst := runs[name].worst_class) else "–",
            "classes": len(runs[name].classes),
            "unknown": unknown_share(runs[name]),
        }
        for name, line in lines.items()
    ]
    how = any(row["scored"] != "plain" for row in rows)
    return {"columns": list(columns), "rows": rows, "how": how, "unknown": any(row["unknown"] for row in rows)}


def _classes(runs: Runs, colors: Colors) -> list[dict[str, Any]]:
    """IoU of each class in every run, the class of most pixels first; pixels and images are the first run's."""
    of_each = zip(*(scores.classes for scores in runs.values()), strict=True)
    rows = [
        {"of": every[0], "ious": [row.iou for row in every], "color": color}
        for every, color in zip(of_each, colors, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["of"].pixels)


def _details(name: str, scores: RunScores, colors: Colors) -> dict[str, Any]:
    """All that was counted of each class in one run."""
    measures, origin = counted_in([scores]), scores.origin
    place = origin.checkpoint if isinstance(origin, RunOrigin) else origin.predictions
    rows = [{"of": row, "cells": class_ratios(row, measures)} for row in scores.classes]
    return {
        "name": name,
        "lines": [line for line in (title_of(name, scores), place, unknown_text(scores)) if line],
        "columns": ["IoU", "recall", "precision", "F1", *(measure.of_class.title for measure in measures)],
        "rows": sorted(rows, key=lambda row: -row["of"].pixels),
        "tables": scores.tables or (),
    }


def _categories(runs: Runs) -> dict[str, list[float | None]]:
    """Category -> its IoU in every run; empty where the classes have no categories."""
    found = [scores.categories.iou if scores.categories else {} for scores in runs.values()]
    return {name: [ious.get(name) for ious in found] for name in next(filter(None, found), {})}


def _heat_map(matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    columns = [*class_names, *(["no class"] if matrix[:, -1].any() else [])]
    rows = zip(class_names, shares[:, : len(columns)].tolist(), strict=True)
    return {"columns": columns, "rows": [{"name": true, "shares": row} for true, row in rows]}


def _pictures(name: str, shown: Sequence[ShownImage], colors: Colors) -> dict[str, Any]:
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
        pictures.append({"uri": uri, "name": one.name, "kind": one.kind, "said": one.said, "panels": list(panels)})
    return {"name": name, "pictures": pictures}
