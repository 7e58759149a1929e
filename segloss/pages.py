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
from segloss.report import comparison_mean, interval_source, interval_text, is_level

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
    rows = [
        {
            **{key: first["classes"][c][key] for key in ("name", "pixels", "images")},
            "color": classes.colors[c],
            "ious": [m["classes"][c]["iou"] for m in metrics.values()],
        }
        for c in range(len(classes))
    ]
    where = f"{first['dataset']} {first['split']}" if "dataset" in first else f"masks of {Path(first['labels']).name}"
    always = {"mIoU", "head", "middle", "tail", "mean accuracy", "pixel accuracy", "frequency-weighted IoU"}
    if any("calibration" in m for m in metrics.values()):
        always.add("calibration error")
    if any("boundary_miou" in m for m in metrics.values()):
        always.add("boundary mIoU")
    resampled = f"{interval_source(comparison).capitalize()}."
    grouped = f"by the classes' pixels in {first['groups']['by_pixels_of']}"
    write_page(
        path,
        "report.html",
        title=f"{where}: {first['images']} images, {len(metrics)} run{'s' if len(metrics) > 1 else ''}",
        answer=answer(comparison),
        how=f"Protocol {first['protocol']}; head, middle and tail {grouped}. {resampled}",
        shown=always,
        runs=metrics,
        intervals={row["name"]: row["miou"] for row in comparison["ranking"]},
        pairs=comparison["pairs"],
        resampled=resampled,
        classes=sorted(rows, key=lambda row: -row["pixels"]),
        plots={title: png_uri(picture) for title, picture in plots.items()},
        confusion=[_heat_map(source, totals[source.name].matrix) for source in sources],
        images=[_extremes(source, totals[source.name]) for source in sources[:MOST_RUNS]],
        colors=list(zip(classes.names, classes.colors, strict=True)),
    )


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
            pictures.append({"uri": uri, "name": name, "kind": kind, "miou": ious[place], "panels": ", ".join(panels)})
    return {"name": source.name, "pictures": pictures}
