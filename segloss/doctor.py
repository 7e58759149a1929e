"""Looks at a data set before training does: what is wrong, where, and the cure.

python -m segloss.doctor --dataset folder --data-path DIR --check all --output doctor.html

An error means that training or scores would be wrong (exit status 1), a warning that somebody should look.
"""

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from segloss.config import DoctorConfig
from segloss.datasets import MissingSplitError, NoDataError, SegmentationDataset
from segloss.datasets.base import size_mismatch
from segloss.datasets.classes import IGNORED_NAMES, STRAY
from segloss.datasets.images import is_deep, read_header, read_image
from segloss.datasets.masks import CORRECT, class_histogram, describe_strays, lookup, other_palette, read_mask
from segloss.datasets.tables import CITYSCAPES, TRAIN_IDS
from segloss.errors import InputError
from segloss.flags import parse_config
from segloss.losses.reduction import IGNORE_INDEX
from segloss.pixel_counts import available_cores

SAMPLE = 16  # files of each split that `--check sample` decodes
MOSTLY_IGNORED = 0.8
SMALLEST_FILE = 2**12  # bytes that may all be headers
ENDS = 2**16  # bytes at either end of a file that tell files of one size apart
BLACK_AND_WHITE = {0, 255}  # ids of a mask that a drawing program saved
MOST_LINES = 5  # on stray values of one split that have no common cause
NUMBER = re.compile(r"(\d+)")

Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class Finding:
    """One fault: where and what in one line, and the cure."""

    severity: str  # "error" or "warning"
    split: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.split}: {self.what}" + (f"; {self.cure}" if self.cure else "")

    @classmethod
    def of(cls, split: str, error: InputError) -> "Finding":
        """An error of the loaders; what follows its last semicolon is the cure."""
        what, _, cure = str(error).rpartition("; ")
        return cls("error", split, what or cure, cure if what else "")


@dataclass
class PairFacts:
    """What one image and its mask look like."""

    faults: list[tuple[str, str, str, str]] = field(default_factory=list)  # kind, severity, what, cure
    values: frozenset[int] = frozenset()  # ids in the mask file
    histogram: np.ndarray | None = None  # (C + 1,), the ignored pixels last
    digest: str = ""

    def add(self, kind: str, error: InputError, severity: str = "error") -> None:
        found = Finding.of("", error)
        self.faults.append((kind, severity, found.what, found.cure))

    def has(self, kind: str) -> bool:
        return any(fault[0] == kind for fault in self.faults)


@dataclass
class SplitFacts:
    """One split and everything found in it."""

    dataset: SegmentationDataset
    places: list[int]
    pairs: list[PairFacts]

    @property
    def histogram(self) -> np.ndarray:
        zero = np.zeros(len(self.dataset.classes) + 1, dtype=np.int64)
        return sum((facts.histogram for facts in self.pairs if facts.histogram is not None), zero)

    @property
    def values(self) -> set[int]:
        return set().union(*(facts.values for facts in self.pairs))

    def masks_where(self, fits: Callable[[frozenset[int]], bool]) -> list[Path | None]:
        """The mask files whose ids fit."""
        pairs = zip(self.places, self.pairs, strict=True)
        return [self.dataset.pairs[place][1] for place, facts in pairs if fits(facts.values)]


def examine(
    datasets: Sequence[SegmentationDataset], check: str = "all", progress: Progress | None = None
) -> tuple[list[Finding], list[SplitFacts]]:
    """Everything wrong with the splits of a data set.

    Args:
        datasets: the splits, built with ``lonely=True`` so that what does not pair is seen here.
        check: ``"all"`` decodes every file; ``"sample"`` 16 of each split, and looks at the names of all and, for
            images that occur twice, at both ends of files of one length.
        progress: wraps the iteration over the files.

    Returns:
        Findings, errors first, and the facts of each split.
    """
    splits = [_examine_split(dataset, check, progress) for dataset in datasets]
    findings: list[Finding] = []
    for facts in splits:
        findings += _unpaired(facts.dataset)
        findings += _faults_of_files(facts)
        findings += _label_map(facts, check)
    findings += _same_images(splits, check)
    findings += _neighbours(datasets)
    return sorted(findings, key=lambda finding: finding.severity != "error"), splits


def _examine_split(dataset: SegmentationDataset, check: str, progress: Progress | None) -> SplitFacts:
    count = len(dataset) if check == "all" else min(SAMPLE, len(dataset))
    places = [(2 * k + 1) * len(dataset) // (2 * count) for k in range(count)]
    pool = ThreadPoolExecutor(available_cores())
    try:
        results: Iterable[PairFacts] = pool.map(lambda place: examine_pair(dataset, place, check == "all"), places)
        return SplitFacts(dataset, places, list(progress(results, count) if progress else results))
    finally:
        pool.shutdown(cancel_futures=True)


def examine_pair(dataset: SegmentationDataset, place: int, digest: bool = False) -> PairFacts:
    """Read one image and its mask, and note what is wrong instead of raising."""
    image_path, mask_path = dataset.pairs[place]
    facts, image, mask = PairFacts(), None, None
    try:
        image = read_image(image_path)
        if read_header(image_path)[2] != 1:
            turned = InputError(f"{image_path}: is turned by its EXIF orientation, masks are not; save it upright")
            facts.add("orientation", turned, "warning")
        if is_deep(image_path):
            deep = InputError(f"{image_path}: has 16 bits, of which the upper 8 are read; scale it to 8 bits")
            facts.add("depth", deep, "warning")
        if digest:
            facts.digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() + str(image.shape)
    except InputError as error:
        facts.add("image", error)
    if mask_path is None:
        return facts
    try:
        mask = read_mask(mask_path)
    except InputError as error:
        facts.add("mask", error)
        return facts
    if image is not None and image.shape[:2] != mask.shape[:2]:
        facts.add("size", size_mismatch(mask_path, mask.shape, image_path, image.shape))
    labels = lookup(mask, dataset.classes)
    if mask.ndim == 2:
        facts.values = frozenset(np.unique(mask).tolist())
        if other_palette(mask_path, mask, dataset.classes):
            text = "its palette shows other classes than its indices; give each class its id in the class file"
            facts.add("palette", InputError(f"{mask_path}: {text}"))
    stray = labels == STRAY
    if stray.any():
        what, cure = describe_strays(mask, stray, dataset.classes)
        facts.faults.append(("stray", "error", f"{mask_path}: {what}", cure))
    facts.histogram = class_histogram(labels, len(dataset.classes))  # of stray pixels nothing is known
    return facts


def _unpaired(dataset: SegmentationDataset) -> list[Finding]:
    found = dataset.found
    findings = []
    for severity, files, what, cure in (
        ("error", found.lonely_images, f"image without mask in {found.mask_place}", "add the mask or remove the image"),
        ("warning", found.lonely_masks, "mask without image, passed over", "add the image or remove the mask"),
    ):
        if files:
            first = next(iter(files.values()))
            findings.append(Finding(severity, dataset.split, f"{first}: {what}{_more(files)}", cure))
    return findings


def _more(files: Sized) -> str:
    return f" (and {len(files) - 1} more files)" if len(files) > 1 else ""


def _faults_of_files(facts: SplitFacts) -> list[Finding]:
    """One finding per kind of fault and cure: the first file, and how many more.

    Stray values that have no common cause are told apart, up to ``MOST_LINES`` of them.
    """
    kinds: dict[tuple, list[tuple[str, str, str, str]]] = defaultdict(list)
    for pair in facts.pairs:
        for kind, severity, what, cure in pair.faults:
            single = kind == "stray" and cure.startswith(CORRECT)
            values = what.rpartition(": ")[2].partition(" on ")[0] if single else ""
            few = sum(bool(key[2]) for key in kinds) < MOST_LINES or (kind, cure, values) in kinds
            kinds[kind, cure, values if few else ""].append((kind, severity, what, cure))
    return [
        Finding(faults[0][1], facts.dataset.split, f"{faults[0][2]}{_more(faults)}", faults[0][3])
        for faults in kinds.values()
    ]


def _label_map(facts: SplitFacts, check: str) -> list[Finding]:
    """Faults that show only in what all masks hold together."""
    dataset, counts = facts.dataset, facts.histogram
    split, seen = dataset.split, f"the {len(facts.pairs)} masks examined"
    findings = []
    if dataset.has_labels and counts.sum() and not any(pair.has("stray") for pair in facts.pairs):
        findings += _classes_present(facts, check, seen) + _black_and_white(facts) + _train_ids(facts, seen)
        if counts[-1] > MOSTLY_IGNORED * counts.sum():
            what = f"{counts[-1] / counts.sum():.0%} of the pixels are ignored in {seen}"
            findings.append(Finding("warning", split, what, "check the ids under ignore in the class file"))
    void = [name for name in dataset.classes.names if name.lower() in IGNORED_NAMES]
    if void and dataset.has_labels:
        what = f"class {void[0]!r} is trained and scored like any other"
        findings.append(Finding("warning", split, what, "put its id under ignore in the class file"))
    return findings


def _classes_present(facts: SplitFacts, check: str, seen: str) -> list[Finding]:
    names, split = facts.dataset.classes.names, facts.dataset.split
    present = [name for name, pixels in zip(names, facts.histogram[:-1], strict=True) if pixels]
    if len(present) < 2:
        what = f"only {present[0] if present else 'ignored pixels'} in {seen}"
        if facts.values == BLACK_AND_WHITE:
            what = f"{facts.masks_where(lambda values: IGNORE_INDEX in values)[0]}: {what}, which hold 0 and 255 alone"
            cure = "save masks as 0 and 1, or give the second class id: 255 in the class file"
            return [Finding("error", split, what, cure)]
        # A rare class may be in none of a sample, and in none of a small split.
        severity = "error" if split == "train" and check == "all" else "warning"
        cure = "check the ids in the class file" + ("" if check == "all" else ", or look at all with --check all")
        return [Finding(severity, split, what, cure)]
    if check == "all" and len(present) < len(names):
        absent = [name for name in names if name not in present]
        what = f"no pixel of {', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''}"
        return [Finding("warning", split, what, "check the class file, or accept that they are not scored")]
    return []


def _black_and_white(facts: SplitFacts) -> list[Finding]:
    """Masks of 0 and 255 among masks of 0 and 1: their second class would be ignored."""
    files = facts.masks_where(lambda values: values == BLACK_AND_WHITE)
    others = [pair.values for pair in facts.pairs if pair.values and pair.values != BLACK_AND_WHITE]
    if len(facts.dataset.classes) > 2 or IGNORE_INDEX in facts.dataset.classes.ids or not files or not others:
        return []
    if any(IGNORE_INDEX in values for values in others) or not any(values - {0} for values in others):
        return []  # 255 is ignored elsewhere too; or nothing else is there, which is said already
    what = f"{files[0]}: holds 0 and 255 alone{_more(files)}, while other masks hold {_listed_ids(others)}"
    cure = "save 255 as the second class, or --check off if it is meant to be ignored"
    return [Finding("error", facts.dataset.split, what, cure)]


def _listed_ids(values: list[frozenset[int]]) -> str:
    return " and ".join(map(str, sorted(set().union(*values))))


def _train_ids(facts: SplitFacts, seen: str) -> list[Finding]:
    """Cityscapes' trainIds under the name of labelIds."""
    classes, plain = facts.dataset.classes, facts.values - {IGNORE_INDEX}
    if classes.ids != CITYSCAPES.ids or classes.mask_ids == TRAIN_IDS or len(plain) <= 3 or max(plain) > 18:
        return []
    what = f"no id above 18 in {seen}: these are trainIds, read as labelIds"
    return [Finding("error", facts.dataset.split, what, "name trainId masks *_labelTrainIds.png")]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.sha1).hexdigest() if hasattr(hashlib, "file_digest") else _sha1(file)


def _sha1(file: BinaryIO) -> str:
    digest = hashlib.sha1()
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def _ends_digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha1(file.read(ENDS))
        file.seek(max(0, path.stat().st_size - ENDS))
        digest.update(file.read())
    return digest.hexdigest()


def _alike(members: list[tuple[str, Path]], mark: Callable[[Path], object]) -> list[list[tuple[str, Path]]]:
    """The files that share a mark with another."""
    groups: dict[object, list[tuple[str, Path]]] = defaultdict(list)
    for split, path in members:
        with suppress(OSError):  # a file that cannot be read is a finding of its own, where it is examined
            groups[mark(path)].append((split, path))
    return [group for group in groups.values() if len(group) > 1]


def _same_images(splits: Sequence[SplitFacts], check: str) -> list[Finding]:
    """Images that occur twice: by their pixels where all were decoded, else by file size and both ends of the file."""
    if check == "all":
        marks = {
            facts.dataset.pairs[place][0]: pair.digest
            for facts in splits
            for place, pair in zip(facts.places, facts.pairs, strict=True)
            if pair.digest
        }
        decoded = [(s.dataset.split, path) for s in splits for path, _ in s.dataset.pairs if path in marks]
        groups = _alike(decoded, marks.__getitem__)
    else:  # ever dearer looks at ever fewer files
        groups = [[(s.dataset.split, path) for s in splits for path, _ in s.dataset.pairs if path.is_file()]]
        for mark in (lambda path: path.stat().st_size, _ends_digest, _file_digest):
            groups = [alike for group in groups for alike in _alike(group, mark)]
    groups = [group for group in groups if not _is_blank(group[0][1])]
    twins: dict[tuple[str, ...], list[tuple[Path, Path]]] = defaultdict(list)
    for members in groups:
        (split, path), (other, twin) = members[0], members[-1]
        twins[(other, split) if other != split else (split,)].append((path, twin))
    findings = []
    for names, pairs in twins.items():
        first, second = pairs[0]
        severity, cure = ("error", "keep each image in one split") if len(names) == 2 else ("warning", "remove one")
        what = f"{second}: the same image as {first}{f' of {names[1]}' if len(names) == 2 else ''}{_more(pairs)}"
        findings.append(Finding(severity, names[0], what, cure))
    return findings


def _is_blank(path: Path) -> bool:
    """Of one colour, as tiles at the edge of a scan are: no evidence of anything."""
    try:
        height, width, _ = read_header(path)
        if path.stat().st_size > SMALLEST_FILE + height * width / 16:  # compressed, one colour takes less: not decoded
            return False
        image = read_image(path)
    except (InputError, OSError):
        return False
    return bool((image == image[0, 0]).all())


def _frames(datasets: Sequence[SegmentationDataset]) -> list[dict[str, dict[int, int]]]:
    """Of each data set: sequence -> number of the frame -> place.

    The frame's number is the last in a name that differs between names alike in all but numbers: in
    ``drive_0001_cam2`` it is 1, unless there are more cameras.
    """
    numbers: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for name in (name for dataset in datasets for name in dataset.names):
        parts = NUMBER.split(name)
        numbers[tuple(parts[::2])].append(tuple(parts[1::2]))
    columns = {}
    for texts, rows in numbers.items():
        differing = [place for place, column in enumerate(zip(*rows, strict=True)) if len({*column}) > 1]
        columns[texts] = differing[-1] if differing else len(rows[0]) - 1
    found = []
    for dataset in datasets:
        sequences: dict[str, dict[int, int]] = defaultdict(dict)
        for place, name in enumerate(dataset.names):
            parts = NUMBER.split(name)
            if len(parts) > 1:
                at = 2 * columns[tuple(parts[::2])] + 1
                sequences["".join([*parts[:at], "#", *parts[at + 1 :]])][int(parts[at])] = place
        found.append(sequences)
    return found


def _neighbours(datasets: Sequence[SegmentationDataset]) -> list[Finding]:
    """Frames of val or test next to a training frame of the same sequence that look alike."""
    train = next((dataset for dataset in datasets if dataset.split == "train"), None)
    if train is None:
        return []
    frames = _frames(datasets)
    known = frames[list(datasets).index(train)]
    findings = []
    for dataset, sequences in zip(datasets, frames, strict=True):
        pairs = [] if dataset is train else _adjacent(known, sequences)
        if pairs and _look_alike(train, dataset, pairs):
            ours, theirs = dataset.names[pairs[0][1]], train.names[pairs[0][0]]
            what = f"{ours}: a neighbouring frame of {theirs} in train; {len(pairs)} of {len(dataset)} images have one"
            findings.append(Finding("warning", dataset.split, what, "split by sequence, or read the scores with care"))
    return findings


def _adjacent(train: dict[str, dict[int, int]], other: dict[str, dict[int, int]]) -> list[tuple[int, int]]:
    """(place in train, place in the other split) of frames with none between them and at most the usual step apart."""
    pairs = []
    for sequence in sorted(set(train) & set(other)):
        numbers = sorted({*train[sequence], *other[sequence]})
        step = max(_usual_step(train[sequence]), _usual_step(other[sequence]))
        for low, high in pairwise(numbers):
            for a, b in ((low, high), (high, low)):
                if a in train[sequence] and b in other[sequence] and high - low <= step:
                    pairs.append((train[sequence][a], other[sequence][b]))
    return list({other: (one, other) for one, other in pairs}.values())


def _usual_step(frames: Iterable[int]) -> float:
    steps = np.diff(sorted(frames))
    return float(np.median(steps)) if len(steps) else 0.0


def _look_alike(train: SegmentationDataset, other: SegmentationDataset, pairs: list[tuple[int, int]]) -> bool:
    """Whether neighbours differ by less than half of what images of the two splits usually do; by thumbnails."""
    some = pairs[:: max(1, len(pairs) // SAMPLE)][:SAMPLE]
    try:
        ours = np.stack([_thumbnail(train.read_image(a)) for a, _ in some])
        theirs = np.stack([_thumbnail(other.read_image(b)) for _, b in some])
        spread = max(1, len(train) // SAMPLE)
        any_of_train = np.stack([_thumbnail(train.read_image(a)) for a in range(0, len(train), spread)])
    except InputError:
        return False  # already among the findings
    near = np.abs(ours - theirs).mean((1, 2))
    usual = np.abs(any_of_train[:, None] - theirs[None]).mean((2, 3))
    return float(np.median(near)) < 0.5 * float(np.median(usual))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    return grey.astype(np.float32)


def check_before(datasets: Sequence[SegmentationDataset], check: str, say: Callable[[str], None] = print) -> None:
    """The first step of training and evaluation: warnings are said, errors refused.

    Raises:
        InputError: the first error, and how to see all of them.
    """
    made_up = all(dataset.name == "synthetic" for dataset in datasets)
    if check == "off" or made_up:
        return
    findings, _ = examine(datasets, check)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings[len(errors) :]:
        say(f"warning: {finding}")
    if errors:
        more = f" ({len(errors) - 1} more: python -m segloss.doctor lists all)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0].split}: {errors[0].what}{more}; {errors[0].cure}")


def open_splits(config: DoctorConfig) -> tuple[list[SegmentationDataset], list[Finding]]:
    """The splits there are, and an error for each that cannot be built at all."""
    datasets, findings = [], []
    for split in ("train", "val", "test"):
        try:
            datasets.append(config.open(split, lonely=True))
        except NoDataError:
            raise  # no split is at fault
        except InputError as error:
            if split != "test" or not isinstance(error, MissingSplitError):
                findings.append(Finding.of(split, error))
    return datasets, findings


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.doctor``: print the findings and a table of the splits; status 1 if there is an error."""
    from segloss.report import console, print_findings, progress_bar

    config = parse_config(DoctorConfig, "python -m segloss.doctor", argv)
    if config.dataset == "synthetic":
        raise InputError("the made-up streets have no files to examine; choose another --dataset")
    datasets, findings = open_splits(config)
    found, splits = examine(datasets, config.check, progress_bar("examining"))
    findings = sorted([*findings, *found], key=lambda finding: finding.severity != "error")
    rows = [describe_split(facts) for facts in splits]
    print_findings(findings, rows)
    if config.output:
        write_doctor_page(Path(config.output), config, findings, rows, splits)
        console.print(f"page: {config.output}", soft_wrap=True)
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


def describe_split(facts: SplitFacts) -> dict[str, str]:
    """The row of a split in the tables."""
    counts, labelled = facts.histogram, facts.dataset.has_labels
    return {
        "name": facts.dataset.split,
        "images": f"{len(facts.dataset):,}",
        "examined": f"{len(facts.pairs):,}",
        "present": f"{int((counts[:-1] > 0).sum())} of {len(facts.dataset.classes)}" if labelled else "-",
        "ignored": f"{counts[-1] / max(1, counts.sum()):.1%}" if labelled else "-",
        "form": facts.dataset.found.form,
    }


def write_doctor_page(
    path: Path, config: DoctorConfig, findings: list[Finding], rows: list[dict], splits: list[SplitFacts]
) -> None:
    """The findings, the table of splits, and labels painted over some images of each."""
    from segloss.pages import data_uri, overlay, write_page

    pictures = []
    for facts in splits if config.overlays else ():
        dataset = facts.dataset
        for place in facts.places[:: max(1, len(facts.places) // config.overlays)][: config.overlays]:
            try:
                image, labels = dataset.read_pair(place)
            except InputError:
                continue  # among the findings
            if labels is not None:
                uri = data_uri(overlay(image, labels, dataset.classes.colors))
                pictures.append({"uri": uri, "name": dataset.names[place], "split": dataset.split})
    tables = [facts.dataset.classes for facts in splits[:1]]  # none where no split can be read
    try:
        write_page(
            path,
            "doctor.html",
            title=f"{config.dataset}: {Path(config.data_path).name if config.data_path else 'data set'}",
            findings=findings,
            errors=sum(finding.severity == "error" for finding in findings),
            examined=f"{sum(len(facts.pairs) for facts in splits):,} images and their masks read ({config.check}).",
            splits=rows,
            legend=[pair for table in tables for pair in zip(table.names, table.colors, strict=True)],
            pictures=pictures,
        )
    except OSError as error:
        raise InputError(f"--output {path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    from segloss.errors import exit_on_input_error

    exit_on_input_error(main)
