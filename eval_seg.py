"""Score trained runs or folders of predicted masks: per-image results -> scores, intervals, comparison, report.

python eval_seg.py --checkpoint runs/A runs/B --split test
python eval_seg.py --predictions masks/A masks/B --labels masks/true
"""

import time
from functools import partial
from pathlib import Path


def evaluate(argv: list[str] | None = None) -> None:
    from segloss.config import EvalConfig
    from segloss.flags import parse_config

    config = parse_config(EvalConfig, "eval_seg.py", argv)

    if config.images:
        predict(config)
        return

    from segloss.evaluation.comparison import compare, on_common_images
    from segloss.evaluation.extremes import MOST_RUNS, extremes
    from segloss.evaluation.score import doubtful_ids, score
    from segloss.evaluation.sources import sources_of_masks, sources_of_runs
    from segloss.report.pages import write_report
    from segloss.report.tables import clear_results, make_folder, write_evaluation
    from segloss.report.terminal import console, print_comparison, print_scores, progress_bar
    from segloss.report.wording import title_of

    folder = output_folder(config)
    say = partial(console.print, soft_wrap=True)
    sources = (sources_of_runs if config.checkpoint else sources_of_masks)(config, folder, say)
    make_folder(folder)
    clear_results(folder, [source.name for source in sources])
    metrics, totals = {}, {}
    for source in sources:  # all checked before the first is scored
        metrics[source.name], totals[source.name] = score(
            source,
            store=folder / f"{source.name}.sqlite",
            protocol=config.protocol,
            progress=progress_bar(f"scoring {source.name}"),
        )
        print_scores(metrics[source.name], title_of(source.name, metrics[source.name]))
        if warning := doubtful_ids(source, totals[source.name].matrix):
            say(warning)

    groups: dict[str, list] = {}
    members: dict[str, list[str]] = {}
    counts = on_common_images(totals)
    for name, group in zip(metrics, config.group or list(metrics), strict=True):
        groups.setdefault(group, []).append(counts[name])
        members.setdefault(group, []).append(name)
    comparison = compare(groups, block=config.block, protocol=config.protocol, members=members)
    print_comparison(comparison)
    sweeps = sweep(config, sources, totals, folder) if config.sweep_tau else {}
    plots = write_evaluation(folder, sources, metrics, totals, comparison, sweeps)
    matrices = {name: total.matrix for name, total in totals.items()}
    shown = {source.name: extremes(source, totals[source.name]) for source in sources[:MOST_RUNS]}
    write_report(folder / "report.html", sources[0].classes, metrics, matrices, comparison, plots, shown)
    console.print(f"results: {folder}, page: {folder / 'report.html'}", soft_wrap=True)


def predict(config) -> None:
    """Class maps of a folder of images without labels."""
    from segloss.evaluation.sources import predict_images
    from segloss.report.terminal import console, progress_bar

    for written in predict_images(config, output_folder(config), progress_bar):
        console.print(f"predictions: {written}", soft_wrap=True)


def sweep(config, sources, totals, folder: Path) -> dict:
    """The table of operating points of each run; with ``--choose-metric`` the best one goes into its run folder."""
    from segloss.evaluation.score import totals_of_some
    from segloss.evaluation.sources import chosen_images
    from segloss.evaluation.sweep import choose, sweep_table
    from segloss.metrics import class_groups
    from segloss.report.terminal import console
    from segloss.runs import save_operating_point

    tables = {}
    for source in sources:
        tail = class_groups(source.training_pixels)["tail"]
        tables[source.name] = sweep_table(totals[source.name], tail, config.protocol)
        if config.choose_metric:
            some = totals_of_some(source, folder, chosen_images(config.choose_on, source.dataset))
            row = choose(sweep_table(some, tail, config.protocol), config.choose_metric)
            path = save_operating_point(source.run, row, config, some.images)
            said = f"{source.name}: {row['rule']} {row['value']:g} for {config.choose_metric} on {some.images} images"
            console.print(f"{said}, kept in {path}", soft_wrap=True)
    return tables


def output_folder(config) -> Path:
    """--output-dir, else a folder inside the one run, else one for the comparison."""
    if config.output_dir:
        return Path(config.output_dir)
    if config.images:
        return Path("runs") / f"predictions-{time.strftime('%Y%m%d-%H%M%S')}"
    if len(config.checkpoint) == 1 and Path(config.checkpoint[0]).is_dir():
        tau = "" if config.decision_tau == "1" else f"-tau{config.decision_tau}"
        return Path(config.checkpoint[0]) / f"eval-{config.split}{tau}"
    return Path("runs") / f"eval-{time.strftime('%Y%m%d-%H%M%S')}"


def main() -> None:
    from segloss.errors import exit_on_input_error

    exit_on_input_error(evaluate)


if __name__ == "__main__":
    main()
