"""The run folder: what a training run leaves behind, and how to get a model back from it.

config.yaml           every option of the run; augmentations.yaml: a copy of the user's pipeline
pixel_counts.json     class statistics of the training split
history.csv           one row per epoch
checkpoints/last.ckpt to resume from; checkpoints/best.ckpt: the weights of the best validation score
val_metrics.json, test_metrics.json, curves.png, per_class_iou.png, predictions.png
tensorboard/          event files
"""

import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from segloss.config import EvalConfig, TrainConfig
from segloss.datasets import ClassTable, SegmentationDataset
from segloss.decisions import RULES, Decision
from segloss.errors import InputError
from segloss.files import write_bytes, write_json, write_text
from segloss.flags import from_plain_dict, to_plain_dict
from segloss.losses import Criterion, build_criterion
from segloss.models import SegmentationModel, build_model, logits_at_size
from segloss.pixel_counts import PixelCounts

CHECKPOINT_FORMAT = 1
LAST = Path("checkpoints/last.ckpt")
BEST = Path("checkpoints/best.ckpt")
KEPT_AUGMENTATIONS = "augmentations.yaml"
_FOLDER_VARIABLE = "SEGLOSS_RUN_FOLDER"  # tells the processes of one distributed run which folder the first one chose


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
        raise InputError(f"{folder}: is a file; choose another --output-dir")
    if folder.is_dir() and any(folder.iterdir()) and not config.resume:
        what = (
            "already holds a run; add --resume to go on with it, or"
            if (folder / "config.yaml").exists()
            else ("is not empty;")
        )
        raise InputError(f"{folder}: {what} choose another --output-dir")
    os.environ[_FOLDER_VARIABLE] = str(folder)
    return folder


def open_run_folder(folder: Path, config: TrainConfig, counts: PixelCounts) -> None:
    """Make the folder and write what is known before training."""
    try:
        saved = replace(config, resume=False, output_dir=str(folder))
        counts.save(folder / "pixel_counts.json")
        if config.augmentations is not None and not config.resume:
            write_bytes(folder / KEPT_AUGMENTATIONS, Path(config.augmentations).read_bytes())
        write_text(folder / "config.yaml", yaml.safe_dump(to_plain_dict(saved), sort_keys=False))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another --output-dir") from error


def augmentations_file(config: TrainConfig) -> Path | None:
    """The user's pipeline; a run that goes on reads its own copy, and refuses a file that has changed since."""
    if config.augmentations is None:
        return None
    path = Path(config.augmentations)
    kept = Path(str(config.output_dir)) / KEPT_AUGMENTATIONS
    if not config.resume or not kept.is_file():
        return path
    if path.is_file() and path.read_bytes() != kept.read_bytes():
        raise InputError(f"{path}: has changed since the run began; restore it from {kept}, or start another run")
    return kept


def check_same_counts(folder: Path, counts: PixelCounts) -> None:
    """InputError if the run in the folder was begun on masks that counted otherwise."""
    path = folder / "pixel_counts.json"
    if not path.is_file():
        return
    saved = PixelCounts.load(path)
    if (saved.pixels, saved.class_names) != (counts.pixels, counts.class_names):
        raise InputError(
            f"{folder}: began on other masks ({sum(saved.pixels):,} labelled pixels in {saved.image_count} images, now "
            f"{sum(counts.pixels):,} in {counts.image_count}); restore them, or start another run"
        )


def criterion_of(config: TrainConfig, counts: PixelCounts) -> Criterion:
    """The criterion that a config and the training counts ask for; InputError if they do not fit."""
    own = config.label_values_argument()
    if "outlying_mse" in config.loss and isinstance(own, list) and len(own) != len(counts.pixels):
        raise InputError(f"--label-values: {len(own)} numbers for {len(counts.pixels)} classes; give one per class")
    try:
        return build_criterion(
            config.loss,
            counts.pixels,
            pixels_of_images=counts.pixels_of_images,
            alpha=config.alpha,
            label_values=own,
            power=config.label_power,
            class_weights=config.class_weights,
            gamma=config.gamma,
            label_smoothing=config.label_smoothing,
            adjustment=config.adjustment,
        )
    except ValueError as error:
        raise InputError(f"{config.loss}: {error}") from error


def checkpoint_content(config: TrainConfig, classes: ClassTable, counts: PixelCounts, model: SegmentationModel) -> dict:
    """What a checkpoint needs beside its weights to be used alone: plain values only."""
    return {
        "format": CHECKPOINT_FORMAT,
        "config": to_plain_dict(config),
        "classes": classes.to_dict(),
        "counts": counts.to_dict(),
        "normalisation": [model.mean.view(-1).tolist(), model.std.view(-1).tolist()],
    }


@dataclass
class Run:
    """A trained model with all it takes to use it.

    Attributes:
        model: uint8 or float RGB in 0..255 ``(N, 3, H, W)`` -> logits ``(N, C, H, W)``; in eval mode.
        criterion: reads logits: ``criterion.decide(logits, tau)``, ``criterion.posterior(logits)``.
        classes: names, ids and colours.
        counts: class statistics of the training split.
        config: every option of the run.
        path: the checkpoint file.
    """

    model: SegmentationModel
    criterion: Criterion
    classes: ClassTable
    counts: PixelCounts
    config: TrainConfig
    path: Path

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

    @torch.inference_mode()
    def predict(self, image: np.ndarray, tau: float = 1.0) -> np.ndarray:
        """Class numbers ``(H, W)`` uint8 of an RGB image ``(H, W, 3)`` uint8, at the run's image scale."""
        from segloss.datasets.transforms import resize_image

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}")
        resized = resize_image(image, self.config.image_scale)
        batch = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self.model.mean.device)
        logits = logits_at_size(self.model, batch, image.shape[:2])
        return self.criterion.decide(logits, tau)[0].byte().cpu().numpy()

    def decode(self, logits: Tensor, tau: float = 1.0) -> Tensor:
        """Class numbers ``(N, H, W)`` from the model's logits, at operating point ``tau``."""
        return self.criterion.decide(logits, tau)

    def posterior(self, images: Tensor) -> Tensor:
        """P(c|x), ``(N, C, H, W)``, of images as the model takes them."""
        with torch.inference_mode():
            return self.criterion.posterior(self.model(images).float())


def load_run(path: str | Path) -> Run:
    """The model of a run folder (its best.ckpt, else last.ckpt) or of a checkpoint file.

    >>> run = segloss.load_run("runs/demo")  # doctest: +SKIP
    >>> class_map = run.predict(image)       # doctest: +SKIP

    Raises:
        InputError: nothing is there, or it is no checkpoint of this toolkit.
    """
    file = _checkpoint_file(Path(path))
    checkpoint = read_checkpoint(file)
    try:
        content = checkpoint["segloss"]
        config = from_plain_dict(TrainConfig, content["config"], str(file))
        classes = ClassTable.from_dict(content["classes"])
        counts = PixelCounts.from_dict(content["counts"])
        mean, std = content["normalisation"]
        model = build_model(config.arch, config.encoder, len(classes), normalisation=(tuple(mean), tuple(std)))
        criterion = criterion_of(config, counts)
        load_weights(model, criterion, checkpoint["state_dict"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{file}: is damaged ({type(error).__name__}: {str(error)[:200]}); use another one") from error
    return Run(model.eval(), criterion, classes, counts, config, file)


def check_same_classes(run: Run, dataset: SegmentationDataset) -> None:
    """InputError unless the data set has the run's classes, by name and in the run's order."""
    ours, theirs = run.classes.names, dataset.classes.names
    if len(ours) != len(theirs):
        raise InputError(
            f"{run.path}: was trained on {len(ours)} classes, but {dataset.name} has {len(theirs)}; "
            "choose the --dataset and --data-path it was trained on"
        )
    if ours != theirs:
        place = next(c for c in range(len(ours)) if ours[c] != theirs[c])
        raise InputError(
            f"{run.path}: class {place} is {ours[place]!r} there and {theirs[place]!r} in {dataset.name}; "
            "give the data set the run's classes in the run's order"
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
        raise InputError(f"{path}: holds no {BEST}; give a run folder or a checkpoint file")
    if not path.is_file():
        raise InputError(f"{path}: no such run folder or checkpoint file")
    return path


def read_checkpoint(file: Path) -> dict:
    """A checkpoint of this toolkit on the CPU; InputError if it is something else."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip and pickle each raise their own kinds
        raise InputError(f"{file}: cannot be read as a checkpoint ({type(error).__name__}); is it whole?") from error
    content = checkpoint.get("segloss") if isinstance(checkpoint, dict) else None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError(f"{file}: is no checkpoint of segloss; for weights of an encoder use --encoder-weights")
    if content["format"] > CHECKPOINT_FORMAT:
        raise InputError(f"{file}: was written by a newer segloss (format {content['format']}); update this one")
    return checkpoint


FILE = "operating_point.json"


def save_operating_point(run: Run, row: dict, config: EvalConfig, images: int) -> Path:
    """Write the choice into the run folder, where ``--decision-tau auto`` finds it; the file's path."""
    metric = str(config.choose_metric)
    chosen = {"rule": row["rule"], "value": row["value"], "metric": metric, "score": row[metric]}
    chosen |= {"protocol": config.protocol, "checkpoint": run.path.name}
    path = run.folder / FILE
    write_json(path, {**chosen, "split": config.split, "images": images, "choose_on": config.choose_on})
    return path


def load_operating_point(run: Run) -> Decision:
    """The choice of a run; InputError if none was made for these weights."""
    path = run.folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        decision = Decision(str(content["rule"]), float(content["value"]))
        if not math.isfinite(decision.value):
            raise ValueError(f"{decision.value} is no operating point")
        chosen_for = str(content["checkpoint"])
    except FileNotFoundError:
        raise InputError(
            f"{path}: no operating point was chosen; run eval_seg.py --checkpoint {run.path} --split val --sweep-tau "
            "--choose-metric miou"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as an operating point; choose it again") from error
    if decision.rule not in RULES:
        raise InputError(f"{path}: unknown rule {decision.rule!r}; choose it again")
    if chosen_for != run.path.name:
        raise InputError(f"{path}: was chosen for {chosen_for}, not {run.path.name}; choose it again for that one")
    return decision
