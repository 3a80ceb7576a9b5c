"""Work in progress in the sessions of a store in memory, and whoever answers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import attrs

from .memory_items import Undo
from .records import LATELY_SECONDS, OWNING, Abandoned, Commit, Taken, Work

_WORKER = Work("worker")
_LATELY: Final = timedelta(seconds=LATELY_SECONDS)


@attrs.define
class _Claim:
    owner_id: str
    stop: bool = False


class MemoryWork:
    """The claims of all sessions of a store.

    Args:
        is_alive: Tells whether an owner lives.

    Threads: not safe; its store has a lock.
    """

    def __init__(self, is_alive: Callable[[str], bool]) -> None:
        self._is_alive = is_alive
        self._claims: dict[str, dict[Work, _Claim]] = {}
        self._takings: dict[str, tuple[int, datetime | None]] = {}

    def of(self, session_id: str, owner_id: str | None = None) -> tuple[Work, ...]:
        """Return what is claimed in a session, by one owner or by all."""
        claims = self._claims.get(session_id, {})
        if owner_id is None:
            return tuple(claims)
        return tuple(work for work, claim in claims.items() if claim.owner_id == owner_id)

    def claim(self, commit: Commit) -> None:
        """Claim and let go as a commit says."""
        claims = self._claims.setdefault(commit.session_id, {})
        for work in commit.releases:
            claims.pop(work, None)
        for work in commit.claims:
            claims[work] = _Claim(commit.owner_id)
        if commit.stops_worker and (claim := claims.get(_WORKER)) is not None:
            claim.stop = True
        if not claims:
            del self._claims[commit.session_id]

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        """Let go of what an owner has claimed."""
        claims = self._claims.get(session_id, {})
        for each in work:
            if each in claims and claims[each].owner_id == owner_id:
                del claims[each]
        if not claims:
            self._claims.pop(session_id, None)

    def drop(self, session_id: str) -> None:
        """Let go of all that is claimed in a session."""
        self._claims.pop(session_id, None)
        self._takings.pop(session_id, None)

    def abandoned(self, session_id: str | None) -> tuple[Abandoned, ...]:
        """Return what is claimed by owners that are not alive, of one session or of all."""
        left: dict[tuple[str, str], list[Work]] = {}
        for each in sorted(self._claims) if session_id is None else (session_id,):
            for work, claim in self._claims.get(each, {}).items():
                if not self._is_alive(claim.owner_id):
                    left.setdefault((each, claim.owner_id), []).append(work)
        return tuple(Abandoned(*key, tuple(work)) for key, work in left.items())

    def take_over(self, session_id: str, owner_id: str, at: datetime) -> tuple[Taken, ...]:
        """Give what dead owners left in a session to a living one, and count that."""
        left = self.abandoned(session_id)
        attempts, last = self._takings.get(session_id, (0, None))
        attempts = attempts + 1 if last is not None and at - last < _LATELY else 1
        counted = {each.owner_id for each in left if any(one.kind in OWNING for one in each.work)}
        if counted:
            self._takings[session_id] = attempts, at
        self._claims[session_id].update(
            (work, _Claim(owner_id)) for each in left for work in each.work
        )
        return tuple(
            Taken(
                session_id=session_id,
                owner_id=each.owner_id,
                work=each.work,
                holder_id=owner_id,
                attempts=attempts if each.owner_id in counted else 0,
                last_taken_at=last,
            )
            for each in left
        )

    def give_back(self, taken: Taken) -> None:
        """Let what was taken over be the dead owner's again, unless somebody has done it."""
        claims = self._claims.get(taken.session_id, {})
        given = [
            work
            for work in taken.work
            if work in claims and claims[work].owner_id == taken.holder_id
        ]
        for work in given:
            claims[work] = _Claim(taken.owner_id)
        owned = (work for work, claim in claims.items() if claim.owner_id == taken.holder_id)
        # It was no death that nobody could deal with what was left.
        if (
            taken.attempts
            and any(work.kind in OWNING for work in given)
            and not any(work.kind in OWNING for work in owned)
        ):
            self._takings[taken.session_id] = taken.attempts - 1, taken.last_taken_at

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        """Return the sessions whose workers an owner is to stop."""
        return tuple(
            session_id
            for session_id, claims in self._claims.items()
            if (claim := claims.get(_WORKER)) is not None
            and claim.stop
            and claim.owner_id == owner_id
        )

    def remembered(self, session_id: str) -> Undo:
        """Return what puts the claims of a session back as they are now."""
        claims = {
            work: attrs.evolve(claim) for work, claim in self._claims.get(session_id, {}).items()
        }
        if not claims:
            return partial(self.drop, session_id)
        return partial(self._claims.__setitem__, session_id, claims)
