"""Hugging Face data sets: a name on the hub, a folder of ``save_to_disk``, Parquet files, or tar shards (webdataset).

Images and masks are columns of encoded images, or of arrays. Without ``--streaming`` the set is converted once into
Arrow files in Hugging Face's cache and mapped into memory; with it Parquet and tar files are read where they lie.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.cells import ArrowCells, Cell, Cells, ParquetCells, TarCells, hash_of
from segloss.datasets.class_files import read_class_file, said_otherwise
from segloss.datasets.classes import IGNORED_NAMES, ClassTable
from segloss.datasets.finding import image_files
from segloss.datasets.folder import CLASS_FILES
from segloss.datasets.images import read_header
from segloss.datasets.missing import MissingSplitError, NoDataError
from segloss.datasets.opening import Header
from segloss.datasets.pairing import Pairing
from segloss.datasets.splits import SPLIT_NAMES, VAL_SHARE, hash_split, splits_of
from segloss.errors import InputError, unknown_name

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset", ".json": "json", ".jsonl": "json"}
ON_DISK = ("dataset_dict.json", "state.json")  # what save_to_disk writes
NAMES_FILE = "id2label.json"  # where the hub's sets for segmentation keep their class names


def hugging_face(
    root: str,
    split: str,
    transform: Transform | None = None,
    val_share: float = VAL_SHARE,
    *,
    image_column: str = "image",
    label_column: str = "label",
    subset: str | None = None,
    class_file: str | None = None,
    streaming: bool = False,
) -> SegmentationDataset:
    """One split of a Hugging Face data set.

    Args:
        root: name on the hub, folder or file.
        split: ``train``, ``val`` or ``test`` by any of their names, or another one that there is.
        transform: as in :class:`SegmentationDataset`.
        val_share: where there is train alone: the share of its samples in ``val``, by a hash of their names.
        image_column, label_column: of images and masks; of tar shards the endings of the files (``jpg``, ``png``).
        subset: the configuration of a set on the hub that has several.
        class_file: names and ids of the classes; default: a class file in the folder, the ``ClassLabel`` of the label
            column, or ``id2label.json``.
        streaming: read Parquet and tar files where they lie, on the hub too.

    Raises:
        NoDataError: there is no such set, it names no classes, or the package ``datasets`` is missing.
        MissingSplitError: no such split.
        InputError: a column is missing, or several splits may be val.
    """
    if image_column == label_column:
        what = f"--image-column and --label-column are both {image_column}"
        raise InputError(what, "give the column of the masks", root)
    load = _stream if streaming else _load
    tables = load(root, subset, (image_column, label_column))
    several = _keys_of(tables, "val") if split in ("train", "val") and _keys_of(tables, "train") else []
    if len(several) > 1:
        what = f"has the splits {', '.join(tables)}, of which {' and '.join(several)} may be val"
        raise InputError(what, "save it with one of them called validation", root)
    alone = split in ("train", "val") and _key_of(tables, "val") is None and _key_of(tables, "train")
    key = alone or _key_of(tables, split)
    if key is None:
        there = f"there are {', '.join(tables)}" if len(tables) > 1 else f"there is {', '.join(tables)} alone"
        cure = f"choose another --split, or name the one that is meant {split}"
        raise MissingSplitError(f"split {split!r} is missing, {there}", cure, root)
    table = tables[key]
    classes, told, doubts = _classes(root, class_file, table.features.get(label_column))
    found = table.pairing(f"{root}/{key}", image_column, label_column)
    if alone and len(found.pairs) + len(found.lonely_images) < 2:
        raise InputError("is the only sample", "a training and a validation image are needed", f"{root}/{key}")
    if alone and len(found.pairs) > 1:
        chosen = {found.names[place] for place in hash_split(found.names, val_share)[split]}
        lonely = found.lonely_images  # of neither part: told of in both
        found = replace(found.only(chosen.__contains__), lonely_images=lonely, by_hash=True)
        others = [other for other in tables if not splits_of(other)]
        unread = f" ({', '.join(others)}: of neither)" if others else ""
        key += f", {val_share:.0%} of it for val by a hash of the name{unread}"
    found.form = (
        f"Hugging Face, {table.form}, {key}: {image_column}, {label_column}; {len(classes)} classes from {told}"
    )
    found.doubts += [*doubts, *_shards_not_there(Path(root))]
    kind = StreamedDataset if streaming else SegmentationDataset
    return kind("hf", split, found, classes, transform)


class StreamedDataset(SegmentationDataset):
    """Nothing is read before it is needed, as all of it may have to be fetched."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        cells = [image for image, _ in self.pairs if isinstance(image, Cell)]
        if cells and isinstance(cells[0].cells, ParquetCells):
            self.groups = torch.from_numpy(cells[0].cells.group_of([cell.row for cell in cells]))

    def headers(self) -> dict[Path, Header]:
        """Of the first image alone."""
        for path, _ in self.pairs[:1]:
            if path not in self._headers:
                with suppress(InputError):
                    self._headers[path] = read_header(path)
        return self._headers

    def check_files(self) -> None:
        """The doctor looks at a sample; the others are found out when they are read."""

    def images_digest(self) -> str:
        """Of the names alone."""
        return hashlib.sha256(repr(self.names).encode()).hexdigest()


class Table:
    """A split: its cells, and what is known of them without reading any.

    Attributes:
        columns: their names. features: of each column, as far as known.
    """

    def __init__(
        self,
        cells: Cells,
        length: int,
        columns: Sequence[str],
        features: Mapping[str, Any],
        form: str,
        names: Sequence[str] = (),
        missing: Callable[[str], Sequence[int]] = lambda column: (),
    ):
        self.cells, self.length, self.columns, self.features, self.form = cells, length, columns, features, form
        self.names = list(names) if len({*names}) == length else [f"{place:06d}" for place in range(length)]
        self.missing = missing

    def pairing(self, place: str, image: str, label: str) -> Pairing:
        """Samples with a mask as pairs, those without as lonely images; a split without any mask has none."""
        if not self.length:
            raise InputError("holds no rows", "choose another split, or write it anew", place)
        if image not in self.columns:
            raise unknown_name("--image-column", image, self.columns, place)
        if label not in self.columns and splits_of(Path(place).name) != ["test"]:
            raise unknown_name("--label-column", label, self.columns, place)
        empty = {*self.missing(label)} if label in self.columns else {*range(self.length)}
        images: dict[str, Path] = {
            name: Cell(f"{place}/{name}.{image}", self.cells, row, image) for row, name in enumerate(self.names)
        }
        if len(empty) == self.length:
            return Pairing("", [(path, None) for path in images.values()], self.names)
        have = [row for row in range(self.length) if row not in empty]
        names = [self.names[row] for row in have]
        masks = [Cell(f"{place}/{self.names[row]}.{label}", self.cells, row, label) for row in have]
        lonely = {self.names[row]: images[self.names[row]] for row in sorted(empty)}
        pairs: list[tuple[Path, Path | None]] = [(images[n], mask) for n, mask in zip(names, masks, strict=True)]
        return Pairing("", pairs, names, lonely, mask_place=Path(place))


MOST_SHARDS = 10**5  # that are looked for
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.(?:parquet|tar))")  # train-00000-of-00002.parquet


def _shards_not_there(root: Path) -> Iterator[InputError]:
    """A line for each set of shards in a folder that counts more of them than there are, as of a broken download."""
    there: dict[tuple[Path, str, str, str], set[int]] = {}
    for path in image_files(root, (".parquet", ".tar")) if root.is_dir() else ():
        if shard := SHARD.fullmatch(path.name):
            there.setdefault((path.parent, shard[1], shard[3], shard[4]), set()).add(int(shard[2]))
    for (folder, name, count, suffix), numbers in there.items():
        missing = [number for number in range(min(int(count), MOST_SHARDS)) if number not in numbers]
        if missing:
            what = f"is missing, and {len(missing) - 1} more of {int(count)}" if missing[1:] else "is missing"
            first = folder / f"{name}-{missing[0]:0{len(count)}}-of-{count}{suffix}"
            yield InputError(f"{what}: its samples are left out", "fetch it, or rename the others", first)


def _package() -> Any:
    """Hugging Face's ``datasets``; NoDataError where it is missing."""
    try:
        package = import_module("datasets")
    except ImportError as error:
        raise NoDataError(
            "Hugging Face's package datasets is missing", 'pip install "segloss-imbalanced[hf]"'
        ) from error
    if not sys.stderr.isatty():
        package.disable_progress_bars()
    return package


def _load(root: str, subset: str | None, columns: Sequence[str]) -> dict[str, Table]:
    package, place = _package(), Path(root)
    try:
        if any((place / name).is_file() for name in ON_DISK):
            loaded = package.load_from_disk(root)
        elif place.is_file():
            loaded = package.load_dataset(BUILDERS.get(place.suffix.lower(), "parquet"), data_files=_files(place))
        else:
            loaded = package.load_dataset(root, subset)
    except Exception as error:  # each builder raises its own
        raise _not_opened(root, error) from error
    splits = loaded if hasattr(loaded, "keys") else {_own_split(loaded, place): loaded}
    tables = {}
    for key, rows in splits.items():
        known = [column for column in columns if column in rows.column_names]
        cells = ArrowCells(rows.select_columns(known), hash_of(rows._fingerprint))
        tables[str(key)] = Table(
            *(cells, len(rows), rows.column_names, rows.features, "in Arrow files"),
            _names_of(rows, columns[0]),
            partial(_missing, rows),
        )
    return tables


def _files(file: Path) -> dict[str, str]:
    """One file as the split that its name speaks of; else it is all that there is, and is trained on."""
    return {_spoken(file.stem): str(file)}


def _spoken(name: str) -> str:
    splits = splits_of(name)
    return splits[0] if len(splits) == 1 else "train"


def _own_split(rows: Any, place: Path) -> str:
    """The split that rows are of which were saved alone, or a part of it (``validation[:100]``)."""
    said = re.fullmatch(r"(\w+)(\[.*\])?", str(rows.split or ""))
    return said[1] if said else _spoken(place.name)


def _not_opened(root: str, error: Exception) -> NoDataError:
    while (cause := error.__cause__) is not None and isinstance(cause, Exception):  # of "an error occurred"
        error = cause
    lines = [line for line in str(error).splitlines() if line.strip()]
    what = f"cannot be opened by Hugging Face's datasets: {lines[0].strip() if lines else type(error).__name__}"
    return NoDataError(what, "give a name on the hub, a folder of save_to_disk, or Parquet or tar files", root)


def _names_of(rows: Any, image: str) -> list[str]:
    """Of webdataset's keys, or the stems of the paths that are kept beside the images; none where there are none."""
    table = rows.data
    if rows._indices is not None:
        return []
    if "__key__" in rows.column_names:
        return [str(name) for name in table["__key__"].to_pylist()]
    kind = table[image].type if image in rows.column_names else None
    if kind is None or not hasattr(kind, "get_field_index") or kind.get_field_index("path") < 0:
        return []
    return _stems(path for chunk in table[image].chunks for path in chunk.field("path").to_pylist())


def _stems(paths: Iterable[str | None]) -> list[str]:
    return [Path(path).stem for path in paths if path]


def _missing(rows: Any, column: str) -> list[int]:
    values = rows.select_columns([column]).with_format("arrow")
    if values.data[column].null_count == 0 and rows._indices is None:
        return []
    return [row for row in range(len(rows)) if not values[row][column][0].is_valid]


def _stream(root: str, subset: str | None, columns: Sequence[str]) -> dict[str, Table]:
    package = _package()
    try:
        builder = package.load_dataset_builder(
            *((root, subset) if not Path(root).is_file() else (BUILDERS.get(Path(root).suffix.lower(), "parquet"),)),
            **({"data_files": _files(Path(root))} if Path(root).is_file() else {}),
        )
        files = {str(key): [str(url) for url in urls] for key, urls in builder.config.data_files.items()}
    except Exception as error:
        raise _not_opened(root, error) from error
    tables = {}
    for key, urls in files.items():
        ends = {Path(url).suffix.lower() for url in urls}
        if ends == {".parquet"}:
            rows = ParquetCells(urls, columns)
            features = dict(builder.info.features or {})
            names = _stems(rows.paths(columns[0]))
            tables[key] = Table(rows, len(rows), rows.every, features, "Parquet as it lies", names, rows.missing)
        elif ends == {".tar"}:
            shards = TarCells(urls, columns)
            tables[key] = Table(
                *(shards, len(shards), [*shards.endings], {}, "tar shards as they lie"), shards.names, shards.missing
            )
        else:
            what = f"--streaming reads Parquet and tar files, got {', '.join(sorted(ends))}"
            raise NoDataError(what, "leave --streaming out", root)
    return tables


def _key_of(tables: Mapping[str, Table], split: str) -> str | None:
    """The split by any of its names, else the one whose name speaks of it (``dev``, ``validation_matched``)."""
    keys = _keys_of(tables, split)
    return keys[0] if len(keys) == 1 else None


def _keys_of(tables: Mapping[str, Table], split: str) -> list[str]:
    """All that may be the split, where none has its very name."""
    names = SPLIT_NAMES.get(split, (split.lower(),))
    exact = [key for name in names for key in tables if key.lower() == name]
    return exact[:1] or [key for key in tables if splits_of(key) == [split]]


def _classes(root: str, class_file: str | None, feature: Any) -> tuple[ClassTable, str, list[InputError]]:
    """The class table, where it is from, and what other class files say."""
    there = [Path(root, name) for name in (*CLASS_FILES, NAMES_FILE) if Path(root, name).is_file()]
    if class_file is not None or there:
        path = Path(class_file) if class_file is not None else there[0]
        table = _read_names(path) if path.name == NAMES_FILE else read_class_file(path)
        return table, path.name, said_otherwise(table, path, there[1:]) if class_file is None else []
    while feature is not None and not hasattr(feature, "names"):
        feature = getattr(feature, "feature", None)
    if feature is not None and feature.names:
        return named_classes(feature.names), "its features", []
    try:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(root, NAMES_FILE, repo_type="dataset"))
    except Exception as error:  # not on the hub, no such file, no net
        cure = "give --class-file, or write classes.yaml into the folder"
        raise NoDataError("names no classes", cure, root) from error
    return _read_names(path), NAMES_FILE, []


def _read_names(path: Path) -> ClassTable:
    """``id2label.json``, in the folder or of the hub."""
    table = read_class_file(path)
    return named_classes(table.names, table.ids, table.ignore_ids)


def named_classes(names: Sequence[str], ids: Sequence[int] = (), ignored: Sequence[int] = ()) -> ClassTable:
    """Classes by their ids, by default their places; those named void or unlabeled are ignored, since names alone
    cannot say what is."""
    every = [*zip(names, ids or range(len(names)), strict=True)]
    kept = [pair for pair in every if pair[0].lower() not in IGNORED_NAMES]
    ignore_ids = (*ignored, *(number for name, number in every if name.lower() in IGNORED_NAMES))
    return ClassTable(tuple(name for name, _ in kept), tuple(i for _, i in kept), ignore_ids=ignore_ids)


FORMATS = (
    Format(
        "hf",
        "Hugging Face: hub name, folder, Parquet, tar",
        hugging_face,
        options={
            "val_share": "folder without split folders or lists, hf without val: share of images in val",
            "image_column": "hf: column of the images (of tar shards: their ending)",
            "label_column": "hf: column of the masks",
            "subset": "hf: configuration of a set on the hub that has several",
            "class_file": "hf: class file; default: in the folder, or from the features",
            "streaming": "hf: read Parquet and tar files where they lie, for sets larger than the disk",
        },
        anywhere=True,
    ),
)
