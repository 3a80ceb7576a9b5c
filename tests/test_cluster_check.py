"""The checks of a cluster find each kind of broken promise, and nothing where none is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from cluster_check import (
    DROPPED,
    Account,
    Claims,
    Run,
    Shift,
    by_itself,
    faults_of_fed_nodes,
    feed_faults,
    feed_order_faults,
    lost_sessions,
    not_fired,
    not_taken,
    overlaps,
    stale_writes,
    taken_from_the_living,
    wrong_claims,
)
from cluster_faults import Outage, good_seconds, plan
from linearizability import Call
from operations import Operation

from session_fsm import PositionedEvent, SessionEvent

SECOND = 1_000_000_000
WORKED, LIMITED = "w1.n0l0.1", "t1.n0l0.1"
FIRST, SECOND_ONE = "k1.n0l0.1", "k1.n1l0.1"
CREATE = Operation("op:w1.n0l0.1", "create", WORKED, "worker")
TASK = Operation("op:t1.n0l0.1.task", "begin_task", LIMITED, "1.0")


def outage(kind: Any, node: int, begun: float, ended: float, life: int = 0) -> Outage:
    """An outage, in seconds."""
    return Outage(
        node=node, life=life, kind=kind, begun=int(begun * SECOND), ended=int(ended * SECOND)
    )


def event(session_id: str, revision: int, at: float, trigger: str | None, **more: Any) -> Any:
    """A step, at so many seconds."""
    return SessionEvent(
        session_id=session_id,
        revision=revision,
        kind="created" if trigger is None else "moved",
        trigger=trigger,
        at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at),
        **{
            "source": "active",
            "target": "active",
            "changes": {},
            "reason": None,
            "digest": f"{session_id}:{revision}",
            **more,
        },
    )


@attrs.define
class Told:
    """A worker's node was killed after 10 s, and another one took over after 14 s.

    The task with a time limit was begun after 2 s, by a node that was paused from 20 s on.
    """

    histories: dict[str, list[SessionEvent]] = attrs.field(
        factory=lambda: {
            WORKED: [
                event(WORKED, 1, 1, None, changes={"config": {"recovery": "restart"}}),
                event(WORKED, 2, 2, "activate"),
                event(WORKED, 3, 3, "begin_task", changes={"active_tasks": [f"op:{FIRST}.1"]}),
                event(WORKED, 4, 9, "update", reason=f"op:{FIRST}.2"),
                event(WORKED, 5, 14, "end_task", reason=DROPPED, changes={"active_tasks": []}),
                event(WORKED, 6, 14, "touch", reason="taken over"),
                event(WORKED, 7, 16, "update", reason=f"op:{SECOND_ONE}.1"),
            ],
            LIMITED: [
                event(LIMITED, 1, 2, None),
                event(LIMITED, 2, 2, "begin_task", changes={"active_tasks": [TASK.tag]}),
                event(LIMITED, 3, 3.1, "task_timeout", changes={"active_tasks": []}),
            ],
        }
    )
    shifts: list[Shift] = attrs.field(
        factory=lambda: [
            Shift(worker=FIRST, session_id=WORKED, node=0, life=0, begun=2 * SECOND),
            Shift(worker=SECOND_ONE, session_id=WORKED, node=1, life=0, begun=15 * SECOND),
        ]
    )
    outages: list[Outage] = attrs.field(
        factory=lambda: [outage("kill", 0, 10, 30), outage("pause", 1, 20, 21)]
    )
    account: Account = attrs.field(
        factory=lambda: Account(
            calls=[
                Call(operation=CREATE, begun=0, ended=0, open=True),
                Call(operation=TASK, begun=int(1.9 * SECOND), ended=int(2.1 * SECOND), revision=2),
                *(
                    Call(
                        operation=Operation(f"op:{worker}.{number}", verb, WORKED),
                        begun=int(begun * SECOND),
                        ended=int((begun + 0.5) * SECOND),
                        revision=revision,
                    )
                    for worker, number, verb, begun, revision in (
                        (FIRST, 1, "begin_task", 2.8, 3),
                        (FIRST, 2, "update", 8.8, 4),
                        (SECOND_ONE, 1, "update", 15.8, 7),
                    )
                ),
            ],
            started={WORKED: (2, "active")},
        )
    )
    claims: list[Claims] = attrs.field(
        factory=lambda: [
            Claims(session_id=WORKED, begun=35 * SECOND, ended=36 * SECOND, worker=True),
            Claims(session_id=LIMITED, begun=36 * SECOND, ended=37 * SECOND, worker=False),
        ]
    )
    fed: list[PositionedEvent] = attrs.field(init=False)
    again: list[PositionedEvent] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        steps = sorted(
            (each for history in self.histories.values() for each in history),
            key=lambda each: (each.at, each.session_id, each.revision),
        )
        self.fed = [
            PositionedEvent(**attrs.asdict(each, recurse=False), position=position)
            for position, each in enumerate(steps, 1)
        ]
        self.again = list(self.fed)
        places = [(each.position, each.session_id, each.revision) for each in self.fed]
        self.account.fed = {(0, 0): (0, places[:5]), (1, 0): (4, places[4:])}

    def put(self, session_id: str, revision: int, **changes: Any) -> None:
        """Have a step been another one."""
        history = self.histories[session_id]
        history[revision - 1] = attrs.evolve(history[revision - 1], **changes)

    def faults(self) -> list[str]:
        """What the checks say."""
        run = Run(
            nodes=2,
            lease_seconds=3,
            look_seconds=0.25,
            outages=self.outages,
            zero=0,
            ended=40 * SECOND,
        )
        callers = {call.operation.tag: (0, 0) for call in self.account.calls}
        return [
            *overlaps(self.shifts, run),
            *wrong_claims(self.claims, self.shifts, run),
            *stale_writes(self.histories),
            *not_taken(self.shifts, self.histories, run),
            *taken_from_the_living(self.account, callers, self.histories, run),
            *not_fired(self.account.calls, self.histories, run),
            *lost_sessions(self.account, self.histories),
            *feed_faults(self.fed, self.again, self.histories),
            *faults_of_fed_nodes(self.account.fed, self.again),
            *feed_order_faults(self.fed, self.account.calls),
        ]


def test_cluster_check_of_kept_promises() -> None:
    """Where everything is as it should be, nothing is found."""
    assert Told().faults() == []


def run_two_workers(told: Told) -> None:
    """Have the first worker stop after the second one began, though its node lived."""
    told.outages[0] = outage("kill", 0, 30, 31)
    told.shifts[0].ended = 16 * SECOND
    told.account.owners[0, 0] = [0, 14 * SECOND]


def wake_and_go_on(told: Told) -> None:
    """Have the first worker's node be paused, and its worker not stop when it wakes."""
    told.outages[0] = outage("pause", 0, 10, 16)
    told.shifts[0].ended = 20 * SECOND
    told.account.owners[0, 0] = [0, 14 * SECOND]


def claim_what_does_not_run(told: Told) -> None:
    """Have somebody answer for a worker that has stopped long ago."""
    told.shifts[1].ended = 20 * SECOND


def run_what_nobody_claims(told: Told) -> None:
    """Have a worker for which nobody answers."""
    told.claims[0] = attrs.evolve(told.claims[0], worker=False)


def forget_a_task(told: Told) -> None:
    """Have a task for which nobody answers, so that nobody will ever drop it."""
    told.claims[0] = attrs.evolve(told.claims[0], unclaimed=("op:1",))


def write_as_of_old(told: Told) -> None:
    """Have the first worker write when the second one has."""
    history = told.histories[WORKED]
    history.append(event(WORKED, 8, 17, "update", reason=f"op:{FIRST}.3"))
    told.fed.append(PositionedEvent(**attrs.asdict(history[-1], recurse=False), position=11))
    told.again = list(told.fed)


def take_it_late(told: Told) -> None:
    """Take the session over long after its lease."""
    told.shifts[1].begun = 38 * SECOND
    for revision in (5, 6):
        told.put(WORKED, revision, at=told.histories[WORKED][0].at + timedelta(seconds=36))


def take_it_never(told: Told) -> None:
    """Leave the session to the dead."""
    del told.shifts[1]
    del told.histories[WORKED][4:]


def take_it_from_the_living(told: Told) -> None:
    """Drop a task of a node that lived on."""
    told.outages = []


def forget_what_is_due(told: Told) -> None:
    """Never fire what is due."""
    del told.histories[LIMITED][2]


def fire_it_late(told: Told) -> None:
    """Fire what is due, long after."""
    told.put(LIMITED, 3, at=told.histories[LIMITED][0].at + timedelta(seconds=17))


def fire_it_early(told: Told) -> None:
    """Fire what is not due yet."""
    told.put(LIMITED, 3, at=told.histories[LIMITED][0].at + timedelta(seconds=0.5))


def fire_it_twice(told: Told) -> None:
    """Fire what is due once more."""
    told.histories[LIMITED].append(event(LIMITED, 4, 4, "task_timeout"))


def lose_a_session(told: Told) -> None:
    """Acknowledge another session than there is."""
    told.account.started[WORKED] = (2, "idle")


def miss_an_event(told: Told) -> None:
    """Leave an event out of the feed."""
    del told.fed[3]


def tell_it_twice(told: Told) -> None:
    """Tell an event once more."""
    told.fed.append(attrs.evolve(told.fed[3], position=11))


def tell_it_backwards(told: Told) -> None:
    """Give a position that is lower than one that was told."""
    told.fed[3], told.fed[4] = told.fed[4], told.fed[3]


def tell_another_one(told: Told) -> None:
    """Tell an event otherwise than it is stored."""
    told.fed[3] = attrs.evolve(told.fed[3], digest="another")


def tell_the_second_first(told: Told) -> None:
    """Tell a session's events in another order."""
    one, two, *_ = (at for at, each in enumerate(told.fed) if each.session_id == LIMITED)
    first, second = told.fed[one], told.fed[two]
    told.fed[one] = attrs.evolve(second, position=first.position)
    told.fed[two] = attrs.evolve(first, position=second.position)


def tell_another_story_later(told: Told) -> None:
    """Give other positions when the feed is read again."""
    told.again[-1] = attrs.evolve(told.again[-1], position=100)


def skip_an_event_on_a_node(told: Told) -> None:
    """Leave an event out of what a node is told."""
    del told.account.fed[1, 0][1][2]


def begin_too_late_on_a_node(told: Told) -> None:
    """Leave out the first event that a node should be told."""
    del told.account.fed[1, 0][1][0]


def tell_what_came_later_first(told: Told) -> None:
    """Put what began when another call had ended before it."""
    places = {(each.session_id, each.revision): at for at, each in enumerate(told.fed)}
    early, late = places[LIMITED, 2], places[WORKED, 4]
    moved = told.fed.pop(early)
    told.fed.insert(late, moved)
    # Nothing but the order of the two is another one.
    told.fed = [attrs.evolve(each, position=at) for at, each in enumerate(told.fed, 1)]
    told.again = list(told.fed)


FAULTS: dict[Callable[[Told], None], str] = {
    run_two_workers: f"{FIRST} ran for 1.000 s beside {SECOND_ONE}",
    wake_and_go_on: f"{FIRST} ran for 5.000 s beside {SECOND_ONE}",
    claim_what_does_not_run: "said to have a worker, and has none",
    run_what_nobody_claims: "it has a worker, and nobody answers for it",
    forget_a_task: "nobody answers for op:1",
    write_as_of_old: f"revision 8 was written by {FIRST}, after {SECOND_ONE} had taken over",
    take_it_late: "after its lease",
    take_it_never: "nobody took over",
    take_it_from_the_living: "was dropped, and its owner lived",
    forget_what_is_due: "was never kept",
    fire_it_late: "s late",
    fire_it_early: "s before",
    fire_it_twice: "more than once",
    lose_a_session: "was told as revision 2, idle",
    miss_an_event: "was not told",
    tell_it_twice: "was told 2 times",
    tell_it_backwards: "was told after",
    tell_another_one: "was told as another one",
    tell_the_second_first: "was told after",
    tell_another_story_later: "tells another story",
    skip_an_event_on_a_node: "node 1, life 0, read another feed",
    begin_too_late_on_a_node: "node 1, life 0, read another feed",
    tell_what_came_later_first: "stands before",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_cluster_check_finds(plant: Callable[[Told], None]) -> None:
    """Each promise that a cluster can break is found broken."""
    told = Told()
    plant(told)
    assert any(FAULTS[plant] in fault for fault in told.faults()), told.faults()


def test_cluster_check_excuses_a_pause() -> None:
    """A worker that a pause kept from stopping may stop a moment after it woke up."""
    told = Told()
    told.outages[0] = outage("pause", 0, 10, 16)
    told.shifts[0].ended = 17 * SECOND
    told.account.owners[0, 0] = [0, 17 * SECOND]
    assert told.faults() == []


def test_cluster_check_excuses_when_nobody_was_well() -> None:
    """What is due, and what the dead left, waits while no node is well."""
    told = Told()
    take_it_late(told)
    told.outages.append(outage("cut", 1, 12, 36))
    assert not any("lease" in fault for fault in told.faults())


def test_cluster_check_of_steps_by_themselves() -> None:
    """Nobody but a call moves a session that all nodes call, unless its owner died or it is due."""
    assert by_itself(event("p001.1", 5, 0, "end_task", reason=DROPPED))
    assert by_itself(event("p001.1", 5, 0, "stop_timeout", source="terminating"))
    assert not by_itself(event("p001.1", 5, 0, "end_task"))
    assert not by_itself(event("p001.1", 5, 0, "go_idle"))
    assert by_itself(event(WORKED, 5, 0, "go_idle"))
    assert not by_itself(event(WORKED, 5, 0, "update"))


def test_cluster_account_of_a_killed_node(tmp_path: Path) -> None:
    """What a node had begun when it was killed is open; a line that is not whole is none."""
    file = tmp_path / "0.0.jsonl"
    done = Call(operation=TASK, begun=1, ended=2, revision=2, status="active")
    lines = [
        ("begins", attrs.asdict(attrs.evolve(done, open=True))),
        ("made", attrs.asdict(done)),
        ("begins", attrs.asdict(Call(operation=CREATE, begun=3, ended=3, open=True))),
        ("starts", FIRST, WORKED, 4),
        ("broken", 5, "KeyError: 'x'"),
    ]
    text = "".join(f"{json.dumps(each)}\n" for each in lines)
    file.write_text(f'{text}["stops", "k1', encoding="utf-8")
    account = Account()
    account.read(0, 2, file)
    assert [call.open for call in account.calls] == [False, True]
    assert [(shift.life, shift.ended) for shift in account.shifts] == [(2, None)]
    assert account.faults == ["node 0, life 2: KeyError: 'x'"]


def test_cluster_good_seconds() -> None:
    """A time is good while one node is well, and the server is there."""
    outages = [
        outage("cut", 0, 1, 4),
        outage("pause", 1, 2, 3),
        outage("restart", -1, 6, 7),
    ]
    assert good_seconds(outages, 2, 0, 10 * SECOND, warm_seconds=0) == 8
    assert good_seconds(outages, 2, 0, 10 * SECOND, warm_seconds=1) == 6
    assert good_seconds(outages, 2, 2 * SECOND, 3 * SECOND, warm_seconds=0) == 0
    assert good_seconds([], 2, 0, SECOND, warm_seconds=1) == 1


def test_cluster_plan_is_told_by_its_seed() -> None:
    """The same seed plans the same faults; those of one node do not overlap, all end in time."""
    first = plan("1", nodes=4, seconds=60, lease_seconds=3)
    assert first == plan("1", nodes=4, seconds=60, lease_seconds=3)
    assert first != plan("2", nodes=4, seconds=60, lease_seconds=3)
    assert {fault.kind for fault in first} == {"kill", "pause", "cut", "restart"}
    assert sum(fault.kind == "restart" for fault in first) == 2
    for node in range(4):
        mine = [fault for fault in first if fault.node == node]
        assert all(a.at + a.seconds < b.at for a, b in pairwise(mine))
        assert all(each.at + each.seconds < 60 for each in mine)
