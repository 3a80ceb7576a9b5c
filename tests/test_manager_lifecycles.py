"""A manager of other lifecycles: it names none of our words, only roles, endings and deadlines."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from managing import START, House, Recorder, Worker, minutes, once, seconds, triggers, work_left

from session_fsm import (
    LIVE,
    SESSION_LIFECYCLE,
    Attempt,
    Deadline,
    Guard,
    GuardError,
    GuardRejectedError,
    InvalidTransitionError,
    Lifecycle,
    LifecycleError,
    Row,
    SessionFsmError,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.stores.records import Work

pytest_plugins = ("manager_fixtures",)


def _days(number: int) -> Deadline:
    def find(attempt: Attempt) -> datetime:
        return attempt.state.status_since + timedelta(days=number)

    return Deadline(f"status_since + {number} days", find)


PAID = Guard(
    "paid", lambda attempt: bool(attempt.state.metadata.get("paid")), "the order is not paid"
)

ORDER = Lifecycle(
    statuses=("placed", "packed", "shipped", "recalling", "delivered", "cancelled"),
    initial="placed",
    rows=(
        Row("pack", "placed", "packed", guards=(PAID,), activity=True),
        Row("ship", "packed", "shipped", activity=True),
        Row("deliver", "shipped", "delivered"),
        Row(
            "cancel",
            ("placed", "packed"),
            "cancelled",
            ending=True,
            optional=("error",),
            effect=lambda attempt: dict(attempt.arguments),
        ),
        Row("recall", "shipped", "recalling", ending=True),
        Row("return_to_sender", "recalling", "cancelled", ending=True),
        Row("lose_patience", "placed", "cancelled", deadline=_days(3)),
        Row(
            "note",
            LIVE,
            None,
            optional=("metadata",),
            effect=lambda attempt: {
                name: attempt.arguments[name] for name in ("metadata",) if name in attempt.arguments
            },
        ),
    ),
    roles={"update": "note"},
    name="order",
)
"""An order: none of our words, no tasks, no activation, and two ways to end well or badly."""


@pytest.fixture
def orders(house: House) -> SessionManager:
    """A manager of orders."""
    return house.open(lifecycle=ORDER)


def test_manager_lifecycles_order_is_delivered(house: House, orders: SessionManager) -> None:
    """An order goes its way by hand; every verb that reads knows it."""
    order = orders.create("o1", metadata={"paid": False})
    assert (order.status, order.revision) == ("placed", 1)
    with pytest.raises(GuardRejectedError, match="not paid"):
        orders.fire("o1", "pack")
    orders.update("o1", metadata={"paid": True})
    assert orders.transition("o1", "packed").status == "packed"
    assert orders.permitted("o1") == ("ship", "cancel", "note")
    orders.fire("o1", "ship")
    assert orders.counts() == {
        "placed": 0,
        "packed": 0,
        "shipped": 1,
        "recalling": 0,
        "delivered": 0,
        "cancelled": 0,
    }
    assert orders.transition("o1", "delivered").status == "delivered"
    assert orders.list().sessions == ()
    assert [session.session_id for session in orders.list(status="delivered")] == ["o1"]
    with pytest.raises(LifecycleError):
        orders.list(status="idle")
    assert orders.verify().ok
    assert orders.purge(ended_before=START + seconds(1)) == 1
    assert house.open(lifecycle=ORDER).verify().ok


@pytest.mark.parametrize("verb", ["terminate", "fail"])
def test_manager_lifecycles_order_ends_by_its_own_way_out(
    orders: SessionManager, verb: str
) -> None:
    """Ending an order cancels it, from wherever it stands; it is never delivered by that."""
    for number, moves in enumerate(([], ["pack"], ["pack", "ship"])):
        session_id = f"o{number}"
        orders.create(session_id, metadata={"paid": True})
        for trigger in moves:
            orders.fire(session_id, trigger)
        if verb == "terminate":
            ended = orders.terminate(session_id, reason="regret")
        else:
            ended = orders.fail(session_id, "fire in the warehouse")
        assert ended.status == "cancelled"
    assert triggers(orders, "o0")[-1] == "cancel"
    assert triggers(orders, "o1")[-1] == "cancel"
    assert triggers(orders, "o2")[-2:] == ["recall", "return_to_sender"]
    if verb == "fail":
        assert orders.get("o0").state.error == "fire in the warehouse"
        assert orders.history("o2")[-1].reason == "fire in the warehouse"
    delivered = orders.create("done", metadata={"paid": True})
    for trigger in ("pack", "ship", "deliver"):
        delivered = orders.fire("done", trigger)
    assert orders.terminate("done") == orders.fail("done", "x") == delivered


def test_manager_lifecycles_order_times_out(house: House, orders: SessionManager) -> None:
    """Its own deadline is swept like any other."""
    orders.create("o1")
    orders.create("o2", metadata={"paid": True})
    orders.fire("o2", "pack")
    assert orders.next_deadline() == START + timedelta(days=3)
    house.clock.advance(timedelta(days=3))
    assert [event.trigger for event in orders.sweep().fired] == ["lose_patience"]
    assert orders.next_deadline() is None


def test_manager_lifecycles_order_with_a_worker(house: House, orders: SessionManager) -> None:
    """Without a way to activate, a start still runs and its worker is stopped at the end."""
    worker = Worker()
    order = orders.create("o1", metadata={"paid": True}, start=lambda _: worker)
    assert (order.status, order.worker) == ("placed", worker)
    orders.fire("o1", "pack")
    assert orders.get("o1").worker is worker
    assert orders.terminate("o1").status == "cancelled"
    assert worker.stops == 1
    assert orders.recover().ended == ()


def test_manager_lifecycles_order_whose_start_fails(orders: SessionManager) -> None:
    """A start that raises ends an order by its way out."""

    def start(_: object) -> None:
        raise RuntimeError("no stock")

    with pytest.raises(SessionFsmError, match="no stock"):
        orders.create("o1", start=start)
    assert orders.get("o1").status == "cancelled"
    assert orders.get("o1").state.error == "RuntimeError: no stock"
    assert work_left(orders, "o1") == set()


def test_manager_lifecycles_order_that_can_not_be_read_again(house: House) -> None:
    """What was started is stopped if nobody can tell its creator, and its claim let go of later."""
    store = house.store(ORDER)
    orders, worker = house.open(lifecycle=ORDER, store=store), Worker()

    def cut_off(*_: object) -> None:
        raise StoreUnavailableError(problem="cut off")

    def start(_: object) -> Worker:
        store.before["load"] = once(cut_off)
        return worker

    with pytest.raises(StoreUnavailableError):
        orders.create("o1", metadata={"paid": True}, start=start)
    assert worker.stops == 1
    assert work_left(orders, "o1") == {Work("worker")}
    orders.recover()
    assert work_left(orders, "o1") == set()


def test_manager_lifecycles_order_worker_ended_elsewhere(house: House) -> None:
    """A worker of an order that another manager cancels is stopped at the next sweep."""
    manager, other = house.open(lifecycle=ORDER), house.open(lifecycle=ORDER)
    worker = Worker()
    manager.create("o1", start=lambda _: worker)
    manager.create("o2", start=lambda _: None)
    assert work_left(manager, "o1") == {Work("worker")}
    assert work_left(manager, "o2") == set()
    other.terminate("o1")
    manager.sweep()
    assert worker.stops == 1
    assert work_left(manager, "o1") == set()


def test_manager_lifecycles_order_ended_while_it_starts(orders: SessionManager) -> None:
    """An order that is cancelled during its start keeps no worker."""
    worker = Worker()

    def start(_: object) -> Worker:
        orders.terminate("o1")
        return worker

    order = orders.create("o1", start=start)
    assert (order.status, order.worker, worker.stops) == ("cancelled", None, 1)
    assert work_left(orders, "o1") == set()


@pytest.mark.parametrize(
    "verb",
    [
        lambda manager: manager.begin_task("o1", "t"),
        lambda manager: manager.end_task("o1", "t"),
        lambda manager: manager.task("o1", "t").__enter__(),
        lambda manager: manager.start_conversation("o1"),
        lambda manager: manager.touch("o1"),
    ],
)
def test_manager_lifecycles_missing_roles(orders: SessionManager, verb: Any) -> None:
    """A verb whose role the lifecycle lacks says so, and changes nothing."""
    before = orders.create("o1")
    with pytest.raises(LifecycleError, match="role"):
        verb(orders)
    assert orders.get("o1") == before


def test_manager_lifecycles_missing_grace(house: House) -> None:
    """A grace that a lifecycle does not know can't be set."""
    with pytest.raises(LifecycleError, match="grace"):
        house.open(lifecycle=ORDER, stop_grace_seconds=3.0)


def test_manager_lifecycles_without_a_way_out(house: House) -> None:
    """Where no row is an ending, a session ends by its moves alone."""
    rows = [row for row in ORDER.rows if not row.ending]
    bare = Lifecycle(
        statuses=("placed", "packed", "shipped", "delivered", "cancelled"),
        initial="placed",
        rows=[*rows, Row("burn", "packed", "cancelled")],
        name="bare",
    )
    manager = house.open(lifecycle=bare)
    before = manager.create("o1")
    with pytest.raises(LifecycleError, match="no ending row"):
        manager.terminate("o1")
    with pytest.raises(LifecycleError, match="no ending row"):
        manager.fail("o1", "boom")
    with pytest.raises(LifecycleError, match="role"):
        manager.update("o1", metadata={})
    assert manager.get("o1") == before


def test_manager_lifecycles_two_rows_between_two_statuses(house: House) -> None:
    """Where two rows lead to a status, it has to be said which one; both are named."""
    double = ORDER.extend(rows=[Row("hand_over", "shipped", "delivered")], name="double")
    manager = house.open(lifecycle=double)
    manager.create("o1", metadata={"paid": True})
    manager.fire("o1", "pack")
    manager.fire("o1", "ship")
    with pytest.raises(LifecycleError) as caught:
        manager.transition("o1", "delivered")
    assert "'deliver' and 'hand_over'" in str(caught.value)
    assert manager.fire("o1", "hand_over").status == "delivered"


# --- ours, with more -------------------------------------------------------------------------

WAITING = SESSION_LIFECYCLE.extend(
    statuses=("waiting_for_input",),
    rows=[
        Row("ask", "active", "waiting_for_input", why="a question to the person"),
        Row("answer", "waiting_for_input", "active", activity=True, why="the person answered"),
        Row("terminate", "waiting_for_input", "terminating", ending=True),
        Row(
            "give_up",
            "waiting_for_input",
            "terminating",
            deadline=Deadline(
                "status_since + 5 minutes",
                lambda attempt: attempt.state.status_since + timedelta(minutes=5),
            ),
        ),
        Row(
            "end_task",
            "waiting_for_input",
            None,
            guards=SESSION_LIFECYCLE.find("end_task", "active").guards,  # type: ignore[union-attr]  # it is there
            effect=SESSION_LIFECYCLE.find("end_task", "active").effect,  # type: ignore[union-attr]  # it is there
            required="task_id",
        ),
    ],
    name="session_with_questions",
)


def test_manager_lifecycles_waiting_for_input(house: House) -> None:
    """A status of one's own: entered and left by hand, with a deadline and a way out."""
    manager = house.open(lifecycle=WAITING)
    manager.create("a")
    manager.begin_task("a", "t")
    waiting = manager.transition("a", "waiting_for_input")
    assert (waiting.status, waiting.state.active_tasks) == ("waiting_for_input", ("t",))
    assert manager.next_deadline() == START + minutes(5)
    assert "waiting_for_input" in manager.counts()
    with pytest.raises(InvalidTransitionError):
        manager.begin_task("a", "u")
    assert manager.fire("a", "answer").status == "active"
    assert manager.end_task("a", "t").status == "idle"
    manager.begin_task("a", "t")
    manager.fire("a", "ask")
    assert manager.end_task("a", "t").status == "waiting_for_input"
    assert manager.terminate("a").status == "terminated"
    assert triggers(manager, "a")[-2:] == ["terminate", "finish"]
    assert manager.verify().ok


def test_manager_lifecycles_waiting_too_long(house: House) -> None:
    """Its deadline fires by itself, and what follows follows."""
    manager, recorder = house.open(lifecycle=WAITING), Recorder()
    manager.subscribe(recorder)
    manager.create("a")
    manager.fire("a", "ask")
    house.clock.advance(minutes(5))
    assert [event.trigger for event in manager.sweep().fired] == ["give_up", "finish"]
    manager.create("b")
    manager.begin_task("b", "t")
    manager.fire("b", "ask")
    assert manager.fail("b", "boom").state.error == "boom; 1 task dropped: t"


def test_manager_lifecycles_beside_each_other(tmp_path: Path) -> None:
    """One file holds sessions of several lifecycles; each manager minds its own."""
    url = f"sqlite:///{tmp_path / 'both.db'}"
    with (
        SessionManager(url) as sessions,
        SessionManager(url, lifecycle=WAITING) as questions,
        SessionManager(url, lifecycle=ORDER) as orders,
    ):
        sessions.create("a")
        questions.create("b")
        orders.create("c")
        for manager, own in ((sessions, "a"), (questions, "b"), (orders, "c")):
            assert [session.session_id for session in manager.list()] == [own]
            assert sum(manager.counts().values()) == 1
            report = manager.verify()
            assert (report.ok, report.sessions) == (True, 1)
            assert manager.recover().released == ()
        with pytest.raises(LifecycleError):
            orders.get("a")
        with pytest.raises(LifecycleError):
            sessions.terminate("c")
        with pytest.raises(SessionFsmError):
            orders.create("a")
        assert sessions.get("a").revision == 2


def test_manager_lifecycles_changed_under_the_same_name(house: House) -> None:
    """A lifecycle with other rows under a name that the store knows is refused on opening."""
    house.open().create("a")
    changed = SESSION_LIFECYCLE.extend(rows=[Row("nap", "idle", "active")])
    with pytest.raises(LifecycleError):
        house.open(lifecycle=changed)
    assert house.open(stop_grace_seconds=99.0).get("a").status == "active"


def test_manager_lifecycles_guard_that_is_broken(house: House) -> None:
    """A guard that raises is a fault of the lifecycle, never a silent no; nothing changes."""
    broken = SESSION_LIFECYCLE.extend(
        rows=[
            Row("nap", "active", "idle", guards=(Guard("broken", lambda _: 1 / 0, "?"),)),  # type: ignore[arg-type,return-value]  # on purpose
        ],
        name="broken",
    )
    manager = house.open(lifecycle=broken)
    before = manager.create("a")
    with pytest.raises(GuardError, match="broken"):
        manager.fire("a", "nap")
    assert manager.get("a") == before
    assert manager.touch("a").revision == 3


def test_manager_lifecycles_effect_that_sets_what_is_no_data(house: House) -> None:
    """An effect that tries to set a status is a fault of the lifecycle; nothing changes."""
    bad = SESSION_LIFECYCLE.extend(
        rows=[Row("cheat", "active", None, effect=lambda _: {"status": "terminated"})],
        name="bad",
    )
    manager = house.open(lifecycle=bad)
    before = manager.create("a")
    with pytest.raises(LifecycleError, match="status"):
        manager.fire("a", "cheat")
    assert manager.get("a") == before
