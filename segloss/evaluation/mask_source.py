"""Folders of predicted masks, from anywhere, against a folder of labels."""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from segloss.datasets.base import file_length, file_state
from segloss.datasets.classes import STRAY, ClassTable
from segloss.datasets.images import image_size, read_header, read_image
from segloss.datasets.labelled import Labelled, find_labelled, fits
from segloss.datasets.masks import describe_strays, id_table, lookup, map_mask, read_mask, stray_error
from segloss.datasets.rows import LARGE, mask_rows
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, has_train_ids, in_train_ids
from segloss.errors import Finding, InputError
from segloss.evaluation.counting import confusion_of, pair_histogram
from segloss.evaluation.doubts import mask_findings
from segloss.evaluation.matching import Triple, match, match_images, some
from segloss.evaluation.placement import placement_findings
from segloss.evaluation.results import ImageResult, Totals, added
from segloss.evaluation.suspects import Suspects
from segloss.evaluation.written import noted_in_histogram, noted_in_maps, noted_of_palettes
from segloss.losses.labels import IGNORE_INDEX
from segloss.measures import MEASURES
from segloss.pixel_counts import available_cores
from segloss.schema import MaskOrigin


def _stored_size(path: Path) -> tuple[int, int] | None:
    """Height and width from the header; None for a file that only reading can judge."""
    try:
        return read_header(path)[:2]
    except InputError:
        return None


def _width_by_height(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(
    pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Made]]:
    """Items and what threads make of them; ``ahead`` at most are made or waiting, however many there are."""
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) == ahead:
                first, made = waiting.popleft()
                yield first, made.result()
        while waiting:
            first, made = waiting.popleft()
            yield first, made.result()
    finally:
        for _, made in waiting:
            made.cancel()


class MaskSource:
    """A folder of predicted masks against a folder of labels; as :class:`segloss.evaluation.RunSource`.

    Args:
        name: in tables and files.
        predictions, labels: the folders.
        classes: what the ids and colours of both mean.
        prediction_ids, label_ids: ``labelIds``, the table's own; ``trainIds``, class numbers from 0, of Cityscapes and
            of other tables that count otherwise; ``auto``: by the file names, else labelIds.
        counted: names of :data:`segloss.measures.MEASURES` to count too.
        skip_bad: leave out images whose prediction is missing or cannot be used, and predictions without label; each
            is noted in ``skipped``.
        workers: threads, at least 1; default: one per core.
        training_pixels: of each class, where known: they order head, middle and tail.
        images: folder of the photographs, to look at; it may lack some.

    Raises:
        InputError: files do not match.
    """

    def __init__(
        self,
        name: str,
        predictions: Path,
        labels: Path,
        classes: ClassTable,
        *,
        prediction_ids: str = "auto",
        label_ids: str = "auto",
        counted: Sequence[str] = (),
        skip_bad: bool = False,
        workers: int | None = None,
        training_pixels: tuple[int, ...] | None = None,
        images: Path | None = None,
    ):
        self.name, self.predictions, self.labels = name, predictions, labels
        self.training_pixels = training_pixels
        found = match(predictions, labels, skip_bad=skip_bad, files=self._files())
        self.triples, kind, self.unmatched, self.form, self.passed_over = found
        numbered = in_train_ids(classes) if has_train_ids(classes) else classes
        for side, asked in (("prediction", prediction_ids), ("label", label_ids)):
            if asked == "trainIds" and numbered is classes:
                what = f"--{side}-ids trainIds are those of Cityscapes, and of tables whose ids are no class numbers"
                raise InputError(what, "leave it out, or give --class-table cityscapes")
        self.label_ids = label_ids
        by_name = classes.names == CITYSCAPES.names  # a table of one's own knows its ids itself
        named = kind if by_name and label_ids == "auto" else label_ids
        self.classes = numbered if named == "trainIds" else classes
        if all(label == classes.ignored for _, label in classes.mask_ids):  # of colours alone: ids as they are written
            ids = (*zip(classes.ids, range(len(classes)), strict=True), *classes.mask_ids)
            classes = numbered = replace(classes, mask_ids=ids)
        if not classes.mask_colors and len(set(classes.colors)) == len(classes):  # as PredictionWriter paints them
            colors = tuple(zip(classes.colors, range(len(classes)), strict=True))
            classes, numbered = (replace(table, mask_colors=colors) for table in (classes, numbered))
        self.predicted_classes = classes
        by_name &= all(triple.predicted.stem.endswith(LABEL_ENDINGS["trainIds"]) for triple in self.triples)
        if prediction_ids == "trainIds" or (prediction_ids == "auto" and by_name):
            self.predicted_classes = numbered
        self.counted, self.skip_bad = tuple(counted), skip_bad
        self.workers = available_cores() if workers is None else max(1, workers)
        self.bad: dict[int, str] = {}
        self.suspects: Suspects | None = None
        self._large = self._require_sizes()
        true = {triple.name: triple.true for triple in self.triples}
        self.images = {} if images is None else match_images(images, true)
        self.labelled = self._find_labelled(images)

    @property
    def sees_all(self) -> bool:
        return False

    @property
    def skipped(self) -> list[str]:
        """A line for each mask that is left out: without partner, or that cannot be used."""
        return [*self.unmatched, *(self.bad[place] for place in sorted(self.bad))]

    def take_bad(self, bad: Mapping[int, str]) -> None:
        """Of other passes over these predictions; InputError where none can be used."""
        self.bad |= bad
        if len(self.bad) == len(self):
            what = f"none of the {len(self)} predictions can be used"
            raise InputError(what, f"the first, {self.bad[0]}", self.predictions)

    def batches(self, places: Sequence[int]) -> list[list[int]]:
        return [[place] for place in places]

    def _files(self) -> dict[str, Path] | None:
        """The predictions by name; None: images."""
        return None

    def _find_labelled(self, images: Path | None) -> Labelled | None:
        """What ``labelled_classes.csv`` says, its patterns read as of images: of the name that both sides share, and of
        the paths of label, prediction and photograph.

        Rows that fit none are noted; of a file above the labels, which is for other splits too, only if no row fits.
        """
        above = (self.labels, self.labels.parent, self.labels.parent.parent)
        called: list[tuple[str, ...]] = []
        for triple in self.triples:
            photograph = self.images.get(triple.name)
            paths = ((triple.true, above[-1]), (triple.predicted, self.predictions), (photograph, images))
            forms = (path.relative_to(top).with_suffix("").as_posix() for path, top in paths if path and top)
            called.append((triple.name, *forms))
        labelled = find_labelled(above, called, self.classes.names)
        if labelled is not None:
            self.form = f"{self.form}, {labelled.told}".lstrip(", ")
            every = [form for forms in called for form in forms]
            idle = [pattern for pattern, _ in labelled.rows if not any(fits(pattern, form) for form in every)]
            if idle and (labelled.path.parent == self.labels or len(idle) == len(labelled.rows)):
                what = f"{len(idle)} of {len(labelled.rows)} rows fit no image here: {some(idle)}"
                cure = f"write them as the images are named, as {called[0][0]}"
                self.passed_over.append(InputError(what, cure, labelled.path))
        return labelled

    def _require_sizes(self) -> set[Path]:
        """The labels that are read by rows, from the headers.

        Raises:
            InputError: predictions are of another size than their label; it lists them. Not with ``skip_bad``.
        """
        files = [path for triple in self.triples for path in (triple.predicted, triple.true)]
        with ThreadPoolExecutor(self.workers) as pool:
            sizes = list(pool.map(_stored_size, files))
        pairs = zip(self.triples, sizes[::2], sizes[1::2], strict=True)
        other = [
            f"{t.name} ({_width_by_height(a)}, its label {_width_by_height(b)})"
            for t, a, b in pairs
            if a and b and a != b
        ]
        if other and not self.skip_bad:
            what = f"{len(other)} of {len(self)} predictions are not of their label's size (width x height)"
            cure = "export them at the label's size (--skip-bad leaves such images out)"
            raise InputError(f"{what}: {some(other)}", cure, self.predictions)
        return {path for path, size in zip(files[1::2], sizes[1::2], strict=True) if size and size[0] * size[1] > LARGE}

    def __len__(self) -> int:
        return len(self.triples)

    @property
    def names(self) -> list[str]:
        return [triple.name for triple in self.triples]

    def describe(self) -> MaskOrigin:
        return MaskOrigin(predictions=str(self.predictions), labels=str(self.labels), skipped=tuple(self.skipped))

    def findings(self, totals: Totals) -> list[Finding]:
        """What is doubtful in what was counted, errors first; :mod:`segloss.evaluation.doubts`."""
        found = mask_findings(self.name, totals, self.classes, self.predicted_classes, label_ids=self.label_ids)
        found += [Finding("warning", self.name, what) for what in self.passed_over]
        own = sum(triple.predicted.samefile(triple.true) for triple in self.triples)
        if own:
            what = f"{own} of {len(self)} predictions are the label's own file: {self.predictions}"
            found.append(Finding("warning", self.name, InputError(what, "check --predictions and --labels")))
        if not self._large:  # which would have to be held
            found += placement_findings(self.name, totals, self.maps, len(self.classes), self.workers)
        return found

    def identity(self) -> dict[str, Any]:
        files = [(t.name, path.suffix, file_length(path)) for t in self.triples for path in self._files_of(t)]
        return {
            "files": hashlib.sha256(repr(files).encode()).hexdigest(),
            "classes": repr((self.classes, self.predicted_classes)),
            "counted": self.counted,
            "labelled": self.labelled and self.labelled.digest,
        }

    def key(self) -> dict[str, Any]:
        states = [file_state(path) for t in self.triples for path in self._files_of(t)]
        return {
            **self.identity(),
            "predictions": str(self.predictions.resolve()),
            "labels": str(self.labels.resolve()),
            "states": hashlib.sha256(repr(states).encode()).hexdigest(),
        }

    @property
    def files(self) -> dict[str, list[Path]]:
        return {triple.name: self._files_of(triple) for triple in self.triples}

    def _files_of(self, triple: Triple) -> list[Path]:
        """Those whose change makes an earlier result void."""
        return [triple.predicted, triple.true]

    def image(self, name: str) -> np.ndarray | None:
        """RGB ``(H, W, 3)`` of one sample at the size of its label; None where no photograph was given."""
        if name not in self.images:
            return None
        height, width = image_size(self.triples[self.names.index(name)].true)
        image = read_image(self.images[name])
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        return image

    def picture(self, name: str) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """The photograph, if there is one, labels and predicted class numbers of one sample."""
        return self.image(name), *self.maps(name)

    def maps(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predicted class numbers of one sample."""
        place = self.names.index(name)
        triple = self.triples[place]
        labels = map_mask(read_mask(triple.true), self.classes, triple.true)
        if self.labelled is not None:
            labels = self.labelled.of_image(labels, place)
        return labels, lookup(read_mask(triple.predicted), self.predicted_classes)

    def results(self, done: Collection[str] = ()) -> Iterator[tuple[int, ImageResult]]:
        self.bad = {}
        left = ((place, triple) for place, triple in enumerate(self.triples) if triple.name not in done)
        with ThreadPoolExecutor(self.workers) as pool:
            for (place, triple), result in in_order(pool, self._result, left, 16 * self.workers):
                if isinstance(result, InputError):
                    if not self.skip_bad:
                        cure = f"{result.cure} (--skip-bad leaves such images out)".lstrip()
                        raise InputError(result.what, cure, result.where) from result
                    self.bad[place] = f"{triple.name}: {result}"
                else:
                    yield place, result
        self.take_bad({})

    def _result(self, item: tuple[int, Triple]) -> ImageResult | InputError:
        place, triple = item
        if triple.true in self._large:
            return self._result_by_rows(place, triple)
        true = read_mask(triple.true)
        try:
            predicted = read_mask(triple.predicted)
            _require_size(triple, predicted.shape, true.shape)
            if predicted.ndim == 3 and (lookup(predicted, self.predicted_classes) == self.classes.stray).all():
                every = np.ones(predicted.shape[:2], bool)
                raise describe_strays(predicted, every, self.predicted_classes).error(triple.predicted)
        except InputError as error:
            return error
        result = self._counts(place, triple, true, predicted)
        result.noted["palette"] = noted_of_palettes((triple.true, true), (triple.predicted, predicted))
        return result

    def _result_by_rows(self, place: int, triple: Triple) -> ImageResult | InputError:
        """Of masks too large to be held; measures that look at neighbours need them whole, a byte a pixel."""
        height, width = image_size(triple.true)
        true, total = mask_rows(triple.true), None
        step = height if self.counted else max(1, LARGE // 64 // width)
        try:
            _require_size(triple, image_size(triple.predicted), (height, width))
            predicted = mask_rows(triple.predicted)
        except InputError as error:
            return error
        for top in range(0, height, step):
            of_true = true(top, min(height, top + step))
            try:
                of_predicted = predicted(top, min(height, top + step))
            except InputError as error:
                return error
            counts = self._counts(place, triple, of_true, of_predicted)
            total = counts if total is None else added(total, counts)
        assert total is not None  # an image has rows
        return replace(total, name=triple.name)

    def _counts(self, place: int, triple: Triple, true: np.ndarray, predicted: np.ndarray) -> ImageResult:
        narrow = len(self.classes) <= STRAY and all(m.ndim == 2 and m.dtype == np.uint8 for m in (true, predicted))
        if narrow and not self.counted and self.labelled is None:  # counted before mapped: two passes less
            raw = pair_histogram(predicted, true)
            matrix, ignored, stray = folded(raw, self.classes, self.predicted_classes)
            if stray:
                raise stray_error(true, lookup(true, self.classes), self.classes, triple.true)
            noted = noted_in_histogram(raw, self.classes, self.predicted_classes)
            return ImageResult(triple.name, matrix, ignored, noted=noted)
        labels, written = map_mask(true, self.classes, triple.true), lookup(predicted, self.predicted_classes)
        decided = written
        if self.labelled is not None:  # pixels of other classes are ignored, predictions of them no class
            labels, decided = (self.labelled.of_image(each, place) for each in (labels, written))
        matrix, ignored = confusion_of(decided, labels, len(self.classes))
        counted = {name: MEASURES[name].count(decided, labels, len(self.classes)) for name in self.counted}
        noted = noted_in_maps(true, predicted, labels, written, decided, self.classes)
        return ImageResult(triple.name, matrix, ignored, counted, noted=noted)


def _require_size(triple: Triple, predicted: tuple[int, ...], true: tuple[int, ...]) -> None:
    if predicted[:2] != true[:2]:
        other = f"its label {triple.true.name} is {_width_by_height(true)} (width x height)"
        what = f"is {_width_by_height(predicted)} but {other}"
        raise InputError(what, "export the prediction at the label's size", triple.predicted)


def folded(raw: np.ndarray, classes: ClassTable, predicted_classes: ClassTable) -> tuple[np.ndarray, int, int]:
    """Confusion ``(C, C + 1)``, ignored and unknown true pixels from the counts of raw ids ``(256, 256)``."""
    rows, columns = id_table(classes)[:256].astype(np.int64), id_table(predicted_classes)[:256]
    cells = np.flatnonzero(raw)
    places = rows[cells >> 8] * 256 + columns[cells & 255]
    matrix = np.bincount(places, raw.ravel()[cells], minlength=2**16).astype(np.int64).reshape(256, 256)
    count = len(classes)
    known = matrix[:count]
    other = known[:, count:].sum(1, keepdims=True)
    ignored, stray = int(matrix[IGNORE_INDEX].sum()), int(matrix[STRAY].sum())
    return np.concatenate([known[:, :count], other], axis=1), ignored, stray
