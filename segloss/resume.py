"""Going on with a run that was stopped: its options, its data and its last checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segloss.config import TrainConfig
from segloss.datasets.bands import Bands
from segloss.errors import InputError
from segloss.flags import flag_of, from_plain_dict, given_names, parse_config, read_file_of, to_plain_dict
from segloss.pixel_counts import PixelCounts
from segloss.run_folder import (
    BANDS,
    CONFIG,
    COUNTS,
    HISTORY,
    KEPT_AUGMENTATIONS,
    LOCK,
    USED,
    Used,
    read_config_file,
)
from segloss.runs import Run, identity_of_val, load_run, read_checkpoint
from segloss.weight_files import BEST, LAST, PREVIOUS, SHARED

# May differ between a run and its continuation: they say where and how fast, not what is learnt.
FREE_ON_RESUME = (
    *("data_path", "check", "show_bands", "epochs", "workers", "cache", "calibrate"),
    *("accelerator", "devices", "compile", "output_dir", "resume", "trainer", "checkpoint_minutes", "override"),
)
# Other classes, images or networks than the weights and counts of the run are of, or what a run begins with alone: not
# even --override.
_FIXED_ON_RESUME = (
    *("dataset", "classes", "val_share", "image_column", "label_column", "subset", "class_file", "streaming"),
    *("channels", "arch", "encoder", "encoder_weights", "init_from", "bias_init", "auto_batch_size"),
)
# Of Lightning's options those that change what a step learns; the others say where and how long.
_LEARNT_OF_TRAINER = (
    *("accumulate_grad_batches", "overfit_batches", "sync_batchnorm"),
    *("gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "limit_val_batches"),  # the length of the schedule; what best.ckpt is chosen on
)


def used_so_far(config: TrainConfig) -> Used:
    """What the run that is gone on with uses, but for what is asked for now; of a new one what is asked for."""
    folder = Path(str(config.output_dir))
    if not config.resume or not (folder / CONFIG).is_file():
        return Used.from_dict(to_plain_dict(config))
    used = _saved(folder)
    precision = used.precision if config.precision == "auto" else config.precision
    given_up = config.crop_size is None and read_config_file(folder / CONFIG)["crop_size"] is not None
    crop_size = None if given_up else config.crop_size or used.crop_size
    return replace(used, crop_size=crop_size, precision=precision)


def given_to_trainer(config: Mapping[str, Any], name: str) -> Any:
    """An option of Lightning as two runs are compared by it; of batches 1 is one, and 1.0, as none at all, is all."""
    value = config["trainer"].get(name)
    return repr(1.0 if value is None else value) if name.startswith("limit_") else value


def _saved(folder: Path) -> Used:
    path = folder / (USED if (folder / USED).is_file() else CONFIG)
    return Used.from_dict(read_file_of(TrainConfig, path, path))


def parse_train_config(
    argv: Sequence[str] | None = None, plan: Callable[[TrainConfig, set[str]], Mapping[str, Any]] | None = None
) -> TrainConfig:
    """Training options; with ``--resume`` the run's own stand in for the defaults.

    Args:
        plan: of ``--plan auto`` what it makes of the options and the names of those given; its own stand in for the
            defaults, and for null in a file.

    Raises:
        InputError: whatever can be refused without looking at data: an option, a network that does not exist, a file
            of weights or augmentations that cannot be read.
    """
    config = parse_config(TrainConfig, "train_seg.py", argv)
    if config.resume and not _barely_begun(Path(str(config.output_dir))):
        return _resumed(config, argv)
    if plan is not None and config.plan == "auto":
        chosen = plan(config, given_names(TrainConfig, "train_seg.py", argv))
        now = to_plain_dict(parse_config(TrainConfig, "train_seg.py", argv, start=chosen))
        left = {name: value for name, value in chosen.items() if now[name] is None}
        config = from_plain_dict(TrainConfig, {**now, **left})
    config.require_buildable(config.channels or 3)
    if config.augmentations is not None:
        from segloss.datasets.transforms import read_augmentations

        read_augmentations(config.augmentations)
    return config


def _trained(folder: Path) -> list[str]:
    """The files that tell of training in here, whichever others are gone: checkpoints, weights, rows of a history."""
    weights = [path for path in (folder / LAST.parent).glob("*") if path.suffix in (LAST.suffix, SHARED.suffix)]
    return [*sorted(path.name for path in weights), *([HISTORY] if _epochs_told(folder) else [])]


def _epochs_told(folder: Path) -> int:
    """Rows of history.csv."""
    path = folder / HISTORY
    return max(0, len(path.read_bytes().splitlines()) - 1) if path.is_file() else 0


def _first_epoch_alone(folder: Path) -> bool:
    """Is there no more than a kill leaves between the first validation and the first last.ckpt? It is trained again."""
    held = [name for name in _trained(folder) if name not in (BEST.name, HISTORY)]
    if held or _epochs_told(folder) > 1:
        return False
    return not (folder / BEST).is_file() or read_checkpoint(folder / BEST).get("epoch") == 0


def _cure_of_lost(folder: Path, lost: str) -> str:
    """What to do in a run folder where a file that ``--resume`` needs is gone."""
    if any((folder / name).is_file() for name in (BEST, SHARED, LAST)):
        return f"restore {lost}, or begin from those weights with --init-from {folder} and another --output-dir"
    return f"restore {lost}, or begin another run with another --output-dir"


def _barely_begun(folder: Path) -> bool:
    """Was a run killed in here while the folder was made? config.yaml is written last, before training."""
    first = (LOCK, COUNTS, BANDS, KEPT_AUGMENTATIONS, USED)
    return not ((folder / CONFIG).exists() or _trained(folder)) and any(
        path.name in first or path.name.startswith(tuple(f".{name}." for name in (*first, CONFIG)))
        for path in (folder.iterdir() if folder.is_dir() else ())
    )


def _resumed(config: TrainConfig, argv: Sequence[str] | None) -> TrainConfig:
    """The options of the run, but for where and how long it goes on; InputError for one that changes what it learns."""
    folder = Path(str(config.output_dir))
    if not (folder / CONFIG).exists() and (held := _trained(folder)):
        raise InputError(
            f"is gone, of a run that holds {', '.join(held)}", _cure_of_lost(folder, CONFIG), folder / CONFIG
        )
    begun = read_config_file(folder / CONFIG)
    used = _saved(folder).to_dict()
    saved = {**begun, **{name: used[name] for name in ("data_path", "augmentations", "class_file")}}
    now = to_plain_dict(parse_config(TrainConfig, "train_seg.py", argv, start={**saved, "resume": True}))
    where = now["output_dir"]
    if now["epochs"] < saved["epochs"]:
        raise InputError(
            f"--epochs {now['epochs']} is less than the {saved['epochs']} that {where} was planned for",
            "give as many or more",
        )
    given = given_names(TrainConfig, "train_seg.py", argv) - {*_FIXED_ON_RESUME}
    changed = [
        name
        for name, value in now.items()
        if name not in FREE_ON_RESUME
        and value not in ("auto", saved[name], *([] if value is None else [used.get(name)]))
        and (value is not None or name in given)
        and (name not in ("augmentations", "class_file") or str(value and Path(value).absolute()) != used[name])
    ]
    new_head = ["auxiliary"] if now["auxiliary"] and not saved["auxiliary"] else []
    fixed = [name for name in changed if name in (*_FIXED_ON_RESUME, *new_head)]
    of_trainer = [name for name in _LEARNT_OF_TRAINER if given_to_trainer(now, name) != given_to_trainer(saved, name)]
    differences = [
        *(f"{flag_of(name)} was {saved[name]} in {where} and is {now[name]} now" for name in fixed or changed),
        *(
            f"--trainer.{name} was {saved['trainer'].get(name, 'not given')} in {where} and is "
            f"{now['trainer'].get(name)} now"
            for name in of_trainer
            if not fixed
        ),
    ]
    if fixed or (not now["override"] and differences):
        other = "choose another --output-dir" if fixed else "add --override to go on with what is given now"
        them = "it" if len(differences) == 1 else "them"
        raise InputError("; ".join(differences), f"leave {them} out to go on with that run, or {other}")
    return from_plain_dict(TrainConfig, {**saved, **{name: now[name] for name in (*FREE_ON_RESUME, *changed)}})


def augmentations_file(config: TrainConfig) -> Path | None:
    """The user's pipeline; a run that goes on reads its own copy, and refuses a file that has changed since."""
    if config.augmentations is None:
        return None
    path = Path(config.augmentations)
    kept = Path(str(config.output_dir)) / KEPT_AUGMENTATIONS
    if not config.resume or not kept.is_file() or not kept.with_name(CONFIG).is_file():
        return path
    if config.override and path.is_file():
        return path
    if path.is_file() and path.read_bytes() != kept.read_bytes():
        raise InputError("has changed since the run began", f"restore it from {kept}, or start another run", path)
    return kept


def check_same_counts(folder: Path, counts: PixelCounts) -> None:
    """InputError if the run in the folder was begun on masks that counted otherwise."""
    path = folder / COUNTS
    if not path.is_file() or not (folder / CONFIG).is_file():
        return
    try:
        saved = PixelCounts.load(path)
    except InputError as error:
        raise InputError(error.what, "move it away to count again", path) from error
    saved_what, what = ((each.pixels, each.class_names, each.labelled_images) for each in (saved, counts))
    if saved_what != what:
        raise InputError(
            f"began on other masks ({sum(saved.pixels):,} labelled pixels in {saved.image_count} images, now "
            f"{sum(counts.pixels):,} in {counts.image_count})",
            "restore them, or start another run",
            where=folder,
        )
    if saved.images_digest not in ("", counts.images_digest):
        raise InputError("began on other images of the same names", "restore them, or start another run", folder)


def check_same_val(run: Run, val: PixelCounts, override: bool) -> None:
    """InputError if the best score of the run is of another val split; with ``--override`` it will be left behind."""
    if not override and run.val not in (None, identity_of_val(val)):
        cure = "restore it, or add --override to choose best.ckpt anew"
        raise InputError("its val split was another one", cure, run.folder)


def continued_bands(run: Run, found: Bands) -> Bands:
    """The bands of a run that goes on; InputError where its images are of another kind by now."""
    if run.used.channels is None:  # begun when all images were read as 8-bit RGB
        return run.bands
    if (run.bands.count, run.bands.dtype) != (found.count, found.dtype):
        what = f"began on images of {run.bands.describe()}, now they are {found.describe()}"
        raise InputError(what, "restore them, or start another run", run.path)
    return replace(run.bands, shown=found.shown, gaps=found.gaps)


def load_last(folder: Path, say: Callable[[str], None]) -> Run | None:
    """The run to go on with: last.ckpt or, where that is damaged or gone, the one before it, which is said.

    None where there is no checkpoint yet.

    Raises:
        InputError: there was one, as what else is in the folder tells, or the last two are damaged.
    """
    files = [file for file in (folder / LAST, folder / PREVIOUS) if file.is_file()]
    if not files and (held := _trained(folder)):
        if not _first_epoch_alone(folder):
            what = f"is gone, of a run that holds {', '.join(held)}"
            raise InputError(what, _cure_of_lost(folder, LAST.name), folder / LAST)
        say(f"warning: there is no {LAST.name} yet; the first epoch is trained again")
    for file in files:
        try:
            run = load_run(file)
        except InputError as error:
            if file == files[-1]:
                raise
            say(f"warning: {error}")
            continue
        if file.name == PREVIOUS.name:
            say(f"warning: {LAST.name} is no use; going on with the checkpoint before it, {PREVIOUS.name}")
        return run
    return None
