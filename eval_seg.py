"""Score trained runs or folders of predicted masks: per-image results -> scores, intervals, comparison, report.

python eval_seg.py --checkpoint runs/A runs/B --split test
python eval_seg.py --predictions masks/A masks/B --labels masks/true

Started by torchrun or another launcher, each process scores a share of the images, and the first writes.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segloss.config import EvalConfig
    from segloss.evaluation.mask_source import MaskSource
    from segloss.evaluation.results import Totals
    from segloss.evaluation.run_source import RunSource
    from segloss.report.pages import Made
    from segloss.schema import SweepPoint


def evaluate(argv: list[str] | None = None) -> None:
    from segloss.config import EvalConfig
    from segloss.flags import parse_config

    config = parse_config(EvalConfig, "eval_seg.py", argv)

    if config.only_predicts:
        predict(config)
        return

    from segloss.doctor.examination import check_scored
    from segloss.evaluation.parts import require_parts
    from segloss.evaluation.shares import score_share, stores_of
    from segloss.evaluation.sources import sources_of_masks, sources_of_runs
    from segloss.ranks import here
    from segloss.report.tables import alone_in, make_folder
    from segloss.report.terminal import console, progress_bar

    folder = here().from_first(partial(output_folder, config))
    say = partial(console.print, soft_wrap=True)
    runs = sources_of_runs(config, folder, say, progress_bar, check_scored) if config.checkpoint else []
    sources = runs or sources_of_masks(config, folder, say, progress_bar)
    for source in sources if config.by else ():
        require_parts(source.names, str(config.by))
    if config.share is not None:
        for source in sources:
            say(score_share(source, folder, config.share, progress_bar(f"scoring {source.name}")))
        return
    merged = stores_of(config.merge, sources, folder) if config.merge else None
    if here().rank:
        score(config, argv, folder, sources, merged)
        return
    make_folder(folder)
    with alone_in(folder):
        score(config, argv, folder, sources, merged)


def score(
    config: "EvalConfig",
    argv: list[str] | None,
    folder: Path,
    sources: Sequence["RunSource | MaskSource"],
    merged: dict[str, list[Path]] | None,
) -> None:
    """Score, compare, print and write, in place of what an earlier evaluation wrote into the folder."""
    from segloss.errors import refuse_errors
    from segloss.evaluation.comparison import compare, on_common_images
    from segloss.evaluation.doubts import other_groups, same_counts
    from segloss.evaluation.extremes import MOST_RUNS, extremes
    from segloss.evaluation.score import score_all
    from segloss.ranks import here
    from segloss.report.alarms import not_found
    from segloss.report.pages import write_report
    from segloss.report.suspects import write_suspects
    from segloss.report.tables import clear_results, write_evaluation
    from segloss.report.terminal import console, print_comparison, print_parts, print_scores, progress_bar
    from segloss.report.wording import title_of

    say = partial(console.print, soft_wrap=True)
    if here().rank == 0:
        clear_results(folder, [source.name for source in sources])
    how: dict[str, Any] = {"protocol": config.protocol, "by": config.by, "progress": progress_bar}
    try:
        scores, totals = score_all(sources, folder, merged=merged, **how)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; what was scored is kept: go on with --output-dir {folder}") from stop
    if here().rank:
        return
    findings = {source.name: source.findings(totals[source.name]) for source in sources}
    if config.check != "off":
        listed_by = "python -m segloss.doctor --predictions" if config.predictions else "--check off"
        refuse_errors([found for each in findings.values() for found in each], listed_by)
    untried = "" if "iou" in config.scored_by or "auto" in config.scored_by else "look at --decision iou first; then "
    for source in sources:
        name, seen = source.name, source.training_pixels
        print_scores(scores[name], title_of(name, scores[name]))
        lost = not_found(scores[name], before=untried, training_pixels=seen) if config.checkpoint else []
        for finding in [*findings[name], *lost]:
            say(f"warning: {finding}")
    for finding in [*same_counts(totals), *other_groups({name: found.groups for name, found in scores.items()})]:
        say(f"warning: {finding}")
    print_parts(scores)

    groups: dict[str, list[str]] = {}
    for name, group in zip(scores, config.group or scores, strict=True):
        groups.setdefault(group, []).append(name)
    counts = on_common_images(totals)
    block = None if config.block == "auto" else int(config.block)
    of_groups = {group: [counts[name] for name in names] for group, names in groups.items()}
    comparison = compare(of_groups, block=block, protocol=config.protocol, members=groups)
    print_comparison(comparison)
    sweeps, chosen = sweep(config, sources, totals, folder) if config.sweep_tau else ({}, {})
    classes, matrices = sources[0].classes, {name: total.matrix for name, total in totals.items()}
    plots = write_evaluation(folder, classes.names, scores, matrices, comparison, sweeps, chosen)
    shown = {source.name: extremes(source, totals[source.name], config.page_images) for source in sources[:MOST_RUNS]}
    made = made_by(config, argv, folder)
    write_report(folder / "report.html", classes, scores, matrices, comparison, plots, shown, made)
    for source in sources:
        if source.suspects is not None:
            best, title = source.suspects.best, f"{title_of(source.name, scores[source.name])}: suspicious labels"
            ranked = source.suspects.ranked_images
            page = write_suspects(folder, source.name, title, classes, best, ranked, source.image)
            say(f"{source.name}: {len(best)} regions in {len(ranked)} images whose label is suspicious: {page}")
    console.print(f"results: {folder}, page: {folder / 'report.html'}", soft_wrap=True)


def made_by(config: "EvalConfig", argv: list[str] | None, folder: Path) -> "Made":
    """What the page says of its own making."""
    import segloss
    from segloss.report.pages import Made

    folders = {"results": str(folder)}
    if config.predictions:
        folders |= {"predictions": " ".join(config.predictions), "labels": str(config.labels)}
        folders |= {"images": config.images} if config.images else {}
    else:
        folders |= {"runs": " ".join(config.checkpoint)}
        folders |= {"data": config.data_path} if config.data_path else {}
    command = shlex.join(["eval_seg.py", *(sys.argv[1:] if argv is None else argv)])
    return Made(time.strftime("%Y-%m-%d %H:%M"), segloss.__version__, command, folders)


def predict(config: "EvalConfig") -> None:
    """Class maps of a folder of images without labels."""
    from segloss.evaluation.sources import predict_images
    from segloss.ranks import here
    from segloss.report.terminal import console, progress_bar

    say, folder = partial(console.print, soft_wrap=True), here().from_first(partial(output_folder, config))
    for written in predict_images(config, folder, say, progress_bar):
        console.print(f"predictions: {written}", soft_wrap=True)


def sweep(
    config: "EvalConfig", sources: Sequence["RunSource | MaskSource"], totals: dict[str, "Totals"], folder: Path
) -> tuple[dict[str, list["SweepPoint"]], dict[str, tuple[str, float]]]:
    """The table of operating points of each run or folder of maps, and the point chosen or else decided by.

    With ``--choose-metric`` the best one goes into the run's folder.
    """
    from segloss.evaluation.chosen import chosen_images
    from segloss.evaluation.map_source import MapSource
    from segloss.evaluation.run_source import RunSource
    from segloss.evaluation.score import totals_of_some
    from segloss.evaluation.summary import members_of_groups
    from segloss.evaluation.sweep import choose, chosen_under, gain, point_text, sweep_table, to_keep
    from segloss.report.terminal import console

    tables, chosen = {}, {}
    for source in sources:
        if not isinstance(source, RunSource | MapSource):
            continue
        decision = source.measures.decision
        if str(decision) != "tau 1":
            chosen[source.name] = (decision.rule, decision.value)
        true = totals[source.name].matrix.sum(1).tolist()
        tail = members_of_groups(true, source.training_pixels)["tail"]
        tables[source.name] = sweep_table(totals[source.name], tail, config.protocol)
        if config.choose_metric and isinstance(source, RunSource):
            some = totals_of_some(source, folder, chosen_images(config.choose_on, source.dataset))
            points = sweep_table(some, tail, config.protocol)
            point = choose(points, config.choose_metric)
            chosen[source.name] = (point.rule, float(point.value or 0))
            path = source.run.keep(point=to_keep(point, config, some.images))
            said = f"{source.name}: {point_text(point)} for {config.choose_metric} on {some.images} images"
            console.print(f"{said}: {gain(points, point, config.choose_metric)}, kept in {path}", soft_wrap=True)
            if under := chosen_under(config):
                console.print(
                    f"warning: chosen under {under}, and --decision auto takes it without too", soft_wrap=True
                )
    return tables, chosen


def output_folder(config: "EvalConfig") -> Path:
    """--output-dir, else a folder inside the one run, else one for the comparison."""
    if config.output_dir:
        return Path(config.output_dir)
    if config.only_predicts:
        return Path("runs") / f"predictions-{time.strftime('%Y%m%d-%H%M%S')}"
    from segloss.hub import is_given

    run = Path(config.checkpoint[0]) if len(config.checkpoint) == 1 else None
    if run is not None and run.is_dir() and not is_given(run):  # which is to stay as it was given
        decision = "" if config.scored_by == ("plain",) else f"-{''.join(config.scored_by).replace(' ', '')}"
        return run / f"eval-{config.split}{decision}"
    return Path("runs") / f"eval-{time.strftime('%Y%m%d-%H%M%S')}"


def main() -> None:
    from segloss.commands import run_command

    run_command("eval")


if __name__ == "__main__":
    main()
