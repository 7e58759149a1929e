"""The options of eval_seg.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from segloss.config.data import (
    FOLD_EXPECTED,
    FOLD_HELP,
    LABELS_MISSING,
    MASKS,
    PREDICTIONS_HELP,
    RUNS,
    SCORED,
    SEEN,
    PairOptions,
    is_fold,
    require_splits,
    split_name,
)
from segloss.config.ranges import (
    AT_LEAST_ONE,
    BETWEEN,
    CALIBRATE_HELP,
    CHECK_HELP,
    CLASSES_HELP,
    COUNT,
    FACTORS,
    SCALE,
    SHOW_HELP,
    SHOWN,
    SIDES,
    VAL_SHARE_HELP,
    WORKERS,
    WORKERS_HELP,
    Accelerator,
    Check,
    Precision,
    is_decision,
)
from segloss.datasets import DATASET_HELP, DATASETS, OPTIONS_HELP
from segloss.datasets.folds import read_fold
from segloss.decisions import WORDS
from segloss.errors import InputError
from segloss.flags import Options, keys_of, option, require, spread
from segloss.losses.ranges import BELOW_ONE
from segloss.measures import MEASURES
from segloss.metrics import PROTOCOLS

PredictionKind = Literal["ids", "color", "overlay", "train_ids", "probability", "probability_png", "confidence"]
PredictionForm = Literal["auto", "ids", "probability"]
ChosenMetric = Literal["miou", "mean_accuracy", "pixel_accuracy", "tail_miou"]
CHOICES = get_args(ChosenMetric)


@dataclass(frozen=True)
class ScoredOptions(Options):
    """What to score or predict, and on which data: --checkpoint runs/A runs/B --split test"""

    checkpoint: tuple[str, ...] = option(
        (),
        "run folders, checkpoint files, folders that were given away, hf:OWNER/NAME, or demo, which ships",
        metavar="RUN",
        path=True,
    )
    predictions: tuple[str, ...] = option((), f"or {PREDICTIONS_HELP}", metavar="DIR", path=True)
    images: str | None = option(
        None,
        "of --checkpoint: predict an image or a folder of them instead of scoring; of --predictions: the photographs "
        "that their masks are of, to show on the page",
        metavar="DIR|FILE",
        path=True,
    )
    ensemble: bool = option(False, "the runs together: the mean of their posteriors", of=SEEN)
    names: tuple[str, ...] = option((), "of the runs or folders, in tables and files")
    dataset: str | None = option(
        None, f"{DATASET_HELP}; default: the one the run was trained on", names=DATASETS, of=RUNS
    )
    data_path: str | None = option(
        None, "folder of the data set; default: the run's", metavar="DIR", of=RUNS, path=True
    )
    split: str = option("test", "train, val or test", canonical=split_name, of=RUNS)
    classes: int | None = option(None, f"{CLASSES_HELP}; default: the run's", of=RUNS)
    val_share: float | None = option(None, f"{VAL_SHARE_HELP}; default: the run's", *BETWEEN, of=RUNS)
    image_column: str | None = option(None, f"{OPTIONS_HELP['image_column']}; default: the run's", of=RUNS)
    label_column: str | None = option(None, f"{OPTIONS_HELP['label_column']}; default: the run's", of=RUNS)
    subset: str | None = option(None, f"{OPTIONS_HELP['subset']}; default: the run's", of=RUNS)
    class_file: str | None = option(None, "hf: class file; default: the run's", metavar="FILE", of=RUNS, path=True)
    streaming: bool | None = option(None, f"{OPTIONS_HELP['streaming']}; default: the run's", of=RUNS)
    fold: str | None = option(
        None, f"{FOLD_HELP}; default: the run's", metavar="K/N", of=RUNS, expected=FOLD_EXPECTED, fits=is_fold
    )
    check: Check = option("sample", f"{CHECK_HELP}; of masks all are looked at, unless off", of=SCORED)
    show_bands: tuple[int, ...] = option((), f"{SHOW_HELP}, or the run's", *SHOWN, metavar="BAND", of=SEEN)
    shard: str | None = option(
        None,
        "score or predict only the K-th of N shares of the images, into a store for --merge",
        metavar="K/N",
        expected="K/N, the K-th of N shares, such as 3/16",
        fits=lambda text: text is None or _is_shard(text),
    )
    merge: tuple[str, ...] = option(
        (),
        "score nothing, but take what --shard left in these stores, or folders of them",
        metavar="STORE",
        of=SCORED,
        path=True,
    )


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
        path=True,
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

    decision: tuple[str, ...] | None = option(
        None,
        f"{WORDS}: argmax of the scores; u^VALUE P, 0: highest pixel accuracy; P / prior^VALUE; the rule for mean IoU, "
        "fitted first where the run has none; what the run holds, a chosen point before the rule. Of "
        "probability maps the rule is fitted to them. Default: plain; of --images auto, where the run holds something",
        canonical=str.lower,
        metavar="RULE",
        expected=WORDS,
        fits=is_decision,
        was={"decision_tau": "--decision tau VALUE (1 is plain) or --decision auto"},
    )

    @property
    def scored_by(self) -> tuple[str, ...]:
        """The words of ``--decision``, with its default for what is scored."""
        return self.decision or ("plain",)

    calibrate: bool = option(False, f"{CALIBRATE_HELP}, where the run has none", of=SEEN)
    sweep_tau: bool = option(False, "score a grid of operating points in the same pass", of=SCORED)
    choose_metric: ChosenMetric | None = option(None, "choose the operating point for", of=RUNS)
    choose_on: tuple[str, ...] = option(
        (), "choose on the images whose names begin so, or that a file lists; default: all", of=RUNS
    )


@dataclass(frozen=True)
class SightOptions(Options):
    """How the network looks at an image, and where it runs: --tta-flip --tta-scales 0.75 1 1.25 --tile 512 512"""

    image_scale: float | None = option(None, "resize images by this factor; default: the run's", *SCALE, of=SEEN)
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
    workers: int | None = option(None, f"{WORKERS_HELP}; of --predictions: threads, default: all cores", *WORKERS)
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
    page_images: int = option(
        3, "images on the page of each kind (worst, rarest class, best)", *AT_LEAST_ONE, of=SCORED
    )
    output_dir: str | None = option(
        None, "folder for the results; default: RUN/eval-SPLIT, or runs/eval-TIME", metavar="DIR", path=True
    )


@dataclass(frozen=True)
class EvalConfig(ScoredOptions, MaskOptions, ComparisonOptions, OperatingPointOptions, SightOptions, OutputOptions):
    """``eval_seg.py``: score trained runs, or folders of predicted masks, and compare them."""

    @property
    def only_predicts(self) -> bool:
        """Whether there is nothing to score: ``--checkpoint RUN --images DIR``."""
        return self.images is not None and bool(self.checkpoint)

    @property
    def share(self) -> tuple[int, int] | None:
        """(K, N) of ``--shard``."""
        return None if self.shard is None else read_fold(self.shard, least=1)

    def validate(self) -> None:
        if bool(self.checkpoint) == bool(self.predictions):
            raise InputError("give either --checkpoint, run folders or .ckpt files, or --predictions, folders of masks")
        if self.predictions and self.labels is None:
            raise InputError(LABELS_MISSING)
        self._check_mode()
        if self.ensemble:
            require(len(self.checkpoint) > 1, "ensemble", "given with several --checkpoint", " ".join(self.checkpoint))
        count = 1 if self.ensemble else len(self.checkpoint or self.predictions)
        for flag, given in (("names", self.names), ("group", self.group)):
            require(len(given) in (0, count), flag, f"one for each of the {count} runs or folders", " ".join(given))
        for name in self.names:
            named = Path(name).name == name and name not in ("", ".", "..")
            require(named, "names", "names of files: not empty, without '/'", repr(name))
        require(len(set(self.names)) == len(self.names), "names", "all different", " ".join(self.names))
        require_splits(self.dataset, [self.split])
        self._check_operating_point()
        self._check_shares()
        if self.save != ("ids",) and self.images is None:
            require(self.save_predictions, "save", "given with --save-predictions or --images", " ".join(self.save))
        usual = self.tile_overlap == EvalConfig.tile_overlap
        require(usual or self.tile is not None, "tile-overlap", "given with --tile", self.tile_overlap)

    def _check_mode(self) -> None:
        """InputError for an option that the way of evaluating would pass over in silence."""
        mode = "--predictions" if self.predictions else "--images" if self.only_predicts else "--checkpoint"
        for key in keys_of(EvalConfig):
            modes = key.form.get("of", mode)
            if mode not in modes and key.of(self) != key.option.default:
                raise InputError(f"{key.flag} does nothing with {mode}, only with {modes}", "leave it out")

    def _check_shares(self) -> None:
        """InputError for what a share of the images cannot give, or a merge of them."""
        merge = " ".join(self.merge)
        require(not (self.shard and self.merge), "merge", "given without --shard, in a command of its own", merge)
        for given, name in ((self.shard, "shard"), (self.merge, "merge")):
            lost = {"suspects": bool(self.suspects), "save-predictions": bool(self.merge and self.save_predictions)}
            lost["choose-metric"] = bool(self.shard and self.choose_metric)
            for flag in (flag for flag, wanted in lost.items() if given and wanted):
                cure = "give it with --merge" if flag == "choose-metric" else "leave it out"
                raise InputError(f"--{flag} does nothing with --{name}", cure)

    def _check_operating_point(self) -> None:
        if self.choose_metric is None:
            require(not self.choose_on, "choose-on", "given with --choose-metric", " ".join(self.choose_on))
            return
        require(self.sweep_tau, "choose-metric", "given with --sweep-tau", self.choose_metric)
        if self.split == "test":
            raise InputError("--choose-metric on the test split would tune on it", "choose with --split val or train")


def _is_shard(text: str) -> bool:
    try:
        return bool(read_fold(text, least=1))
    except ValueError:
        return False


def _is_positive(text: str) -> bool:
    try:
        return int(text) > 0
    except ValueError:
        return False
