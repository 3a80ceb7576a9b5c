"""Guards and deadlines: what a row may ask of a session before it is taken.

Both are plain functions with a name, shown one `Attempt`. They decide and do nothing else: a guard
may be asked any number of times, by a dry run too, and while other sessions are held, for whose
moves it must not wait. `guard` makes one of a function, and a function that returns guards is a
factory of them, such as `requires_feature`.

A guard is also where arguments are judged. One that is no good is the caller's mistake, no refusal
and no fault of the guard: it raises `StateInvalidError`, which dry runs and moves pass on alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from .clock import as_utc
from .drafts import draft_class
from .errors import FailedGuard, GuardError, StateInvalidError
from .fields import Problems, check_id
from .state import SessionState


@attrs.frozen
class Attempt:
    """What guards, deadlines and effects are shown.

    Attributes:
        state: The session as it is before the move.
        at: The instant of the move; UTC, never before `state.updated_at`.
        arguments: What came with the trigger, by name; may lack some in a dry run.
        graces: The durations of the lifecycle, by name.
    """

    state: SessionState
    at: datetime
    arguments: Mapping[str, Any]
    graces: Mapping[str, timedelta]


_new = object.__new__
AttemptDraft = draft_class(Attempt)


def attempt_at(
    state: SessionState,
    at: datetime,
    arguments: Mapping[str, Any],
    graces: Mapping[str, timedelta],
) -> Attempt:
    """Put together what guards are shown."""
    draft = _new(AttemptDraft)
    draft.state = state
    draft.at = at
    draft.arguments = arguments
    draft.graces = graces
    draft.__class__ = Attempt
    sealed: Attempt = draft
    return sealed


@attrs.frozen
class Guard:
    """A condition of a row.

    Attributes:
        name: How the guard is called in refusals, tables and diagrams.
        check: Returns True to let the move pass, False to refuse it; anything else is a fault.
        reason: Why it refuses, in words, or a function that puts it in words.
        needs: Arguments without which it can't be asked.
        asks_for_room: Whether it asks if there is room for one more, of which there may be so many.
            Who goes on with one that is there needs no room for it.
    """

    name: str
    check: Callable[[Attempt], bool]
    reason: str | Callable[[Attempt], str]
    needs: tuple[str, ...] = ()
    asks_for_room: bool = attrs.field(default=False, kw_only=True)

    def passes(self, attempt: Attempt, trigger: str) -> bool:
        """Ask the guard.

        Raises:
            GuardError: It raised, or returned something that is no bool.
            StateInvalidError: It said so of an argument.
        """
        try:
            answer = self.check(attempt)
        except StateInvalidError:
            raise
        except Exception as cause:
            raise self._fault(trigger, f"raised {_told(cause)}") from cause
        if answer is True or answer is False:
            return answer
        raise self._fault(trigger, f"returned {_kind(answer)}, not a bool")

    def failure(self, attempt: Attempt, trigger: str) -> FailedGuard:
        """Put the refusal of this guard in words.

        Raises:
            GuardError: The function that gives the reason raised, or gave no string.
        """
        if isinstance(self.reason, str):
            return FailedGuard(self.name, self.reason)
        try:
            reason = self.reason(attempt)
        except Exception as cause:
            raise self._fault(trigger, f"raised {_told(cause)} for its reason") from cause
        if not isinstance(reason, str):
            raise self._fault(trigger, f"gave {_kind(reason)} for its reason, not a string")
        return FailedGuard(self.name, reason)

    def _fault(self, trigger: str, problem: str) -> GuardError:
        return GuardError(guard=self.name, trigger=trigger, problem=problem)


@attrs.frozen
class Deadline:
    """When a row fires by itself.

    Attributes:
        name: The deadline in words, for tables and diagrams, such as `status_since + start grace`.
        find: Returns the instant, aware, or None where no clock runs; may overflow, which is None.
        grace: The duration of the lifecycle that it uses; None: none.
    """

    name: str
    find: Callable[[Attempt], datetime | None]
    grace: str | None = None

    def due(self, attempt: Attempt) -> datetime | None:
        """Return the instant from which the row is due, in UTC, or None; for guards.

        Raises:
            Exception: Whatever `find` raises; a guard that asks makes a `GuardError` of it.
            TypeError: What it found is no instant.
            ValueError: It is a naive one.
        """
        try:
            found = self.find(attempt)
            return None if found is None else as_utc(found)
        except OverflowError:
            return None

    def at(self, attempt: Attempt, trigger: str) -> datetime | None:
        """Return the instant from which the row is due, in UTC, or None.

        Raises:
            GuardError: The deadline could not be found, or is no aware instant.
        """
        try:
            return self.due(attempt)
        except Exception as cause:
            problem = f"raised {_told(cause)}"
            raise GuardError(guard=self.name, trigger=trigger, problem=problem) from cause

    def passed(self) -> Guard:
        """Return the guard that passes at and after this deadline."""

        def check(attempt: Attempt) -> bool:
            due = self.due(attempt)
            return due is not None and attempt.at >= due

        def reason(attempt: Attempt) -> str:
            due = self.due(attempt)
            if due is None:
                return f"no deadline runs ({self.name})"
            return f"not due before {due.isoformat()} ({self.name})"

        return Guard("deadline passed", check, reason)

    def not_passed(self, name: str) -> Guard:
        """Return the guard, under a name, that passes before this deadline, or without one."""

        def check(attempt: Attempt) -> bool:
            due = self.due(attempt)
            return due is None or attempt.at < due

        def reason(attempt: Attempt) -> str:
            due = self.due(attempt)
            return f"it was due by {due.isoformat() if due else 'never'} ({self.name})"

        return Guard(name, check, reason)


def after_grace(grace: str) -> Deadline:
    """Return the deadline that lies a named grace of the lifecycle after `status_since`."""
    return Deadline(
        f"status_since + {grace} grace",
        lambda attempt: attempt.state.status_since + attempt.graces[grace],
        grace,
    )


Check = Callable[[Attempt], bool]


def guard(
    reason: str | Callable[[Attempt], str],
    *,
    name: str | None = None,
    needs: tuple[str, ...] | str = (),
    asks_for_room: bool = False,
) -> Callable[[Check], Guard]:
    """Make a guard of a function, as its decorator.

    Args:
        reason: Why it refuses, in words, or a function that puts it in words.
        name: How it is called; None: as the function, with blanks for underscores.
        needs: Arguments without which it can't be asked.
        asks_for_room: Whether it asks if there is room for one more; see `Guard`.

    Returns:
        What makes a function the check of a guard.

    Raises:
        TypeError: It was given no name, and the function has none, as a `lambda`.

    Example:
        >>> @guard("the order is not paid")
        ... def is_paid(attempt: Attempt) -> bool:
        ...     return bool(attempt.state.metadata.get("paid"))
        >>> is_paid.name
        'is paid'
    """
    asked = (needs,) if isinstance(needs, str) else needs

    def make(check: Check) -> Guard:
        if name is not None:
            return Guard(name, check, reason, asked, asks_for_room=asks_for_room)
        called: str = getattr(check, "__name__", "")
        if not called.isidentifier():
            raise TypeError("a guard that is made of a function without a name is given one")
        named = called.strip("_").replace("_", " ")
        return Guard(named, check, reason, asked, asks_for_room=asks_for_room)

    return make


def requires_feature(feature: str) -> Guard:
    """Return the guard that passes if the configuration of a session has a feature.

    Args:
        feature: One of the words in `SessionConfig.features`.

    Raises:
        ValueError: No configuration could have it.

    Example:
        >>> requires_feature("code_analysis").name
        'feature code_analysis'
    """
    problems: Problems = []
    check_id(feature, "feature", problems)
    if problems:
        raise ValueError("; ".join(problems))

    def check(attempt: Attempt) -> bool:
        return feature in attempt.state.config.features

    def reason(attempt: Attempt) -> str:
        enabled = ", ".join(attempt.state.config.features) or "none"
        return f"the feature {feature!r} is not enabled (enabled: {enabled})"

    return Guard(f"feature {feature}", check, reason)


def _kind(value: object) -> str:
    return type(value).__name__


def _told(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
