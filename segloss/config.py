"""The options of every command: frozen dataclasses that are flags, YAML files and saved runs at once."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal, get_args

from segloss.datasets import DATASET_HELP, DATASETS, FORMATS, OPTIONS_HELP, TABLES, SegmentationDataset, build_dataset
from segloss.datasets.base import Color, Transform
from segloss.datasets.mixing import Mix
from segloss.datasets.tables import LABEL_ENDINGS
from segloss.decisions import WORDS, read_decision
from segloss.errors import InputError, unknown_name
from segloss.flags import Options, keys_of, option, require, spread
from segloss.losses import LOSS_OPTIONS, build_criterion, unused_options
from segloss.losses.by_name import LOSSES_HELP
from segloss.losses.label_values import OUTLYING_OPTIONS
from segloss.losses.reduction import BELOW_ONE, NOT_NEGATIVE, POSITIVE, PROBABILITY, SHARE, Range
from segloss.measures import MEASURES
from segloss.metrics import PROTOCOLS
from segloss.models import ModelOptions

WORKERS_HELP = "loader processes, 0: none; default: two less than the cores, at most 8"
VAL_SHARE_HELP, CLASSES_HELP = OPTIONS_HELP["val_share"], OPTIONS_HELP["classes"]
CALIBRATE_HELP = "fit temperature and class bias of the posterior on val, before the IoU rule"
CHANNELS_HELP = "bands of the images; default: found in their headers, gray of 8 bits as RGB"
SHOW_HELP = "bands of pictures, three as red, green and blue, or one; default: the first three"
CHECK_HELP = "files that the data doctor decodes; sample: 16 of each split"
Check = Literal["all", "sample", "off"]
Cache = Literal["none", "ram"]
Monitor = Literal["miou", "mean_accuracy", "pixel_accuracy", "loss"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
PredictionKind = Literal["ids", "color", "overlay", "train_ids", "probability", "probability_png", "confidence"]
PredictionForm = Literal["auto", "ids", "probability"]
ChosenMetric = Literal["miou", "mean_accuracy", "pixel_accuracy", "tail_miou"]
CHOICES = get_args(ChosenMetric)
COUNT: Range = ("0 or more", lambda number: number >= 0)
AT_LEAST_ONE: Range = ("at least 1", lambda number: number >= 1)
BETWEEN: Range = ("between 0 and 1", lambda number: 0 < number < 1)
Several = tuple[str, Callable[[Sequence[float]], bool]]  # as Range, of several numbers at once
SHOWN: Several = ("one or three numbers from 1", lambda bands: len(bands) in (0, 1, 3) and min(bands, default=1) >= 1)
SIDES: Several = ("at least 32 each", lambda sides: min(sides) >= 32)
FACTORS: Several = ("positive numbers", lambda scales: min(scales, default=0) > 0)
INTERVAL: Several = ("two positive numbers, the smaller first", lambda ends: 0 < ends[0] <= ends[1] < math.inf)
SPLITS = ("train", "val", "test")
# Options of Lightning's Trainer that the run folder, the plan or the schedule depend on -> what to use instead.
OWNED_TRAINER_OPTIONS = {
    "max_epochs": "--epochs",
    "max_steps": "--epochs",
    "fast_dev_run": "--epochs 1 with a small --image-scale",
    "precision": "--precision",
    "accelerator": "--accelerator",
    "devices": "--devices",
    "default_root_dir": "--output-dir",
    "logger": "the TensorBoard events in the run folder",
    "callbacks": "segloss.training from Python",
    "enable_checkpointing": "segloss.training from Python",
    "use_distributed_sampler": "--devices; the loaders know their rank",
}


def _is_decision(words: Sequence[str]) -> bool:
    try:
        return bool(read_decision(words))
    except ValueError:
        return False


def split_name(name: str) -> str:
    """The three common splits regardless of case; a folder may have others, which are called as they are."""
    return name.lower() if name.lower() in SPLITS else name


def require_splits(dataset: str | None, names: Iterable[str]) -> None:
    """InputError for a split that the data set cannot have."""
    for name in names:
        known = (FORMATS[dataset].splits if dataset else ()) or (name,)
        if name not in known:
            raise unknown_name("--split", name, known)


@dataclass(frozen=True)
class DataOptions(Options):
    """Data set, and where it lies: --dataset camvid --data-path data/CamVid"""

    dataset: str = option("camvid", DATASET_HELP, names=DATASETS)
    data_path: str | None = option(None, "folder of the data set; hf: a file or a name on the hub too", metavar="DIR")
    classes: int | None = option(None, CLASSES_HELP)
    val_share: float = option(0.2, VAL_SHARE_HELP, *BETWEEN)
    image_column: str = option("image", OPTIONS_HELP["image_column"])
    label_column: str = option("label", OPTIONS_HELP["label_column"])
    subset: str | None = option(None, OPTIONS_HELP["subset"])
    class_file: str | None = option(None, OPTIONS_HELP["class_file"], metavar="FILE")
    streaming: bool = option(False, OPTIONS_HELP["streaming"])
    channels: int | None = option(None, CHANNELS_HELP, *AT_LEAST_ONE)

    def open(self, split: str, transform: Transform | None = None, *, lonely: bool = False) -> SegmentationDataset:
        """A split, as :func:`segloss.datasets.build_dataset`."""
        return build_dataset(
            self.dataset,
            self.data_path,
            split,
            transform,
            **{name: getattr(self, name) for name in OPTIONS_HELP},
            lonely=lonely,
        )


@dataclass(frozen=True)
class FrequencyConfig(DataOptions):
    """``python -m segloss.frequency --split train val --recipes``: count the pixels of each class."""

    split: tuple[str, ...] = option(
        ("train",),
        "train, val, test; label values and weights are those of the first",
        canonical=split_name,
        metavar="SPLIT",
    )
    label_value_options: Mapping[str, Any] = spread(OUTLYING_OPTIONS, canonical=str.lower)
    recipes: bool = option(False, "print label values and class weights by every recipe")
    json: str | None = option(None, "write all statistics, co-occurrence too, into this file", metavar="FILE")
    output: str | None = option(None, "draw the class table into this PNG", metavar="FILE")

    def validate(self) -> None:
        require_splits(self.dataset, self.split)


MASKS, RUNS, SCORED, SEEN = "--predictions", "--checkpoint", "--checkpoint or --predictions", "--checkpoint or --images"
LABELS_MISSING = "--labels is missing: the folder of true masks that --predictions are scored against"
PREDICTIONS_HELP = "folders of predicted masks or probability maps"


@dataclass(frozen=True)
class PairOptions(Options):
    """What masks hold: --predictions masks/A --labels masks/true --class-table cityscapes --label-ids trainIds"""

    labels: str | None = option(None, "of --predictions: folder of the true masks", metavar="DIR", of=MASKS)
    class_table: str | None = option(
        None,
        f"of --predictions: {', '.join(TABLES)} or a class file; default: the one at the labels",
        metavar="NAME|FILE",
        of=MASKS,
    )
    label_ids: str = option(
        "auto",
        "of --labels: the class table's own, or class numbers from 0; auto: as files are named",
        names=("auto", *LABEL_ENDINGS),
        of=MASKS,
    )
    prediction_ids: str = option("auto", "the same of --predictions", names=("auto", *LABEL_ENDINGS), of=MASKS)


@dataclass(frozen=True)
class DoctorConfig(DataOptions, PairOptions):
    """``python -m segloss.doctor --check sample --output doctor.html``: look for what is wrong with a data set."""

    predictions: tuple[str, ...] = option((), f"look at {PREDICTIONS_HELP}, and at --labels instead", metavar="DIR")
    check: Literal["all", "sample"] = option("all", CHECK_HELP)
    show_bands: tuple[int, ...] = option((), SHOW_HELP, *SHOWN, metavar="BAND")
    overlays: int = option(6, "pictures of each split on the page", *COUNT)
    output: str | None = option(None, "write a page with findings and overlays", metavar="FILE.html")

    def validate(self) -> None:
        if self.predictions and self.labels is None:
            raise InputError(LABELS_MISSING)
        with_masks = {"predictions", "output", *get_annotations(PairOptions)}
        for key in keys_of(DoctorConfig):
            fits = key.name in with_masks if self.predictions else key.form.get("of") != MASKS
            if not fits and key.of(self) != key.option.default:
                with_or_without = "with" if self.predictions else "without"
                raise InputError(f"{key.flag} does nothing {with_or_without} --predictions", "leave it out")


@dataclass(frozen=True)
class RasteriseConfig(Options):
    """``python -m segloss.rasterise SOURCE OUT``: masks and a class file from outlines (COCO, LabelMe, CVAT, YOLO)."""

    source: str = option("", "folder or file of outlines", metavar="SOURCE", bare=True)
    out: str = option("", "folder to write: images/, masks/, classes.yaml", metavar="OUT", bare=True)
    format: Literal["auto", "coco", "labelme", "cvat", "yolo"] = option("auto", "what SOURCE holds")
    image_dir: str | None = option(None, "where the images lie; default: the folder of SOURCE", metavar="DIR")
    images: Literal["link", "copy"] = option("link", "how they come into OUT")
    on_top: Literal["smaller", "later"] = option(
        "smaller", "where annotations overlap: the smaller one, or the later in the file (CVAT: of higher z_order)"
    )
    unlabelled: Literal["background", "ignore"] = option("background", "what pixels without annotation are")
    class_table: str | None = option(None, "class file with names and ids; default: those of SOURCE", metavar="FILE")
    fill_boxes: bool = option(False, "take COCO's and YOLO's boxes without outline as filled rectangles")
    skip_bad: bool = option(False, "leave out annotations and images that cannot be used, each still named")

    def validate(self) -> None:
        for name in ("source", "out"):
            require(bool(getattr(self, name)), name, "given: python -m segloss.rasterise SOURCE OUT", "nothing")


@dataclass(frozen=True)
class LossOptions(Options):
    """Loss, and what it makes of the classes' pixels: --loss outlying_mse --label-values rank --alpha 2"""

    loss: str = option("outlying_mse", LOSSES_HELP, canonical=str.lower)
    loss_options: Mapping[str, Any] = spread(LOSS_OPTIONS, canonical=str.lower)

    def validate(self) -> None:
        super().validate()
        try:
            build_criterion(self.loss, (2, 1))  # any counts: whether names and factors go together
        except ValueError as error:
            raise InputError(str(error), where="--loss") from error


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """Optimiser and schedule: --epochs 120 --batch-size 16 --lr 5e-4"""

    epochs: int = option(60, "passes over the training split", *AT_LEAST_ONE)
    batch_size: int = option(8, "images per step and device", *AT_LEAST_ONE)
    lr: float = option(1e-3, "peak learning rate of AdamW", *POSITIVE)
    encoder_lr_factor: float = option(0.3, "learning rate of the encoder relative to the rest", *NOT_NEGATIVE)
    weight_decay: float = option(0.01, "of AdamW; none on norms and biases", *NOT_NEGATIVE)
    warmup_share: float = option(0.1, "share of all steps in which the learning rate rises linearly", *BELOW_ONE)


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """What the network sees of the images: --crop-size 256 256 --color strong --guided-crops 0.5"""

    image_scale: float = option(1.0, "resize images (not the labels they are scored on) by this factor", *POSITIVE)
    scale_range: tuple[float, float] = option(
        (0.75, 1.6), "random scale on top of it, in training", *INTERVAL, metavar=("LOW", "HIGH")
    )
    crop_size: tuple[int, int] | None = option(
        None, "training crop; default: the first image's size, at most 512", *SIDES, metavar=("H", "W")
    )
    color: Color = option("light", "random colour changes")
    augmentations: str | None = option(
        None, "albumentations pipeline in YAML instead of random scale, flip and colour", metavar="FILE"
    )
    guided_crops: float = option(0.0, "share of training crops placed around a pixel of a rare class", *SHARE)
    cat_max_ratio: float = option(
        1.0, "draw other crops again while one class holds more than this share; 1: off", *PROBABILITY
    )
    repeat_threshold: float = option(
        0.0, "repeat images of classes that a smaller share of images hold; 0: off", *SHARE
    )
    mix: Mix = option("none", "training samples of two images; paste: regions of the rarest third of the classes")
    mix_share: float = option(0.5, "share of the training samples that --mix makes of two", *SHARE)


@dataclass(frozen=True)
class TrainingMachineOptions(Options):
    """Machine: --accelerator cpu --workers 2 --cache ram"""

    cache: Cache = option("none", "keep decoded train and val images")
    workers: int | None = option(None, WORKERS_HELP, *COUNT)
    precision: Precision = option("auto", "of the network; auto: bf16-mixed where the hardware has it")
    accelerator: Accelerator = option("auto", "where the network runs")
    devices: int = option(1, "number of devices", *AT_LEAST_ONE)
    trainer: Mapping[str, Any] = option(
        {}, "further options of lightning.Trainer, as --trainer.NAME VALUE or in the file", metavar="YAML"
    )

    def validate(self) -> None:
        super().validate()
        for name in sorted({*self.trainer} & {*OWNED_TRAINER_OPTIONS}):
            use = f"use {OWNED_TRAINER_OPTIONS[name]}"
            raise InputError(f"--trainer.{name} is not for Lightning alone to know", use)


@dataclass(frozen=True)
class RunOptions(Options):
    """The run: --output-dir runs/first --seed 1 --monitor mean_accuracy"""

    # NumPy's SeedSequence takes no negative numbers; seeds derived from it must fit torch's 64 bits.
    seed: int = option(
        0, "of weights, sampling and augmentation", expected="in 0..4294967295", fits=lambda seed: 0 <= seed < 2**32
    )
    monitor: Monitor = option("miou", "validation score that chooses best.ckpt")
    output_dir: str | None = option(None, "run folder; default: runs/DATASET-ARCH-LOSS-TIME", metavar="DIR")
    check: Check = option("sample", CHECK_HELP)
    show_bands: tuple[int, ...] = option((), SHOW_HELP, *SHOWN, metavar="BAND")
    calibrate: bool = option(False, CALIBRATE_HELP)
    resume: bool = option(False, "go on with the run in --output-dir")

    def validate(self) -> None:
        super().validate()
        if self.resume and self.output_dir is None:
            raise InputError("--resume needs --output-dir, the run folder to go on with")


@dataclass(frozen=True)
class TrainConfig(
    DataOptions, ModelOptions, LossOptions, ScheduleOptions, AugmentationOptions, TrainingMachineOptions, RunOptions
):
    """``train_seg.py``: train a segmentation model and score it."""

    def unused_options(self) -> list[str]:
        """A line for every option that is not its default and yet changes nothing beside the others."""
        given = [key for key in keys_of(TrainConfig) if key.of(self) != key.option.default]
        of_losses = unused_options(self.loss, [key.name for key in given if key.name in self.loss_options])
        beside = {name: f"--loss {self.loss}, only with {' and '.join(read)}" for name, read in of_losses.items()}
        if self.mix == "none":
            beside["mix_share"] = "--mix none"
        if self.augmentations is not None:
            beside |= dict.fromkeys(("color", "scale_range"), "--augmentations")
        return [f"{key.flag} does nothing with {beside[key.name]}" for key in given if key.name in beside]


@dataclass(frozen=True)
class ScoredOptions(Options):
    """What to score or predict, and on which data: --checkpoint runs/A runs/B --split test"""

    checkpoint: tuple[str, ...] = option((), "run folders or checkpoint files", metavar="RUN")
    predictions: tuple[str, ...] = option((), f"or {PREDICTIONS_HELP}", metavar="DIR")
    images: str | None = option(None, "predict a folder of images instead of scoring", metavar="DIR")
    names: tuple[str, ...] = option((), "of the runs or folders, in tables and files")
    dataset: str | None = option(
        None, f"{DATASET_HELP}; default: the one the run was trained on", names=DATASETS, of=RUNS
    )
    data_path: str | None = option(None, "folder of the data set; default: the run's", metavar="DIR", of=RUNS)
    split: str = option("test", "train, val or test", canonical=split_name, of=RUNS)
    classes: int | None = option(None, f"{CLASSES_HELP}; default: the run's", of=RUNS)
    val_share: float | None = option(None, f"{VAL_SHARE_HELP}; default: the run's", *BETWEEN, of=RUNS)
    image_column: str | None = option(None, f"{OPTIONS_HELP['image_column']}; default: the run's", of=RUNS)
    label_column: str | None = option(None, f"{OPTIONS_HELP['label_column']}; default: the run's", of=RUNS)
    subset: str | None = option(None, f"{OPTIONS_HELP['subset']}; default: the run's", of=RUNS)
    class_file: str | None = option(None, "hf: class file; default: the run's", metavar="FILE", of=RUNS)
    streaming: bool | None = option(None, f"{OPTIONS_HELP['streaming']}; default: the run's", of=RUNS)
    check: Check = option("sample", f"{CHECK_HELP}; of masks all are looked at, unless off", of=SCORED)
    show_bands: tuple[int, ...] = option((), f"{SHOW_HELP}, or the run's", *SHOWN, metavar="BAND", of=SEEN)


@dataclass(frozen=True)
class MaskOptions(PairOptions):
    """Folders of predicted masks: --predictions masks/A masks/B --labels masks/true --skip-bad"""

    prediction_form: PredictionForm = option(
        "auto", "what folders of predictions hold; auto: probability maps where they are .npz or .npy files", of=MASKS
    )
    skip_bad: bool = option(
        False, "leave out predictions that cannot be read, are missing or have no label, and report them", of=MASKS
    )
    training_counts: str | None = option(
        None,
        "of --predictions: a run's pixel_counts.json, whose order makes head, middle and tail",
        metavar="FILE",
        of=MASKS,
    )


@dataclass(frozen=True)
class ComparisonOptions(Options):
    """Scores and comparison: --group ours ours theirs theirs --protocol cityscapes"""

    protocol: str = option("cityscapes", "definition of the means", names=PROTOCOLS, of=SCORED)
    measures: Mapping[str, Any] = spread({name: measure.option for name, measure in MEASURES.items()}, of=SCORED)
    group: tuple[str, ...] = option((), "setting of each run: its seeds are compared together", of=SCORED)
    block: str = option(
        "auto",
        "consecutive images that count as one for intervals; auto: chosen from the data",
        canonical=str.lower,
        metavar="N",
        of=SCORED,
        expected="at least 1, a whole number, or auto",
        fits=lambda text: text == "auto" or _is_positive(text),
    )
    by: Literal["folder", "sequence"] | None = option(
        None, "mean IoU also by sub-folder, or by sequence: names up to the number of the frame", of=SCORED
    )


@dataclass(frozen=True)
class OperatingPointOptions(Options):
    """Operating point: --split val --sweep-tau --choose-metric miou"""

    decision: tuple[str, ...] = option(
        ("plain",),
        f"{WORDS}: argmax of the scores; u^VALUE P, 0: highest pixel accuracy; P / prior^VALUE; the rule for mean IoU, "
        "fitted first where the run has none; what the run holds, a chosen point before the rule. Of "
        "probability maps the rule is fitted to them",
        canonical=str.lower,
        metavar="RULE",
        expected=WORDS,
        fits=_is_decision,
        was={"decision_tau": "--decision tau VALUE (1 is plain) or --decision auto"},
    )
    calibrate: bool = option(False, f"{CALIBRATE_HELP}, where the run has none", of=SEEN)
    sweep_tau: bool = option(False, "score a grid of operating points in the same pass", of=SCORED)
    choose_metric: ChosenMetric | None = option(None, "choose the operating point for", of=RUNS)
    choose_on: tuple[str, ...] = option(
        (), "choose on the images whose names begin so, or that a file lists; default: all", of=RUNS
    )


@dataclass(frozen=True)
class SightOptions(Options):
    """How the network looks at an image, and where it runs: --tta-flip --tta-scales 0.75 1 1.25 --tile 512 512"""

    image_scale: float | None = option(None, "resize images by this factor; default: the run's", *POSITIVE, of=SEEN)
    tta_scales: tuple[float, ...] = option(
        (1.0,), "average the posterior over these sizes", *FACTORS, metavar="FACTOR", of=SEEN
    )
    tta_flip: bool = option(False, "average the posterior over the mirrored image too", of=SEEN)
    tile: tuple[int, int] | None = option(
        None,
        "see larger images in windows of this size",
        *SIDES,
        metavar=("H", "W"),
        of=SEEN,
    )
    tile_overlap: float = option(0.5, "share of a window that it has in common with the next", *BELOW_ONE, of=SEEN)
    batch_size: int = option(8, "images, or with --tile windows, per step", *AT_LEAST_ONE, of=SEEN)
    workers: int | None = option(None, f"{WORKERS_HELP}; of --predictions: threads, default: all cores", *COUNT)
    precision: Precision = option("32-true", "of the network; auto: bf16-mixed where the hardware has it", of=SEEN)
    accelerator: Accelerator = option("auto", "where the network runs", of=SEEN)


@dataclass(frozen=True)
class OutputOptions(Options):
    """What is written: --save-predictions --save color overlay --output-dir results"""

    save_predictions: bool = option(False, "write predictions as PNG", of=RUNS)
    save: tuple[PredictionKind, ...] = option(
        ("ids",),
        "what to write: the data set's own ids, or as named (train_ids: Cityscapes; probability: float16 .npz; "
        "probability_png: 8 bit, a file for each class; confidence: the largest probability)",
        metavar="KIND",
        of=SEEN,
    )
    suspects: int = option(
        0,
        "list and show so many regions whose label is likely wrong, the network being sure of another",
        *COUNT,
        of=SCORED,
    )
    output_dir: str | None = option(
        None, "folder for the results; default: RUN/eval-SPLIT, or runs/eval-TIME", metavar="DIR"
    )


@dataclass(frozen=True)
class EvalConfig(ScoredOptions, MaskOptions, ComparisonOptions, OperatingPointOptions, SightOptions, OutputOptions):
    """``eval_seg.py``: score trained runs, or folders of predicted masks, and compare them."""

    def validate(self) -> None:
        if bool(self.checkpoint) == bool(self.predictions):
            raise InputError("give either --checkpoint, run folders or .ckpt files, or --predictions, folders of masks")
        if self.predictions and self.labels is None:
            raise InputError(LABELS_MISSING)
        if self.images is not None and not self.checkpoint:
            raise InputError("--images needs --checkpoint, the run that predicts them")
        self._check_mode()
        count = len(self.checkpoint or self.predictions)
        for flag, given in (("names", self.names), ("group", self.group)):
            require(len(given) in (0, count), flag, f"one for each of the {count} runs or folders", " ".join(given))
        for name in self.names:
            named = Path(name).name == name and name not in ("", ".", "..")
            require(named, "names", "names of files: not empty, without '/'", repr(name))
        require(len(set(self.names)) == len(self.names), "names", "all different", " ".join(self.names))
        require_splits(self.dataset, [self.split])
        self._check_operating_point()
        if self.save != ("ids",) and self.images is None:
            require(self.save_predictions, "save", "given with --save-predictions or --images", " ".join(self.save))
        usual = self.tile_overlap == EvalConfig.tile_overlap
        require(usual or self.tile is not None, "tile-overlap", "given with --tile", self.tile_overlap)

    def _check_mode(self) -> None:
        """InputError for an option that the way of evaluating would pass over in silence."""
        mode = "--predictions" if self.predictions else "--images" if self.images is not None else "--checkpoint"
        for key in keys_of(EvalConfig):
            modes = key.form.get("of", mode)
            if mode not in modes and key.of(self) != key.option.default:
                raise InputError(f"{key.flag} does nothing with {mode}, only with {modes}", "leave it out")

    def _check_operating_point(self) -> None:
        if self.choose_metric is None:
            require(not self.choose_on, "choose-on", "given with --choose-metric", " ".join(self.choose_on))
            return
        require(self.sweep_tau, "choose-metric", "given with --sweep-tau", self.choose_metric)
        if self.split == "test":
            raise InputError("--choose-metric on the test split would tune on it", "choose with --split val or train")


def _is_positive(text: str) -> bool:
    try:
        return int(text) > 0
    except ValueError:
        return False


@dataclass(frozen=True)
class ExportConfig(Options):
    """``python -m segloss.export --checkpoint runs/demo --output demo.onnx``: a trained run as an ONNX file."""

    checkpoint: str = option("", "run folder or checkpoint file", metavar="RUN")
    output: str = option("model.onnx", "the file to write", metavar="FILE")
    decision: tuple[str, ...] = option(
        ("auto",),
        f"of the output classes: {WORDS}; auto: what the run holds, else plain",
        canonical=str.lower,
        metavar="RULE",
        expected=WORDS,
        fits=_is_decision,
    )

    def validate(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "a run folder or checkpoint file", "nothing")
