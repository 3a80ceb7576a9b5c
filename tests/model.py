"""The life of a session once more, as a dict and ifs, to be compared with the library.

Written from the description of the lifecycle alone, and shares no code with the package: what
both say is right, or wrong twice. A session is a dict with the keys

    status, updated_at, status_since, last_activity_at, timeout_minutes, max_conversations,
    active_tasks (a tuple), conversation_count, error, limits (a dict of instants by task)

The words of an `error` are not modelled, only what must stand in it: after a move, `error` is a
list of texts that the new error contains in this order, or what it was before.
"""

from datetime import datetime, timedelta
from typing import Any

START_GRACE = timedelta(seconds=60)
STOP_GRACE = timedelta(seconds=10)

TRIGGERS = (
    *("activate", "abort", "start_timeout", "go_idle", "resume", "terminate", "expire"),
    *("finish", "stop_timeout", "begin_task", "end_task", "task_timeout", "start_conversation"),
    *("touch", "update"),
)
STATUSES = ("initializing", "active", "idle", "terminating", "terminated")
TASK_STATUSES = ("active", "terminating")
TAKES_ERROR = (
    *("abort", "start_timeout", "terminate", "finish", "stop_timeout", "task_timeout", "update"),
)

Session = dict[str, Any]


def later(at: datetime, wait: timedelta) -> datetime | None:
    """An instant and a wait after it; None if no calendar has it."""
    try:
        return at + wait
    except OverflowError:
        return None


def idle_deadline(session: Session) -> datetime | None:
    """When nobody has come back for too long; None for never. Tasks are not looked at."""
    if session["timeout_minutes"] is None:
        return None
    return later(session["last_activity_at"], timedelta(minutes=session["timeout_minutes"]))


def first_limit(session: Session) -> datetime | None:
    """When the first task has been at work for too long; None for never."""
    return min(session["limits"].values(), default=None)


def objections(session: Session, trigger: str, at: datetime, task_id: str | None) -> list[str]:
    """The names of all guards that say no, for a trigger that the status has.

    Without a `task_id` the guards that need one are left out.
    """
    said_no = []
    tasks = session["active_tasks"]
    idle_end = idle_deadline(session)
    expired = not tasks and idle_end is not None and at >= idle_end
    start_end = later(session["status_since"], START_GRACE)
    stop_end = later(session["status_since"], STOP_GRACE)

    if trigger == "activate" and start_end is not None and at >= start_end:
        said_no.append("start deadline not passed")
    if trigger == "begin_task" and task_id is not None and task_id in tasks:
        said_no.append("not already active")
    if trigger == "end_task" and task_id is not None and task_id not in tasks:
        said_no.append("is active")
    if trigger == "start_conversation":
        most = session["max_conversations"]
        if most is not None and session["conversation_count"] >= most:
            said_no.append("below max_conversations")
    if trigger in ("go_idle", "expire", "finish") and tasks:
        said_no.append("no active task")
    if trigger in ("resume", "begin_task", "start_conversation", "touch") and expired:
        said_no.append("not expired")
    if trigger == "start_timeout" and (start_end is None or at < start_end):
        said_no.append("deadline passed")
    if trigger == "stop_timeout" and (stop_end is None or at < stop_end):
        said_no.append("deadline passed")
    first = first_limit(session)
    if trigger == "task_timeout" and (first is None or at < first):
        said_no.append("deadline passed")
    if trigger == "expire" and (idle_end is None or at < idle_end):
        said_no.append("deadline passed")
    return said_no


def has(status: str, trigger: str) -> bool:
    """Whether a status has a trigger at all."""
    if status == "initializing":
        return trigger in ("activate", "abort", "start_timeout", "update")
    if status == "active":
        if trigger in ("go_idle", "terminate", "expire", "update"):
            return True
        return trigger in ("begin_task", "end_task", "task_timeout", "start_conversation", "touch")
    if status == "idle":
        return trigger in ("resume", "terminate", "expire", "touch", "update")
    if status == "terminating":
        return trigger in ("finish", "stop_timeout", "end_task", "task_timeout", "update")
    return False


def fire(
    session: Session,
    trigger: str,
    at: datetime,
    *,
    task_id: str | None = None,
    error: str | None = None,
    timeout_seconds: float | None = None,
) -> tuple[Session | None, str, list[str]]:
    """Make one step.

    Returns:
        The session after it, `moved` and no guards; or None, the kind of refusal, and the names of
        the guards that said no.
    """
    if trigger not in TRIGGERS:
        return None, "unknown_trigger", []
    if not has(session["status"], trigger):
        return None, "wrong_status", []
    if at < session["updated_at"]:
        at = session["updated_at"]
    said_no = objections(session, trigger, at, task_id)
    if said_no:
        return None, "guard", said_no

    after = dict(session)
    after["updated_at"] = at
    target = {
        "activate": "active",
        "abort": "terminated",
        "start_timeout": "terminated",
        "go_idle": "idle",
        "resume": "active",
        "terminate": "terminating",
        "expire": "terminating",
        "finish": "terminated",
        "stop_timeout": "terminated",
    }.get(trigger)
    if target is not None:
        after["status"] = target
        after["status_since"] = at
    if trigger in ("activate", "resume", "begin_task", "end_task", "start_conversation", "touch"):
        after["last_activity_at"] = at
    if trigger == "task_timeout":
        after["last_activity_at"] = at
        late = [task for task, limit in session["limits"].items() if at >= limit]
        after["active_tasks"] = tuple(t for t in session["active_tasks"] if t not in late)
    if trigger == "begin_task":
        after["active_tasks"] = (*session["active_tasks"], task_id)
        if timeout_seconds is not None:
            limit = at + timedelta(seconds=timeout_seconds)
            after["limits"] = {**session["limits"], task_id: limit}
    if trigger == "end_task":
        after["active_tasks"] = tuple(t for t in session["active_tasks"] if t != task_id)
    if trigger == "start_conversation":
        after["conversation_count"] = session["conversation_count"] + 1
    if trigger == "update":
        if error is not None:
            after["error"] = error
    elif trigger in TAKES_ERROR:
        told = [text for text in (session["error"], error) if text]
        if trigger == "stop_timeout":
            told += session["active_tasks"]
            after["active_tasks"] = ()
        if trigger == "task_timeout":
            late = [task for task, limit in session["limits"].items() if at >= limit]
            told += sorted(late, key=lambda task: (session["limits"][task], task))
        if (
            trigger in ("abort", "start_timeout", "stop_timeout", "task_timeout")
            or error is not None
        ):
            after["error"] = told
    kept = {t: limit for t, limit in after["limits"].items() if t in after["active_tasks"]}
    after["limits"] = kept
    return after, "moved", []


def permitted(session: Session, at: datetime, task_id: str | None = None) -> list[str]:
    """The triggers that would be accepted, in the order of the table."""
    at = max(at, session["updated_at"])
    return [
        trigger
        for trigger in TRIGGERS
        if has(session["status"], trigger) and not objections(session, trigger, at, task_id)
    ]


def next_timed(session: Session) -> tuple[str, datetime] | None:
    """Which trigger fires by itself next, and when; None if none will."""
    status = session["status"]
    if status == "initializing":
        due = later(session["status_since"], START_GRACE)
        return None if due is None else ("start_timeout", due)
    limit = first_limit(session)
    if status == "terminating":
        due = later(session["status_since"], STOP_GRACE)
        if limit is not None and (due is None or limit < due):
            return "task_timeout", limit
        return None if due is None else ("stop_timeout", due)
    if status == "active" and limit is not None:
        return "task_timeout", limit
    if status in ("active", "idle") and not session["active_tasks"]:
        due = idle_deadline(session)
        return None if due is None else ("expire", due)
    return None
