"""A trained run on a labelled split, as a source of results."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.datasets import SegmentationDataset
from segloss.datasets.base import file_length, file_state
from segloss.datasets.classes import ignored_in, map_dtype
from segloss.decisions import Decision, decide
from segloss.errors import Finding
from segloss.evaluation.counting import calibration_counts, confusion_of, likelihood_counts
from segloss.evaluation.doubts import label_findings
from segloss.evaluation.results import ImageResult, Totals, added
from segloss.evaluation.suspects import Suspects
from segloss.evaluation.sweep import sweep_counts
from segloss.inference import CalibratedPosterior, Views, ends, infer_dataset, reader_of, seen_whole
from segloss.iou_rule import IoUDecision
from segloss.losses import Criterion, class_prior
from segloss.losses.partial_labels import ignore_unlabelled, posterior_of_labelled
from segloss.measures import MEASURES
from segloss.runs import Run
from segloss.schema import LookedAt, RunOrigin

Sample = dict[str, Any]
OnSample = Callable[[Sample, Tensor, Tensor | None], None]
PICTURE = 2**21  # pixels to which large images are thinned out to be looked at


def all_of(*given: OnSample | None) -> OnSample | None:
    """Calls each of them; None where there is none."""
    callbacks = [callback for callback in given if callback is not None]

    def on_sample(sample: Sample, predicted: Tensor, posterior: Tensor | None) -> None:
        for callback in callbacks:
            callback(sample, predicted, posterior)

    return on_sample if callbacks else None


@dataclass(frozen=True)
class Measures:
    """What is counted beside the confusion matrix, and how classes are decided on.

    Attributes:
        decision: the operating point.
        counted: names of :data:`segloss.measures.MEASURES`.
        calibration, sweep: count these too.
        rule: of the sweep a point beside its grids.
    """

    decision: Decision = field(default_factory=Decision)
    counted: tuple[str, ...] = ()
    calibration: bool = False
    sweep: bool = False
    rule: IoUDecision | None = None


def image_result(
    sample: Sample, logits: Tensor, criterion: Criterion, prior: Tensor, measures: Measures
) -> tuple[ImageResult, Tensor, Tensor | None]:
    """The counts of one image from its scores ``(1, C, H, W)``, the class numbers decided on, on the CPU, and the
    posterior where it was needed.

    Where the sample says which classes its image labels (``class_mask``), a prediction of another one counts as no
    class: a miss of the true class, nobody's false positive. Calibration looks at the posterior of those labelled.
    """
    num_classes, class_mask = logits.shape[1], sample.get("class_mask")
    posterior = criterion.posterior(logits) if measures.calibration or measures.decision.rule != "tau" else None
    predicted = decide(criterion, logits, prior, measures.decision, posterior)[0].cpu()
    counted_as = _counted_as(sample, predicted, num_classes)
    labels, decided = (ids.numpy().astype(map_dtype(num_classes)) for ids in (sample["labels"], counted_as))
    matrix, ignored = confusion_of(decided, labels, num_classes)
    counted = {name: MEASURES[name].count(decided, labels, num_classes) for name in measures.counted}
    result = ImageResult(sample["name"], matrix, ignored, counted)
    if measures.calibration and posterior is not None:
        seen = (lambda p: p) if class_mask is None else partial(_of_labelled, class_mask)
        read = seen(posterior)[0]
        result.calibration, result.brier = calibration_counts(read, sample["labels"])
        result.likelihood = likelihood_counts(read, sample["labels"])
        if isinstance(criterion, CalibratedPosterior):
            raw = seen(criterion.of.posterior(logits))[0]
            bins, brier = calibration_counts(raw, sample["labels"])
            before = {"bins": bins, "brier": np.array([brier]), **likelihood_counts(raw, sample["labels"])}
            result.likelihood |= {f"uncalibrated {name}": sums for name, sums in before.items()}
    if measures.sweep:
        labels_there = sample["labels"].to(logits.device).long()
        result.sweep = sweep_counts(criterion, logits, labels_there, prior, measures.rule)
        if class_mask is not None:
            for points in result.sweep.values():
                points[:, ~class_mask.numpy()] = 0
    return result, predicted, posterior


def _counted_as(sample: Sample, predicted: Tensor, num_classes: int) -> Tensor:
    """Class numbers ``(H, W)`` as they are counted: of classes that the image does not label as no class."""
    if "class_mask" not in sample:
        return predicted
    return ignore_unlabelled(predicted[None], sample["class_mask"][None], ignored_in(num_classes))[0]


def _of_labelled(class_mask: Tensor, posterior: Tensor) -> Tensor:
    return posterior_of_labelled(posterior, class_mask[None].to(posterior.device))


class RunSource:
    """A trained run on a labelled split.

    Args:
        name: in tables and files.
        run, dataset: the model, and the split read as the run needs it.
        measures: what to count.
        device, precision, batch_size, workers, views: how the network runs.
        on_sample: called with each sample, its class numbers and, where ``measures`` ask for calibration, its
            posterior ``(1, C, H, W)``, for instance to save or draw them; of an image seen in windows with each piece
            of it (:func:`segloss.inference.infer_dataset`).
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
        self.views = (views or Views()).of_classes(run.classes.names)
        self.on_sample = on_sample
        self.suspects: Suspects | None = None
        self.classes = dataset.classes
        self.training_pixels: tuple[int, ...] | None = run.counts.complete.pixels

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def sees_all(self) -> bool:
        return self.on_sample is not None

    @property
    def bad(self) -> dict[int, str]:
        """None: a file that cannot be read ends a run's evaluation."""
        return {}

    def take_bad(self, bad: Mapping[int, str]) -> None:
        """There is none."""

    def batches(self, places: Sequence[int]) -> list[list[int]]:
        """Those that the network sees whole; then the others, one by one."""
        whole, others = seen_whole(self.dataset, places, self.views)
        size = self.batch_size
        return [*(whole[first : first + size] for first in range(0, len(whole), size)), *([place] for place in others)]

    @property
    def reader(self) -> Criterion:
        return reader_of(self.run.criterion, self.views, self.run.kept.calibration)

    @property
    def names(self) -> list[str]:
        return self.dataset.names

    @property
    def files(self) -> dict[str, list[Path]]:
        pairs = zip(self.names, self.dataset.pairs, strict=True)
        return {name: [path for path in pair if path is not None] for name, pair in pairs}

    @property
    def image_scale(self) -> float:
        return getattr(self.dataset.transform, "image_scale", 1.0)

    def describe(self) -> RunOrigin:
        decision, views = self.measures.decision, self.views
        return RunOrigin(
            dataset=self.dataset.name,
            split=self.dataset.split,
            decision=str(decision),
            decision_tau=decision.value if decision.rule == "tau" else None,
            checkpoint=str(self.run.path),
            weights=self.run.weights,
            views=LookedAt(tta_scales=views.scales, tta_flip=views.flip, tile=views.tile, tile_overlap=views.overlap),
            image_scale=self.image_scale,
            precision=self.precision,
        )

    def findings(self, totals: Totals) -> list[Finding]:
        """Of the labels alone: a run's classes are theirs."""
        return [*label_findings(self.name, totals)]

    def identity(self) -> dict[str, Any]:
        files = [(name, *map(file_length, pair)) for name, pair in zip(self.names, self.dataset.pairs, strict=True)]
        return {
            "weights": self.run.weights,
            "calibration": repr(self.run.kept.calibration),
            "classes": repr(self.classes),
            "files": hashlib.sha256(repr(files).encode()).hexdigest(),
            "labelled": self.dataset.labelled and self.dataset.labelled.digest,
            "image_scale": self.image_scale,
            "measures": repr((self.measures, self.views, *filter(None, [self.views.sides]))),
            "precision": self.precision,
        }

    def key(self) -> dict[str, Any]:
        of_data = {"data": self.dataset.fingerprint(), "images": hash_names(self.dataset)}
        return {**self.identity(), **of_data, "device": self.device.type}

    def image(self, name: str) -> np.ndarray:
        """RGB ``(H, W, 3)`` of one sample, as people see it."""
        return self.dataset.read_picture(self.dataset.names.index(name))

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, labels and class numbers decided on, of one sample; of a large image every n-th row and column."""
        place = self.dataset.names.index(name)
        read, step, maps = self.dataset.picture_rows(place), 1, []
        if self.dataset.is_large(place):
            step = math.ceil(math.sqrt(math.prod(self.dataset.image_size(place)) / PICTURE))
        for sample, predicted, _ in self.decisions([place]):
            top = sample.get("top", 0)
            decided = predicted.numpy().astype(map_dtype(len(self.classes)))
            of_piece = (read(top, top + len(predicted)), sample["labels"].numpy(), decided)
            maps.append([rows[-top % step :: step, ::step] for rows in of_piece])
        image, labels, decided = (np.concatenate(rows) for rows in zip(*maps, strict=True))
        return image, labels, decided

    def decisions(
        self, places: Sequence[int] | None = None, posterior: bool = False
    ) -> Iterator[tuple[Sample, Tensor, Tensor | None]]:
        """Class numbers of samples, labelled or not, or of their pieces, and their posteriors if asked for."""
        reader = self.reader
        prior = class_prior(self.run.counts).to(self.device)
        for sample, scores in self._infer(places):
            found = reader.posterior(scores) if posterior else None
            yield sample, decide(reader, scores, prior, self.measures.decision, found)[0].cpu(), found

    def _infer(self, places: Sequence[int] | None) -> Iterator[tuple[Sample, Tensor]]:
        return infer_dataset(
            self.run.model,
            self.run.criterion,
            self.dataset,
            places,
            device=self.device,
            precision=self.precision,
            views=self.views,
            batch_size=self.batch_size,
            workers=self.workers,
        )

    def results(self, done: Collection[str] = ()) -> Iterator[tuple[int, ImageResult]]:
        places = {name: place for place, name in enumerate(self.dataset.names) if name not in done}
        reader = self.reader
        prior = class_prior(self.run.counts).to(self.device)
        total: ImageResult | None = None
        maps: list[tuple[np.ndarray, np.ndarray]] = []
        kind = map_dtype(len(self.classes))
        for sample, scores in self._infer([*places.values()]):
            in_pieces = scores.shape[-2] < sample["size"][0]
            measures = replace(self.measures, counted=()) if in_pieces else self.measures
            result, predicted, posterior = image_result(sample, scores, reader, prior, measures)
            if self.on_sample is not None:
                self.on_sample(sample, predicted, posterior)
            total = result if total is None else added(total, result)
            if in_pieces and self.measures.counted:  # which look at neighbours: at the whole map
                counted_as = _counted_as(sample, predicted, len(self.classes))
                maps.append((counted_as.numpy().astype(kind), sample["labels"].numpy().astype(kind)))
            if ends(sample, scores):
                if maps:
                    decided, labels = (np.concatenate(rows) for rows in zip(*maps, strict=True))
                    counts = {n: MEASURES[n].count(decided, labels, len(self.classes)) for n in self.measures.counted}
                    total.counted = counts
                yield places[sample["name"]], replace(total, name=sample["name"])
                total, maps = None, []


def hash_names(dataset: SegmentationDataset) -> str:
    """Changes when an image file is replaced; the fingerprint of a data set looks at the masks alone."""
    digest = hashlib.sha256()
    for image, _ in dataset.pairs:
        digest.update(repr((image.name, image.is_file() and file_state(image))).encode())
    return digest.hexdigest()
