"""What the options of Lightning's Trainer may be: it looks at some of them in the midst of a run, at others never."""

import math
import re
from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import ParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segloss.config import OWNED_TRAINER_OPTIONS, TrainConfig
from segloss.errors import InputError, unknown_name
from segloss.training.data import Splits

REFUSED = "lightning.Trainer refuses its options"
Allowed = tuple[str, Callable[[Any], bool]]
PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(low: int) -> Allowed:
    return f"a whole number of at least {low}", lambda n: _is_number(n) and n == int(n) and n >= low


def _one_of(*names: Any) -> Allowed:
    spelt = [str(name).lower() if isinstance(name, bool) else str(name) for name in names]
    return f"one of {', '.join(spelt)}", lambda value: (value.lower() if isinstance(value, str) else value) in names


def _is_share_or_count(value: Any) -> bool:
    return _is_number(value) and (0 <= value <= 1 or value == int(value) > 0)


def _is_duration(value: Any) -> bool:
    return isinstance(value, dict | timedelta) or (
        isinstance(value, str) and re.fullmatch(r"\d+(:\d\d){3}", value.strip()) is not None
    )


SWITCH = _one_of(True, False)
BATCHES: Allowed = ("a share in [0, 1] or a whole number of batches", _is_share_or_count)
SOME_BATCHES: Allowed = (
    "a share in (0, 1] or a whole number of batches",
    lambda value: _is_share_or_count(value) and value > 0,
)
ALLOWED: dict[str, Allowed] = {
    **dict.fromkeys(("accumulate_grad_batches", "num_nodes", "check_val_every_n_epoch"), _whole(1)),
    **dict.fromkeys(("log_every_n_steps", "min_epochs", "min_steps", "reload_dataloaders_every_n_epochs"), _whole(0)),
    "num_sanity_val_steps": _whole(-1),
    "gradient_clip_val": ("a number, 0 or more", lambda value: _is_number(value) and value >= 0),
    "gradient_clip_algorithm": _one_of("norm", "value"),
    "limit_train_batches": SOME_BATCHES,
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"), BATCHES),
    "val_check_interval": (
        f"{SOME_BATCHES[0]}, or a time as 00:01:00:00",
        lambda value: isinstance(value, str | dict) or SOME_BATCHES[1](value),
    ),
    "max_time": ("days:hours:minutes:seconds as 00:12:00:00", _is_duration),
    **dict.fromkeys(("benchmark", "inference_mode", "detect_anomaly", "barebones", "sync_batchnorm"), SWITCH),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_autolog_hparams"), SWITCH),
    "deterministic": _one_of(True, False, "warn"),
    "profiler": _one_of(*PROFILERS),
}


def check_trainer_options(config: TrainConfig) -> None:
    """InputError for an option that Lightning does not have, that cannot be, or that contradicts another."""
    known = [name for name in signature(L.Trainer).parameters if name not in OWNED_TRAINER_OPTIONS]
    for name, value in config.trainer.items():
        if name not in known:
            raise unknown_name("option of --trainer", name, known)
        expected, fits = ALLOWED.get(name, ("", lambda _: True))
        if value is not None and not fits(value):
            raise InputError(f"must be {expected}, got {value}", where=f"--trainer.{name}")
    if (config.trainer.get("min_epochs") or 0) > config.epochs:
        raise InputError(
            f"--trainer.min_epochs {config.trainer['min_epochs']} is more than --epochs {config.epochs}",
            "raise --epochs",
        )


def profiler_into(folder: Path, name: str | None) -> Profiler | None:
    """The profiler of that name, whose report goes into the run folder: on the screen Lightning would only log it."""
    return None if name is None else PROFILERS[name.lower()](dirpath=folder, filename="profile")


def require_shared_norms(trainer: L.Trainer, config: TrainConfig, model: nn.Module) -> None:
    """InputError where --trainer.sync_batchnorm would put plain norms in the place of such that do more."""
    if not config.trainer.get("sync_batchnorm") or not isinstance(trainer.strategy, ParallelStrategy):
        return
    norms = {type(module) for module in model.modules() if isinstance(module, _BatchNorm)}
    if others := sorted(norm.__name__ for norm in norms if not norm.__module__.startswith("torch.")):
        what = f"--trainer.sync_batchnorm would drop the activations in the network's {', '.join(others)}"
        raise InputError(what, "leave it out, or take an encoder of smp itself, such as resnet34")


def unused_trainer_options(config: TrainConfig, trainer: L.Trainer) -> list[str]:
    """A line for every option of Lightning that is given and yet changes nothing here."""
    given = {name for name, value in config.trainer.items() if value is not None}
    nothing = {
        "limit_test_batches": "scores are those of whole splits",
        "limit_predict_batches": "nothing is predicted in training",
        "enable_autolog_hparams": "config.yaml has the options",
        "model_registry": "best.ckpt is in the run folder",
    }
    if not config.trainer.get("gradient_clip_val"):
        nothing["gradient_clip_algorithm"] = "only with --trainer.gradient_clip_val"
    if "max_time" not in given and config.early_stop is None:
        why = "nothing ends before --epochs but --trainer.max_time and --early-stop"
        nothing |= dict.fromkeys(("min_epochs", "min_steps"), why)
    if trainer.world_size == 1:
        nothing["sync_batchnorm"] = "only with several --devices"
    if config.trainer.get("overfit_batches"):
        nothing |= dict.fromkeys(("limit_train_batches", "limit_val_batches"), "--trainer.overfit_batches is given")
    lines = [f"--trainer.{name} does nothing: {why}" for name, why in nothing.items() if name in given]
    nothing_validated = "nothing is validated, no best.ckpt kept, no --early-stop"
    if (trainer.check_val_every_n_epoch or 1) > config.epochs:
        lines.append(f"--trainer.check_val_every_n_epoch is more than --epochs: {nothing_validated}")
    if trainer.limit_val_batches == 0:
        lines.append(f"--trainer.limit_val_batches 0: {nothing_validated}")
    return lines


def validated_images(config: TrainConfig, images: int, trainer: L.Trainer) -> int:
    """How many of the images of val are looked at; of an unknown --batch-size, or where none are, all of them."""
    batches, limit = math.ceil(images // trainer.world_size / config.batch_size), trainer.limit_val_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if config.auto_batch_size or not 0 < taken < batches:
        return images
    return taken * config.batch_size * trainer.world_size


def batches_of_epoch(config: TrainConfig, splits: Splits, trainer: L.Trainer) -> int:
    """Micro-batches of an epoch on one device; InputError where Lightning's limits leave none."""
    for images, kind in ((splits.images_per_epoch, "training"), (len(splits.val), "validation")):
        if images < trainer.world_size:
            what = f"{images} {kind} images are fewer than the {trainer.world_size} devices"
            raise InputError(what, "take fewer --devices")
    share = splits.images_per_epoch // trainer.world_size
    batches = share // max(1, min(config.batch_size, share))
    limit = trainer.limit_train_batches
    planned = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if planned == 0:
        what = f"--trainer.limit_train_batches {limit} leaves none of {batches} batches"
        raise InputError(what, "take a larger share")
    val_batches = math.ceil(len(splits.val) // trainer.world_size / config.batch_size)
    val_limit = trainer.limit_val_batches
    if isinstance(val_limit, float) and 0 < val_limit * val_batches < 1:
        what = f"--trainer.limit_val_batches {val_limit} leaves none of {val_batches} validation batches"
        raise InputError(what, "take a larger share")
    every = getattr(trainer, "val_check_interval", None)  # else it is a time
    if isinstance(every, int) and every > planned and trainer.check_val_every_n_epoch is not None:
        raise InputError(
            f"--trainer.val_check_interval {every} is more than the {planned} batches of an epoch",
            "take fewer, or a share of the epoch as 1.0",
        )
    return planned
