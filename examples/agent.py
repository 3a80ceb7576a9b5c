"""The life of an agent that asks before it acts: ours, with `waiting_for_input` and `suspended`.

    python examples/agent.py [STORE]

STORE is a URL such as `sqlite:///agents.db`; without one, the agents live in memory. What is left
in a file can be looked into, from this directory:

    session-fsm list --all --store sqlite:///agents.db --lifecycle agent:AGENT
    session-fsm explain reviewer answer --arg by=mallory --arg text=yes ...

An agent may ask in the middle of a task, and only the people whom it asked may answer. When nobody
does for an hour, it is suspended: the tasks in flight are let go of and remembered. A suspended one
is restored, or ended after a week. All that a session can do, an agent can too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from session_fsm import (
    NO_ACTIVE_TASK,
    SESSION_LIFECYCLE,
    Attempt,
    Row,
    SessionManager,
    StateInvalidError,
    TransitionError,
    after_grace,
    guard,
    requires_feature,
)
from session_fsm.clock import ManualClock

# --- guards --------------------------------------------------------------------------------------


def _asked(attempt: Attempt) -> list[str]:
    question = attempt.state.metadata.get("question") or {}
    return list(question.get("of", ()))


@guard(
    lambda attempt: (
        f"{attempt.arguments['by']!r} was not asked; {', '.join(_asked(attempt))} may answer"
    ),
    name="was asked",
    needs="by",
)
def was_asked(attempt: Attempt) -> bool:
    """Let those answer whom the agent asked."""
    return attempt.arguments["by"] in _asked(attempt)


@guard("nobody is asked", needs="of")
def asks_somebody(attempt: Attempt) -> bool:
    """Let no question be asked of nobody."""
    names = attempt.arguments["of"]
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return bool(names)
    # No refusal, which another state of things would mend: the caller has made a mistake.
    raise StateInvalidError(problems=(f"of: expected a list of names, got {names!r}",))


# --- effects -------------------------------------------------------------------------------------


def _noted(attempt: Attempt, **notes: Any) -> Mapping[str, Any]:
    return {"metadata": {**attempt.state.metadata, **notes}}


def _question_noted(attempt: Attempt) -> Mapping[str, Any]:
    question = {"text": attempt.arguments["text"], "of": list(attempt.arguments["of"])}
    return _noted(attempt, question=question)


def _answer_noted(attempt: Attempt) -> Mapping[str, Any]:
    answer = {"text": attempt.arguments["text"], "by": attempt.arguments["by"]}
    return _noted(attempt, question=None, answer=answer)


def _tasks_let_go(attempt: Attempt) -> Mapping[str, Any]:
    return {
        "active_tasks": (),
        **_noted(attempt, question=None, interrupted=list(attempt.state.active_tasks)),
    }


def _analysis_noted(attempt: Attempt) -> Mapping[str, Any]:
    analysed = [*attempt.state.metadata.get("analysed", ()), attempt.arguments["path"]]
    return _noted(attempt, analysed=analysed)


# --- the table -----------------------------------------------------------------------------------

AGENT = SESSION_LIFECYCLE.extend(
    name="agent",
    statuses=("waiting_for_input", "suspended"),
    # These rows of ours may be fired in more statuses. A status in which tasks can end may hold
    # some: an agent waits for input in the middle of a task.
    also_from={
        "end_task": "waiting_for_input",
        "terminate": ("waiting_for_input", "suspended"),
    },
    rows=(
        Row("ask", "active", "waiting_for_input", guards=asks_somebody, required=("text", "of"),
            effect=_question_noted, activity=True, why="the agent needs an approval"),
        Row("answer", "waiting_for_input", "active", guards=was_asked, required=("text", "by"),
            effect=_answer_noted, activity=True, why="the person answered"),
        Row("nobody_answers", "waiting_for_input", "suspended", deadline=after_grace("answer"),
            effect=_tasks_let_go, why="a question must not hold a machine for ever"),
        Row("suspend", ("active", "idle"), "suspended", guards=NO_ACTIVE_TASK,
            why="its machine is needed elsewhere"),
        Row("restore", "suspended", "active", activity=True, why="there is a machine again"),
        Row("forget", "suspended", "terminating", deadline=after_grace("suspension"),
            why="nobody restored it"),
        Row("analyse_code", "active", None, guards=requires_feature("code_analysis"),
            required="path", effect=_analysis_noted, activity=True, why="a tool of the agent"),
    ),
    graces={"answer": timedelta(hours=1), "suspension": timedelta(days=7)},
)  # fmt: skip
"""Seven statuses: those of a session, and two more with a deadline of their own."""


def main(store: str = "memory://") -> None:
    """Tell the stories of two agents, in a time that jumps."""
    clock = ManualClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    with SessionManager(store, lifecycle=AGENT, clock=clock) as agents:
        print("# An agent asks before it acts")
        agents.create("reviewer", config={"features": ("search",)})
        print(agents.explain("reviewer", "analyse_code", path="src"))
        agents.update("reviewer", config={"features": ("search", "code_analysis")})
        with agents.task("reviewer", "review"):
            agents.fire("reviewer", "analyse_code", path="src")
            agents.fire("reviewer", "ask", text="May I push?", of=["ana", "ben"])
            try:
                agents.fire("reviewer", "answer", text="yes", by="mallory")
            except TransitionError as fault:
                print(fault.refusal)
            agents.fire("reviewer", "answer", text="yes", by="ana")
        print("reviewer is", agents.get("reviewer").status)

        print("# Nobody answers another one")
        agents.create("planner")
        agents.begin_task("planner", "plan")
        agents.fire("planner", "ask", text="Which quarter?", of=["ana"])
        due = agents.next_deadline()
        while due is not None:
            clock.set(due)
            for event in agents.sweep().fired:
                told = f"{event.at:%d %B %H:%M}: {event.session_id} {event.trigger}"
                print(told, "->", event.target)
            due = agents.next_deadline()
        print("interrupted:", *agents.get("planner").state.metadata["interrupted"])
        print({str(status): number for status, number in agents.counts().items() if number})


if __name__ == "__main__":
    main(*sys.argv[1:2])
