"""JSON text: the one place that reads and writes it.

`parse_json` reads any strict JSON, and says what is wrong with the rest. `parse_written` is many
times as fast, and takes nothing but the very bytes that `dump_json` writes. `parse_dumped` is for
bytes that it has just written.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

# Looked up once: a short text is read in the time of ten such look-ups.
_loads, _dumps, _STRICT_INTEGER = orjson.loads, orjson.dumps, orjson.OPT_STRICT_INTEGER


class JsonError(ValueError):
    """Text that is not strict JSON; the message says what is wrong and where."""


def shown(value: object, limit: int = 60) -> str:
    """Return a value for a message: as JSON where it is, in ASCII, shortened to `limit`."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}…"


def dump_json(value: Any) -> bytes:
    """Write a value as compact JSON in UTF-8; instants in UTC, with `Z`."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"the key {shown(key)} stands twice in one object")
            seen.add(key)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no JSON number")


# The standard library's reader, because the faster ones take a key twice in silence and turn
# integers beyond 64 bits into floats.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant)


def parse_json(data: bytes | bytearray | memoryview | str, *, max_bytes: int | None = None) -> Any:
    """Read strict JSON: no duplicate key, no NaN, no bad UTF-8, nothing after the value.

    Args:
        data: The text, or its UTF-8 bytes.
        max_bytes: Longest input that is looked at (characters, for a `str`); None: any.

    Returns:
        Plain dicts, lists, strings, numbers, booleans and None. A number that no float holds, such
        as 1e999, is an infinity, which whoever keeps values refuses.

    Raises:
        JsonError: The data is not strict JSON, is too long, or is nested too deeply to read.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise JsonError(f"not read: {len(data)} bytes of JSON, at most {max_bytes} are taken")
    try:
        return _DECODER.decode(data if isinstance(data, str) else str(data, "utf-8"))
    except JsonError:
        raise
    except UnicodeDecodeError as fault:
        raise JsonError(f"not UTF-8: {fault.reason} at byte {fault.start}") from None
    except json.JSONDecodeError as fault:
        where = f"line {fault.lineno} column {fault.colno}"
        raise JsonError(f"not JSON: {fault.msg.removesuffix(' at')} at {where}") from None
    except ValueError:
        raise JsonError("a number with too many digits") from None
    except RecursionError:
        raise JsonError("not read: nested too deeply") from None


def parse_written(data: bytes) -> Any:
    """Read text that is to the byte as `dump_json` writes it, or leave it to `parse_json`.

    The fast reader takes a key twice, and rounds numbers; but then what it read is written in
    other bytes.

    Args:
        data: The text; bytes and no other kind of buffer.

    Returns:
        As `parse_json` reads it, a value that can be written again: without U+0000, without lone
        surrogates, all its integers of at most 53 bits. None for all other text, be it JSON or
        not.
    """
    try:
        value = _loads(data)
        if _dumps(value, None, _STRICT_INTEGER) != data:
            return None
    except (ValueError, TypeError):  # TypeError: an integer of more bits
        return None
    # One byte is found at once, a word is not: it is looked for where there are such bytes.
    first = data.find(b"\\")
    if first >= 0 and data.find(b"\\u0000", first, data.rfind(b"\\") + 6) >= 0:
        return None
    return value


def parse_dumped(data: bytes) -> Any:
    """Read what `dump_json` has just written; nothing is checked."""
    return orjson.loads(data)
