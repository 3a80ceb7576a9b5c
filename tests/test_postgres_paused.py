"""A process that is stopped for long holds up nobody else on a PostgreSQL server."""

from __future__ import annotations

import signal

from processes import Program

from session_fsm import SessionManager
from session_fsm.stores import PostgresStore

pytest_plugins = ("postgres_server",)

SLEEPER = """
    import sys
    from session_fsm import SessionManager, StoreUnavailableError
    from session_fsm.stores import PostgresStore

    input()
    store = PostgresStore(sys.argv[1], statement_timeout_seconds=1)
    with SessionManager(store) as manager:
        try:
            with manager.batch():
                manager.update("a", reason="asleep")
                print("asleep", flush=True)
                input()
        except StoreUnavailableError:
            print("refused", flush=True)
    store.close()
"""


def test_postgres_paused_process_holds_no_lock_for_long(postgres_url: str) -> None:
    """What a process has locked that is stopped in a transaction is let go of, and not written."""
    store = PostgresStore(postgres_url)
    with SessionManager(store) as manager, Program(SLEEPER, postgres_url) as sleeper:
        manager.create("a")
        sleeper.say()
        assert sleeper.hear() == "asleep"
        sleeper.signal(signal.SIGSTOP)
        assert manager.update("a", reason="awake").revision == 3
        sleeper.signal(signal.SIGCONT)
        sleeper.say()
        assert sleeper.hear() == "refused"
        assert [event.reason for event in manager.history("a")] == [None, None, "awake"]
    store.close()
