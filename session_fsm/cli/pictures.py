"""The commands that show the lifecycle itself, and need no store: diagram, table, schema."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..diagrams import FORMATS, format_of, render, table_rows
from ..serialization import json_schema
from ..table import SESSION_LIFECYCLE
from . import records
from .options import AsJson, NoColor, UsageError
from .output import WORDS, Column, Screen, Styled


class TableFormat(StrEnum):
    """The formats of the table."""

    TEXT = "text"
    MARKDOWN = "markdown"


def diagram(
    format: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FORMATS),
            show_default="by the ending of --output, else mermaid",
            help="What is written.",
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
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Draw the lifecycle of a session: its statuses, and the moves between them."""
    screen = Screen(as_json=as_json, no_color=no_color)
    name = "mermaid" if format is None else format
    if format is None and output is not None:
        name = diagram_format("--output", output)
    if name not in FORMATS:
        raise UsageError("--format", f"no format {name!r}; formats are {', '.join(FORMATS)}")
    drawn = render(SESSION_LIFECYCLE, name)
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
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Print the table that decides what a session may do: every trigger, its guards, its reason."""
    screen = Screen(as_json=as_json, no_color=no_color)
    if as_json:
        screen.document(records.lifecycle_record(SESSION_LIFECYCLE))
        return
    if format is TableFormat.MARKDOWN:
        drawn = render(SESSION_LIFECYCLE, "markdown")
        assert isinstance(drawn, str)
        screen.text(drawn)
        return
    header, rows = table_rows(SESSION_LIFECYCLE)
    unbroken = header[0]
    screen.table(
        [Column(title, least=None if title == unbroken else WORDS) for title in header],
        [(Styled(first, "bold"), *others) for first, *others in rows],
    )


def schema(as_json: AsJson = False, no_color: NoColor = False) -> None:
    """Print the JSON schema of a session's state, as it is stored and sent."""
    Screen(as_json=as_json, no_color=no_color).document(json_schema())
