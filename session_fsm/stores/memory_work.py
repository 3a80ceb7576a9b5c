"""Work in progress in the sessions of a store in memory, and whoever answers for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import attrs

from .memory_items import Undo
from .records import Abandoned, Commit, Work

_WORKER = Work("worker")


@attrs.define
class _Claim:
    owner_id: str
    stop: bool = False


class MemoryWork:
    """The claims of all sessions of a store.

    Attributes:
        owners: Who is alive.

    Threads: not safe; its store has a lock.
    """

    def __init__(self) -> None:
        self.owners: set[str] = set()
        self._claims: dict[str, dict[Work, _Claim]] = {}

    def of(self, session_id: str) -> tuple[Work, ...]:
        """Return what is claimed in a session."""
        return tuple(self._claims.get(session_id, ()))

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
            self.drop(session_id)

    def drop(self, session_id: str) -> None:
        """Let go of all that is claimed in a session."""
        self._claims.pop(session_id, None)

    def abandoned(self, session_id: str | None) -> tuple[Abandoned, ...]:
        """Return what is claimed by owners that are not alive, of one session or of all."""
        left: dict[tuple[str, str], list[Work]] = {}
        for each in sorted(self._claims) if session_id is None else (session_id,):
            for work, claim in self._claims.get(each, {}).items():
                if claim.owner_id not in self.owners:
                    left.setdefault((each, claim.owner_id), []).append(work)
        return tuple(Abandoned(*key, tuple(work)) for key, work in left.items())

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
