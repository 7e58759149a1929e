"""The files of an evaluation: JSON, CSV and pictures, and what an earlier one left."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segloss.errors import InputError
from segloss.files import take_lock, write_csv, write_json
from segloss.measures import MEASURES
from segloss.report.plots import MOST_CLASSES, plot_confusion, plot_confusions, plot_reliability, plot_sweeps
from segloss.report.wording import classes_in_mean, counted_in, own_intervals, scored_how, title_of
from segloss.schema import Comparison, Interval, RunScores, SweepPoint

Cell = str | int | float | None  # of a CSV file; None: empty

LOCK = "eval.lock"  # there while an evaluation is written

# What an evaluation writes beside NAME.sqlite and the files called after a run; metrics.json names those.
FILES = (
    "runs.csv",
    "report.html",
    "per_class.csv",
    "by_part.csv",
    "comparison.csv",
    "sweep.csv",
    "sweep.png",
    "reliability.png",
    *(f"{measure.name}.csv" for measure in MEASURES.values() if measure.table is not None),
    "metrics.json",
)


def make_folder(folder: Path) -> None:
    """An impossible folder is answered before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", "choose another --output-dir", folder) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from writing an evaluation into the folder meanwhile; InputError if one does."""
    path = folder / LOCK
    try:
        lock = take_lock(path)
    except BlockingIOError as error:
        cure = "wait for it to end, or choose another --output-dir"
        raise InputError(f"another evaluation is writing there: {error.strerror}", cure, folder) from error
    except OSError:  # what is written next says more
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            path.unlink(missing_ok=True)
            os.close(lock)


def clear_results(folder: Path, names: Collection[str]) -> None:
    """Take out what an earlier evaluation wrote into the folder, so that no old number stands beside new ones.

    The stores of ``names`` stay, to go on from; so does all that no evaluation wrote.
    """
    try:
        earlier = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        runs = [name for name in dict(earlier["runs"]) if Path(name).name == name and "comparison" in earlier]
    except (OSError, ValueError, KeyError, TypeError):
        return
    stale = [f"{name}.sqlite" for name in runs if name not in names]
    of_runs = ("confusion-{}.csv", "confusion-{}.png", "suspects-{}.csv", "suspects-{}.html", "suspect-images-{}.csv")
    stale += [form.format(name) for name in runs for form in of_runs]
    for name in (*stale, *FILES) if runs else ():  # metrics.json last: what is interrupted is known again
        (folder / name).unlink(missing_ok=True)


def run_row(name: str, scores: RunScores, interval: Interval | None) -> dict[str, Cell]:
    """One line of runs.csv: what was scored and its means, None where there is no number."""
    found, categories = scores.calibration, scores.categories
    return {
        "run": name,
        "scored": ", ".join(scored_how(scores)) or "plain",
        "protocol": scores.protocol,
        "classes_averaged": scores.classes_averaged,
        "miou": scores.miou,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "mean_accuracy": scores.mean_accuracy,
        "pixel_accuracy": scores.pixel_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "head": scores.groups.head.miou,
        "middle": scores.groups.middle.miou,
        "tail": scores.groups.tail.miou,
        "ece": found.ece if found else None,
        "brier": found.brier if found else None,
        "nll": found.nll if found else None,
        "classwise_ece": found.classwise_ece if found else None,
        **{measure.of_all.key: scores.counted.get(measure.of_all.key) for measure in MEASURES.values()},
        "category_miou": categories.miou if categories else None,
        "images": scores.images,
        "skipped": len(scores.origin.skipped or ()),
        "unknown_predictions": scores.unknown_predictions,
    }


def class_rows(runs: Mapping[str, RunScores]) -> list[dict[str, Cell]]:
    """The lines of per_class.csv, a run after the other."""
    counted = [measure.of_class.key for measure in counted_in(runs.values())]
    return [
        {"run": name, "class": row.name}
        | {key: value for key, value in row.to_json().items() if key != "name"}
        | {key: row.counted.get(key) for key in counted}
        | {"protocol": scores.protocol, "classes_averaged": scores.classes_averaged}
        for name, scores in runs.items()
        for row in scores.classes
    ]


PAIR_COLUMNS = (
    *("a", "b", "class", "estimate", "low", "high", "df", "p_value", "why", "a_classes_averaged", "b_classes_averaged"),
    *("protocol", "images", "block", "seeds"),
)


def pair_rows(comparison: Comparison, class_names: Sequence[str]) -> list[tuple[Cell, ...]]:
    """The lines of comparison.csv: of each pair the difference of the means, then of each class."""
    averaged = {row.name: classes_in_mean(row, comparison.protocol) for row in comparison.ranking}
    rows: list[tuple[Cell, ...]] = []
    for pair in comparison.pairs:
        same = (comparison.protocol, comparison.images, comparison.block, "yes" if pair.seeds else "no")
        for name, found in zip(("mIoU", *class_names), (pair.miou, *pair.classes), strict=True):
            of_mean = found is pair.miou
            p_value, *classes = (pair.p_value, averaged[pair.a], averaged[pair.b]) if of_mean else (None, None, None)
            spread = (found.estimate, found.low, found.high, found.df, p_value, found.why)
            rows.append((pair.a, pair.b, name, *spread, *classes, *same))
    return rows


def write_tables(
    folder: Path,
    class_names: Sequence[str],
    runs: Mapping[str, RunScores],
    comparison: Comparison,
    sweeps: Mapping[str, Sequence[SweepPoint]],
) -> None:
    """runs.csv, per_class.csv, comparison.csv and, if asked for, by_part.csv, sweep.csv and the tables of measures."""
    intervals = own_intervals(runs, comparison)
    tables: dict[str, Sequence[Mapping[str, Cell]]] = {
        "runs": [run_row(name, scores, intervals.get(name)) for name, scores in runs.items()],
        "per_class": class_rows(runs),
        "by_part": [{"run": name, **part.to_json()} for name, scores in runs.items() for part in scores.parts or ()],
        "sweep": [{"run": name, **point.to_json()} for name, points in sweeps.items() for point in points],
    }
    for name, rows in tables.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
    counted = [(name, table) for name, scores in runs.items() for table in scores.tables or ()]
    for first in {table.name: table for _, table in counted}.values():
        lines = [(name, *row) for name, table in counted if table.name == first.name for row in table.rows]
        write_csv(folder / f"{first.name}.csv", ("run", *first.columns), lines)
    write_csv(folder / "comparison.csv", PAIR_COLUMNS, pair_rows(comparison, class_names))


def write_evaluation(
    folder: Path,
    class_names: Sequence[str],
    runs: Mapping[str, RunScores],
    matrices: Mapping[str, np.ndarray],
    comparison: Comparison,
    sweeps: Mapping[str, Sequence[SweepPoint]],
    chosen: Mapping[str, tuple[str, float]] | None = None,
) -> dict[str, Path]:
    """metrics.json, the tables as CSV, each run's confusion matrix (CSV, picture), reliability and sweep.

    Args:
        folder: made if need be.
        class_names: of all runs.
        runs, matrices: by name: the scores, and ``confusion[true, predicted]``.
        comparison: of :func:`segloss.evaluation.comparison.compare`.
        sweeps: by name: of :func:`segloss.evaluation.sweep.sweep_table`; empty if there was none.
        chosen: by name: the rule and value that were chosen in the sweep.

    Returns:
        The plots that the report shows, by title.
    """
    write_tables(folder, class_names, runs, comparison, sweeps)
    for name, matrix in matrices.items():
        table = [[true, *cells] for true, cells in zip(class_names, matrix.tolist(), strict=True)]
        write_csv(folder / f"confusion-{name}.csv", ("true \\ predicted", *class_names, "other"), table)
        title, picture = title_of(name, runs[name]), folder / f"confusion-{name}.png"
        if len(class_names) > MOST_CLASSES:
            plot_confusions(runs[name].confusions or (), title, picture, class_names)
        else:
            plot_confusion(matrix, class_names, title, picture)
    plots: dict[str, Path] = {}
    if sweeps:
        plot_sweeps(sweeps, folder / "sweep.png", chosen)
        plots["Scores over the operating point"] = folder / "sweep.png"
    calibrated = {name: scores.calibration.bins for name, scores in runs.items() if scores.calibration}
    if calibrated:
        plot_reliability(calibrated, folder / "reliability.png")
        plots["Reliability of the posterior"] = folder / "reliability.png"
    content = {"runs": {name: scores.to_json() for name, scores in runs.items()}, "comparison": comparison.to_json()}
    write_json(folder / "metrics.json", content)
    return plots
