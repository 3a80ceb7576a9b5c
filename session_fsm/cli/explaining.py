"""The command that tells whether a trigger would be accepted, and why not: explain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from ..errors import Refusal
from ..explain import explain as explain_trigger
from ..lifecycle import Lifecycle, Row
from ..rows import RESERVED_ARGUMENTS
from ..session import Session
from . import records
from .lifecycles import LifecycleName, load_lifecycle
from .opening import opened
from .options import AsJson, KeyFile, NoColor, SessionId, Store, UsageError, check_text
from .output import Cell, Screen, Styled
from .sessions import in_colour, seen

REFUSED: Final = 3
"""The exit code that says no: neither a failure nor wrong usage."""

_ARG: Final = "--arg"


def explain(
    context: typer.Context,
    session_id: SessionId,
    trigger: Annotated[
        str, typer.Argument(metavar="TRIGGER", show_default=False, help="What would be fired.")
    ],
    arg: Annotated[
        list[str] | None,
        typer.Option(
            _ARG,
            metavar="NAME=TEXT|NAME:=JSON",
            show_default=False,
            help="An argument that would come with the trigger, as text or as JSON. May be given"
            " several times.",
        ),
    ] = None,
    store: Store = None,
    key_file: KeyFile = None,
    lifecycle_name: LifecycleName = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Tell whether a trigger would be accepted now, and if not, each reason; nothing is fired.

    The exit code is 0 if it would be accepted, and 3 if it would be refused.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    check_text("TRIGGER", trigger)
    arguments = _arguments(arg or ())
    now = context.obj.now()
    with opened(store, context.obj, load_lifecycle(lifecycle_name), key_file=key_file) as manager:
        session = manager.get(session_id)
        lifecycle = manager.lifecycle
    try:
        refusal = explain_trigger(session.state, trigger, at=now, lifecycle=lifecycle, **arguments)
    except TypeError as fault:
        raise UsageError(_ARG, str(fault)) from None
    row = lifecycle.find(trigger, session.status)
    missing = [] if row is None else [name for name in row.required if name not in arguments]
    if as_json:
        screen.document(
            {
                "session_id": session.session_id,
                "revision": session.revision,
                "status": str(session.status),
                "trigger": trigger,
                "at": records.instant_or_none(now),
                "accepted": refusal is None,
                "missing_arguments": missing,
                "refusal": None if refusal is None else records.refusal_record(refusal),
            }
        )
    else:
        screen.facts(_facts(session, trigger, row, refusal, lifecycle, now))
        if missing:
            names = ", ".join(missing)
            screen.note(f"guards that need {names} were not asked: give {_ARG} {missing[0]}=…")
    if refusal is not None:
        raise typer.Exit(REFUSED)


def _arguments(words: Iterable[str]) -> dict[str, Any]:
    """Read arguments: `name=text`, or `name:=JSON`.

    Raises:
        UsageError: One is neither, can't be an argument's name, or is given twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        check_text(_ARG, word)
        left, separator, text = word.partition("=")
        name = left.removesuffix(":")
        if not separator:
            raise UsageError(_ARG, f"expected NAME=TEXT or NAME:=JSON, got {word!r}")
        if not name.isidentifier() or name in RESERVED_ARGUMENTS - {"reason"}:
            raise UsageError(_ARG, f"{name!r} can't be an argument's name")
        if name in arguments:
            raise UsageError(_ARG, f"{name!r} is given twice")
        arguments[name] = text if left == name else _json(name, text)
    return arguments


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        problem = f"{name!r} is no JSON: {fault}; a text is given as {name}=TEXT"
        raise UsageError(_ARG, problem) from None


def _facts(
    session: Session,
    trigger: str,
    row: Row | None,
    refusal: Refusal | None,
    lifecycle: Lifecycle,
    now: datetime,
) -> Iterator[tuple[str, Cell]]:
    yield "session", Styled(session.session_id, "bold")
    yield "status", in_colour(session.status, lifecycle)
    yield "trigger", Styled(trigger, "bold")
    if refusal is None:
        assert row is not None
        leads = "the status stays" if row.target is None else f"leads to {row.target}"
        yield "answer", Styled(f"accepted: {leads}", "green")
        return
    yield "answer", Styled("refused", "red")
    yield from _reasons(refusal)
    yield "permitted now", ", ".join(refusal.permitted) or "nothing"
    timed = refusal.next_timed
    yield "fires next", "nothing" if timed is None else f"{timed[0]} at {seen(timed[1], now)}"
    for fault in refusal.broken:
        yield "left out", Styled(fault, "red")


def _reasons(refusal: Refusal) -> Iterator[tuple[str, Cell]]:
    """Yield why, each guard on a line of its own, the name of the fact at the first alone."""
    name = "because"
    if not refusal.failed_guards:
        yield name, refusal.headline
    for failed in refusal.failed_guards:
        yield name, f"{failed.reason} ({failed.name})"
        name = ""
