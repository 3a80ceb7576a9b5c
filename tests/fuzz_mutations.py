"""Inputs that are almost right: valid documents and logs, spoilt by a few changes.

Everything is drawn from the `random.Random` that is handed in, so that a seed tells an input.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Any, Final

LONGEST_RUN: Final = 60_000
"""Most repetitions of a piece of text; enough for quadratic time to be seen."""

_MARK = "\N{DOUBLE DAGGER}raw"
"""Stands in a document for a token that no writer of JSON writes."""

RAW_TOKENS: Final[tuple[str, ...]] = (
    "NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999", "1e-999", "1e400000", "-0", "-0.0",
    "01", "+1", ".5", "1.", "1e", "0x10", "1_000", "9007199254740993", "9223372036854775808",
    "-9223372036854775809", "18446744073709551616", "1" * 400, "0." + "3" * 400, "9" * 4301,
    "1.0000000000000000000000001", "1E2", "1.0", "tru", "None", "undefined", "'a'", "{", "]", "",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x41"', '"a\tb"', '"\\u00e9"', '"\x7f"',
    "/**/1", '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', "[1,]", '{"a":1,}', '{"":{"":{"":1}}}',
)  # fmt: skip
ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 1.5, -0.0, 1e308, 5e-324, 2**53, 2**63 - 1, 2**63, -(2**63) - 1,
    2**64, 10**30, 4102444800, 1767615451459, "", " ", "a", " a", "a ", "a\n", "\x00", "\x1b[31m",
    "\u2028", "\ufeff", "\U0001f600", "é" * 300, "x" * 255, "x" * 256, "active", "idle", "ACTIVE",
    "terminated", "SessionStatus.ACTIVE", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00",
    "2026-02-30T12:00:00Z", "2026-W05-6T12:00:00.000000Z", "2026-01-31 12:00:00.000000Z",
    "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999-23:59", "2026-01-31T24:00:00Z",
    "2026-01-31T12:00:00.123456789Z", "\u0662\u0660\u0662\u0666-01-31T12:00:00Z", "progress",
    "request", "local_command", "user", "assistant", "attachment", "queue-operation", "system",
    "[Request interrupted by user]", "<command-name>/exit</command-name>", "/exit", "Stop",
    [], [[]], ["a", "a"], ["a", 5], [{"type": "tool_result"}, {"text": " "}, {"text": 5}], {},
    {"a": {}}, {"content": "x"}, {"hookEvent": 5}, {"timeout_minutes": 0}, {"features": "x"},
    {"recovery": "end"}, "restart", 2, 3,
)  # fmt: skip
FOREIGN_VALUES: Final[tuple[Any, ...]] = (
    b"a", bytearray(b"a"), float("nan"), float("-inf"), 10**5000, datetime(2026, 1, 31, tzinfo=UTC),
    datetime.fromisoformat("2026-01-31"), date(2026, 1, 31), Decimal("NaN"), 1j, {1, 2},
    frozenset("a"), range(3), ("a", "b"), object, len, MappingProxyType({"features": ("a",)}),
    {5: 1}, {None: {}}, {(): 1},
    {"a": {1}}, "\ud800", {"\udfff": "\ud800"}, ["\ud800"], Ellipsis, memoryview(b"a"),
)  # fmt: skip
"""What a caller may have in a mapping, and no JSON."""
PIECES: Final[tuple[str, ...]] = (
    " ", "\t", "a", "0", "9", "-", "\\", '"', "[", "{", "[[", '{"a":', "]", "}", ",", ":", "<",
    "\x00", "\n", "\r", "é", "\U0001f600", "\u3000", "\\u0000", "\\ud83d", "<command-name>",
    "</command-name>", "<command-message>", "<command-name> /", "/exit", "1e", "1767615451.459",
    '"ts":1,', "null,", "//",
)  # fmt: skip
"""What texts are lengthened with, and what is set into them."""
BLANKS: Final[tuple[str, ...]] = (" ", "\t", "\n", "\u3000", " /")
OPENINGS: Final[tuple[str, ...]] = (
    "<command-name>", "<command-message>", "<command-name>/", "2026-01-31T12:00:00.", '"', "[", "{",
)  # fmt: skip
"""What a reader may take for the beginning of something that it knows, and look for its end."""

_KEYS = ("ts", "session", "event", "type", "sessionId", "timestamp", "message", "format", "config")


def long_text(random: Random) -> str:
    """Return a text that is mostly one piece, many times over."""
    length = random.choice((300, 3_000, 3_000, LONGEST_RUN))
    piece = random.choice(random.choice((PIECES, BLANKS)))
    begin = random.choice(random.choice((PIECES, OPENINGS)))
    return begin + piece * (length // len(piece)) + random.choice(PIECES)


def stretched(random: Random, text: str) -> str:
    """Return a text with one piece set into it, some or many times over, or in place of its end."""
    at = random.choice((0, len(text), text.find(">") + 1, random.randrange(len(text) + 1)))
    piece = random.choice(random.choice((PIECES, BLANKS)))
    length = random.choice((1, 1, 30, 300, 3_000))
    end = text[at:] if random.random() < 0.7 else ""
    return text[:at] + piece * (length // len(piece) or 1) + end


def deep(random: Random) -> Any:
    """Return a value with many levels."""
    value: Any = _copied(random.choice(ODD_VALUES))
    arrays = random.random()
    for _ in range(random.choice((5, 99, 101, 400))):
        value = [value] if random.random() < arrays else {"a": value}
    return value


def wide(random: Random) -> Any:
    """Return a value with many members."""
    number = random.choice((100, 3_000))
    kind = random.randrange(3)
    if kind == 0:
        return [_copied(random.choice(ODD_VALUES)) for _ in range(number)]
    if kind == 1:
        return {str(index): index for index in range(number)}
    return [f"task {index}" for index in range(number)]


# --- values ------------------------------------------------------------------------------------


def spoil_value(random: Random, document: Any, odd: Callable[[Random], Any]) -> Any:
    """Return a copy of a document that is changed in a few places.

    Args:
        random: What decides.
        document: Plain JSON; it stays as it is.
        odd: Gives what is put in a place of another value.
    """
    document = _copied(document)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holder, key = _place(random, document)
        if holder is None:
            return odd(random)
        kind = random.randrange(10)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice((*_KEYS, "", f"{key} ", str(key).upper()))] = holder.pop(key)
        elif kind == 2:
            other, at = _place(random, document)
            if other is not None:
                holder[key], other[at] = _copied(other[at]), _copied(holder[key])
        elif kind == 3:
            holder[key] = random.choice(([holder[key]], {"a": holder[key]}, str(key)))
        elif kind in (4, 9) and isinstance(holder[key], str):
            holder[key] = stretched(random, holder[key])
        elif kind == 5 and isinstance(holder, dict):
            holder[random.choice(_KEYS)] = odd(random)
        else:
            holder[key] = odd(random)
    return document


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _place(random: Random, document: Any) -> tuple[Any, Any]:
    """Return what holds some value of a document, and under which key; (None, None) for none."""
    holder, key = None, None
    value = document
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, random.choice(keys)
        value = value[key]
        if random.random() < 0.4:
            break
    return holder, key


def odd_json(random: Random) -> Any:
    """Return a value that JSON can tell, or the mark of a token that is none."""
    chance = random.random()
    if chance < 0.6:
        return _copied(random.choice(ODD_VALUES))
    if chance < 0.93:
        return f"{_MARK}{random.randrange(len(RAW_TOKENS))}"
    return random.choice((long_text, long_text, deep, wide))(random)


def odd_object(random: Random) -> Any:
    """Return a value that a mapping in Python may hold."""
    chance = random.random()
    if chance < 0.4:
        return _copied(random.choice(FOREIGN_VALUES))
    if chance < 0.95:
        return _copied(random.choice(ODD_VALUES))
    return random.choice((long_text, deep, wide))(random)


def text_of(random: Random, document: Any) -> str:
    """Write a document that `spoil_value` made with `odd_json`, as JSON but for its tokens."""
    separators = random.choice(((",", ":"), (",", ":"), (", ", ": "), (" ,\r", "\t:")))
    text = json.dumps(document, separators=separators, ensure_ascii=random.random() < 0.2)
    for index, token in enumerate(RAW_TOKENS if _MARK[1:] in text else ()):
        text = text.replace(f'"{_MARK}{index}"', token)
        text = text.replace(f'"\\u2021raw{index}"', token)
    return text


# --- bytes -------------------------------------------------------------------------------------


def spoil_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """Return some bytes, changed in a few places.

    Args:
        random: What decides.
        data: The bytes.
        other: Others, of which a part may be taken.
    """
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(spoilt) + 1)
        end = min(len(spoilt), at + random.choice((0, 1, 2, 10, 100)))
        kind = random.randrange(10)
        if kind == 0 and at < len(spoilt):
            spoilt[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del spoilt[at:end]
        elif kind == 2:
            spoilt[at:at] = spoilt[at:end]
        elif kind == 3:
            del spoilt[at:]
        elif kind == 4:
            begin = random.randrange(len(other) + 1)
            spoilt[at:end] = other[begin : begin + random.choice((1, 20, 200))]
        elif kind == 5:
            spoilt[at:] = other[random.randrange(len(other) + 1) :]
        elif kind == 6:
            spoilt[at:end] = random.choice(RAW_TOKENS).encode()
        elif kind == 7:
            spoilt[at:at] = random.choice(PIECES).encode()
        elif kind == 8:
            spoilt[at:at] = random.choice(
                (
                    b"\xff",
                    b"\xc3",
                    b"\xed\xa0\x80",
                    b"\xf4\x90\x80\x80",
                    b"\xc0\x80",
                    b"\x00",
                    b"\r\n",
                )
            )
        elif random.random() < 0.05:
            spoilt[at:at] = long_text(random).encode()
    return bytes(spoilt)


def recoded(random: Random, data: bytes) -> bytes:
    """Return a text in another code, or with a mark of the order of its bytes."""
    text = data.decode("utf-8", "replace")
    code = random.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32-be", "utf-7", "latin-1"))
    return text.encode(code, "replace")


def packed(random: Random, data: bytes) -> bytes:
    """Return a gzip file of some bytes, in one or two members, sound or damaged."""
    at = random.randrange(len(data) + 1) if random.random() < 0.2 else len(data)
    parts = (data[:at], data[at:]) if at < len(data) else (data,)
    whole = b"".join(gzip.compress(part, compresslevel=1, mtime=0) for part in parts)
    chance = random.random()
    if chance < 0.3:
        return spoil_bytes(random, whole, data)
    return whole + b"\0" * 20 if chance < 0.35 else whole
