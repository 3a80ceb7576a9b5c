"""Events in the standard log: which, at which level, with what in them, and what never."""

from __future__ import annotations

import logging

import pytest
from managing import House

from session_fsm import SessionManager
from session_fsm.clock import ManualClock
from session_fsm.observing import log_events

pytest_plugins = ("manager_fixtures",)

LOGGER = "session_fsm.events"


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return level and text of each line of the log."""
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.name == LOGGER]


def test_observing_logs_a_line_for_each_move(
    manager: SessionManager, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Creations, moves and purges are told at DEBUG, other changes are not."""
    caplog.set_level(logging.DEBUG, LOGGER)
    end = log_events(manager)
    manager.create("a")
    manager.touch("a")
    manager.transition("a", "idle", reason="lunch")
    manager.terminate("a")
    clock.advance(1)
    manager.purge(ended_before=clock.now())
    assert lines(caplog) == [
        ("DEBUG", "session 'a' created to initializing, revision 1"),
        ("DEBUG", "session 'a' moved by 'activate' from initializing to active, revision 2"),
        ("DEBUG", "session 'a' moved by 'go_idle' from active to idle, revision 4, reason 'lunch'"),
        ("DEBUG", "session 'a' moved by 'terminate' from idle to terminating, revision 5"),
        ("DEBUG", "session 'a' moved by 'finish' from terminating to terminated, revision 6"),
        ("DEBUG", "session 'a' purged, revision 7"),
    ]
    end()
    caplog.clear()
    manager.create("b")
    assert lines(caplog) == []


def test_observing_logs_fields_for_structured_logs(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Each record has what it tells in fields of its own."""
    caplog.set_level(logging.DEBUG, LOGGER)
    manager.create("a")
    log_events(manager)
    manager.transition("a", "idle", reason="lunch")
    [record] = caplog.records
    told = {name: value for name, value in vars(record).items() if name.startswith("session_")}
    assert told == {
        "session_id": "a",
        "session_revision": 3,
        "session_event": "moved",
        "session_trigger": "go_idle",
        "session_source": "active",
        "session_target": "idle",
        "session_at": "2026-03-01T12:00:00.000000Z",
        "session_reason": "lunch",
        "session_error": None,
    }
    assert {type(told["session_source"]), type(told["session_target"])} == {str}


def test_observing_logs_failures_as_warnings(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """What gives a session an error is told at WARNING, with the error, a change among it."""
    caplog.set_level(logging.INFO, LOGGER)
    log_events(manager)
    manager.create("a")
    manager.update("a", error="lost")
    manager.update("a", error=None)
    manager.fail("a", "out of\nmemory")
    told = lines(caplog)
    assert {level for level, _ in told} == {"WARNING"}
    assert "session 'a' changed by 'update' to active, revision 3, error 'lost'" in told[0][1]
    assert told[1][1].endswith("error 'out of\\nmemory'")
    assert [vars(record)["session_error"] for record in caplog.records] == [
        "lost",
        "out of\nmemory",
    ]


def test_observing_logs_nothing_of_what_is_in_a_session(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither metadata nor llm_config come into a line or a field, whatever happens."""
    caplog.set_level(logging.DEBUG, LOGGER)
    manager = house.open()
    log_events(manager)
    secret = {"token": "s3cret"}
    manager.create("a", metadata=secret, llm_config=secret)
    manager.update("a", metadata={**secret, "more": 1}, error="lost")
    manager.terminate("a")
    assert len(caplog.records) == 5
    assert not [each for each in caplog.records if "s3cret" in repr(vars(each))]


def test_observing_logs_only_when_asked(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """A manager that nobody has asked logs no event."""
    caplog.set_level(logging.DEBUG)
    manager.create("a")
    manager.fail("a", "boom")
    assert lines(caplog) == []
