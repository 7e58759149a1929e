"""A trained run on a labelled split, as a source of results."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.datasets import SegmentationDataset
from segloss.datasets.loading import evaluation_loader
from segloss.decisions import Decision, decide
from segloss.evaluation.counting import calibration_counts, confusion_of, likelihood_counts
from segloss.evaluation.results import ImageResult
from segloss.evaluation.suspects import Suspects
from segloss.evaluation.sweep import sweep_counts
from segloss.inference import CalibratedPosterior, Views, infer, reader_of
from segloss.iou_rule import IoUDecision
from segloss.losses import IGNORE_INDEX, Criterion, class_prior
from segloss.losses.partial_labels import ignore_unlabelled, posterior_of_labelled
from segloss.measures import MEASURES
from segloss.runs import Run
from segloss.schema import LookedAt, RunOrigin

Sample = dict[str, Any]
OnSample = Callable[[Sample, Tensor, Tensor | None], None]


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
    counted_as = (
        predicted if class_mask is None else ignore_unlabelled(predicted[None], class_mask[None], IGNORE_INDEX)[0]
    )
    labels, decided = sample["labels"].numpy(), counted_as.numpy().astype(np.uint8)
    matrix, ignored = confusion_of(decided, labels, num_classes)
    counted = {name: MEASURES[name].count(decided, labels, num_classes) for name in measures.counted}
    result = ImageResult(sample["name"], matrix, ignored, counted)
    if measures.calibration and posterior is not None:
        seen = (lambda p: p) if class_mask is None else partial(_of_labelled, class_mask)
        posterior = seen(posterior)
        result.calibration, result.brier = calibration_counts(posterior[0], sample["labels"])
        result.likelihood = likelihood_counts(posterior[0], sample["labels"])
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
            posterior ``(1, C, H, W)``, for instance to save or draw them.
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
        self.suspects: Suspects | None = None
        self.classes = dataset.classes
        self.training_pixels: tuple[int, ...] | None = run.counts.complete.pixels

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def reader(self) -> Criterion:
        return reader_of(self.run.criterion, self.views, self.run.kept.calibration)

    @property
    def names(self) -> list[str]:
        return self.dataset.names

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
            views=LookedAt(tta_scales=views.scales, tta_flip=views.flip, tile=views.tile, tile_overlap=views.overlap),
            image_scale=self.image_scale,
            precision=self.precision,
        )

    def doubt(self, matrix: np.ndarray) -> None:
        """None: a run's classes are those of its labels."""

    def key(self) -> dict[str, Any]:
        return {
            "weights": self.run.weights,
            "calibration": repr(self.run.kept.calibration),
            "data": self.dataset.fingerprint(),
            "images": hash_names(self.dataset),
            "image_scale": self.image_scale,
            "measures": repr((self.measures, self.views)),
            "precision": self.precision,
        }

    def image(self, name: str) -> np.ndarray:
        """RGB ``(H, W, 3)`` of one sample."""
        return self.dataset.read_image(self.dataset.names.index(name))

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, labels and class numbers decided on, of one sample."""
        place = self.dataset.names.index(name)
        loader = evaluation_loader(self.dataset, 1, workers=0, places=[place])
        ((_, predicted, _),) = self.decisions(loader)
        image, labels = self.dataset.read_pair(place)
        assert labels is not None  # a source has labels
        return self.dataset.bands.picture(image), labels, predicted.byte().numpy()

    def decisions(
        self, loader: Iterable[list[Sample]], posterior: bool = False
    ) -> Iterator[tuple[Sample, Tensor, Tensor | None]]:
        """Class numbers of samples, labelled or not, and their posteriors if asked for."""
        reader = self.reader
        prior = class_prior(self.run.counts).to(self.device)
        for sample, scores in self._infer(loader):
            found = reader.posterior(scores) if posterior else None
            yield sample, decide(reader, scores, prior, self.measures.decision, found)[0].cpu(), found

    def _infer(self, loader: Iterable[list[Sample]]) -> Iterator[tuple[Sample, Tensor]]:
        run = self.run
        return infer(run.model, run.criterion, loader, device=self.device, precision=self.precision, views=self.views)

    def results(self, done: Collection[str] = ()) -> Iterator[tuple[int, ImageResult]]:
        done = () if self.on_sample is not None else done  # who wants to see the samples sees all of them
        places = {name: place for place, name in enumerate(self.dataset.names) if name not in done}
        loader = evaluation_loader(self.dataset, self.batch_size, workers=self.workers, places=list(places.values()))
        reader = self.reader
        prior = class_prior(self.run.counts).to(self.device)
        for sample, scores in self._infer(loader):
            result, predicted, posterior = image_result(sample, scores, reader, prior, self.measures)
            if self.on_sample is not None:
                self.on_sample(sample, predicted, posterior)
            yield places[sample["name"]], result


def hash_names(dataset: SegmentationDataset) -> str:
    """Changes when an image file is replaced; the fingerprint of a data set looks at the masks alone."""
    import hashlib

    digest = hashlib.sha256()
    for image, _ in dataset.pairs:
        status = image.stat() if image.is_file() else None
        digest.update(repr((image.name, status and (status.st_size, status.st_mtime_ns))).encode())
    return digest.hexdigest()
