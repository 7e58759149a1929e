"""The run folder: what a training run leaves behind, and how to get a model back from it.

config.yaml           every option of the run as it was asked for; augmentations.yaml: a copy of the user's pipeline
used.yaml             what the run made of those that its data and its machine decide; --config takes it too
pixel_counts.json     class statistics of the training split
bands.json            of images that are not 8-bit RGB: their bands, mean and std over the training split
history.csv           one row per epoch
checkpoints/last.ckpt to resume from, last.previous.ckpt the one before; best.ckpt: weights of the best validation score
non_finite_batch.pt   where the run stopped at a loss that is no number: the images and labels of that step
decision.json         what was fitted to the weights: calibration, the IoU rule, the chosen operating point
val_metrics.json, test_metrics.json, curves.png, per_class_iou.png, predictions.png
tensorboard/          event files
"""

import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from segloss.config import TrainConfig
from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.bands import RGB, Bands
from segloss.datasets.classes import ignored_in, map_dtype
from segloss.decisions import Decision, decide, read_decision
from segloss.errors import InputError
from segloss.files import write_bytes, write_json, write_text
from segloss.flags import flag_of, from_plain_dict, parse_config, read_options_file, to_plain_dict
from segloss.inference import Machine, reader_of
from segloss.iou_rule import IoUDecision
from segloss.kept import FILE, OLD_FILE, Kept, fingerprint, load_kept, save_kept
from segloss.losses import Criterion, build_criterion, class_prior
from segloss.models import SegmentationModel, logits_at_size, warn_of_old_torch
from segloss.pixel_counts import PixelCounts

CHECKPOINT_FORMAT = 1
LAST, PREVIOUS = Path("checkpoints/last.ckpt"), Path("checkpoints/last.previous.ckpt")
BEST = Path("checkpoints/best.ckpt")
CONFIG, USED, COUNTS, BANDS = "config.yaml", "used.yaml", "pixel_counts.json", "bands.json"
KEPT_AUGMENTATIONS = "augmentations.yaml"
Asked = Decision | IoUDecision | str | float
_FOLDER_VARIABLE = "SEGLOSS_RUN_FOLDER"  # tells the processes of one distributed run which folder the first one chose


# May differ between a run and its continuation: they say where and how fast, not what is learnt.
_FREE_ON_RESUME = (
    *("data_path", "check", "show_bands", "epochs", "workers", "cache", "calibrate"),
    *("accelerator", "devices", "compile", "output_dir", "resume", "trainer"),
)


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


def used_so_far(config: TrainConfig) -> Used:
    """What the run that is gone on with uses; of a new one what is asked for."""
    folder = Path(str(config.output_dir))
    if not config.resume or not (folder / CONFIG).is_file():
        return Used.from_dict(to_plain_dict(config))
    path = folder / (USED if (folder / USED).is_file() else CONFIG)
    return Used.from_dict(read_options_file(path, path))


def parse_train_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """Training options; with ``--resume`` the run's own stand in for the defaults.

    Raises:
        InputError: whatever can be refused without looking at data: an option, a network that does not exist, a file
            of weights or augmentations that cannot be read.
    """
    config = parse_config(TrainConfig, "train_seg.py", argv)
    if config.resume and not _barely_begun(Path(str(config.output_dir))):
        return _resumed(config, argv)
    config.require_buildable(config.channels or 3)
    if config.augmentations is not None:
        from segloss.datasets.transforms import read_augmentations

        read_augmentations(config.augmentations)
    return config


def _barely_begun(folder: Path) -> bool:
    """Was a run killed in here while the folder was made? config.yaml is written last, before training."""
    first = (COUNTS, BANDS, KEPT_AUGMENTATIONS, USED)
    return not (folder / CONFIG).exists() and any(
        path.name in first or path.name.startswith(tuple(f".{name}." for name in (*first, CONFIG)))
        for path in (folder.iterdir() if folder.is_dir() else ())
    )


def _resumed(config: TrainConfig, argv: Sequence[str] | None) -> TrainConfig:
    """The options of the run, but for where and how long it goes on; InputError for one that changes what it learns."""
    begun = read_config_file(Path(str(config.output_dir)) / CONFIG)
    used = used_so_far(config).to_dict()
    saved = {**begun, **{name: used[name] for name in ("data_path", "augmentations", "class_file")}}
    now = to_plain_dict(parse_config(TrainConfig, "train_seg.py", argv, start={**saved, "resume": True}))
    where = now["output_dir"]
    if now["epochs"] < saved["epochs"]:
        raise InputError(
            f"--epochs {now['epochs']} is less than the {saved['epochs']} that {where} was planned for",
            "give as many or more",
        )
    for name, value in now.items():
        if name in _FREE_ON_RESUME or value in (None, "auto", saved[name], used.get(name)):
            continue
        if name not in ("augmentations", "class_file") or str(Path(value).absolute()) != used[name]:
            raise InputError(
                f"{flag_of(name)} was {saved[name]} in {where} and is {value} now",
                "leave it out to go on with that run, or choose another --output-dir",
            )
    return from_plain_dict(TrainConfig, {**saved, **{name: now[name] for name in _FREE_ON_RESUME}})


def read_config_file(path: Path) -> dict[str, Any]:
    """A run's config.yaml as a dictionary; InputError if it is missing or no config."""
    if not path.is_file():
        raise InputError(f"is missing, so {path.parent} is no run folder", where=path)
    return to_plain_dict(from_plain_dict(TrainConfig, read_options_file(path, path), path))


def choose_run_folder(config: TrainConfig) -> Path:
    """Where the run goes; InputError if that folder already holds something and the run is not to be resumed."""
    if "LOCAL_RANK" in os.environ:  # one of several processes, started by Lightning or by torchrun
        if _FOLDER_VARIABLE in os.environ:
            return Path(os.environ[_FOLDER_VARIABLE])
        if config.output_dir is None:
            raise InputError("--output-dir is needed under torchrun: its processes start at different times")
        if int(os.environ.get("RANK", os.environ["LOCAL_RANK"])) > 0:
            return Path(config.output_dir)
    name = f"{config.dataset}-{config.arch}-{config.loss.replace('*', '')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.output_dir) if config.output_dir else Path("runs") / name
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", "choose another --output-dir", where=folder)
    if folder.is_dir() and any(folder.iterdir()) and not config.resume:
        if (folder / CONFIG).exists():
            cure = "add --resume to go on with it, or choose another --output-dir"
            raise InputError("already holds a run", cure, where=folder)
        raise InputError("is not empty", "choose another --output-dir", where=folder)
    os.environ[_FOLDER_VARIABLE] = str(folder)
    return folder


def open_run_folder(folder: Path, config: TrainConfig, used: Used, counts: PixelCounts, bands: Bands = RGB) -> None:
    """Make the folder and write what is known before training."""
    try:
        saved = replace(config, resume=False, output_dir=str(folder))
        counts.save(folder / COUNTS)
        if not bands.is_rgb:
            write_json(folder / BANDS, bands.to_dict())
        if config.augmentations is not None and not (config.resume and (folder / CONFIG).is_file()):
            write_bytes(folder / KEPT_AUGMENTATIONS, Path(config.augmentations).read_bytes())
        write_text(folder / USED, yaml.safe_dump(used.to_dict(), sort_keys=False))
        write_text(folder / CONFIG, yaml.safe_dump(to_plain_dict(saved), sort_keys=False))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", "choose another --output-dir", folder) from error


def augmentations_file(config: TrainConfig) -> Path | None:
    """The user's pipeline; a run that goes on reads its own copy, and refuses a file that has changed since."""
    if config.augmentations is None:
        return None
    path = Path(config.augmentations)
    kept = Path(str(config.output_dir)) / KEPT_AUGMENTATIONS
    if not config.resume or not kept.is_file() or not kept.with_name(CONFIG).is_file():
        return path
    if path.is_file() and path.read_bytes() != kept.read_bytes():
        raise InputError("has changed since the run began", f"restore it from {kept}, or start another run", path)
    return kept


def check_same_counts(folder: Path, counts: PixelCounts) -> None:
    """InputError if the run in the folder was begun on masks that counted otherwise."""
    path = folder / COUNTS
    if not path.is_file() or not (folder / CONFIG).is_file():
        return
    saved = PixelCounts.load(path)
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


def continued_bands(run: "Run", found: Bands) -> Bands:
    """The bands of a run that goes on; InputError where its images are of another kind by now."""
    if run.used.channels is None:  # begun when all images were read as 8-bit RGB
        return run.bands
    if (run.bands.count, run.bands.dtype) != (found.count, found.dtype):
        what = f"began on images of {run.bands.describe()}, now they are {found.describe()}"
        raise InputError(what, "restore them, or start another run", run.path)
    return replace(run.bands, shown=found.shown, gaps=found.gaps)


def criterion_of(config: TrainConfig, counts: PixelCounts) -> Criterion:
    """The criterion that a config and the training counts ask for; InputError if they do not fit."""
    try:
        counts = counts.complete
        return build_criterion(
            config.loss,
            counts.pixels,
            pixels_of_images=counts.pixels_of_images,
            ignore_index=ignored_in(len(counts.pixels)),
            **config.loss_options,
        )
    except ValueError as error:
        raise InputError(str(error), where=f"--loss {config.loss}") from error


def checkpoint_content(
    config: TrainConfig,
    used: Used,
    classes: ClassTable,
    counts: PixelCounts,
    model: SegmentationModel,
    bands: Bands = RGB,
) -> dict[str, Any]:
    """What a checkpoint needs beside its weights to be used alone: plain values only."""
    return {
        "format": CHECKPOINT_FORMAT,
        "config": to_plain_dict(config),
        "used": used.to_dict(),
        "classes": classes.to_dict(),
        "counts": counts.to_dict(),
        "normalisation": [model.mean.view(-1).tolist(), model.std.view(-1).tolist()],
        "bands": bands.to_dict(),
    }


@dataclass
class Run:
    """A trained model with all it takes to use it.

    Attributes:
        model: images ``(N, B, H, W)`` as their files hold them, RGB in 0..255, uint8 or float -> logits
            ``(N, C, H, W)``; in eval mode.
        criterion: reads logits: ``criterion.decide(logits, tau)``, ``criterion.posterior(logits)``, before calibration.
        classes: names, ids and colours.
        counts: class statistics of the training split.
        config: every option of the run, as it was asked for.
        path: the checkpoint file.
        used: what became of the options that data and machine decide.
        bands: of the images, as :func:`segloss.datasets.bands.read_bands` reads them.
    """

    model: SegmentationModel
    criterion: Criterion
    classes: ClassTable
    counts: PixelCounts
    config: TrainConfig
    path: Path
    used: Used
    bands: Bands = RGB

    @property
    def name(self) -> str:
        """The run folder's name, or the file's where it lies in no run folder."""
        in_run = self.path.parent.name == LAST.parent.name
        stem = "" if self.path.name == BEST.name else f"-{self.path.stem}"
        return f"{self.path.resolve().parent.parent.name}{stem}" if in_run else self.path.stem

    @property
    def folder(self) -> Path:
        """The run folder, or that of a checkpoint file that lies in none."""
        return self.path.parent.parent if self.path.parent.name == LAST.parent.name else self.path.parent

    @cached_property
    def weights(self) -> str:
        """Fingerprint of model and criterion; what is fitted to them is kept under it."""
        return fingerprint(self.model, self.criterion)

    @cached_property
    def kept(self) -> Kept:
        """What was fitted to these weights; InputError for a damaged file."""
        return load_kept(self.folder, self.weights)

    def keep(self, *, alone: bool = False, **items: Any) -> Path:
        """Write into the run folder what was fitted to these weights; see :func:`segloss.kept.save_kept`."""
        path = save_kept(self.folder, self.weights, self.path.name, items, alone=alone)
        self.kept = load_kept(self.folder, self.weights)
        return path

    @property
    def reader(self) -> Criterion:
        """Reads logits as the criterion does, the posterior calibrated where the run was."""
        return reader_of(self.criterion, calibration=self.kept.calibration)

    @property
    def decision(self) -> Decision:
        """The run's own, which ``--decision auto`` takes: the point that was chosen, else the IoU rule, or the plain
        argmax where labels said that it is better.

        Raises:
            InputError: neither was made for these weights.
        """
        if self.kept.decision is None:
            raise self._undecided()
        return self.kept.decision

    def _undecided(self) -> InputError:
        where, what = self.folder / FILE, "no decision was fitted to or chosen for these weights"
        if self.kept.others:
            what = f"is of other weights, once in {', '.join(self.kept.others)}, than those now in {self.path.name}"
        elif (self.folder / OLD_FILE).is_file():
            where, what = self.folder / OLD_FILE, "does not say for which weights it was chosen"
        command = f"run eval_seg.py --checkpoint {self.path} --decision iou"
        return InputError(what, f"{command}, or with --split val --sweep-tau --choose-metric miou", where)

    def decision_of(self, asked: Asked) -> Decision:
        """What a number (tau), a rule or words as of ``--decision`` mean here; InputError as :attr:`decision`."""
        if isinstance(asked, IoUDecision):
            return Decision("iou", terms=asked)
        if isinstance(asked, str):
            found = read_decision(asked.split())
            if found == "iou":
                if self.kept.rule is None:
                    raise self._undecided()
                return Decision("iou", terms=self.kept.rule)
            return found if isinstance(found, Decision) else self.decision
        return asked if isinstance(asked, Decision) else Decision("tau", asked)

    @torch.inference_mode()
    def predict(self, image: np.ndarray, decision: Asked | None = None, tau: float = 1.0) -> np.ndarray:
        """Class numbers ``(H, W)`` of an image, at the run's image scale: uint8, of more than 254 classes uint16.

        Args:
            image: ``(H, W, 3)`` uint8 RGB, or the run's bands ``(H, W, B)`` in the dtype of its files, NaN for nothing;
                of one band ``(H, W)`` too. ``segloss.datasets.bands.read_bands(path, run.bands)[0]`` reads a file.
            decision: ``run.decision``, ``"auto"``, ``"prior 0.5"``, a rule of :func:`segloss.iou_decision` or a number
                tau; None: ``tau``, whose 1 is the plain argmax.

        Raises:
            ValueError: the image or the words do not fit. InputError: the run holds no decision.
        """
        from segloss.datasets.transforms import resize_image

        given = image[..., None] if image.ndim == 2 and self.bands.count == 1 else image
        kinds = {np.dtype(self.bands.dtype), self.bands.array_dtype}
        if image.dtype not in kinds or given.ndim != 3 or given.shape[2] != self.bands.count:
            kind = "RGB " if self.bands.is_rgb else ""
            wanted = f"{self.bands.dtype} {kind}of shape (H, W, {self.bands.count})"
            raise ValueError(f"image must be {wanted}, got {image.dtype} {image.shape}")
        resized = resize_image(self.bands.filled(given), self.config.image_scale)
        if resized.dtype == np.uint16:
            resized = resized.astype(np.float32)  # which every device takes
        batch = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self.model.mean.device)
        logits = logits_at_size(self.model, batch, image.shape[:2])
        return self.decode(logits, decision, tau)[0].cpu().numpy().astype(map_dtype(len(self.classes)))

    def decode(self, logits: Tensor, decision: Asked | None = None, tau: float = 1.0) -> Tensor:
        """Class numbers ``(N, H, W)`` from the model's logits; decisions as in :meth:`predict`."""
        found = self.decision_of(tau if decision is None else decision)
        reader = self.criterion if found.rule == "tau" else self.reader
        return decide(reader, logits, class_prior(self.counts).to(logits.device), found)

    def posterior(self, images: Tensor) -> Tensor:
        """P(c|x), ``(N, C, H, W)``, of images as the model takes them; calibrated where the run was."""
        with torch.inference_mode():
            return self.reader.posterior(self.model(images).float())


def load_run(path: str | Path) -> Run:
    """The model of a run folder (its best.ckpt, else last.ckpt) or of a checkpoint file.

    >>> run = segloss.load_run("runs/demo")  # doctest: +SKIP
    >>> class_map = run.predict(image)       # doctest: +SKIP

    Raises:
        InputError: nothing is there, or it is no checkpoint of this toolkit.
    """
    file = _checkpoint_file(Path(path))
    if os.environ.get(_FOLDER_VARIABLE) != str(file.parent.parent):  # this process trains another run, or none
        warn_of_old_torch(file)
    checkpoint = read_checkpoint(file)
    try:
        content = checkpoint["segloss"]
        config = from_plain_dict(TrainConfig, content["config"], file)
        used = Used.from_dict(content.get("used", content["config"]))
        classes = ClassTable.from_dict(content["classes"])
        counts = PixelCounts.from_dict(content["counts"])
        mean, std = content["normalisation"]
        network = replace(config, encoder_weights="none")  # its weights are in the checkpoint
        bands = Bands.from_dict(content.get("bands", {}))
        model = network.build(len(classes), normalisation=(tuple(mean), tuple(std)), in_channels=bands.count)
        criterion = criterion_of(config, counts)
        load_weights(model, criterion, checkpoint["state_dict"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        damage = f"is damaged ({type(error).__name__}: {str(error)[:200]})"
        raise InputError(damage, "use another one", where=file) from error
    return Run(model.eval(), criterion, classes, counts, config, file, used, bands)


def load_last(folder: Path, say: Callable[[str], None]) -> Run | None:
    """The run to go on with: last.ckpt or, where that is damaged or gone, the one before it, which is said.

    None where there is no checkpoint yet.
    """
    files = [file for file in (folder / LAST, folder / PREVIOUS) if file.is_file()]
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


def check_same_classes(run: Run, dataset: SegmentationDataset) -> None:
    """InputError unless the data set has the run's classes, by name and in the run's order."""
    ours, theirs = run.classes.names, dataset.classes.names
    if len(ours) != len(theirs):
        raise InputError(
            f"was trained on {len(ours)} classes, but {dataset.name} has {len(theirs)}",
            "choose the --dataset and --data-path it was trained on",
            where=run.path,
        )
    if ours != theirs:
        place = next(c for c in range(len(ours)) if ours[c] != theirs[c])
        raise InputError(
            f"class {place} is {ours[place]!r} there and {theirs[place]!r} in {dataset.name}",
            "give the data set the run's classes in the run's order",
            where=run.path,
        )


def load_weights(model: SegmentationModel, criterion: Criterion, state: dict[str, Tensor]) -> None:
    """Put the state of a training task back into its model and criterion, strictly."""
    for prefix, module in (("model.", model), ("criterion.", criterion)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _checkpoint_file(path: Path) -> Path:
    if path.is_dir():
        for candidate in (path / BEST, path / LAST):
            if candidate.is_file():
                return candidate
        raise InputError(f"holds no {BEST}", "give a run folder or a checkpoint file", where=path)
    if not path.is_file():
        raise InputError("no such run folder or checkpoint file", where=path)
    return path


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of this toolkit on the CPU; InputError if it is something else."""
    try:
        with zipfile.ZipFile(file) as archive:  # torch writes a checksum of every entry and reads without a look at it
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"is damaged: {damaged} does not match its checksum", "use another one", file)
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # zip and pickle each raise their own kinds
        raise InputError(f"cannot be read as a checkpoint ({type(error).__name__})", "is it whole?", file) from error
    content = checkpoint.get("segloss") if isinstance(checkpoint, dict) else None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError("is no checkpoint of segloss", "for weights of an encoder use --encoder-weights", file)
    if content["format"] > CHECKPOINT_FORMAT:
        raise InputError(f"was written by a newer segloss (format {content['format']})", "update this one", file)
    return checkpoint
