"""The options of every command: dataclasses that are flags, YAML files and saved runs at once."""

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from segloss.datasets import DATASET_HELP, OPTIONS_HELP, TABLES, SegmentationDataset, build_dataset
from segloss.datasets.base import Transform
from segloss.datasets.tables import LABEL_ENDINGS
from segloss.errors import InputError, unknown_name
from segloss.flags import flag_of, from_plain_dict, option, parse_config, require, require_name, to_plain_dict
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, build_criterion
from segloss.losses.by_name import LOSSES_HELP, split_name
from segloss.metrics import PROTOCOLS
from segloss.pixel_counts import available_cores

VAL_SHARE_HELP, CLASSES_HELP = OPTIONS_HELP["val_share"], OPTIONS_HELP["classes"]
WORKERS_HELP = "default: two less than the cores, at most 8"
PREDICTION_IDS = ("auto", *LABEL_ENDINGS)
KINDS = ("ids", "color", "overlay", "train_ids")  # of written predictions
CHOICES = ("miou", "mean_accuracy", "pixel_accuracy", "tail_miou")
CHECKS = ("all", "sample", "off")
CHECK_HELP = "files that the data doctor decodes: all, sample (16 of each split), off (in training)"
COLORS = ("none", "light", "strong")
CACHES = ("none", "ram")
MONITORS = ("miou", "mean_accuracy", "pixel_accuracy", "loss")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
# Options -> the losses that read them.
OPTIONS_OF_LOSSES = {
    "label_values": ("outlying_mse",),
    "label_power": ("outlying_mse",),
    "alpha": ("outlying_mse", "mse"),
    "gamma": ("focal",),
    "label_smoothing": ("ce",),
    "adjustment": ("logit_adjusted", "vector_scaling"),
}


def _require_loss(name: str) -> None:
    try:
        build_criterion(name, (2, 1))  # any counts: whether names and factors go together
    except ValueError as error:
        raise InputError(f"--loss: {error}") from error


def resolve_workers(workers: int | None) -> int:
    """The number asked for; by default two cores are left to the training process, which is fastest on two cores."""
    if workers is None:
        return max(0, min(8, available_cores() - 2))
    require(workers >= 0, "workers", "0 or more", workers)
    return workers


@dataclass
class LabelValueOptions:
    """What turns pixel counts into label values; shared by training and the class table."""

    label_values: list[str] = option(
        ["rank"], f"{', '.join(LABEL_VALUES)}, or one number per class", nargs="+", metavar="RECIPE", lone=True
    )
    label_power: float = option(0.5, "exponent p of the recipe power")
    alpha: float = option(1.0, "scale of all label values")

    def label_values_argument(self) -> str | list[float]:
        """A recipe's name, or the numbers."""
        if len(self.label_values) == 1 and self.label_values[0] in LABEL_VALUES:
            return self.label_values[0]
        try:
            return [float(value) for value in self.label_values]
        except ValueError:
            raise unknown_name(
                "--label-values", " ".join(self.label_values), (*LABEL_VALUES, "one number per class")
            ) from None

    def check_label_values(self) -> None:
        self.label_values = [str(value) for value in self.label_values]
        require(0 < self.alpha < math.inf, "alpha", "positive", self.alpha)
        require(0 <= self.label_power < math.inf, "label-power", ">= 0", self.label_power)
        self.label_values_argument()


@dataclass
class DataOptions:
    """Which data set, and where it lies."""

    dataset: str = option("camvid", DATASET_HELP)
    data_path: str | None = option(None, "folder of the data set", metavar="DIR")
    classes: int | None = option(None, CLASSES_HELP)
    val_share: float = option(0.2, VAL_SHARE_HELP)

    def open(self, split: str, transform: Transform | None = None, *, lonely: bool = False) -> SegmentationDataset:
        """A split, as :func:`segloss.datasets.build_dataset`."""
        return build_dataset(
            self.dataset,
            self.data_path,
            split,
            transform,
            val_share=self.val_share,
            classes=self.classes,
            lonely=lonely,
        )

    def check_data(self) -> None:
        require(0 < self.val_share < 1, "val-share", "between 0 and 1", self.val_share)


@dataclass
class FrequencyConfig(LabelValueOptions, DataOptions):
    """``python -m segloss.frequency``: count the pixels of each class, print and draw the class table."""

    split: list[str] = option(
        ["train"], "train, val, test; label values and weights are those of the first", nargs="+", metavar="SPLIT"
    )
    recipes: bool = option(False, "print label values and class weights by every recipe")
    json: str | None = option(None, "write all statistics, co-occurrence too, into this file", metavar="FILE")
    output: str | None = option(None, "draw the class table into this PNG", metavar="FILE")

    def validate(self) -> None:
        self.check_label_values()
        self.check_data()


@dataclass
class DoctorConfig(DataOptions):
    """``python -m segloss.doctor``: look for what is wrong with a data set."""

    check: str = option("all", CHECK_HELP)
    overlays: int = option(6, "pictures of each split on the page")
    output: str | None = option(None, "write a page with findings and overlays", metavar="FILE.html")

    def validate(self) -> None:
        self.check_data()
        require_name("check", self.check, ("all", "sample"))
        require(self.overlays >= 0, "overlays", "0 or more", self.overlays)


@dataclass
class TrainConfig(LabelValueOptions, DataOptions):
    """``train_seg.py``: train a segmentation model and score it."""

    arch: str = option("unet", "an architecture of segmentation_models_pytorch")
    encoder: str = option("resnet34", "an encoder of segmentation_models_pytorch; tu-NAME for timm's")
    encoder_weights: str = option("none", "none, imagenet (downloads), or a .safetensors or .pth file")
    loss: str = option("outlying_mse", LOSSES_HELP)
    class_weights: str = option("median_frequency", f"of weighted_NAME: {', '.join(CLASS_WEIGHTS)}")
    gamma: float = option(2.0, "of focal: focusing exponent")
    label_smoothing: float = option(0.0, "of ce: share of the label spread over all classes")
    adjustment: float = option(1.0, "of logit_adjusted and vector_scaling: exponent tau of the prior")
    epochs: int = option(60, "passes over the training split")
    batch_size: int = option(8, "images per step and device")
    lr: float = option(1e-3, "peak learning rate of AdamW")
    encoder_lr_factor: float = option(0.3, "learning rate of the encoder relative to the rest")
    weight_decay: float = option(0.01, "of AdamW; none on norms and biases")
    warmup_share: float = option(0.1, "share of all steps in which the learning rate rises linearly")
    image_scale: float = option(1.0, "resize images (not the labels they are scored on) by this factor")
    scale_range: list[float] = option(
        [0.75, 1.6], "random scale on top of it, in training", nargs=2, metavar=("LOW", "HIGH")
    )
    crop_size: list[int] | None = option(
        None,
        "training crop; default: the first image's size, at most 512",
        nargs=2,
        metavar=("H", "W"),
        type=int,
    )
    color: str = option("light", f"random colour changes: {', '.join(COLORS)}")
    augmentations: str | None = option(
        None, "albumentations pipeline in YAML instead of random scale, flip and colour", metavar="FILE"
    )
    guided_crops: float = option(0.0, "share of training crops placed around a pixel of a rare class")
    cat_max_ratio: float = option(1.0, "draw other crops again while one class holds more than this share; 1: off")
    repeat_threshold: float = option(0.0, "repeat images of classes that a smaller share of images hold; 0: off")
    cache: str = option("none", f"keep decoded train and val images: {', '.join(CACHES)}")
    workers: int | None = option(None, f"loader processes, 0: none; {WORKERS_HELP}")
    seed: int = option(0, "of weights, sampling and augmentation")
    precision: str = option("auto", f"{', '.join(PRECISIONS)}; auto is bf16-mixed where the hardware has it")
    accelerator: str = option("auto", ", ".join(ACCELERATORS))
    devices: int = option(1, "number of devices")
    monitor: str = option("miou", f"validation score that chooses best.ckpt: {', '.join(MONITORS)}")
    output_dir: str | None = option(None, "run folder; default: runs/DATASET-ARCH-LOSS-TIME", metavar="DIR")
    check: str = option("sample", CHECK_HELP)
    resume: bool = option(False, "go on with the run in --output-dir")
    trainer: dict = option({}, "further options of lightning.Trainer, as --trainer.NAME VALUE or in the file")

    def validate(self) -> None:
        """InputError for a value that cannot be, before anything is read or written."""
        self.check_label_values()
        _require_loss(self.loss)
        require_name("class-weights", self.class_weights, CLASS_WEIGHTS)
        require_name("monitor", self.monitor, MONITORS)
        require_name("color", self.color, COLORS)
        require_name("cache", self.cache, CACHES)
        require_name("check", self.check, CHECKS)
        require_name("precision", self.precision, PRECISIONS)
        require_name("accelerator", self.accelerator, ACCELERATORS)
        for flag in ("epochs", "batch_size", "devices"):
            require(getattr(self, flag) >= 1, flag.replace("_", "-"), "at least 1", getattr(self, flag))
        self.workers = resolve_workers(self.workers)
        # NumPy's SeedSequence takes no negative numbers; seeds derived from it must fit torch's 64 bits.
        require(0 <= self.seed < 2**32, "seed", "in 0..4294967295", self.seed)
        for flag in ("lr", "image_scale"):
            require(0 < getattr(self, flag) < math.inf, flag.replace("_", "-"), "positive", getattr(self, flag))
        for flag in ("encoder_lr_factor", "weight_decay", "gamma"):
            require(0 <= getattr(self, flag) < math.inf, flag.replace("_", "-"), ">= 0", getattr(self, flag))
        require(0 <= self.label_smoothing < 1, "label-smoothing", "in [0, 1)", self.label_smoothing)
        require(math.isfinite(self.adjustment), "adjustment", "finite", self.adjustment)
        require(0 <= self.warmup_share < 1, "warmup-share", "in [0, 1)", self.warmup_share)
        for flag in ("guided_crops", "repeat_threshold"):
            require(0 <= getattr(self, flag) <= 1, flag.replace("_", "-"), "in [0, 1]", getattr(self, flag))
        require(0 < self.cat_max_ratio <= 1, "cat-max-ratio", "in (0, 1]", self.cat_max_ratio)
        if self.augmentations is not None:
            self.augmentations = str(Path(self.augmentations).absolute())  # a run is resumed from other folders too
        self.check_data()
        low, high = self.scale_range
        require(0 < low <= high, "scale-range", "two positive numbers, the smaller first", self.scale_range)
        if self.crop_size is not None:
            require(min(self.crop_size) >= 32, "crop-size", "at least 32 each", self.crop_size)
        if self.resume and self.output_dir is None:
            raise InputError("--resume needs --output-dir, the run folder to go on with")

    def unused_options(self) -> list[str]:
        """A line for every option that is not its default and yet changes nothing beside the others."""
        terms = split_name(self.loss)
        unused = [
            (name, f"--loss {self.loss}, only with {' and '.join(losses)}")
            for name, losses in OPTIONS_OF_LOSSES.items()
            if not any(loss in losses for _, _, loss in terms)
        ]
        if not any(weighted for _, weighted, _ in terms):
            unused.append(("class_weights", f"--loss {self.loss}, only with weighted_NAME"))
        if self.augmentations is not None:
            unused += [(name, "--augmentations") for name in ("color", "scale_range")]
        plain = TrainConfig()
        return [
            f"{flag_of(name)} does nothing with {beside}"
            for name, beside in unused
            if getattr(self, name) != getattr(plain, name)
        ]


# Ways of evaluating -> the options that only they read; what is not here all read.
OPTIONS_OF_MODES = {
    "--predictions": "labels class_table prediction_ids skip_bad training_counts",
    "--checkpoint": "dataset data_path split classes val_share check sweep_tau choose_metric choose_on "
    "save_predictions",
    "--checkpoint or --predictions": "group protocol boundary block",
    "--checkpoint or --images": "decision_tau image_scale tta_scales tta_flip tile tile_overlap batch_size precision "
    "accelerator save",
}


@dataclass
class EvalConfig:
    """``eval_seg.py``: score trained runs, or folders of predicted masks, and compare them."""

    checkpoint: list[str] = option([], "run folders or checkpoint files", nargs="+", metavar="RUN")
    predictions: list[str] = option([], "or folders of predicted masks, from anywhere", nargs="+", metavar="DIR")
    labels: str | None = option(None, "of --predictions: folder of the true masks", metavar="DIR")
    class_table: str | None = option(
        None,
        f"of --predictions: {', '.join(TABLES)} or a class file; default: the one at the labels",
        metavar="NAME|FILE",
    )
    prediction_ids: str = option("auto", f"of predictions for Cityscapes: {', '.join(PREDICTION_IDS)}")
    skip_bad: bool = option(False, "leave out predictions that cannot be read, and report them")
    training_counts: str | None = option(
        None, "of --predictions: a run's pixel_counts.json, whose order makes head, middle and tail", metavar="FILE"
    )
    names: list[str] = option([], "of the runs or folders, in tables and files", nargs="+", metavar="NAME")
    group: list[str] = option([], "setting of each run: its seeds are compared together", nargs="+", metavar="NAME")
    dataset: str | None = option(None, f"{DATASET_HELP}; default: the one the run was trained on")
    data_path: str | None = option(None, "folder of the data set; default: the run's", metavar="DIR")
    split: str = option("test", "train, val or test")
    classes: int | None = option(None, f"{CLASSES_HELP}; default: the run's")
    val_share: float | None = option(None, f"{VAL_SHARE_HELP}; default: the run's")
    protocol: str = option("cityscapes", f"definition of the means: {', '.join(PROTOCOLS)}")
    boundary: bool = option(False, "boundary IoU too")
    block: int = option(1, "consecutive images drawn together for intervals; 20 for frames of a video")
    decision_tau: str = option(
        "1",
        "operating point: 1 is the plain argmax of the scores, 0 the decision of highest pixel accuracy; auto: the "
        "one chosen before",
    )
    sweep_tau: bool = option(False, "score a grid of operating points in the same pass")
    choose_metric: str | None = option(None, f"choose the operating point for {', '.join(CHOICES)}")
    choose_on: list[str] = option(
        [], "choose on the images whose names begin so, or that a file lists; default: all", nargs="+", metavar="NAME"
    )
    image_scale: float | None = option(None, "resize images by this factor; default: the run's")
    tta_scales: list[float] = option([1.0], "average the posterior over these sizes", nargs="+", metavar="FACTOR")
    tta_flip: bool = option(False, "average the posterior over the mirrored image too")
    tile: list[int] | None = option(
        None, "see larger images in windows of this size", nargs=2, metavar=("H", "W"), type=int
    )
    tile_overlap: float = option(0.5, "share of a window that it has in common with the next")
    batch_size: int = option(8, "images per step")
    workers: int | None = option(
        None, f"loader processes, 0: none; {WORKERS_HELP}; of --predictions: threads, default: all cores"
    )
    precision: str = option("32-true", ", ".join(PRECISIONS))
    accelerator: str = option("auto", ", ".join(ACCELERATORS))
    check: str = option("sample", CHECK_HELP)
    images: str | None = option(None, "predict a folder of images instead of scoring", metavar="DIR")
    save_predictions: bool = option(False, "write predictions as PNG")
    save: list[str] = option(
        ["ids"],
        f"what to write: ids (the data set's own), {', '.join(KINDS[1:])} (Cityscapes)",
        nargs="+",
        metavar="KIND",
    )
    output_dir: str | None = option(
        None, "folder for the results; default: RUN/eval-SPLIT, or runs/eval-TIME", metavar="DIR"
    )

    def validate(self) -> None:
        if bool(self.checkpoint) == bool(self.predictions):
            raise InputError("give either --checkpoint, run folders or .ckpt files, or --predictions, folders of masks")
        if self.predictions and self.labels is None:
            raise InputError("--labels is missing: the folder of true masks that --predictions are scored against")
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
        require_name("precision", self.precision, PRECISIONS)
        require_name("accelerator", self.accelerator, ACCELERATORS)
        require_name("check", self.check, CHECKS)
        require_name("protocol", self.protocol, PROTOCOLS)
        require_name("prediction-ids", self.prediction_ids, PREDICTION_IDS)
        require(self.batch_size >= 1, "batch-size", "at least 1", self.batch_size)
        require(self.block >= 1, "block", "at least 1", self.block)
        self._check_operating_point()
        for kind in self.save:
            require_name("save", kind, KINDS)
        if self.save != ["ids"] and self.images is None:
            require(self.save_predictions, "save", "given with --save-predictions or --images", " ".join(self.save))
        require(min(self.tta_scales, default=0) > 0, "tta-scales", "positive numbers", self.tta_scales)
        require(self.tile is None or min(self.tile) >= 32, "tile", "at least 32 each", self.tile)
        require(0 <= self.tile_overlap < 1, "tile-overlap", "in [0, 1)", self.tile_overlap)
        usual = self.tile_overlap == EvalConfig.tile_overlap
        require(usual or self.tile is not None, "tile-overlap", "given with --tile", self.tile_overlap)
        if self.image_scale is not None:
            require(0 < self.image_scale < math.inf, "image-scale", "positive", self.image_scale)
        if self.val_share is not None:
            require(0 < self.val_share < 1, "val-share", "between 0 and 1", self.val_share)
        if self.checkpoint or self.workers is not None:
            self.workers = resolve_workers(self.workers)

    def _check_mode(self) -> None:
        """InputError for an option that the way of evaluating would pass over in silence."""
        mode = "--predictions" if self.predictions else "--images" if self.images is not None else "--checkpoint"
        plain = EvalConfig()
        for modes, names in OPTIONS_OF_MODES.items():
            for name in names.split() if mode not in modes else ():
                if getattr(self, name) != getattr(plain, name):
                    raise InputError(f"{flag_of(name)} does nothing with {mode}, only with {modes}; leave it out")

    def _check_operating_point(self) -> None:
        if self.decision_tau != "auto":
            try:
                finite = math.isfinite(float(self.decision_tau))
            except ValueError:
                finite = False
            require(finite, "decision-tau", "a finite number or auto", self.decision_tau)
        if self.choose_metric is None:
            require(not self.choose_on, "choose-on", "given with --choose-metric", " ".join(self.choose_on))
            return
        require_name("choose-metric", self.choose_metric, CHOICES)
        require(self.sweep_tau, "choose-metric", "given with --sweep-tau", self.choose_metric)
        if self.split == "test":
            raise InputError("--choose-metric on the test split would tune on it; choose with --split val or train")


@dataclass
class ExportConfig:
    """``python -m segloss.export``: a trained run as an ONNX file."""

    checkpoint: str = option("", "run folder or checkpoint file", metavar="RUN")
    output: str = option("model.onnx", "the file to write", metavar="FILE")

    def validate(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "a run folder or checkpoint file", "nothing")


def parse_train_config(argv: list[str] | None = None) -> TrainConfig:
    """Training options; with ``--resume`` the run's own config stands in for the defaults."""
    config = parse_config(TrainConfig, "train_seg.py", argv)
    if not config.resume:
        return config
    saved = read_config_file(Path(config.output_dir) / "config.yaml")
    resumed = parse_config(TrainConfig, "train_seg.py", argv, defaults={**saved, "resume": True})
    for name, value in to_plain_dict(resumed).items():
        if value in (None, "auto") and name not in _FREE_ON_RESUME:
            setattr(resumed, name, saved[name])  # what the run made of it when it began
    _check_resumable(saved, to_plain_dict(resumed))
    return resumed


# May differ between a run and its continuation: they say where and how fast, not what is learnt.
_FREE_ON_RESUME = (
    "data_path",
    "check",
    "epochs",
    "workers",
    "cache",
    "accelerator",
    "devices",
    "output_dir",
    "resume",
    "trainer",
)


def _check_resumable(saved: dict, resumed: dict) -> None:
    if resumed["epochs"] < saved["epochs"]:
        raise InputError(
            f"--epochs {resumed['epochs']} is less than the {saved['epochs']} that {resumed['output_dir']} was planned "
            "for; give as many or more"
        )
    changed = [key for key, value in resumed.items() if key not in _FREE_ON_RESUME and saved.get(key) != value]
    if changed:
        key = changed[0]
        raise InputError(
            f"{flag_of(key)} was {saved.get(key)} in {resumed['output_dir']} and is {resumed[key]} now; "
            "leave it out to go on with that run, or choose another --output-dir"
        )


def read_config_file(path: Path) -> dict:
    """A run's config.yaml as a dictionary; InputError if it is missing or no config."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: is missing, so {path.parent} is no run folder") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected options, got {type(values).__name__}")
    return to_plain_dict(from_plain_dict(TrainConfig, values, str(path)))
