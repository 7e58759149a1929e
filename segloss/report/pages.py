"""Self-contained HTML pages: pictures inside, no network, every name escaped."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets import ClassTable
from segloss.files import write_text
from segloss.measures.error_places import COLUMNS, MEASURE, PLACES
from segloss.report.charts import class_chart, interval_chart, without_interval
from segloss.report.color_vision import CORRECT_COLOR, ERROR_COLORS
from segloss.report.image_cards import KINDS, ShownImage, card, page_colors
from segloss.report.painting import Picture, clear_class
from segloss.report.plots import MOST_CLASSES
from segloss.report.tables import run_row
from segloss.report.wording import (
    answer,
    class_ratios,
    classes_in_mean,
    confused_text,
    counted_in,
    interval_source,
    is_level,
    own_intervals,
    p_text,
    part_table,
    percent,
    place_shares,
    title_of,
    unknown_share,
    unknown_text,
)
from segloss.schema import Comparison, CountTable, Interval, RunOrigin, RunScores

# Of bars, a run after the other; each has a contrast of 3 with the light page and with the dark one.
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#c0699b", "#8c6d1f", "#737373")

MOST_CONFUSED = 10  # sentences on confusions above a matrix
Runs = Mapping[str, RunScores]


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill ``templates/TEMPLATE``; everything put in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["percent"] = percent
    write_text(path, environment.get_template(template).render(**content))


def png_picture(path: Path) -> Picture:
    """A PNG file inside the page; its size stands in bytes 16 to 23."""
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


@dataclass(frozen=True)
class Made:
    """How the page came about: date and time, version, command as a shell takes it, and folders by what they hold."""

    date: str
    version: str
    command: str
    folders: Mapping[str, str]


def write_report(
    path: Path,
    classes: ClassTable,
    runs: Runs,
    matrices: Mapping[str, np.ndarray],
    comparison: Comparison,
    plots: Mapping[str, Path],
    shown: Mapping[str, Sequence[ShownImage]],
    made: Made | None = None,
) -> None:
    """The page of an evaluation: who is best, by how much, on which classes, and what it looks like.

    All that is told of classes begins with the one that has most pixels in the first run.

    Args:
        path: of the HTML file.
        classes: of all runs.
        runs, matrices: by name of the run: the scores, and ``confusion[true, predicted]``.
        comparison: of :func:`segloss.evaluation.comparison.compare`.
        plots: title -> PNG file.
        shown: by name of the run: images to look at; of some runs only.
        made: where it came from; None: not said.
    """
    first = next(iter(runs.values()))
    order = sorted(range(len(classes)), key=lambda c: -first.classes[c].pixels)
    colors, clear = page_colors(classes.names, classes.colors), clear_class(classes.names)
    source = interval_source(comparison)
    intervals = f"{source[0].upper()}{source[1:]}."
    grouped = f"by the classes' pixels in {first.groups.by_pixels_of}"
    most_words = MOST_CONFUSED if len(classes) <= MOST_CLASSES else None  # where no matrix says the rest, all
    cards = {name: [card(one, classes.names, colors) for one in images] for name, images in shown.items()}
    write_page(
        path,
        "report.html",
        title=_title(runs, comparison),
        answer=answer(comparison),
        how=f"Protocol {first.protocol}; head, middle and tail {grouped}. {intervals}",
        made=made,
        left_out=_left_out(runs, comparison),
        chart=interval_chart(comparison.ranking),
        level=f"{100 * comparison.level:.0f} %",
        ranking=_ranking(comparison),
        grouped=any(row.members != (row.name,) for row in comparison.ranking),
        runs=_runs(runs, own_intervals(runs, comparison)),
        pairs=comparison.pairs,
        standing=lambda pair: "level" if is_level(pair) else p_text(pair) or "–",
        intervals=intervals,
        names=list(runs),
        run_colors=RUN_COLORS,
        classes=class_chart(runs, comparison, order, [None if c == clear else color for c, color in enumerate(colors)]),
        without_interval=without_interval(comparison, [each.name for each in first.classes], order),
        details=[_details(name, scores, order) for name, scores in runs.items()],
        categories=_categories(runs),
        parts_of=part_table(runs)[1],
        most_classes=MOST_CLASSES,
        plots={title: png_picture(picture) for title, picture in plots.items()},
        confusion=[
            {"name": name, "words": [confused_text(row) for row in (runs[name].confusions or ())[:most_words]]}
            | (_heat_map(matrix, classes.names, order) if len(classes) <= MOST_CLASSES else {"rows": []})
            for name, matrix in matrices.items()
        ],
        errors=_errors(runs, cards),
        images=[{"name": name, "cards": found} for name, found in cards.items()],
        images_of=f"Of the first {len(shown)} of {len(runs)} runs." if len(shown) < len(runs) else "",
        kinds=KINDS,
        colors=[{"number": c, "name": classes.names[c], "color": colors[c], "painted": c != clear} for c in order],
        own_colors=colors == tuple(classes.colors),
        error_colors=dict(zip(PLACES, ERROR_COLORS, strict=True)),
        correct_color=CORRECT_COLOR,
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


def _details(name: str, scores: RunScores, order: Sequence[int]) -> dict[str, Any]:
    """All that was counted of each class in one run."""
    measures, origin = counted_in([scores]), scores.origin
    place = origin.checkpoint if isinstance(origin, RunOrigin) else origin.predictions
    rows = [{"of": row, "cells": class_ratios(row, measures)} for row in scores.classes]
    return {
        "name": name,
        "lines": [line for line in (title_of(name, scores), place, unknown_text(scores)) if line],
        "columns": ["IoU", "recall", "precision", "F1", *(measure.of_class.title for measure in measures)],
        "rows": [rows[c] for c in order],
        "tables": [_in_order(table, [scores.classes[c].name for c in order]) for table in scores.tables or ()],
    }


def _in_order(table: CountTable, names: Sequence[str]) -> CountTable:
    """Its rows in the order of the classes, where classes are what its rows begin with."""
    if table.columns[0] != "class":
        return table
    places = {name: place for place, name in enumerate(names)}
    return replace(table, rows=tuple(sorted(table.rows, key=lambda row: places[str(row[0])])))


def _categories(runs: Runs) -> dict[str, list[float | None]]:
    """Category -> its IoU in every run; empty where the classes have no categories."""
    found = [scores.categories.iou if scores.categories else {} for scores in runs.values()]
    return {name: [ious.get(name) for ious in found] for name in next(filter(None, found), {})}


def _heat_map(matrix: np.ndarray, class_names: Sequence[str], order: Sequence[int]) -> dict[str, Any]:
    """Share of each true class's pixels that went to each class, both in the order given, and to none."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    columns = [*order, *([-1] if matrix[:, -1].any() else [])]
    names = [class_names[c] for c in order]
    cells = shares[np.ix_(order, columns)].tolist()
    rows = [{"name": name, "shares": row} for name, row in zip(names, cells, strict=True)]
    return {"columns": [*names, "no class"][: len(columns)], "rows": rows}


def _errors(runs: Runs, cards: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Wrong pixels of each run by place: over all images where they were counted, else over the images shown."""
    tables = {
        name: table for name, scores in runs.items() for table in scores.tables or () if table.name == MEASURE.name
    }
    if tables:
        of_runs = {name: _wrong_at(table) for name, table in tables.items()}
        return {"of": "all images", "all": True, "rows": _error_rows(of_runs)}
    of_runs = {name: {place: sum(one["at"][place] for one in of) for place in PLACES} for name, of in cards.items()}
    return {"of": "the images below, among them the worst", "all": False, "rows": _error_rows(of_runs)}


def _wrong_at(table: CountTable) -> dict[str, int]:
    place, wrong = COLUMNS.index("place"), COLUMNS.index("wrong")
    return {name: sum(int(row[wrong]) for row in table.rows if row[place] == name) for name in PLACES}


def _error_rows(of_runs: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Of each run that is wrong somewhere the shares of the places, and the same in words."""
    return [
        {
            "name": name,
            "shares": {place: pixels / sum(at.values()) for place, pixels in at.items()},
            "text": place_shares(at),
        }
        for name, at in of_runs.items()
        if sum(at.values())
    ]
