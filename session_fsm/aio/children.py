"""What runs for a session: its children, how often they may die, and what is sent to them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, Literal

import attrs

from ..fields import check_id

Restart = Literal["permanent", "transient", "temporary"]
RESTARTS: Final[tuple[Restart, ...]] = ("permanent", "transient", "temporary")

_TRANSIENT: Final[Restart] = "transient"

MAX_CHILDREN: Final = 100
"""Most children of one session."""


def _check_name(_: object, field: attrs.Attribute[str], value: object) -> None:
    problems: list[str] = []
    check_id(value, field.name, problems)
    if problems:
        raise ValueError("; ".join(problems))


def _check_run(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise TypeError(f"{field.name}: is called; {type(value).__name__} can't be")


def _check_restart(_: object, field: attrs.Attribute[Restart], value: object) -> None:
    if value not in RESTARTS:
        raise ValueError(f"{field.name}: expected one of {', '.join(RESTARTS)}, got {value!r}")


def check_seconds(_: object, field: attrs.Attribute[float], value: object) -> None:
    """Accept a finite number of seconds from zero on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field.name}: expected seconds, got {type(value).__name__}")
    if not (math.isfinite(value) and 0 <= value < 1e9):
        raise ValueError(f"{field.name}: expected at least 0 and less than 1e9, got {value}")


def _check_count(_: object, field: attrs.Attribute[int], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{field.name}: expected a number from 0 on, got {value!r}")


@attrs.frozen
class Child:
    """Something that runs for a session, as long as the session lives.

    Attributes:
        name: Tells it from its siblings; 1 to 255 printable characters.
        run: Called with a `ChildContext` in a task of its own, anew for each restart, and awaited.
        restart: What is done when it ends. `permanent`: it is restarted, whatever it ended by;
            `transient`: it is restarted if it failed; `temporary`: it is never restarted.
        signals_ready: Whether it calls `ready()` when it can be worked with, within the grace of a
            start; otherwise it counts as ready at once.
        stop_seconds: How long it may take to end by itself once it is asked to stop; after that it
            is cancelled.
        takes_messages: Whether it reads its inbox; `send_message` puts a message into that of the
            first child that does and has not ended for good. None: as `run.takes_messages` says; it
            does, if that says nothing.

    Raises:
        ValueError, TypeError: A value is bad.
    """

    name: str = attrs.field(validator=_check_name)
    run: Callable[[Any], Awaitable[object]] = attrs.field(validator=_check_run)
    restart: Restart = attrs.field(default=_TRANSIENT, kw_only=True, validator=_check_restart)
    signals_ready: bool = attrs.field(default=False, kw_only=True)
    stop_seconds: float = attrs.field(default=5.0, kw_only=True, validator=check_seconds)
    takes_messages: bool | None = attrs.field(default=None, kw_only=True)

    @property
    def reads_inbox(self) -> bool:
        """Whether messages are for it."""
        if self.takes_messages is not None:
            return self.takes_messages
        return bool(getattr(self.run, "takes_messages", True))


@attrs.frozen(kw_only=True)
class RestartLimit:
    """How often the children of one session may be restarted, together.

    Attributes:
        max_restarts: Most restarts within `max_seconds`; one more failure fails the session.
        max_seconds: The length of the window.
        backoff_seconds: Wait before the first restart in a window; doubled for each further one.
        max_backoff_seconds: The longest such wait.
    """

    max_restarts: int = attrs.field(default=3, validator=_check_count)
    max_seconds: float = attrs.field(default=60.0, validator=check_seconds)
    backoff_seconds: float = attrs.field(default=0.1, validator=check_seconds)
    max_backoff_seconds: float = attrs.field(default=10.0, validator=check_seconds)

    def backoff(self, restarts: int) -> float:
        """Return the wait before a restart, by how many the window has, this one included."""
        doubled = math.ldexp(self.backoff_seconds, min(restarts - 1, 60))
        return min(doubled, self.max_backoff_seconds)


@attrs.frozen(kw_only=True)
class ChildStatus:
    """How a child does.

    Attributes:
        name: Its name.
        alive: Whether it runs; not while it waits for its restart.
        restarts: How often it was restarted.
        error: What it failed by last, in words; None if it never has.
    """

    name: str
    alive: bool
    restarts: int
    error: str | None


class Inbox:
    """Messages for a child, in order; read with `async for`, which ends when it is asked to stop.

    Args:
        limit: Most messages that wait; nobody may fill the memory by not reading.

    Threads: none but the loop's.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._waiting: deque[Any] = deque()
        self._changed: asyncio.Future[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether there is no room for another message."""
        return len(self._waiting) >= self._limit

    def put(self, message: object) -> None:
        """Put in a message.

        Raises:
            asyncio.QueueFull: There is no room, or nobody will read it any longer.
        """
        if self.closed or self.full:
            raise asyncio.QueueFull
        self.deliver(message)

    def deliver(self, message: object) -> None:
        """Put in a message for which there was room when it was accepted, unless it is closed."""
        if not self.closed:
            self._waiting.append(message)
            self._wake()

    def close(self) -> None:
        """Have whoever reads it end, when it has read what is there."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._waiting:
            if self.closed:
                raise StopAsyncIteration
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._changed,))
        return self._waiting.popleft()


def checked_children(children: Iterable[Child]) -> tuple[Child, ...]:
    """Accept the children of one session.

    Raises:
        TypeError: One of them is no child.
        ValueError: Two have one name, or there are too many.
    """
    given = tuple(children)
    for child in given:
        if not isinstance(child, Child):
            raise TypeError(f"children: expected a Child, got {type(child).__name__}")
    names = [child.name for child in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"children: each has a name of its own; twice there is {twice[0]!r}")
    if len(given) > MAX_CHILDREN:
        raise ValueError(f"children: at most {MAX_CHILDREN}, got {len(given)}")
    return given
