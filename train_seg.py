"""Train a semantic segmentation model: flags -> data -> pixel counts -> loss -> model -> fit -> score -> run folder.

python train_seg.py --dataset camvid --data-path DIR --arch unet --encoder resnet34 --loss outlying_mse
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segloss.inference import Machine
    from segloss.training.data import Splits


def train(argv: Sequence[str] | None = None) -> None:
    from segloss.runs import parse_train_config

    config = parse_train_config(argv)  # before the slow imports: what can be refused without data is answered at once

    from lightning.pytorch.utilities import rank_zero_only

    from segloss.doctor.examine import check_before, check_histograms
    from segloss.inference import find_machine
    from segloss.models import require_batch_statistics
    from segloss.pixel_counts import image_histograms, load_or_count, require_two_classes
    from segloss.report.terminal import console, progress_bar
    from segloss.runs import (
        LAST,
        Used,
        augmentations_file,
        check_same_classes,
        check_same_counts,
        checkpoint_content,
        choose_run_folder,
        criterion_of,
        load_run,
        open_run_folder,
        used_so_far,
    )
    from segloss.training.announce import announce
    from segloss.training.data import SegmentationData, prepare_training, training_data
    from segloss.training.task import SegmentationTask
    from segloss.training.trainer import build_trainer, seed_everything

    folder = choose_run_folder(config)
    before = used_so_far(config)
    augmentations_file(config)
    machine = find_machine(config.accelerator, before.precision, config.workers)
    trainer = build_trainer(config, machine.precision, folder, console)
    seed_everything(config.seed)

    say = rank_zero_only(partial(console.print, soft_wrap=True))
    for line in config.unused_options():
        say(f"warning: {line}")
    splits = training_data(config, before.crop_size)
    check_before(splits.all, config.check, say)
    classes = splits.train.classes
    last = folder / LAST
    resuming = config.resume and last.is_file()
    if resuming:
        run = load_run(last)  # not built anew: the encoder's weights file may be gone by now
        check_same_classes(run, splits.train)
        model = run.model.train()
    else:
        model = config.build(len(classes))
    per_device = max(1, splits.images_per_epoch // config.devices)
    require_batch_statistics(model, min(config.batch_size, per_device), splits.crop_size)
    counts, source = load_or_count(splits.train, progress=progress_bar("counting pixels"))
    for dataset in splits.all[1:]:
        load_or_count(dataset, progress=progress_bar(f"checking {dataset.split} masks"))  # a stray id is found now
    if config.check != "off":
        for dataset in splits.all:
            check_histograms(dataset, image_histograms(dataset)[0].numpy())
    criterion = criterion_of(config, require_two_classes(counts))
    splits = prepare_training(config, splits, counts)
    if config.resume:
        check_same_counts(folder, counts)
    used = Used.of(config, splits.crop_size, machine)

    if trainer.is_global_zero:
        open_run_folder(folder, config, used, counts)
        announce(config, splits, counts, source, criterion, model, trainer, folder)
    task = SegmentationTask(model, criterion, config, checkpoint_content(config, used, classes, counts, model))
    try:
        trainer.fit(task, SegmentationData(splits, config, machine.workers), ckpt_path=last if resuming else None)
    except SystemExit:  # Lightning's answer to Ctrl-C, after its callbacks have saved and said what to do
        sys.exit(130)

    if trainer.is_global_zero:
        score_run(folder, splits, config.batch_size, machine)


def score_run(folder: Path, splits: "Splits", batch_size: int, machine: "Machine") -> None:
    """Score the best weights on val and, where it has labels, on test; draw the pictures."""
    from segloss.evaluation.predictions import KeepSome
    from segloss.evaluation.run_source import Measures, RunSource
    from segloss.evaluation.score import score
    from segloss.files import write_json
    from segloss.report.plots import draw_run
    from segloss.report.terminal import console, print_scores, progress_bar
    from segloss.runs import load_run

    run = load_run(folder)
    for dataset in splits.all[1:]:
        kept = KeepSome(dataset, 4)
        source = RunSource(
            run.name,
            run,
            dataset,
            Measures(calibration=True),
            device=machine.device,
            batch_size=batch_size,
            workers=machine.workers,
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
