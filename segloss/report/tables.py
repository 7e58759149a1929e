"""The files of an evaluation: JSON, CSV and pictures, and what an earlier one left."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from segloss.errors import InputError
from segloss.files import write_csv, write_json
from segloss.report.plots import plot_confusion, plot_reliability, plot_sweeps
from segloss.report.wording import classes_in_mean, own_intervals, scored_how, title_of

# What an evaluation writes beside NAME.sqlite and confusion-NAME.csv and .png of each run; metrics.json names those.
FILES = (
    "runs.csv",
    "report.html",
    "per_class.csv",
    "comparison.csv",
    "sweep.csv",
    "sweep.png",
    "reliability.png",
    "metrics.json",
)


def make_folder(folder: Path) -> None:
    """An impossible folder is answered before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; choose another --output-dir") from error


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
    stale += [f"confusion-{name}{suffix}" for name in runs for suffix in (".csv", ".png")]
    for name in (*stale, *FILES) if runs else ():  # metrics.json last: what is interrupted is known again
        (folder / name).unlink(missing_ok=True)


def run_row(name: str, metrics: dict, interval: dict) -> dict:
    """One line of runs.csv: what was scored and its means, None where there is no number."""
    calibration = metrics.get("calibration", {})
    return {
        "run": name,
        "scored": ", ".join(scored_how(metrics)) or "plain",
        **{key: metrics[key] for key in ("protocol", "classes_averaged", "miou")},
        **{key: interval.get(key) for key in ("low", "high")},
        **{key: metrics[key] for key in ("mean_accuracy", "pixel_accuracy", "frequency_weighted_iou")},
        **{key: metrics["groups"][key]["miou"] for key in ("head", "middle", "tail")},
        **{key: calibration.get(key) for key in ("ece", "brier")},
        "boundary_miou": metrics.get("boundary_miou"),
        "category_miou": metrics.get("categories", {}).get("miou"),
        "images": metrics["images"],
        "skipped": len(metrics.get("skipped", ())),
        "unknown_predictions": metrics["unknown_predictions"],
    }


def class_rows(metrics: dict[str, dict]) -> list[dict]:
    """The lines of per_class.csv, a run after the other."""
    keys = ["iou", "recall", "precision", "f1", "pixels", "images"]
    keys += ["boundary_iou"] if any("boundary_miou" in m for m in metrics.values()) else []
    return [
        {
            "run": name,
            "class": row["name"],
            **{key: row.get(key) for key in keys},
            **{key: m[key] for key in ("protocol", "classes_averaged")},
        }
        for name, m in metrics.items()
        for row in m["classes"]
    ]


def pair_rows(comparison: dict, class_names: Sequence[str]) -> list[tuple]:
    """The lines of comparison.csv: of each pair the difference of the means, then of each class."""
    protocol, images = comparison["protocol"], comparison["images"]
    averaged = {row["name"]: classes_in_mean(row, protocol) for row in comparison["ranking"]}
    rows = []
    for pair in comparison["pairs"]:
        of_mean = (pair["a_leads"], averaged[pair["a"]], averaged[pair["b"]])
        for name, found in zip(("mIoU", *class_names), (pair["miou"], *pair["classes"]), strict=True):
            spread = (found["estimate"], found["low"], found["high"])
            known = of_mean if found is pair["miou"] else (None, None, None)
            rows.append((pair["a"], pair["b"], name, *spread, *known, protocol, images))
    return rows


PAIR_COLUMNS = ("a", "b", "class", "estimate", "low", "high", "a_leads", "a_classes_averaged", "b_classes_averaged")


def write_tables(
    folder: Path, class_names: Sequence[str], metrics: dict[str, dict], comparison: dict, sweeps: dict
) -> None:
    """runs.csv, per_class.csv, comparison.csv and, of a sweep, sweep.csv; each names the protocol of its means."""
    intervals = own_intervals(metrics, comparison)
    tables = {
        "runs": [run_row(name, m, intervals.get(name, {})) for name, m in metrics.items()],
        "per_class": class_rows(metrics),
    }
    if sweeps:
        tables["sweep"] = [{"run": name, **row} for name, rows in sweeps.items() for row in rows]
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
    header = (*PAIR_COLUMNS, "protocol", "images")
    write_csv(folder / "comparison.csv", header, pair_rows(comparison, class_names))


def write_evaluation(
    folder: Path, sources: Sequence, metrics: dict[str, dict], totals: dict, comparison: dict, sweeps: dict
) -> dict[str, Path]:
    """metrics.json, the tables as CSV, each run's confusion matrix (CSV, picture), reliability and sweep.

    Args:
        folder: made if need be.
        sources: what was scored, in the order of ``metrics``.
        metrics, totals: by name: the metrics schema, and what it was read from.
        comparison: of :func:`segloss.comparison.compare`.
        sweeps: by name: rows of :func:`segloss.operating_point.sweep_table`; empty if there was none.

    Returns:
        The plots that the report shows, by title.
    """
    write_tables(folder, sources[0].classes.names, metrics, comparison, sweeps)
    for source in sources:
        names, matrix = source.classes.names, totals[source.name].matrix
        table = [[true, *cells] for true, cells in zip(names, matrix.tolist(), strict=True)]
        write_csv(folder / f"confusion-{source.name}.csv", ("true \\ predicted", *names, "other"), table)
        title = title_of(source.name, metrics[source.name])
        plot_confusion(matrix, names, title, folder / f"confusion-{source.name}.png")
    plots: dict[str, Path] = {}
    if sweeps:
        plot_sweeps(sweeps, folder / "sweep.png")
        plots["Scores over the operating point"] = folder / "sweep.png"
    calibrated = {name: m["calibration"]["bins"] for name, m in metrics.items() if "calibration" in m}
    if calibrated:
        plot_reliability(calibrated, folder / "reliability.png")
        plots["Reliability of the posterior"] = folder / "reliability.png"
    write_json(folder / "metrics.json", {"runs": metrics, "comparison": comparison})
    return plots
