"""The commands that keep a store in order, from sweep to rekey."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import attrs
import typer

from ..clock import instant_text
from ..errors import SessionNotFoundError, StoreError
from ..stores.abc import all_ids
from . import records
from .lifecycles import LifecycleName, load_lifecycle
from .opening import opened, rekeyed, upgraded
from .options import AsJson, KeyFile, NoColor, Store, read_instant, read_instant_or_age
from .output import Column, Screen, Styled
from .sessions import status_change
from .text import counted, instant, when

_MOST_COUNTED = 10_000
"""Most sessions that are counted before a question about them is asked."""


def sweep(
    context: typer.Context,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            show_default="now",
            help="Fire what is due at this instant: ISO 8601 with a UTC offset.",
        ),
    ] = None,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Fire what is due by itself: sessions expire, starts and stops time out.

    Tells what was fired, and when to sweep again.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    due_at = context.obj.now() if at is None else read_instant("--at", at)
    with (
        opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager,
        screen.progress() as bar,
    ):
        bar.phase("sweeping")
        report = manager.sweep(at=due_at)
    if as_json:
        screen.document(
            {
                "fired": [records.event_record(event) for event in report.fired],
                "next_deadline": records.instant_or_none(report.next_deadline),
                "failed": records.failed_records(report.failed),
            }
        )
    else:
        columns = (
            Column("at"),
            Column("session"),
            Column("fired"),
            Column("status"),
        )
        if report.fired:
            screen.table(
                columns,
                [
                    (instant(event.at), event.session_id, event.trigger or "", status_change(event))
                    for event in report.fired
                ],
            )
        again = _again(report.next_deadline, max(due_at, context.obj.now()))
        screen.note(f"{counted(len(report.fired), 'step')} fired; {again}")
    _end_failed(screen, report.failed)


def _again(deadline: datetime | None, now: datetime) -> str:
    if deadline is None:
        return "nothing is due later"
    if deadline <= now:
        return "what was left is still due"
    return f"sweep again at {instant(deadline)}, {when(deadline, now)}"


def recover(
    context: typer.Context,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Clear away what processes left that died: their tasks, half-done starts and stops.

    Nothing is touched of a process that lives.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    with (
        opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager,
        screen.progress() as bar,
    ):
        bar.phase("recovering")
        report = manager.recover()
    if as_json:
        screen.document(
            {
                "ended": list(report.ended),
                "released": list(report.released),
                "dropped_tasks": list(report.dropped_tasks),
                "failed": records.failed_records(report.failed),
            }
        )
    else:
        rows = [(each, "ended") for each in report.ended]
        rows += [(each, "lives on") for each in report.released]
        if rows:
            screen.table((Column("session"), Column("is")), rows)
        sessions = counted(len(rows), "session")
        screen.note(f"{sessions} recovered, {counted(len(report.dropped_tasks), 'task')} dropped")
    _end_failed(screen, report.failed)


def _end_failed(screen: Screen, failed: tuple[tuple[str, str], ...]) -> None:
    """Name the sessions with which something failed, if any, and end with exit code 1."""
    for session_id, problem in failed:
        screen.fault(f"session {session_id!r} was left as it is: {problem}")
    if failed:
        raise typer.Exit(1)


def purge(
    context: typer.Context,
    ended_before: Annotated[
        str,
        typer.Option(
            metavar="INSTANT|AGE",
            show_default=False,
            help="Remove what ended before this instant (ISO 8601 with a UTC offset), or longer"
            " ago than this: a number with s, m, h, d or w behind it for seconds, minutes, hours,"
            " days or weeks.",
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask; without a terminal, nobody is asked.")
    ] = False,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Remove sessions for ever that ended long enough ago.

    Sessions that have not ended are never removed. Of each that is, one event is left, which tells
    that it was purged.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    before = read_instant_or_age("--ended-before", ended_before, context.obj.now())
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        if screen.watched and sys.stdin.isatty() and not yes:
            found = len(manager.store.ended(before, _MOST_COUNTED + 1))
            number = counted(found, "session")
            if found > _MOST_COUNTED:
                number = f"more than {counted(_MOST_COUNTED, 'session')}"
            what = f"{number} that ended before {instant(before)}"
            if found and not screen.confirmed(f"Remove {what}, for ever?"):
                screen.fault("nothing was removed")
                raise typer.Exit(1)
        with screen.progress() as bar:
            bar.phase("purging")
            removed = manager.purge(ended_before=before)
    if as_json:
        screen.document({"purged": removed, "ended_before": instant_text(before)})
        return
    screen.line(f"{counted(removed, 'session')} removed that ended before {instant(before)}")


def compact(
    context: typer.Context,
    session_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SESSION]...", help="The sessions; all, if none is named."),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of its last events each session keeps.")
    ] = 100,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Have one checkpoint stand for the older events of a session, which are gone for ever.

    State, traffic and digests are told and verified as before.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    replaced: list[int] = []
    failed: list[tuple[str, str]] = []
    with (
        opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager,
        screen.progress() as bar,
    ):
        bar.phase("compacting")
        for session_id in session_ids or all_ids(manager.store):
            try:
                replaced.append(manager.compact(session_id, keep=keep))
            except SessionNotFoundError as fault:
                if session_ids:  # otherwise it was purged
                    failed.append((session_id, str(fault)))
            except StoreError as fault:
                failed.append((session_id, str(fault)))
    sessions = sum(number > 0 for number in replaced)
    if as_json:
        told = records.failed_records(tuple(failed))
        screen.document({"sessions": sessions, "events": sum(replaced), "failed": told})
    else:
        events = counted(sum(replaced), "event")
        screen.line(f"{events} of {counted(sessions, 'session')} replaced by checkpoints")
    _end_failed(screen, tuple(failed))


def verify(
    context: typer.Context,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Rebuild every session from its history, and check digests, moves and the store itself.

    The exit code is 1 if anything is wrong.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    with (
        opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager,
        screen.progress() as bar,
    ):
        bar.phase("verifying")
        report = manager.verify()
    extent = f"{counted(report.sessions, 'session')}, {counted(report.events, 'event')}"
    if report.locked:
        extent += f"; {counted(report.locked, 'session')} without the key, by the chain alone"
    if as_json:
        screen.document(
            {
                "ok": report.ok,
                "problems": list(report.problems),
                "sessions": report.sessions,
                "events": report.events,
                "locked": report.locked,
            }
        )
    elif report.ok:
        screen.line(Styled("ok", "bold green"), f": {extent}")
    else:
        for problem in report.problems:
            screen.line(problem)
    if not report.ok:
        screen.fault(f"{counted(len(report.problems), 'problem')} in {extent}")
        raise typer.Exit(1)


def upgrade(
    store: Store = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Bring a file that an older version has written to the present format, in place.

    It can be killed at any time and run again. Other processes should have closed the file.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    with screen.progress() as bar:
        bar.phase("upgrading")
        report = upgraded(store, load_lifecycle(lifecycle_name))
    if as_json:
        screen.document(attrs.asdict(report))
        return
    extent = counted(report.sessions, "session")
    if report.renewed:
        screen.line("the rows of the lifecycle have changed, and are known anew")
    if report.found == report.version and not report.renewed:
        screen.line(f"nothing to do: version {report.version} already, {extent}")
    elif report.found != report.version:
        screen.line(f"upgraded from version {report.found} to {report.version}: {extent}")


def rekey(
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Have the key of each session wrapped by the first key of the file; nothing else is written.

    Put the new key on top of the file, give the file to every process, run this, and take the old
    key out. It can be killed at any time and run again.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    with screen.progress() as bar:
        bar.phase("wrapping keys")
        report, key_id = rekeyed(store, load_lifecycle(lifecycle_name), key_file=key_file)
    if as_json:
        failed = records.failed_records(report.failed)
        screen.document({"key_id": key_id, "rewrapped": report.rewrapped, "failed": failed})
    else:
        screen.line(f"{counted(report.rewrapped, 'key')} wrapped anew, by key {key_id}")
    _end_failed(screen, report.failed)
