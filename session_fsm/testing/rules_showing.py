"""What both managers must show after each rule: the shadows, the whole of them, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ..explain import next_timed
from ..manager import SessionManager
from .rules_driving import IDS, Driven


class Shown(Driven):
    """Compares all that managers show with the shadows of their sessions."""

    def next_deadline(self) -> datetime | None:
        """Return the earliest deadline of the shadows; None if no clock runs."""
        timed = (next_timed(shadow.state, self.lifecycle) for shadow in self.shadows.values())
        return min((each[1] for each in timed if each is not None), default=None)

    def compare(self, number: int) -> None:
        """Compare all that a manager shows with the shadows."""
        manager = self.managers[number]
        for session_id in IDS:
            session = manager.find(session_id)
            if session_id not in self.shadows:
                assert session is None, f"there is {session}, which must not be"
            else:
                assert session is not None, f"there is no session {session_id!r}"
                self.same_session(session)
        assert manager.next_deadline() == self.next_deadline()
        by_status = {
            status: [each for each in sorted(self.shadows) if self._is_in(each, (status,))]
            for status in self.lifecycle.statuses
        }
        assert manager.counts() == {status: len(ids) for status, ids in by_status.items()}
        live = [each for each in sorted(self.shadows) if self._is_in(each, self.lifecycle.live)]
        assert [session.session_id for session in manager.list()] == live
        listed: list[str] = []
        after: str | None = None
        while True:
            page = manager.list(status=self.lifecycle.statuses, limit=2, after=after)
            for session in page:
                self.same_session(session)
                listed.append(session.session_id)
            if (after := page.next) is None:
                break
        assert listed == sorted(self.shadows), f"{listed} are listed"
        self._compare_histories(manager)

    def _is_in(self, session_id: str, statuses: Iterable[str]) -> bool:
        return self.shadows[session_id].state.status in tuple(statuses)

    def _compare_histories(self, manager: SessionManager) -> None:
        events = 0
        traffic: dict[tuple[str, str], int] = {}
        for session_id, life in self._lives.items():
            history = () if not life else manager.history(session_id)
            assert list(history) == life, f"{session_id!r}: its history is {history}, not {life}"
            events += len(life)
            for event in life:
                if event.trigger is not None and event.source is not None:
                    key = (event.trigger, event.source)
                    traffic[key] = traffic.get(key, 0) + 1
        assert {key: number for key, number in manager.traffic().items() if number} == traffic
        report = manager.verify()
        assert report.ok, f"the store is not in order: {report.problems}"
        assert (report.sessions, report.events) == (len(self.shadows), events)

    def compare_tidings(self) -> None:
        """Whoever subscribed was told of every event once, in order."""
        assert self._told == self._all_events, f"{self._told} were told"
