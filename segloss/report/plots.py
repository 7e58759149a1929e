"""Pictures: curves, bars, confusion matrices, label maps. Percent here, ratios everywhere else."""

import csv
import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segloss.files import write_bytes
from segloss.measures.error_places import PLACES
from segloss.report.color_vision import CORRECT_COLOR, ERROR_COLORS, IGNORED_COLOR
from segloss.report.fonts import fonts_of
from segloss.report.painting import paint, paint_errors
from segloss.report.terminal import console
from segloss.report.wording import percent, title_of
from segloss.schema import Bin, Confusion, RunScores, SweepPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segloss.datasets import ClassTable

RAREST_DRAWN = 5  # classes whose IoU over the epochs is drawn
MOST_LETTERS = 12  # named in a warning
MOST_CLASSES = 40  # of a confusion matrix as a picture or a table; a side is half an inch a class

Colors = Sequence[Sequence[int]]  # RGB, 0..255


def draw_run(
    folder: Path,
    scores: RunScores,
    classes: "ClassTable",
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    by_rule: Sequence[np.ndarray] = (),
) -> None:
    """curves.png, per_class_iou.png and predictions.png of a run folder; ``by_rule`` as :func:`plot_predictions`."""
    from segloss.run_folder import HISTORY

    with (folder / HISTORY).open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    there = [row for row in scores.classes if row.pixels]
    rarest = [row.name for row in sorted(there, key=lambda row: row.pixels)[:RAREST_DRAWN]]
    plot_history(rows, folder / "curves.png", rarest, classes.names)
    title = title_of(folder.name, scores)
    plot_class_iou(scores, classes.colors, title, folder / "per_class_iou.png")
    plot_predictions(samples, classes.names, classes.colors, folder / "predictions.png", by_rule)


def plot_reliability(bins: Mapping[str, Sequence[Bin]], path: Path) -> None:
    """Accuracy over confidence, a line for each run; below, how many pixels are that confident."""
    figure, (top, bottom) = _figure(5.5, 6, nrows=2, height_ratios=[3, 1], sharex=True)
    top.plot([0, 100], [0, 100], color="0.5", linestyle="--", linewidth=1)
    for place, (name, rows) in enumerate(bins.items()):
        confidence = [100 * row.confidence for row in rows]
        top.plot(confidence, [100 * row.accuracy for row in rows], marker="o", color=f"C{place}", label=name)
        bottom.plot(confidence, [100 * row.share for row in rows], marker=".", color=f"C{place}")
    top.set_ylabel("right (%)")
    bottom.set_ylabel("pixels (%)")
    bottom.set_yscale("log")
    bottom.set_xlabel("confidence: the posterior's maximum (%)")
    _legend(top, top.get_lines()[1:])
    for ax in (top, bottom):
        ax.grid(alpha=0.3)
    _save(figure, path)


def plot_sweeps(
    sweeps: Mapping[str, Sequence[SweepPoint]], path: Path, chosen: Mapping[str, tuple[str, float]] | None = None
) -> None:
    """Scores over the operating point: a row for each rule, a panel for each score, a line for each run.

    The IoU rule, which has no value to move, is a dotted line across each panel. ``chosen``: run -> the rule and value
    that were chosen, a star on its lines.
    """
    rules = [*dict.fromkeys(point.rule for points in sweeps.values() for point in points if point.value is not None)]
    protocol = next(points[0].protocol for points in sweeps.values())
    keys = {
        "miou": f"mIoU by {protocol}",
        "tail_miou": "tail mIoU",
        "mean_accuracy": "mean accuracy",
        "pixel_accuracy": "pixel accuracy",
    }
    labels = {"tau": "tau: argmax of tilt^tau P(c|x)", "prior": "s: argmax of P(c|x) / prior^s"}
    figure, grid = _figure(13, 3.2 * len(rules) + 0.4, nrows=len(rules), ncols=4, squeeze=False, sharey="col")
    for axes_row, rule in zip(grid, rules, strict=True):
        for ax, (key, title) in zip(axes_row, keys.items(), strict=True):
            for place, (name, points) in enumerate(sweeps.items()):
                found = [(point.value, getattr(point, key)) for point in points if point.rule == rule]
                known = [(value, 100 * score) for value, score in found if score is not None]
                if known:
                    ax.plot(*zip(*known, strict=True), marker=".", color=f"C{place}", label=name)
                for point in points:
                    score = getattr(point, key)
                    if point.value is None and score is not None:
                        label = f"{name}, decision {point.rule}"
                        ax.axhline(100 * score, linestyle=":", color=f"C{place}", label=label)
                marked = [(x, y) for x, y in known if (rule, x) == (chosen or {}).get(name)]
                for x, y in marked:
                    label = f"{name}: chosen, {rule} {x:g}"
                    ax.plot(x, y, "*", color=f"C{place}", markeredgecolor="k", markersize=14, label=label, zorder=5)
            ax.set_title(f"{title} (%)", fontsize=10)
            ax.set_xlabel(labels[rule], fontsize=9)
            ax.grid(alpha=0.3)
    lines = {line.get_label(): line for ax in grid.flat for line in ax.get_lines()}
    _legend(figure, [*lines.values()], loc="outside lower center", ncols=4)
    _save(figure, path)


def _figure(width: float, height: float, **subplots: Any) -> tuple["Figure", Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.08)  # inches
    return figure, axes


def _legend(place: Any, handles: Sequence[Any], **how: Any) -> None:
    """Of all these by their labels, in axes or a figure; matplotlib leaves out labels that begin with ``_``."""
    legend = place.legend(handles, [str(number) for number in range(len(handles))], **how)
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_text(handle.get_label())


def _save(figure: "Figure", path: Path, class_names: Sequence[str] = ()) -> None:
    """Names as they are written: ``$`` begins no formula but in the powers of ten at a logarithmic axis.

    Where no font holds the letters of one of ``class_names``, its number stands for it.
    """
    from matplotlib import pyplot as plt
    from matplotlib.text import Text

    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    powers = {label for axis in axes if axis.get_scale() == "log" for label in axis.get_ticklabels(which="both")}
    texts = [text for text in figure.findobj(Text) if text not in powers]
    fonts, lacking = fonts_of({letter for text in texts for letter in text.get_text()})
    if lacking:
        numbered = {name: f"class {c}" for c, name in enumerate(class_names) if lacking & {*name}}
        for axis in axes:
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(lacking & {*label} for label in labels):
                axis.set_ticklabels([_numbered(label, numbered) for label in labels])
        for text in texts:
            text.set_text(_numbered(text.get_text(), numbered))
        _tell_lacking("".join(sorted(lacking)))
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(fonts)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # told above
        figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    write_bytes(path, buffer.getvalue())


def _numbered(words: str, numbered: Mapping[str, str]) -> str:
    for name in sorted(numbered, key=len, reverse=True):
        words = words.replace(name, numbered[name])
    return words


@cache
def _tell_lacking(letters: str) -> None:
    more = f" and {len(letters) - MOST_LETTERS} letters more" if len(letters) > MOST_LETTERS else ""
    drawn = "pictures show numbers of classes, or boxes, in their place"
    what = f"no font looked for holds {letters[:MOST_LETTERS]}{more}: {drawn}"
    cure = "install a font that does, for Chinese, Japanese and Korean fonts-noto-cjk"
    console.print(f"warning: {what}; {cure}", soft_wrap=True)


def _bar_colors(colors: Colors) -> list[tuple[float, float, float]]:
    return [(red / 255, green / 255, blue / 255) for red, green, blue in colors]


def _show_shares(axes: Any, shares: np.ndarray, names: Sequence[str], most: int, least: float, aspect: str) -> Any:
    """Percentages as a heat map; numbers in it from the least on, where there are at most so many names."""
    for (row, column), share in np.ndenumerate(shares):
        if len(names) <= most and share >= least:
            color = "w" if share > 55 else "k"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    return axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect=aspect)


def plot_class_counts(statistics: dict[str, Any], label_values: Sequence[float], colors: Colors, path: Path) -> None:
    """Three panels over the same classes, most frequent first: share, label value, and who shares images with whom."""
    splits = statistics["splits"]
    split = statistics["recipes_from"]
    first = splits[split]
    order = np.argsort(first["rank"])
    names = [statistics["classes"][c] for c in order]
    height = 0.3 * len(names) + 1.2
    figure, (left, middle, right) = _figure(9 + height, max(height, 2.5), ncols=3, width_ratios=[3, 2.4, 0.9 * height])
    paint = [_bar_colors(colors)[c] for c in order]
    rows = range(len(names))
    bars = left.barh(rows, [100 * first["share"][c] for c in order], color=paint, edgecolor="0.4", label=split)
    left.bar_label(bars, [f"{100 * first['share'][c]:.2g}" for c in order], padding=10, fontsize=8)
    left.margins(x=0.15)
    for (name, other), marker in zip([item for item in splits.items() if item[0] != split], "o^s", strict=False):
        shares = [100 * other["share"][c] or np.nan for c in order]
        left.plot(
            shares, rows, linestyle="", marker=marker, color="0.15", markeredgecolor="w", markersize=7, label=name
        )
    if len(splits) > 1:
        left.legend(fontsize=8)
    left.set_yticks(rows, names)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlabel("share of labelled pixels (%)")
    left.invert_yaxis()
    bars = middle.barh(rows, [label_values[c] for c in order], color=paint, edgecolor="0.4")
    middle.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
    middle.margins(x=0.15)
    middle.set_yticks(rows, [])
    middle.set_xlabel("label value")
    middle.invert_yaxis()
    together = np.array(first["cooccurrence"])[np.ix_(order, order)]
    shares = 100 * together / np.maximum(together.diagonal()[:, None], 1)
    _show_shares(right, shares, names, most=20, least=0, aspect="auto")
    right.set_title(f"{split}: of the images with the row's class,\nthose that hold the column's (%)", fontsize=9)
    figure.suptitle(f"{statistics['dataset']}: " + ", ".join(f"{s['images']} {name}" for name, s in splits.items()))
    _save(figure, path, statistics["classes"])


def plot_history(
    rows: Sequence[Mapping[str, float]], path: Path, rarest: Sequence[str] = (), class_names: Sequence[str] = ()
) -> None:
    """Losses, validation scores and the IoU of the rarest classes over the epochs; legends below the panels."""
    epochs = [row["epoch"] for row in rows]
    told = [name for name in rarest if any(f"val_iou/{name}" in row for row in rows)]
    figure, panels = _figure(13 if told else 10, 4.2, ncols=3 if told else 2)
    left, right = panels[:2]
    for key, name in (("train_loss", "training (crops)"), ("val_loss", "validation")):
        left.plot(epochs, [row.get(key, np.nan) for row in rows], label=name, marker=".")
    left.set_ylabel("loss")
    left.set_ylim(bottom=0)
    for key, name in (("miou", "mIoU"), ("mean_accuracy", "mean accuracy"), ("pixel_accuracy", "pixel accuracy")):
        right.plot(epochs, [100 * row.get(f"val_{key}", np.nan) for row in rows], label=name, marker=".")
    right.set_ylabel("validation score (%)")
    for name in told:
        panels[2].plot(epochs, [100 * row.get(f"val_iou/{name}", np.nan) for row in rows], label=name, marker=".")
        panels[2].set_ylabel("validation IoU of the rarest classes (%)")
    for axes in panels[1:]:
        axes.set_ylim(0, 100)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        _legend(axes, axes.get_lines(), loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path, class_names)


def plot_class_iou(scores: RunScores, colors: Colors, title: str, path: Path) -> None:
    """One bar per class in the data set's colours, most frequent class first, the mean as a line."""
    order = sorted(range(len(colors)), key=lambda c: -scores.classes[c].pixels)
    rows = [scores.classes[c] for c in order]
    figure, axes = _figure(8, 0.3 * len(rows) + 1.4)
    ious = [100 * (row.iou or 0) for row in rows]
    bars = axes.barh(range(len(rows)), ious, color=[_bar_colors(colors)[c] for c in order], edgecolor="0.4")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.bar_label(bars, [percent(row.iou) for row in rows], padding=2, fontsize=8)
    if scores.miou is not None:
        label = f"mIoU {percent(scores.miou)} of {scores.classes_averaged} classes by {scores.protocol}"
        axes.axvline(100 * scores.miou, color="0.2", linestyle="--", label=label)
        axes.legend(loc="lower right")
    axes.set_xlim(0, 105)
    axes.set_xlabel("IoU (%)")
    axes.invert_yaxis()
    axes.set_title(title)
    _save(figure, path, [row.name for row in scores.classes])


def plot_confusions(confusions: Sequence[Confusion], title: str, path: Path, class_names: Sequence[str] = ()) -> None:
    """The largest confusions as bars, of as many classes as you like: share of the true class's pixels (%)."""
    figure, axes = _figure(9, 0.3 * max(len(confusions), 1) + 1.4)
    names = [f"{row.true} as {row.predicted or 'no class'}" for row in confusions]
    bars = axes.barh(range(len(names)), [100 * row.share for row in confusions], color="C0")
    axes.bar_label(
        bars, [f"{100 * row.share:.0f} ({row.pixels:,} pixels)" for row in confusions], padding=2, fontsize=8
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 125)  # room for the labels
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("share of the true class's pixels (%)")
    axes.invert_yaxis()
    axes.set_title(textwrap.fill(f"{title}, largest confusions", 90), fontsize=11)
    _save(figure, path, class_names)


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], title: str, path: Path) -> None:
    """Row-normalised confusion matrix: where the pixels of each true class went (%). Of at most MOST_CLASSES."""
    shares = 100 * matrix[:, : len(class_names)] / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = 0.55 * len(class_names) + 2
    figure, axes = _figure(size + 1, size)
    image = _show_shares(axes, shares, class_names, most=30, least=0.5, aspect="equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(textwrap.fill(title, int(11 * (size + 1))), fontsize=11)  # 11 letters an inch
    figure.colorbar(image, label="share of the true class's pixels (%)", shrink=0.8)
    _save(figure, path, class_names)


def plot_predictions(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    colors: Colors,
    path: Path,
    by_rule: Sequence[np.ndarray] = (),
) -> None:
    """A grid, one row per sample (name, image, labels, predicted): image, truth, prediction, errors; a legend below.

    ``by_rule``: of each sample what the IoU rule decides, a column more, whose errors are shown then.
    """
    from matplotlib.patches import Patch

    columns = 5 if by_rule else 4

    height, width = samples[0][1].shape[:2]
    cell = 3.0
    legend_rows = -(-(len(class_names) + len(PLACES) + 2) // 7)
    figure, grid = _figure(
        columns * cell,
        len(samples) * cell * height / width + 0.5 + 0.28 * legend_rows,
        nrows=len(samples),
        ncols=columns,
        squeeze=False,
    )
    for place, (axes, (name, image, labels, predicted)) in enumerate(zip(grid, samples, strict=True)):
        ruled = by_rule[place] if by_rule else None
        last = predicted if ruled is None else ruled
        accuracy = (last == labels)[labels < len(class_names)]
        share = percent(accuracy.mean() if accuracy.size else None)
        right = f"errors{'' if ruled is None else ' of that'} ({share} % right)"
        panels = [
            (name, image),
            ("truth", paint(labels, colors)),
            ("prediction" if ruled is None else "plain argmax", paint(predicted, colors)),
            *([] if ruled is None else [("decided for mean IoU", paint(ruled, colors))]),
            (right, paint_errors(last, labels, len(class_names))),
        ]
        for ax, (title, picture) in zip(axes, panels, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
    entries = [
        *zip(class_names, _bar_colors(colors), strict=True),
        *zip(
            ("right", *(f"wrong {place}" for place in PLACES), "ignored"),
            _bar_colors((CORRECT_COLOR, *ERROR_COLORS, IGNORED_COLOR)),
            strict=True,
        ),
    ]
    handles = [Patch(facecolor=color, edgecolor="0.5", label=name) for name, color in entries]
    _legend(figure, handles, loc="outside lower center", ncols=7, fontsize=8)
    _save(figure, path, class_names)
