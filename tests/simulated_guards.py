"""What a simulated database sees to, and whom it tells of what it does."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import attrs

from session_fsm.items import ItemWrites
from session_fsm.stores.memory_lives import Life
from session_fsm.stores.records import Commit, Taken


@attrs.frozen(kw_only=True)
class Guarded:
    """What the database and the keepers of leases see to; each may be taken away.

    Attributes:
        fencing: Whoever does not live, or states an old token, is refused.
        compare_and_set: So is what was decided on an older revision.
        margin: An owner gives up some time before its lease ends.
        exclusive: Of two who take over at the same time, each has its own share.
        traces: Nobody decides anew on what may be behind a checkpoint.
    """

    fencing: bool = True
    compare_and_set: bool = True
    margin: bool = True
    exclusive: bool = True
    traces: bool = True


class Witness(Protocol):
    """Is told of what the database does, when it has done it."""

    def committed(self, commit: Commit, before: Before) -> None:
        """A commit has landed."""
        ...

    def wrote(self, session_id: str, writes: ItemWrites) -> None:
        """Items were written."""
        ...

    def took(self, owner_id: str, taken: tuple[Taken, ...]) -> None:
        """Work of dead owners has become another one's."""
        ...

    def compacted(self, session_id: str) -> None:
        """A checkpoint stands for events of a session."""
        ...

    def gave_back(self, taken: Taken) -> None:
        """Work that was taken over is the dead owner's again."""
        ...


@attrs.frozen
class Before:
    """A session as it was before a commit; all of it None and 0 where there was none."""

    life: Life | None
    revision: int
    deadline_at: datetime | None
