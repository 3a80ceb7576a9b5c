"""The report of a replay: its keys, its figures, and that they are the right ones."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from replay_model import replay_model, rows_in
from replaying import (
    MICROSECOND,
    SAMPLE,
    assert_agrees,
    events_of,
    lives_of,
    log_of,
    model_lives,
    position_in,
    prints_in,
    row,
    unbroken_trace,
    url_of,
)

from session_fsm import SESSION_LIFECYCLE, SessionManager
from session_fsm.replay import Log, LogRow, Report, replay
from session_fsm.replay.report import Tally
from session_fsm.stores import MemoryStore, open_store

STABLE_KEYS = (
    "rows",
    "sessions",
    "successors",
    "requests",
    "ended",
    "edges",
    "refusals",
    "findings",
    "trailing_rows",
    "seconds_in_status",
    "peak_open",
    "late_rows",
    "verified",
)
FURTHER_KEYS = ("problems", "rows_per_second")


def report_of(*rows: LogRow, **settings: Any) -> Report:
    """Replay some rows into memory."""
    return replay(log_of(*rows), MemoryStore(), **settings)


def ticks(*seconds: float) -> Callable[[], float]:
    """A stopwatch that shows these times, one at each look."""
    return iter(seconds).__next__


# --- its form -------------------------------------------------------------------------------


def test_report_has_the_stable_keys_and_plain_values() -> None:
    """A report is a JSON object under keys that programs may rely on, in one order."""
    report = report_of(row(0, "request"), row(1, "exit"), row(2, "request"))
    told = report.as_dict()
    assert tuple(told) == (*STABLE_KEYS, *FURTHER_KEYS)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert set(told["ended"]) == {"exit", "expired", "open"}
    assert {type(told[key]) for key in ("rows", "sessions", "requests", "peak_open")} == {int}
    assert told["verified"] is True
    assert told["problems"] == []


def test_report_keys_are_plain_words() -> None:
    """Statuses and edges are told as words, all of them, in the order of the table."""
    report = report_of(row(0, "meta"))
    words = [str(status) for status in SESSION_LIFECYCLE.statuses]
    assert list(report.seconds_in_status) == words
    assert {type(status) for status in report.seconds_in_status} == {str}
    edges = [f"{source}->{target}" for source, target in SESSION_LIFECYCLE.edges]
    assert list(report.edges) == edges
    assert len(edges) == 7


def test_report_moves_are_the_edges_as_pairs() -> None:
    """A diagram gets the moves by (source, target), with the same numbers."""
    report = report_of(row(0, "request"), row(1, "interrupt"), row(2, "request"))
    assert set(report.moves()) == set(SESSION_LIFECYCLE.edges)
    assert report.moves()["active", "idle"] == report.edges["active->idle"] == 1
    assert sum(report.moves().values()) == sum(report.edges.values()) == 3


def test_report_is_frozen_and_compares_without_its_rate() -> None:
    """Two reports of one replay are equal, however fast either was."""
    log = log_of(row(0, "request"))
    slow = replay(log, MemoryStore(), stopwatch=ticks(0, 10))
    fast = replay(log, MemoryStore(), stopwatch=ticks(0, 0.1))
    assert slow == fast
    assert slow != attrs.evolve(slow, trailing_rows=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        slow.rows = 2  # type: ignore[misc]  # that it can't be set is what is tested


def test_report_rate_is_that_of_the_rows_of_this_run() -> None:
    """The rate counts the rows that this run replayed; where none was left there is no rate."""
    log, store = log_of(*(row(float(n), "meta") for n in range(10))), MemoryStore()

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(log, store, rows_per_batch=4, on_progress=stop)
    assert replay(log, store, stopwatch=ticks(100, 102)).rows_per_second == 3.0
    assert replay(log, store, stopwatch=ticks(100, 102)).rows_per_second is None
    assert replay(log, MemoryStore(), stopwatch=ticks(5, 5)).rows_per_second is None


def test_report_tally_survives_the_store() -> None:
    """What is kept in the store is read again as it was, and can be counted on with."""
    tally = Tally(input="x", position=3, successors=1)
    tally.count("refusals", "guard")
    again = Tally.from_json(tally.to_json())
    assert again == tally
    again.count("refusals", "guard")
    again.count("findings", "begin_after_exit")
    assert (again.refusals, again.findings) == ({"guard": 2}, {"begin_after_exit": 1})


# --- its figures ----------------------------------------------------------------------------


def test_report_counts_a_life_of_each_kind() -> None:
    """Sessions are told by their ends, moves by their edges, time by status."""
    report = report_of(
        row(0, "request", "exits"),
        row(10, "exit", "exits"),
        row(0, "request", "expires"),
        row(20, "interrupt", "expires"),
        row(1820 - 30, "request", "stays"),
        row(1820 + 40, "meta", "stays"),
        row(1820 + 40, "meta", "exits"),
    )
    assert report.ended == {"exit": 1, "expired": 1, "open": 1}
    assert report.edges == {
        "initializing->active": 3,
        "initializing->terminated": 0,
        "active->idle": 1,
        "active->terminating": 1,
        "idle->active": 0,
        "idle->terminating": 1,
        "terminating->terminated": 2,
    }
    assert report.seconds_in_status == {
        "initializing": 0.0,
        "active": 10.0 + 20.0 + 70.0,
        "idle": 1800.0,
        "terminating": 0.0,
        "terminated": 1850.0 + 40.0,
    }
    assert (report.rows, report.sessions, report.requests, report.trailing_rows) == (7, 3, 3, 1)
    assert report.verified


def test_report_times_add_up_to_the_microsecond() -> None:
    """Times are summed exactly: as floating-point numbers, a hundred tenths are not ten seconds."""
    rows = [
        (row(n, "request", f"s{n}"), row(n + 0.100001, "interrupt", f"s{n}")) for n in range(1000)
    ]
    report = report_of(*(each for pair in rows for each in pair), timeout_minutes=None)
    assert report.seconds_in_status["active"] == 100.001
    assert report.seconds_in_status["idle"] == 499500.0


@pytest.mark.parametrize(
    ("rows", "peak"),
    [
        ([], 0),
        ([row(0, "meta")], 1),
        ([row(0, "meta", "a"), row(0, "meta", "b"), row(0, "meta", "c")], 3),
        # One ends before the other begins, or at the very instant, or just after.
        ([row(0, "meta", "a"), row(5, "exit", "a"), row(6, "meta", "b")], 1),
        ([row(0, "meta", "a"), row(5, "exit", "a"), row(5, "meta", "b")], 1),
        ([row(0, "meta", "a"), row(5, "meta", "b"), row(5, "exit", "a")], 1),
        ([row(0, "meta", "a"), row(5, "meta", "b"), row(5 + MICROSECOND, "exit", "a")], 2),
        # An expiry between rows makes room at its own instant.
        ([row(0, "meta", "a"), row(1800, "meta", "b"), row(9999, "meta", "c")], 1),
        ([row(0, "meta", "a"), row(1799, "meta", "b"), row(9999, "meta", "c")], 2),
        # A successor takes the place of the one that it follows.
        ([row(0, "meta", "a"), row(5, "exit", "a"), row(5, "request", "a")], 1),
    ],
)
def test_report_peak_counts_sessions_that_are_open_together(rows: list[LogRow], peak: int) -> None:
    """The peak is the most sessions open at once; an end makes room at its instant."""
    assert report_of(*rows).peak_open == peak


def test_report_tells_late_rows_of_the_log() -> None:
    """How many rows were late was judged before sorting, and is handed on."""
    assert replay(log_of(row(0, "meta"), late_rows=17), MemoryStore()).late_rows == 17


# --- its verification -----------------------------------------------------------------------


def tamper(path: Path, statement: str, *names: str) -> None:
    """Change a database against its own rules, and put the rules back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in names:
            query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?"
            [(rule,)] = connection.execute(query, (name,)).fetchall()
            connection.execute(f"DROP TRIGGER {name}")
            connection.execute(statement)
            connection.execute(rule)


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        (
            "session_event_is_written_once",
            """UPDATE session_event
            SET body = CAST(replace(CAST(body AS TEXT), 'begin_task', 'began_task') AS BLOB)
            WHERE session_id = 'a' AND revision = 3""",
        ),
        (
            "session_goes_on",
            """UPDATE session
            SET state = replace(state, '"conversation_count":1', '"conversation_count":7')
            WHERE session_id = 'a'""",
        ),
        (
            "session_event_stays",
            "DELETE FROM session_event WHERE session_id = 'a' AND revision = 3",
        ),
    ],
)
def test_report_says_when_a_session_disagrees_with_its_history(
    tmp_path: Path, rule: str, statement: str
) -> None:
    """A store that was tampered with is not verified, and the problem names the session."""
    log, path = log_of(row(0, "request"), row(1, "meta", "b")), tmp_path / "s.db"
    store = open_store(url_of(path))
    assert replay(log, store).verified
    store.close()
    tamper(path, statement, rule)
    store = open_store(url_of(path))
    report = replay(log, store)
    store.close()
    assert report.verified is False
    assert report.problems
    assert all("'a'" in problem for problem in report.problems)
    assert report.as_dict()["problems"] == list(report.problems)


# --- whole traces ---------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Figures:
    """What a trace comes to, counted by other means or worked out from the script of the sample."""

    rows: int
    ids: int
    requests: int
    sessions: int
    ended: dict[str, int]
    to_idle: int
    from_idle: int
    peak_open: int


TRACES = {
    "sample": (
        SAMPLE,
        Figures(
            rows=2_706,
            ids=25,
            requests=120,
            sessions=30,
            ended={"exit": 5, "expired": 23, "open": 2},
            to_idle=118,
            from_idle=91,
            peak_open=5,
        ),
    )
}
if shared := os.environ.get("SESSION_FSM_TRACE"):
    TRACES["shared"] = (
        Path(shared),
        Figures(
            rows=99_790,
            ids=277,
            requests=1_903,
            sessions=434,
            ended={"exit": 46, "expired": 387, "open": 1},
            to_idle=2_312,
            from_idle=1_882,
            peak_open=6,
        ),
    )

each_trace = pytest.mark.parametrize(("path", "figures"), TRACES.values(), ids=TRACES)


@each_trace
def test_report_of_a_trace_has_the_right_figures(path: Path, figures: Figures) -> None:
    """What is known of a trace by other means stands in its report."""
    report, log = unbroken_trace(path).report, unbroken_trace(path).log
    found = Figures(
        rows=report.rows,
        ids=len({row.session for row in log.rows}),
        requests=report.requests,
        sessions=report.sessions,
        ended=report.ended,
        to_idle=report.edges["active->idle"],
        from_idle=report.edges["idle->active"],
        peak_open=report.peak_open,
    )
    assert found == figures
    assert report.successors == report.sessions - found.ids
    assert report.verified
    assert report.problems == ()
    assert report.refusals == {}
    assert report.late_rows == 0
    assert sum(report.findings.values()) == report.successors


@each_trace
def test_report_of_a_trace_agrees_with_the_model(path: Path, figures: Figures) -> None:
    """Every figure, and every move of every session, is what a recount by other means gives."""
    whole = unbroken_trace(path)
    told = replay_model(rows_in(path))
    assert told["sessions"] == figures.sessions
    assert_agrees(whole.report, told)
    assert lives_of(whole.store) == model_lives(told)


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_minutes": 1, "quiet_gap_seconds": 600.0},
        {"timeout_minutes": 240, "quiet_gap_seconds": 5.0},
        {"timeout_minutes": None},
    ],
)
def test_report_of_the_sample_agrees_with_the_model_at_other_settings(
    settings: dict[str, Any],
) -> None:
    """The recount agrees whatever the time-out and the quiet gap are."""
    report = replay(unbroken_trace(SAMPLE).log, MemoryStore(), **settings)
    assert_agrees(report, replay_model(rows_in(SAMPLE), **settings))
    assert report != unbroken_trace(SAMPLE).report


@each_trace
def test_report_of_a_trace_in_a_file_is_the_same(
    tmp_path: Path, path: Path, figures: Figures
) -> None:
    """A file holds what memory held, event by event, and is reported alike when opened again."""
    whole, file = unbroken_trace(path), tmp_path / "s.db"
    store = open_store(url_of(file))
    report = replay(whole.log, store)
    whole.assert_whole(prints_in(file), report)
    store.close()
    assert position_in(file) == figures.rows
    with SessionManager(url_of(file)) as manager:
        verified = manager.verify()
        assert (verified.ok, verified.sessions) == (True, figures.sessions)
        assert verified.events == len(whole.store.prints)
    store = open_store(url_of(file))
    again = replay(whole.log, store)
    store.close()
    whole.assert_whole(prints_in(file), again)


@each_trace
def test_report_times_of_a_trace_add_up(path: Path, figures: Figures) -> None:
    """The time in all statuses together is that from each session's birth to the last row."""
    whole = unbroken_trace(path)
    end = whole.log.rows[-1].at
    births = [events[0].at for events in events_of(whole.store).values()]
    assert len(births) == figures.sessions
    total = sum((end - birth for birth in births), timedelta(0))
    spent = sum(whole.report.seconds_in_status.values())
    assert spent == pytest.approx(total.total_seconds(), abs=1e-3)


def test_report_log_without_requests_is_a_report_too() -> None:
    """A log in which nobody typed a prompt has sessions all the same."""
    report = replay(
        Log(rows=(row(0, "response"),), late_rows=0, faults=(), digest="x"), MemoryStore()
    )
    assert (report.requests, report.sessions) == (0, 1)
