"""Operations on sessions that leave a tag in the history, from which can be told who did a step.

A tag is the reason of a step, the id of a task, the cause of a failure or the metadata of a new
session. `touch` and `start_conversation` take nothing that could carry one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from session_fsm import Session, SessionEvent, SessionManager

READS: Final = frozenset({"get"})
UNTAGGED: Final = frozenset({"touch", "start_conversation"})
WEIGHTS: Final = {
    "create": 8,
    "update": 20,
    "begin_task": 20,
    "end_task": 20,
    "fire": 12,
    "transition": 8,
    "touch": 4,
    "start_conversation": 4,
    "terminate": 3,
    "fail": 1,
}
"""How often each verb is chosen."""
FIRED: Final = ("go_idle", "resume", "touch", "start_conversation")


@attrs.frozen
class Operation:
    """One call of a verb.

    Attributes:
        tag: Names it; nobody else has it.
        verb: A verb of the manager.
        session_id: On which session.
        argument: `worker` (create), `wait` (terminate), a trigger (fire), a status (transition), a
            task (end_task); empty for the others.
        expected: The revision that the session must have; None: any.
    """

    tag: str
    verb: str
    session_id: str
    argument: str = ""
    expected: int | None = None


class Worker:
    """What runs for a session that is created with `worker`."""

    def stop(self) -> None:
        """Stop at once."""


def _count(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, "count": metadata.get("count", 0) + 1}


def _create(manager: SessionManager, made: Operation) -> Session:
    start = (lambda _: Worker()) if made.argument == "worker" else None
    metadata = {"tag": made.tag, "worker": start is not None, "count": 0}
    config = {"max_conversations": None}
    return manager.create(made.session_id, config=config, metadata=metadata, start=start)


_VERBS: Final[Mapping[str, Callable[[SessionManager, Operation], Session]]] = {
    "create": _create,
    "get": lambda manager, made: manager.get(made.session_id),
    "update": lambda manager, made: manager.update(
        made.session_id, metadata=_count, reason=made.tag, expected_revision=made.expected
    ),
    "begin_task": lambda manager, made: manager.begin_task(made.session_id, made.tag),
    "end_task": lambda manager, made: manager.end_task(
        made.session_id, made.argument, reason=made.tag
    ),
    "fire": lambda manager, made: manager.fire(
        made.session_id, made.argument, reason=made.tag, expected_revision=made.expected
    ),
    "transition": lambda manager, made: manager.transition(
        made.session_id, made.argument, reason=made.tag, expected_revision=made.expected
    ),
    "touch": lambda manager, made: manager.touch(made.session_id),
    "start_conversation": lambda manager, made: manager.start_conversation(made.session_id),
    "terminate": lambda manager, made: manager.terminate(
        made.session_id, reason=made.tag, wait=made.argument == "wait"
    ),
    "fail": lambda manager, made: manager.fail(made.session_id, made.tag),
}


def perform(manager: SessionManager, operation: Operation) -> Session:
    """Call the verb; errors are the verb's own."""
    return _VERBS[operation.verb](manager, operation)


class Chooser:
    """Chooses operations by lot; the same chance makes the same choices, whatever comes of them.

    Args:
        prefix: What its tags begin with.
        chance: What decides.
        sessions: The ids to choose from.
        workers: Whether some sessions are created with a worker.
        reads: How often it reads; see `WEIGHTS`.
    """

    def __init__(
        self,
        prefix: str,
        chance: random.Random,
        sessions: Iterable[str],
        *,
        workers: bool = False,
        reads: int = 0,
    ) -> None:
        self._prefix = prefix
        self._chance = chance
        self._sessions = tuple(sessions)
        self._workers = workers
        self._weights = {**WEIGHTS, "get": reads}
        self._made = 0
        self._tasks: list[tuple[str, str]] = []

    def next(self) -> Operation:
        """Return the next operation."""
        self._made += 1
        tag = f"op:{self._prefix}.{self._made}"
        [verb] = self._chance.choices(tuple(self._weights), tuple(self._weights.values()))
        session_id = self._chance.choice(self._sessions)
        luck = self._chance.random()
        if verb == "end_task" and not self._tasks:
            verb = "begin_task"
        argument = ""
        if verb == "begin_task":
            self._tasks.append((session_id, tag))
        elif verb == "end_task":
            session_id, argument = self._tasks.pop(int(luck * len(self._tasks)))
        elif verb == "fire":
            argument = FIRED[int(luck * len(FIRED))]
        elif verb == "transition":
            # A start ends in failure if somebody else has activated its session meanwhile.
            argument = "idle" if luck < 0.5 or self._workers else "active"
        elif verb == "create" and self._workers and luck < 0.25:
            argument = "worker"
        elif verb == "terminate" and self._workers and luck < 0.25:
            argument = "wait"
        return Operation(tag, verb, session_id, argument)


# --- what they leave -------------------------------------------------------------------------


@attrs.frozen
class Chain:
    """Steps of a history that one operation made in one commit.

    Attributes:
        tag: Of the operation; None if its verb leaves none.
        events: The steps, in order; at least one.
        anchor: The step that was asked for; the others come before or after it by themselves.
        tasks: The tasks that are active after it.
        worker: Whether the session was created with a worker.
    """

    tag: str | None
    events: tuple[SessionEvent, ...]
    anchor: SessionEvent
    tasks: frozenset[str]
    worker: bool

    @property
    def first(self) -> int:
        """The revision of its first step."""
        return self.events[0].revision

    @property
    def last(self) -> int:
        """The revision of its last step."""
        return self.events[-1].revision


def chains(history: Iterable[SessionEvent]) -> list[Chain]:
    """Split the history of one id into what each operation did, oldest first."""
    found: list[Chain] = []
    tasks: frozenset[str] = frozenset()
    worker = False
    for event in history:
        tag, began = _tag_in(event), False
        if event.kind == "created":
            worker = _made_with(event).get("worker") is True
            tasks = frozenset()
        if "active_tasks" in event.changes:
            now = frozenset(event.changes["active_tasks"])
            if event.trigger == "begin_task":
                [tag] = now - tasks
                began = True
            tasks = now
        last = found[-1] if found else None
        if last is not None and _goes_on(last, event, tag, began=began):
            anchor = event if began else last.anchor
            events = (*last.events, event)
            found[-1] = Chain(last.tag or tag, events, anchor, tasks, worker)
        else:
            found.append(Chain(tag, (event,), event, tasks, worker))
    return found


def _tag_in(event: SessionEvent) -> str | None:
    said = _made_with(event).get("tag") if event.kind == "created" else event.reason
    found = re.fullmatch(r"(?:dropped: )?(op:\S+)", said or "")
    return None if found is None else found[1]


def _made_with(event: SessionEvent) -> Mapping[str, Any]:
    metadata = event.changes.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


_FOLLOWS: Final = {
    "activate": frozenset({None}),
    "go_idle": frozenset({"end_task"}),
    "finish": frozenset({"terminate", "end_task"}),
}
"""Steps that nobody asks for by themselves, and what they come right after in the same commit."""


def _goes_on(last: Chain, event: SessionEvent, tag: str | None, *, began: bool) -> bool:
    before = last.events[-1]
    created = before.kind == "created"
    if began:
        return before.trigger == "resume" and last.tag is None
    if tag is not None:
        return tag == last.tag
    if event.trigger not in _FOLLOWS or before.trigger not in _FOLLOWS[event.trigger]:
        return False
    if event.trigger == "go_idle":
        return not last.tasks
    # A worker starts and stops between commits: what follows then is one of its own.
    return not last.tasks and not last.worker and (event.trigger == "finish" or created)


def half_done(chain: Chain, operation: Operation) -> str | None:
    """Say what is missing of an operation that is one commit; None if nothing is."""
    last = chain.events[-1]
    if last.kind == "created" and not chain.worker:
        return "it was created and not activated"
    if last.trigger == "resume" and operation.verb == "begin_task":
        return "it woke for a task that did not begin"
    if last.trigger == "end_task" and last.target == "active" and not chain.tasks:
        return "it did not rest after its last task"
    if operation.verb == "fail" and last.target != "terminated":
        return f"it failed and is {last.target}"
    ends = last.target == "terminating" and last.trigger in {"terminate", "end_task"}
    if ends and not chain.tasks and not chain.worker:
        return "it was ended, waits for nobody, and is not at its end"
    return None


def fits(operation: Operation, event: SessionEvent) -> bool:
    """Tell whether a step is what an operation asked for."""
    if operation.session_id != event.session_id:
        return False
    if operation.verb == "create":
        return event.kind == "created"
    if operation.verb == "fire":
        return event.trigger == operation.argument
    if operation.verb == "transition":
        return event.kind == "moved" and event.target == operation.argument
    if operation.verb == "fail":
        return event.trigger in {"terminate", "abort", "finish", "end_task"}
    if operation.verb == "terminate":
        return event.trigger in {"terminate", "abort"}
    return event.trigger == operation.verb
