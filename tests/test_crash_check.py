"""The check of what a killed writer left: it finds each way in which something can be lost."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
from crash_check import Findings, Histories, Report, compare
from operations import Operation, perform

from session_fsm import SessionEvent, SessionManager

OPERATIONS = (
    Operation("op:1", "create", "a"),
    Operation("op:2", "begin_task", "a"),
    Operation("op:3", "end_task", "a", "op:2"),
    Operation("op:4", "begin_task", "a"),
    Operation("op:5", "touch", "a"),
    Operation("op:6", "update", "a"),
    Operation("op:7", "fail", "a"),
)


@attrs.define
class Written:
    """What a writer did, all of it acknowledged, and the histories that it left."""

    before: Histories
    after: dict[str, tuple[SessionEvent, ...]]
    report: Report

    def compared(self) -> Findings:
        """What the check says of it."""
        return compare(self.before, self.after, self.report)

    def forget(self, tag: str) -> None:
        """Let an operation be in flight."""
        del self.report.done[tag]
        self.report.told.clear()

    def cut(self, revision: int) -> None:
        """Lose all that came after a revision."""
        self.after["a"] = self.after["a"][:revision]


@pytest.fixture
def written() -> Written:
    """Some operations on one session, created before the writer began."""
    with SessionManager() as manager:
        report = Report()
        perform(manager, OPERATIONS[0])
        before = {"a": manager.history("a")}
        manager.subscribe(
            lambda event: report.told.append(
                (event.session_id, event.revision, event.trigger, str(event.target), event.digest)
            )
        )
        for operation in OPERATIONS[1:]:
            report.hear(json.dumps(["begin", *attrs.astuple(operation)]))
            session = perform(manager, operation)
            report.hear(json.dumps(["done", operation.tag, session.revision, session.status]))
        return Written(before, {"a": manager.history("a")}, report)


def test_crash_check_is_content_with_what_is_whole(written: Written) -> None:
    """A history that agrees with all that was acknowledged is not objected to, and is counted."""
    found = written.compared()
    assert found == Findings(acknowledged=6, told=10)


def test_crash_check_counts_what_was_in_flight(written: Written) -> None:
    """An operation that nobody acknowledged may be there, whole, or not at all."""
    written.forget("op:7")
    assert written.compared() == Findings(acknowledged=5, whole=1)
    written.cut(9)
    assert written.compared() == Findings(acknowledged=5, absent=1)


def lose_the_last(written: Written) -> None:
    """Lose what was acknowledged last."""
    written.report.told.clear()
    written.cut(9)


def lose_who_did_it(written: Written) -> None:
    """Lose a reason."""
    *others, update = written.after["a"][:9]
    written.after["a"] = (*others, attrs.evolve(update, reason=None), *written.after["a"][9:])


def lose_what_was_told(written: Written) -> None:
    """Tell a subscriber of what is not there."""
    written.forget("op:7")
    event = written.after["a"][-1]
    written.report.told.append((event.session_id, 99, event.trigger, "terminated", event.digest))


def tell_another_digest(written: Written) -> None:
    """Tell a subscriber another digest."""
    written.report.told[0] = (*written.report.told[0][:4], "0" * 64)


def change_what_was_there(written: Written) -> None:
    """Change an event of those before."""
    first, *others = written.after["a"]
    written.after["a"] = (attrs.evolve(first, digest="0" * 64), *others)


def answer_another_status(written: Written) -> None:
    """Answer with a status that the revision has not."""
    written.report.done["op:6"] = (written.report.done["op:6"][0], "idle")


def answer_an_earlier_revision(written: Written) -> None:
    """Answer with the revision of a step before."""
    written.report.done["op:4"] = (3, "active")


def answer_a_later_revision(written: Written) -> None:
    """Answer with the revision of somebody else's step."""
    written.report.done["op:4"] = (written.report.done["op:6"][0], "active")


def do_what_nobody_began(written: Written) -> None:
    """Do what nobody began."""
    del written.report.begun["op:6"], written.report.done["op:6"]


def do_what_nobody_could_tell(written: Written) -> None:
    """Do what has no tag, and should have."""
    *others, last = written.after["a"]
    written.after["a"] = (*others, attrs.evolve(last, reason=None, trigger="expire"))


def do_what_was_refused(written: Written) -> None:
    """Do what was refused."""
    written.forget("op:6")
    written.report.hear('["refused", "op:6", "InvalidTransitionError"]')


def do_another_thing(written: Written) -> None:
    """Do another thing than was asked for."""
    operation = written.report.begun["op:6"]
    written.report.begun["op:6"] = attrs.evolve(operation, verb="fire", argument="go_idle")


def do_it_twice(written: Written) -> None:
    """Do one thing twice."""
    again = attrs.evolve(written.after["a"][8], revision=10)
    written.cut(9)
    other = attrs.evolve(written.after["a"][7], revision=10)
    written.forget("op:7")
    written.after["a"] += (other, attrs.evolve(again, revision=11))


def touch_too_often(written: Written) -> None:
    """Do once what was never begun and leaves no tag."""
    del written.report.done["op:5"]
    del written.report.begun["op:5"]


def touch_too_seldom(written: Written) -> None:
    """Do once what was acknowledged twice and leaves no tag."""
    operation = attrs.evolve(written.report.begun["op:5"], tag="op:8")
    written.report.begun["op:8"] = operation
    written.report.done["op:8"] = written.report.done["op:5"]


def fail_by_half(written: Written) -> None:
    """End a failure half-way."""
    written.forget("op:7")
    written.cut(11)


def rest_never(written: Written) -> None:
    """End the last task without a rest."""
    for tag in ("op:3", "op:4", "op:5", "op:6", "op:7"):
        written.forget(tag)
    written.cut(4)


def wake_for_nothing(written: Written) -> None:
    """Wake for a task that does not begin."""
    for tag in ("op:4", "op:5", "op:6", "op:7"):
        written.forget(tag)
    written.cut(6)


def create_by_half(written: Written) -> None:
    """Create without activating."""
    written.before = {}
    written.report = Report(begun={"op:1": OPERATIONS[0]})
    written.cut(1)


def break_the_writer(written: Written) -> None:
    """Raise what no verb may raise."""
    written.report.hear('["broken", "it", "broke"]')


FAULTS: dict[Callable[[Written], None], str] = {
    lose_the_last: "with revision 12, terminated; which is not there",
    lose_who_did_it: "with revision 9, active; nothing of it is there",
    lose_what_was_told: "was told as revision 99, which is not there",
    tell_another_digest: "was told as revision",
    change_what_was_there: "what was there before has changed",
    answer_another_status: "with revision 9, idle; which is update -> active",
    answer_an_earlier_revision: "it is there as revision 7",
    answer_a_later_revision: "it is there as revision 7",
    do_what_nobody_began: "op:6 never began",
    do_what_nobody_could_tell: "was done by nobody",
    do_what_was_refused: "was refused, and is there",
    do_another_thing: "is update, not",
    do_it_twice: "op:6 was done 2 times",
    touch_too_often: "acknowledged 0 times, was in flight 0 times, and is there 1 times",
    touch_too_seldom: "acknowledged 2 times, was in flight 0 times, and is there 1 times",
    fail_by_half: "it failed and is terminating",
    rest_never: "it did not rest after its last task",
    wake_for_nothing: "was done by nobody",
    create_by_half: "it was created and not activated",
    break_the_writer: "the writer broke: it broke",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_crash_check_finds(written: Written, plant: Callable[[Written], None]) -> None:
    """Each way in which something can be lost, half there, or from nowhere is found."""
    plant(written)
    assert any(FAULTS[plant] in each for each in written.compared().faults), written.compared()
