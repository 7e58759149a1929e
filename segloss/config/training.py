"""The options of train_seg.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segloss.config.augmentation import AugmentationOptions
from segloss.config.data import DataOptions
from segloss.config.kept_weights import KeptWeightsOptions
from segloss.config.machine import TrainingMachineOptions
from segloss.config.optimisation import ScheduleOptions
from segloss.config.ranges import CALIBRATE_HELP, CHECK_HELP, SHOW_HELP, SHOWN, Check
from segloss.errors import InputError
from segloss.flags import Options, keys_of, option, spread
from segloss.losses import LOSS_OPTIONS, build_criterion, unused_options
from segloss.losses.by_name import LOSSES_HELP, split_name
from segloss.losses.label_values import names_recipe
from segloss.losses.ranges import NOT_NEGATIVE, SHARE
from segloss.models import ModelOptions

LoggerName = Literal["wandb", "mlflow", "comet"]


@dataclass(frozen=True)
class LossOptions(Options):
    """Loss, and what it makes of the classes' pixels: --loss outlying_mse --label-values power --alpha 2"""

    loss: str = option("0.25*weighted_ce+0.75*jaccard", LOSSES_HELP, canonical=str.lower)
    loss_options: Mapping[str, Any] = spread(LOSS_OPTIONS, canonical=str.lower)
    late_jaccard: float = option(
        0.0, "last share of the training in which the loss is 0.25 of itself + 0.75 of soft Jaccard; 0: none", *SHARE
    )
    bias_init: Literal["zero", "prior"] = option(
        "zero", "biases of the scores at the start; prior: those that give each class its share of the pixels"
    )
    score_units: Literal["one", "label_values"] = option(
        "one",
        "of outlying_mse: label_values: a step of the last layer moves each class's score by so many times as much",
    )

    def validate(self) -> None:
        super().validate()
        try:
            build_criterion(self.loss, (2, 1))  # any counts: whether names and factors go together
        except ValueError as error:
            raise InputError(str(error), where="--loss") from error


@dataclass(frozen=True)
class RunOptions(Options):
    """The run: --output-dir runs/first --seed 1 --check all"""

    # NumPy's SeedSequence takes no negative numbers; seeds derived from it must fit torch's 64 bits.
    seed: int = option(
        0, "of weights, sampling and augmentation", expected="in 0..4294967295", fits=lambda seed: 0 <= seed < 2**32
    )
    plan: Literal["none", "auto"] = option(
        "none", "auto: options that are not given are those of python -m segloss.plan"
    )
    output_dir: str | None = option(None, "run folder; default: runs/DATASET-ARCH-LOSS-TIME", metavar="DIR", path=True)
    logger: tuple[LoggerName, ...] = option((), "record the run there too, beside TensorBoard", metavar="NAME")
    check: Check = option("sample", CHECK_HELP)
    show_bands: tuple[int, ...] = option((), SHOW_HELP, *SHOWN, metavar="BAND")
    calibrate: bool = option(False, CALIBRATE_HELP)
    checkpoint_minutes: float = option(
        10.0, "minutes after which last.ckpt is written within an epoch too; 0: after every step", *NOT_NEGATIVE
    )
    resume: bool = option(False, "go on with the run in --output-dir")
    override: bool = option(False, "with --resume: go on with other options than the run began with")
    init_from: str | None = option(
        None, "begin with the weights of another run; of its classes those of the same name", metavar="RUN", path=True
    )

    def validate(self) -> None:
        super().validate()
        if self.resume and self.output_dir is None:
            raise InputError("--resume needs --output-dir, the run folder to go on with")
        if self.override and not self.resume:
            raise InputError("--override does nothing without --resume", "leave it out")


@dataclass(frozen=True)
class TrainConfig(
    DataOptions,
    ModelOptions,
    LossOptions,
    ScheduleOptions,
    KeptWeightsOptions,
    AugmentationOptions,
    TrainingMachineOptions,
    RunOptions,
):
    """``train_seg.py``: train a segmentation model and score it."""

    @property
    def first_averaged_epoch(self) -> int:
        """The first of ``--swa-share``, from 0."""
        return min(self.epochs - 1, round(self.epochs * (1 - self.swa_share)))

    def unused_options(self) -> list[str]:
        """A line for every option that is not its default and yet changes nothing, or harms, beside the others."""
        given = [key for key in keys_of(TrainConfig) if key.of(self) != key.option.default]
        of_losses = unused_options(self.loss, [key.name for key in given if key.name in self.loss_options])
        beside = {name: f"--loss {self.loss}, only with {' and '.join(read)}" for name, read in of_losses.items()}
        if unused_options(self.loss, ["alpha"]):  # no squared error
            beside["score_units"] = f"--loss {self.loss}, only with outlying_mse"
        if not names_recipe(self.loss_options["label_values"], "power"):
            beside.setdefault("label_power", "--label-values other than power")
        if self.mix == "none":
            beside["mix_share"] = "--mix none"
        if self.init_from is not None:
            beside["bias_init"] = "--init-from"
        if self.encoder_lr_factor == 0:
            beside["layer_decay"] = "--encoder-lr-factor 0"
        if self.optimizer == "rprop":
            beside["weight_decay"] = "--optimizer rprop"
        if self.init_from is not None:
            beside["encoder_weights"] = "--init-from"
        if self.augmentations is not None:
            beside |= dict.fromkeys(("color", "scale_range"), "--augmentations")
        lines = [f"{key.flag} does nothing with {beside[key.name]}" for key in given if key.name in beside]
        if self.encoder_lr_factor == 0 and self.encoder_weights == "none" and self.init_from is None:
            lines.append("--encoder-lr-factor 0 freezes random weights: add --encoder-weights or --init-from")
        if self.late_jaccard > 0 and any(name == "jaccard" for _, _, name in split_name(self.loss)):
            lines.append(f"--late-jaccard adds to the Jaccard of --loss {self.loss}: leave one of the two out")
        return lines
