"""What an event does to its session, and how each format's lines become events."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_fsm.errors import StateInvalidError
from session_fsm.replay.formats import CLAUDE_CODE, EVENT_LINES, FORMATS, Format, RowError
from session_fsm.replay.reading import read_log
from session_fsm.replay.rows import RowKind, kind_of
from session_fsm.state import SessionState

TRANSCRIPTS = Path(__file__).parent / "data" / "claude_code" / "projects" / "garden"
EVENT_LINE = {"ts": 1767615451.459, "session": "a1", "event": "meta"}
TRANSCRIPT_LINE = {
    "type": "assistant",
    "sessionId": "a1",
    "timestamp": "2026-03-02T09:00:00.125Z",
    "message": {"role": "assistant", "content": []},
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def problems_of(format: Format, line: Mapping[str, Any]) -> tuple[str, ...]:
    """What a format has against a line that is no row."""
    with pytest.raises(RowError) as caught:
        format.entry(line)
    return caught.value.problems


def user(content: Any, **fields: Any) -> dict[str, Any]:
    """A transcript's line of the user."""
    return TRANSCRIPT_LINE | {"type": "user", "message": {"content": content}} | fields


# --- the table of kinds ---------------------------------------------------------------------


@pytest.mark.parametrize("event", ["request", "response", "tool_result", "task_notification"])
def test_formats_work_begins_a_turn(event: str) -> None:
    """A prompt, an answer, a result and the report of a task each begin a turn."""
    assert kind_of(event, {}) is RowKind.BEGIN


@pytest.mark.parametrize(
    "event", ["system:turn_duration", "system:stop_hook_summary", "interrupt", "hook_stopped"]
)
def test_formats_ends_end_a_turn(event: str) -> None:
    """Each of the four events that say so ends a turn."""
    assert kind_of(event, {}) is RowKind.END


@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        (None, RowKind.BEGIN),
        ("Stop", RowKind.END),
        ("SubagentStop", RowKind.OTHER),
        ("SessionStart", RowKind.OTHER),
        ("PreToolUse", RowKind.OTHER),
        ("PostToolUse", RowKind.OTHER),
    ],
)
def test_formats_progress_depends_on_its_hook(hook: str | None, kind: RowKind) -> None:
    """Progress is work unless a hook makes it, of which Stop alone ends a turn."""
    assert kind_of("progress", {} if hook is None else {"data.hookEvent": hook}) is kind


def test_formats_exit_is_one_local_command() -> None:
    """`/exit` leaves; another local command, or an exit that is a prompt, does not."""
    assert kind_of("local_command", {"command": "/exit"}) is RowKind.EXIT
    assert kind_of("local_command", {"command": "/clear"}) is RowKind.OTHER
    assert kind_of("local_command", {}) is RowKind.OTHER
    assert kind_of("request", {"command": "/exit"}) is RowKind.BEGIN


@pytest.mark.parametrize(
    "event",
    [
        "meta",
        "compact_summary",
        "synthetic_response",
        "api_error_message",
        "pr-link",
        "info",
        "warning",
        "attachment",
        "queue:enqueue",
        "system",
        "system:api_error",
        "system:compact_boundary",
        "system:local_command",
        "system:microcompact_boundary",
        "an event of tomorrow",
    ],
)
def test_formats_all_else_is_a_sign_of_life(event: str) -> None:
    """What the table does not name neither begins nor ends anything, whatever its fields are."""
    assert kind_of(event, {}) is RowKind.OTHER
    assert kind_of(event, {"data.hookEvent": "Stop", "command": "/exit"}) is RowKind.OTHER


# --- event lines ----------------------------------------------------------------------------


def test_formats_event_line_becomes_an_entry() -> None:
    """An event line gives its instant, session, event and the field its kind hangs on."""
    line = EVENT_LINE | {"event": "progress", "data.hookEvent": "Stop", "data.type": "x", "y": [1]}
    entry = EVENT_LINES.entry(line)
    assert entry is not None
    assert entry.at == datetime(2026, 1, 5, 12, 17, 31, 459000, tzinfo=UTC)
    assert (entry.session, entry.event) == ("a1", "progress")
    assert entry.fields == {"data.hookEvent": "Stop"}


@given(st.integers(0, 8_000_000_000 * 10**6))
def test_formats_seconds_are_exact_to_the_microsecond(microseconds: int) -> None:
    """Epoch seconds with six decimals give that microsecond, no neighbour of it."""
    entry = EVENT_LINES.entry(EVENT_LINE | {"ts": microseconds / 10**6})
    assert entry is not None
    assert entry.at == EPOCH + timedelta(microseconds=microseconds)


def test_formats_whole_seconds_are_taken() -> None:
    """Seconds may be an integer, from 1970 on."""
    first, later = (EVENT_LINES.entry(EVENT_LINE | {"ts": ts}) for ts in (0, 1767615451))
    assert first is not None
    assert first.at == EPOCH
    assert later is not None
    assert later.at == datetime(2026, 1, 5, 12, 17, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ts", "problem"),
    [
        ("1767615451", 'ts: expected seconds since 1970, got "1767615451"'),
        (None, "ts: expected seconds since 1970, got null"),
        (True, "ts: expected seconds since 1970, got true"),
        ([1], "ts: expected seconds since 1970, got [1]"),
        (float("nan"), "ts: NaN lies outside the years 1970 to 9998"),
        (float("inf"), "ts: Infinity lies outside the years 1970 to 9998"),
        (-0.001, "ts: -0.001 lies outside the years 1970 to 9998"),
        (10**30, f"ts: {10**30} lies outside the years 1970 to 9998; are these milliseconds?"),
        (253_370_764_800, "ts: 253370764800 lies outside the years 1970 to 9998"),
        (
            1767615451459,
            "ts: 1767615451459 lies outside the years 1970 to 9998; are these milliseconds?",
        ),
    ],
)
def test_formats_bad_seconds_are_named(ts: object, problem: str) -> None:
    """Seconds that are no number, not finite or out of range are a fault; a bool is no number."""
    (found,) = problems_of(EVENT_LINES, EVENT_LINE | {"ts": ts})
    assert found.startswith(problem)


def test_formats_every_fault_of_an_event_line_is_named() -> None:
    """All that is wrong with a line is told, not the first thing."""
    assert problems_of(EVENT_LINES, {"ts": {}, "session": 7}) == (
        "ts: expected seconds since 1970, got {}",
        "session: expected the id of a session, got 7",
        "event: expected a text, it is missing",
    )
    assert problems_of(EVENT_LINES, EVENT_LINE | {"event": ""}) == (
        'event: expected a text, got ""',
    )


@pytest.mark.parametrize(
    ("event", "key"), [("progress", "data.hookEvent"), ("local_command", "command")]
)
def test_formats_event_line_detail_must_be_text(event: str, key: str) -> None:
    """The field that a kind hangs on may be missing or null, but not of another type."""
    for fields in ({}, {key: None}):
        entry = EVENT_LINES.entry(EVENT_LINE | {"event": event} | fields)
        assert entry is not None
        assert entry.fields == {}
    assert problems_of(EVENT_LINES, EVENT_LINE | {"event": event, key: ["Stop"]}) == (
        f'{key}: expected a text, got ["Stop"]',
    )


@pytest.mark.parametrize("missing", ["ts", "session", "event"])
def test_formats_an_event_line_lacks_one_thing_at_most(missing: str) -> None:
    """A line that lacks one of the three is still known as an event line, with a fault."""
    line = {key: value for key, value in EVENT_LINE.items() if key != missing}
    assert EVENT_LINES.recognizes(line)
    (problem,) = problems_of(EVENT_LINES, line)
    assert problem.startswith(f"{missing}: ")
    assert problem.endswith("it is missing")


# --- ids of sessions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        ("", "an id has 1 to 255 characters, this one has 0"),
        ("x" * 256, "an id has 1 to 255 characters, this one has 256"),
        (" a", '" a" begins or ends with a blank'),
        ("a ", '"a " begins or ends with a blank'),
        ("a\x00b", '"a\\u0000b" has characters that can\'t be printed'),
        ("a\nb", '"a\\nb" has characters that can\'t be printed'),
        ("a\ud800b", '"a\\ud800b" has characters that can\'t be printed'),
    ],
)
@pytest.mark.parametrize(
    ("format", "line", "key"),
    [(EVENT_LINES, EVENT_LINE, "session"), (CLAUDE_CODE, TRANSCRIPT_LINE, "sessionId")],
)
def test_formats_bad_session_ids_are_named(
    format: Format, line: Mapping[str, Any], key: str, session: str, problem: str
) -> None:
    """An id that the library would refuse is a fault of its line, in every format."""
    assert problems_of(format, {**line, key: session}) == (f"{key}: {problem}",)


@given(st.text(st.characters(codec=None), max_size=300) | st.text(" \tab\x00é\u2028", max_size=4))
def test_formats_take_the_session_ids_that_the_library_takes(session: str) -> None:
    """A line's id is taken if, and only if, a state could be made with it."""
    try:
        SessionState.new(session, at=EPOCH)
    except StateInvalidError:
        taken = False
    else:
        taken = True
    if taken:
        assert EVENT_LINES.entry(EVENT_LINE | {"session": session}) is not None
    else:
        assert problems_of(EVENT_LINES, EVENT_LINE | {"session": session})


# --- Claude Code's transcripts --------------------------------------------------------------

MAIN = [
    (3, "queue:dequeue", RowKind.OTHER),
    (4, "progress", RowKind.OTHER),
    (5, "request", RowKind.BEGIN),
    (6, "response", RowKind.BEGIN),
    (7, "response", RowKind.BEGIN),
    (8, "progress", RowKind.OTHER),
    (9, "tool_result", RowKind.BEGIN),
    (10, "response", RowKind.BEGIN),
    (11, "progress", RowKind.END),
    (12, "system:stop_hook_summary", RowKind.END),
    (13, "system:turn_duration", RowKind.END),
    (14, "meta", RowKind.OTHER),
    (15, "local_command", RowKind.OTHER),
    (16, "local_command", RowKind.OTHER),
    (17, "request", RowKind.BEGIN),
    (18, "meta", RowKind.OTHER),
    (19, "response", RowKind.BEGIN),
    (20, "progress", RowKind.BEGIN),
    (21, "queue:enqueue", RowKind.OTHER),
    (22, "tool_result", RowKind.BEGIN),
    (23, "interrupt", RowKind.END),
    (24, "queue:popAll", RowKind.OTHER),
    (25, "request", RowKind.BEGIN),
    (26, "system:api_error", RowKind.OTHER),
    (27, "api_error_message", RowKind.OTHER),
    (28, "interrupt", RowKind.END),
    (29, "task_notification", RowKind.BEGIN),
    (30, "response", RowKind.BEGIN),
    (31, "system:compact_boundary", RowKind.OTHER),
    (32, "compact_summary", RowKind.OTHER),
    (33, "local_command", RowKind.OTHER),
    (34, "local_command", RowKind.OTHER),
    (35, "request", RowKind.BEGIN),
    (36, "hook_stopped", RowKind.END),
    (37, "pr-link", RowKind.OTHER),
    (38, "local_command", RowKind.EXIT),
    (39, "local_command", RowKind.OTHER),
    (40, "synthetic_response", RowKind.OTHER),
]
SUB_AGENT = [
    (1, "progress", RowKind.BEGIN),
    (2, "response", RowKind.BEGIN),
    (3, "tool_result", RowKind.BEGIN),
    (4, "response", RowKind.BEGIN),
]
NEWER = [
    (3, "progress", RowKind.OTHER),
    (4, "request", RowKind.BEGIN),
    (5, "attachment", RowKind.OTHER),
    (7, "response", RowKind.BEGIN),
    (8, "progress", RowKind.END),
    (9, "request", RowKind.BEGIN),
    (10, "response", RowKind.BEGIN),
    (11, "hook_stopped", RowKind.END),
    (12, "system:away_summary", RowKind.OTHER),
    (13, "system:informational", RowKind.OTHER),
    (14, "system", RowKind.OTHER),
    (15, "local_command", RowKind.EXIT),
    (16, "system:local_command", RowKind.OTHER),
]
SESSION = "5a000000-0000-4000-8000-00000000000"


@pytest.mark.parametrize(
    ("file", "session", "expected"),
    [
        (f"{SESSION}1.jsonl", f"{SESSION}1", MAIN),
        (f"{SESSION}1/subagents/agent-a1b2.jsonl", f"{SESSION}1", SUB_AGENT),
        (f"{SESSION}2.jsonl", f"{SESSION}2", NEWER),
        (f"{SESSION}3.jsonl", "", []),
    ],
)
def test_formats_transcript_becomes_the_same_events(
    file: str, session: str, expected: list[tuple[int, str, RowKind]]
) -> None:
    """Each line of a transcript is the event that it is, or no row if it is bookkeeping."""
    log = read_log([TRANSCRIPTS / file])
    assert log.faults == ()
    assert log.late_rows == 0
    assert [(row.line, row.event, row.kind) for row in log.rows] == expected
    assert all(row.session == session for row in log.rows)
    assert all(row.request == (row.event == "request") for row in log.rows)


def test_formats_transcript_instants_are_exact() -> None:
    """A transcript's instant keeps its fraction and is told in UTC, whatever its offset."""
    for text in ("2026-03-02T09:00:00.125Z", "2026-03-02T11:30:00.125000+02:30"):
        entry = CLAUDE_CODE.entry(TRANSCRIPT_LINE | {"timestamp": text})
        assert entry is not None
        assert entry.at == datetime(2026, 3, 2, 9, 0, 0, 125000, tzinfo=UTC)
        assert entry.at.tzinfo is UTC


@pytest.mark.parametrize(
    ("timestamp", "problem"),
    [
        (1772442000125, "expected an ISO 8601 instant, got 1772442000125"),
        (None, "expected an ISO 8601 instant, got null"),
        ("yesterday", 'expected an ISO 8601 instant, got "yesterday"'),
        ("2026-03-02", 'expected an ISO 8601 instant, got "2026-03-02"'),
        ("2026-W10-1T09:00:00Z", 'expected an ISO 8601 instant, got "2026-W10-1T09:00:00Z"'),
        ("2026-03-02T09:00:00.125", '"2026-03-02T09:00:00.125" has no time zone'),
        ("2026-02-30T09:00:00Z", '"2026-02-30T09:00:00Z" is no instant: '),
        ("0001-01-01T00:00:00+09:00", '"0001-01-01T00:00:00+09:00" is no instant: '),
        ("1969-12-31T23:59:59Z", '"1969-12-31T23:59:59Z" lies outside the years 1970 to 9998'),
        ("9999-01-01T00:00:00Z", '"9999-01-01T00:00:00Z" lies outside the years 1970 to 9998'),
    ],
)
def test_formats_bad_instants_are_named(timestamp: object, problem: str) -> None:
    """An instant without a zone, on no calendar, out of range or of another shape is a fault."""
    (found,) = problems_of(CLAUDE_CODE, TRANSCRIPT_LINE | {"timestamp": timestamp})
    assert found.startswith(f"timestamp: {problem}")


@pytest.mark.parametrize(
    "kind", ["user", "assistant", "system", "progress", "attachment", "queue-operation"]
)
def test_formats_conversation_needs_a_session_and_a_time(kind: str) -> None:
    """A line of the conversation without session or time is a fault, never silence."""
    content = {
        "message": {"content": "x"},
        "data": {},
        "attachment": {},
        "operation": "enqueue",
        "parentUuid": None,
    }
    assert problems_of(CLAUDE_CODE, {"type": kind, **content}) == (
        "timestamp: expected an ISO 8601 instant, it is missing",
        "sessionId: expected the id of a session, it is missing",
    )


@pytest.mark.parametrize(
    "line",
    [
        {"type": "summary", "summary": "x", "leafUuid": "y"},
        {"type": "file-history-snapshot", "messageId": "x", "snapshot": {}},
        {"type": "custom-title", "customTitle": "x", "sessionId": "a1"},
        {"type": "last-prompt", "lastPrompt": "x", "sessionId": "a1"},
        {"type": "mode", "mode": "normal", "sessionId": "a1"},
        {"type": "a type of tomorrow", "timestamp": "2026-03-02T09:00:00Z"},
        {"type": "a type of tomorrow", "sessionId": "a1"},
    ],
)
def test_formats_bookkeeping_is_neither_row_nor_fault(line: dict[str, Any]) -> None:
    """A line that has no session or no time by design is left out without a word."""
    assert CLAUDE_CODE.entry(line) is None


def test_formats_unknown_type_with_a_place_is_a_row() -> None:
    """A type that a newer release brings keeps its own word and is a sign of life."""
    entry = CLAUDE_CODE.entry(TRANSCRIPT_LINE | {"type": "a type of tomorrow"})
    assert entry is not None
    assert kind_of(entry.event, entry.fields) is RowKind.OTHER
    assert entry.event == "a type of tomorrow"


@pytest.mark.parametrize(
    ("line", "event", "fields"),
    [
        (user("plain"), "request", {}),
        (user(""), "request", {}),
        (user([]), "request", {}),
        (user([{"type": "text", "text": "in a block"}]), "request", {}),
        (user("a word on <task-notification>"), "request", {}),
        (user("  <task-notification>x"), "task_notification", {}),
        (user("[Request interrupted by user] – what is this?"), "request", {}),
        (user(" [Request interrupted by user]\n"), "interrupt", {}),
        (user("Operation stopped by hook"), "hook_stopped", {}),
        (user("Operation stopped by hooks, why?"), "request", {}),
        (user("x", isMeta=False, isSidechain=False, isCompactSummary=False), "request", {}),
        (user("x", isMeta=True), "meta", {}),
        (user("x", isCompactSummary=True), "compact_summary", {}),
        (user("x", toolUseResult="Error"), "tool_result", {}),
        (user("x", isSidechain=True), "progress", {}),
        (user("<local-command-stderr>x"), "local_command", {}),
        (user("<local-command-caveat>x"), "local_command", {}),
        (user("<bash-stderr>x"), "local_command", {}),
        (user("<command-name>/clear</command-name>"), "local_command", {"command": "/clear"}),
        (user("<command-name>clear</command-name>"), "local_command", {"command": "/clear"}),
        (user("<command-name>/quit</command-name>"), "local_command", {"command": "/exit"}),
        (
            user("<command-message>exit</command-message>\n<command-name>/exit</command-name>"),
            "local_command",
            {"command": "/exit"},
        ),
        (
            user("<command-message>pdf</command-message><command-name>pdf</command-name>"),
            "request",
            {"command": "/pdf"},
        ),
        (user("<command-message>no name</command-message>"), "request", {}),
        (
            user(
                [
                    {"type": "tool_result", "tool_use_id": "t", "content": "rejected"},
                    {"type": "text", "text": "No, not there."},
                    {"type": "text", "text": "[Request interrupted by user for tool use]"},
                ]
            ),
            "interrupt",
            {},
        ),
        (
            user(
                [
                    {"type": "tool_result", "tool_use_id": "t", "content": "x"},
                    {"type": "text", "text": "and a reminder"},
                ]
            ),
            "tool_result",
            {},
        ),
    ],
)
def test_formats_typed_prompts_are_told_from_what_looks_like_them(
    line: dict[str, Any], event: str, fields: dict[str, str]
) -> None:
    """Of all that is written as a line of the user, only what a person typed is a request."""
    entry = CLAUDE_CODE.entry(line)
    assert entry is not None
    assert (entry.event, entry.fields) == (event, fields)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (TRANSCRIPT_LINE | {"type": 5}, "type: expected a text, got 5"),
        (TRANSCRIPT_LINE | {"type": "user", "message": None}, "message: expected an object, got"),
        (TRANSCRIPT_LINE | {"message": "x"}, 'message: expected an object, got "x"'),
        (user(None), "message.content: expected a text or a list, got null"),
        (user({"a": 1}), 'message.content: expected a text or a list, got {"a": 1}'),
        (TRANSCRIPT_LINE | {"type": "system", "subtype": 1}, "subtype: expected a text, got 1"),
        (TRANSCRIPT_LINE | {"type": "progress"}, "data: expected an object, it is missing"),
        (
            TRANSCRIPT_LINE | {"type": "progress", "data": {"hookEvent": ["Stop"]}},
            'data.hookEvent: expected a text, got ["Stop"]',
        ),
        (
            TRANSCRIPT_LINE | {"type": "attachment", "attachment": {"hookEvent": 3}},
            "attachment.hookEvent: expected a text, got 3",
        ),
        (TRANSCRIPT_LINE | {"type": "queue-operation"}, "operation: expected a text, it is miss"),
    ],
)
def test_formats_bad_transcript_lines_are_named(line: dict[str, Any], problem: str) -> None:
    """A field that decides what a line is must be of its type; the fault names its path."""
    (found,) = problems_of(CLAUDE_CODE, line)
    assert found.startswith(problem)


# --- telling the formats apart --------------------------------------------------------------


def test_formats_each_line_has_one_format() -> None:
    """Every line of the test data is recognized by its own format and by no other."""
    files = sorted(TRANSCRIPTS.rglob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(lines) > 60
    later = [line for line in lines if line["type"] != "file-history-delta"]
    assert all(CLAUDE_CODE.recognizes(line) for line in later)
    assert not any(EVENT_LINES.recognizes(line) for line in lines)
    assert EVENT_LINES.recognizes(EVENT_LINE)
    assert not CLAUDE_CODE.recognizes(EVENT_LINE)


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"a": 1},
        {"event": "boot"},
        {"type": "system", "timestamp": "2026-03-02T09:00:00Z", "message": "disk is full"},
        {"type": "session_meta", "timestamp": "2026-03-02T09:00:00Z", "payload": {}},
        {"display": "x", "timestamp": 1772442000125, "sessionId": "a1"},
        {"type": None, "sessionId": "a1"},
    ],
)
def test_formats_other_logs_are_not_taken_for_ours(line: dict[str, Any]) -> None:
    """A line of some other program's log is recognized by no format."""
    assert not any(format.recognizes(line) for format in FORMATS)


def test_formats_have_names_of_their_own() -> None:
    """People are told of formats by name, so no two share one."""
    assert len({format.name for format in FORMATS}) == len(FORMATS) > 1
