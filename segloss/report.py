"""What a person reads: tables and progress in the terminal, the files of an evaluation. Percent here and in plots."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from torch import Tensor

from segloss.files import write_csv, write_json
from segloss.losses import class_ranks
from segloss.pixel_counts import PixelCounts
from segloss.plots import percent, plot_confusion, plot_reliability, plot_sweeps

console = Console(highlight=False, markup=False, emoji=False)  # names may hold [brackets] and :colons:


def new_progress(on: Console = console) -> Progress:
    """A bar that disappears when it is done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=on,
        transient=True,
    )


def progress_bar(description: str):
    """``progress(iterable, length)`` that draws a bar on a terminal and nothing elsewhere."""

    def progress(iterable: Iterable, length: int) -> Iterable:
        if not console.is_terminal:
            yield from iterable
            return
        with new_progress() as bar:
            yield from bar.track(iterable, total=length, description=description)

    return progress


def _bar(share: float, width: int = 10) -> str:
    """A bar in eighths of a column."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    return table


def print_class_counts(counts: PixelCounts, label_values: Tensor | None, source: str) -> None:
    """The class table: pixels, share, images, rank and, where the loss has them, label values."""
    total = sum(counts.pixels)
    table = _table(f"{counts.dataset} {counts.split}: {counts.image_count} images")
    for column in ("pixels", "share %", "images", "rank") + (("label value",) if label_values is not None else ()):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    ranks = class_ranks(counts.pixels).tolist()
    for c, name in enumerate(counts.class_names):
        value = [] if label_values is None else [f"{float(label_values[c]):.4g}"]
        share = counts.pixels[c] / total
        cells = [f"{counts.pixels[c]:,}", f"{100 * share:.2f}", str(counts.images[c]), str(ranks[c]), *value]
        table.add_row(name, *cells, _bar(counts.pixels[c] / max(counts.pixels)))
    console.print(table)
    empty = [name for name, pixels in zip(counts.class_names, counts.pixels, strict=True) if pixels == 0]
    if empty:
        hint = "check the mask ids (a mask of 0 and 255 must be saved as 0 and 1)"
        console.print(f"warning: no pixel of {', '.join(empty)} in {counts.split}; {hint}", soft_wrap=True)
    console.print(f"ignored: {counts.ignored_pixels:,} pixels; counts: {source}", soft_wrap=True)


def print_findings(findings: Sequence, rows: Sequence[dict[str, str]]) -> None:
    """The data doctor's findings, one line each, and a table of the splits."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, justify in (("split", "left"), ("images", "right"), ("examined", "right"), ("classes", "right")):
        table.add_column(column, justify=justify, no_wrap=True)
    table.add_column("ignored", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[key] for key in ("name", "images", "examined", "present", "ignored")))
    console.print(table)
    for form in dict.fromkeys(row["form"] for row in rows):
        splits = ", ".join(row["name"] for row in rows if row["form"] == form)
        console.print(f"{splits}: {form}", soft_wrap=True)
    for finding in findings:
        style = "bold red" if finding.severity == "error" else "yellow"
        console.print(Text.assemble((f"{finding.severity:<7}", style), f" {finding}"), soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    console.print(f"{errors} errors, {warnings} warnings" if findings else "nothing found")


def scored_how(metrics: dict) -> list[str]:
    """What differs from plain scoring: ``["prior 0.5", "TTA scales 0.75 1", "TTA flip", "image scale 0.5"]``."""
    decision, scale = metrics.get("decision", "tau 1"), metrics.get("image_scale", 1)
    precision, views = metrics.get("precision", "32-true"), metrics.get("views", {})
    scales, tile = views.get("tta_scales") or [1], views.get("tile")
    said = {
        f"{decision}": decision != "tau 1",
        f"TTA scales {' '.join(f'{factor:g}' for factor in scales)}": list(scales) != [1],
        "TTA flip": views.get("tta_flip", False),
        f"tile {'x'.join(map(str, tile or ()))}, overlap {views.get('tile_overlap', 0.5):g}": tile is not None,
        f"image scale {scale:g}": scale != 1,
        f"precision {precision}": precision != "32-true",
    }
    return [text for text, differs in said.items() if differs]


def title_of(name: str, metrics: dict) -> str:
    """``ce on camvid test: 233 images, tau 0.5``."""
    where = f" on {metrics['dataset']} {metrics['split']}" if "dataset" in metrics else ""
    skipped = [f"{len(metrics['skipped'])} left out"] if metrics.get("skipped") else []
    return f"{name}{where}: " + ", ".join([f"{metrics['images']} images", *skipped, *scored_how(metrics)])


def unknown_share(metrics: dict) -> float:
    """Of the valid pixels, the share that was predicted as no class."""
    return metrics["unknown_predictions"] / max(1, sum(row["pixels"] for row in metrics["classes"]))


def unknown_text(metrics: dict) -> str:
    """``predicted as no class: 1,200 pixels (0.31 %)``; empty where there are none."""
    unknown, share = metrics["unknown_predictions"], unknown_share(metrics)
    return f"predicted as no class: {unknown:,} pixels ({100 * share:.3g} %)" if unknown else ""


def print_scores(metrics: dict, title: str) -> None:
    """The per-class table and the means of one evaluation, from the metrics schema."""
    table = _table(title)
    columns = {"IoU %": "iou", "recall": "recall", "precision": "precision", "F1": "f1"}
    if "boundary_miou" in metrics:
        columns["boundary"] = "boundary_iou"
    for column in (*columns, "pixels", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in metrics["classes"]:
        ratios = [percent(row[key]) for key in columns.values()]
        table.add_row(row["name"], *ratios, f"{row['pixels']:,}", f"{row['images']:,}")
    console.print(table)
    for line in summary_lines(metrics):
        console.print(line, soft_wrap=True)
    for skipped in metrics.get("skipped", ()):
        console.print(f"left out: {skipped}", soft_wrap=True)


def mean_text(averaged: int | str, classes: int, protocol: str) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``: what a mean IoU is the mean of."""
    return f"over {averaged} of {classes} classes (protocol {protocol})"


def summary_lines(metrics: dict) -> list[str]:
    """``mIoU 45.9 over 11 of 11 classes (protocol cityscapes), mean accuracy 58.4`` and what else was counted."""
    averaged = mean_text(metrics["classes_averaged"], len(metrics["classes"]), metrics["protocol"])
    lines = [
        f"mIoU {percent(metrics['miou'])} {averaged}, mean accuracy {percent(metrics['mean_accuracy'])}, "
        f"pixel accuracy {percent(metrics['pixel_accuracy'])}, frequency-weighted IoU "
        f"{percent(metrics['frequency_weighted_iou'])}"
    ]
    groups = ", ".join(f"{key} {percent(metrics['groups'][key]['miou'])}" for key in ("head", "middle", "tail"))
    worst = metrics.get("worst_class")
    lines.append(f"mIoU of {groups}" + (f"; worst class {worst['name']} {percent(worst['iou'])}" if worst else ""))
    if "categories" in metrics:
        of_each = ", ".join(f"{name} {percent(iou)}" for name, iou in metrics["categories"]["iou"].items())
        lines.append(f"category mIoU {percent(metrics['categories']['miou'])}: {of_each}")
    if "boundary_miou" in metrics:
        lines.append(f"boundary mIoU {percent(metrics['boundary_miou'])}")
    if "calibration" in metrics:
        found = metrics["calibration"]
        lines.append(f"calibration error {percent(found['ece'])} %, Brier score {found['brier']:.3f}")
    if unknown_text(metrics):
        lines.append(unknown_text(metrics))
    return lines


def interval_text(row: dict) -> str:
    """``46.4 [44.1, 48.2]``; ``46.4`` where there is no interval."""
    interval = "" if row["low"] is None else f" [{percent(row['low'])}, {percent(row['high'])}]"
    return percent(row["estimate"]) + interval


def classes_in_mean(row: dict, protocol: str) -> int:
    """How many classes the mean IoU of a row of the ranking is over."""
    absent_count_too = protocol in ("torchvision", "segnet", "smp")
    return sum(absent_count_too or found["estimate"] is not None for found in row["classes"])


def comparison_mean(comparison: dict) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``, ``over 10 to 11`` where the settings differ."""
    protocol, ranking = comparison["protocol"], comparison["ranking"]
    averaged = [classes_in_mean(row, protocol) for row in ranking]
    fewest, most = min(averaged), max(averaged)
    return mean_text(fewest if fewest == most else f"{fewest} to {most}", len(ranking[0]["classes"]), protocol)


def interval_source(comparison: dict) -> str:
    """``95 % intervals from 2000 resamples of blocks of 5 consecutive images``, or why there are none."""
    means = [row["miou"] for row in comparison["ranking"]]
    if all(row["estimate"] is None for row in means):
        return "no mean, as a class is absent" if comparison["protocol"] == "torchvision" else "no mean"
    if all(row["low"] is None for row in means):
        return "no interval: all images are one block"
    blocks = "single images" if comparison["block"] == 1 else f"blocks of {comparison['block']} consecutive images"
    seeds = " and of each setting's runs" if any(row["runs"] > 1 for row in comparison["ranking"]) else ""
    return f"{100 * comparison['level']:.0f} % intervals from {comparison['resamples']} resamples of {blocks}{seeds}"


def is_level(pair: dict) -> bool:
    """Whether a difference is 0 in the digits that are shown."""
    return percent(pair["miou"]["estimate"]) == "0.0"


def pair_text(pair: dict) -> str:
    """``A - B: 3.2 [2.8, 3.5] points, ahead in 100.0 %``."""
    text = f"{pair['a']} - {pair['b']}: {interval_text(pair['miou'])} points"
    if is_level(pair):
        return f"{text}, level"
    return text if pair["a_leads"] is None else f"{text}, ahead in {percent(pair['a_leads'])} %"


def print_comparison(comparison: dict) -> None:
    """mIoU of every setting with its interval, ranked, and the differences of all pairs."""
    images = f", {comparison['images']} images" if "images" in comparison else ""
    console.print(f"mIoU % {comparison_mean(comparison)}{images}; {interval_source(comparison)}", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    grouped = any(row["runs"] > 1 for row in comparison["ranking"])
    table.add_column("setting" if grouped else "run", overflow="fold")
    for column in ("mIoU %", *(["runs"] if grouped else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in comparison["ranking"]:
        table.add_row(row["name"], interval_text(row["miou"]), *([str(row["runs"])] if grouped else []))
    console.print(table)
    for pair in comparison["pairs"]:
        console.print(pair_text(pair), soft_wrap=True)


def announce(config, splits, counts: PixelCounts, source: str, criterion, model, trainer, folder: Path) -> None:
    """What a training run is about to do."""
    from segloss.models import parameter_count

    label_values = getattr(criterion, "label_values", None)
    print_class_counts(counts, label_values, source)
    sizes = [f"{len(d)} {d.split}" for d in (splits.train, splits.val, splits.test) if d is not None]
    share = splits.images_per_epoch // trainer.world_size
    batch = min(config.batch_size, share)
    steps = share // max(batch, 1)
    repeated = f"{splits.images_per_epoch} images with repeats, " if splits.repeat is not None else ""
    precision = f"{config.precision}, {trainer.world_size} x {type(trainer.accelerator).__name__}"
    lines = {
        "data": f"{config.dataset}: {', '.join(sizes)} images, {len(counts.class_names)} classes",
        "form": splits.train.found.form,
        "loss": f"{config.loss}: {criterion.extra_repr()}",
        "model": f"{config.arch}, {config.encoder} (weights {config.encoder_weights}), "
        f"{parameter_count(model) / 1e6:.1f} M parameters",
        "device": precision,
        "plan": f"{config.epochs} epochs of {repeated}{steps} steps, batch {batch}, crop {config.crop_size[0]}x"
        f"{config.crop_size[1]} (H x W), image scale {config.image_scale:g}, lr {config.lr:g}",
        "run": str(folder),
    }
    for key, line in lines.items():
        console.print(f"{key:<7} {line}", soft_wrap=True)


def own_intervals(metrics: dict[str, dict], comparison: dict) -> dict[str, dict]:
    """Run -> its mean with interval, where the ranking holds just that: one run on all of the images it saw."""
    alone = {row["members"][0]: row["miou"] for row in comparison["ranking"] if len(row["members"]) == 1}
    return {name: mean for name, mean in alone.items() if metrics[name]["images"] == comparison["images"]}


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


def print_recipes(statistics: dict) -> None:
    """Label values and class weights by every recipe, side by side, most frequent class first."""
    order = np.argsort(statistics["splits"][statistics["recipes_from"]]["rank"])
    for key, title in (("label_values", "label values"), ("class_weights", "class weights")):
        table = _table(f"{title} from {statistics['recipes_from']}")
        for recipe in statistics[key]:
            table.add_column(recipe, justify="right", no_wrap=True)
        for c in order:
            table.add_row(statistics["classes"][c], *(f"{numbers[c]:.4g}" for numbers in statistics[key].values()))
        console.print(table)
