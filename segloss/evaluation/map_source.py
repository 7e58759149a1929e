"""Folders of saved probability maps, from anywhere, against a folder of labels."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.datasets.classes import ClassTable, map_dtype
from segloss.datasets.masks import map_mask, read_mask
from segloss.decisions import Decision, decide
from segloss.errors import InputError
from segloss.evaluation.fitting import PIXELS, SAMPLE_MIB, fitted_rule
from segloss.evaluation.mask_source import MaskSource, in_order
from segloss.evaluation.matching import Triple
from segloss.evaluation.posterior_maps import MapIndex, SavedPosterior, files_of, list_maps, read_map
from segloss.evaluation.results import ImageResult
from segloss.evaluation.run_source import Measures, OnSample, Sample, image_result
from segloss.evaluation.written import noted_in_maps, noted_of_palettes
from segloss.iou_rule import IoUDecision
from segloss.losses import class_prior
from segloss.losses.partial_labels import posterior_of_labelled
from segloss.pixel_sample import PixelSample
from segloss.progress import Progress
from segloss.schema import MaskOrigin


class MapSource(MaskSource):
    """A folder of probability maps against a folder of labels: decided on and calibrated as a run's own posterior.

    Args:
        name, predictions, labels, classes, skip_bad, workers, training_pixels, images, label_ids: as of
            :class:`MaskSource`; training pixels also give the prior, and are those of the maps' run where they are not
            given.
        measures: what to count, and the decision; its ``rule`` is one more point of the sweep.
        on_sample: as of :class:`segloss.evaluation.run_source.RunSource`, but from several threads.

    Raises:
        InputError: files do not match, or the maps are of other classes.
    """

    def __init__(
        self,
        name: str,
        predictions: Path,
        labels: Path,
        classes: ClassTable,
        *,
        measures: Measures | None = None,
        skip_bad: bool = False,
        workers: int | None = None,
        training_pixels: tuple[int, ...] | None = None,
        images: Path | None = None,
        label_ids: str = "auto",
        on_sample: OnSample | None = None,
    ):
        self.index = MapIndex.load(predictions)
        self.measures = measures or Measures(calibration=True)
        self.on_sample = on_sample
        self.reader = SavedPosterior(self.index)
        names = self.index.classes
        if names not in (None, classes.names):
            what = f"holds maps of other classes ({', '.join(names[:4])} ...)" if names else ""
            raise InputError(what, "give their --class-table", predictions)
        super().__init__(
            name,
            predictions,
            labels,
            classes,
            skip_bad=skip_bad,
            workers=workers,
            training_pixels=training_pixels or self.index.training_pixels,
            images=images,
            label_ids=label_ids,
        )
        self._places = {name: place for place, name in enumerate(self.names)}

    @property
    def sees_all(self) -> bool:
        return self.on_sample is not None

    def _files(self) -> dict[str, Path]:
        return list_maps(self.predictions)

    def _require_sizes(self) -> set[Path]:
        """None can be told from a header, and none is read by rows."""
        return set()

    def require_prior(self) -> None:
        """InputError where a decision would need the training prior and nothing says it."""
        if self.training_pixels is None:
            cure = "give --training-counts, a run's pixel_counts.json"
            raise InputError("--decision prior needs the training pixels of each class", cure, self.predictions)

    def require_tilt(self) -> None:
        """InputError where a decision would need the tilt of the loss, and these maps are of no run of ours."""
        if self.index.classes is None:
            what = "--decision tau needs the tilt of the loss that the maps are of, which nothing says"
            cure = "take plain or iou, or prior with --training-counts; eval_seg.py --save probability keeps the tilt"
            raise InputError(what, cure, self.predictions)

    @property
    def prior(self) -> Tensor:
        return class_prior(self.training_pixels or (1,) * len(self.classes))

    def read(self, triple: Triple, mask: np.ndarray | None = None) -> tuple[Sample, Tensor | InputError]:
        """Labels as a sample, and the posterior ``(1, C, H, W)``, or what is wrong with it: :func:`read_map`.

        ``mask``: the file of the labels, if it has been read. Where the image labels a part of the classes the sample
        says which (``class_mask``), and pixels of the others are ignored.
        """
        labels = map_mask(read_mask(triple.true) if mask is None else mask, self.classes, triple.true)
        sample: Sample = {"name": triple.name}
        if self.labelled is not None:
            place = self._places[triple.name]
            labels = self.labelled.of_image(labels, place)
            sample["class_mask"] = torch.from_numpy(self.labelled.masks[place])
        sample["labels"] = torch.from_numpy(labels.astype(np.int32))
        try:
            return sample, read_map(triple.predicted, len(self.classes), labels < len(self.classes))[None]
        except InputError as error:
            return sample, error

    def fit(self, progress: Progress | None = None) -> IoUDecision:
        """The rule for mean IoU, fitted to these maps; labels only say which pixels are ignored.

        Raises:
            InputError: a map cannot be used (with ``skip_bad`` it is left out), or no pixel is labelled.
        """
        sample: PixelSample | None = None
        found = self._maps()
        for seen, posterior in found if progress is None else progress(found, len(self)):
            if sample is None:
                stride = max(1, math.isqrt(posterior[0, 0].numel() * len(self) // PIXELS))
                sample = PixelSample(ignore_index=self.classes.ignored, pixel_stride=stride, max_mib=SAMPLE_MIB)
            if "class_mask" in seen:
                posterior = posterior_of_labelled(posterior, seen["class_mask"][None])
            sample.update(posterior, seen["labels"][None])
        if sample is None or not sample.pixels:
            raise InputError("no pixel is labelled, so no rule can be fitted", "check --labels", self.labels)
        rule = fitted_rule(sample, "posterior", self.reader.of, self.index.calibration)
        return rule if self.reader.plain_by_posterior else replace(rule, plain_score=None)

    def _maps(self) -> Iterator[tuple[Sample, Tensor]]:
        """One after the other, a few read ahead."""
        with ThreadPoolExecutor(self.workers) as pool:
            for _, (seen, posterior) in in_order(pool, self.read, self.triples, self.workers + 1):
                if isinstance(posterior, Tensor):
                    yield seen, posterior
                elif not self.skip_bad:
                    raise posterior

    def describe(self) -> MaskOrigin:
        return replace(super().describe(), decision=str(self.measures.decision))

    def identity(self) -> dict[str, Any]:
        index = repr((self.index, self.training_pixels))
        return {**super().identity(), "measures": repr(self.measures), "index": index}

    def _files_of(self, triple: Triple) -> list[Path]:
        return [*files_of(triple.predicted), triple.true]

    def maps(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and the class numbers decided on, of one sample."""
        seen, posterior = self.read(next(triple for triple in self.triples if triple.name == name))
        labels = seen["labels"].numpy()
        assert isinstance(posterior, Tensor)  # it has been counted
        predicted = decide(self.reader, posterior, self.prior, self.measures.decision)[0]
        kind = map_dtype(len(self.classes))
        return labels.astype(kind), predicted.numpy().astype(kind)

    def _result(self, item: tuple[int, Triple]) -> ImageResult | InputError:
        place, triple = item
        mask = read_mask(triple.true)
        seen, posterior = self.read(triple, mask)
        if isinstance(posterior, InputError):
            return posterior
        result, predicted, found = image_result(seen, posterior, self.reader, self.prior, self.measures)
        chosen = predicted.numpy().astype(map_dtype(len(self.classes)))
        decided = chosen if self.labelled is None else self.labelled.of_image(chosen, place)
        result.noted = noted_in_maps(mask, chosen, seen["labels"].numpy(), chosen, decided, self.classes)
        result.noted["palette"] = noted_of_palettes((triple.true, mask))
        if self.on_sample is not None:
            self.on_sample(seen, predicted, found)
        return result


def decision_of_maps(source: MapSource, asked: Decision | str, progress: Progress | None = None) -> Decision:
    """What ``--decision`` means for maps: ``iou`` is fitted to them, ``auto`` is the run's chosen point or else that.

    Raises:
        InputError: as :meth:`MapSource.fit`, ``prior`` without training pixels, or ``tau`` without a tilt.
    """
    if asked == "auto" and source.index.point is not None:
        asked = source.index.point
    if isinstance(asked, str):
        return Decision("iou", terms=source.fit(progress))
    if asked.rule == "prior":
        source.require_prior()
    elif asked != Decision():
        source.require_tilt()
    return asked
