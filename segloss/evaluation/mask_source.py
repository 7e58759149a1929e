"""Folders of predicted masks, from anywhere, against a folder of labels."""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segloss.datasets import TABLES
from segloss.datasets.base import common_ending
from segloss.datasets.classes import STRAY, ClassTable, read_class_file
from segloss.datasets.folder import CLASS_FILES
from segloss.datasets.images import list_images, read_header
from segloss.datasets.labelled import find_labelled
from segloss.datasets.masks import describe_strays, id_table, lookup, map_mask, ranges, read_mask, stray_error
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, TRAIN_IDS, LabelKind
from segloss.errors import InputError, unknown_name
from segloss.evaluation.counting import confusion_of, pair_histogram
from segloss.evaluation.results import ImageResult
from segloss.evaluation.suspects import Suspects
from segloss.losses.reduction import IGNORE_INDEX
from segloss.measures import MEASURES
from segloss.pixel_counts import available_cores
from segloss.schema import MaskOrigin

ENDINGS = tuple(LABEL_ENDINGS.values())
FRAME = re.compile(r"[^/_]+_\d{6}_\d{6}(?=_|$)")  # CITY_SEQ_FRAME of Cityscapes' file names
SHOWN = 5  # names in the message on files without partner
LOOKED_AT = 20  # predictions, for the cause of ids that are no class
UNKNOWN_SHARE = 0.01  # of the valid pixels predicted as no class; above it the ids are doubtful


@dataclass(frozen=True)
class Triple:
    """One image: its name, the predicted mask and the true one."""

    name: str
    predicted: Path
    true: Path


def class_table(choice: str | None, labels: Path) -> ClassTable:
    """A built-in table, a class file, or the one beside the labels; Cityscapes is known by its file names.

    Raises:
        InputError: nothing says what the ids mean.
    """
    if choice in TABLES:
        return TABLES[choice]
    if choice is not None:
        if not Path(choice).is_file():
            raise unknown_name("--class-table", choice, (*TABLES, "a class file"))
        return read_class_file(Path(choice))
    _require_folder(labels, "labels")
    for folder in (labels, labels.parent, labels.parent.parent):
        for name in CLASS_FILES:
            if (folder / name).is_file():
                return read_class_file(folder / name)
    if any(name.endswith(ENDINGS) for name in list_images(labels)):
        return CITYSCAPES
    raise InputError(
        "no class file says what the ids mean", f"give --class-table {', '.join(TABLES)} or a class file", labels
    )


def _require_folder(path: Path, flag: str) -> Path:
    if not path.is_dir():
        raise InputError("is no folder", f"check --{flag}", path)
    return path


def _by_key(files: dict[str, Path], by_frame: bool, what: str) -> dict[str, Path]:
    """Files by name, or by their CITY_SEQ_FRAME; InputError for two of one."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        key = _frame(name) if by_frame else name
        if key in found:
            raise InputError(f"a second {what} of {key} beside {found[key]}", "keep one of the two", path)
        found[key] = path
    return found


def _labels_of(folder: Path) -> tuple[dict[str, Path], LabelKind | None]:
    """True masks by name, and the kind of Cityscapes' masks where they are such."""
    files = list_images(_require_folder(folder, "labels"))
    for kind, ending in LABEL_ENDINGS.items():
        chosen = {name: path for name, path in files.items() if name.endswith(ending)}
        if chosen:
            return _by_key(chosen, True, "label"), kind
    if not files:
        raise InputError("holds no masks", "check --labels", folder)
    return files, None


def _frame(name: str) -> str:
    found = FRAME.search(name.rsplit("/", 1)[-1])
    return found[0] if found else name


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _stored_size(path: Path) -> str | None:
    """``WIDTHxHEIGHT`` from the header; None for a file that only reading can judge."""
    try:
        height, width = read_header(path)[:2]
        return f"{width}x{height}"
    except InputError:
        return None


def match(
    predictions: Path, labels: Path, *, skip_bad: bool = False, files: dict[str, Path] | None = None
) -> tuple[list[Triple], LabelKind | None, list[str]]:
    """Every true mask with its prediction, by stem or by Cityscapes' CITY_SEQ_FRAME, and the kind of the true masks.

    With ``skip_bad`` also a line for each mask without partner, which is left out. ``files``: the predictions by name,
    where they are no images.

    Raises:
        InputError: predictions are missing or belong to no label; the message lists them. With ``skip_bad`` only if
            no prediction has a label.
    """
    true, kind = _labels_of(labels)
    _require_folder(predictions, "predictions")
    files = list_images(predictions) if files is None else files
    if kind is not None and any(name.endswith(ENDINGS) for name in files):
        files = {name: path for name, path in files.items() if name.endswith(ENDINGS)}  # not the colour images beside
    predicted = _by_key(files, kind is not None, "prediction")
    if ending := "" if kind else common_ending(predicted, true):  # NAME_L.png, as CamVid's
        true = {name.removesuffix(ending): path for name, path in true.items()}
    lonely = {
        f"no prediction in {predictions} for": sorted(set(true) - set(predicted)),
        f"no label in {labels} for": sorted(set(predicted) - set(true)),
    }
    if any(lonely.values()) and not (skip_bad and set(true) & set(predicted)):
        found = ", and ".join(f"{what} {len(names)}: {_some(names)}" for what, names in lonely.items() if names)
        cure = "masks are matched by their name without suffix, add them or take out their partners"
        raise InputError(found, cure if skip_bad else f"{cure} (--skip-bad leaves such images out)")
    skipped = [f"{name}: {what.removesuffix(' for')}" for what, names in lonely.items() for name in names]
    paired = [Triple(name, predicted[name], path) for name, path in sorted(true.items()) if name in predicted]
    return paired, kind, skipped


class MaskSource:
    """A folder of predicted masks against a folder of labels; as :class:`segloss.evaluation.RunSource`.

    Args:
        name: in tables and files.
        predictions, labels: the folders.
        classes: what the ids and colours of both mean.
        prediction_ids: of Cityscapes: ``labelIds``, ``trainIds``; ``auto``: by the file names, else labelIds.
        counted: names of :data:`segloss.measures.MEASURES` to count too.
        skip_bad: leave out images whose prediction is missing or cannot be used, and predictions without label; each
            is noted in ``skipped``.
        workers: threads, at least 1; default: one per core.
        training_pixels: of each class, where known: they order head, middle and tail.

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
        counted: Sequence[str] = (),
        skip_bad: bool = False,
        workers: int | None = None,
        training_pixels: tuple[int, ...] | None = None,
    ):
        self.name, self.predictions, self.labels = name, predictions, labels
        self.training_pixels = training_pixels
        self.triples, kind, self.unmatched = match(predictions, labels, skip_bad=skip_bad, files=self._files())
        cityscapes = classes.names == CITYSCAPES.names  # a table of one's own knows its ids itself
        if prediction_ids == "trainIds" and not cityscapes:
            raise InputError("--prediction-ids trainIds are those of Cityscapes", "give --class-table cityscapes")
        in_train_ids = replace(classes, mask_ids=TRAIN_IDS) if cityscapes else classes
        self.classes = in_train_ids if kind == "trainIds" else classes
        if all(label == IGNORE_INDEX for _, label in classes.mask_ids):  # of colours alone: ids as they are written
            ids = (*zip(classes.ids, range(len(classes)), strict=True), *classes.mask_ids)
            classes = in_train_ids = replace(classes, mask_ids=ids)
        if not classes.mask_colors and len(set(classes.colors)) == len(classes):  # as PredictionWriter paints them
            colors = tuple(zip(classes.colors, range(len(classes)), strict=True))
            classes, in_train_ids = (replace(table, mask_colors=colors) for table in (classes, in_train_ids))
        self.predicted_classes = classes
        by_name = all(triple.predicted.stem.endswith(LABEL_ENDINGS["trainIds"]) for triple in self.triples)
        if prediction_ids == "trainIds" or (prediction_ids == "auto" and by_name):
            self.predicted_classes = in_train_ids
        self.labelled = find_labelled((labels, labels.parent, labels.parent.parent), self.names, classes.names)
        self.counted, self.skip_bad = tuple(counted), skip_bad
        self.workers = available_cores() if workers is None else max(1, workers)
        self.skipped = list(self.unmatched)
        self.suspects: Suspects | None = None
        if not skip_bad:
            self._require_sizes()

    def _files(self) -> dict[str, Path] | None:
        """The predictions by name; None: images."""
        return None

    def _require_sizes(self) -> None:
        """InputError that lists the predictions of another size than their label, from the headers."""
        files = [path for triple in self.triples for path in (triple.predicted, triple.true)]
        with ThreadPoolExecutor(self.workers) as pool:
            sizes = list(pool.map(_stored_size, files))
        pairs = zip(self.triples, sizes[::2], sizes[1::2], strict=True)
        other = [f"{t.name} ({a}, its label {b})" for t, a, b in pairs if a and b and a != b]
        if other:
            what = f"{len(other)} of {len(self)} predictions are not of their label's size (width x height)"
            cure = "export them at the label's size (--skip-bad leaves such images out)"
            raise InputError(f"{what}: {_some(other)}", cure, self.predictions)

    def __len__(self) -> int:
        return len(self.triples)

    @property
    def names(self) -> list[str]:
        return [triple.name for triple in self.triples]

    def describe(self) -> MaskOrigin:
        return MaskOrigin(predictions=str(self.predictions), labels=str(self.labels), skipped=tuple(self.skipped))

    def doubt(self, matrix: np.ndarray) -> str | None:
        """A line where more than 1 % is no class, or several classes are predicted as the one beside them."""
        count, pixels = len(matrix), max(1, matrix.sum())
        for step, where in ((-1, "before"), (1, "behind")):
            beside = np.diagonal(matrix[:, :count], step)
            share, of_true = beside.sum() / pixels, matrix.sum(1)[max(0, -step) :][: len(beside)]
            # Of several classes, not only of one that a weak model predicts everywhere.
            if share > 0.5 and np.count_nonzero(2 * beside > of_true) > 2:
                off = f"{share:.1%} of the pixels are predicted as the class {where} the true one"
                return f"{off}; the ids seem to begin at another number than the class table's"
        share = matrix[:, count:].sum() / pixels
        if share <= UNKNOWN_SHARE:
            return None
        return f"{share:.1%} of the pixels are predicted as no class; {self.cause_of_unknown()}"

    def cause_of_unknown(self) -> str:
        """What the values of some predictions look like, if many are no class."""
        values: set[int] = set()
        for triple in self.triples[:: -(-len(self) // LOOKED_AT)]:
            with suppress(InputError):
                predicted = read_mask(triple.predicted)
                values.update(np.unique(predicted).tolist() if predicted.ndim == 2 else ())
        return _cause(values - {IGNORE_INDEX}, self.predicted_classes)

    def key(self) -> dict[str, Any]:
        stats = [
            (t.name, path.suffix, path.stat().st_size, path.stat().st_mtime_ns)
            for t in self.triples
            for path in self._stats(t)
        ]
        return {
            "predictions": str(self.predictions.resolve()),
            "labels": str(self.labels.resolve()),
            "files": hashlib.sha256(repr(stats).encode()).hexdigest(),
            "classes": repr((self.classes, self.predicted_classes)),
            "counted": self.counted,
            "labelled": self.labelled and hashlib.sha256(self.labelled.masks.tobytes()).hexdigest(),
        }

    def _stats(self, triple: Triple) -> list[Path]:
        """The files whose change makes an earlier result void."""
        return [triple.predicted, triple.true]

    def image(self, name: str) -> None:
        """There is none beside the masks."""

    def picture(self, name: str) -> tuple[None, np.ndarray, np.ndarray]:
        """No image; labels and predicted class numbers of one sample."""
        place = self.names.index(name)
        triple = self.triples[place]
        labels = map_mask(read_mask(triple.true), self.classes, triple.true)
        if self.labelled is not None:
            labels = self.labelled.of_image(labels, place)
        return None, labels, lookup(read_mask(triple.predicted), self.predicted_classes)

    def results(self, done: Collection[str] = ()) -> Iterator[tuple[int, ImageResult]]:
        self.skipped[:] = self.unmatched
        left = ((place, triple) for place, triple in enumerate(self.triples) if triple.name not in done)
        with ThreadPoolExecutor(self.workers) as pool:
            while some := list(islice(left, 16 * self.workers)):  # so that few results wait, however many there are
                for (place, triple), result in zip(some, pool.map(self._result, some), strict=True):
                    if isinstance(result, InputError):
                        if not self.skip_bad:
                            cure = f"{result.cure} (--skip-bad leaves such images out)".lstrip()
                            raise InputError(result.what, cure, result.where) from result
                        self.skipped.append(f"{triple.name}: {result}")
                    else:
                        yield place, result
        bad = self.skipped[len(self.unmatched) :]
        if len(bad) == len(self):
            what = f"none of the {len(self)} predictions can be used"
            raise InputError(what, f"the first, {bad[0]}", self.predictions)

    def _result(self, item: tuple[int, Triple]) -> ImageResult | InputError:
        place, triple = item
        true = read_mask(triple.true)
        try:
            predicted = read_mask(triple.predicted)
            if predicted.shape[:2] != true.shape[:2]:
                sizes = [f"{mask.shape[1]}x{mask.shape[0]}" for mask in (predicted, true)]
                what = f"is {sizes[0]} but its label {triple.true.name} is {sizes[1]} (width x height)"
                raise InputError(what, "export the prediction at the label's size", triple.predicted)
            if predicted.ndim == 3 and (lookup(predicted, self.predicted_classes) == STRAY).all():
                every = np.ones(predicted.shape[:2], bool)
                raise describe_strays(predicted, every, self.predicted_classes).error(triple.predicted)
        except InputError as error:
            return error
        return self._counts(place, triple, true, predicted)

    def _counts(self, place: int, triple: Triple, true: np.ndarray, predicted: np.ndarray) -> ImageResult:
        plain = all(mask.ndim == 2 and mask.dtype == np.uint8 for mask in (true, predicted))
        if plain and not self.counted and self.labelled is None:  # counted before mapped: two passes less
            matrix, ignored, stray = folded(pair_histogram(predicted, true), self.classes, self.predicted_classes)
            if stray:
                raise stray_error(true, lookup(true, self.classes), self.classes, triple.true)
            return ImageResult(triple.name, matrix, ignored)
        labels, decided = map_mask(true, self.classes, triple.true), lookup(predicted, self.predicted_classes)
        if self.labelled is not None:  # pixels of other classes are ignored, predictions of them no class
            labels, decided = (self.labelled.of_image(each, place) for each in (labels, decided))
        matrix, ignored = confusion_of(decided, labels, len(self.classes))
        counted = {name: MEASURES[name].count(decided, labels, len(self.classes)) for name in self.counted}
        return ImageResult(triple.name, matrix, ignored, counted)


def _cause(values: set[int], classes: ClassTable) -> str:
    known = {value for value, label in classes.mask_ids if label != IGNORE_INDEX}
    if classes.names == CITYSCAPES.names and values:
        in_train_ids = known == set(range(len(classes)))
        if not in_train_ids and max(values) < len(classes):
            return "these look like trainIds; give --prediction-ids trainIds"
        if in_train_ids and max(values) >= len(classes):
            return "these look like labelIds; give --prediction-ids labelIds"
    for step, where in ((-1, "before"), (1, "behind")):
        if values - known and values <= {value + step for value in known}:
            return f"ids seem to begin one {where} the class table's {min(known)}; correct the ids of the class table"
    strange = ranges(sorted(values - known)[:20])
    return f"ids that are no class: {strange}; check --class-table against the ids that were written"


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
