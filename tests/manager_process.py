"""A manager in a process of its own: verbs come in as lines of JSON, answers go out as such.

Beside the manager's own verbs there are some that stop half-way, at a point where a test wants to
kill the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import attrs

from session_fsm import ItemConflictError, Session, SessionFsmError, SessionManager
from session_fsm.clock import ManualClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def say(answer: Any) -> None:
    """Say one thing to whoever started the process."""
    print(json.dumps(answer), flush=True)


class _Process:
    def __init__(self, url: str) -> None:
        self.clock = ManualClock(START)
        self.manager = SessionManager(url, clock=self.clock)
        self.stopped: list[str] = []

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def create_with_worker(self, session_id: str) -> Session:
        """Create a session whose worker notes that it was stopped."""
        return self.manager.create(session_id, start=lambda _: _Worker(self, session_id))

    def stopped_workers(self) -> list[str]:
        return self.stopped

    def hang_in_start(self, session_id: str) -> None:
        """Create a session, say so from within its start, and stay there."""
        self.manager.create(session_id, start=_hang)

    def hang_in_stop(self, session_id: str) -> None:
        """End a session, say so from within the stop of its worker, and stay there."""
        self.manager.create(session_id, start=lambda _: _Hanging())
        self.manager.terminate(session_id)

    def count_up(self, session_id: str, times: int) -> None:
        """Add 1 to the session's counter, again and again."""
        for _ in range(times):
            self.manager.update(session_id, metadata=_one_more)

    def work(self, session_id: str, name: str, times: int) -> None:
        """Begin and end tasks."""
        for number in range(times):
            with self.manager.task(session_id, f"{name}-{number}"):
                self.manager.start_conversation(session_id)

    def count_item_up(self, session_id: str, times: int) -> None:
        """Add 1 to the item `count` of a table, again and again, as compare-and-set."""
        table = self.manager.table(session_id, "files")
        for _ in range(times):
            added = False
            while not added:
                item = table.find("count")
                value, version = (0, 0) if item is None else (item.value, item.version)
                try:
                    table.put("count", value + 1, expected_version=version)
                    added = True
                except ItemConflictError:
                    continue

    def put_until_refused(self, session_id: str) -> None:
        """Put one item after the other, saying each, until that is refused."""
        table = self.manager.table(session_id, "files")
        for number in count():
            table.put(f"{number:06}", number)
            say(number)

    def recover(self) -> dict[str, Any]:
        return attrs.asdict(self.manager.recover())

    def sweep(self) -> list[tuple[str, str | None]]:
        return [(event.session_id, event.trigger) for event in self.manager.sweep().fired]


def _one_more(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, "count": metadata.get("count", 0) + 1}


def _hang(_: object = None) -> None:
    say("hanging")
    sys.stdin.readline()


class _Hanging:
    def stop(self) -> None:
        _hang()


class _Worker:
    def __init__(self, process: _Process, session_id: str) -> None:
        self._process, self._session_id = process, session_id

    def stop(self) -> None:
        self._process.stopped.append(self._session_id)


def _told(result: Any) -> Any:
    if isinstance(result, Session):
        return {"status": result.status, "revision": result.revision}
    return result


def main(url: str) -> None:
    """Answer until nothing more is asked."""
    process = _Process(url)
    with process.manager:
        say(process.manager._core.owner_id)
        for line in sys.stdin:
            verb, arguments, options = json.loads(line)
            try:
                own = getattr(process, verb, None)
                action = own if own is not None else getattr(process.manager, verb)
                answer = _told(action(*arguments, **options))
            except SessionFsmError as fault:
                answer = {"error": type(fault).__name__, "message": str(fault)}
            say(answer)


if __name__ == "__main__":
    main(sys.argv[1])
