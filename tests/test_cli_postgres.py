"""The command line against a real PostgreSQL server: each command, and what is never made by it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from commanding import LATER, START, call, started, usual_sessions
from postgres_server import PostgresServer

from session_fsm import SessionManager
from session_fsm.testing import ManualClock

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample_trace.jsonl.gz"
EXPIRED = START + timedelta(minutes=31)


@pytest.fixture
def store(postgres_url: str) -> str:
    """A store with the usual sessions."""
    clock = ManualClock(START)
    with SessionManager(postgres_url, clock=clock) as manager:
        usual_sessions(manager, clock)
    return postgres_url


def has_schema(postgres: PostgresServer, url: str) -> bool:
    """Tell whether the schema that a URL names is there."""
    query = "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
    return postgres.execute(query, [url.rpartition("=")[2]]) == [(1,)]


# --- looking ---------------------------------------------------------------------------------


def test_cli_postgres_looks(store: str) -> None:
    """What looks shows what is stored, and changes nothing."""
    listed = call("list", "--all", "--json", store=store).document["sessions"]
    assert [(each["session_id"], each["status"]) for each in listed] == [
        ("busy", "active"),
        ("calm", "idle"),
        ("done", "terminated"),
        ("lost", "terminated"),
    ]
    assert [line.split()[0] for line in call("list", store=store).lines[1:]] == ["busy", "calm"]
    counted = call("counts", "--json", store=store).document
    assert {status: number for status, number in counted.items() if number} == {
        "active": 1,
        "idle": 1,
        "terminated": 2,
    }
    assert call("show", "calm", "--json", store=store).document["status"] == "idle"
    events = call("history", "calm", "--json", store=store).document["events"]
    assert [each["revision"] for each in events] == list(range(1, len(events) + 1))
    assert call("explain", "busy", "terminate", store=store).code == 0
    assert call("explain", "done", "resume", store=store).code == 3
    assert "active" in call("diagram", "--format", "mermaid", store=store).out
    answer = call("verify", store=store)
    assert (answer.code, answer.out, answer.err) == (0, "ok: 4 sessions, 17 events\n", "")


# --- tending ---------------------------------------------------------------------------------


def test_cli_postgres_tends(store: str) -> None:
    """What tends does so once, and says what it did; the store is sound afterwards."""
    recovered = call("recover", store=store)
    assert (recovered.code, recovered.err) == (0, "1 session recovered, 1 task dropped\n")
    assert call("terminate", "busy", "--reason", "bye", store=store).code == 0
    swept = call("sweep", store=store, at=EXPIRED)
    assert [line.split()[2:4] for line in swept.lines[1:]] == [
        ["calm", "expire"],
        ["calm", "finish"],
    ]
    compacted = call("compact", "calm", "--keep", "1", "--json", store=store, at=EXPIRED)
    assert compacted.code == 0, compacted.err
    assert "checkpoint" in call("history", "calm", store=store).out
    purged = call("purge", "--ended-before", "24m", "--yes", store=store)
    assert purged.out.startswith("2 sessions removed")
    upgraded = call("upgrade", store=store)
    assert (upgraded.code, upgraded.err) == (0, "")
    assert call("verify", "--json", store=store).document["ok"]
    rekeyed = call("rekey", "--key-file", "nowhere", store=store)
    assert (rekeyed.code, rekeyed.out) == (2, "")


def test_cli_postgres_replays(postgres_url: str) -> None:
    """A log is replayed into a database that is made for it, and not a second time."""
    first = call("replay", str(SAMPLE), "--json", store=postgres_url)
    assert (first.code, first.err) == (0, "")
    assert first.document["verified"]
    assert first.document["store"] == postgres_url
    kept = call("list", "--all", "--json", "--limit", "1000", store=postgres_url).document
    assert len(kept["sessions"]) == first.document["sessions"]


# --- what is not there -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("counts",),
        ("show", "a"),
        ("history", "a"),
        ("explain", "a", "terminate"),
        ("terminate", "a"),
        ("sweep",),
        ("recover",),
        ("purge", "--ended-before", "1d", "--yes"),
        ("compact", "a"),
        ("verify",),
    ],
)
def test_cli_postgres_makes_no_store_by_the_way(
    postgres: PostgresServer, postgres_url: str, words: tuple[str, ...]
) -> None:
    """Where a misspelt URL leads to no store, that is told, and there is none afterwards."""
    answer = call(*words, store=postgres_url.replace("postgres@", "postgres:s3cret@"))
    shown = postgres_url.replace("postgres@", "postgres:***@")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"session-fsm: there is no store '{shown}'\n"
    assert not has_schema(postgres, postgres_url)


def test_cli_postgres_makes_no_store_by_another_scheme(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """The shorter scheme, which libpq takes as well, is looked at in the same way."""
    answer = call("list", store=postgres_url.replace("postgresql://", "postgres://"))
    assert answer.err == f"session-fsm: there is no store '{postgres_url}'\n"
    assert not has_schema(postgres, postgres_url)


def test_cli_postgres_misspelt_logs_make_no_store(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Where there is nothing to replay, no store is made for it."""
    assert call("replay", str(tmp_path / "none.jsonl"), store=postgres_url).code == 1
    assert not has_schema(postgres, postgres_url)


def test_cli_postgres_upgrade_makes_the_store(postgres: PostgresServer, postgres_url: str) -> None:
    """The role that may makes it, so that those who run need no right to; then it can be read."""
    assert call("upgrade", store=postgres_url).code == 0
    assert has_schema(postgres, postgres_url)
    assert call("list", store=postgres_url, at=LATER).code == 0


def test_cli_postgres_says_in_one_line_that_nobody_answers() -> None:
    """A server that can't be reached is one line, whatever the driver logs of it."""
    url = "postgresql://u:s3cret@127.0.0.1:1/db"
    answer = started("list", "--store", url)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("session-fsm: postgresql://u:***@127.0.0.1:1/db: ")
    assert answer.err.count("session-fsm: ") == 1
    assert "pool" not in answer.err
    assert "s3cret" not in answer.err
