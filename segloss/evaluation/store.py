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

COUNTED_AS = 3  # raise it when the same image would be counted otherwise: older results are not gone on from
AT_ONCE = 64  # images a transaction


class ResultStore:
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
                columns = "place INTEGER PRIMARY KEY, name TEXT UNIQUE, result BLOB, checksum INTEGER"
                c.execute(f"CREATE TABLE IF NOT EXISTS results ({columns})")
                self._require_whole()
                if c.execute("SELECT key FROM meta").fetchall() != [(key,)]:
                    c.execute("DELETE FROM meta")
                    c.execute("DELETE FROM results")
                    c.execute("INSERT INTO meta VALUES (?)", (key,))
        except BaseException:
            self.connection.close()
            raise

    def _require_whole(self) -> None:
        """sqlite3.DatabaseError for a damaged file; SQLite alone would not see a changed byte of a result."""
        if self.connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        for place, name, content, checksum in self.connection.execute("SELECT * FROM results"):
            if not isinstance(content, bytes) or checksum != _checksum(place, name, content):
                raise sqlite3.DatabaseError("damaged")

    def __enter__(self) -> "ResultStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def names(self) -> set[str]:
        """Of the images that are done."""
        return {name for (name,) in self.connection.execute("SELECT name FROM results")}

    def add_all(self, results: Iterable[tuple[int, ImageResult]]) -> None:
        """Write (place, result) as they come, whole transactions of a few images; also what came before an error."""
        batch: list[tuple[int, str, bytes, int]] = []
        try:
            for place, result in results:
                content = result.to_bytes()
                batch.append((place, result.name, content, _checksum(place, result.name, content)))
                if len(batch) == AT_ONCE:
                    self._write(batch)
                    batch = []
        finally:
            self._write(batch)

    def _write(self, batch: list[tuple[int, str, bytes, int]]) -> None:
        try:
            with self.connection as c:
                c.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", batch)
        except sqlite3.OperationalError as error:  # the disk is full
            raise InputError(f"cannot be written: {error}", "choose another --output-dir", self.path) from error

    def __iter__(self) -> Iterator[ImageResult]:
        for name, content in self.connection.execute("SELECT name, result FROM results ORDER BY place"):
            yield ImageResult.from_bytes(name, content)

    def __len__(self) -> int:
        return int(self.connection.execute("SELECT COUNT(*) FROM results").fetchone()[0])


def _checksum(place: object, name: object, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(repr((place, name)).encode()))
