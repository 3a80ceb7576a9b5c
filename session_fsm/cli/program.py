"""The program: its commands put together, and what goes wrong as an exit code and one line.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the operation failed; what went wrong stands on the standard error |
| 2 | wrong usage: an unknown command or option, a value that is no good |
| 3 | `explain` alone: the trigger would be refused |
| 130 | interrupted by Ctrl-C |
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, cast

import typer
import typer.main

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import SessionFsmError
from . import certificates, explaining, pictures, replays, sessions, upkeep
from .output import PROGRAM, Screen

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
_LOGGERS: Final = ("session_fsm", "psycopg")

# Typer shows of its errors about usage the one that has a parameter; the others share its base.
_UsageFault: Final = cast(type[Exception], typer.BadParameter.__bases__[0])


def _version(given: bool) -> None:
    if given:
        try:
            version = importlib.metadata.version("session_fsm")
        except importlib.metadata.PackageNotFoundError:
            version = "of a version that is not known: it was not installed"
        Screen().line(f"{PROGRAM} {version}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Watch and tend the sessions in a store, and replay logs of real ones.

    The store is named by --store or by the environment variable SESSION_FSM_STORE, and a lifecycle
    of one's own by --lifecycle or SESSION_FSM_LIFECYCLE. Keys of what is encrypted stand in a file
    that --key-file or SESSION_FSM_KEY_FILE names. Every command takes --json.
    """


def build() -> typer.Typer:
    """Put the commands together."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_help(_common))(_common)
    for panel, commands in _COMMANDS.items():
        for name, command in commands.items():
            app.command(name, help=_help(command), rich_help_panel=panel)(command)
    return app


def _help(command: Callable[..., None]) -> str:
    """Return the docstring of a command, each paragraph in one line: the terminal breaks them."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


_COMMANDS: Final[Mapping[str, Mapping[str, Callable[..., None]]]] = {
    "Sessions": {
        "list": sessions.list_sessions,
        "counts": sessions.counts,
        "show": sessions.show,
        "history": sessions.history,
        "explain": explaining.explain,
        "terminate": sessions.terminate,
    },
    "The whole store": {
        "sweep": upkeep.sweep,
        "recover": upkeep.recover,
        "purge": upkeep.purge,
        "compact": upkeep.compact,
        "rekey": upkeep.rekey,
        "upgrade": upkeep.upgrade,
        "verify": upkeep.verify,
    },
    "Real logs": {"replay": replays.replay_logs},
    "The lifecycle": {
        "diagram": pictures.diagram,
        "table": pictures.table,
        "schema": pictures.schema,
        "certify": certificates.certify_lifecycle,
    },
}


def run(arguments: Sequence[str] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> int:
    """Run a command.

    Args:
        arguments: The words behind the name of the program; None: those of the process.
        clock: What tells the commands the time.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    screen = Screen(no_color="--no-color" in words)
    with _quiet_logs():
        try:
            code = _run(words or ["--help"], clock, screen)
            sys.stdout.flush()
        except BrokenPipeError:
            code = FAILED  # whoever read the answer has had enough, and knows it
        except OSError as fault:
            screen.fault(_in_words(fault))
            code = FAILED
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else FAILED
    _let_go_of_output()
    return code if words else code or USAGE


def _run(words: Sequence[str], clock: Clock, screen: Screen) -> int:
    command: Any = typer.main.get_command(build())
    try:
        code = command.main(list(words), prog_name=PROGRAM, standalone_mode=False, obj=clock)
    except _UsageFault as fault:
        path = getattr(getattr(fault, "ctx", None), "command_path", PROGRAM)
        problem = " ".join(cast(Any, fault).format_message().split()).removesuffix(".")
        screen.fault(f"{problem} (see {path} --help)")
        return USAGE
    except SessionFsmError as fault:
        screen.fault(str(fault))
        return FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer, too, makes this of Ctrl-C
        screen.fault("interrupted")
    return code if isinstance(code, int) else 0


def _in_words(fault: OSError) -> str:
    problem = fault.strerror or str(fault)
    return problem if fault.filename is None else f"{os.fsdecode(fault.filename)}: {problem}"


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep what the library and its driver log off the terminal: the commands tell it themselves.

    What no handler takes, Python writes there.
    """
    handler = logging.NullHandler()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _let_go_of_output() -> None:
    """Point the output to nowhere if it takes nothing, or Python would say so once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
