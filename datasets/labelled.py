"""Which classes each image labels: ``labelled_classes.csv`` in the data folder, or the last column of a list file.

::

    images,classes
    cityA/*,road;car
    night_*,road
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path, PureWindowsPath

import numpy as np

from segloss.datasets.base import SegmentationDataset
from segloss.datasets.classes import ignored_in
from segloss.datasets.finding import without_suffix
from segloss.datasets.folder import IMAGE_NAMES
from segloss.datasets.list_lines import read_list
from segloss.errors import InputError, unknown_name
from segloss.files import composed

FILE = "labelled_classes.csv"
AMERICAN = "labeled_classes.csv"  # the same file, as others spell it
HEADERS = ("classes", "class", "labels", "labelled_classes")  # above the second column
Rows = tuple[tuple[str, tuple[int, ...]], ...]  # pattern of names, class numbers


def read_labelled_classes(path: Path, class_names: Sequence[str]) -> Rows:
    """Rows of a pattern of image names (``*``, ``?``, ``[abc]``) and the classes that such images label.

    Args:
        path: a pattern a line and, behind it, names of classes; parted by commas, semicolons, ``|`` or tabs.
        class_names: those there are.

    Raises:
        InputError: it cannot be read, names a class that there is not, none at all, or a pattern twice.
    """
    try:
        table = list(csv.reader(read_list(path), skipinitialspace=True))
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", "see docs/data.md for its form", path) from error
    cells = [[part.strip() for cell in row for part in re.split(r"[;|\t]", cell) if part.strip()] for row in table]
    if cells and len(cells[0]) == 2 and cells[0][1].lower() in HEADERS and cells[0][1] not in class_names:
        cells = cells[1:]
    rows: dict[str, tuple[int, ...]] = {}
    for pattern, *names in (map(composed, row) for row in cells if row):
        unknown = next((name for name in names if name not in class_names), None)
        if unknown is not None:
            raise unknown_name("class", unknown, class_names, path)
        if not names or pattern in rows:
            what = f"lists {pattern} twice" if names else f"lists no class for {pattern}"
            raise InputError(what, "write one line of a pattern and its classes, as cityA/*,road;car", path)
        rows[pattern] = tuple(class_names.index(name) for name in names)
    return tuple(rows.items())


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern is that of an image, by its name or by the end of its path from a folder on.

    The pattern may have the ending of the file, and stand behind the folder of the images.

    >>> fits("images/night_*.png", "night_1"), fits("night_*", "day/night_1"), fits("night_1", "night_12")
    (True, True, False)
    """
    return _regex(pattern).match(name) is not None


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> "re.Pattern[str]":
    plain = PureWindowsPath(pattern).as_posix()
    parts = plain.split("/")
    inside = "/".join(parts[1:]) if len(parts) > 1 and parts[0].lower() in IMAGE_NAMES else plain
    forms = dict.fromkeys(form for path in (plain, inside) for form in (path, without_suffix(path)))
    return re.compile("|".join(f"(?:.*/)?{translate(form)}" for form in forms))


def called(dataset: SegmentationDataset, root: Path | None) -> list[tuple[str, ...]]:
    """What a pattern may fit of each image: its name, and its path below the data folder, of which a list's name may be
    but the last part.
    """
    if dataset.made_up or root is None:
        return [(name,) for name in dataset.names]
    images = [Path(str(image)) for image, _ in dataset.pairs]  # of a table's cell the words
    paths = (image.relative_to(root) if image.is_relative_to(root) else image for image in images)
    texts = [composed(path.with_suffix("").as_posix()) for path in paths]
    return [*zip(dataset.names, texts, strict=True)]


def class_masks(rows: Rows, names: Sequence[str | tuple[str, ...]], num_classes: int) -> np.ndarray:
    """bool ``(images, C)``: the classes of the first row that fits an image by one of its names; all where none does.

    >>> class_masks((("a*", (0,)),), ["a1", "b"], 2).tolist()
    [[True, False], [True, True]]
    """
    masks = np.ones((len(names), num_classes), dtype=bool)
    for place, name in enumerate(names):
        forms = (name,) if isinstance(name, str) else name
        found = next((classes for pattern, classes in rows if any(fits(pattern, form) for form in forms)), None)
        if found is not None:
            masks[place] = np.isin(np.arange(num_classes), found)
    return masks


@dataclass(frozen=True)
class Labelled:
    """What a data folder says of its images' labels.

    Attributes:
        path: of the file.
        rows: of it; none of a list.
        masks: bool ``(images, C)``, True for the classes that an image labels.
    """

    path: Path
    rows: Rows
    masks: np.ndarray

    @property
    def told(self) -> str:
        """How many images label a part of the classes, and what says so."""
        part = int((~self.masks.all(1)).sum())
        return f"{part} of {len(self.masks)} images label a part of the classes ({self.path.name})"

    @property
    def digest(self) -> str:
        """Of the masks, the same wherever the file lies."""
        return hashlib.sha256(self.masks.tobytes()).hexdigest()

    def of_image(self, classes: np.ndarray, place: int) -> np.ndarray:
        """A map of class numbers, labels or predictions, ignored where the image does not label the class."""
        mask = self.masks[place]
        if mask.all():
            return classes
        table = np.arange(np.iinfo(classes.dtype).max + 1, dtype=classes.dtype)
        table[: len(mask)][~mask] = ignored_in(len(mask))
        chosen: np.ndarray = table[classes]
        return chosen

    def of_histogram(self, counts: np.ndarray, place: int) -> np.ndarray:
        """Pixels of each class ``(C + 1,)``, those of classes that the image does not label among the ignored ones."""
        left_out = np.append(~self.masks[place], False)
        kept: np.ndarray = np.where(left_out, 0, counts)
        kept[-1] += counts[left_out].sum()
        return kept


def find_labelled(
    folders: Sequence[Path], names: Sequence[str | tuple[str, ...]], class_names: Sequence[str]
) -> Labelled | None:
    """What the first of the folders that has the file says of these images; None where none has it.

    Raises:
        InputError: as :func:`read_labelled_classes`.
    """
    places = (folder / name for folder in folders for name in (FILE, AMERICAN))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    rows = read_labelled_classes(path, class_names)
    return Labelled(path, rows, class_masks(rows, names, len(class_names)))


def label_part(dataset: SegmentationDataset, root: Path) -> None:
    """Tell a split which classes its images label, where the data folder or the list of the split says so.

    Raises:
        InputError: as :func:`read_labelled_classes`, or both say it.
    """
    names, found = dataset.classes.names, dataset.found
    dataset.labelled = find_labelled([root], called(dataset, root), names)
    if found.labelled:
        if dataset.labelled is not None:
            raise InputError(f"says which classes images label, and {FILE} too", "keep one of the two", found.lists)
        masks = np.array([[name in found.labelled.get(image, names) for name in names] for image in dataset.names])
        dataset.labelled = Labelled(found.lists, (), masks)
    if dataset.labelled is not None:
        found.form += f"; {dataset.labelled.told}"
