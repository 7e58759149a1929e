"""What is to be scored or predicted, from the options of ``eval_seg.py``: checked before the first image is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from segloss.config import DataOptions, EvalConfig
from segloss.datasets import OPTIONS_HELP, ClassTable, SegmentationDataset
from segloss.datasets.bands import show_bands
from segloss.datasets.classes import told_as_mirrored
from segloss.datasets.finding import IMAGE_SUFFIXES, list_images, without_suffix
from segloss.datasets.missing import unread_pictures
from segloss.datasets.pairing import pair
from segloss.datasets.transforms import EvalTransform
from segloss.decisions import Decision, read_decision
from segloss.errors import InputError
from segloss.evaluation.chosen import chosen_images
from segloss.evaluation.comparison import common_images
from segloss.evaluation.ensemble import ensemble_of
from segloss.evaluation.fitting import fit, fitted_elsewhere, fitted_to_other_labels, images_to_fit_on
from segloss.evaluation.headers import doubts_of_images
from segloss.evaluation.map_source import MapSource, decision_of_maps
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.matching import class_table
from segloss.evaluation.posterior_maps import MapIndex, holds_maps
from segloss.evaluation.predictions import PredictionWriter
from segloss.evaluation.run_source import Measures, RunSource, all_of
from segloss.evaluation.shares import places_of
from segloss.evaluation.suspects import Suspects
from segloss.inference import AveragedPosterior, CalibratedPosterior, Machine, Views, ends, find_machine
from segloss.iou_rule import IoUDecision
from segloss.kept import FILE, Kept, kept_file
from segloss.losses import Criterion, class_prior
from segloss.pixel_counts import PixelCounts
from segloss.progress import Progress
from segloss.ranks import here
from segloss.report.alarms import TOLD
from segloss.report.tables import make_folder
from segloss.report.wording import percent, rule_text
from segloss.runs import Run, check_same_classes, load_run


def no_labels(dataset: SegmentationDataset) -> InputError:
    what = f"split {dataset.split!r} has no labels to score against"
    return InputError(what, "choose another --split", dataset.name)


def _runs(config: EvalConfig, folder: Path, say: Callable[[str], None]) -> list[Run]:
    """Those of ``--checkpoint``, or the one that they are together."""
    runs = [load_run(path) for path in config.checkpoint]
    return [ensemble_of(runs, folder, say)] if config.ensemble else runs


def sources_of_runs(
    config: EvalConfig,
    folder: Path,
    say: Callable[[str], None],
    progress: Callable[[str], Progress],
    check: Callable[[Sequence[SegmentationDataset], str, Callable[[str], None]], None],
) -> list[RunSource]:
    """One source per ``--checkpoint``, every data set checked by ``check`` and every decision fitted that must be.

    Raises:
        InputError: a run, its data or its operating point cannot be used.
    """
    build = _builder(config)
    runs = _runs(config, folder, say)
    datasets = [dataset_for_run(run, config) for run in runs]
    names = config.names or distinct_names(run.name for run in runs)
    for run, dataset in zip(runs, datasets, strict=True):
        if dataset.classes.names != datasets[0].classes.names:
            raise InputError(f"has other classes than {runs[0].path}", "score the two apart", run.path)
        chosen_images(config.choose_on, dataset)
        if config.dataset is None and config.data_path in (None, run.used.data_path):
            for line in ids_changed(run, dataset):
                say(f"warning: {run.name}: {line}")
    common_images({name: dataset.names for name, dataset in zip(names, datasets, strict=True)})
    for dataset in {dataset.fingerprint(): dataset for dataset in datasets}.values():
        say(f"form: {dataset.found.form}")
        if config.tta_flip and (sides := told_as_mirrored(dataset.classes.names)):
            say(f"--tta-flip: {sides} are swapped in the mirrored image")
        check([dataset], config.check, say)
    sources = []
    for name, run, dataset in zip(names, runs, datasets, strict=True):
        decision = decision_of(config, run, name, say, progress)
        say_of_plain(name, build(name, run, dataset).reader, decision, say)
        rule = run.kept.rule if config.sweep_tau else None
        measures = Measures(decision, counted_of(config), calibration=True, sweep=config.sweep_tau, rule=rule)
        save = None
        suspects = Suspects(config.suspects) if config.suspects else None
        if config.save_predictions:
            place = folder / "predictions" / name
            save = PredictionWriter(place, dataset.classes, config.save, dataset, MapIndex.of(run))
        sources.append(build(name, run, dataset, measures, on_sample=all_of(save, suspects)))
        sources[-1].suspects = suspects
    return sources


def ids_changed(run: Run, dataset: SegmentationDataset) -> Iterator[str]:
    """A line where the run's own data set gives classes other ids than in training: its masks or its class file may
    have been changed, and the other not."""
    named = zip(run.classes.names, run.classes.ids, dataset.classes.ids, strict=True)
    changed = [f"{name} {now} (it was {before})" for name, before, now in named if before != now]
    if changed:
        told = f"{', '.join(changed[:3])}{' ...' if changed[3:] else ''}"
        yield f"classes have other ids than in training: {told}; right if the masks were saved anew with these"


def _builder(config: EvalConfig) -> Callable[..., RunSource]:
    """:class:`RunSource` of any run, on the device and in the way asked for."""
    machine = _machine(config)
    return partial(
        RunSource,
        device=machine.device,
        precision=machine.precision,
        batch_size=config.batch_size,
        workers=machine.workers,
        views=Views(tuple(config.tta_scales), config.tta_flip, _tile(config), config.tile_overlap),
    )


def _machine(config: EvalConfig) -> Machine:
    """That of this process: of several on a machine each takes a GPU of its own, as far as there are."""
    machine, job = find_machine(config.accelerator, config.precision, config.workers), here()
    if machine.device.type != "cuda" or job.size == 1:
        return machine
    return replace(machine, device=torch.device("cuda", job.local_rank % torch.cuda.device_count()))


def _tile(config: EvalConfig) -> tuple[int, int] | None:
    return None if config.tile is None else (config.tile[0], config.tile[1])


def predict_images(
    config: EvalConfig, folder: Path, say: Callable[[str], None], progress: Callable[[str], Progress]
) -> list[Path]:
    """Class maps of images without labels, of a folder or one, for each ``--checkpoint``; the folders written to.

    Raises:
        InputError: a run cannot be used, or the folder holds no images.
    """
    build = _builder(config)
    runs = _runs(config, folder, say)
    place = Path(str(config.images))
    one = {without_suffix(place.name): place} if _is_image(place) else {}
    images = list_images(place) if place.is_dir() else one
    unread = unread_pictures(place.absolute()) if place.is_dir() else ""
    if not images:
        what = "is no image" if place.is_file() else "is neither an image nor a folder"
        what = f"holds no images{unread}" if place.is_dir() else what
        raise InputError(what, f"check --images, one of {', '.join(IMAGE_SUFFIXES)} or a folder of them", place)
    root = place.parent if place.is_file() else place
    found = pair(images, None, root.name, root, root)
    if unread:
        say(f"warning: {InputError(f'holds {len(images)} images{unread}', 'save them as PNG or JPEG', place)}")
    make_folder(folder)
    written = []
    for name, run in zip(config.names or distinct_names(run.name for run in runs), runs, strict=True):
        scale = run.config.image_scale if config.image_scale is None else config.image_scale
        dataset = SegmentationDataset("images", root.name, found, run.classes, EvalTransform(scale))
        show_bands([dataset], run.bands, config.show_bands)
        dataset.check_files()
        for doubt in doubts_of_images(dataset):
            say(f"warning: {name}: {doubt}")
        decision = decision_of(config, run, name, say, progress)
        say(f"{name}: decided by {decision}")
        source = build(name, run, dataset, Measures(decision))
        say_of_plain(name, source.reader, decision, say)
        written.append(folder / name if len(runs) > 1 else folder)
        save = PredictionWriter(written[-1], run.classes, config.save, dataset, MapIndex.of(run))
        _require_apart(images, save.folders.values())
        places = places_of(source, config.share)
        pixels = torch.zeros(len(run.classes), dtype=torch.int64)
        for _ in progress(f"predicting by {name}")(_saved(source, save, places, pixels), len(places)):
            pass
        of_all = torch.tensor(here().gather(pixels.tolist())).sum(0)  # all are written
        if here().rank == 0 and not of_all.sum():
            say(f"{name}: none of {len(images)} images is in this share: nothing is written")
        elif here().rank == 0:
            say(f"{name}: {rarest_of(run.classes.names, of_all, class_prior(run.counts))}")
    return written


def _is_image(path: Path) -> bool:
    """By its ending, else by how it begins."""
    return path.is_file() and (path.suffix.lower() in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)))


def _require_apart(images: Mapping[str, Path], folders: Iterable[Path]) -> None:
    """InputError where a prediction would be written over an image that is predicted."""
    for folder in folders:
        for name, path in images.items():
            if (folder / f"{name}.png").resolve() == path.resolve():
                raise InputError("would be overwritten by its prediction", "choose another --output-dir", path)


def rarest_of(names: Sequence[str], pixels: torch.Tensor, prior: torch.Tensor) -> str:
    """What was predicted of the classes that are rarest in training, beside how often they are there.

    >>> rarest_of(["road", "crack"], torch.tensor([999, 1]), torch.tensor([0.98, 0.02]))
    'share of the predicted pixels, and in training: crack 0.1 % (2.0 %), road 99.9 % (98.0 %)'
    """
    shares = pixels / pixels.sum().clamp(min=1)
    rarest = prior.argsort(stable=True)[:TOLD].tolist()
    told = (f"{names[c]} {percent(float(shares[c]))} % ({percent(float(prior[c]))} %)" for c in rarest)
    return f"share of the predicted pixels, and in training: {', '.join(told)}"


def _saved(source: RunSource, save: PredictionWriter, places: Sequence[int], pixels: torch.Tensor) -> Iterator[str]:
    """Names of the images at these places as they are predicted, counted into ``pixels`` by class, and written."""
    for sample, predicted, posterior in source.decisions(places, posterior=save.of_posterior):
        save(sample, predicted, posterior)
        pixels += predicted.flatten().long().bincount(minlength=len(pixels))
        if ends(sample, predicted):
            yield sample["name"]


def decision_of(
    config: EvalConfig, run: Run, name: str, say: Callable[[str], None], progress: Callable[[str], Progress]
) -> Decision:
    """The decision asked for; a rule or a calibration that the run does not have is fitted first, and ``say`` told.

    They are fitted to whole images, or windows of the size asked for, once: not to several views. Of the processes of a
    job the first fits, and the others take what it has.
    """
    decision, run.kept = here().from_first(lambda: (_fitted(config, run, name, say, progress), run.kept))
    return decision


def _fitted(
    config: EvalConfig, run: Run, name: str, say: Callable[[str], None], progress: Callable[[str], Progress]
) -> Decision:
    kept, asked = run.kept, read_decision(config.scored_by)
    calibrate = config.calibrate and kept.calibration is None
    open_split = partial(_open, run, config, image_scale=run.config.image_scale, own=True)
    if calibrate or (asked == "iou" and kept.rule is None):
        if kept.others:
            say(f"warning: {name}: what is kept is of other weights, once in {', '.join(kept.others)}; fitted anew")
        dataset = images_to_fit_on(open_split, run)
        training = None
        with suppress(InputError):  # may be gone
            training = open_split("train")
            if doubt := fitted_elsewhere(run, training):
                say(doubt)
        machine = _machine(config)
        lines = fit(
            run,
            dataset,
            training=training,
            calibrate=calibrate,
            device=machine.device,
            batch_size=config.batch_size,
            workers=machine.workers,
            views=Views(tile=_tile(config), overlap=config.tile_overlap),
            progress=progress(f"fitting the decision of {name}"),
        )
        for line in lines:
            say(line)
    elif (config.calibrate or asked in ("iou", "auto")) and not config.images:
        if config.calibrate:
            say(f"{name}: calibrated already; delete {kept_file(run.folder)} to calibrate anew")
        for line in fitted_to_other_labels(run, open_split):
            say(f"warning: {name}: {line}")
    elif kept.others and kept == Kept(others=kept.others):
        say(
            f"warning: {name}: {FILE} is of other weights, once in {', '.join(kept.others)}, and not used; "
            "--decision iou fits it to these"
        )
    if config.images and config.decision is None:
        return run.kept.decision or Decision()
    return run.decision_of(" ".join(config.scored_by))


def say_of_plain(name: str, reader: Criterion, decision: Decision, say: Callable[[str], None]) -> None:
    """Tell where ``plain`` or another tau is asked of posteriors, averaged or saved, that do not tell it."""
    of_posteriors = reader.of if isinstance(reader, CalibratedPosterior) else reader
    told = not isinstance(of_posteriors, AveragedPosterior) or of_posteriors.plain_by_posterior
    if decision.rule == "tau" and decision.value and not told:
        what = "no mean of posteriors and no map of one tells the plain argmax of this loss's scores"
        say(f"warning: {name}: {what}; decided by posterior times tilt: take --decision iou or prior 0")


def counted_of(config: EvalConfig) -> tuple[str, ...]:
    """The measures asked for, by name."""
    return tuple(name for name, wanted in config.measures.items() if wanted)


def sources_of_masks(
    config: EvalConfig, folder: Path, say: Callable[[str], None], progress: Callable[[str], Progress]
) -> list[MaskSource]:
    """One source per ``--predictions``, and every decision on probability maps fitted that must be.

    Raises:
        InputError: files do not match, nothing says what the ids mean, or an option is for probability maps alone.
    """
    labels = Path(str(config.labels))
    of_maps = [holds_maps(Path(path), config.prediction_form) for path in config.predictions]
    for flag, given in (
        ("decision", config.scored_by != ("plain",)),
        ("sweep-tau", config.sweep_tau),
        ("suspects", config.suspects),
    ):
        if given and not any(of_maps):
            what = f"--{flag} needs probability maps, which --predictions do not hold"
            raise InputError(what, "leave it out, or say --prediction-form probability")
    if config.prediction_ids != "auto" and all(of_maps):
        what = "--prediction-ids says what ids of masks mean, and --predictions hold probability maps"
        raise InputError(what, "leave it out; channels are classes in the order of the class table")
    classes = class_table(config.class_table, labels)
    say(f"form: masks against {labels}, {len(classes)} classes: {', '.join(classes.names)}")
    counts = training_pixels_of(config.training_counts, classes)
    names = config.names or distinct_names(Path(path).resolve().name for path in config.predictions)
    how: dict[str, Any] = {"skip_bad": config.skip_bad, "workers": config.workers, "training_pixels": counts}
    how["images"] = None if config.images is None else Path(config.images)
    how["label_ids"] = config.label_ids
    of_masks: dict[str, Any] = {"prediction_ids": config.prediction_ids, "counted": counted_of(config)}
    sources = []
    for name, path, maps in zip(names, config.predictions, of_maps, strict=True):
        options = how if maps else how | of_masks
        source = (MapSource if maps else MaskSource)(name, Path(path), labels, classes, **options)
        if source.form:
            say(f"form: {name}: {source.form}")
        if isinstance(source, MapSource):
            _decide_maps(config, source, say, progress)
        sources.append(source)
    return sources


def _decide_maps(
    config: EvalConfig, source: MapSource, say: Callable[[str], None], progress: Callable[[str], Progress]
) -> None:
    """Tell the source how to decide and what to count, as asked for; of the processes of a job the first fits."""
    bar = progress(f"fitting the decision of {source.name}")

    def fitted() -> tuple[Decision, IoUDecision | None]:
        decision = decision_of_maps(source, read_decision(config.scored_by), bar)
        return decision, decision.terms or (source.fit(bar) if config.sweep_tau else None)

    decision, rule = here().from_first(fitted)
    if rule is not None:
        of_run = source.index.point is not None and rule == source.index.point.terms
        told = "IoU rule of the run" if of_run else f"IoU rule fitted on these {len(source)} probability maps"
        say(f"{source.name}: {told}: {rule_text(rule)}")
    say_of_plain(source.name, source.reader, decision, say)
    if config.sweep_tau and source.index.classes is None:
        how = "eval_seg.py --save probability keeps it"
        say(f"{source.name}: no tau in the sweep: nothing says the tilt of the loss that the maps are of; {how}")
    if config.sweep_tau and source.training_pixels is None:
        cure = "give --training-counts, a run's pixel_counts.json"
        say(f"{source.name}: no prior in the sweep: nothing says the training pixels of each class; {cure}")
    source.measures = Measures(decision, counted_of(config), calibration=True, sweep=config.sweep_tau, rule=rule)
    source.on_sample = source.suspects = Suspects(config.suspects) if config.suspects else None


def training_pixels_of(file: str | None, classes: ClassTable) -> tuple[int, ...] | None:
    """Training pixels of each class from a run's pixel_counts.json; InputError unless it counts these classes."""
    if file is None:
        return None
    if not Path(file).is_file():
        raise InputError("is no file", "give --training-counts a run's pixel_counts.json", file)
    counts = PixelCounts.load(file)
    if counts.class_names != classes.names or len(counts.pixels) != len(classes):
        what = f"counts other classes than {', '.join(classes.names)}"
        raise InputError(what, "give --training-counts of a run on these, or leave it out", file)
    return counts.complete.pixels


def dataset_for_run(run: Run, config: EvalConfig) -> SegmentationDataset:
    """The split that ``config`` asks for, read as ``run`` needs it.

    Raises:
        InputError: the data set cannot be had, has no labels, or has other classes than the run was trained on.
    """
    image_scale = run.config.image_scale if config.image_scale is None else config.image_scale
    dataset = _open(run, config, config.split, image_scale)
    if not dataset.has_labels:
        raise no_labels(dataset)
    dataset.check_files()
    return dataset


def _open(run: Run, config: EvalConfig, split: str, image_scale: float, *, own: bool = False) -> SegmentationDataset:
    """A split of the data set asked for, or with ``own`` of the run's; where they are one, as the options say."""
    same = config.dataset in (None, run.config.dataset)
    if same and split != "test" and config.fold not in (None, run.config.fold):
        trained = f"fold {run.config.fold}" if run.config.fold else "the data set's own split"
        what = f"is of other images than those the run was trained on ({trained}): it has seen some of that val"
        raise InputError(what, "leave it out: each run is scored on its own", f"--fold {config.fold}")
    options: dict[str, Any] = {"dataset": run.config.dataset, "val_share": run.config.val_share}
    if same or own:
        options |= {name: getattr(run.config, name) for name in OPTIONS_HELP}
        options |= {"data_path": run.used.data_path, "class_file": run.used.class_file, "fold": run.config.fold}
    if same or not own:
        given = {name: getattr(config, name) for name in ("dataset", "data_path", "fold", *OPTIONS_HELP)}
        options |= {name: value for name, value in given.items() if value is not None}
    dataset = DataOptions(**options).open(split, EvalTransform(image_scale))
    check_same_classes(run, dataset)
    show_bands([dataset], run.bands, config.show_bands)
    return dataset


def distinct_names(wanted: Iterable[str]) -> list[str]:
    """The names, told apart by number where two are the same."""
    names: list[str] = []
    for name in wanted:
        found, number = name, 2
        while found in names:
            found, number = f"{name}-{number}", number + 1
        names.append(found)
    return names
