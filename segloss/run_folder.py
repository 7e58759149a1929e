"""The run folder: what a training run leaves behind.

config.yaml           every option of the run as it was asked for; augmentations.yaml: a copy of the user's pipeline
used.yaml             what the run made of those that its data and its machine decide; --config takes it too
pixel_counts.json     class statistics of the training split
bands.json            of images that are not 8-bit RGB: their bands, mean and std over the training split
history.csv           one row per epoch
checkpoints/last.ckpt to resume from, last.previous.ckpt the one before; best.ckpt: weights of the best validation score
checkpoints/best.safetensors the same weights to give away: a file that can run no code, with a checksum
non_finite_batch.pt   where the run stopped at a loss that is no number: the images and labels of that step
decision.json         what was fitted to the weights: calibration, the IoU rule, the chosen operating point
val_metrics.json, test_metrics.json, curves.png, per_class_iou.png, predictions.png
tensorboard/          event files
run.lock              held by the process that trains here, and by none once that has ended
"""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from segloss.config import TrainConfig
from segloss.datasets.bands import RGB, Bands
from segloss.errors import InputError
from segloss.files import take_lock, write_bytes, write_json, write_text
from segloss.flags import from_plain_dict, read_file_of, to_plain_dict
from segloss.inference import Machine
from segloss.pixel_counts import PixelCounts
from segloss.ranks import here

CONFIG, USED, COUNTS, BANDS = "config.yaml", "used.yaml", "pixel_counts.json", "bands.json"
KEPT_AUGMENTATIONS, LOCK, HISTORY = "augmentations.yaml", "run.lock", "history.csv"
FOLDER_VARIABLE = "SEGLOSS_RUN_FOLDER"  # tells the processes of one distributed run which folder the first one chose


@dataclass(frozen=True)
class Used:
    """What a run makes of the options that its data and its machine decide; saved beside what was asked for.

    Attributes:
        crop_size: (H, W) of the training crops.
        precision: of the network.
        workers: loader processes.
        data_path, augmentations, class_file: absolute, for a run is resumed and evaluated from other folders too; a
            name that is no path of this machine stays as it is.
        channels: bands of the images; None: of runs before there were others than 8-bit RGB.
    """

    crop_size: tuple[int, int] | None = None
    precision: str = "auto"
    workers: int | None = None
    data_path: str | None = None
    augmentations: str | None = None
    class_file: str | None = None
    channels: int | None = None

    @classmethod
    def of(cls, config: TrainConfig, crop_size: tuple[int, int], machine: Machine, bands: Bands = RGB) -> "Used":
        """What this process makes of them."""
        named = (config.data_path, config.augmentations, config.class_file)
        paths = [path and (str(Path(path).absolute()) if Path(path).exists() else path) for path in named]
        return cls(crop_size, machine.precision, machine.workers, paths[0], paths[1], paths[2], bands.count)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Used":
        """From what was saved; older runs saved what they used among their options."""
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        crop = known.get("crop_size")
        return cls(**{**known, "crop_size": crop and (crop[0], crop[1])})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, under the names of the options."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def read_config_file(path: Path) -> dict[str, Any]:
    """A run's config.yaml as a dictionary; InputError if it is missing or no config."""
    if not path.is_file():
        raise InputError(f"is missing, so {path.parent} is no run folder", _cure_of_no_run(path.parent), path)
    return to_plain_dict(from_plain_dict(TrainConfig, read_file_of(TrainConfig, path, path), path))


def _cure_of_no_run(place: Path) -> str:
    """What to give instead of what ``--resume`` finds no run in."""
    around = [folder for folder in place.absolute().parents[:2] if (folder / CONFIG).is_file()]
    within = sorted(path.parent for path in place.glob(f"*/{CONFIG}"))
    if runs := within or around:
        return f"give a run's folder, such as --output-dir {runs[0]}"
    if place.is_file() or (place.is_dir() and any(path.name != LOCK for path in place.iterdir())):
        return "give the folder of a run"
    return "without --resume one begins there"


def choose_run_folder(config: TrainConfig) -> Path:
    """Where the run goes; InputError if that folder already holds something and the run is not to be resumed.

    Of the processes of a job (:mod:`segloss.ranks`) the first chooses.
    """
    return here().from_first(lambda: _choose(config))


def _choose(config: TrainConfig) -> Path:
    if here().size == 1 and int(os.environ.get("LOCAL_RANK", 0)) > 0:  # started by Lightning in the first one's midst
        if FOLDER_VARIABLE in os.environ:
            return Path(os.environ[FOLDER_VARIABLE])
        if config.output_dir is None:
            raise InputError("--output-dir is needed where LOCAL_RANK is set and RANK is not", "start it by torchrun")
        return Path(config.output_dir)
    name = f"{config.dataset}-{config.arch}-{config.loss.replace('*', '')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.output_dir) if config.output_dir else Path("runs") / name
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", "choose another --output-dir", where=folder)
    if config.resume:
        lock_run_folder(folder)
    else:
        _require_free(folder)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def _require_free(folder: Path) -> None:
    """InputError if there is something in it; ``run.lock`` is nothing."""
    if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        if (folder / CONFIG).exists():
            cure = "add --resume to go on with it, or choose another --output-dir"
            raise InputError("already holds a run", cure, where=folder)
        raise InputError("is not empty", "choose another --output-dir", where=folder)


_locks: dict[Path, int] = {}  # file descriptors of the locks that this process holds; they go with it


def lock_run_folder(folder: Path) -> None:
    """Keep other processes from training in the folder until this one ends, however it ends; InputError if one does."""
    if folder.resolve() in _locks:
        return
    try:
        file = take_lock(folder / LOCK)
    except BlockingIOError as error:
        cure = "wait for it to end, end it, or choose another --output-dir"
        raise InputError(f"another process trains in it: {error.strerror}", cure, folder) from error
    if file is not None:
        _locks[folder.resolve()] = file


def open_run_folder(folder: Path, config: TrainConfig, used: Used, counts: PixelCounts, bands: Bands = RGB) -> None:
    """Make the folder, lock it and write what is known before training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_run_folder(folder)
        if not config.resume:
            _require_free(folder)  # another process may have come first
        saved = replace(config, resume=False, override=False, output_dir=str(folder))
        counts.save(folder / COUNTS)
        if not bands.is_rgb:
            write_json(folder / BANDS, bands.to_dict())
        goes_on = config.resume and not config.override and (folder / CONFIG).is_file()
        if config.augmentations is not None and not goes_on:
            write_bytes(folder / KEPT_AUGMENTATIONS, Path(config.augmentations).read_bytes())
        write_text(folder / USED, yaml.safe_dump(used.to_dict(), sort_keys=False))
        write_text(folder / CONFIG, yaml.safe_dump(to_plain_dict(saved), sort_keys=False))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", "choose another --output-dir", folder) from error
