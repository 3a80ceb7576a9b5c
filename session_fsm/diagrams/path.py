"""One session's history as a path: the number and the instant of each step, where it was taken."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import attrs

from ..clock import instant_text
from .overlay import Event
from .words import day, plain, span, time_of_day, times


@attrs.frozen(kw_only=True)
class Step:
    """A step of a life in words.

    Attributes:
        number: The revision that it led to.
        trigger: What was fired; None: the session was created.
        source: The status before; None: it was created.
        target: The status after.
        at: When, to the second; without the day if all steps are of one.
        instant: When, exactly.
        reason: Why; empty if nothing was said.
    """

    number: int
    trigger: str | None
    source: str | None
    target: str
    at: str
    instant: str
    reason: str

    @property
    def told(self) -> str:
        """Its number and when it was."""
        return f"#{self.number:,} {self.at}"


@attrs.frozen(kw_only=True)
class Path:
    """The steps of a life, the first one first; what was purged before is another life.

    Attributes:
        day: The day of all steps in UTC; None: they are of several days, or there is none.
        steps: In order; may be empty.
        stays: For each status on the path, in words: whether the session was created in it, how
            often and how long it was there, and since when it is.
    """

    day: str | None
    steps: tuple[Step, ...]
    stays: dict[str, tuple[str, ...]]

    def at_row(self, trigger: str, source: str) -> tuple[Step, ...]:
        """Return the steps by a row from a status."""
        return tuple(s for s in self.steps if (s.trigger, s.source) == (trigger, source))


def path_of(events: Iterable[Event]) -> Path:
    """Put a history in words."""
    # Created and purged come without a trigger; the latter leads from its status.
    told = [each for each in events if each.trigger is not None or each.source is None]
    days = {day(each.at) for each in told}
    steps = tuple(
        Step(
            number=each.revision,
            trigger=each.trigger,
            source=None if each.source is None else str(each.source),
            target=str(each.target),
            at=time_of_day(each.at) if len(days) == 1 else f"{day(each.at)} {time_of_day(each.at)}",
            instant=instant_text(each.at),
            reason=plain(each.reason or ""),
        )
        for each in told
    )
    return Path(
        day=days.pop() if len(days) == 1 else None,
        steps=steps,
        stays=_stays(told, steps),
    )


def _stays(events: list[Event], steps: tuple[Step, ...]) -> dict[str, tuple[str, ...]]:
    ended: dict[str, list[timedelta]] = {}
    words: dict[str, list[str]] = {}
    since: tuple[Event, Step] | None = None
    for event, step in zip(events, steps, strict=True):
        if step.trigger is None:
            words.setdefault(step.target, []).append(f"created {step.told}")
        if since is None or event.target != since[1].target:
            if since is not None:
                ended.setdefault(since[1].target, []).append(event.at - since[0].at)
            since = event, step
    for status, lengths in ended.items():
        often = "" if len(lengths) == 1 else f"{times(len(lengths))}, "
        words.setdefault(status, []).append(f"{often}{span(sum(lengths, timedelta()))} here")
    if since is not None:
        words.setdefault(since[1].target, []).append(f"since {since[1].at}")
    return {status: tuple(told) for status, told in words.items()}


def shortened(steps: tuple[Step, ...], most: int) -> tuple[str, ...]:
    """Return steps as lines, of many the first ones and the last.

    Args:
        steps: In order; may be empty.
        most: Most lines; at least 3.
    """
    if len(steps) <= most:
        return tuple(step.told for step in steps)
    first = steps[: most - 2]
    between = f"… {len(steps) - len(first) - 1:,} more …"
    return (*(step.told for step in first), between, steps[-1].told)


def in_one_line(steps: tuple[Step, ...]) -> str:
    """Return steps as one short text: how many, the first one and the last; empty if none."""
    if len(steps) <= 2:
        return ", ".join(step.told for step in steps)
    return f"{times(len(steps))}, {steps[0].told} … {steps[-1].told}"
