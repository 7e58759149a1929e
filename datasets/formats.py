"""The data sets there are: every module of this folder with ``FORMATS`` registers those; opened by name."""

import os
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.classes import ClassTable
from segloss.datasets.labelled import label_part
from segloss.datasets.missing import NoDataError
from segloss.datasets.splits import VAL_SHARE
from segloss.errors import InputError, unknown_name

WITHOUT_FORMATS = ("formats", "namesake", "mirroring", "transforms")  # albumentations, of the last two, takes a second


def _registered() -> Iterator[tuple[str, Format]]:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in WITHOUT_FORMATS:
            known = import_module(f"segloss.datasets.{module.name}")
            yield from ((form.name, form) for form in getattr(known, "FORMATS", ()))


FORMATS: dict[str, Format] = dict(_registered())
DATASETS: tuple[str, ...] = tuple(FORMATS)
DATASET_HELP = ", ".join(f"{form.name} ({form.help})" for form in FORMATS.values())
TABLES: dict[str, ClassTable] = {name: table for form in FORMATS.values() for name, table in form.tables.items()}
OPTIONS_HELP: dict[str, str] = {name: text for form in FORMATS.values() for name, text in form.options.items()}


DEFAULT_COLUMNS = ("image", "label")


def build_dataset(
    name: str,
    root: str | Path | None,
    split: str,
    transform: Transform | None = None,
    *,
    val_share: float = VAL_SHARE,
    classes: int | None = None,
    image_column: str = "image",
    label_column: str = "label",
    subset: str | None = None,
    class_file: str | None = None,
    streaming: bool = False,
    lonely: bool = False,
) -> SegmentationDataset:
    """A split of a data set by name.

    Args:
        name: one of ``DATASETS``, in capitals or not.
        root: its folder; ``synthetic`` needs none, Cityscapes' default is ``$CITYSCAPES_DATASET``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.
        val_share: of ``folder`` without split folders.
        classes: of ``camvid``: 11 or 32.
        image_column, label_column, subset, class_file, streaming: of ``hf``
            (:func:`segloss.datasets.hugging_face.hugging_face`).
        lonely: leave out images without mask instead of refusing them.

    Raises:
        NoDataError: missing folder or class file.
        InputError: unknown name, missing or empty split, image without mask, ``labelled_classes.csv`` that does
            not fit.
    """
    form = FORMATS.get(name.lower())
    if form is None:
        raise unknown_name("dataset", name, DATASETS)
    if classes is not None and "classes" not in form.options:
        readers = " and ".join(other.name for other in FORMATS.values() if "classes" in other.options)
        what = f"only {readers} has a choice, {form.name} has the classes of its table"
        raise InputError(what, "leave it out", f"--classes {classes}")
    given: dict[str, Any] = {"image_column": image_column, "label_column": label_column}
    given |= {"subset": subset, "class_file": class_file, "streaming": streaming}
    for option, value in given.items():
        if option not in form.options and value not in (None, False, *DEFAULT_COLUMNS):
            flag = f"--{option.replace('_', '-')}"
            raise InputError(f"{flag} is not read with --dataset {form.name}", "leave it out, or choose hf")
    given |= {"val_share": val_share, "classes": classes}
    place = data_place(form.name, root)
    dataset = form.open(place, split, transform, **{name: given[name] for name in form.options})
    if val_share != VAL_SHARE and not dataset.found.by_hash and split in ("train", "val"):
        dataset.found.form += f"; --val-share {val_share:g} is not read: the splits are given"
    if place is not None and Path(place).is_dir():  # hf: it may be a name on the hub
        dataset.root = Path(place)
        label_part(dataset, dataset.root)
    if not lonely:
        dataset.check_partners()
    return dataset


def missing_place(form: Format) -> NoDataError:
    """For a data set of which nothing says where it lies."""
    also = f" (or ${form.variable})" if form.variable else ""
    others = "" if form.name == "folder" else "; for images of your own --dataset folder"
    return NoDataError(f"data set {form.name!r} needs --data-path{also}", f"give the folder that holds it{others}")


def data_place(name: str, root: str | Path | None) -> Path | str | None:
    """Where a data set's files lie: as given, else as its environment variable says; None of one that is made up.

    Raises:
        NoDataError: nothing says it.
    """
    form = FORMATS[name]
    if form.made_up:
        return None
    place = root or os.environ.get(form.variable or "") or None
    if place is None:
        raise missing_place(form)
    return str(place) if form.anywhere else Path(place)
