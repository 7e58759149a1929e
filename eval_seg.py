"""Score trained models on a labelled split: checkpoints -> confusion matrices -> tables, JSON, CSV, pictures.

python eval_seg.py --checkpoint runs/A runs/B --split test
"""

import time
from pathlib import Path


def evaluate_runs(argv: list[str] | None = None) -> None:
    from segloss.config import EvalConfig, parse_config

    config = parse_config(EvalConfig, "eval_seg.py", argv)

    from segloss.doctor import check_before
    from segloss.evaluation import (
        dataset_for_run,
        distinct_names,
        pick_device,
        resolve_precision,
        save_index_png,
        score,
    )
    from segloss.report import console, print_scores, progress_bar, write_evaluation
    from segloss.runs import load_run

    device = pick_device(config.accelerator)
    precision = resolve_precision(config.precision, device)
    runs = [load_run(path) for path in config.checkpoint]
    names = distinct_names(runs)
    datasets = [dataset_for_run(run, config) for run in runs]  # all checked before the first is scored
    for dataset in {dataset.fingerprint(): dataset for dataset in datasets}.values():
        check_before([dataset], config.check, console.print)
    folder = output_folder(config, runs)

    folder.mkdir(parents=True, exist_ok=True)  # an impossible folder is answered before the work, not after it
    results = {}
    for name, run, dataset in zip(names, runs, datasets, strict=True):
        ids = dataset.classes.ids
        results[name] = score(
            run.model,
            run.criterion,
            dataset,
            device=device,
            precision=precision,
            decision_tau=config.decision_tau,
            batch_size=config.batch_size,
            workers=config.workers,
            progress=progress_bar(f"scoring {name}"),
            on_sample=save_index_png(folder / "predictions" / name, ids) if config.save_predictions else None,
        )
        metrics = results[name][0]
        console.print(f"form: {dataset.found.form}", soft_wrap=True)
        print_scores(metrics, f"{name} on {dataset.name} {dataset.split}: {metrics['images']} images")
    write_evaluation(folder, results, runs[0].classes)
    console.print(f"results: {folder}", soft_wrap=True)


def output_folder(config, runs) -> Path:
    """--output-dir, else a folder inside the one run, else one for the comparison."""
    if config.output_dir:
        return Path(config.output_dir)
    if len(runs) == 1 and Path(config.checkpoint[0]).is_dir():
        tau = "" if config.decision_tau == 1 else f"-tau{config.decision_tau:g}"
        return Path(config.checkpoint[0]) / f"eval-{config.split}{tau}"
    return Path("runs") / f"eval-{time.strftime('%Y%m%d-%H%M%S')}"


def main() -> None:
    from segloss.errors import exit_on_input_error

    exit_on_input_error(evaluate_runs)


if __name__ == "__main__":
    main()
