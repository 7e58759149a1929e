"""Self-contained HTML pages: pictures inside, no network, every name escaped."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segloss.comparison import class_ious
from segloss.files import write_text
from segloss.plots import paint, paint_errors, percent
from segloss.report import (
    classes_in_mean,
    comparison_mean,
    interval_source,
    interval_text,
    is_level,
    own_intervals,
    run_row,
    title_of,
    unknown_share,
    unknown_text,
)

PICTURE_WIDTH = 480  # pixels; wider pictures are scaled down


def overlay(
    image: np.ndarray, labels: np.ndarray, colors: Sequence[Sequence[int]], strength: float = 0.55
) -> np.ndarray:
    """Labels painted over an image, both ``(H, W)``; ignored pixels are hatched in black."""
    painted = paint(labels, colors).astype(np.float32)
    mixed = image * (1 - strength) + painted * strength
    rows, columns = np.indices(labels.shape, sparse=True)
    hatch = (labels >= len(colors)) & ((rows + columns) // max(2, labels.shape[1] // 120) % 2 == 0)
    mixed[hatch] = 0
    return mixed.astype(np.uint8)


def data_uri(picture: np.ndarray, most: int = PICTURE_WIDTH) -> str:
    """An RGB picture as a JPEG inside the page, at most so many pixels wide."""
    height, width = picture.shape[:2]
    if width > most:
        size = (most, max(1, round(height * most / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill ``templates/TEMPLATE``; everything put in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["percent"] = percent
    write_text(path, environment.get_template(template).render(**content))


def png_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


EXTREMES = 3  # worst and best images of each run
MOST_RUNS = 4  # whose images are shown


def write_report(
    path: Path, sources: Sequence, metrics: dict[str, dict], totals: dict, comparison: dict, plots: dict[str, Path]
) -> None:
    """The page of an evaluation: who is best, by how much, on which classes, and what it looks like.

    Args:
        path: of the HTML file.
        sources: what was scored; they make the pictures of their worst and best images.
        metrics, totals: by name of the source.
        comparison: of :func:`segloss.comparison.compare`.
        plots: title -> PNG file.
    """
    classes = sources[0].classes
    first = next(iter(metrics.values()))
    resampled = f"{interval_source(comparison).capitalize()}."
    grouped = f"by the classes' pixels in {first['groups']['by_pixels_of']}"
    shown = sources[:MOST_RUNS]
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
        confusion=[_heat_map(source, totals[source.name].matrix) for source in sources],
        images=[_extremes(source, totals[source.name]) for source in shown],
        images_of=f"Of the first {len(shown)} of {len(sources)} runs." if len(shown) < len(sources) else "",
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


def answer(comparison: dict) -> str:
    """One sentence: which is best, and how sure that is."""
    best, *others = comparison["ranking"]
    text = f"{best['name']}: mIoU {interval_text(best['miou'])} {comparison_mean(comparison)}"
    if not others:
        return text + "."
    pair = next(row for row in comparison["pairs"] if row["b"] == others[0]["name"] and row["a"] == best["name"])
    return f"{text}, {standing(pair, interval_source(comparison))}."


def standing(pair: dict, intervals: str) -> str:
    """How the better of a pair stands to the other; ``intervals`` says why, where there is no interval."""
    found, difference = pair["miou"], f"{interval_text(pair['miou'])} points"
    if found["estimate"] is None:
        return f"not to be compared with {pair['b']}: one of the two has no mean"
    if is_level(pair):
        return f"level with {pair['b']}: {difference}" + (f" ({intervals})" if found["low"] is None else "")
    ahead = f"ahead of {pair['b']} by {difference}"
    if found["low"] is None:
        return f"{ahead} ({intervals})"
    sure = found["low"] > 0 or found["high"] < 0
    verdict = "the interval of the difference leaves out 0" if sure else "the difference could be chance"
    return f"{ahead}: {verdict} (ahead in {percent(pair['a_leads'])} % of the resamples)"


def _heat_map(source: Any, matrix: np.ndarray) -> dict:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    other = bool(matrix[:, -1].any())
    columns = [*source.classes.names, *(["no class"] if other else [])]
    rows = zip(source.classes.names, shares[:, : len(columns)].tolist(), strict=True)
    return {"name": source.name, "columns": columns, "rows": [{"name": name, "shares": row} for name, row in rows]}


def _extremes(source: Any, totals: Any) -> dict:
    """The images of lowest and highest mean IoU, as image, truth, prediction and errors side by side."""
    ious = np.nanmean(np.where(totals.counts[:, 1].any(1)[:, None], class_ious(totals.counts), -1), axis=1)
    order = [int(place) for place in np.argsort(ious, kind="stable") if ious[place] >= 0]
    worst, best = order[:EXTREMES], order[::-1][: max(0, min(EXTREMES, len(order) - EXTREMES))]
    pictures = []
    for kind, places in (("worst", worst), ("best", best)):
        for place in places:
            name = totals.names[place]
            image, labels, predicted = source.picture(name)
            panels = {
                "truth": paint(labels, source.classes.colors),
                "prediction": paint(predicted, source.classes.colors),
                "errors": paint_errors(predicted, labels, len(source.classes)),
            }
            if image is not None:
                panels = {"image": image, **panels}
            uri = data_uri(np.concatenate(list(panels.values()), axis=1), len(panels) * PICTURE_WIDTH * 3 // 4)
            pictures.append({"uri": uri, "name": name, "kind": kind, "miou": ious[place], "panels": list(panels)})
    return {"name": source.name, "pictures": pictures}
