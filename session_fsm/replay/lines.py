"""The lines of a file, plain or gzip, in bounded memory.

Whether a file is compressed is told by its first bytes. Whatever can be read before a damage is
handed out before the damage is reported.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

import attrs

_CHUNK_BYTES: Final = 64 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 31  # zlib's `wbits` for a gzip member with its header and checksum


class CutOffError(Exception):
    """The contents of a file can't be read, or not to their end.

    Args:
        problem: Why, in words.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class LineEnd(enum.Enum):
    """What follows a line."""

    BREAK = enum.auto()
    """A line break, as it should be."""
    FILE = enum.auto()
    """The end of the file."""
    DAMAGE = enum.auto()
    """What can't be read: the line may have gone on."""


@attrs.frozen(kw_only=True)
class Line:
    """One line of a file."""

    number: int
    """Counted from 1."""
    data: bytes | None
    """Its bytes without the line break; None for a line that is too long."""
    end: LineEnd


def reason(fault: OSError | ValueError) -> str:
    """Say in words why the operating system refused."""
    return (fault.strerror if isinstance(fault, OSError) else None) or str(fault)


def read_contents(path: str, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the contents of a file in pieces, unpacked if it is a gzip file.

    Args:
        path: The file; anything that can be read from its beginning to an end.
        on_bytes: Told how many bytes were read from the file each time.

    Raises:
        CutOffError: The file can't be opened or read further, or is a truncated or damaged gzip
            stream; what came before has been yielded.
    """
    chunks = _read_chunks(path, on_bytes)
    first = next(chunks, b"")
    if first.startswith(_GZIP_MAGIC):
        yield from _unpack(first, chunks)
    else:
        yield first
        yield from chunks


def split_lines(contents: Iterable[bytes], max_line_bytes: int) -> Iterator[Line]:
    """Yield the lines of some contents that are not empty, the last one with or without its break.

    Empty lines count, but that is all: a small gzip file may have millions.

    Args:
        contents: Pieces that may break anywhere.
        max_line_bytes: Longest line that is kept; of a longer one, little more is ever held.

    Raises:
        CutOffError: As the contents raise it. If there were any, what there is of the line that
            was cut off has been yielded, be it empty.
    """
    begun, number, held, size = False, 1, list[bytes](), 0

    def line(end: LineEnd) -> Line:
        data = b"".join(held) if size <= max_line_bytes else None
        return Line(number=number, data=data, end=end)

    try:
        for piece in contents:
            begun = True
            for index, part in enumerate(piece.split(b"\n")):
                if index:
                    if size:
                        yield line(LineEnd.BREAK)
                        held, size = [], 0
                    number += 1
                if not part:
                    continue
                size += len(part)
                if size <= max_line_bytes:
                    held.append(part)
                else:
                    held.clear()
    except CutOffError:
        if begun:
            yield line(LineEnd.DAMAGE)
        raise
    if size:
        yield line(LineEnd.FILE)


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except (OSError, ValueError) as fault:  # a ValueError tells of a path with U+0000
        raise CutOffError(f"can't be opened: {reason(fault)}") from fault


def _read_chunks(path: str, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    with _opened(path) as file:
        while True:
            try:
                chunk = file.read(_CHUNK_BYTES)
            except OSError as fault:
                raise CutOffError(f"can't be read further: {reason(fault)}") from fault
            if not chunk:
                return
            on_bytes(len(chunk))
            yield chunk


def _unpack(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the contents of a gzip file, which may have several members and padding behind."""
    packed: bytes | None = first
    member, begun = zlib.decompressobj(_GZIP_FORMAT), False
    while packed is not None:
        if not begun:
            packed = packed.lstrip(b"\0")
        while packed:
            before = member.copy()
            try:
                piece = member.decompress(packed, _CHUNK_BYTES)
            except zlib.error as fault:
                yield from _until_damage(before, packed)
                raise CutOffError(f"damaged gzip stream: {fault}") from fault
            if piece:
                yield piece
            packed, begun = member.unconsumed_tail, True
            if member.eof:
                packed = member.unused_data.lstrip(b"\0")
                member, begun = zlib.decompressobj(_GZIP_FORMAT), False
        packed = next(chunks, None)
    if piece := member.flush():
        yield piece
    if begun and not member.eof:
        raise CutOffError("truncated gzip stream: the file ends too early")


def _until_damage(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """Yield what there is before a damage: the call that meets it loses all of its output."""
    try:
        for index in range(len(packed)):
            if piece := member.decompress(packed[index : index + 1]):
                yield piece
    except zlib.error:
        return
