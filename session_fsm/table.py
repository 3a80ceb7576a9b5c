r"""The one table: every legal move of a session, with its reason.

    initializing --activate--> active <--resume-- idle
         |                       | \--go_idle-->  |
         | abort,                | terminate,      | terminate,
         | start_timeout         | expire          | expire
         v                       v                 v
    terminated <--finish, stop_timeout-- terminating

The rules, and what follows from them:

* A status changes by a row of the table and in no other way. `active -> terminated` is no row: a
  crash goes through `terminating`, so whoever watches a session sees each end begin.
* Tasks stop the idle clock. *Expired* is a fact of the state and the instant, not of a sweep that
  has run: a time-out is set, no task is in flight, and it has passed since the last activity. What
  has expired can't be resumed, touched or given work; only its way out is left.
* Only a status with an `end_task` row may hold tasks. That is why a session at rest has none, and
  why `terminating` may still have some: they are being waited for.
* A task may have a time limit. The row that drops it is timed, so a task that hangs keeps no
  session active for ever, whether or not anybody can cancel what works on it.
* Each status has a way out that no guard can close for ever: unguarded (`abort`, `terminate`), or
  timed (`stop_timeout`). No session can be stuck.

What the table can't say: who fires a row. A manager fires the timed ones when they are due, and
plays the roles named below the table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from .errors import StateInvalidError
from .fields import MAX_ERROR_CHARACTERS, check_id
from .guards import Attempt, Deadline, Guard, after_grace
from .jsonvalue import shown
from .lifecycle import LIVE, Lifecycle, Row
from .state import SessionState, SessionStatus

INITIALIZING, ACTIVE, IDLE, TERMINATING, TERMINATED = SessionStatus

# --- deadlines -------------------------------------------------------------------------------


# A thousand time-outs are more than a program has; making one takes longer than all else here.
_minutes = functools.lru_cache(maxsize=1024)(lambda minutes: timedelta(minutes=minutes))


def _idle_deadline(attempt: Attempt) -> datetime | None:
    minutes = attempt.state.config.timeout_minutes
    if minutes is None:
        return None
    try:
        return attempt.state.last_activity_at + _minutes(minutes)
    except OverflowError:
        return None  # behind the year 9999


START_DEADLINE = after_grace("start")
STOP_DEADLINE = after_grace("stop")
IDLE_DEADLINE = Deadline("last_activity_at + timeout_minutes", _idle_deadline)

TASK_DEADLINE = Deadline(
    "begin of a task + its limit",
    lambda attempt: attempt.state.task_deadlines[0][1] if attempt.state.task_deadlines else None,
)

# --- guards ----------------------------------------------------------------------------------


def tasks_in_words(tasks: tuple[str, ...]) -> str:
    """Return how many tasks there are and which: `2 tasks are active: build, test`."""
    verb = "task is" if len(tasks) == 1 else "tasks are"
    return f"{len(tasks)} {verb} active: {_names(tasks, most=10)}"


def dropped_in_words(tasks: tuple[str, ...]) -> str:
    """Return how many tasks were dropped and which: `2 tasks dropped: build, test`."""
    noun = "task" if len(tasks) == 1 else "tasks"
    return f"{len(tasks)} {noun} dropped: {_names(tasks, most=100)}"


def _names(tasks: tuple[str, ...], *, most: int) -> str:
    return ", ".join(tasks[:most]) + (f" and {len(tasks) - most} more" if tasks[most:] else "")


def _not_expired(attempt: Attempt) -> bool:
    if attempt.state.active_tasks:
        return True
    due = _idle_deadline(attempt)
    return due is None or attempt.at < due


def _expiry_in_words(attempt: Attempt) -> str:
    due = _idle_deadline(attempt)
    return f"expired at {due.isoformat() if due else 'no time'}"


def _room_for_conversation(attempt: Attempt) -> bool:
    limit = attempt.state.config.max_conversations
    return limit is None or attempt.state.conversation_count < limit


def _task_id(attempt: Attempt) -> Any:
    task_id = attempt.arguments["task_id"]
    problems: list[str] = []
    check_id(task_id, "task_id", problems)
    if problems:
        raise StateInvalidError(problems=tuple(problems))
    return task_id


NO_ACTIVE_TASK = Guard(
    "no active task",
    lambda attempt: not attempt.state.active_tasks,
    lambda attempt: tasks_in_words(attempt.state.active_tasks),
)
NOT_EXPIRED = Guard("not expired", _not_expired, _expiry_in_words)
START_NOT_TIMED_OUT = START_DEADLINE.not_passed("start deadline not passed")
TASK_IS_NEW = Guard(
    "not already active",
    lambda attempt: _task_id(attempt) not in attempt.state.active_tasks,
    lambda attempt: f"task {attempt.arguments['task_id']!r} is active already",
    needs=("task_id",),
)
TASK_IS_ACTIVE = Guard(
    "is active",
    lambda attempt: _task_id(attempt) in attempt.state.active_tasks,
    lambda attempt: f"task {attempt.arguments['task_id']!r} is not active",
    needs=("task_id",),
)
BELOW_MAX_CONVERSATIONS = Guard(
    "below max_conversations",
    _room_for_conversation,
    lambda attempt: (
        f"{attempt.state.conversation_count} conversations were started,"
        f" {attempt.state.config.max_conversations} are allowed"
    ),
    asks_for_room=True,
)

# --- effects ---------------------------------------------------------------------------------


def error_with(state: SessionState, cause: str | None, dropped: tuple[str, ...] = ()) -> str | None:
    """Return the `error` of a state after one more cause, and the tasks that it dropped.

    What was known stays first. A text too long to be kept is cut in the middle of the causes, so
    that the names of dropped tasks are kept as far as they fit.
    """
    tail = dropped_in_words(dropped) if dropped else ""
    head = "; ".join(part for part in (state.error, cause) if part)
    room = MAX_ERROR_CHARACTERS - (len(tail) + 2 if tail else 0)
    if len(head) > room:
        head = f"{head[: room - 1]}…"
    return "; ".join(part for part in (head, tail) if part) or None


def _cause(attempt: Attempt) -> str | None:
    cause = attempt.arguments.get("error")
    if cause is None or isinstance(cause, str):
        return cause
    raise StateInvalidError(problems=(f"error: expected a string or null, got {shown(cause)}",))


def _given_error(attempt: Attempt) -> Mapping[str, Any]:
    cause = _cause(attempt)
    return {} if cause is None else {"error": error_with(attempt.state, cause)}


def _start_failed(attempt: Attempt) -> Mapping[str, Any]:
    cause = _cause(attempt) or "the start failed"
    return {"error": error_with(attempt.state, cause)}


def _start_timed_out(attempt: Attempt) -> Mapping[str, Any]:
    seconds = attempt.graces["start"].total_seconds()
    cause = _cause(attempt) or f"the start did not end within {seconds:g} s"
    return {"error": error_with(attempt.state, cause)}


def _stop_timed_out(attempt: Attempt) -> Mapping[str, Any]:
    seconds = attempt.graces["stop"].total_seconds()
    cause = _cause(attempt) or f"the stop did not end within {seconds:g} s"
    dropped = attempt.state.active_tasks
    return {"error": error_with(attempt.state, cause, dropped), **_without(attempt.state, dropped)}


def _tasks_timed_out(attempt: Attempt) -> Mapping[str, Any]:
    cause = _cause(attempt) or "a time limit was passed"
    dropped = tuple(task for task, due in attempt.state.task_deadlines if due <= attempt.at)
    return {"error": error_with(attempt.state, cause, dropped), **_without(attempt.state, dropped)}


def _without(state: SessionState, tasks: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what is left of the tasks of a state without some of them."""
    left = {"active_tasks": tuple(task for task in state.active_tasks if task not in tasks)}
    if not state.task_deadlines:
        return left
    due = tuple(pair for pair in state.task_deadlines if pair[0] not in tasks)
    return {**left, "task_deadlines": due}


def _task_added(attempt: Attempt) -> Mapping[str, Any]:
    state, task_id = attempt.state, attempt.arguments["task_id"]
    tasks = {"active_tasks": (*state.active_tasks, task_id)}
    seconds = attempt.arguments.get("timeout_seconds")
    if seconds is None:
        return tasks
    due = attempt.at + _limit(seconds, attempt.at)
    return {**tasks, "task_deadlines": (*state.task_deadlines, (task_id, due))}


def _limit(seconds: object, at: datetime) -> timedelta:
    problem = f"timeout_seconds: expected a number of seconds above 0, got {shown(seconds)}"
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise StateInvalidError(problems=(problem,))
    if not (0 < seconds < math.inf):
        raise StateInvalidError(problems=(problem,))
    try:
        # Shorter than what an instant can tell is still a limit.
        limit = max(timedelta(seconds=seconds), timedelta.resolution)
        _ = at + limit
    except OverflowError:
        problem = f"timeout_seconds: {shown(seconds)} s from now lie behind the year 9999"
        raise StateInvalidError(problems=(problem,)) from None
    return limit


def _task_removed(attempt: Attempt) -> Mapping[str, Any]:
    return _without(attempt.state, (attempt.arguments["task_id"],))


def _one_more_conversation(attempt: Attempt) -> Mapping[str, Any]:
    return {"conversation_count": attempt.state.conversation_count + 1}


UPDATE_FIELDS = ("config", "llm_config", "metadata", "error")


def _given_data(attempt: Attempt) -> Mapping[str, Any]:
    return {name: attempt.arguments[name] for name in UPDATE_FIELDS if name in attempt.arguments}


# --- the table -------------------------------------------------------------------------------

SESSION_LIFECYCLE = Lifecycle(
    statuses=SessionStatus,
    initial=INITIALIZING,
    final=(TERMINATED,),
    rows=(
        Row("activate", INITIALIZING, ACTIVE, guards=(START_NOT_TIMED_OUT,), activity=True,
            why="the worker is up"),
        Row("abort", INITIALIZING, TERMINATED, effect=_start_failed, optional="error", ending=True,
            why="start-up failed"),
        Row("start_timeout", INITIALIZING, TERMINATED, deadline=START_DEADLINE,
            effect=_start_timed_out, optional="error", why="start-up never ended"),
        Row("go_idle", ACTIVE, IDLE, guards=(NO_ACTIVE_TASK,), why="the last task ended"),
        Row("resume", IDLE, ACTIVE, guards=(NOT_EXPIRED,), activity=True, why="new work came"),
        Row("terminate", (ACTIVE, IDLE), TERMINATING, effect=_given_error, optional="error",
            ending=True, why="asked for, or the worker died"),
        Row("expire", (ACTIVE, IDLE), TERMINATING, guards=(NO_ACTIVE_TASK,),
            deadline=IDLE_DEADLINE, why="nobody came back"),
        Row("finish", TERMINATING, TERMINATED, guards=(NO_ACTIVE_TASK,), effect=_given_error,
            optional="error", ending=True, why="drained"),
        Row("stop_timeout", TERMINATING, TERMINATED, deadline=STOP_DEADLINE,
            effect=_stop_timed_out, optional="error", why="gave up waiting"),
        Row("begin_task", ACTIVE, None, guards=(TASK_IS_NEW, NOT_EXPIRED), effect=_task_added,
            required="task_id", optional="timeout_seconds", activity=True, why="work in flight"),
        Row("end_task", (ACTIVE, TERMINATING), None, guards=(TASK_IS_ACTIVE,),
            effect=_task_removed, required="task_id", activity=True, why="work done"),
        Row("task_timeout", (ACTIVE, TERMINATING), None, deadline=TASK_DEADLINE,
            effect=_tasks_timed_out, optional="error", activity=True, why="work that hangs"),
        Row("start_conversation", ACTIVE, None, guards=(BELOW_MAX_CONVERSATIONS, NOT_EXPIRED),
            effect=_one_more_conversation, activity=True, why="a conversation begins"),
        Row("touch", (ACTIVE, IDLE), None, guards=(NOT_EXPIRED,), activity=True,
            why="the person is still there"),
        Row("update", LIVE, None, effect=_given_data, optional=UPDATE_FIELDS,
            why="settings or notes changed"),
    ),
    roles={
        "activate": "activate",
        "rest": "go_idle",
        "wake": "resume",
        "begin_task": "begin_task",
        "end_task": "end_task",
        "count": "start_conversation",
        "touch": "touch",
        "update": "update",
    },
    graces={"start": 60.0, "stop": 10.0},
)  # fmt: skip
"""The lifecycle of a session: seven edges between five statuses."""
