"""Rows of a log become moves of sessions, each at the log's own times."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_model import SECOND, replay_model
from replaying import (
    MICROSECOND,
    SAMPLE,
    START,
    StopError,
    assert_agrees,
    events_of,
    lives_of,
    log_of,
    model_lives,
    model_rows,
    row,
    seconds_of,
    steps_of,
    stop_at,
    unbroken_run,
    unbroken_trace,
    url_of,
    word_of,
)

from session_fsm import SessionConfig, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.errors import StateInvalidError, StoreUnavailableError
from session_fsm.replay import Log, LogRow, ReplayError, Report, RowKind, read_log, replay
from session_fsm.state import SessionState
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore, open_store
from session_fsm.stores.records import Commit

MINUTE = 60.0
TIMEOUT = 30 * MINUTE
QUIET_GAP = 120.0


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    """An empty store, once of each kind."""
    opened = open_store("memory://" if request.param == "memory" else url_of(tmp_path / "s.db"))
    yield opened
    opened.close()


def state_in(store: SessionStore, session_id: str) -> SessionState:
    """The state of a session that is stored."""
    stored = store.load(session_id)
    assert stored is not None
    return stored.state


def names_in(store: SessionStore) -> dict[str, tuple[str, str | None]]:
    """Of each session, the id in the log that it was made for, and whom it follows."""
    return {key: (life["name"], life["before"]) for key, life in lives_of(store).items()}


def counted(report: Report) -> dict[str, int]:
    """The moves of a report, without those that were never made."""
    return {edge: number for edge, number in report.edges.items() if number}


# --- what a row does ------------------------------------------------------------------------

BEFORE: dict[str, list[LogRow]] = {
    "new": [],
    "in a turn": [row(0, "request")],
    "at rest": [row(0, "request"), row(10, "interrupt")],
    "active, no turn": [row(0, "meta")],
    "exited": [row(0, "request"), row(10, "exit")],
    "expired": [row(60 - TIMEOUT - 1, "meta")],
}
BORN = ["created", "activate"]
WORK = ["begin_task"]
PROMPT = ["begin_task", "start_conversation"]
GONE = ["terminate", "finish"]
CELLS: dict[tuple[str, str], list[str]] = {
    ("new", "request"): [*BORN, *PROMPT],
    ("new", "response"): [*BORN, *WORK],
    ("new", "interrupt"): [*BORN, "touch"],
    ("new", "exit"): [*BORN, *GONE],
    ("new", "meta"): [*BORN, "touch"],
    ("in a turn", "request"): ["start_conversation"],
    ("in a turn", "response"): [],
    ("in a turn", "interrupt"): ["end_task", "go_idle"],
    ("in a turn", "exit"): ["terminate", "end_task", "finish"],
    ("in a turn", "meta"): [],
    ("at rest", "request"): ["resume", *PROMPT],
    ("at rest", "response"): ["resume", *WORK],
    ("at rest", "interrupt"): ["touch"],
    ("at rest", "exit"): GONE,
    ("at rest", "meta"): ["touch"],
    ("active, no turn", "request"): PROMPT,
    ("active, no turn", "response"): WORK,
    ("active, no turn", "interrupt"): ["touch"],
    ("active, no turn", "exit"): GONE,
    ("active, no turn", "meta"): ["touch"],
} | {
    (ended, event): steps
    for ended in ("exited", "expired")
    for event, steps in {
        "request": [*BORN, *PROMPT],
        "response": [*BORN, *WORK],
        "interrupt": [],
        "exit": [],
        "meta": [],
    }.items()
}


@pytest.mark.parametrize(("before", "event"), CELLS, ids=[f"{e}, {b}" for b, e in CELLS])
def test_replay_row_does_its_cell_of_the_table(before: str, event: str) -> None:
    """Each kind of row does to each kind of session what the table says, at the row's instant."""
    store = MemoryStore()
    report = replay(log_of(*BEFORE[before], row(60, event)), store)
    steps = {
        session_id: [word_of(step) for step in events if seconds_of(step) == 60]
        for session_id, events in events_of(store).items()
    }
    goes_on = before in ("exited", "expired")
    begins = event in ("request", "response")
    assert steps == {"a": [] if goes_on else CELLS[before, event]} | (
        {"a~2": CELLS[before, event]} if goes_on and begins else {}
    )
    way = {"exited": "exit", "expired": "expiry"}.get(before)
    assert report.findings == ({f"begin_after_{way}": 1} if goes_on and begins else {})
    assert report.successors == (goes_on and begins)
    assert report.trailing_rows == (goes_on and not begins)
    assert report.refusals == {}
    assert report.verified


def test_replay_turn_is_one_task_from_its_first_row_to_its_end() -> None:
    """Further rows of work in a turn begin nothing; the turn ends at the row that ends it."""
    store = MemoryStore()
    log = log_of(
        row(0, "meta"),
        row(5, "request"),
        row(6, "response"),
        row(7, "response"),
        row(8, "meta"),
        row(9, "interrupt"),
        row(20, "response"),
    )
    report = replay(log, store)
    assert steps_of(store, "a") == [
        (0, "created"),
        (0, "activate"),
        (0, "touch"),
        (5, "begin_task"),
        (5, "start_conversation"),
        (9, "end_task"),
        (9, "go_idle"),
        (20, "resume"),
        (20, "begin_task"),
    ]
    assert state_in(store, "a").active_tasks == ("turn",)
    assert counted(report) == {"initializing->active": 1, "active->idle": 1, "idle->active": 1}


def test_replay_each_prompt_is_a_conversation() -> None:
    """A prompt counts a conversation in a new turn and in one in flight; other work does not."""
    store = MemoryStore()
    log = log_of(row(0, "request"), row(1, "request"), row(2, "response"), row(3, "request"))
    assert replay(log, store).requests == 3
    assert state_in(store, "a").conversation_count == 3


def test_replay_history_says_why_a_turn_ended() -> None:
    """The end of a turn tells whether a row, a gap or an exit ended it."""
    store = MemoryStore()
    replay(
        log_of(
            row(0, "request"), row(1, "interrupt"), row(2, "request"), row(200, "request"),
            row(201, "exit"),
        ),
        store,
    )  # fmt: skip
    ends = [event for event in events_of(store)["a"] if event.trigger == "end_task"]
    assert [event.reason for event in ends] == ["interrupt", "quiet", "dropped: exit"]
    (left,) = [event for event in events_of(store)["a"] if event.trigger == "terminate"]
    assert left.reason == "exit"


def test_replay_exit_in_flight_goes_through_terminating(store: SessionStore) -> None:
    """An exit drops the turn in flight on the legal way, at the row's instant, all at once."""
    report = replay(log_of(row(0, "request"), row(4, "exit")), store)
    moves = [
        (event.source, event.target) for event in events_of(store)["a"] if event.kind == "moved"
    ]
    assert moves[1:] == [("active", "terminating"), ("terminating", "terminated")]
    assert steps_of(store, "a")[-3:] == [(4, "terminate"), (4, "end_task"), (4, "finish")]
    assert state_in(store, "a").active_tasks == ()
    assert store.work_in("a") == ()
    assert report.ended == {"exit": 1, "expired": 0, "open": 0}
    assert report.seconds_in_status["terminating"] == 0


def test_replay_first_row_that_exits_makes_a_session_that_has_ended() -> None:
    """An id whose only row is an exit still has a session, which ended at once."""
    store = MemoryStore()
    report = replay(log_of(row(0, "exit")), store)
    assert (report.sessions, report.ended["exit"]) == (1, 1)
    assert steps_of(store, "a") == [(0, word) for word in (*BORN, *GONE)]


# --- successors -----------------------------------------------------------------------------


def test_replay_successors_are_numbered_and_name_whom_they_follow(store: SessionStore) -> None:
    """Work for an ended session goes to `~2`, `~3`, …, each following the one before."""
    log = log_of(
        row(0, "request"),
        row(1, "exit"),
        row(2, "meta"),  # trailing
        row(3, "interrupt"),  # trailing
        row(4, "response"),
        row(5, "exit"),
        row(6, "exit"),  # trailing
        row(7, "request"),
        row(7 + 2 * TIMEOUT, "request"),
    )
    report = replay(log, store)
    followed = {
        session_id: state_in(store, session_id).metadata.get("resumed_from")
        for session_id in events_of(store)
    }
    assert followed == {"a": None, "a~2": "a", "a~3": "a~2", "a~4": "a~3"}
    assert {state_in(store, each).metadata["log_session"] for each in followed} == {"a"}
    assert report.sessions == 4
    assert report.successors == 3
    assert report.trailing_rows == 3
    assert report.findings == {"begin_after_exit": 2, "begin_after_expiry": 1}
    assert report.ended == {"exit": 2, "expired": 1, "open": 1}


def test_replay_finding_tells_an_expiry_from_an_exit_by_the_last_life() -> None:
    """What ended the session that is gone on with counts, not what ended those before it."""
    log = log_of(
        row(0, "request"),
        row(2 * TIMEOUT, "request"),  # after an expiry
        row(2 * TIMEOUT + 1, "exit"),
        row(2 * TIMEOUT + 2, "request"),  # after an exit
    )
    assert replay(log, MemoryStore()).findings == {"begin_after_exit": 1, "begin_after_expiry": 1}


def test_replay_id_of_the_log_that_looks_like_a_successor_is_its_own() -> None:
    """Whoever comes first has the name; the other one takes the next that is free."""
    ends = (row(0, "request"), row(1, "exit"))
    theirs_first = MemoryStore()
    replay(log_of(*ends, row(2, "meta", "a~2"), row(3, "request")), theirs_first)
    assert names_in(theirs_first) == {
        "a": ("a", None),
        "a~2": ("a~2", None),
        "a~3": ("a", "a"),
    }
    ours_first = MemoryStore()
    report = replay(
        log_of(*ends, row(2, "request"), row(3, "meta", "a~2"), row(4, "exit", "a~2")), ours_first
    )
    assert names_in(ours_first) == {
        "a": ("a", None),
        "a~2": ("a", "a"),
        "a~2~2": ("a~2", None),
    }
    assert report.successors == 1
    assert state_in(ours_first, "a~2").status == "active"


@pytest.mark.parametrize("length", [222, 223, 252, 253, 254, 255])
def test_replay_successors_of_long_ids_have_valid_ids(length: int, store: SessionStore) -> None:
    """An id too long for a number behind it is cut; two that are cut alike are still told apart."""
    names = ["x" * (length - 1) + letter for letter in "yz"]
    rows = [
        row(number * 10 + delay, event, name)
        for number in range(11)
        for name in names
        for delay, event in ((0, "request"), (1, "exit"))
    ]
    report = replay(log_of(*rows), store)
    assert (report.sessions, report.successors, report.verified) == (22, 20, True)
    lives = lives_of(store)
    assert len(lives) == 22
    assert all(len(session_id) <= 255 for session_id in lives)
    for name in names:
        chain = [key for key, life in lives.items() if life["name"] == name]
        befores = {lives[key]["before"] for key in chain}
        assert len(chain) == 11
        assert name in chain
        numbers = {int(key.rpartition("~")[2]) for key in chain if key != name}
        assert numbers == set(range(2, 12))
        assert len(befores) == 11  # each follows another one, and one follows none
        assert befores - {None} < set(chain)


def test_replay_id_that_is_cut_at_a_blank_stays_valid() -> None:
    """An id has no blank at its end, wherever a long one is cut."""
    name = "x" * 100 + " " * 140 + "y" * 15
    store = MemoryStore()
    report = replay(
        log_of(row(0, "exit", name), row(1, "request", name), row(2, "meta", name)), store
    )
    assert (report.sessions, report.verified) == (2, True)


# --- time -----------------------------------------------------------------------------------


def test_replay_session_expires_at_its_own_instant(store: SessionStore) -> None:
    """A deadline between two rows fires at the deadline, not at the row that comes after it."""
    log = log_of(row(0, "request"), row(10, "interrupt"), row(9999, "meta", "b"))
    report = replay(log, store)
    assert steps_of(store, "a")[-2:] == [(10 + TIMEOUT, "expire"), (10 + TIMEOUT, "finish")]
    assert report.ended == {"exit": 0, "expired": 1, "open": 1}
    assert report.seconds_in_status == {
        "initializing": 0.0,
        "active": 10.0,
        "idle": TIMEOUT,
        "terminating": 0.0,
        "terminated": 9999 - TIMEOUT - 10,
    }


def test_replay_interleaved_sessions_each_keep_their_own_clock(store: SessionStore) -> None:
    """Deadlines of several sessions fire in their own order, whatever rows come between."""
    log = log_of(
        row(0, "meta", "c"),
        row(1, "meta", "a"),
        row(2, "request", "b"),
        row(3, "interrupt", "b"),
        row(600, "meta", "a"),
        row(TIMEOUT + 1, "meta", "b"),
        row(3 * TIMEOUT, "meta", "d"),
    )
    replay(log, store)
    expiries = {
        session_id: seconds_of(event)
        for session_id, events in events_of(store).items()
        for event in events
        if event.trigger == "expire"
    }
    assert expiries == {"c": TIMEOUT, "a": 600 + TIMEOUT, "b": 2 * TIMEOUT + 1}


@pytest.mark.parametrize(
    ("delay", "alive"), [(TIMEOUT - MICROSECOND, True), (TIMEOUT, False), (TIMEOUT + 1, False)]
)
@pytest.mark.parametrize("event", ["request", "meta", "exit"])
def test_replay_row_at_the_deadline_is_too_late(event: str, delay: float, alive: bool) -> None:
    """A session has expired at its deadline; a microsecond before, it is alive."""
    report = replay(log_of(row(0, "meta"), row(delay, event)), MemoryStore())
    assert report.ended["expired"] == (not alive)
    assert report.ended["exit"] == (alive and event == "exit")
    assert report.successors == (not alive and event == "request")
    assert report.trailing_rows == (not alive and event != "request")


def test_replay_last_row_at_the_deadline_of_another_session() -> None:
    """What is due at the instant of the last row fires; what is due after it stays open."""
    on_the_dot = replay(log_of(row(0, "meta"), row(TIMEOUT, "meta", "b")), MemoryStore())
    assert on_the_dot.ended == {"exit": 0, "expired": 1, "open": 1}
    before = replay(log_of(row(0, "meta"), row(TIMEOUT - MICROSECOND, "meta", "b")), MemoryStore())
    assert before.ended == {"exit": 0, "expired": 0, "open": 2}


@pytest.mark.parametrize(
    ("gap", "ended_at"),
    [(QUIET_GAP - 1, None), (QUIET_GAP, None), (QUIET_GAP + MICROSECOND, 7.0)],
)
@pytest.mark.parametrize("next_session", ["a", "b"])
def test_replay_turn_ends_before_a_gap_longer_than_the_quiet_gap(
    gap: float, ended_at: float | None, next_session: str
) -> None:
    """A turn that no row ends has ended at its session's last row, if the gap after it is longer.

    The next row may be the session's own or, at the end of the log, anybody's.
    """
    store = MemoryStore()
    replay(log_of(row(0, "request"), row(7, "meta"), row(7 + gap, "response", next_session)), store)
    ends = [seconds for seconds, word in steps_of(store, "a") if word == "end_task"]
    assert ends == ([] if ended_at is None else [ended_at])
    rests = [seconds for seconds, word in steps_of(store, "a") if word == "go_idle"]
    assert rests == ends


def test_replay_quiet_is_judged_by_the_rows_of_the_session_itself() -> None:
    """Rows of others make no turn longer; any row of the session itself does."""
    others = MemoryStore()
    replay(log_of(row(0, "request"), *(row(50.0 * n, "meta", "b") for n in range(1, 4))), others)
    assert steps_of(others, "a")[-2:] == [(0, "end_task"), (0, "go_idle")]
    own = MemoryStore()
    replay(log_of(row(0, "request"), *(row(100.0 * n, "meta") for n in range(1, 4))), own)
    assert state_in(own, "a").active_tasks == ("turn",)


def test_replay_end_after_a_quiet_gap_is_a_sign_of_life_only() -> None:
    """A row that would end a turn finds it ended before the gap, and touches the session."""
    store = MemoryStore()
    replay(log_of(row(0, "request"), row(130, "interrupt")), store)
    assert steps_of(store, "a")[-3:] == [(0, "end_task"), (0, "go_idle"), (130, "touch")]


def test_replay_turn_that_went_quiet_long_ago_expires_by_its_last_row() -> None:
    """The idle clock runs from the last row of the turn, even if it has long run out."""
    store = MemoryStore()
    log = log_of(row(0, "request"), row(40, "response"), row(9999, "request"))
    report = replay(log, store)
    assert steps_of(store, "a")[-4:] == [
        (40, "end_task"),
        (40, "go_idle"),
        (40 + TIMEOUT, "expire"),
        (40 + TIMEOUT, "finish"),
    ]
    assert steps_of(store, "a~2")[0] == (9999, "created")
    assert report.findings == {"begin_after_expiry": 1}


def test_replay_time_out_shorter_than_the_quiet_gap() -> None:
    """A turn in flight never expires; once it is known to have ended, its expiry is in the past."""
    settings: dict[str, Any] = {"timeout_minutes": 1, "quiet_gap_seconds": 300}
    rows = (row(0, "request"), row(250, "response"))
    in_flight = MemoryStore()
    report = replay(log_of(*rows, row(550, "meta", "b")), in_flight, **settings)
    assert report.ended == {"exit": 0, "expired": 0, "open": 2}
    assert state_in(in_flight, "a").active_tasks == ("turn",)
    over = MemoryStore()
    report = replay(log_of(*rows, row(550 + MICROSECOND, "response")), over, **settings)
    assert steps_of(over, "a")[-4:] == [
        (250, "end_task"),
        (250, "go_idle"),
        (310, "expire"),
        (310, "finish"),
    ]
    assert report.successors == 1


def test_replay_without_a_time_out_nothing_expires(store: SessionStore) -> None:
    """With no time-out a session goes on after any gap, and stays open at the end."""
    day = 86_400.0
    log = log_of(row(0, "request"), row(400 * day, "request"), row(800 * day, "meta", "b"))
    report = replay(log, store, timeout_minutes=None)
    assert report.ended == {"exit": 0, "expired": 0, "open": 2}
    assert report.successors == 0
    assert state_in(store, "a").conversation_count == 2
    assert state_in(store, "a").config.timeout_minutes is None
    assert store.next_deadline() is None


def test_replay_time_out_is_the_sessions_own() -> None:
    """The time-out that a replay is given is the one that its sessions are made with."""
    store = MemoryStore()
    replay(log_of(row(0, "meta"), row(7 * MINUTE, "meta", "b")), store, timeout_minutes=7)
    assert state_in(store, "a").config == SessionConfig(timeout_minutes=7)
    assert steps_of(store, "a")[-2] == (7 * MINUTE, "expire")


def test_replay_what_is_due_after_the_last_row_stays_open(store: SessionStore) -> None:
    """A log tells nothing of what came after it: deadlines behind its last row do not fire."""
    report = replay(log_of(row(0, "request"), row(1, "interrupt")), store)
    assert report.ended == {"exit": 0, "expired": 0, "open": 1}
    assert store.next_deadline() == START + timedelta(seconds=1 + TIMEOUT)


def test_replay_rows_of_one_instant_keep_their_order() -> None:
    """Rows that carry the same instant are taken in the order in which they stand."""
    begun, ended, left = row(0, "request"), row(0, "interrupt"), row(0, "exit")
    assert replay(log_of(begun, ended), MemoryStore()).edges["active->idle"] == 1
    assert replay(log_of(ended, begun), MemoryStore()).edges["active->idle"] == 0
    dropped = replay(log_of(begun, left), MemoryStore())
    assert (dropped.edges["active->terminating"], dropped.successors) == (1, 0)
    gone_on = replay(log_of(left, begun), MemoryStore())
    assert (gone_on.sessions, gone_on.successors, gone_on.ended["open"]) == (2, 1, 1)


def test_replay_two_turns_in_one_instant_end_once_each() -> None:
    """A turn that begins at the instant at which another one ended goes quiet by itself."""
    store = MemoryStore()
    log = log_of(
        row(0, "request"), row(0, "interrupt"), row(0, "request"), row(0, "exit"),
        row(0, "request"), row(500, "meta", "b"),
    )  # fmt: skip
    assert replay(log, store).verified
    assert [word for _, word in steps_of(store, "a~2")] == [*BORN, *PROMPT, "end_task", "go_idle"]
    ends = [word for _, word in steps_of(store, "a") if word == "end_task"]
    assert len(ends) == 2


def test_replay_late_rows_are_put_in_order_and_counted(tmp_path: Path) -> None:
    """A row that stands behind a later one is counted, and replayed in its place."""
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"ts": 1767615451, "session": "a", "event": "request"}\n'
        '{"ts": 1767615461, "session": "a", "event": "request"}\n'
        '{"ts": 1767615456, "session": "a", "event": "interrupt"}\n',
        encoding="utf-8",
    )
    report = replay(read_log([path]), MemoryStore())
    assert report.late_rows == 1
    assert counted(report) == {"initializing->active": 1, "active->idle": 1, "idle->active": 1}


def test_replay_early_and_late_instants() -> None:
    """Logs at the edges of what a reader lets through are replayed like any other."""
    first = datetime(1970, 1, 1, tzinfo=UTC)
    for at in (first, datetime(9998, 12, 31, tzinfo=UTC)):
        rows = [attrs.evolve(row(0, "request"), at=at + timedelta(hours=hours)) for hours in (0, 1)]
        report = replay(Log(rows=tuple(rows), late_rows=0, faults=(), digest=""), MemoryStore())
        assert report.ended == {"exit": 0, "expired": 1, "open": 1}
        assert report.verified


# --- refusals -------------------------------------------------------------------------------


def test_replay_prompts_above_the_limit_are_refused_and_counted(store: SessionStore) -> None:
    """A session counts 100 conversations; further prompts are work, and refusals of a guard."""
    prompts = [row(float(n), "request") for n in range(103)]
    report = replay(log_of(*prompts, row(110, "interrupt"), row(115, "request")), store)
    assert report.requests == 104
    assert report.refusals == {"guard": 4}
    assert state_in(store, "a").conversation_count == 100
    assert state_in(store, "a").status == "active"  # the last prompt began a turn all the same
    assert report.findings == {}
    assert report.verified


def test_replay_successor_counts_its_own_conversations() -> None:
    """A successor begins with no conversation, so its prompts are not refused."""
    prompts = [row(float(n), "request") for n in range(100)]
    store = MemoryStore()
    report = replay(log_of(*prompts, row(100, "exit"), row(101, "request")), store)
    assert report.refusals == {}
    assert state_in(store, "a~2").conversation_count == 1


# --- settings and input ---------------------------------------------------------------------


def test_replay_empty_log(store: SessionStore) -> None:
    """A log without rows is a replay too: nothing is made, and all is well; again as well."""
    for _ in range(2):
        report = replay(log_of(), store)
        assert (report.rows, report.sessions, report.peak_open) == (0, 0, 0)
        assert set(report.edges.values()) == {0}
        assert set(report.seconds_in_status.values()) == {0.0}
        assert report.rows_per_second is None
        assert report.verified
    assert events_of(store) == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"quiet_gap_seconds": -1},
        {"quiet_gap_seconds": math.nan},
        {"quiet_gap_seconds": math.inf},
        {"quiet_gap_seconds": 1e300},
        {"timeout_minutes": 0},
        {"timeout_minutes": 10**12},
        {"rows_per_batch": 0},
        {"rows_per_batch": -1},
    ],
)
def test_replay_bad_setting_is_named_and_nothing_is_stored(settings: dict[str, Any]) -> None:
    """A setting out of its range is refused by name before anything is done."""
    store = MemoryStore()
    with pytest.raises(StateInvalidError) as caught:
        replay(log_of(row(0, "request")), store, **settings)
    (name,) = settings
    assert name in str(caught.value)
    assert store.mark("replay") is None
    assert events_of(store) == {}


def test_replay_quiet_gap_of_nothing() -> None:
    """With a quiet gap of 0 every turn ends at its last row, and rows of one instant share it."""
    store = MemoryStore()
    log = log_of(row(0, "request"), row(0, "request"), row(1, "request"))
    replay(log, store, quiet_gap_seconds=0)
    assert [word for _, word in steps_of(store, "a")] == [
        *BORN,
        *PROMPT,
        "start_conversation",
        "end_task",
        "go_idle",
        "resume",
        *PROMPT,
    ]


def test_replay_progress_is_told_after_each_batch(store: SessionStore) -> None:
    """Whoever listens is told how many rows are done and durable, of how many."""
    told: list[tuple[int, int]] = []
    log = log_of(*(row(float(n), "meta") for n in range(10)))
    replay(log, store, rows_per_batch=4, on_progress=lambda *done: told.append(done))
    assert told == [(4, 10), (8, 10), (10, 10)]


# --- the same again -------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_batch", [1, 7, 1000])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_replay_sample_is_the_same_on_any_store_in_batches_of_any_size(
    tmp_path: Path, kind: str, rows_per_batch: int
) -> None:
    """Neither the store nor the size of a batch shows in the report, or in any event."""
    whole = unbroken_trace(SAMPLE)
    store = open_store("memory://" if kind == "memory" else url_of(tmp_path / "s.db"))
    try:
        report = replay(whole.log, store, rows_per_batch=rows_per_batch)
        assert report == whole.report
        assert events_of(store) == events_of(whole.store)
    finally:
        store.close()


def test_replay_again_writes_nothing(store: SessionStore) -> None:
    """A replay that is done is reported again, without a single event more."""
    log = log_of(row(0, "request"), row(1, "exit"), row(2, "request"), row(9999, "request"))
    report = replay(log, store)
    events, mark = events_of(store), store.mark("replay")
    again = replay(log, store, on_progress=lambda *_: pytest.fail("no row is left"))
    assert again == report
    assert again.rows_per_second is None
    assert events_of(store) == events
    assert store.mark("replay") == mark


def test_replay_whole_number_of_seconds_is_the_same_setting() -> None:
    """A quiet gap of 120 and one of 120.0 are the same replay."""
    store, log = MemoryStore(), log_of(row(0, "request"))
    assert replay(log, store, quiet_gap_seconds=120) == replay(log, store, quiet_gap_seconds=120.0)


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        ([row(0, "request"), row(2, "request")], {}),
        ([row(0, "request")], {}),
        ([], {}),
        ([row(0, "request"), row(1, "request")], {"timeout_minutes": 31}),
        ([row(0, "request"), row(1, "request")], {"timeout_minutes": None}),
        ([row(0, "request"), row(1, "request")], {"quiet_gap_seconds": 120.5}),
    ],
)
@pytest.mark.parametrize("half_way", [True, False], ids=["half-way", "done"])
def test_replay_another_input_or_other_settings_are_refused(
    store: SessionStore, rows: list[LogRow], settings: dict[str, Any], half_way: bool
) -> None:
    """A store that holds a replay, done or not, takes no other one; nothing changes."""
    log = log_of(row(0, "request"), row(1, "request"))
    if half_way:
        with pytest.raises(StopError):
            replay(log, store, rows_per_batch=1, on_progress=stop_at(1))
    else:
        replay(log, store)
    events, mark = events_of(store), store.mark("replay")
    with pytest.raises(ReplayError, match="another input or with other settings") as caught:
        replay(log_of(*rows), store, **settings)
    assert store.url in str(caught.value)
    assert events_of(store) == events
    assert store.mark("replay") == mark
    assert replay(log, store) == replay(log, MemoryStore())


# --- a store that others use too ------------------------------------------------------------


def test_replay_leaves_sessions_of_others_out_of_its_report(store: SessionStore) -> None:
    """Sessions that no row made are neither counted nor touched, and keep their ids."""
    with SessionManager(store, clock=ManualClock(START)) as manager:
        manager.create("a", config={"timeout_minutes": None})
        manager.create("other", config={"timeout_minutes": None})
    before = events_of(store)
    log = log_of(row(0, "request"), row(1, "exit"), row(2, "request"), row(3, "meta", "b"))
    report = replay(log, store)
    alone = replay(log, MemoryStore())
    assert report == alone
    assert {key: events_of(store)[key] for key in before} == before
    mine = {key: life for key, life in events_of(store).items() if key not in before}
    assert set(mine) == {"a~2", "a~3", "b"}
    assert replay(log, store) == alone


def test_replay_empty_log_into_a_store_with_sessions() -> None:
    """A log without rows has no end by which sessions of others could be judged."""
    store = MemoryStore()
    with SessionManager(store, clock=ManualClock(START)) as manager:
        manager.create("other")
    assert replay(log_of(), store).sessions == 0


def test_replay_id_of_a_purged_session_is_used_again() -> None:
    """What was purged under an id is no part of the life that is replayed under it."""
    store, clock = MemoryStore(), ManualClock(START - timedelta(days=9))
    with SessionManager(store, clock=clock) as manager:
        manager.create("a")
        manager.terminate("a")
        manager.purge(ended_before=START)
    log = log_of(row(0, "request"), row(5, "interrupt"), row(6, "request", "b"))
    assert replay(log, store) == replay(log, MemoryStore())


def test_replay_by_two_at_once_is_refused_to_the_slower(store: SessionStore) -> None:
    """A position that somebody else has moved is not gone on from: no row is replayed twice."""
    log = log_of(*(row(200.0 * n, "request") for n in range(10)))

    def overtake(done: int, _: int) -> None:
        if done == 3:
            assert replay(log, store, rows_per_batch=4) == whole.report

    whole = unbroken_run(log)
    with pytest.raises(ReplayError, match="by somebody else"):
        replay(log, store, rows_per_batch=3, on_progress=overtake)
    assert events_of(store) == events_of(whole.store)
    assert replay(log, store) == whole.report


def test_replay_two_beginners_at_once_make_each_session_once(tmp_path: Path) -> None:
    """A replay that finds a new store filled by another one before its first batch stops."""
    log = log_of(row(0, "request"), row(1, "exit"), row(2, "request"))
    path = tmp_path / "s.db"

    class Overtaken(SqliteStore):
        """Somebody else replays the whole log as soon as this one has looked for a position."""

        looked = False

        def mark(self, name: str) -> bytes | None:
            found = super().mark(name)
            if not self.looked:
                self.looked = True
                other = SqliteStore(path)
                replay(log, other)
                other.close()
            return found

    store = Overtaken(path)
    with pytest.raises(ReplayError, match="by somebody else"):
        replay(log, store)
    assert events_of(store) == events_of(unbroken_run(log).store)
    store.close()


def test_replay_due_session_that_cannot_be_moved_stops_it() -> None:
    """A session that is due and can't be moved is named, and the batch is undone."""
    store = MemoryStore()

    class Broken(MemoryStore):
        def commit(self, commit: Commit) -> None:
            if any(step.sealed.event.trigger == "expire" for step in commit.steps):
                raise StoreUnavailableError(problem="no room")
            super().commit(commit)

    store = Broken()
    log = log_of(row(0, "meta"), row(1, "meta", "b"), row(9999, "meta", "b"))
    with pytest.raises(ReplayError, match=r"session 'a': .*no room"):
        replay(log, store, rows_per_batch=2)
    assert {key: len(events) for key, events in events_of(store).items()} == {"a": 3, "b": 3}


def test_replay_failing_store_is_gone_on_with(tmp_path: Path) -> None:
    """An error of the store goes to the caller; what is durable is gone on with later."""
    whole = unbroken_trace(SAMPLE)
    path = tmp_path / "s.db"

    class Failing(SqliteStore):
        left = 300

        def commit(self, commit: Commit) -> None:
            self.left -= 1
            if self.left == 0:
                raise StoreUnavailableError(problem="no room")
            super().commit(commit)

    failing = Failing(path)
    with pytest.raises(StoreUnavailableError, match="no room"):
        replay(whole.log, failing, rows_per_batch=50)
    failing.close()
    store = open_store(url_of(path))
    assert events_of(store)
    assert replay(whole.log, store) == whole.report
    assert events_of(store) == events_of(whole.store)
    store.close()


# --- any log --------------------------------------------------------------------------------

NAMES = ("a", "b", "a~2", "c")
EVENTS = ("request", "request", "response", "interrupt", "exit", "meta")
GAPS = (
    *(0, 1, SECOND, 59 * SECOND, 60 * SECOND - 1, 60 * SECOND, 60 * SECOND + 1),
    *(120 * SECOND - 1, 120 * SECOND, 120 * SECOND + 1, 180 * SECOND, 1800 * SECOND - 1),
    *(1800 * SECOND, 1800 * SECOND + 1, 1920 * SECOND, 7200 * SECOND),
)


@st.composite
def logs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Log:
    """Generate logs with few ids, whose rows are as far apart as the settings are long."""
    rows, at = [], 0
    entry = st.tuples(st.sampled_from(GAPS), st.sampled_from(NAMES), st.sampled_from(EVENTS))
    for gap, name, event in draw(st.lists(entry, max_size=40)):
        at += gap
        rows.append(row(at / SECOND, event, name))
    return log_of(*rows)


SETTINGS = st.fixed_dictionaries(
    {
        "timeout_minutes": st.sampled_from((None, 1, 2, 3, 30)),
        "quiet_gap_seconds": st.sampled_from((0, 1e-6, 60, 120.0, 1800, 1e6)),
    }
)


@settings(max_examples=max(300, settings().max_examples))
@given(log=logs(), chosen=SETTINGS, rows_per_batch=st.integers(1, 10), data=st.data())
def test_replay_any_log_agrees_with_the_model(
    log: Log, chosen: dict[str, Any], rows_per_batch: int, data: st.DataObject
) -> None:
    """Every session of any log lives as the model says, interrupted or not, in batches or not."""
    told = replay_model(model_rows(log), **chosen)
    whole = unbroken_run(log, **chosen)
    assert_agrees(whole.report, told)
    assert lives_of(whole.store) == model_lives(told)
    broken = MemoryStore()
    for position in data.draw(st.lists(st.integers(1, len(log.rows) + 1), max_size=3)):
        stop = stop_at(position)
        with suppress(StopError):
            replay(log, broken, rows_per_batch=rows_per_batch, on_progress=stop, **chosen)
    assert replay(log, broken, **chosen) == whole.report
    assert events_of(broken) == events_of(whole.store)


def test_replay_kinds_in_these_tests_are_all_there_are() -> None:
    """The events that logs are made of by hand stand for every kind of row."""
    assert {row(0, event).kind for event in EVENTS} == set(RowKind)
