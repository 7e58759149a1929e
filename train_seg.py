"""Train a semantic segmentation model: flags -> data -> pixel counts -> loss -> model -> fit -> score -> run folder.

python train_seg.py --dataset camvid --data-path DIR --arch unet --encoder resnet34 --loss outlying_mse
"""

import sys
from functools import partial
from pathlib import Path


def train(argv: list[str] | None = None) -> None:
    from segloss.config import parse_train_config

    config = parse_train_config(argv)  # before the slow imports: a misspelt flag is answered at once

    from lightning.pytorch.utilities import rank_zero_only

    from segloss.doctor.examine import check_before
    from segloss.inference import pick_device, resolve_precision
    from segloss.models import build_model, require_batch_statistics
    from segloss.pixel_counts import load_or_count, require_two_classes
    from segloss.report.terminal import console, progress_bar
    from segloss.runs import (
        LAST,
        check_same_classes,
        check_same_counts,
        checkpoint_content,
        choose_run_folder,
        criterion_of,
        load_run,
        open_run_folder,
    )
    from segloss.training.announce import announce
    from segloss.training.data import SegmentationData, prepare_training, training_data
    from segloss.training.task import SegmentationTask
    from segloss.training.trainer import build_trainer, seed_everything

    folder = choose_run_folder(config)
    device = pick_device(config.accelerator)
    config.precision = resolve_precision(config.precision, device)
    seed_everything(config.seed)

    say = rank_zero_only(partial(console.print, soft_wrap=True))
    for line in config.unused_options():
        say(f"warning: {line}")
    splits = training_data(config)
    check_before([d for d in (splits.train, splits.val, splits.test) if d is not None], config.check, say)
    classes = splits.train.classes
    counts, source = load_or_count(splits.train, run_folder=folder, progress=progress_bar("counting pixels"))
    for dataset in filter(None, (splits.val, splits.test)):
        load_or_count(dataset, progress=progress_bar(f"checking {dataset.split} masks"))  # a stray id is found now
    criterion = criterion_of(config, require_two_classes(counts))
    prepare_training(config, splits, counts)
    if config.resume:
        check_same_counts(folder, counts)
    last = folder / LAST
    resuming = config.resume and last.is_file()
    if resuming:
        run = load_run(last)  # not built anew: the encoder's weights file may be gone by now
        check_same_classes(run, splits.train)
        model = run.model.train()
    else:
        model = build_model(config.arch, config.encoder, len(classes), encoder_weights=config.encoder_weights)
    require_batch_statistics(model, config.batch_size, config.crop_size)
    trainer = build_trainer(config, folder, console)

    if trainer.is_global_zero:
        open_run_folder(folder, config, counts)
        announce(config, splits, counts, source, criterion, model, trainer, folder)
    task = SegmentationTask(model, criterion, config, checkpoint_content(config, classes, counts, model))
    data = SegmentationData(splits.train, splits.val, config, splits.repeat)
    try:
        trainer.fit(task, data, ckpt_path=last if resuming else None)
    except SystemExit:  # Lightning's answer to Ctrl-C, after its callbacks have saved and said what to do
        sys.exit(130)

    if trainer.is_global_zero:
        score_run(folder, splits, config, device)


def score_run(folder: Path, splits, config, device) -> None:
    """Score the best weights on val and, where it has labels, on test; draw the pictures."""
    from segloss.evaluation.predictions import KeepSome
    from segloss.evaluation.run_source import Measures, RunSource
    from segloss.evaluation.score import score
    from segloss.files import write_json
    from segloss.report.plots import draw_run
    from segloss.report.terminal import console, print_scores, progress_bar
    from segloss.runs import load_run

    run = load_run(folder)
    for dataset in filter(None, (splits.val, splits.test)):
        kept = KeepSome(dataset, 4)
        source = RunSource(
            run.name,
            run,
            dataset,
            Measures(calibration=True),
            device=device,
            batch_size=config.batch_size,
            workers=config.workers,
            on_sample=kept,
        )
        scores, _ = score(source, progress=progress_bar(f"scoring {dataset.split}"))
        write_json(folder / f"{dataset.split}_metrics.json", scores.to_json())
    draw_run(folder, scores, run.classes, kept.samples)
    print_scores(scores, f"{dataset.name} {dataset.split}: {scores.images} images, {run.path.name}")
    if splits.test is None:
        console.print("no test split with labels: test_metrics.json is not written")
    console.print(f"run folder: {folder}", soft_wrap=True)


def main() -> None:
    from segloss.errors import exit_on_input_error

    exit_on_input_error(train)


if __name__ == "__main__":
    main()
