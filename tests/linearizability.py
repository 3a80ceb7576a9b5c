"""Whether many callers were told one story: each call took effect at one instant within its length.

Every write tells the revision that it led to, and every read the one that it saw. The history is
therefore the order in which the calls took effect, and it is enough to hold each call against it;
nothing has to be searched for. `check` is pure: it takes records and histories, and says in words
what is wrong.

- A history is a walk of the table; each step in it was made by one call, whole.
- A write that was answered stands in the history once, at the revision that was answered.
- What had returned before a call began is seen by it; what began after it returned is not.
- A refusal is right in some state that the session had between the two.
- A call that ended with no answer, because its caller was killed or cut off, may have taken effect
  at any time after it began, or never; if it did, it did whole and once. One that ended with the
  word that nothing was done has done nothing.
- Steps that managers make by themselves, such as what is due or what a dead owner left, are made
  by no call. Which ones these are has to be said; else there are none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import attrs
from operations import READS, UNTAGGED, Chain, Operation, chains, fits, half_done

from session_fsm import SESSION_LIFECYCLE, SessionEvent, SessionState, deserialize, explain
from session_fsm.clock import instant_text

IDLE_ENDS: Final = frozenset({"terminate", "fail"})
"""Verbs that only read a session which is on its way out already."""
UNDONE: Final = frozenset({"FencedError", "StoreUnavailableError"})
"""Errors that may be raised in any state, and say that nothing was done."""


@attrs.frozen(kw_only=True)
class Call:
    """One call of a verb, as its caller saw it.

    Attributes:
        operation: What was asked for.
        begun: When, by a clock that all callers share.
        ended: When it returned or raised, by the same.
        revision: The revision of the session that was returned; of a conflict, the one that it
            named; None if another error was raised.
        status: The status of the session that was returned; None if an error was raised.
        error: The class of the error that was raised.
        open: Whether nobody knows what came of it; `ended` counts for nothing then.
    """

    operation: Operation
    begun: int
    ended: int
    revision: int | None = None
    status: str | None = None
    error: str | None = None
    open: bool = False

    def __str__(self) -> str:
        made = self.operation
        asked = f"{made.verb} {made.argument}".strip()
        least = "" if made.expected is None else f" expecting {made.expected}"
        answer = self.error or f"revision {self.revision}, {self.status}"
        answer = f"open, {self.error or 'killed'}" if self.open else answer
        return f"{made.tag} ({asked}{least}: {answer})"


def check(
    calls: Iterable[Call],
    histories: Mapping[str, Sequence[SessionEvent]],
    by_itself: Callable[[SessionEvent], bool] = lambda _: False,
) -> list[str]:
    """Hold all calls against the histories that they left.

    Args:
        calls: Every call that was made, in any order.
        histories: The events of each session, oldest first.
        by_itself: Tells of the first step of a commit whether a manager may have made it by itself.

    Returns:
        What is wrong, each with its session; empty if nothing is.
    """
    by_session: dict[str, list[Call]] = {session_id: [] for session_id in histories}
    for call in calls:
        by_session.setdefault(call.operation.session_id, []).append(call)
    return [
        f"{session_id}: {fault}"
        for session_id, made in sorted(by_session.items())
        for fault in _Session(histories.get(session_id, ()), made, by_itself).faults()
    ]


class _Session:
    """One session: its history, and the calls that were made on it."""

    def __init__(
        self,
        history: Sequence[SessionEvent],
        calls: Sequence[Call],
        by_itself: Callable[[SessionEvent], bool],
    ) -> None:
        self._history = history
        self._by_itself = by_itself
        self._calls = calls
        self._found: list[str] = []
        self._chain_of: dict[str, Chain] = {}
        self._made_by: list[Call | None] = [None] * len(history)
        self._states: dict[int, SessionState] = {}

    def faults(self) -> list[str]:
        """Say what is wrong."""
        self._walk()
        if not self._found:  # a history that is none has no order to hold anything against
            self._assign()
        if not self._found:
            self._compare_answers()
            self._compare_order()
        return self._found

    # --- the history ----------------------------------------------------------------------

    def _walk(self) -> None:
        status, updates = None, 0
        for number, event in enumerate(self._history, 1):
            if event.revision != number:
                self._found.append(f"revision {event.revision} stands at place {number}")
            if event.source != status:
                self._found.append(f"revision {number} leaves {event.source} in {status}")
            if not _is_legal(event, first=number == 1):
                self._found.append(f"revision {number} ({event.trigger}) is no row of the table")
            if event.trigger == "update":
                updates += 1
                counted = event.changes.get("metadata")
                if not isinstance(counted, Mapping) or counted.get("count") != updates:
                    self._found.append(f"revision {number} does not count update {updates}")
            status = event.target

    def _assign(self) -> None:
        """Find the one call that made each step."""
        by_tag = {call.operation.tag: call for call in self._calls}
        answered = {
            call.revision: call
            for call in self._calls
            if call.operation.verb in UNTAGGED and call.error is None and not call.open
        }
        # Of those that may have made the same step, the one that began first fits wherever another
        # one does.
        unanswered = sorted(
            (call for call in self._calls if call.operation.verb in UNTAGGED and call.open),
            key=lambda call: call.begun,
        )
        for chain in chains(self._history):
            call = by_tag.get(chain.tag) if chain.tag is not None else answered.get(chain.last)
            if call is None and chain.tag is None:
                fitting = (each for each in unanswered if fits(each.operation, chain.anchor))
                if (call := next(fitting, None)) is not None:
                    unanswered.remove(call)
            where = f"revision {chain.first} ({chain.anchor.trigger or chain.anchor.kind})"
            if call is None:
                if chain.tag is not None or not self._by_itself(chain.events[0]):
                    self._found.append(f"{where} was made by nobody")
                continue
            if not fits(call.operation, chain.anchor):
                self._found.append(f"{where} is not what {call} asked for")
            if call.error is not None and not call.open:
                self._found.append(f"{where} was made by {call}, which was refused")
            if call.operation.tag in self._chain_of:
                self._found.append(f"{where} was made by {call} once more")
            if (missing := half_done(chain, call.operation)) is not None:
                self._found.append(f"{where} is half of {call}: {missing}")
            self._chain_of[call.operation.tag] = chain
            for revision in range(chain.first, chain.last + 1):
                self._made_by[revision - 1] = call

    # --- the answers ----------------------------------------------------------------------

    def _compare_answers(self) -> None:
        for call in self._calls:
            if call.open:
                self._compare_expected(call)
            if call.open or call.error is not None:
                continue
            assert call.revision is not None
            operation, event = call.operation, self._event(call.revision)
            if event is None:
                self._found.append(f"{call}: there is no such revision")
            elif event.target != call.status:
                self._found.append(f"{call}: that revision is {event.target}")
            if self._only_read(call):
                continue
            chain = self._chain_of.get(operation.tag)
            if chain is None:
                self._found.append(f"{call}: it is not in the history")
            elif chain.last != call.revision:
                self._found.append(f"{call}: it is there as revision {chain.last}")
            else:
                self._compare_expected(call)

    def _compare_expected(self, call: Call) -> None:
        chain = self._chain_of.get(call.operation.tag)
        if chain is not None and call.operation.expected not in (None, chain.first - 1):
            self._found.append(f"{call}: it came after revision {chain.first - 1}")

    def _event(self, revision: int) -> SessionEvent | None:
        return self._history[revision - 1] if 0 < revision <= len(self._history) else None

    def _only_read(self, call: Call) -> bool:
        if call.operation.verb in READS:
            return True
        ended = call.operation.verb in IDLE_ENDS and call.status in {"terminating", "terminated"}
        return ended and call.operation.tag not in self._chain_of

    # --- the order in time ----------------------------------------------------------------

    def _compare_order(self) -> None:
        told = sorted((call.ended, _told(call)) for call in self._calls if not call.open)
        ends = [ended for ended, _ in told]
        newest_told = [0, *accumulate((revision for _, revision in told), max)]
        # What nobody asked for may have been made as soon as what was there before it.
        made = (0 if call is None else call.begun for call in self._made_by)
        begun = list(accumulate(made, max))
        for call in self._calls:
            # Between its beginning and its end the session was at one revision after another.
            least = newest_told[bisect_left(ends, call.begun)]
            most = bisect_left(begun, call.ended)
            chain = self._chain_of.get(call.operation.tag)
            if call.open:
                if chain is not None and chain.first <= least:
                    self._found.append(f"{call}: revision {least} was told before it began")
                continue
            if call.error is not None:
                self._compare_refusal(call, least, most)
                continue
            assert call.revision is not None
            if chain is not None and chain.first <= least:
                self._found.append(f"{call}: revision {least} was told before it began")
            if chain is None and call.revision < least:
                self._found.append(f"{call}: revision {least} had been told before it began")
            if call.revision > most:
                self._found.append(f"{call}: nobody had begun revision {most + 1} when it returned")

    def _compare_refusal(self, call: Call, least: int, most: int) -> None:
        if not any(self._is_right(call, revision) for revision in range(least, most + 1)):
            self._found.append(f"{call}: is right at no revision from {least} to {most}")

    def _is_right(self, call: Call, revision: int) -> bool:
        """Tell whether a call is to be refused in this way at a revision."""
        operation = call.operation
        if call.error in UNDONE:
            return True
        if call.error == "SessionNotFoundError":
            return revision == 0 and operation.verb != "create"
        if call.error == "SessionExistsError":
            return revision > 0 and operation.verb == "create"
        if call.error == "RevisionConflictError":
            return operation.expected not in (None, revision) and revision == call.revision
        if revision == 0 or operation.expected not in (None, revision):
            return False
        return call.error in _refusals(self._state(revision), operation)

    def _state(self, revision: int) -> SessionState:
        if revision not in self._states:
            fields: dict[str, Any] = {}
            for event in self._history[:revision]:
                fields.update(event.changes)
                fields["status"] = event.target
                fields["updated_at"] = instant_text(event.at)
            self._states[revision] = deserialize(fields)
        return self._states[revision]


def _told(call: Call) -> int:
    """Return a revision that whoever comes after a call must see."""
    if call.revision is not None:
        return call.revision
    return 1 if call.error == "SessionExistsError" else 0


def _is_legal(event: SessionEvent, *, first: bool) -> bool:
    if first or event.kind == "created":
        legal = event.target == SESSION_LIFECYCLE.initial and event.trigger is None
        return legal and first and event.kind == "created"
    row = SESSION_LIFECYCLE.find(event.trigger or "", event.source or "")
    return row is not None and event.target == (row.target or event.source)


def _refusals(state: SessionState, operation: Operation) -> set[str]:
    """Return the errors with which an operation may be refused in a state; empty if it may not."""
    arguments: dict[str, Any] = {}
    triggers = [operation.verb]
    if operation.verb == "fire":
        triggers = [operation.argument]
    elif operation.verb == "begin_task":
        arguments["task_id"] = operation.tag
        if SESSION_LIFECYCLE.find("begin_task", state.status) is None:
            triggers, arguments = ["resume"], {}  # it would wake first
    elif operation.verb == "end_task":
        arguments["task_id"] = operation.argument
    elif operation.verb == "transition":
        triggers = [
            row.trigger
            for row, source in SESSION_LIFECYCLE.moves()
            if source == state.status and row.target == operation.argument
        ]
    elif operation.verb in {"create", "get", *IDLE_ENDS}:
        return set()
    refused = [explain(state, each, at=state.updated_at, **arguments) for each in triggers]
    if any(each is None for each in refused):
        return set()
    guarded = {each.kind == "guard" for each in refused if each is not None} or {False}
    return {"GuardRejectedError" if each else "InvalidTransitionError" for each in guarded}
