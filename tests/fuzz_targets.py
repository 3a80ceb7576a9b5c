"""What is fuzzed: the readers, with what each may say to an input, and what must hold after it."""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import hypothesis
from fuzz_mutations import odd_json, odd_object, packed, recoded, spoil_bytes, spoil_value, text_of
from hypothesis import given, settings

from session_fsm import (
    DeserializationError,
    SessionState,
    deserialize,
    dumps,
    loads,
    serialize,
)
from session_fsm.replay import read_log
from session_fsm.testing import states

ROOT: Final = Path(__file__).resolve().parent.parent
MAX_LINE_BYTES: Final = 256 * 1024
"""Longest line that the reader of logs is told to look at."""
CORPUS_SIZE: Final = 150
"""How many states there are to spoil."""

KINDS: Final = re.compile(
    r"not JSON|not UTF-8|the key|-?(?:NaN|Infinity)|a number with too many digits|not read"
    r"|expected a JSON object|format|expected JSON text|[\w.]+: missing|.*unknown (?:field|status)"
    r"|.*is no JSON|.*expected|.*(?:earlier|later) than|.*(?:can't hold tasks|stands twice)"
)
"""How the first fault of a document is sorted; what is not named here is another value."""


@attrs.frozen
class Target:
    """A reader that is fuzzed.

    Attributes:
        name: What it is called.
        make: Draws an input.
        take: Gives the input to the reader, and returns what came of it in a few words. Whatever
            it raises is a finding.
    """

    name: str
    make: Callable[[Random], Any]
    take: Callable[[Any], str]


# --- states ------------------------------------------------------------------------------------


@functools.cache
def state_corpus() -> tuple[SessionState, ...]:
    """Return valid states, the same in each process."""
    found: list[SessionState] = []

    @hypothesis.seed(20260131)
    @settings(
        max_examples=CORPUS_SIZE,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.large_base_example,
        ],
    )
    @given(states())
    def collect(state: SessionState) -> None:
        found.append(state)

    collect()
    return tuple(found)


@functools.cache
def _documents() -> tuple[dict[str, Any], ...]:
    return tuple(map(serialize, state_corpus()))


@functools.cache
def _texts() -> tuple[bytes, ...]:
    return tuple(map(dumps, state_corpus()))


def make_text(random: Random) -> bytes | str:
    """Draw a text that is almost a state."""
    chance = random.random()
    if chance < 0.55:
        document = spoil_value(random, random.choice(_documents()), odd_json)
        text = text_of(random, document)
        data = text.encode("utf-8", "surrogatepass")
        if random.random() < 0.1:
            return text
    else:
        data = random.choice(_texts())
    if chance > 0.45:
        data = spoil_bytes(random, data, random.choice(_texts()))
    if random.random() < 0.03:
        data = recoded(random, data)
    return data + random.choice(_texts()) if random.random() < 0.01 else data


def take_text(data: bytes | str) -> str:
    """Load a text; what is accepted comes back from its own text."""
    try:
        state = loads(data)
    except DeserializationError as refusal:
        return _kind(refusal)
    return _accepted(state)


def make_object(random: Random) -> Any:
    """Draw a mapping that is almost a state."""
    return spoil_value(random, random.choice(_documents()), odd_object)


def take_object(document: Any) -> str:
    """Deserialize a mapping; what is accepted comes back from its own text."""
    try:
        state = deserialize(document)
    except DeserializationError as refusal:
        return _kind(refusal)
    return _accepted(state)


def _accepted(state: SessionState) -> str:
    text = dumps(state)
    again = loads(text)
    assert again == state, "another state came back"
    assert dumps(again) == text, "it is written in another way after it was read"
    assert deserialize(json.loads(text)) == state, "another state came back from its object"
    return "accepted"


def _kind(refusal: DeserializationError) -> str:
    assert refusal.problems, "a refusal without a reason"
    assert all(isinstance(problem, str) and problem for problem in refusal.problems)
    match = KINDS.match(refusal.problems[0])
    if match is None:
        return "refused: another value"
    words = match[0].split(": ")[-1].split(" ")
    return f"refused: {' '.join(words[-3:])}"


# --- logs --------------------------------------------------------------------------------------


@functools.cache
def _event_lines() -> tuple[dict[str, Any], ...]:
    with gzip.open(ROOT / "examples" / "sample_trace.jsonl.gz") as file:
        return tuple(json.loads(line) for line in file.readlines()[:600])


@functools.cache
def _transcript_lines() -> tuple[dict[str, Any], ...]:
    files = sorted((ROOT / "tests" / "data" / "claude_code").rglob("*.jsonl"))
    lines = tuple(json.loads(line) for file in files for line in file.read_bytes().splitlines())
    # What a release writes beside what is read would take most of the changes.
    return lines + tuple(
        {"type": kind, "sessionId": "s", "timestamp": f"2026-03-02T09:00:{second:02}.5Z", **fields}
        for second, (kind, fields) in enumerate(_SHORT_LINES)
    ) * (len(lines) // len(_SHORT_LINES))


_SHORT_LINES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("user", {"message": {"content": "<command-name>/exit</command-name>"}}),
    ("user", {"message": {"content": "<command-message>m</command-message>\n<command-name>m"}}),
    ("user", {"message": {"content": [{"type": "text", "text": "[Request interrupted by user]"}]}}),
    ("user", {"message": {"content": "Water?"}, "isSidechain": True, "isMeta": False}),
    ("system", {"subtype": "local_command", "content": "<command-name>/quit</command-name>"}),
    ("assistant", {"message": {"model": "<synthetic>"}, "isApiErrorMessage": False}),
    ("progress", {"data": {"hookEvent": "Stop"}, "parentUuid": None}),
    ("attachment", {"attachment": {"type": "hook_success", "hookEvent": "Stop"}}),
    ("queue-operation", {"operation": "enqueue"}),
)


def _make_log(lines: tuple[dict[str, Any], ...], random: Random) -> bytes:
    begin = random.randrange(len(lines))
    written: list[bytes] = []
    for line in lines[begin : begin + random.choice((1, 2, 5))]:
        spoilt = spoil_value(random, line, odd_json) if random.random() < 0.6 else line
        written.append(text_of(random, spoilt).encode("utf-8", "surrogatepass"))
    data = random.choice((b"\n", b"\n", b"\n", b"\r\n", b"")).join(written)
    if random.random() < 0.4:
        data = spoil_bytes(random, data, random.choice(written))
    if random.random() < 0.03:
        data = recoded(random, data)
    return packed(random, data) if random.random() < 0.25 else data


def make_event_lines(random: Random) -> bytes:
    """Draw a file that is almost one of event lines."""
    return _make_log(_event_lines(), random)


def make_transcript(random: Random) -> bytes:
    """Draw a file that is almost a transcript of Claude Code."""
    return _make_log(_transcript_lines(), random)


@functools.cache
def _scratch(_: int) -> Path:
    descriptor, name = tempfile.mkstemp(suffix=".jsonl")
    os.close(descriptor)
    return Path(name)


def take_log(data: bytes) -> str:
    """Read a log: nothing is raised, and what is said of it can be so."""
    path = _scratch(os.getpid())
    path.write_bytes(data)
    log = read_log([path], max_line_bytes=MAX_LINE_BYTES)
    assert log.rows or log.faults or data, "nothing is said of an empty file"
    for fault in log.faults:
        assert fault.file == str(path), "a fault of another file"
        assert fault.line is None or fault.line >= 1, "a fault of a line that there is not"
        assert len(str(fault)) < 20_000, "a fault that nobody reads"
    latest = None
    for row in log.rows:
        assert latest is None or latest <= row.at, "rows out of order"
        latest = row.at
        SessionState.new(row.session, at=row.at)  # a manager takes the id and the instant
    rows = "rows" if log.rows else "no rows"
    return f"{rows}, {'faults' if log.faults else 'no faults'}"


def remove_scratch() -> None:
    """Remove the file that this process gave to the reader of logs."""
    _scratch(os.getpid()).unlink(missing_ok=True)


TARGETS: Final[tuple[Target, ...]] = (
    Target("loads", make_text, take_text),
    Target("deserialize", make_object, take_object),
    Target("event lines", make_event_lines, take_log),
    Target("transcripts", make_transcript, take_log),
)


def each(first: int, count: int) -> Iterator[tuple[int, Target]]:
    """Yield the numbers of inputs with the target that each is for, by turns."""
    for number in range(first, first + count):
        yield number, TARGETS[number % len(TARGETS)]
