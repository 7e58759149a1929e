"""What a person sees: tables in the terminal, progress bars, plots. Percent here, ratios everywhere else."""

import csv
import io
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

from segloss.files import write_bytes, write_csv, write_json
from segloss.frequency import PixelCounts
from segloss.losses import class_ranks

ERROR_COLOR = (220, 40, 40)
IGNORED_COLOR = (0, 0, 0)
CORRECT_COLOR = (225, 225, 225)

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


def percent(ratio: float | None) -> str:
    """``45.9``, or a dash where there is no number."""
    return "-" if ratio is None or np.isnan(ratio) else f"{100 * ratio:.1f}"


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


def title_of(name: str, metrics: dict) -> str:
    """``ce on camvid test: 233 images``."""
    where = f" on {metrics['dataset']} {metrics['split']}" if "dataset" in metrics else ""
    skipped = f", {len(metrics['skipped'])} left out" if metrics.get("skipped") else ""
    return f"{name}{where}: {metrics['images']} images{skipped}"


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


def summary_lines(metrics: dict) -> list[str]:
    """``mIoU 45.9 over 11 of 11 classes, mean accuracy 58.4, pixel accuracy 85.4`` and what else was counted."""
    name = "" if metrics["protocol"] == "cityscapes" else f" ({metrics['protocol']})"
    averaged = f"{metrics['classes_averaged']} of {len(metrics['classes'])} classes"
    lines = [
        f"mIoU{name} {percent(metrics['miou'])} over {averaged}, mean accuracy {percent(metrics['mean_accuracy'])}, "
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
    return lines


def interval_text(row: dict) -> str:
    """``46.4 [44.1, 48.2]``."""
    return f"{percent(row['estimate'])} [{percent(row['low'])}, {percent(row['high'])}]"


def print_comparison(comparison: dict) -> None:
    """mIoU of every setting with its interval, ranked, and the differences of all pairs."""
    blocks = "single images" if comparison["block"] == 1 else f"blocks of {comparison['block']} images"
    title = f"mIoU % with {100 * comparison['level']:.0f} % intervals ({comparison['resamples']} resamples of {blocks})"
    console.print(title, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    seeds = any(row["runs"] > 1 for row in comparison["ranking"])
    for column in ("mIoU %", *(["runs"] if seeds else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in comparison["ranking"]:
        table.add_row(row["name"], interval_text(row["miou"]), *([str(row["runs"])] if seeds else []))
    console.print(table)
    for row in comparison["pairs"]:
        text = f"{row['a']} - {row['b']}: {interval_text(row['miou'])} points, ahead in {percent(row['a_leads'])} %"
        console.print(text, soft_wrap=True)


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


def draw_run(folder: Path, metrics: dict, classes, samples: Sequence[tuple]) -> None:
    """curves.png, per_class_iou.png and predictions.png of a run folder."""
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    plot_history(rows, folder / "curves.png")
    title = f"{folder.name}: {metrics['dataset']} {metrics['split']}, {metrics['images']} images"
    plot_class_iou(metrics, classes.colors, title, folder / "per_class_iou.png")
    plot_predictions(samples, classes.names, classes.colors, folder / "predictions.png")


def write_evaluation(
    folder: Path, sources: Sequence, metrics: dict[str, dict], totals: dict, comparison: dict, sweeps: dict
) -> dict[str, Path]:
    """metrics.json, per_class.csv, comparison.csv, each run's confusion matrix (CSV, picture) and sweep.

    Args:
        folder: made if need be.
        sources: what was scored, in the order of ``metrics``.
        metrics, totals: by name: the metrics schema, and what it was read from.
        comparison: of :func:`segloss.comparison.compare`.
        sweeps: by name: rows of :func:`segloss.operating_point.sweep_table`; empty if there was none.

    Returns:
        The plots that the report shows, by title.
    """
    keys = ("iou", "recall", "precision", "f1", "pixels", "images")
    rows = [(name, row["name"], *(row[key] for key in keys)) for name, m in metrics.items() for row in m["classes"]]
    write_csv(folder / "per_class.csv", ("run", "class", *keys), rows)
    for source in sources:
        names, matrix = source.classes.names, totals[source.name].matrix
        table = [[true, *cells] for true, cells in zip(names, matrix.tolist(), strict=True)]
        write_csv(folder / f"confusion-{source.name}.csv", ("true \\ predicted", *names, "other"), table)
        plot_confusion(
            matrix, names, title_of(source.name, metrics[source.name]), folder / f"confusion-{source.name}.png"
        )
    names = sources[0].classes.names
    spread = ("estimate", "low", "high")
    differences = [
        (row["a"], row["b"], name, *(found[key] for key in spread), row["a_leads"] if name == "mIoU" else None)
        for row in comparison["pairs"]
        for name, found in zip(("mIoU", *names), (row["miou"], *row["classes"]), strict=True)
    ]
    write_csv(folder / "comparison.csv", ("a", "b", "class", *spread, "a_leads"), differences)
    plots: dict[str, Path] = {}
    if sweeps:
        points = [(name, *row.values()) for name, rows in sweeps.items() for row in rows]
        write_csv(folder / "sweep.csv", ("run", *next(iter(sweeps.values()))[0]), points)
        plot_sweeps(sweeps, folder / "sweep.png")
        plots["Scores over the operating point"] = folder / "sweep.png"
    calibrated = {name: m["calibration"]["bins"] for name, m in metrics.items() if "calibration" in m}
    if calibrated:
        plot_reliability(calibrated, folder / "reliability.png")
        plots["Reliability of the posterior"] = folder / "reliability.png"
    write_json(folder / "metrics.json", {"runs": metrics, "comparison": comparison})
    return plots


def plot_reliability(bins: dict[str, list[dict]], path: Path) -> None:
    """Accuracy over confidence, a line for each run; below, how many pixels are that confident."""
    figure, (top, bottom) = _figure(5.5, 6, nrows=2, height_ratios=[3, 1], sharex=True)
    top.plot([0, 100], [0, 100], color="0.5", linestyle="--", linewidth=1)
    for place, (name, rows) in enumerate(bins.items()):
        confidence = [100 * row["confidence"] for row in rows]
        top.plot(confidence, [100 * row["accuracy"] for row in rows], marker="o", color=f"C{place}", label=name)
        bottom.plot(confidence, [100 * row["share"] for row in rows], marker=".", color=f"C{place}")
    top.set_ylabel("right (%)")
    bottom.set_ylabel("pixels (%)")
    bottom.set_yscale("log")
    bottom.set_xlabel("confidence: the posterior's maximum (%)")
    top.legend()
    for ax in (top, bottom):
        ax.grid(alpha=0.3)
    _save(figure, path)


def plot_sweeps(sweeps: dict[str, list[dict]], path: Path) -> None:
    """Scores over the operating point: a row for each rule, a panel for each score, a line for each run."""
    rules = list(dict.fromkeys(row["rule"] for rows in sweeps.values() for row in rows))
    keys = {
        "miou": "mIoU",
        "tail_miou": "tail mIoU",
        "mean_accuracy": "mean accuracy",
        "pixel_accuracy": "pixel accuracy",
    }
    labels = {"tau": "tau: argmax of tilt^tau P(c|x)", "prior": "s: argmax of P(c|x) / prior^s"}
    figure, grid = _figure(13, 3.2 * len(rules) + 0.4, nrows=len(rules), ncols=4, squeeze=False, sharey="col")
    for axes_row, rule in zip(grid, rules, strict=True):
        for ax, (key, title) in zip(axes_row, keys.items(), strict=True):
            for place, (name, rows) in enumerate(sweeps.items()):
                points = [
                    (row["value"], 100 * row[key]) for row in rows if row["rule"] == rule and row[key] is not None
                ]
                if points:
                    ax.plot(*zip(*points, strict=True), marker=".", color=f"C{place}", label=name)
            ax.set_title(f"{title} (%)", fontsize=10)
            ax.set_xlabel(labels[rule], fontsize=9)
            ax.grid(alpha=0.3)
    lines = {label: handle for ax in grid[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    _save(figure, path)


def _figure(width: float, height: float, **subplots):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # inches
    return figure, axes


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    write_bytes(path, buffer.getvalue())


def _bar_colors(colors: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    return [tuple(channel / 255 for channel in color) for color in colors]


def plot_class_counts(
    statistics: dict, label_values: Sequence[float], colors: Sequence[Sequence[int]], path: Path
) -> None:
    """Three panels over the same classes, most frequent first: share, label value, and who shares images with whom."""
    splits = statistics["splits"]
    split = statistics["recipes_from"]
    first = splits[split]
    order = np.argsort(first["rank"])
    names = [statistics["classes"][c] for c in order]
    height = 0.3 * len(names) + 1.2
    figure, (left, middle, right) = _figure(9 + height, max(height, 2.5), ncols=3, width_ratios=[3, 2.4, 0.9 * height])
    paint = [_bar_colors(colors)[c] for c in order]
    left.barh(names, [100 * first["share"][c] for c in order], color=paint, edgecolor="0.4", label=split)
    for (name, other), marker in zip([item for item in splits.items() if item[0] != split], "o^s", strict=False):
        shares = [100 * other["share"][c] or np.nan for c in order]
        left.plot(
            shares, names, linestyle="", marker=marker, color="0.15", markeredgecolor="w", markersize=7, label=name
        )
    if len(splits) > 1:
        left.legend(fontsize=8)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlabel("share of labelled pixels (%)")
    left.invert_yaxis()
    bars = middle.barh(names, [label_values[c] for c in order], color=paint, edgecolor="0.4")
    middle.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
    middle.margins(x=0.15)
    middle.set_yticks(range(len(names)), [])
    middle.set_xlabel("label value")
    middle.invert_yaxis()
    together = np.array(first["cooccurrence"])[np.ix_(order, order)]
    shares = 100 * together / np.maximum(together.diagonal()[:, None], 1)
    right.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if len(names) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            right.text(
                column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color="w" if share > 55 else "k"
            )
    right.set_xticks(range(len(names)), names, rotation=60, ha="right")
    right.set_yticks(range(len(names)), names)
    right.set_title(f"{split}: of the images with the row's class,\nthose that hold the column's (%)", fontsize=9)
    figure.suptitle(f"{statistics['dataset']}: " + ", ".join(f"{s['images']} {name}" for name, s in splits.items()))
    _save(figure, path)


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


def plot_history(rows: Sequence[dict], path: Path) -> None:
    """Losses and validation scores over the epochs."""
    epochs = [row["epoch"] for row in rows]
    figure, (left, right) = _figure(10, 3.8, ncols=2)
    for key, name in (("train_loss", "training (crops)"), ("val_loss", "validation")):
        left.plot(epochs, [row.get(key, np.nan) for row in rows], label=name, marker=".")
    left.set_ylabel("loss")
    left.set_ylim(bottom=0)
    for key, name in (("miou", "mIoU"), ("mean_accuracy", "mean accuracy"), ("pixel_accuracy", "pixel accuracy")):
        right.plot(epochs, [100 * row.get(f"val_{key}", np.nan) for row in rows], label=name, marker=".")
    right.set_ylabel("validation score (%)")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def plot_class_iou(metrics: dict, colors: Sequence[Sequence[int]], title: str, path: Path) -> None:
    """One bar per class in the data set's colours, most frequent class first, the mean as a line."""
    order = sorted(range(len(colors)), key=lambda c: -metrics["classes"][c]["pixels"])
    rows = [metrics["classes"][c] for c in order]
    figure, axes = _figure(8, 0.3 * len(rows) + 1.4)
    ious = [100 * (row["iou"] or 0) for row in rows]
    bars = axes.barh(
        [row["name"] for row in rows], ious, color=[_bar_colors(colors)[c] for c in order], edgecolor="0.4"
    )
    axes.bar_label(bars, [percent(row["iou"]) for row in rows], padding=2, fontsize=8)
    if metrics["miou"] is not None:
        axes.axvline(100 * metrics["miou"], color="0.2", linestyle="--", label=f"mIoU {percent(metrics['miou'])}")
        axes.legend(loc="lower right")
    axes.set_xlim(0, 105)
    axes.set_xlabel("IoU (%)")
    axes.invert_yaxis()
    axes.set_title(title)
    _save(figure, path)


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], title: str, path: Path) -> None:
    """Row-normalised confusion matrix: where the pixels of each true class went (%)."""
    shares = 100 * matrix[:, : len(class_names)] / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = 0.55 * len(class_names) + 2
    figure, axes = _figure(size + 1, size)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(class_names) <= 30:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                axes.text(
                    column,
                    row,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="w" if share > 55 else "k",
                )
    axes.set_xticks(range(len(class_names)), class_names, rotation=60, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    figure.colorbar(image, label="share of the true class's pixels (%)", shrink=0.8)
    _save(figure, path)


def paint(labels: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Class numbers ``(H, W)`` -> RGB ``(H, W, 3)`` uint8; what is no class is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table[labels]


def paint_errors(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """RGB: light where right, red where wrong, black where ignored."""
    picture = np.where((predicted == labels)[..., None], CORRECT_COLOR, ERROR_COLOR)
    picture[labels >= num_classes] = IGNORED_COLOR
    return picture.astype(np.uint8)


def plot_predictions(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
    path: Path,
) -> None:
    """A grid, one row per sample (name, image, labels, predicted): image, truth, prediction, errors; a legend below."""
    from matplotlib.patches import Patch

    height, width = samples[0][1].shape[:2]
    cell = 3.0
    legend_rows = -(-(len(class_names) + 3) // 7)
    figure, grid = _figure(
        4 * cell,
        len(samples) * cell * height / width + 0.5 + 0.28 * legend_rows,
        nrows=len(samples),
        ncols=4,
        squeeze=False,
    )
    for axes, (name, image, labels, predicted) in zip(grid, samples, strict=True):
        accuracy = (predicted == labels)[labels < len(class_names)]
        right = f"errors ({percent(accuracy.mean() if accuracy.size else None)} % right)"
        panels = (
            (name, image),
            ("truth", paint(labels, colors)),
            ("prediction", paint(predicted, colors)),
            (right, paint_errors(predicted, labels, len(class_names))),
        )
        for ax, (title, picture) in zip(axes, panels, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
    entries = [
        *zip(class_names, _bar_colors(colors), strict=True),
        *zip(
            ("right", "wrong", "ignored"),
            _bar_colors((CORRECT_COLOR, ERROR_COLOR, IGNORED_COLOR)),
            strict=True,
        ),
    ]
    handles = [Patch(facecolor=color, edgecolor="0.5", label=name) for name, color in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=8)
    _save(figure, path)
