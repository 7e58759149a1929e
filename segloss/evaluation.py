"""Runs and folders of masks -> results of each image -> totals and scores, at the labels' own resolution."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.loading import evaluation_loader
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import InputError
from segloss.files import write_bytes
from segloss.inference import Views, infer, reader_of
from segloss.losses import Criterion
from segloss.mask_folders import MaskSource
from segloss.operating_point import Decision, decide, sweep_counts, training_prior
from segloss.results import BINS, ImageResult, ResultStore, Totals, boundary_of, confusion_of
from segloss.runs import Run
from segloss.summary import summarise

Progress = Callable[[Iterable, int], Iterable]
OnSample = Callable[[dict, Tensor], None]
UNKNOWN_SHARE = 0.01  # of the valid pixels predicted as no class; above it the ids are doubtful


class Source(Protocol):
    """Where results come from: a trained run, or a folder of predicted masks."""

    name: str
    classes: ClassTable
    training_pixels: tuple[int, ...] | None  # orders the classes for head, middle and tail

    def __len__(self) -> int: ...

    def describe(self) -> dict:
        """What was scored, for the metrics schema."""

    def key(self) -> dict:
        """All that the results depend on."""

    def results(self, done: Collection[str]) -> Iterator[tuple[int, ImageResult]]:
        """(place, result) of every image whose name is not among those done."""


@dataclass(frozen=True)
class Measures:
    """What is counted beside the confusion matrix, and how classes are decided on."""

    decision: Decision = field(default_factory=Decision)
    boundary: bool = False
    calibration: bool = False
    sweep: bool = False


def image_result(
    sample: dict, logits: Tensor, criterion: Criterion, prior: Tensor, measures: Measures
) -> tuple[ImageResult, Tensor]:
    """The counts of one image from its scores ``(1, C, H, W)``, and the class numbers decided on, on the CPU."""
    num_classes = logits.shape[1]
    predicted = decide(criterion, logits, prior, measures.decision)[0].cpu()
    labels, decided = sample["labels"].numpy(), predicted.numpy().astype(np.uint8)
    matrix, ignored = confusion_of(decided, labels, num_classes)
    result = ImageResult(sample["name"], matrix, ignored)
    if measures.boundary:
        result.boundary = boundary_of(decided, labels, num_classes)
    if measures.calibration:
        result.calibration, result.brier = calibration_counts(criterion.posterior(logits)[0], sample["labels"])
    if measures.sweep:
        result.sweep = sweep_counts(criterion, logits, sample["labels"].to(logits.device).long(), prior)
    return result, predicted


def calibration_counts(posterior: Tensor, labels: Tensor) -> tuple[np.ndarray, float]:
    """Pixels, sum of confidence and right ones per bin ``(BINS, 3)``, and the sum of squared distances to one-hot."""
    labels = labels.to(posterior.device).long()
    valid = labels < len(posterior)
    p = posterior.nan_to_num(0)  # NaN: trained to pieces
    confidence, predicted = p.max(0)
    of_true = p.gather(0, labels.where(valid, 0)[None])[0]
    squares = p.square().sum(0) - 2 * of_true + 1
    # Added up in float64, on the CPU: some devices have none.
    confidence, right, squares = (x[valid].cpu().double() for x in (confidence, predicted == labels, squares))
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    columns = (torch.ones_like(confidence), confidence, right)
    counts = torch.stack([torch.bincount(bins, column, minlength=BINS) for column in columns], 1)
    return counts.numpy(), float(squares.sum())


class RunSource:
    """A trained run on a labelled split.

    Args:
        name: in tables and files.
        run, dataset: the model, and the split read as the run needs it.
        measures: what to count.
        device, precision, batch_size, workers, views: how the network runs.
        on_sample: called with each sample and its class numbers, for instance to save or draw them.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        dataset: SegmentationDataset,
        measures: Measures | None = None,
        *,
        device: torch.device,
        precision: str = "32-true",
        batch_size: int = 8,
        workers: int = 0,
        views: Views | None = None,
        on_sample: OnSample | None = None,
    ):
        self.name, self.run, self.dataset = name, run, dataset
        self.measures = measures or Measures()
        self.device, self.precision = device, precision
        self.batch_size, self.workers = batch_size, workers
        self.views = views or Views()
        self.on_sample = on_sample
        self.classes = dataset.classes
        self.training_pixels: tuple[int, ...] | None = run.counts.pixels

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def image_scale(self) -> float:
        return getattr(self.dataset.transform, "image_scale", 1.0)

    def describe(self) -> dict:
        decision = self.measures.decision
        tau = decision.value if decision.rule == "tau" else None
        return {
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "decision": str(decision),
            "decision_tau": tau,
            "checkpoint": str(self.run.path),
            "views": {
                "tta_scales": list(self.views.scales),
                "tta_flip": self.views.flip,
                "tile": self.views.tile and list(self.views.tile),
                "tile_overlap": self.views.overlap,
            },
            "image_scale": self.image_scale,
            "precision": self.precision,
        }

    def key(self) -> dict:
        status = self.run.path.stat()
        return {
            "checkpoint": [str(self.run.path.resolve()), status.st_size, status.st_mtime_ns],
            "data": self.dataset.fingerprint(),
            "images": hash_names(self.dataset),
            "image_scale": self.image_scale,
            "measures": repr((self.measures, self.views)),
            "precision": self.precision,
        }

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, labels and class numbers decided on, of one sample."""
        place = self.dataset.names.index(name)
        loader = evaluation_loader(self.dataset, 1, workers=0, places=[place])
        ((_, predicted),) = self.decisions(loader)
        image, labels = self.dataset.read_pair(place)
        return image, labels, predicted.byte().numpy()

    def decisions(self, loader: Iterable[list[dict]]) -> Iterator[tuple[dict, Tensor]]:
        """Class numbers of samples, labelled or not."""
        reader = reader_of(self.run.criterion, self.views)
        prior = training_prior(self.run.counts.pixels).to(self.device)
        for sample, scores in self._infer(loader):
            yield sample, decide(reader, scores, prior, self.measures.decision)[0].cpu()

    def _infer(self, loader: Iterable[list[dict]]) -> Iterator[tuple[dict, Tensor]]:
        how = {"device": self.device, "precision": self.precision, "views": self.views}
        return infer(self.run.model, self.run.criterion, loader, **how)

    def results(self, done: Collection[str] = ()) -> Iterator[tuple[int, ImageResult]]:
        done = () if self.on_sample is not None else done  # who wants to see the samples sees all of them
        places = {name: place for place, name in enumerate(self.dataset.names) if name not in done}
        loader = evaluation_loader(self.dataset, self.batch_size, workers=self.workers, places=list(places.values()))
        reader = reader_of(self.run.criterion, self.views)
        prior = training_prior(self.run.counts.pixels).to(self.device)
        for sample, scores in self._infer(loader):
            result, predicted = image_result(sample, scores, reader, prior, self.measures)
            if self.on_sample is not None:
                self.on_sample(sample, predicted)
            yield places[sample["name"]], result


def hash_names(dataset: SegmentationDataset) -> str:
    """Changes when an image file is replaced; the fingerprint of a data set looks at the masks alone."""
    import hashlib

    digest = hashlib.sha256()
    for image, _ in dataset.pairs:
        status = image.stat() if image.is_file() else None
        digest.update(repr((image.name, status and (status.st_size, status.st_mtime_ns))).encode())
    return digest.hexdigest()


def measure(source: Source, store: Path | None = None, progress: Progress | None = None) -> Totals:
    """The totals of a source; with a ``store`` its results go through that file, and those there are not made again."""
    if store is None:
        return Totals.of(result for _, result in _with_progress(source, (), progress))
    with ResultStore(store, source.key()) as kept:
        kept.add_all(_with_progress(source, kept.names(), progress))
        return Totals.of(kept)


def _with_progress(source: Source, done: Collection[str], progress: Progress | None) -> Iterable:
    results = source.results(done)
    return results if progress is None else progress(results, len(source))


def score(
    source: Source, *, store: Path | None = None, protocol: str = "cityscapes", progress: Progress | None = None
) -> tuple[dict, Totals]:
    """The metrics schema of docs/metrics.md, and the totals it was read from."""
    totals = measure(source, store, progress)
    metrics = summarise(totals, source.classes, training_pixels=source.training_pixels, protocol=protocol)
    return {**source.describe(), **metrics}, totals


def doubtful_ids(source: Source, matrix: np.ndarray) -> str | None:
    """A line where masks seem to be written in other ids: more than 1 % no class, or several classes one off."""
    if not isinstance(source, MaskSource):
        return None
    count, pixels = len(matrix), max(1, matrix.sum())
    for step, where in ((-1, "before"), (1, "behind")):
        beside = np.diagonal(matrix[:, :count], step)
        share, of_true = beside.sum() / pixels, matrix.sum(1)[max(0, -step) :][: len(beside)]
        # Of several classes, not only of one that a weak model predicts everywhere.
        if share > 0.5 and np.count_nonzero(2 * beside > of_true) > 2:
            off = f"{share:.1%} of the pixels are predicted as the class {where} the true one"
            return f"warning: {source.name}: {off}; the ids seem to begin at another number than the class table's"
    share = matrix[:, count:].sum() / pixels
    if share <= UNKNOWN_SHARE:
        return None
    return f"warning: {source.name}: {share:.1%} of the pixels are predicted as no class; {source.cause_of_unknown()}"


class PredictionWriter:
    """A callback that writes predictions as PNG: ``ids``, the data set's own (8 or 16 bit), ``color`` and ``overlay``.

    One kind goes straight into the folder, several into a folder each. ``train_ids`` are those of Cityscapes; their
    files are called NAME_labelTrainIds.png, by which --predictions knows them.

    Raises:
        InputError: train_ids of another data set.
    """

    def __init__(self, folder: Path, classes: ClassTable, kinds: Sequence[str], dataset: SegmentationDataset):
        self.folders = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
        self.classes, self.dataset = classes, dataset
        if "train_ids" in kinds and classes.names != CITYSCAPES.names:
            raise InputError("--save train_ids are those of Cityscapes, which this is not; save ids")
        self.ids = np.asarray(classes.ids, dtype=np.uint8 if max(classes.ids) < 256 else np.uint16)

    def __call__(self, sample: dict, predicted: Tensor) -> None:
        import cv2

        from segloss.pages import overlay
        from segloss.plots import paint

        class_map = predicted.byte().numpy()
        for kind, folder in self.folders.items():
            name = sample["name"]
            if kind == "ids":
                pixels = self.ids[class_map]
            elif kind == "train_ids":
                pixels, name = class_map, f"{name}_labelTrainIds"
            elif kind == "color":
                pixels = cv2.cvtColor(paint(class_map, self.classes.colors), cv2.COLOR_RGB2BGR)
            else:
                image = self.dataset.read_image(self.dataset.names.index(name))
                pixels = cv2.cvtColor(overlay(image, class_map, self.classes.colors), cv2.COLOR_RGB2BGR)
            write_bytes(folder / f"{name}.png", cv2.imencode(".png", pixels)[1].tobytes())


# What an evaluation writes beside NAME.sqlite and confusion-NAME.csv and .png of each run; metrics.json names those.
FILES = (
    "runs.csv",
    "report.html",
    "per_class.csv",
    "comparison.csv",
    "sweep.csv",
    "sweep.png",
    "reliability.png",
    "metrics.json",
)


def make_folder(folder: Path) -> None:
    """An impossible folder is answered before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; choose another --output-dir") from error


def clear_results(folder: Path, names: Collection[str]) -> None:
    """Take out what an earlier evaluation wrote into the folder, so that no old number stands beside new ones.

    The stores of ``names`` stay, to go on from; so does all that no evaluation wrote.
    """
    try:
        earlier = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        runs = [name for name in dict(earlier["runs"]) if Path(name).name == name and "comparison" in earlier]
    except (OSError, ValueError, KeyError, TypeError):
        return
    stale = [f"{name}.sqlite" for name in runs if name not in names]
    stale += [f"confusion-{name}{suffix}" for name in runs for suffix in (".csv", ".png")]
    for name in (*stale, *FILES) if runs else ():  # metrics.json last: what is interrupted is known again
        (folder / name).unlink(missing_ok=True)


class KeepSome:
    """A callback for :func:`evaluate` that keeps evenly spaced samples for a picture.

    Attributes:
        samples: (name, image, labels, predicted) at the label's own resolution, uint8.
    """

    def __init__(self, dataset: SegmentationDataset, count: int):
        self.dataset = dataset
        count = min(count, len(dataset))
        self.wanted = {(2 * place + 1) * len(dataset) // (2 * count) for place in range(count)}
        self.seen = 0
        self.samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, sample: dict, predicted: Tensor) -> None:
        if self.seen in self.wanted:
            labels = sample["labels"].numpy()
            image = self.dataset.read_image(self.seen)
            self.samples.append((sample["name"], image, labels, predicted.numpy().astype(np.uint8)))
        self.seen += 1


def totals_of_some(source: RunSource, folder: Path, chosen: set[str]) -> Totals:
    """Totals of the images of these names, from what was kept of them."""
    with ResultStore(folder / f"{source.name}.sqlite", source.key()) as kept:
        return Totals.of(result for result in kept if result.name in chosen)
