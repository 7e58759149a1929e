"""Files that are whole or not there: everything is written beside its place and then renamed; and how names are
compared. Standard library only."""

import csv
import errno
import io
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def composed(text: str) -> str:
    """A name as names of files and classes are compared: with an umlaut as one character (NFC), of which Macs write
    two."""
    return unicodedata.normalize("NFC", text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write through a temporary file in the same folder, made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, write: Callable[[BinaryIO], object], previous: Path | None = None) -> None:
    """As :func:`write_bytes`, and on the disk before it has its name: not even a power cut leaves half a file.

    What an earlier process left when it was killed in here is cleared away. ``previous``: where the file that is
    replaced is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*"):
        stale.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            path.replace(previous)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        of_disk = _error_of_disk(error)
        if of_disk is None or (of_disk is error and of_disk.filename):
            raise
        raise OSError(of_disk.errno, of_disk.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the new names, too; Windows cannot
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _error_of_disk(error: BaseException | None) -> OSError | None:
    """What torch's writer has met before it says that its archive is not whole."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def take_lock(path: Path) -> int | None:
    """File descriptor of a lock that holds until it is closed or this process ends, however it ends.

    The lock is of this process alone: loader workers that outlive it for some seconds do not hold it. None where file
    systems know no locks; BlockingIOError with the holder in words where another process has it.
    """
    if os.name != "posix":
        return None
    import fcntl

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 100).decode(errors="replace").strip()
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(error.errno, holder or "unknown") from error
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
                return file
        os.close(file)  # the last holder took it away meanwhile


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """A new folder with all of the files, or none; at its place is nothing, or an empty folder."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir()
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if folder.is_dir():
            folder.rmdir()
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_json(content: object) -> str:
    """Indented; ValueError for NaN, which JSON does not have."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, content: object) -> None:
    write_text(path, as_json(content))


FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # a spreadsheet may run a cell that begins so


def write_csv(path: Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Names that a spreadsheet would take for a formula get an apostrophe before them; numbers stay numbers."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_inert(cell) for cell in row] for row in (header, *rows))
    write_text(path, buffer.getvalue())


def _inert(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r", " ")  # csv does not quote it before Python 3.13, and what follows would be a new line
    if not cell.startswith(FORMULA):
        return text
    with suppress(ValueError):
        float(cell)
        return cell
    return f"'{text}"
