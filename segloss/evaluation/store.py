"""The results of an evaluation on disk: a killed one leaves whole images only, and the next goes on where it stopped.

They are streamed into one SQLite file, so that memory does not grow with the number of images.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segloss.errors import InputError
from segloss.evaluation.results import ImageResult

COUNTED_AS = 5  # raise it when the same image would be counted otherwise: older results are not gone on from
AT_ONCE = 64  # images a transaction
Row = tuple[int, str, bytes, int]  # place, name, result and checksum of an image


class Results:
    """The results of an evaluation that has ended, read from its file; not while another process writes there.

    Args:
        path: the SQLite file.
        whole: look at every result first.

    Attributes:
        about: what the results are of, as :meth:`ResultStore.note` kept it.

    Raises:
        InputError: there are none, or they are damaged.
    """

    def __init__(self, path: Path, whole: bool = True):
        self.path = path
        try:
            self.connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
            try:
                if whole:
                    self._require_whole()
                self.about = {name: json.loads(content) for name, content in self._select("* FROM about")}
            except BaseException:
                self.connection.close()
                raise
        except sqlite3.Error as error:
            locked = "locked" in str(error)
            cure = "wait for its job to end" if locked else "give stores that --shard wrote, or score that share again"
            raise InputError(f"cannot be read as results: {error}", cure, path) from error

    def _select(self, what: str, *values: object) -> sqlite3.Cursor:
        return self.connection.execute(f"SELECT {what}", values)

    def _require_whole(self) -> None:
        """sqlite3.DatabaseError for a damaged file; SQLite alone would not see a changed byte of a result."""
        if self.connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        for place, name, content, checksum in self._select("* FROM results"):
            if not isinstance(content, bytes) or checksum != _checksum(place, name, content):
                raise sqlite3.DatabaseError("damaged")

    def __enter__(self) -> "Any":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def names(self) -> set[str]:
        """Of the images that are done."""
        return {name for (name,) in self._select("name FROM results")}

    def batches(self) -> Iterator[list[Row]]:
        """All rows in the order of their places, a few at once."""
        rows = self._select("* FROM results ORDER BY place")
        while some := rows.fetchmany(AT_ONCE):
            yield some

    def result(self, name: str) -> ImageResult:
        ((content,),) = self._select("result FROM results WHERE name = ?", name)
        return ImageResult.from_bytes(name, content)

    def __iter__(self) -> Iterator[ImageResult]:
        for name, content in self._select("name, result FROM results ORDER BY place"):
            yield ImageResult.from_bytes(name, content)

    def __len__(self) -> int:
        return int(self._select("COUNT(*) FROM results").fetchone()[0])


class ResultStore(Results):
    """The results of one evaluation on disk, by name of the sample; one evaluation at a time holds the file.

    Args:
        path: the SQLite file; made if need be. A damaged one is begun anew.
        key: what the results depend on (model, data, options); results under another key are dropped.

    Raises:
        InputError: the file cannot be written, or another evaluation holds it.
    """

    def __init__(self, path: Path, key: dict[str, Any]):
        self.path = path
        content = json.dumps({**key, "counted_as": COUNTED_AS}, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(content)
            except sqlite3.DatabaseError as error:
                if any(word in str(error) for word in ("locked", "full", "unable to open")):
                    raise
                for name in (path.name, f"{path.name}-journal"):  # no results of ours: begin anew
                    path.with_name(name).unlink(missing_ok=True)
                self._open(content)
        except (OSError, sqlite3.Error) as error:
            if "locked" in str(error):
                cure = "another evaluation is writing there; wait for it or choose another --output-dir"
            else:
                cure = "choose another --output-dir"
            raise InputError(f"cannot be written: {error}", cure, path) from error

    def _open(self, key: str) -> None:
        self.connection = sqlite3.connect(self.path, timeout=1)  # seconds; who holds the file holds it for long
        try:
            with self.connection as c:
                c.execute("PRAGMA locking_mode = EXCLUSIVE")  # two evaluations would mix their results
                c.execute("BEGIN EXCLUSIVE")
                c.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT)")
                c.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, content TEXT)")
                columns = "place INTEGER PRIMARY KEY, name TEXT UNIQUE, result BLOB, checksum INTEGER"
                c.execute(f"CREATE TABLE IF NOT EXISTS results ({columns})")
                self._require_whole()
                if c.execute("SELECT key FROM meta").fetchall() != [(key,)]:
                    for table in ("meta", "about", "results"):
                        c.execute(f"DELETE FROM {table}")
                    c.execute("INSERT INTO meta VALUES (?)", (key,))
        except BaseException:
            self.connection.close()
            raise

    def add_all(self, results: Iterable[tuple[int, ImageResult]]) -> None:
        """Write (place, result) as they come, whole transactions of a few images; also what came before an error."""
        batch: list[Row] = []
        try:
            for place, result in results:
                batch.append(row_of(place, result.name, result.to_bytes()))
                if len(batch) == AT_ONCE:
                    self.add_rows(batch)
                    batch = []
        finally:
            self.add_rows(batch)

    def add_rows(self, rows: Iterable[Row]) -> None:
        """In one transaction."""
        self._write("results VALUES (?, ?, ?, ?)", rows)

    def note(self, **about: Any) -> None:
        """Keep what the results are of, as JSON, for :attr:`Results.about`."""
        self._write("about VALUES (?, ?)", [(name, json.dumps(content)) for name, content in about.items()])

    def clear(self) -> None:
        with self.connection as c:
            c.execute("DELETE FROM results")

    def _write(self, into: str, rows: Iterable[tuple[object, ...]]) -> None:
        try:
            with self.connection as c:
                c.executemany(f"INSERT OR REPLACE INTO {into}", rows)
        except sqlite3.OperationalError as error:  # the disk is full
            raise InputError(f"cannot be written: {error}", "choose another --output-dir", self.path) from error


def row_of(place: int, name: str, content: bytes) -> Row:
    return place, name, content, _checksum(place, name, content)


def _checksum(place: object, name: object, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(repr((place, name)).encode()))
