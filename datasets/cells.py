"""Images and masks that lie in tables and archives: each cell is read as if it were a file."""

import io
import os
import stat
import sys
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segloss.datasets.tiffs import TIFF_STARTS
from segloss.datasets.whole import JPEG_START, PNG_START
from segloss.errors import InputError

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # that of the system, which can be subclassed before Python 3.12

SHAPES = ((1,), (3,))  # of the bands of an array; of others nobody knows the order
KEPT_GROUPS = 4  # of rows, as many as a shuffled epoch takes at a time; each is some ten MB


class Cells(Protocol):
    """A table of encoded images.

    Attributes:
        stamp: changes with the files.
        streamed: nothing is read that is not asked for: the files may lie far away.
    """

    stamp: int
    streamed: bool

    def content(self, row: int, column: str) -> bytes:
        """InputError where it cannot be read; empty where there is nothing."""

    def length(self, row: int, column: str) -> int:
        """Bytes of the content; 0 where it would have to be read first."""


class Cell(_Path):
    """An image in a table. What reads, measures and checks files does the same with it.

    Args:
        name: for messages.
        cells, row, column: where it lies.
    """

    cells: Cells
    row: int
    column: str

    def __new__(cls, name: str, cells: Cells, row: int, column: str) -> "Cell":
        self = super().__new__(cls, name)
        self.cells, self.row, self.column = cells, row, column
        return self

    def __init__(self, name: str, cells: Cells, row: int, column: str):
        if sys.version_info >= (3, 12):
            super().__init__(name)

    def __reduce__(self) -> Any:
        return Cell, (str(self), self.cells, self.row, self.column)

    def read_bytes(self) -> bytes:
        return self.cells.content(self.row, self.column)

    def open(self, *args: Any, **options: Any) -> Any:
        return io.BytesIO(self.read_bytes())

    def stat(self, **options: Any) -> os.stat_result:
        times = {"st_mtime_ns": self.cells.stamp, "st_ctime_ns": self.cells.stamp}
        length = self.cells.length(self.row, self.column)
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, length, 0, 0, 0), times)

    def is_file(self, **options: Any) -> bool:
        """Not of streamed ones: what looks at all files leaves them alone."""
        return not self.cells.streamed

    @property
    def suffix(self) -> str:
        """By the first bytes, as names in tables often have none."""
        head = self.read_bytes()[: len(PNG_START)]
        kinds = {PNG_START: ".png", JPEG_START: ".jpg", **dict.fromkeys(TIFF_STARTS, ".tif")}
        return next((suffix for start, suffix in kinds.items() if head.startswith(start)), "")


def encoded(value: Any, where: str) -> bytes:
    """The bytes of an image of a table: its own, those of its file, or of an array of numbers as PNG."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and {*value} <= {"bytes", "path"}:
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        return Path(value["path"]).read_bytes() if value.get("path") else b""
    import cv2

    try:
        pixels = np.array(value)
        plain = pixels.astype(np.uint8 if pixels.max(initial=0) < 2**8 else np.uint16)
    except (TypeError, ValueError) as error:
        raise InputError("is no image and no array of numbers", "choose another column", where) from error
    shaped = pixels.size and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2:] in SHAPES))
    if pixels.dtype.kind not in "iub" or not shaped or not (plain == pixels).all():
        what = f"is an array {pixels.shape} of {pixels.dtype}"
        cure = "save whole numbers in 0..65535, (H, W), (H, W, 1) or (H, W, 3), other bands as TIFF"
        raise InputError(what, cure, where)
    return bytes(cv2.imencode(".png", plain[..., ::-1] if plain.ndim == 3 else plain)[1])


class ArrowCells:
    """Rows of a Hugging Face data set in Arrow files, mapped into memory.

    Args:
        rows: the data set.
        stamp: of its files.
    """

    streamed = False

    def __init__(self, rows: Any, stamp: int):
        self.rows, self.stamp = rows.with_format("arrow"), stamp

    def content(self, row: int, column: str) -> bytes:
        return encoded(self.rows[row][column][0].as_py(), f"row {row}, column {column}")

    def length(self, row: int, column: str) -> int:
        value = self.rows[row][column][0]
        try:
            return int(value["bytes"].as_buffer().size)
        except (KeyError, TypeError, AttributeError, ValueError):  # not kept so
            return len(self.content(row, column))


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    """The file; InputError for what cannot be read of it, whatever reads it."""
    import fsspec

    try:
        with fsspec.open(url, "rb").open() as handle:
            yield handle
    except InputError:
        raise
    except (OSError, ValueError, EOFError, NotImplementedError, tarfile.TarError) as error:  # pyarrow's are of these
        raise InputError(f"cannot be read: {' '.join(str(error).split())}", "write or fetch it anew", url) from error


def _stamp_of(urls: Sequence[str]) -> int:
    """Of local files by size and time, of others by their address, which names their version."""
    parts = [(url, Path(url).stat().st_mtime_ns, Path(url).stat().st_size) for url in urls if Path(url).is_file()]
    return hash_of(repr((parts, *urls)))


def hash_of(text: str) -> int:
    """63 bits, the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class ParquetCells:
    """Rows of Parquet files, read where they lie, a group of rows at a time.

    Attributes:
        every: the names of all columns.
        groups: rows of each group, in order; who reads them one after the other reads each group once.
    """

    streamed = True

    def __init__(self, urls: Sequence[str], columns: Sequence[str]):
        import pyarrow.parquet as parquet

        self.urls, self.columns, self.stamp = list(urls), list(columns), _stamp_of(urls)
        self.places: list[tuple[int, int]] = []  # file and group
        self.groups: list[int] = []
        self.nulls: list[dict[str, int]] = []  # of each group: rows without a value in a column
        for file, url in enumerate(urls):
            with _opened(url) as handle:
                table = parquet.ParquetFile(handle)
                metadata, self.every = table.metadata, [str(name) for name in table.schema_arrow.names]
            for group in range(metadata.num_row_groups):
                self.places.append((file, group))
                self.groups.append(metadata.row_group(group).num_rows)
                chunks = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]
                self.nulls.append(
                    {
                        chunk.path_in_schema.removesuffix(".bytes"): chunk.statistics.null_count
                        for chunk in chunks
                        if chunk.statistics is not None and chunk.statistics.has_null_count
                    }
                )
        self.ends = np.cumsum(self.groups)
        self._forget()

    def _forget(self) -> None:
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def paths(self, column: str) -> list[str | None]:
        """The names that were kept beside images, if any; the images are not read."""
        import pyarrow.parquet as parquet

        leaf, found = f"{column}.path", []
        for url in self.urls:
            with _opened(url) as handle:
                table = parquet.ParquetFile(handle)
                if leaf in [table.schema.column(place).path for place in range(len(table.schema))]:
                    found += [cell and cell["path"] for cell in table.read([leaf])[column].to_pylist()]
        return found

    def group_of(self, rows: Sequence[int]) -> np.ndarray:
        """Which group each row is in."""
        return np.searchsorted(self.ends, rows, side="right")

    def length(self, row: int, column: str) -> int:
        return 0

    def content(self, row: int, column: str) -> bytes:
        group = int(self.group_of([row])[0])
        with self._lock:
            values = self._group(group, column)
        return encoded(values[row - int(self.ends[group]) + self.groups[group]].as_py(), f"row {row}, column {column}")

    def _group(self, group: int, column: str) -> Any:
        import pyarrow.parquet as parquet

        kept = self._kept.get((group, column))
        if kept is None:
            file, place = self.places[group]
            with _opened(self.urls[file]) as handle:
                kept = parquet.ParquetFile(handle).read_row_group(place, [column])[column]
            self._kept[group, column] = kept
            while len(self._kept) > KEPT_GROUPS * len(self.columns):
                self._kept.popitem(last=False)
        return kept

    def __len__(self) -> int:
        return sum(self.groups)

    def missing(self, column: str) -> list[int]:
        """Rows without a value, as far as the files' own statistics tell."""
        found: list[int] = []
        for group, start in enumerate((self.ends - self.groups).tolist()):
            if self.nulls[group].get(column) == self.groups[group]:
                found += range(start, start + self.groups[group])
            elif self.nulls[group].get(column):
                found += [start + place for place, value in enumerate(self._group(group, column)) if not value.is_valid]
        return found


class TarCells:
    """Samples of tar shards (webdataset): files of one name and several endings; read where they lie.

    Attributes:
        names: of the samples.
    """

    streamed = True

    def __init__(self, urls: Sequence[str], columns: Sequence[str]):
        self.urls, self.stamp = list(urls), _stamp_of(urls)
        self.names: list[str] = []
        self.places: list[dict[str, tuple[int, int, int]]] = []  # of each ending: file, first byte, length
        self.endings: dict[str, None] = {}
        for file, url in enumerate(urls):
            rows: dict[str, int] = {}  # of this shard: others may count from 0 too
            again: list[tuple[str, int, int]] = []
            for name, ending, start, length in _members(url):
                if not rows or self.names[-1] != name:
                    row = len(self.names)
                    if rows.setdefault(name, row) != row:
                        again.append((name, rows[name], row))
                    self.names.append(name)
                    self.places.append({})
                self.endings[ending] = None
                if ending in columns:
                    self.places[-1][ending] = (file, start, length)
            for name, first, row in again:
                if {*self.places[first]} != {*self.places[row]}:  # else a sample of its own
                    cure = "write the shard sorted by name"
                    raise InputError(f"the files of sample {name} do not lie together", cure, url)

    def __len__(self) -> int:
        return len(self.names)

    def content(self, row: int, column: str) -> bytes:
        if column not in self.places[row]:
            return b""
        file, start, length = self.places[row][column]
        with _opened(self.urls[file]) as handle:
            handle.seek(start)
            return bytes(handle.read(length))

    def length(self, row: int, column: str) -> int:
        return self.places[row].get(column, (0, 0, 0))[2]

    def missing(self, column: str) -> list[int]:
        return [row for row, place in enumerate(self.places) if column not in place]


def _members(url: str) -> Iterator[tuple[str, str, int, int]]:
    """Name, ending, first byte and length of each file of a shard; the ending begins at the first dot."""
    with _opened(url) as handle, tarfile.open(fileobj=handle, mode="r:") as shard:
        for member in shard:
            folder, slash, last = member.name.rpartition("/")
            if member.isfile() and not last.startswith("."):
                stem, _, ending = last.partition(".")
                yield folder + slash + stem, ending.lower(), member.offset_data, member.size
