"""The lifecycle as PNG, with the digest of its DOT in a text chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from . import dot
from .graphviz import STAMP, digest, draw
from .picture import Picture

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
RESOLUTION: Final = "-Gdpi=144"


def render(picture: Picture) -> bytes:
    """Draw a picture as PNG.

    Raises:
        DrawingError: Graphviz is not installed, or could not draw it.
    """
    header, *others = _chunks(draw(dot.render(picture), "png", RESOLUTION))
    stamp = (b"tEXt", STAMP.encode() + b"\0" + source(picture).encode())
    return SIGNATURE + b"".join(_packed(*chunk) for chunk in (header, stamp, *others))


def source(picture: Picture) -> str:
    """Return the digest of what the drawing of a picture is made from."""
    return digest(dot.render(picture))


def source_of(data: bytes) -> str | None:
    """Return the digest of the DOT that a PNG was made from; None if it is broken or not ours."""
    try:
        chunks = list(_chunks(data))
    except ValueError:
        return None
    for kind, body in chunks:
        name, _, text = body.partition(b"\0")
        if kind == b"tEXt" and name == STAMP.encode():
            return text.decode("latin-1")
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG")
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if data[at : at + 12 + length] != _packed(kind, body):
            raise ValueError("a chunk is cut off or its checksum is wrong")
        yield kind, body
        at += 12 + length


def _packed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
