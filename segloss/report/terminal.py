"""What a person reads in the terminal: tables and progress."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import progress as rich
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from torch import Tensor

from segloss.errors import cure_of_black_and_white
from segloss.losses import class_ranks
from segloss.pixel_counts import PixelCounts
from segloss.progress import Item, Progress
from segloss.report.wording import (
    class_ratios,
    comparison_mean,
    counted_in,
    interval_source,
    interval_text,
    pair_text,
    part_table,
    percent,
    summary_lines,
)
from segloss.schema import Comparison, RunScores

console = Console(highlight=False, markup=False, emoji=False)  # names may hold [brackets] and :colons:

NARROWEST = 16  # letters of a column of names; longer ones are folded where the terminal is narrow
WIDEST = 10_000  # letters of a table
MOST_SKIPPED = 20  # lines on images that were left out


def new_progress(on: Console = console) -> rich.Progress:
    """A bar that disappears when it is done."""
    return rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=on,
        transient=True,
    )


def progress_bar(description: str) -> Progress:
    """``progress(iterable, length)`` that draws a bar on a terminal and nothing elsewhere."""

    def progress(iterable: Iterable[Item], length: int) -> Iterable[Item]:
        if not console.is_terminal:
            yield from iterable
            return
        with new_progress() as bar:
            yield from bar.track(iterable, total=length, description=description)

    return progress


def _bar(share: float, width: int = 10) -> str:
    """A bar in eighths of a column, in whole ones where the terminal's encoding may have no signs for them."""
    if not console.encoding.startswith("utf"):
        return "#" * round(share * width)
    full, eighths = divmod(round(share * width * 8), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    return table


def _print(table: Table) -> None:
    """A table that the terminal is too narrow for is printed at its own width, which loses neither names nor digits."""
    whole = Measurement.get(console, console.options.update_width(WIDEST), table).maximum
    longest = max((cell_len(str(name)) for name in table.columns[0].cells), default=0)
    width = whole - max(0, longest - NARROWEST)
    if width > console.width:
        table.width = width
    console.print(table, crop=False)


def _share(share: float) -> str:
    """Percent to two decimals, a smaller one to its first that is not 0."""
    decimals = max(2, math.ceil(-math.log10(100 * share))) if share else 2
    return f"{100 * share:.{decimals}f}"


def print_class_counts(counts: PixelCounts, label_values: Tensor | None, source: str) -> None:
    """The class table: pixels, share, images, rank and, where the loss has them, label values."""
    complete = counts.complete.pixels
    total = sum(complete)
    table = _table(f"{counts.dataset} {counts.split}: {counts.image_count} images")
    columns = ["pixels", "share %", "images", *["labelled in"] * bool(counts.labelled_images), "rank"]
    for column in [*columns, *["label value"] * (label_values is not None)]:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ranks = class_ranks(counts).tolist()
    for c, name in enumerate(counts.class_names):
        value = [] if label_values is None else [f"{float(label_values[c]):.4g}"]
        share = complete[c] / total
        labelled = [f"{n:,}" for n in counts.labelled_images[c : c + 1]]
        cells = [f"{counts.pixels[c]:,}", _share(share), str(counts.images[c]), *labelled, str(ranks[c]), *value]
        table.add_row(name, *cells, _bar(complete[c] / max(complete)))
    _print(table)
    empty = [name for name, pixels in zip(counts.class_names, counts.pixels, strict=True) if pixels == 0]
    if empty:
        hint = "check the mask ids"
        if counts.class_names[1:] == (*empty,):  # of two
            hint += f"; where they are 0 and 255, {cure_of_black_and_white(counts.class_names)}"
        console.print(f"warning: no pixel of {', '.join(empty)} in {counts.split}; {hint}", soft_wrap=True)
    console.print(f"ignored: {counts.ignored_pixels:,} pixels; counts: {source}", soft_wrap=True)


def print_findings(findings: Sequence[Any], rows: Sequence[dict[str, str]]) -> None:
    """The data doctor's findings, one line each, and a table of the splits."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("split", no_wrap=True)
    for column in ("images", "examined", "classes", "ignored"):
        table.add_column(column, justify="right", no_wrap=True)
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


def print_advice(rows: Sequence[tuple[str, Any, str]], shortfalls: Sequence[str]) -> None:
    """A plan: option, value and reason in each row, then a line for everything that the data cannot give."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("option", "value"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, value, why in rows:
        table.add_row(name, " ".join(map(str, value)) if isinstance(value, list) else str(value), why)
    console.print(table)
    for line in shortfalls:
        console.print(Text.assemble(("note:", "yellow"), f" {line}"))


def print_scores(scores: RunScores, title: str) -> None:
    """The per-class table and the means of one evaluation."""
    table, measures = _table(title), counted_in([scores])
    counted = [measure.of_class.short or measure.of_class.title for measure in measures]
    for column in ("IoU %", "recall", "precision", "F1", *counted, "pixels", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in scores.classes:
        ratios = map(percent, class_ratios(row, measures))
        table.add_row(row.name, *ratios, f"{row.pixels:,}", f"{row.images:,}")
    _print(table)
    for counts in scores.tables or ():
        table = Table(title=counts.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column, cell in zip(counts.columns, counts.rows[0] if counts.rows else counts.columns, strict=True):
            words = isinstance(cell, str)
            table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
        for cells in counts.rows:
            table.add_row(*(cell if isinstance(cell, str) else f"{cell:,}" for cell in cells))
        _print(table)
    for line in summary_lines(scores):
        console.print(line, soft_wrap=True)
    skipped = scores.origin.skipped or ()
    for line in skipped[:MOST_SKIPPED]:
        console.print(f"left out: {line}", soft_wrap=True)
    if len(skipped) > MOST_SKIPPED:
        console.print(f"left out: {len(skipped) - MOST_SKIPPED} more, which metrics.json and the page list")


def print_parts(runs: Mapping[str, RunScores]) -> None:
    """mIoU by folder or sequence of every run, if it was asked for; of how many classes where that differs."""
    names, rows = part_table(runs)
    if not rows:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="mIoU % of parts (classes in the mean)", title_justify="left")
    table.add_column("part", overflow="fold")
    for column in ("images", *names):
        table.add_column(column, justify="right", overflow="fold")
    for name, images, means in rows:
        table.add_row(name, f"{images:,}", *(f"{percent(mean)} ({averaged})" for mean, averaged in means))
    console.print(table)


def print_comparison(comparison: Comparison) -> None:
    """mIoU of every setting with its interval, ranked, and the differences of all pairs."""
    over = f"{comparison_mean(comparison)}, {comparison.images} images"
    console.print(f"mIoU % {over}; {interval_source(comparison)}", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    grouped = any(row.runs > 1 for row in comparison.ranking)
    table.add_column("setting" if grouped else "run", overflow="fold")
    for column in ("mIoU %", *(["runs"] if grouped else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in comparison.ranking:
        table.add_row(row.name, interval_text(row.miou), *([str(row.runs)] if grouped else []))
    console.print(table)
    for pair in comparison.pairs:
        console.print(pair_text(pair), soft_wrap=True)


def print_recipes(statistics: dict[str, Any]) -> None:
    """Label values and class weights by every recipe, side by side, most frequent class first."""
    order = np.argsort(statistics["splits"][statistics["recipes_from"]]["rank"])
    for key, title in (("label_values", "label values"), ("class_weights", "class weights")):
        table = _table(f"{title} from {statistics['recipes_from']}")
        for recipe in statistics[key]:
            table.add_column(recipe, justify="right", no_wrap=True)
        for c in order:
            table.add_row(statistics["classes"][c], *(f"{numbers[c]:.4g}" for numbers in statistics[key].values()))
        _print(table)
