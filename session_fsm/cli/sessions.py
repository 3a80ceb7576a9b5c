"""The commands about single sessions: list, counts, show, history, terminate."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from ..explain import next_timed, permitted
from ..history import STANDS_FOR
from ..lifecycle import Lifecycle
from ..session import Session, SessionEvent
from ..state import SessionStatus
from . import records
from .lifecycles import LifecycleName, load_lifecycle
from .opening import opened
from .options import AsJson, KeyFile, NoColor, Reveal, SessionId, Store, UsageError, check_text
from .output import SENTENCE, Cell, Column, Screen, Styled
from .text import counted, duration, instant, when

_MOST_SHOWN: Final = 60
"""Longest text that stands in one cell of a table, in characters."""


def list_sessions(
    context: typer.Context,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            show_default=False,
            help=f"Only sessions in this status: {', '.join(SessionStatus)}, or one of the"
            " lifecycle that is named. May be given several times.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Sessions in every status, ended ones too.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most sessions that are listed.")] = 100,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", show_default=False, help="Only sessions behind this id."),
    ] = None,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """List sessions in the order of their ids; those that have ended only if they are asked for."""
    screen = Screen(as_json=as_json, no_color=no_color)
    if status and every:
        raise UsageError("--all", "it stands for every status; leave out --status")
    if after is not None:
        check_text("--after", after)
    named = load_lifecycle(lifecycle_name)
    for word in status or ():
        if word not in named:
            problem = f"there is no status {word!r}; statuses are {', '.join(named.statuses)}"
            raise UsageError("--status", problem)
    with opened(store, context.obj, named, key_file=key_file) as manager:
        lifecycle = manager.lifecycle
        wanted = lifecycle.statuses if every else status or None
        page = manager.list(status=wanted, limit=limit, after=after)
    if as_json:
        found = [records.session_record(each, lifecycle) for each in page]
        screen.document({"sessions": found, "next": page.next})
        return
    if not page.sessions:
        those = "no such sessions" if wanted or after else "no sessions but ended ones"
        screen.note(f"{those} in the lifecycle {lifecycle.name!r}")
        return
    now = context.obj.now()
    columns = (
        Column("session"),
        Column("status"),
        Column("tasks", right=True),
        Column("last activity"),
        Column("fires next"),
        Column("error", least=SENTENCE),
    )
    shown = columns if any(each.state.error for each in page) else columns[:-1]
    screen.table(shown, [_row(each, lifecycle, now)[: len(shown)] for each in page])
    if page.next is not None:
        screen.note(f"there are more: --after {shlex.quote(page.next)}")


def _row(session: Session, lifecycle: Lifecycle, now: datetime) -> tuple[Cell, ...]:
    state = session.state
    return (
        state.session_id,
        in_colour(state.status, lifecycle),
        len(state.active_tasks),
        when(state.last_activity_at, now, units=1),
        _fires_next(session, lifecycle, now),
        Styled(_shortened(state.error or ""), "red"),
    )


def in_colour(status: str, lifecycle: Lifecycle) -> Styled:
    """Return a status in a colour that follows from its place in the lifecycle."""
    if status in lifecycle.final:
        return Styled(status, "dim")
    if status in lifecycle.drains:
        return Styled(status, "yellow")
    return Styled(status, "green" if lifecycle.holds_tasks(status) else "cyan")


def _fires_next(session: Session, lifecycle: Lifecycle, now: datetime) -> str:
    timed = next_timed(session.state, lifecycle)
    if timed is None:
        return ""
    trigger, at = timed
    late = (now - at).total_seconds()
    if late < 0:
        return f"{trigger} {when(at, now, units=1)}"
    return f"{trigger}, {duration(late, units=1)} late"


def counts(
    context: typer.Context,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Count the sessions in each status."""
    screen = Screen(as_json=as_json, no_color=no_color)
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        found = manager.counts()
        lifecycle = manager.lifecycle
    if as_json:
        screen.document({str(status): number for status, number in found.items()})
        return
    columns = (Column("status"), Column("sessions", right=True))
    rows: list[tuple[Cell, Cell]] = [
        (in_colour(status, lifecycle), number) for status, number in found.items()
    ]
    screen.table(columns, rows)


def show(
    context: typer.Context,
    session_id: SessionId,
    reveal: Reveal = False,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Show a session: its state, what is permitted now, and what fires by itself next."""
    screen = Screen(as_json=as_json, no_color=no_color)
    now = context.obj.now()
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        session = manager.get(session_id)
        lifecycle = manager.lifecycle
    allowed = permitted(session.state, at=now, lifecycle=lifecycle)
    record = records.session_record(session, lifecycle, reveal=reveal)
    if as_json:
        screen.document(record | {"permitted": list(allowed)})
        return
    timed = next_timed(session.state, lifecycle)
    next_move = "nothing"
    if timed is not None:
        next_move = f"{timed[0]} at {seen(timed[1], now)}"
    facts: list[tuple[str, Cell]] = [
        *_facts(session, lifecycle, now),
        ("permitted now", ", ".join(allowed) or "nothing"),
        ("fires next", next_move),
    ]
    for name in records.FREE_FIELDS:
        facts += _members(name, record["state"][name])
    screen.facts(facts)


def _facts(session: Session, lifecycle: Lifecycle, now: datetime) -> Iterator[tuple[str, Cell]]:
    state, config = session.state, session.state.config
    yield "session", Styled(state.session_id, "bold")
    yield "status", in_colour(state.status, lifecycle)
    yield "since", seen(state.status_since, now)
    yield "revision", session.revision
    yield "created", seen(state.created_at, now)
    yield "updated", seen(state.updated_at, now)
    yield "last activity", seen(state.last_activity_at, now)
    if any(map(lifecycle.holds_tasks, lifecycle.statuses)):
        yield "tasks in flight", ", ".join(state.active_tasks) or "none"
    if "count" in lifecycle.roles:
        most = config.max_conversations
        limit = "" if most is None else f" of {most:,}"
        yield "conversations", f"{state.conversation_count:,}{limit}"
    minutes = config.timeout_minutes
    yield "time-out", "never" if minutes is None else f"after {duration(60 * minutes)}"
    if config.recovery != "release":
        yield "if its process dies", config.recovery
    if config.features:
        yield "features", ", ".join(config.features)
    if state.error is not None:
        yield "error", Styled(state.error, "red")


def seen(at: datetime, now: datetime) -> str:
    """Return an instant, and how far it is from now."""
    return f"{instant(at)}, {when(at, now)}"


def _members(name: str, members: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    """Yield the members of a JSON object, one fact each, the name at the first alone."""
    for key, value in members.items():
        yield name, f"{key}: {_json(value)}"
        name = ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def history(
    context: typer.Context,
    session_id: SessionId,
    reveal: Reveal = False,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Show what happened to a session, oldest first; of a purged one, what is left."""
    screen = Screen(as_json=as_json, no_color=no_color)
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        events = manager.history(session_id)
    if as_json:
        found = [records.event_record(event, reveal=reveal) for event in events]
        screen.document({"session_id": session_id, "events": found})
        return
    columns = (
        Column("revision", right=True),
        Column("at"),
        Column("event"),
        Column("status"),
        Column("reason and changes", least=SENTENCE),
    )
    screen.table(columns, [_event_row(event, reveal=reveal) for event in events])


def _event_row(event: SessionEvent, *, reveal: bool) -> tuple[Cell, ...]:
    said = [] if event.reason is None else [event.reason]
    if event.kind == "checkpoint":
        said.append(f"stands for {counted(event.changes[STANDS_FOR]['events'], 'event')}")
    if event.trigger is not None:
        # At its creation every field of a session changes: `show` tells them better.
        changes = records.shown_changes(event.changes, reveal=reveal)
        said += [f"{name} = {_shortened(_json(value))}" for name, value in changes.items()]
    return (
        event.revision,
        instant(event.at),
        Styled(event.trigger or event.kind, "bold"),
        status_change(event),
        "; ".join(said),
    )


def status_change(event: SessionEvent) -> str:
    """Return the status that an event led to, and the one before if it was another."""
    if event.source is None or event.source == event.target:
        return event.target or ""
    return f"{event.source} → {event.target}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def terminate(
    context: typer.Context,
    session_id: SessionId,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", show_default=False, help="Kept in the session's history."),
    ] = None,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait", help="Don't wait for tasks in flight to end; a sweep ends the session."
        ),
    ] = False,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """End a session in good order.

    Waits for its tasks in flight to end, and drops those that don't within its lifecycle's grace:
    10 seconds for a session. One that has ended is left as it is.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        before = manager.get(session_id)
        with screen.progress() as bar:
            if before.state.active_tasks and not no_wait:
                bar.phase(f"waiting for {counted(len(before.state.active_tasks), 'task')}")
            session = manager.terminate(session_id, reason=reason, wait=not no_wait)
        lifecycle = manager.lifecycle
    if as_json:
        screen.document(records.session_record(session, lifecycle))
        return
    if session.revision == before.revision and session.status in lifecycle.final:
        screen.line(
            session_id, f" has been {session.status} since {instant(session.state.status_since)}"
        )
        return
    left = counted(len(session.state.active_tasks), "task")
    draining = "" if session.status in lifecycle.final else f", {left} in flight"
    error = f": {session.state.error}" if session.state.error else ""
    screen.line(session_id, " is ", in_colour(session.status, lifecycle), draining, error)
