"""The check of what many callers were told: it finds each kind of lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from linear_process import read, written
from linearizability import Call, check
from operations import Operation

from session_fsm import SessionEvent, SessionManager

SESSION = "p000.1"
CREATE = Operation("op:1", "create", SESSION)
BEGIN = Operation("op:2", "begin_task", SESSION)
END = Operation("op:3", "end_task", SESSION, "op:2")
UPDATE = Operation("op:4", "update", SESSION, expected=5)
TOUCH = Operation("op:5", "touch", SESSION)
GET = Operation("op:6", "get", SESSION)
REST = Operation("op:7", "fire", SESSION, "go_idle")
"""Refused: the session rests already."""


@attrs.define
class Told:
    """What callers were told, and the history that they left."""

    calls: dict[str, Call] = attrs.field(factory=dict)
    history: list[SessionEvent] = attrs.field(factory=list)

    def faults(self) -> list[str]:
        """What the check says."""
        return check(self.calls.values(), {SESSION: self.history})

    def put(self, made: Operation, **changes: Any) -> None:
        """Have an operation been told something else."""
        self.calls[made.tag] = attrs.evolve(self.calls[made.tag], **changes)

    def event(self, place: int, **changes: Any) -> None:
        """Have a step been another one."""
        self.history[place - 1] = attrs.evolve(self.history[place - 1], **changes)


@pytest.fixture
def told() -> Told:
    """Seven calls, one after the other; each takes an instant of ten."""
    with SessionManager() as manager:
        now = itertools.count(0, 10)
        told = Told()
        manager.create(SESSION, metadata={"tag": "op:1", "count": 0})
        told.history += manager.history(SESSION)
        answers: dict[Operation, Callable[[], object]] = {
            CREATE: lambda: manager.get(SESSION),
            BEGIN: lambda: manager.begin_task(SESSION, "op:2"),
            END: lambda: manager.end_task(SESSION, "op:2", reason="op:3"),
            UPDATE: lambda: manager.update(
                SESSION, metadata={"tag": "op:1", "count": 1}, reason="op:4"
            ),
            TOUCH: lambda: manager.touch(SESSION),
            GET: lambda: manager.get(SESSION),
        }
        for operation, answer in answers.items():
            begun = next(now)
            answer()
            session = manager.get(SESSION)
            told.calls[operation.tag] = Call(
                operation=operation,
                begun=begun,
                ended=begun + 9,
                revision=session.revision,
                status=str(session.status),
            )
        begun = next(now)
        error = "InvalidTransitionError"
        told.calls["op:7"] = Call(operation=REST, begun=begun, ended=begun + 9, error=error)
        told.history[:] = manager.history(SESSION)
        return told


def test_linearizability_of_calls_in_turn(told: Told) -> None:
    """Calls that were made one after the other, and answered as they were, are no fault."""
    assert [event.trigger for event in told.history] == [
        None, "activate", "begin_task", "end_task", "go_idle", "update", "touch",
    ]  # fmt: skip
    assert told.faults() == []


def test_linearizability_of_calls_at_once(told: Told) -> None:
    """What overlaps may have taken effect in either order."""
    told.put(GET, begun=0, ended=200, revision=3, status="active")
    told.put(REST, begun=20, ended=200, error="GuardRejectedError")
    assert told.faults() == []


def lose_a_revision(told: Told) -> None:
    """Lose a step."""
    del told.history[3]


def leave_another_status(told: Told) -> None:
    """Leave a status that the session was not in."""
    told.event(6, source="active")


def take_no_row(told: Told) -> None:
    """Take a step that is no row."""
    told.event(5, trigger="resume")


def lose_an_update(told: Told) -> None:
    """Count from an older value."""
    told.event(6, changes={"metadata": {"tag": "op:1", "count": 0}})


def make_it_by_nobody(told: Told) -> None:
    """Forget who made a step."""
    del told.calls["op:4"]


def touch_by_nobody(told: Told) -> None:
    """Forget who made a step that carries no tag."""
    del told.calls["op:5"]


def make_what_was_refused(told: Told) -> None:
    """Make a step, and refuse it."""
    told.put(UPDATE, error="InvalidTransitionError", revision=None, status=None)


def make_another_thing(told: Told) -> None:
    """Ask for another thing than was done."""
    told.put(UPDATE, operation=attrs.evolve(UPDATE, verb="fire", argument="touch"))


def make_it_twice(told: Told) -> None:
    """Make one call's step twice."""
    told.history.append(told.history[-1])
    again = {"metadata": {"tag": "op:1", "count": 2}}
    told.event(8, revision=8, reason="op:4", trigger="update", changes=again)


def make_half_of_it(told: Told) -> None:
    """End the last task without a rest."""
    del told.history[4:]
    for tag in ("op:4", "op:5", "op:6", "op:7"):
        del told.calls[tag]


def answer_what_never_was(told: Told) -> None:
    """Answer with a revision that is not there."""
    told.put(GET, revision=8)


def answer_another_status(told: Told) -> None:
    """Answer with a status that the revision has not."""
    told.put(GET, status="active")


def answer_and_forget(told: Told) -> None:
    """Acknowledge what is not in the history."""
    told.calls["op:8"] = attrs.evolve(
        told.calls["op:3"], operation=attrs.evolve(END, tag="op:8"), begun=200, ended=209
    )


def answer_another_revision(told: Told) -> None:
    """Acknowledge at the revision of another step."""
    told.put(UPDATE, revision=7)


def overtake_what_was_expected(told: Told) -> None:
    """Write although the expected revision was gone."""
    told.put(UPDATE, operation=attrs.evolve(UPDATE, expected=4))


def write_into_the_past(told: Told) -> None:
    """Write before what had returned when it began."""
    told.put(BEGIN, begun=45, ended=48)


def read_the_past(told: Told) -> None:
    """Read what was overwritten before it began."""
    told.put(GET, revision=6)


def read_backwards(told: Told) -> None:
    """Read what is older than what was read before."""
    told.put(TOUCH, ended=300)
    told.calls["op:8"] = attrs.evolve(
        told.calls["op:6"],
        operation=attrs.evolve(GET, tag="op:8"),
        begun=100,
        ended=101,
        revision=6,
    )


def read_the_future(told: Told) -> None:
    """Read what nobody had begun."""
    told.put(TOUCH, begun=70, ended=71)


def refuse_what_is_right(told: Told) -> None:
    """Refuse what every state allows."""
    told.put(REST, operation=attrs.evolve(REST, argument="resume"))


def refuse_for_another_reason(told: Told) -> None:
    """Refuse by a guard where there is no row."""
    told.put(REST, error="GuardRejectedError")


def refuse_by_old_news(told: Told) -> None:
    """Refuse what was wrong only before it was asked."""
    told.put(REST, error="GuardRejectedError", begun=31, ended=39)


def refuse_before_the_conflict(told: Told) -> None:
    """Refuse where the expected revision was gone."""
    told.put(REST, operation=attrs.evolve(REST, expected=6))


def find_no_session(told: Told) -> None:
    """Not find what is there."""
    told.put(GET, error="SessionNotFoundError", revision=None, status=None)


def find_a_session(told: Told) -> None:
    """Refuse to create what is not there."""
    made = attrs.evolve(CREATE, tag="op:8")
    told.put(CREATE, begun=5)
    told.calls["op:8"] = Call(operation=made, begun=1, ended=4, error="SessionExistsError")


def conflict_with_nothing(told: Told) -> None:
    """Tell of a conflict at the very revision that was expected."""
    told.put(
        REST,
        operation=attrs.evolve(REST, expected=7),
        error="RevisionConflictError",
        revision=7,
    )


def make_what_was_not_done(told: Told) -> None:
    """Make a step, and tell that nothing was done."""
    told.put(UPDATE, error="FencedError", revision=None, status=None)


def leave_open(told: Told, made: Operation, **changes: Any) -> None:
    """Have the caller of an operation never learn what came of it."""
    told.put(made, revision=None, status=None, open=True, ended=0, **changes)


def make_an_open_one_into_the_past(told: Told) -> None:
    """Make what nobody was told of before what had returned when it began."""
    leave_open(told, BEGIN, begun=45)


def make_an_untagged_one_into_the_past(told: Told) -> None:
    """Have a step that carries no tag been made by nobody but one who began after it was seen."""
    leave_open(told, TOUCH, begun=65)


def make_an_open_one_twice(told: Told) -> None:
    """Make what nobody was told of twice."""
    make_it_twice(told)
    leave_open(told, UPDATE)


def make_half_of_an_open_one(told: Told) -> None:
    """Make half of what nobody was told of."""
    make_half_of_it(told)
    leave_open(told, END)


def make_another_than_the_open_one(told: Told) -> None:
    """Make a step that carries no tag, where another one was asked for."""
    leave_open(told, TOUCH, operation=attrs.evolve(TOUCH, verb="start_conversation"))


def overtake_what_an_open_one_expected(told: Told) -> None:
    """Make what nobody was told of, although the expected revision was gone."""
    leave_open(told, UPDATE, operation=attrs.evolve(UPDATE, expected=4))


def make_one_open_call_of_two_steps(told: Told) -> None:
    """Have two steps that carry no tag, and one call that was left open."""
    leave_open(told, TOUCH)
    again = attrs.evolve(told.history[-1], revision=8)
    told.history.append(again)


def read_what_was_open_and_not_begun(told: Told) -> None:
    """Read a step of a call that was left open before it began."""
    leave_open(told, TOUCH, begun=100)
    told.put(REST, begun=110, ended=119)


FAULTS: dict[Callable[[Told], None], str] = {
    make_what_was_not_done: "which was refused",
    make_an_open_one_into_the_past: "was told before it began",
    make_an_untagged_one_into_the_past: "was told before it began",
    make_an_open_one_twice: "once more",
    make_half_of_an_open_one: "it did not rest after its last task",
    make_another_than_the_open_one: "revision 7 (touch) was made by nobody",
    overtake_what_an_open_one_expected: "it came after revision 5",
    make_one_open_call_of_two_steps: "revision 8 (touch) was made by nobody",
    read_what_was_open_and_not_begun: "nobody had begun revision 7 when it returned",
    lose_a_revision: "revision 5 stands at place 4",
    leave_another_status: "revision 6 leaves active in idle",
    take_no_row: "revision 5 (resume) is no row of the table",
    lose_an_update: "revision 6 does not count update 1",
    make_it_by_nobody: "revision 6 (update) was made by nobody",
    touch_by_nobody: "revision 7 (touch) was made by nobody",
    make_what_was_refused: "which was refused",
    make_another_thing: "revision 6 (update) is not what op:4",
    make_it_twice: "once more",
    make_half_of_it: "it did not rest after its last task",
    answer_what_never_was: "there is no such revision",
    answer_another_status: "that revision is idle",
    answer_and_forget: "it is not in the history",
    answer_another_revision: "it is there as revision 6",
    overtake_what_was_expected: "it came after revision 5",
    write_into_the_past: "was told before it began",
    read_the_past: "revision 7 had been told before it began",
    read_backwards: "revision 7 had been told before it began",
    read_the_future: "nobody had begun revision 7 when it returned",
    refuse_what_is_right: "is right at no revision from 7 to 7",
    refuse_for_another_reason: "is right at no revision from 7 to 7",
    refuse_by_old_news: "is right at no revision from 5 to 6",
    refuse_before_the_conflict: "is right at no revision from 7 to 7",
    find_no_session: "is right at no revision from 7 to 7",
    find_a_session: "is right at no revision from 0 to 0",
    conflict_with_nothing: "is right at no revision from 7 to 7",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_linearizability_finds(told: Told, plant: Callable[[Told], None]) -> None:
    """Each way in which a caller can be told another story than the history tells is found."""
    plant(told)
    assert any(FAULTS[plant] in fault for fault in told.faults()), told.faults()


def test_linearizability_of_a_call_that_is_written_and_read(told: Told) -> None:
    """A call that goes through a file is the same call."""
    for call in told.calls.values():
        assert read(written(call)) == call


def test_linearizability_of_what_is_open(told: Told) -> None:
    """What nobody was told of may be there, at any later time, or not."""
    leave_open(told, UPDATE)
    leave_open(told, TOUCH, begun=5)
    leave_open(told, END, begun=1, error="StoreUnavailableError")
    never = attrs.evolve(told.calls["op:4"], operation=attrs.evolve(UPDATE, tag="op:8"))
    told.calls["op:8"] = never
    touched = attrs.evolve(told.calls["op:5"], operation=attrs.evolve(TOUCH, tag="op:9"), begun=1)
    told.calls["op:9"] = touched
    assert told.faults() == []


def test_linearizability_of_what_was_not_done(told: Told) -> None:
    """That nothing was done may be told in any state."""
    for tag, error in (("op:8", "FencedError"), ("op:9", "StoreUnavailableError")):
        operation = attrs.evolve(UPDATE, tag=tag, expected=None)
        told.calls[tag] = Call(operation=operation, begun=33, ended=34, error=error)
    assert told.faults() == []


def test_linearizability_of_what_managers_do(told: Told) -> None:
    """A step that was made by no call is none of anybody's, if a manager may have made it."""
    told.event(4, reason="dropped: its owner died")
    del told.calls["op:3"]
    left = {SESSION: told.history}
    assert check(told.calls.values(), left, lambda event: event.trigger == "end_task") == []
    assert "was made by nobody" in " ".join(check(told.calls.values(), left))
    others = check(told.calls.values(), left, lambda event: event.trigger == "go_idle")
    assert "was made by nobody" in " ".join(others)
