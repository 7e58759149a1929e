"""The options of ``python -m segloss.frequency``, ``doctor``, ``plan``, ``rasterise``, ``export`` and ``demo``."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any, Literal

from segloss.config.data import (
    LABELS_MISSING,
    MASKS,
    PREDICTIONS_HELP,
    DataOptions,
    PairOptions,
    require_splits,
    split_name,
)
from segloss.config.ranges import AT_LEAST_ONE, CHECK_HELP, COUNT, SHOW_HELP, SHOWN, Accelerator, is_decision
from segloss.decisions import WORDS
from segloss.errors import InputError
from segloss.flags import Options, keys_of, option, require, spread
from segloss.losses.label_values import OUTLYING_OPTIONS
from segloss.losses.ranges import NOT_NEGATIVE, POSITIVE

RUN_HELP = (
    "run folder, checkpoint file, folder that was given away, hf:OWNER/NAME on Hugging Face's hub, or demo, the small "
    "model that ships"
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
    json: str | None = option(
        None, "write all statistics, co-occurrence too, into this file", metavar="FILE", path=True
    )
    output: str | None = option(None, "draw the class table into this PNG", metavar="FILE", path=True)

    def validate(self) -> None:
        require_splits(self.dataset, self.split)


@dataclass(frozen=True)
class DoctorConfig(DataOptions, PairOptions):
    """``python -m segloss.doctor --check sample --output doctor.html``: look for what is wrong with a data set."""

    predictions: tuple[str, ...] = option(
        (), f"look at {PREDICTIONS_HELP}, and at --labels instead", metavar="DIR", path=True
    )
    check: Literal["all", "sample"] = option("all", CHECK_HELP)
    show_bands: tuple[int, ...] = option((), SHOW_HELP, *SHOWN, metavar="BAND")
    overlays: int = option(6, "pictures of each split on the page", *COUNT)
    output: str | None = option(None, "write a page with findings and overlays", metavar="FILE.html", path=True)

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
class PlanConfig(DataOptions):
    """``python -m segloss.plan --gpu-memory-gib 24 --output plan.yaml``: a configuration for data and machine."""

    accelerator: Accelerator = option("auto", "where the network will run")
    cores: int | None = option(None, "of the machine that will train; default: those of this one", *AT_LEAST_ONE)
    memory_gib: float | None = option(None, "its memory; default: that of this one", *POSITIVE)
    gpu_memory_gib: float | None = option(None, "that of its GPU, 0: none; default: that of this one's", *NOT_NEGATIVE)
    output: str = option("plan.yaml", "file to write, for train_seg.py --config", metavar="FILE", path=True)

    def validate(self) -> None:
        named, memory = self.accelerator, self.gpu_memory_gib
        if named != "auto" and memory is not None and (named == "cpu") != (memory == 0):
            raise InputError(f"--gpu-memory-gib {memory:g} contradicts --accelerator {named}", "leave one of them out")


@dataclass(frozen=True)
class RasteriseConfig(Options):
    """``python -m segloss.rasterise SOURCE OUT``: masks and a class file from outlines (COCO, LabelMe, CVAT, YOLO)."""

    source: str = option("", "folder or file of outlines", metavar="SOURCE", bare=True, path=True)
    out: str = option("", "folder to write: images/, masks/, classes.yaml", metavar="OUT", bare=True, path=True)
    format: Literal["auto", "coco", "labelme", "cvat", "yolo"] = option("auto", "what SOURCE holds")
    image_dir: str | None = option(
        None, "where the images lie; default: the folder of SOURCE", metavar="DIR", path=True
    )
    images: Literal["link", "copy"] = option("link", "how they come into OUT")
    on_top: Literal["smaller", "later"] = option(
        "smaller", "where annotations overlap: the smaller one, or the later in the file (CVAT: of higher z_order)"
    )
    unlabelled: Literal["background", "ignore"] = option("background", "what pixels without annotation are")
    class_table: str | None = option(
        None, "class file with names and ids; default: those of SOURCE", metavar="FILE", path=True
    )
    crowds: Literal["auto", "draw", "ignore"] = option(
        "auto", "COCO's crowds; auto: ignore, but refuse where they may be brush masks, which CVAT exports so"
    )
    fill_boxes: bool = option(False, "take COCO's and YOLO's boxes without outline as filled rectangles")
    skip_bad: bool = option(
        False,
        "leave out images and annotations that cannot be used, each still named; where one of these lies is ignored",
    )

    def validate(self) -> None:
        for name in ("source", "out"):
            require(bool(getattr(self, name)), name, "given: python -m segloss.rasterise SOURCE OUT", "nothing")


@dataclass(frozen=True)
class ExportConfig(Options):
    """``python -m segloss.export --checkpoint runs/demo --output demo.onnx``: a trained run as a file or folder."""

    checkpoint: str = option("", RUN_HELP, metavar="RUN", path=True)
    output: str = option("model.onnx", "the ONNX file to write", metavar="FILE", path=True)
    hub: str | None = option(
        None,
        "write a folder to give away instead: safetensors, JSON and a model card, as Hugging Face's hub takes them",
        metavar="FOLDER",
        path=True,
    )
    half: bool = option(False, "of --hub: weights in float16, half the size")
    decision: tuple[str, ...] = option(
        ("auto",),
        f"of the output classes: {WORDS}; auto: what the run holds, else plain",
        canonical=str.lower,
        metavar="RULE",
        expected=WORDS,
        fits=is_decision,
    )

    def validate(self) -> None:
        require(bool(self.checkpoint), "checkpoint", "a run folder or checkpoint file", "nothing")
        for key in keys_of(ExportConfig):
            if self.hub is not None and key.name in ("output", "decision") and key.of(self) != key.option.default:
                raise InputError(f"{key.flag} does nothing with --hub, which keeps all the run has", "leave it out")
        if self.half and self.hub is None:
            raise InputError("--half does nothing without --hub", "leave it out")


@dataclass(frozen=True)
class DemoConfig(Options):
    """``python -m segloss.demo RUN --port 8000``: a page that shows what a run makes of an image."""

    run: str = option("", RUN_HELP, metavar="RUN", bare=True, path=True)
    port: int = option(8000, "of the page; 0: any that is free", "in 0..65535", lambda port: 0 <= port < 2**16)
    host: str = option("127.0.0.1", "address to serve at; the default is for this machine alone", metavar="ADDRESS")
    accelerator: Accelerator = option("auto", "where the network runs")

    def validate(self) -> None:
        require(bool(self.run), "run", "given: python -m segloss.demo RUN", "nothing")
