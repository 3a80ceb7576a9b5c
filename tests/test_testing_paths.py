"""Paths through a lifecycle: which rows they take, and that no shorter set of them takes all."""

from __future__ import annotations

import heapq
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from working import worked

from session_fsm import (
    NO_ACTIVE_TASK,
    SESSION_LIFECYCLE,
    Lifecycle,
    LifecycleError,
    Row,
    after_grace,
)
from session_fsm.testing import LifecyclePath, PathStep, paths, simple_paths
from session_fsm.testing.flow import Arc, cheapest_uses, circuit

AGENT, ORDER = worked("agent"), worked("order")
KNOWN = (SESSION_LIFECYCLE, AGENT, ORDER)

STATUSES = ("a", "b", "c", "d", "z")


@st.composite
def lifecycles(draw: st.DrawFn, most_rows: int = 7) -> Lifecycle:
    """Small lifecycles of any shape, with rows that keep a status and rows side by side."""
    statuses = STATUSES[-draw(st.integers(2, 4)) :]
    live = statuses[:-1]
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from(live), st.sampled_from((None, *statuses))),
            min_size=len(live),
            max_size=most_rows,
        )
    )
    try:
        return Lifecycle(
            statuses=statuses,
            initial=live[0],
            final=statuses[-1:],
            rows=[Row(f"t{n}", source, target) for n, (source, target) in enumerate(rows)],
        )
    except LifecycleError:
        assume(False)
        raise


def cost(found: tuple[LifecyclePath, ...]) -> tuple[int, int]:
    """The steps of all paths, and how many paths there are."""
    return sum(map(len, found)), len(found)


def least_cost(lifecycle: Lifecycle) -> tuple[int, int]:
    """The fewest steps, and then paths, that take every row: by trying all, with no idea at all."""
    moves = [(source, row.target or source) for row, source in lifecycle.moves()]
    everything = (1 << len(moves)) - 1
    number = count()
    waiting = [((0, 1), next(number), lifecycle.initial, 0)]
    done: set[tuple[str, int]] = set()
    while True:
        (steps, begun), _, status, taken = heapq.heappop(waiting)
        if taken == everything:
            return steps, begun
        if (status, taken) in done:
            continue
        done.add((status, taken))
        anew = ((steps, begun + 1), next(number), lifecycle.initial, taken)
        heapq.heappush(waiting, anew)
        for index, (source, target) in enumerate(moves):
            if source == status:
                way = ((steps + 1, begun), next(number), target, taken | 1 << index)
                heapq.heappush(waiting, way)


# --- the shortest set ------------------------------------------------------------------------


@pytest.mark.parametrize("lifecycle", KNOWN, ids=lambda lifecycle: lifecycle.name)
def test_testing_paths_take_every_row(lifecycle: Lifecycle) -> None:
    """Every row is taken from each of its sources, by paths that begin where a life begins."""
    found = paths(lifecycle)
    rows = {(row.trigger, source) for row, source in lifecycle.moves()}
    assert {row for path in found for row in path.rows} == rows
    for path in found:
        assert path.lifecycle is lifecycle
        assert path.statuses[0] == lifecycle.initial
        assert path.statuses == (lifecycle.initial, *(step.target for step in path))
        for step, status in zip(path, path.statuses, strict=False):
            assert step.source == status
            row = lifecycle.find(step.trigger, step.source)
            assert row is not None
            assert step.timed == (row.deadline is not None)
            assert step.target == (row.target or step.source)


def test_testing_paths_of_a_session() -> None:
    """The lifecycle of a session takes 28 steps in 6 paths, where it has 23 rows and sources."""
    assert cost(paths()) == (28, 6)
    assert [str(path) for path in paths()[1:]] == [
        "activate -> go_idle -> expire -> stop_timeout",
        "activate -> terminate -> end_task -> task_timeout",
        "activate -> expire",
        "abort",
        "start_timeout",
    ]
    assert paths() == paths(SESSION_LIFECYCLE)


@settings(max_examples=300)
@given(lifecycles())
def test_testing_paths_are_the_shortest(lifecycle: Lifecycle) -> None:
    """No set of paths has fewer steps, or as many steps in fewer paths."""
    found = paths(lifecycle)
    rows = {(row.trigger, source) for row, source in lifecycle.moves()}
    assert {row for path in found for row in path.rows} == rows
    assert cost(found) == least_cost(lifecycle)


def test_testing_paths_begin_anew_only_where_that_saves_steps() -> None:
    """Of two ways that are as long, the one that goes on is taken, not the one from the start."""
    rows = [
        *(Row("ax", "a", "x"), Row("xd", "x", "d"), Row("cd", "c", "d"), Row("bc", "b", "c")),
        *(Row("ab", "a", "b"), Row("also_ab", "a", "b")),
        *(Row(trigger, "d", "z") for trigger in ("one", "two", "three")),
    ]
    assert cost(paths(Lifecycle(tuple("abcdxz"), "a", rows))) == (11, 3)


def test_testing_paths_go_back_on_an_earlier_choice() -> None:
    """A way that was chosen first is given up where another one costs less with all the rest."""
    # Two nodes are entered once too often, two left once too often. The cheapest way of all leads
    # to the node that the other one can hardly reach.
    arcs = [
        *(Arc(4, 0, 0, 1), Arc(4, 1, 0, 1), Arc(2, 4, 0, 1), Arc(3, 4, 0, 1)),
        *(Arc(0, 2, 1, 0), Arc(0, 3, 2, 0), Arc(1, 2, 3, 0), Arc(1, 3, 9, 0)),
    ]
    uses = cheapest_uses(arcs, 5)
    assert uses == [1, 1, 1, 1, 0, 1, 1, 0]
    tour = circuit(arcs, uses, 4)
    assert sorted(tour) == [0, 1, 2, 3, 5, 6]
    assert all(arcs[one].end == arcs[two].start for one, two in pairwise(tour))


def test_testing_paths_end_a_task_where_there_can_be_one() -> None:
    """A task is ended where a status was entered by hand, from one in which tasks begin."""
    grace = after_grace("some")
    drop: Any = lambda _: {"active_tasks": ()}  # noqa: E731 - an effect is a function
    lifecycle = Lifecycle(
        statuses=("new", "busy", "draining", "gone"),
        initial="new",
        rows=[
            Row("skip", "new", "draining"),
            Row("start", "new", "busy"),
            Row("expire", "busy", "draining", guards=NO_ACTIVE_TASK, deadline=grace),
            Row("stop", "busy", "draining", ending=True),
            Row("finish", "draining", "gone", guards=NO_ACTIVE_TASK, ending=True),
            Row("give_up", "draining", "gone", deadline=grace, effect=drop),
            Row("begin", "busy", None, required="task_id"),
            Row("end", ("busy", "draining"), None, required="task_id"),
            Row("note", "draining", None),
        ],
        roles={"begin_task": "begin", "end_task": "end"},
        graces={"some": 1},
    )
    told = [str(path) for path in paths(lifecycle)]
    assert told == [
        "skip -> note -> finish",
        "start -> begin -> end -> expire -> give_up",
        "start -> stop -> end",
    ]
    for known in (SESSION_LIFECYCLE, AGENT):
        assert "begin_task -> end_task" in str(paths(known)[0])


def test_testing_paths_of_what_has_no_rows() -> None:
    """Where nothing can happen, there is nothing to take, and one way of no step to the end."""
    stone = Lifecycle(("there",), "there", [], name="stone")
    assert paths(stone) == ()
    assert [path.statuses for path in simple_paths(stone)] == [("there",)]


def test_testing_paths_need_a_tour() -> None:
    """Where nothing leads back, there is no tour."""
    with pytest.raises(ValueError, match="no tour"):
        cheapest_uses([Arc(0, 1, 1, 1)], 2)


def test_testing_paths_of_a_large_lifecycle() -> None:
    """A hundred statuses with four hundred rows take no noticeable time."""
    statuses = [f"s{number}" for number in range(100)]
    rows = [
        Row(f"t{step}_{number}", source, statuses[(number * step + 1) % 100])
        for number, source in enumerate(statuses[:-1])
        for step in (1, 3, 7, 11)
    ]
    lifecycle = Lifecycle(statuses, "s0", rows, final=["s99"])
    found = paths(lifecycle)
    assert len({row for path in found for row in path.rows}) == 396
    assert paths(lifecycle) == found


# --- simple paths ----------------------------------------------------------------------------


def all_simple(lifecycle: Lifecycle) -> set[tuple[str, ...]]:
    """The triggers of every path that enters no status twice, one step longer at a time."""
    ended: set[tuple[str, ...]] = set()
    ways: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), (lifecycle.initial,))]
    while ways:
        triggers, statuses = ways.pop()
        if statuses[-1] in lifecycle.final:
            ended.add(triggers)
        for row, source in lifecycle.moves():
            if source == statuses[-1] and row.target and row.target not in statuses:
                ways.append(((*triggers, row.trigger), (*statuses, row.target)))
    return ended


@pytest.mark.parametrize(
    ("lifecycle", "number"),
    [(SESSION_LIFECYCLE, 10), (AGENT, 24), (ORDER, 7)],
    ids=lambda each: getattr(each, "name", None),
)
def test_testing_paths_simple_ones_are_all_there(lifecycle: Lifecycle, number: int) -> None:
    """Every way to an end that enters no status twice is there once."""
    found = simple_paths(lifecycle)
    assert len(found) == number
    assert len({path.triggers for path in found}) == number
    assert {path.triggers for path in found} == all_simple(lifecycle)


@given(lifecycles())
def test_testing_paths_simple_ones_of_any_lifecycle(lifecycle: Lifecycle) -> None:
    """The same for any small lifecycle; each ends where nothing leads on."""
    found = simple_paths(lifecycle)
    assert [path.triggers for path in found] == list(dict.fromkeys(p.triggers for p in found))
    assert {path.triggers for path in found} == all_simple(lifecycle)
    for path in found:
        assert path.statuses[-1] in lifecycle.final
        assert len(set(path.statuses)) == len(path.statuses)


def test_testing_paths_simple_ones_to_a_status() -> None:
    """Simple paths may lead to any status; to the initial one, there is the path of no step."""
    to_terminating = [str(path) for path in simple_paths(to="terminating")]
    assert to_terminating == [
        "activate -> go_idle -> terminate",
        "activate -> go_idle -> expire",
        "activate -> terminate",
        "activate -> expire",
    ]
    [nothing] = simple_paths(to="initializing")
    assert (len(nothing), nothing.id, str(nothing)) == (0, "nothing", "nothing")
    with pytest.raises(LifecycleError, match="there is no status 'paid'"):
        simple_paths(to="paid")


# --- a path ----------------------------------------------------------------------------------


def test_testing_paths_name_their_tests() -> None:
    """A path is called by its triggers; a long one by the first, the last and the number."""
    assert [path.id for path in paths()[1:3]] == [
        "activate-go_idle-expire-stop_timeout",
        "activate-terminate-end_task-task_timeout",
    ]
    assert paths()[0].id == "update-to-finish-in-16-steps"
    assert all(len(path.id) <= 72 for path in paths())
    assert repr(paths()[1]).startswith("LifecyclePath(lifecycle='session', steps=(PathStep(")


@pytest.mark.parametrize("path", paths())
def test_testing_paths_are_parameters(path: LifecyclePath, request: pytest.FixtureRequest) -> None:
    """As a parameter of pytest, a path gives the test its id by itself."""
    assert request.node.name == f"test_testing_paths_are_parameters[{path.id}]"


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([("resume", "initializing", "active")], "step 1, 'resume' from 'initializing': there is"),
        ([("activate", "initializing", "idle")], "does not lead to 'idle'"),
        ([("go_idle", "active", "idle")], "'go_idle': begins in 'active', where 'initializing'"),
        (
            [("activate", "initializing", "active"), ("resume", "idle", "active")],
            "step 2, 'resume': begins in 'idle', where 'active' was reached",
        ),
    ],
)
def test_testing_paths_hang_together(steps: list[tuple[str, str, str]], problem: str) -> None:
    """A path that is made by hand is one, or its first fault is named."""
    with pytest.raises(ValueError, match=problem):
        LifecyclePath(SESSION_LIFECYCLE, tuple(PathStep(*step) for step in steps))
