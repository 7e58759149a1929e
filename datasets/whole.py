"""Whether an image file is all there: its end, its checksums, one picture and no animation."""

import mmap
import zlib
from pathlib import Path

from segloss.datasets.opening import damaged
from segloss.errors import InputError

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_FRAMES, PNG_END = b"\x89PNG\r\n\x1a\n", b"acTL", b"IEND"
WEBP_STARTS = (b"RIFF", b"WEBP")  # with the length of the rest in between
ENDING = 1024  # bytes at a file's end in which its end mark mostly lies; some cameras write a little behind it


def require_whole(path: Path, data: bytes | mmap.mmap) -> None:
    """InputError for a PNG with a wrong checksum, a JPEG, WebP or PNG without its end, and for animations.

    Decoders fill what is missing with grey or zeros, which is the id of a class. A JPEG has no checksums: a changed
    byte in the middle of one cannot be told from a picture.
    """
    if data[: len(PNG_START)] == PNG_START:
        at = len(PNG_START)
        while at + 12 <= len(data):
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            end = at + 8 + length
            if end + 4 > len(data):
                break
            if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise damaged(path, "is damaged (a PNG checksum is wrong)")
            if kind == PNG_FRAMES and int.from_bytes(data[at + 8 : at + 12], "big") > 1:
                raise animation(path)
            if kind == PNG_END:
                return
            at = end + 4
        raise damaged(path, "is cut off")
    if is_webp(data):
        if len(data) < webp_length(data):
            raise damaged(path, "is cut off")
        if b"ANIM" in webp_chunks(data):
            raise animation(path)
    if data[: len(JPEG_START)] == JPEG_START and data.find(JPEG_END, _scan(data)) < 0:
        raise damaged(path, "is cut off")


def animation(path: Path) -> InputError:
    return InputError("is an animation, of which one picture is read", "save each as a file of its own", path)


def is_webp(data: bytes | mmap.mmap) -> bool:
    return (data[:4], data[8:12]) == WEBP_STARTS


def webp_length(start: bytes | mmap.mmap) -> int:
    """Of the whole file, as its first bytes say."""
    return 8 + int.from_bytes(start[4:8], "little")


def webp_chunks(data: bytes | mmap.mmap) -> list[bytes]:
    """The kinds of a WebP file's parts: ``VP8L`` is a picture without loss, ``VP8 `` one with."""
    found, at = [], 12
    while at + 8 <= len(data):
        found.append(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return found


def _scan(data: bytes | mmap.mmap) -> int:
    """Where a JPEG's picture begins: behind the headers, one of which may hold a whole thumbnail, end mark and all.

    In the picture the end mark stands for nothing else. Behind it anything may follow, as a film of some telephones.
    """
    at = len(JPEG_START)
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # SOS, start of scan
        filler = data[at + 1 : at + 2] == b"\xff"
        at += 1 if filler else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def has_end(path: Path) -> bool:
    """Whether a JPEG's or PNG's end mark is where it mostly is, and a WebP as long as it says; True for other formats.

    Reads both ends only.
    """
    with path.open("rb") as file:
        start = file.read(12)
        if is_webp(start):
            return path.stat().st_size >= webp_length(start)
        start = start[: len(PNG_START)]
        file.seek(max(0, path.stat().st_size - ENDING))
        end = file.read()
    mark = PNG_END if start == PNG_START else JPEG_END if start.startswith(JPEG_START) else b""
    return mark in end
