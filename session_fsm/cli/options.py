"""The options that commands share, and how the words of a person become values."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from ..serialization import parse_instant

STORE_VARIABLE: Final = "SESSION_FSM_STORE"
KEY_FILE_VARIABLE: Final = "SESSION_FSM_KEY_FILE"

_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        metavar="URL",
        show_default=False,
        help="Where the sessions are: sqlite:///relative.db or sqlite:////absolute.db, or"
        " postgresql://user@host/database?schema=name.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar=KEY_FILE_VARIABLE,
        metavar="FILE",
        show_default=False,
        help="The keys that sessions are encrypted with: 32 bytes in base64 on each line, the"
        " current key first.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document for machines, and nothing else."),
]
NoColor = Annotated[
    bool,
    typer.Option("--no-color", help="Use no colours; the environment variable NO_COLOR does too."),
]
Reveal = Annotated[
    bool,
    typer.Option(
        "--reveal",
        help="Show the values in llm_config and metadata that look like secrets; *** otherwise.",
    ),
]
SessionId = Annotated[
    str, typer.Argument(metavar="ID", show_default=False, help="The id of the session.")
]


class UsageError(typer.BadParameter):
    """What a person asked for can't be meant; the exit code is 2.

    Args:
        option: The option with the bad value; None if it is about no value.
        problem: What is wrong, in words.
    """

    def __init__(self, option: str | None, problem: str) -> None:
        super().__init__(problem if option is None else f"{option}: {problem}")

    def format_message(self) -> str:
        """Return what is wrong as it is said."""
        return self.message


def check_text(option: str, text: str) -> None:
    """Accept what is text: a word of the command line need not be.

    Raises:
        UsageError: It can't be written in UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(option, f"no text: {text!r}") from None


def read_instant(option: str, text: str) -> datetime:
    """Read an instant.

    Raises:
        UsageError: It is none, or is naive.
    """
    try:
        return parse_instant(text)
    except ValueError as fault:
        raise UsageError(option, str(fault)) from None


def read_instant_or_age(option: str, text: str, now: datetime) -> datetime:
    """Read an instant, or how long ago it was: `90s`, `45m`, `12h`, `30d`, `2w`.

    Raises:
        UsageError: It is neither, or lies before the year 1.
    """
    age = _AGE.fullmatch(text)
    if age is None:
        try:
            return parse_instant(text)
        except ValueError as fault:
            ages = "or an age such as 30d, 12h, 45m or 90s"
            raise UsageError(option, f"{fault}; {ages}") from None
    try:
        return now - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
    except OverflowError:
        raise UsageError(option, f"{text} ago lies before the year 1") from None
