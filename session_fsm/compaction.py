"""Checkpoints: one event stands for the oldest of a history, which need not grow for ever.

A checkpoint has the state that the events which it stands for lead to, the digest of the last of
them, how many they were, and how often they tell that each row was fired. The next event is
chained to that digest as before: no digest of an event that is kept changes. The checkpoint's own
digest covers the same digest and the checkpoint's bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from .history import STANDS_FOR, Sealed, Veil, all_fields, chained, encode, rebuild
from .jsonvalue import frozen_json
from .lifecycle import Lifecycle
from .session import SessionEvent


@attrs.frozen
class Checkpoint:
    """A checkpoint that is to be stored.

    Attributes:
        event: The checkpoint as an event, without its digest.
        last_digest: The digest of the last event that it stands for.
    """

    event: SessionEvent
    last_digest: str

    def sealed(self, veil: Veil | None = None) -> Sealed:
        """Return it with the bytes that are stored; see `history.seal` for the veil."""
        body = encode(self.event, veil)
        return Sealed(attrs.evolve(self.event, digest=chained(self.last_digest, body)), body)


def checkpoint_of(
    events: Sequence[SessionEvent], keep: int, lifecycle: Lifecycle
) -> Checkpoint | None:
    """Return the checkpoint that stands for all but the last events of a history.

    Args:
        events: The history of one id, which was audited, oldest first.
        keep: How many of the last events are to stay; at least 1.
        lifecycle: The lifecycle of the session.

    Returns:
        The checkpoint; None if there is no event for it to stand for, or if a life ended among
        those that it would stand for and none has begun since.

    Raises:
        DeserializationError: The events do not make up a state.
    """
    covered = events[: max(0, len(events) - keep)]
    if all(event.kind == "checkpoint" for event in covered):
        return None
    state = rebuild(covered, lifecycle)
    if state is None:
        return None
    last = covered[-1]
    counts = [
        [str(trigger), str(source), count] for (trigger, source), count in fired(covered).items()
    ]
    fields = all_fields(state)
    stands_for = {"last_digest": last.digest, "events": _number(covered), "fired": sorted(counts)}
    event = SessionEvent(
        session_id=last.session_id,
        revision=last.revision,
        kind="checkpoint",
        trigger=None,
        source=state.status,
        target=state.status,
        at=state.updated_at,
        changes=frozen_json({**fields, STANDS_FOR: stands_for}),
    )
    return Checkpoint(event, last.digest)


def fired(events: Iterable[SessionEvent]) -> dict[tuple[str, str], int]:
    """Count how often events tell that a row was fired, by (trigger, source)."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.kind == "checkpoint":
            for trigger, source, count in event.changes[STANDS_FOR]["fired"]:
                found[trigger, source] += count
        elif event.trigger is not None and event.source is not None:
            found[event.trigger, event.source] += 1
    return found


def _number(events: Iterable[SessionEvent]) -> int:
    """Return how many events some stand for: a checkpoint for more than itself."""
    return sum(
        event.changes[STANDS_FOR]["events"] if event.kind == "checkpoint" else 1 for event in events
    )
