"""One legal move as a value: what fires it, from where, what it asks, where it leads.

A row checks itself alone; what it means among others is the business of the lifecycle that holds
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final

import attrs

from .guards import Attempt, Deadline, Guard

Effect = Callable[[Attempt], Mapping[str, Any]]
"""Returns the data fields that a move changes; pure."""

RESERVED_ARGUMENTS: Final = frozenset(
    (
        "self",
        "at",
        "lifecycle",
        "state",
        "reason",
        "expected_revision",
        "session_id",
        "trigger",
        "to",
        "writes",
    )
)
RESERVED_TRIGGERS: Final = frozenset(("fire", "lifecycle", "revision", "state"))


class Live(Enum):
    """The type of `LIVE`."""

    LIVE = "every status that is not final"


LIVE: Final = Live.LIVE
"""As the sources of a row: all statuses that are not final."""


def words(value: Iterable[str] | str) -> tuple[str, ...]:
    """Return one word, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def _guards(value: Iterable[Guard] | Guard) -> tuple[Guard, ...]:
    return (value,) if isinstance(value, Guard) else tuple(value)


def _sources(value: Iterable[str] | str | Live) -> tuple[str, ...] | Live:
    return value if isinstance(value, Live) else words(value)


@attrs.frozen
class Row:
    """One legal move, or one legal change within a status.

    Attributes:
        trigger: What fires it; an identifier.
        sources: Statuses from which it may be fired; `LIVE`: all that are not final.
        target: The status that it leads to; None: the status stays.
        guards: What must hold, all of it.
        deadline: When it fires by itself; None: by hand only. It is a guard of the row too.
        effect: The data that it changes; None: none.
        activity: Whether it counts as somebody working with the session.
        ending: Whether it is part of its sources' way out.
        required: Arguments that must come with the trigger.
        optional: Arguments that may come with it.
        why: The reason for the row, in a few words.
        conditions: The guards in order, the deadline's own one last.

    Raises:
        TypeError: A guard is no `Guard`, the deadline no `Deadline`, or the effect no function.
    """

    trigger: str
    sources: tuple[str, ...] | Live = attrs.field(converter=_sources)
    target: str | None
    guards: tuple[Guard, ...] = attrs.field(default=(), converter=_guards, kw_only=True)
    deadline: Deadline | None = attrs.field(default=None, kw_only=True)
    effect: Effect | None = attrs.field(default=None, kw_only=True)
    activity: bool = attrs.field(default=False, kw_only=True)
    ending: bool = attrs.field(default=False, kw_only=True)
    required: tuple[str, ...] = attrs.field(default=(), converter=words, kw_only=True)
    optional: tuple[str, ...] = attrs.field(default=(), converter=words, kw_only=True)
    why: str = attrs.field(default="", kw_only=True)
    conditions: tuple[Guard, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        for each in self.guards:
            if not isinstance(each, Guard):
                kind = type(each).__name__
                raise TypeError(f"{self}: a {kind} is no Guard; `guard` makes one of a function")
        if not isinstance(self.deadline, Deadline | None):
            raise TypeError(f"{self}: a {type(self.deadline).__name__} is no Deadline")
        if self.effect is not None and not callable(self.effect):
            raise TypeError(f"{self}: a {type(self.effect).__name__} is no function of an attempt")
        due = () if self.deadline is None else (self.deadline.passed(),)
        object.__setattr__(self, "conditions", self.guards + due)

    def __str__(self) -> str:
        sources = "LIVE" if isinstance(self.sources, Live) else ", ".join(self.sources)
        return f"row {self.trigger!r} ({sources} -> {self.target or 'stays'})"
