"""The events of a life: how steps become events, and what a chain of events proves.

An event is stored as bytes that are never rewritten, and its digest covers the digest before it:
a changed, missing or added event breaks the chain. Replaying the events of a session rebuilds its
state exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import compress
from operator import attrgetter, is_not
from typing import Any, Final

import attrs

from .clock import instant_text
from .drafts import draft_class
from .errors import DeserializationError, SchemaVersionError
from .jsonvalue import JsonError, JsonObject, dump_json, frozen_json, parse_json, shown
from .lifecycle import Lifecycle
from .serialization import deserialize, parse_instant, serialize, wire_value
from .session import EventKind, SessionEvent
from .state import STATE_FIELDS, SessionState
from .table import SESSION_LIFECYCLE

EVENT_FORMAT: Final = 3
"""The number of the newest format; the `config` of its changes may have `recovery`."""
LIMITS_EVENT_FORMAT: Final = 2
"""The number of the format of events whose changes have `task_deadlines`, but no `recovery`."""
PLAIN_EVENT_FORMAT: Final = 1
"""The number of the format of events whose changes have neither."""
EVENT_FORMATS: Final = (PLAIN_EVENT_FORMAT, LIMITS_EVENT_FORMAT, EVENT_FORMAT)
"""The numbers of the formats that are read."""
NO_DIGEST: Final = ""
"""The digest before the first event of an id."""
STANDS_FOR: Final = "stands_for"
"""What a checkpoint's changes have beside the fields: `last_digest`, `events`, `fired`."""
_DERIVED = ("status", "updated_at")

Veil = Callable[[int, JsonObject], dict[str, Any]]
"""Is given a revision and the changes of its event; returns what is written in their stead."""
Unveil = Callable[[dict[str, Any]], dict[str, Any]]
"""Is given the members of an event that was veiled; returns them as they were without that."""


@attrs.frozen(kw_only=True)
class Step:
    """One step that was decided: the state before, the state after, and what was fired.

    Attributes:
        before: None where the session is created.
        after: The new state.
        trigger: None where the session is created.
        moves: Whether the row has a target.
        reason: Why, in words; None if nothing was said.
    """

    before: SessionState | None
    after: SessionState
    trigger: str | None
    moves: bool
    reason: str | None = None


_new = object.__new__
_StepDraft = draft_class(Step)
_EventDraft = draft_class(SessionEvent)


def step_of(
    before: SessionState | None,
    after: SessionState,
    trigger: str | None,
    moves: bool,
    reason: str | None,
) -> Step:
    """Put together one step that was decided."""
    draft = _new(_StepDraft)
    draft.before = before
    draft.after = after
    draft.trigger = trigger
    draft.moves = moves
    draft.reason = reason
    draft.__class__ = Step
    step: Step = draft
    return step


@attrs.frozen
class Sealed:
    """An event with the bytes that are stored for it."""

    event: SessionEvent
    body: bytes


def seal(step: Step, *, revision: int, previous: str, veil: Veil | None = None) -> Sealed:
    """Turn a step into an event, chained to the digest of the event before it.

    A veil changes the bytes that are stored, and so the digest; the event has its plain changes.
    """
    before, after = step.before, step.after
    kind: EventKind
    if before is None:
        kind, source = "created", None
        changes = all_fields(after)
    else:
        kind, source = "moved" if step.moves else "changed", before.status
        changes = _changed(before, after)
    draft = _new(_EventDraft)
    draft.session_id = after.session_id
    draft.revision = revision
    draft.kind = kind
    draft.trigger = step.trigger
    draft.source = source
    draft.target = after.status
    draft.at = after.updated_at
    draft.reason = step.reason
    draft.changes = frozen_json(changes)
    draft.digest = ""
    return _sealed(draft, previous, veil)


def all_fields(state: SessionState) -> dict[str, Any]:
    """Return every field of a state as it is written; deadlines of tasks only if there are any."""
    names = STATE_FIELDS if state.task_deadlines else _PLAIN_FIELDS
    return {name: wire_value(name, getattr(state, name)) for name in names}


_PLAIN_FIELDS: Final = tuple(name for name in STATE_FIELDS if name != "task_deadlines")
_COMPARED: Final = tuple(name for name in STATE_FIELDS if name not in _DERIVED)
_compared = attrgetter(*_COMPARED)


def _changed(before: SessionState, after: SessionState) -> dict[str, Any]:
    """Return the fields that have another value, as they are written."""
    old, new = _compared(before), _compared(after)
    # Most are the very objects that they were, which is told without a step of Python for each.
    others = compress(zip(_COMPARED, new, old, strict=True), map(is_not, new, old))
    return {
        name: wire_value(name, value)
        for name, value, former in others
        if value != former or _reads_otherwise(value, former)
    }


def _reads_otherwise(value: Any, old: Any) -> bool:
    """Tell whether equal JSON is written differently: 1, 1.0 and true are equal in Python."""
    return isinstance(value, JsonObject) and dump_json(value) != dump_json(old)


def tombstone(state: SessionState, *, revision: int, previous: str, at: datetime) -> Sealed:
    """Return the one event that is left of a purged session; it keeps the last digest."""
    draft = _new(_EventDraft)
    draft.session_id = state.session_id
    draft.revision = revision
    draft.kind = "purged"
    draft.trigger = None
    draft.source = draft.target = state.status
    draft.at = at
    draft.reason = None
    draft.changes = JsonObject({"last_digest": previous})
    draft.digest = ""
    return _sealed(draft, previous)


def _sealed(event: Any, previous: str, veil: Veil | None = None) -> Sealed:
    """Finish the draft of an event: its digest covers its bytes."""
    body = encode(event, veil)
    event.digest = chained(previous, body)
    event.__class__ = SessionEvent
    return Sealed(event, body)


def chained(previous: str, body: bytes) -> str:
    """Return the digest of an event: SHA-256 over the one before it and the event's bytes."""
    return hashlib.sha256(previous.encode() + b"\n" + body).hexdigest()


def encode(event: SessionEvent, veil: Veil | None = None) -> bytes:
    """Return the bytes of an event, all but its digest."""
    told = {
        "format": _format_of(event.changes),
        "session_id": event.session_id,
        "revision": event.revision,
        "kind": event.kind,
        "trigger": event.trigger,
        "source": None if event.source is None else str(event.source),
        "target": None if event.target is None else str(event.target),
        "at": instant_text(event.at),
        "reason": event.reason,
        "changes": event.changes,
    }
    if veil is not None:
        told.update(veil(event.revision, event.changes))
    return dump_json(told)


def _format_of(changes: Mapping[str, Any]) -> int:
    """Return the oldest format that knows all fields of an event's changes."""
    config = changes.get("config")
    if isinstance(config, Mapping) and "recovery" in config:
        return EVENT_FORMAT
    return LIMITS_EVENT_FORMAT if "task_deadlines" in changes else PLAIN_EVENT_FORMAT


_NEW_FIELDS: Final[Mapping[int, str]] = {
    LIMITS_EVENT_FORMAT: "task_deadlines",
    EVENT_FORMAT: "config.recovery",
}
"""For each format, the path of the field that the ones before do not know."""


_TEXT_OR_NULL = (str, type(None))
_EVENT_KEYS: Final[Mapping[str, tuple[type, ...]]] = {
    "format": (int,),
    "session_id": (str,),
    "revision": (int,),
    "kind": (str,),
    "trigger": _TEXT_OR_NULL,
    "source": _TEXT_OR_NULL,
    "target": _TEXT_OR_NULL,
    "at": (str,),
    "reason": _TEXT_OR_NULL,
    "changes": (dict,),
}
_KINDS: Final[Mapping[str, EventKind]] = {
    "created": "created",
    "moved": "moved",
    "changed": "changed",
    "purged": "purged",
    "checkpoint": "checkpoint",
}


def decode(
    body: bytes,
    digest: str,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    unveil: Unveil | None = None,
) -> SessionEvent:
    """Read an event from its stored bytes.

    Args:
        body: The bytes.
        digest: The digest that is stored beside them; not checked here.
        lifecycle: Gives the statuses; words that it does not know stay plain.
        unveil: Called if the event says that something in it is encrypted.

    Raises:
        DeserializationError: The bytes are no event, or one that can't be unveiled.
        SchemaVersionError: They have a format that is not known here.
    """
    try:
        told = parse_json(body)
    except JsonError as fault:
        raise DeserializationError(problems=(str(fault),)) from None
    if not isinstance(told, dict):
        raise DeserializationError(problems=("expected a JSON object",))
    found = told.get("format")
    if type(found) is int and found not in EVENT_FORMATS:
        raise SchemaVersionError(
            found=f"event {shown(found)}", supported=", ".join(map(str, EVENT_FORMATS))
        )
    if unveil is not None and "encrypted" in told:
        told = unveil(told)
    if told.keys() != _EVENT_KEYS.keys():
        raise DeserializationError(problems=("not the fields of an event",))
    if wrong := [name for name, kinds in _EVENT_KEYS.items() if type(told[name]) not in kinds]:
        problems = tuple(f"{name}: of the wrong type" for name in wrong)
        raise DeserializationError(problems=problems)
    if (needed := _format_of(told["changes"])) > told["format"]:
        problem = f"changes.{_NEW_FIELDS[needed]}: unknown field in format {told['format']}"
        raise DeserializationError(problems=(problem,))
    if told["kind"] not in _KINDS:
        raise DeserializationError(problems=(f"kind: unknown kind {shown(told['kind'])}",))
    if told["kind"] == "checkpoint" and not _is_told(told["changes"].get(STANDS_FOR)):
        raise DeserializationError(problems=(f"{STANDS_FOR}: not as a checkpoint has it",))
    try:
        return SessionEvent(
            session_id=told["session_id"],
            revision=told["revision"],
            kind=_KINDS[told["kind"]],
            trigger=told["trigger"],
            source=lifecycle.word(told["source"]),
            target=lifecycle.word(told["target"]),
            at=parse_instant(told["at"]),
            reason=told["reason"],
            changes=frozen_json(told["changes"]),
            digest=digest,
        )
    except ValueError as fault:
        raise DeserializationError(problems=(f"at: {fault}",)) from None
    except RecursionError:
        raise DeserializationError(problems=("changes: nested too deeply",)) from None


def _is_told(stands_for: object) -> bool:
    """Tell whether a checkpoint says what it stands for, as it should."""
    match stands_for:
        case {"last_digest": str(), "events": int(events), "fired": list(fired), **rest} if (
            not rest and type(events) is int
        ):
            return all(
                isinstance(each, list) and [type(part) for part in each] == [str, str, int]
                for each in fired
            )
    return False


def rebuild(events: Iterable[SessionEvent], lifecycle: Lifecycle) -> SessionState | None:
    """Replay the events of one id, oldest first, into the state that they lead to.

    Returns:
        The state; None if the last life of the id was purged, or there are no events.

    Raises:
        DeserializationError: The events do not make up a state.
    """
    fields: dict[str, Any] | None = None
    for event in events:
        if event.kind == "purged":
            fields = None
            continue
        if event.kind == "checkpoint":
            fields = {name: event.changes[name] for name in STATE_FIELDS if name in event.changes}
            continue
        if event.kind == "created":
            fields = dict(event.changes)
        elif fields is None:
            problem = f"revision {event.revision}: happened before the session was created"
            raise DeserializationError(problems=(problem,))
        fields.update(event.changes)
        fields["status"] = event.target
        fields["updated_at"] = instant_text(event.at)
    return None if fields is None else deserialize(fields, lifecycle)


def audit(
    stored: Iterable[tuple[bytes, SessionEvent]], lifecycle: Lifecycle
) -> tuple[tuple[str, ...], str, int]:
    """Check the chain of one id's events: digests, revisions, and the legality of every step.

    Args:
        stored: The bytes and the event, oldest first, of one id.
        lifecycle: The table that the steps must obey.

    Returns:
        What is wrong, each with its revision; the last digest; the last revision.
    """
    found: list[str] = []
    digest, revision = NO_DIGEST, 0
    status: str | None = None
    for body, event in stored:
        where = f"revision {event.revision}"
        if event.kind == "checkpoint":
            if revision:
                found.append(f"{where}: a checkpoint, but not the first of the history")
            digest, revision = event.changes[STANDS_FOR]["last_digest"], event.revision
            status = event.target
            if chained(digest, body) != event.digest:
                found.append(f"{where}: its digest does not match")
            found += [f"{where}: {problem}" for problem in _miscounted(event, lifecycle)]
            continue
        if event.kind == "purged" and revision == 0:
            # What was before is gone: the tombstone says where the chain went on from.
            digest, revision = str(event.changes.get("last_digest")), event.revision - 1
            status = event.source
        if event.revision != revision + 1:
            found.append(f"{where}: follows revision {revision}")
        if chained(digest, body) != event.digest:
            found.append(f"{where}: its digest does not match")
        if problem := _illegal(event, status, lifecycle):
            found.append(f"{where}: {problem}")
        digest, revision = event.digest, event.revision
        status = None if event.kind == "purged" else event.target
    return tuple(found), digest, revision


def _miscounted(event: SessionEvent, lifecycle: Lifecycle) -> Iterator[str]:
    """Say what the table, and what it says itself, have against a checkpoint."""
    told = event.changes[STANDS_FOR]
    states = (event.source, event.target, event.changes.get("status"))
    if event.trigger is not None or event.target not in lifecycle or len({*states}) > 1:
        move = f"{_told(event.source)} -> {_told(event.target)} by {_told(event.trigger)}"
        yield f"checkpoint {move} is no status to go on from"
    for trigger, source, count in told["fired"]:
        if lifecycle.find(trigger, source) is None or count < 1:
            yield f"its checkpoint counts {count} times {trigger!r} in {source!r}"
    # A life begins with its creation; before that there may be what is left of another one.
    begins = 1 if told["events"] == event.revision else 2
    steps = sum(count for *_, count in told["fired"])
    if told["events"] != steps + begins or told["events"] > event.revision:
        yield f"its checkpoint stands for {told['events']} events, of which {steps} fired a row"


def _illegal(event: SessionEvent, status: str | None, lifecycle: Lifecycle) -> str | None:
    """Say what the table has against an event in a status; None if nothing."""
    if event.source != status:
        return f"leaves {_told(event.source)}, but the session was in {_told(status)}"
    if event.kind == "created":
        legal = event.target == lifecycle.initial and event.trigger is None
    elif event.kind == "purged":
        # The id may have had its last life in another lifecycle, whose words are not known here.
        known = event.source in lifecycle
        legal = event.target == event.source and (event.source in lifecycle.final or not known)
    else:
        row = lifecycle.find(event.trigger or "", event.source or "")
        stays = event.kind == "changed"
        legal = row is not None and row.target == (None if stays else event.target)
        legal = legal and (event.target == event.source or not stays)
    if legal:
        return None
    move = f"{_told(event.source)} -> {_told(event.target)} by {_told(event.trigger)}"
    return f"{event.kind} {move} is no row"


def _told(word: str | None) -> str:
    return "nothing" if word is None else repr(str(word))


def snapshot_problem(
    state: SessionState, rebuilt: SessionState | None, lifecycle: Lifecycle
) -> str | None:
    """Say how a stored state differs from the one that its history tells; None if it does not."""
    if rebuilt is None:
        return "is stored, but its history has no living session"
    told, kept = serialize(rebuilt, lifecycle), serialize(state, lifecycle)
    # Not the format, which follows from the fields; one that has its default may be left out.
    names = ", ".join(
        name for name in STATE_FIELDS if dump_json(told.get(name)) != dump_json(kept.get(name))
    )
    return f"its stored state differs from its history in {names}" if names else None
