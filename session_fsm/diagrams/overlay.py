"""What is shown on top of a lifecycle: one session, a whole fleet, or what tests have covered.

A drawing tells of one of the three. What can't be shown on the lifecycle, or contradicts itself,
is refused by name: a picture that left it out would be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Protocol, TypedDict, TypeVar

import attrs

from ..clock import SYSTEM_CLOCK
from ..explain import next_timed, permitted
from ..lifecycle import Lifecycle
from ..state import SessionState
from ..table import SESSION_LIFECYCLE

Key = TypeVar("Key")

ONE: Final = ("current", "permitted", "next_timed", "history")
FLEET: Final = ("counts", "traffic", "status_counts")
TESTS: Final = ("coverage",)


class Event(Protocol):
    """A step of a session's life, as `SessionEvent` has it."""

    @property
    def revision(self) -> int:
        """Its number; rises with each step."""
        ...

    @property
    def trigger(self) -> str | None:
        """What was fired; None where the session was created, or purged."""
        ...

    @property
    def source(self) -> str | None:
        """The status before; None where the session was created."""
        ...

    @property
    def target(self) -> str | None:
        """The status after."""
        ...

    @property
    def at(self) -> datetime:
        """When; aware."""
        ...

    @property
    def reason(self) -> str | None:
        """Why, in words; None if nothing was said."""
        ...


class Standing(TypedDict):
    """Where a session stands: the arguments of `render` that show it."""

    current: str
    permitted: tuple[str, ...]
    next_timed: tuple[str, datetime] | None


def standing(
    state: SessionState,
    *,
    at: datetime | None = None,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
) -> Standing:
    """Tell where a session stands at an instant, as arguments for `render`.

    Args:
        state: The session.
        at: The instant, aware; None: now, by the system's clock.
        lifecycle: The table that is asked.

    Returns:
        The status, what is permitted, and what fires by itself next: hand it on with `**`.

    Raises:
        GuardError: A guard raised, or returned no bool.

    Example:
        >>> from datetime import UTC
        >>> noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
        >>> standing(SessionState.new("a", at=noon), at=noon)["permitted"]
        ('activate', 'abort', 'update')
    """
    return {
        "current": state.status,
        "permitted": permitted(
            state, at=SYSTEM_CLOCK.now() if at is None else at, lifecycle=lifecycle
        ),
        "next_timed": next_timed(state, lifecycle),
    }


def _tuple(value: Iterable[Event] | None) -> tuple[Event, ...] | None:
    return None if value is None else tuple(value)


def _words(value: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise ValueError(f"permitted: expected triggers, got the one text {value!r}")
    return None if value is None else tuple(value)


@attrs.frozen(kw_only=True)
class Overlay:
    """What is shown on top of a lifecycle; `render` says what each of it means.

    Raises:
        ValueError: What was given doesn't go together.
    """

    counts: Mapping[tuple[str, str], int] | None = None
    traffic: Mapping[tuple[str, str], int] | None = None
    status_counts: Mapping[str, int] | None = None
    coverage: Mapping[tuple[str, str], int] | None = None
    current: str | None = None
    permitted: tuple[str, ...] | None = attrs.field(default=None, converter=_words)
    next_timed: tuple[str, datetime] | None = None
    history: tuple[Event, ...] | None = attrs.field(default=None, converter=_tuple)
    caption: str | None = None

    def __attrs_post_init__(self) -> None:
        given = [
            found[0]
            for names in (ONE, FLEET, TESTS)
            if (found := [name for name in names if getattr(self, name) is not None])
        ]
        if len(given) > 1:
            told = "one session, a fleet, or what tests cover"
            raise ValueError(f"{given[0]} and {given[1]} contradict: a drawing shows {told}")
        if self.counts is not None and self.traffic is not None:
            raise ValueError("counts and traffic both count moves: give one of them")
        for name in ("permitted", "next_timed"):
            if self.current is None and getattr(self, name) is not None:
                raise ValueError(f"{name} holds in a status: give current too")

    def check(self, lifecycle: Lifecycle) -> None:
        """Accept what can be shown on a lifecycle.

        Raises:
            ValueError: Something is told of what the lifecycle lacks, or can't be true of it.
        """
        rows = [(row.trigger, source) for row, source in lifecycle.moves()]
        _check_counts("edge", lifecycle.edges, self.counts)
        _check_counts("row", rows, self.traffic)
        _check_counts("row", rows, self.coverage)
        _check_counts("status", lifecycle.statuses, self.status_counts)
        if self.current is not None:
            self._check_standing(lifecycle, self.current)
        if self.history is not None:
            self._check_history(lifecycle, self.history)

    def _check_standing(self, lifecycle: Lifecycle, current: str) -> None:
        if current not in lifecycle:
            raise ValueError(f"there is no status {current!r} to be the current one")
        for trigger in self.permitted or ():
            if lifecycle.find(trigger, current) is None:
                raise ValueError(
                    f"no row for {trigger!r} leaves {_word(current)}: it isn't permitted"
                )
        if self.next_timed is not None:
            trigger = self.next_timed[0]
            row = lifecycle.find(trigger, current)
            if row is None or row.deadline is None:
                raise ValueError(f"in {_word(current)}, {trigger!r} doesn't fire by itself")

    def _check_history(self, lifecycle: Lifecycle, events: tuple[Event, ...]) -> None:
        last: Event | None = None
        for event in events:
            told = f"event {event.revision}"
            if event.trigger is None:
                if event.source is None and event.target != lifecycle.initial:
                    raise ValueError(f"{told}: no life begins in {_word(event.target)}")
            elif (row := lifecycle.find(event.trigger, event.source or "")) is None:
                raise ValueError(f"{told}: no row {event.trigger!r} from {_word(event.source)}")
            elif event.target != (event.source if row.target is None else row.target):
                raise ValueError(f"{told}: {event.trigger!r} doesn't lead to {_word(event.target)}")
            if last is not None and event.revision <= last.revision:
                raise ValueError(f"{told} comes after event {last.revision}: not in order")
            if last is not None and event.source not in (None, last.target):
                raise ValueError(
                    f"{told} begins in {_word(event.source)}, not where the one before led"
                )
            last = event
        if last is not None and self.current not in (None, last.target):
            raise ValueError(
                f"the history ends in {_word(last.target)}, not in {_word(self.current)}"
            )


def _word(status: str | None) -> str:
    # A member of an enum shows its class too.
    return "nothing" if status is None else repr(str(status))


def _check_counts(what: str, known: Iterable[Key], counts: Mapping[Key, int] | None) -> None:
    if counts is None:
        return
    there = set(known)
    for key, count in counts.items():
        if key not in there:
            raise ValueError(f"there is no {what} {key!r} to be counted")
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"the count of the {what} {key!r} is no count: {count!r}")
