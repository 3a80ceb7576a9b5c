"""The commands that show the lifecycle itself, and need no store: diagram, table, schema.

A diagram shows on request what is in a store: the fleet, or one session.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..clock import Clock
from ..diagrams import FORMATS, format_of, render, standing, table_rows
from ..diagrams.words import moment
from ..manager import SessionManager
from ..serialization import json_schema
from . import records
from .lifecycles import LifecycleName, load_lifecycle
from .opening import opened
from .options import STORE_VARIABLE, AsJson, KeyFile, NoColor, UsageError
from .output import WORDS, Column, Screen, Styled
from .text import counted


class TableFormat(StrEnum):
    """The formats of the table."""

    TEXT = "text"
    MARKDOWN = "markdown"


def diagram(
    context: typer.Context,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            show_default="by the ending of --output, else mermaid",
            help=f"What is written: {', '.join(FORMATS)}.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="the standard output",
            help="Where it is written; a file that is there is replaced.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            show_default=False,
            help="Show the sessions of a store: how many are in each status, and how often each row"
            " was fired.",
        ),
    ] = None,
    session_id: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID",
            show_default=False,
            help="Show one session of the store: its status, what is permitted, and its way so far."
            f" Without --store, {STORE_VARIABLE} names the store.",
        ),
    ] = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Draw the lifecycle of a session: its statuses, and the moves between them.

    With --store, draw the sessions there on it; with --session, one of them.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    name = "mermaid" if format is None else format
    if format is None and output is not None:
        name = diagram_format("--output", output)
    if name not in FORMATS:
        raise UsageError("--format", f"no format {name!r}; formats are {', '.join(FORMATS)}")
    lifecycle = load_lifecycle(lifecycle_name)
    shown: Mapping[str, Any] = {}
    if session_id is not None:
        url = store or os.environ.get(STORE_VARIABLE)
        with opened(url, context.obj, lifecycle, key_file=key_file) as manager:
            shown = one_session(manager, session_id, context.obj)
    elif store is not None:
        with opened(store, context.obj, lifecycle, key_file=key_file) as manager:
            shown = fleet(manager, context.obj, screen)
    try:
        drawn = render(lifecycle, name, **shown)
    except ValueError as fault:  # what is stored isn't of this lifecycle
        screen.fault(f"{fault}; `verify` names all that is wrong")
        raise typer.Exit(1) from None
    if output is not None:
        write_diagram(output, drawn)
        if as_json:
            screen.document({"format": name, "output": str(output)})
        else:
            screen.line(f"{output} written")
    elif as_json:
        screen.document({"format": name, **_content(drawn)})
    elif isinstance(drawn, str):
        screen.text(drawn)
    elif sys.stdout.isatty():
        raise UsageError("--format", f"{name} is nothing for a terminal; give --output FILE")
    else:
        screen.data(drawn)


def one_session(manager: SessionManager, session_id: str, clock: Clock) -> Mapping[str, Any]:
    """Return what a diagram shows of one session."""
    now = clock.now()
    session = manager.get(session_id)
    # It may move on between the two looks: its history is shown as far as its state.
    events = manager.history(session_id)
    return {
        **standing(session.state, at=now, lifecycle=manager.lifecycle),
        "history": [event for event in events if event.revision <= session.revision],
        "caption": f"session {session_id} at {moment(now)}",
    }


def fleet(manager: SessionManager, clock: Clock, screen: Screen) -> Mapping[str, Any]:
    """Return what a diagram shows of all sessions; what can't be shown is told."""
    counts = manager.counts()
    traffic = manager.traffic()
    known = {(row.trigger, source) for row, source in manager.lifecycle.moves()}
    if lost := {row: count for row, count in traffic.items() if row not in known}:
        names = ", ".join(f"{trigger!r} from {source!r}" for trigger, source in sorted(lost))
        told = counted(sum(lost.values()), "move")
        screen.note(f"{told} by rows that the lifecycle lacks left out: {names}")
    return {
        "status_counts": counts,
        "traffic": {row: count for row, count in traffic.items() if row in known},
        "caption": f"{counted(sum(counts.values()), 'session')} at {moment(clock.now())}",
    }


def _content(drawn: str | bytes) -> Mapping[str, Any]:
    if isinstance(drawn, str):
        return {"encoding": "text", "content": drawn}
    return {"encoding": "base64", "content": base64.b64encode(drawn).decode()}


def diagram_format(option: str, path: Path) -> str:
    """Return the format of a diagram by the ending of its file.

    Raises:
        UsageError: No format has this ending.
    """
    try:
        return format_of(path)
    except ValueError as fault:
        raise UsageError(option, str(fault)) from None


def write_diagram(path: Path, drawn: str | bytes) -> None:
    """Write a diagram to a file.

    Raises:
        OSError: It can't be written.
    """
    path.write_bytes(drawn if isinstance(drawn, bytes) else drawn.encode())


def table(
    format: Annotated[TableFormat, typer.Option(help="How it is written.")] = TableFormat.TEXT,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Print the table that decides what a session may do: every trigger, its guards, its reason."""
    screen = Screen(as_json=as_json, no_color=no_color)
    lifecycle = load_lifecycle(lifecycle_name)
    if as_json:
        screen.document(records.lifecycle_record(lifecycle))
        return
    if format is TableFormat.MARKDOWN:
        drawn = render(lifecycle, "markdown")
        assert isinstance(drawn, str)
        screen.text(drawn)
        return
    header, rows = table_rows(lifecycle)
    unbroken = header[0]
    screen.table(
        [Column(title, least=None if title == unbroken else WORDS) for title in header],
        [(Styled(first, "bold"), *others) for first, *others in rows],
    )


def schema(
    lifecycle_name: LifecycleName = None, as_json: AsJson = False, no_color: NoColor = False
) -> None:
    """Print the JSON schema of a session's state, as it is stored and sent."""
    screen = Screen(as_json=as_json, no_color=no_color)
    screen.document(json_schema(load_lifecycle(lifecycle_name)))
