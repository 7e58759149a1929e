"""PNG files written a few rows at a time, so that a map of any size goes to disk without being held. RFC 2083."""

import os
import struct
import zlib
from pathlib import Path
from weakref import finalize

import numpy as np

UP = 2  # the row filter: the difference from the row above, which in label maps is mostly 0
COLOR_TYPE = {1: 0, 3: 2}  # by channels: grey, RGB


class PngRows:
    """A PNG of ``size`` (H, W) that is fed its rows from the top; it gets its name when the last is there.

    What is unfinished when nobody holds it any more is removed. OSError where the file cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int]):
        self.path, self.size, self.row = path, size, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = self._temporary.open("wb")
        finalize(self, self._temporary.unlink, missing_ok=True)
        self._packer = zlib.compressobj(3)  # of 9: label maps are as small with it, and twice as fast
        self._above: np.ndarray | None = None

    def write(self, rows: np.ndarray) -> None:
        """Rows ``(n, W)`` or ``(n, W, 3)`` of one dtype in all calls."""
        if self._above is None:
            depth, channels = 8 * rows.itemsize, rows.shape[2] if rows.ndim == 3 else 1
            header = struct.pack(">IIBBBBB", self.size[1], self.size[0], depth, COLOR_TYPE[channels], 0, 0, 0)
            self._file.write(b"\x89PNG\r\n\x1a\n")
            self._chunk(b"IHDR", header)
            self._above = np.zeros((1, self.size[1] * channels * rows.itemsize), np.uint8)
        raw = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False)).view(np.uint8)
        raw = raw.reshape(len(rows), -1)
        filtered = np.full((len(rows), raw.shape[1] + 1), UP, np.uint8)
        np.subtract(raw, np.concatenate([self._above, raw[:-1]]), out=filtered[:, 1:])
        self._above = raw[-1:].copy()
        self._chunk(b"IDAT", self._packer.compress(filtered.data))
        self.row += len(rows)
        if self.row == self.size[0]:
            self._chunk(b"IDAT", self._packer.flush())
            self._chunk(b"IEND", b"")
            self._file.close()
            self._temporary.replace(self.path)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        if content or kind == b"IEND":
            checksum = struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
            self._file.write(struct.pack(">I", len(content)) + kind + content + checksum)
