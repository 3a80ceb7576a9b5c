"""A writer that is to be killed: several threads change the sessions of one store for ever.

    python crash_process.py URL SEED THREADS SESSION…

It waits for a line, opens the store, and writes lines of JSON: what a thread is about to do, each
event that a subscriber is told, and what the verb returned or raised, right after it did.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from typing import Any

import attrs
from operations import Chooser, perform

from session_fsm import (
    SessionEvent,
    SessionExistsError,
    SessionManager,
    SessionNotFoundError,
    SessionStartError,
    TransitionError,
)


def say(*what: Any) -> None:
    """Say one thing; lines of this length are never torn apart or mixed."""
    os.write(1, (json.dumps(what) + "\n").encode())


def tell(event: SessionEvent) -> None:
    """Pass on an event."""
    say("told", event.session_id, event.revision, event.trigger, event.target, event.digest)


def write(manager: SessionManager, chooser: Chooser) -> None:
    """Change sessions until the process is killed."""
    while True:
        operation = chooser.next()
        say("begin", *attrs.astuple(operation))
        try:
            session = perform(manager, operation)
        except (TransitionError, SessionExistsError, SessionNotFoundError) as refused:
            say("refused", operation.tag, type(refused).__name__)
        except SessionStartError:
            continue  # created, and then moved by another thread while it started
        except BaseException as fault:  # noqa: BLE001 - whatever it is, it must be heard of
            say("broken", f"{operation}: {type(fault).__name__}: {fault}")
        else:
            say("done", operation.tag, session.revision, session.status)


def main(url: str, seed: str, threads: str, *sessions: str) -> None:
    """Write with some threads."""
    sys.stdin.readline()
    manager = SessionManager(url)
    manager.subscribe(tell)
    for number in range(int(threads)):
        prefix = f"{seed}.{number}"
        chooser = Chooser(prefix, random.Random(prefix), sessions, workers=True)
        threading.Thread(target=write, args=(manager, chooser)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
