"""Train a semantic segmentation model: flags -> data -> pixel counts -> loss -> model -> fit -> score -> run folder.

python train_seg.py --dataset camvid --data-path DIR --arch unet --encoder resnet34
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segloss.config import TrainConfig
    from segloss.inference import Machine
    from segloss.training.data import Splits


def train(argv: Sequence[str] | None = None) -> None:
    from segloss.resume import parse_train_config

    # Before the slow imports: what can be refused without data is answered at once.
    config = parse_train_config(argv, _planned)
    config.require_place()

    from lightning.pytorch.utilities import rank_zero_only
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

    from segloss.band_statistics import load_or_count_bands
    from segloss.doctor.examination import check_before, check_histograms
    from segloss.errors import InputError, Terminated, sigterm_interrupts
    from segloss.inference import find_machine
    from segloss.losses import class_prior
    from segloss.models import require_batch_statistics
    from segloss.pixel_counts import image_histograms, load_or_count, require_two_classes
    from segloss.ranks import agreed, share_no_more
    from segloss.report.terminal import console, progress_bar
    from segloss.resume import (
        augmentations_file,
        check_same_counts,
        check_same_val,
        continued_bands,
        load_last,
        used_so_far,
    )
    from segloss.run_folder import Used, choose_run_folder, open_run_folder
    from segloss.runs import check_same_classes, checkpoint_content, criterion_of, load_run
    from segloss.training.announce import announce
    from segloss.training.data import SegmentationData, prepare_training, training_data
    from segloss.training.last_layer import start_bias
    from segloss.training.lightning_options import (
        batches_of_epoch,
        require_shared_norms,
        unused_trainer_options,
        validated_images,
    )
    from segloss.training.processes import require_processes
    from segloss.training.reported import not_validated, require_monitored
    from segloss.training.task import SegmentationTask
    from segloss.training.trainer import build_trainer, seed_everything
    from segloss.training.trials import fastest_rate, fitting_batch_size
    from segloss.training.warm_start import fit_normalisation, start_from

    require_processes(config)
    folder = choose_run_folder(config)
    before = used_so_far(config)
    augmentations_file(config)
    machine = find_machine(config.accelerator, before.precision, config.workers)
    trainer = build_trainer(config, machine.precision, folder, console)
    seed_everything(config.seed)

    say = rank_zero_only(partial(console.print, soft_wrap=True))
    for line in [*config.unused_options(), *unused_trainer_options(config, trainer)]:
        say(f"warning: {line}")
    splits = training_data(config, before.crop_size)
    check_before(splits.all, config.check, say)
    classes = splits.train.classes
    run = load_last(folder, say) if config.resume else None
    if run is not None:  # not built anew: the encoder's weights file may be gone by now
        check_same_classes(run, splits.train)
        model = run.model.train()
        bands = continued_bands(run, splits.train.bands)
    else:
        bands = load_or_count_bands(splits.train, progress=progress_bar("counting bands"))
        model = config.build(len(classes), normalisation=bands.normalisation, in_channels=bands.count)
        for line in fit_normalisation(model, bands):
            say(f"warning: {line}")
        if config.init_from is not None:
            say(start_from(load_run(config.init_from), model, classes, bands))
    require_shared_norms(trainer, config, model)
    model.freeze(encoder=config.encoder_lr_factor == 0, batch_norm=config.frozen_batch_norm)
    for dataset in splits.all:
        dataset.bands = bands
    per_device = max(1, splits.images_per_epoch // config.devices)
    require_batch_statistics(model, config.batch_size, splits.crop_size, per_device, bands.count, config.devices)
    counts, source = load_or_count(splits.train, progress=progress_bar("counting pixels"))
    of_others = [  # a stray id is found now
        load_or_count(dataset, progress=progress_bar(f"checking {dataset.split} masks"))[0]
        for dataset in splits.all[1:]
    ]
    looked_at, pixels = validated_images(config, len(splits.val), trainer), of_others[0].pixels
    if limited := looked_at < len(splits.val):
        pixels = tuple(image_histograms(splits.val)[0][:looked_at, :-1].sum(0).tolist())
    require_monitored(config.monitor, classes.names, pixels, counts.complete.pixels, limited=limited)
    for line in not_validated(classes.names, pixels, counts.complete.pixels, limited=limited):
        say(f"warning: {line}")
    if config.check != "off":
        for dataset in splits.all:
            check_histograms(dataset, image_histograms(dataset)[0].numpy())
    criterion = criterion_of(config, require_two_classes(counts))
    if run is None and config.init_from is None and config.bias_init == "prior":
        start_bias(model, criterion.scores_of(class_prior(counts.complete)))
    if config.auto_batch_size and run is None:
        find = partial(fitting_batch_size, model, criterion, config, splits, machine)
        fitting, most = agreed("BATCH_SIZE", find)
        config = replace(config, batch_size=fitting)
        say(f"batch size: {fitting}, of at most {most}")
    splits = prepare_training(config, splits, counts)
    if config.find_lr:
        rate = fastest_rate(model, criterion, config, splits, machine)
        say(f"the loss falls fastest at --lr {rate:.1e}; nothing was written")
        return
    batches_of_epoch(config, splits, trainer)
    if config.resume:
        check_same_counts(folder, counts)
    if run is not None:
        check_same_val(run, of_others[0], config.override)
    used = Used.of(config, splits.crop_size, machine, bands)

    if trainer.is_global_zero:
        open_run_folder(folder, config, used, counts, bands)
        announce(config, splits, counts, source, criterion, model, trainer, folder)
    content = checkpoint_content(config, used, classes, counts, model, bands, of_others[0])
    task = SegmentationTask(model, criterion, config, content)
    share_no_more()
    try:
        trainer.fit(task, SegmentationData(splits, config, machine.workers), ckpt_path=run.path if run else None)
    except SystemExit as stop:  # Lightning's answer to SIGTERM and Ctrl-C, after its callbacks have said how to go on
        sys.exit(143 if type(stop).__name__ == "SIGTERMException" else 130)
    except ProcessExitedException as error:  # a forked one was killed; the others are ended by torch
        if error.exit_code in (130, 143):
            sys.exit(error.exit_code)
        what = f"process {error.error_index} of {config.devices} has ended before its work was done"
        raise InputError(what, f"go on with --resume --output-dir {folder}") from error
    except ProcessRaisedException as error:  # of a forked process, as the text of its traceback
        name, _, message = str(error).strip().splitlines()[-1].partition("InputError: ")
        if name != "segloss.errors.":
            raise
        raise InputError(message) from error

    if trainer.is_global_zero:
        try:
            with sigterm_interrupts():
                score_run(folder, splits, config, machine)
        except KeyboardInterrupt as stop:
            how = "ended by SIGTERM" if isinstance(stop, Terminated) else "interrupted"
            again = f"go on with --resume --output-dir {folder}"
            raise type(stop)(f"{how}, training is done and only its scores are missing; {again}") from stop


def _planned(config: "TrainConfig", names: set[str]) -> dict[str, Any]:
    from segloss.plan.command import planned

    return planned(config, names)


def score_run(folder: Path, splits: "Splits", config: "TrainConfig", machine: "Machine") -> None:
    """Fit the decision of the best weights on val; score them there and, where it has labels, on test; draw them."""
    from segloss.errors import InputError
    from segloss.evaluation.fitting import fit
    from segloss.evaluation.predictions import CountByRule, KeepSome
    from segloss.evaluation.run_source import Measures, RunSource, all_of
    from segloss.evaluation.score import score
    from segloss.files import write_json
    from segloss.report.alarms import gain_by_rule, not_found
    from segloss.report.plots import draw_run
    from segloss.report.terminal import console, print_scores, progress_bar
    from segloss.runs import load_run, share_weights

    run = load_run(folder)
    share_weights(run.path)
    how: dict[str, Any] = {"device": machine.device, "batch_size": config.batch_size, "workers": machine.workers}
    partly_labelled = bool(run.counts.labelled_images)
    bar = progress_bar("fitting the decision")
    try:
        for line in fit(
            run,
            splits.val,
            training=splits.train_evaluated,
            calibrate=config.calibrate,
            alone=True,
            progress=bar,
            **how,
        ):
            console.print(line, soft_wrap=True)
    except InputError as error:
        console.print(f"warning: no decision was fitted: {error}", soft_wrap=True)
    for dataset in splits.all[1:]:
        kept = KeepSome(dataset, 4, run.kept.rule)
        by_rule = CountByRule(run.kept.rule, len(run.classes)) if run.kept.rule and not partly_labelled else None
        looks = all_of(kept, by_rule)
        source = RunSource(run.name, run, dataset, Measures(calibration=True), **how, on_sample=looks)
        scores, _ = score(source, progress=progress_bar(f"scoring {dataset.split}"))
        write_json(folder / f"{dataset.split}_metrics.json", scores.to_json())
    draw_run(folder, scores, run.classes, kept.samples, kept.by_rule)
    print_scores(scores, f"{dataset.name} {dataset.split}: {scores.images} images, {run.path.name}")
    counted = by_rule.confusion.compute() if by_rule else None
    for line in [gain_by_rule(scores, counted)] if counted else []:
        console.print(line, soft_wrap=True)
    for line in not_found(scores, counted, training_pixels=run.counts.complete.pixels):
        console.print(f"warning: {line}", soft_wrap=True)
    if splits.test is None:
        console.print("no test split with labels: test_metrics.json is not written")
    console.print(f"run folder: {folder}", soft_wrap=True)


def main() -> None:
    from segloss.commands import run_command

    run_command("train")


if __name__ == "__main__":
    main()
