"""The worked lifecycles: run as programs, by managers over each store, drawn, sent and operated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from commanding import environment, program, url_of
from managing import House, minutes, triggers, work_left
from processes import Program
from working import EXAMPLES, LIFECYCLES, worked

from session_fsm import (
    SESSION_LIFECYCLE,
    GuardRejectedError,
    InvalidTransitionError,
    LifecycleError,
    RecoveryReport,
    Session,
    SessionManager,
    SessionStartError,
    StateInvalidError,
    dumps,
    loads,
)
from session_fsm.diagrams import FORMATS, render
from session_fsm.stores.records import Work

pytest_plugins = ("manager_fixtures",)

AGENT, ORDER = worked("agent"), worked("order")

TOLD = {
    "agent": [
        "# An agent asks before it acts",
        (
            "'analyse_code' is refused in status 'active': the feature 'code_analysis' is not"
            " enabled (enabled: search); permitted now: go_idle, terminate, begin_task, end_task,"
            " start_conversation, touch, update, ask, suspend;"
            " 'expire' fires at 2026-03-02T09:30:00+00:00"
        ),
        (
            "'answer' is refused in status 'waiting_for_input': 'mallory' was not asked; ana, ben"
            " may answer; permitted now: terminate, end_task, update;"
            " 'nobody_answers' fires at 2026-03-02T10:00:00+00:00"
        ),
        "reviewer is idle",
        "# Nobody answers another one",
        "02 March 09:30: reviewer expire -> terminating",
        "02 March 09:30: reviewer finish -> terminated",
        "02 March 10:00: planner nobody_answers -> suspended",
        "09 March 10:00: planner forget -> terminating",
        "09 March 10:00: planner finish -> terminated",
        "interrupted: plan",
        "{'terminated': 2}",
    ],
    "order": [
        "# An order goes its way",
        (
            "'check_out' is refused in status 'cart': the cart is empty; permitted now: put_in,"
            " cancel, annotate; 'clear' fires at 2026-03-09T09:00:00+00:00"
        ),
        "'pay' is refused in status 'placed': 1200 cents are not the 1650 that it costs",
        "tea-and-cup is delivered",
        "# One is cancelled on its way, by the rows that end an order",
        "kettle is cancelled by recall and take_back",
        "kettle has 0 cents paid",
        "# Two are forgotten, each with a deadline of its own",
        "05 March: unpaid lapse -> cancelled",
        "09 March: abandoned clear -> cancelled",
        "{'delivered': 1, 'cancelled': 3}",
    ],
}
"""What the programs say."""

SESSIONS = {"agent": "planner", "order": "kettle"}
"""A session that each program leaves behind."""


def ran(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory; warnings are errors there too."""
    return subprocess.run(
        words,
        capture_output=True,
        cwd=cwd,
        env=environment(PYTHONWARNINGS="error", **variables),
        text=True,
        check=False,
    )


# --- as programs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIFECYCLES)
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "sqlite"])
def test_examples_run_as_programs(tmp_path: Path, name: str, stored: bool) -> None:
    """Each example is a program that tells its story, the same over every store."""
    where = [url_of(tmp_path / "x.db")] if stored else []
    done = ran(sys.executable, str(EXAMPLES / f"{name}.py"), *where, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == TOLD[name]
    assert (tmp_path / "x.db").exists() is stored


@pytest.mark.parametrize("name", LIFECYCLES)
def test_examples_are_operated_from_the_command_line(tmp_path: Path, name: str) -> None:
    """Every command works with the lifecycle, named from the directory of the example."""
    url, session_id = url_of(tmp_path / "x.db"), SESSIONS[name]
    done = ran(sys.executable, str(EXAMPLES / f"{name}.py"), url, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr
    lifecycle = f"{name}:{LIFECYCLES[name]}"
    first = worked(name).triggers[0]
    for words, code in (
        (("list", "--all"), 0),
        (("list", "--status", worked(name).final[-1]), 0),
        (("counts",), 0),
        (("show", session_id), 0),
        (("history", session_id), 0),
        (("explain", session_id, first), 3),
        (("terminate", session_id), 0),
        (("sweep",), 0),
        (("recover",), 0),
        (("verify",), 0),
        (("purge", "--ended-before", "1s"), 0),
    ):
        command = program(*words, "--store", url, "--lifecycle", lifecycle)
        done = ran(*command, cwd=EXAMPLES)
        assert done.returncode == code, done.stderr
        assert done.stdout or words[0] in {"sweep", "recover"}
    named = ran(*program("counts", "--store", url), cwd=EXAMPLES, SESSION_FSM_LIFECYCLE=lifecycle)
    assert [line.split() for line in named.stdout.splitlines()[1:]] == [
        [status, "0"] for status in worked(name).statuses
    ]


# --- as values -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIFECYCLES)
@pytest.mark.parametrize("format", FORMATS)
def test_examples_are_drawn_in_every_format(name: str, format: str) -> None:
    """Every format draws the lifecycle; where it is text, it has every status and trigger."""
    lifecycle = worked(name)
    drawn = render(lifecycle, format)
    assert drawn
    assert drawn == render(lifecycle, format)
    if isinstance(drawn, str):
        for word in (*lifecycle.statuses, *lifecycle.triggers):
            assert word in drawn


def test_examples_order_shares_nothing_with_a_session() -> None:
    """The order has no trigger, no status and but one role of ours."""
    assert set(ORDER.triggers).isdisjoint(SESSION_LIFECYCLE.triggers)
    assert set(ORDER.statuses).isdisjoint(SESSION_LIFECYCLE.statuses)
    assert ORDER.roles == {"update": "annotate"}
    assert not any(map(ORDER.holds_tasks, ORDER.statuses))


def test_examples_agent_keeps_what_a_session_has() -> None:
    """The agent has every row and edge of ours, and five edges more."""
    assert set(SESSION_LIFECYCLE.triggers) < set(AGENT.triggers)
    assert set(SESSION_LIFECYCLE.edges) < set(AGENT.edges)
    assert AGENT.roles == SESSION_LIFECYCLE.roles
    assert [status for status in AGENT.statuses if AGENT.holds_tasks(status)] == [
        *("active", "terminating", "waiting_for_input"),
    ]
    for status in AGENT.live:
        assert AGENT.way_out(status)[-1].target in AGENT.final


# --- the agent -------------------------------------------------------------------------------


def asking(agents: SessionManager, session_id: str = "a") -> Session:
    """Make an agent that has asked in the middle of a task."""
    agents.create(session_id, config={"features": ["code_analysis"]})
    agents.begin_task(session_id, "build")
    return agents.fire(session_id, "ask", text="May I?", of=["ana"])


@pytest.fixture
def agents(house: House) -> SessionManager:
    """A manager of agents."""
    return house.open(lifecycle=AGENT)


@pytest.fixture
def orders(house: House) -> SessionManager:
    """A manager of orders."""
    return house.open(lifecycle=ORDER)


def assert_sent_and_back(manager: SessionManager, session_id: str) -> None:
    """Check that a session is the same after it was written and read, and that all is well."""
    state = manager.get(session_id).state
    assert loads(dumps(state, manager.lifecycle), manager.lifecycle) == state
    assert manager.verify().problems == ()


def test_examples_agent_asks_and_is_answered(house: House, agents: SessionManager) -> None:
    """Only who was asked may answer; tasks go on meanwhile, and may end."""
    waiting = asking(agents)
    assert (waiting.status, waiting.state.active_tasks) == ("waiting_for_input", ("build",))
    assert agents.next_deadline() == house.clock.now() + timedelta(hours=1)
    assert_sent_and_back(agents, "a")
    with pytest.raises(GuardRejectedError) as caught:
        agents.fire("a", "answer", text="yes", by="mallory")
    assert caught.value.refusal == agents.explain("a", "answer", text="yes", by="mallory")
    assert [failed.reason for failed in caught.value.refusal.failed_guards] == [
        "'mallory' was not asked; ana may answer"
    ]
    with pytest.raises(InvalidTransitionError):
        agents.begin_task("a", "test")
    answered = agents.fire("a", "answer", text="yes", by="ana")
    assert (answered.status, answered.state.active_tasks) == ("active", ("build",))
    assert answered.state.metadata["answer"] == {"text": "yes", "by": "ana"}
    agents.transition("a", "waiting_for_input", text="And now?", of=["ben"])
    assert agents.end_task("a", "build").status == "waiting_for_input"


@pytest.mark.parametrize("of", ["ana", [5], None])
def test_examples_agent_judges_its_own_arguments(agents: SessionManager, of: object) -> None:
    """An argument that is no good is the same mistake to a dry run and to a move."""
    before = agents.create("a")
    for ask in (agents.explain, agents.fire):
        with pytest.raises(StateInvalidError, match="of: expected a list of names"):
            ask("a", "ask", text="?", of=of)
    with pytest.raises(GuardRejectedError, match="nobody is asked"):
        agents.fire("a", "ask", text="?", of=[])
    assert agents.get("a") == before


def test_examples_agent_needs_its_feature(agents: SessionManager) -> None:
    """A guard from the factory follows the configuration."""
    agents.create("a")
    with pytest.raises(GuardRejectedError, match="'code_analysis' is not enabled"):
        agents.fire("a", "analyse_code", path="src")
    agents.update("a", config={"features": ["code_analysis"]})
    analysed = agents.fire("a", "analyse_code", path="src")
    assert analysed.state.metadata["analysed"] == ["src"]


def test_examples_agent_is_suspended_and_forgotten(house: House, agents: SessionManager) -> None:
    """Both deadlines fire by themselves; what a question held is let go of, and remembered."""
    asking(agents)
    asking(agents, "b")
    house.clock.advance(minutes(60))
    assert [event.trigger for event in agents.sweep().fired] == ["nobody_answers"] * 2
    assert agents.get("a").state.metadata["interrupted"] == ["build"]
    assert work_left(agents, "a") == set()
    assert_sent_and_back(agents, "a")
    with pytest.raises(InvalidTransitionError):
        agents.touch("a")
    assert agents.fire("b", "restore").status == "active"
    assert agents.transition("b", "suspended").status == "suspended"
    house.clock.advance(timedelta(days=7))
    assert [event.trigger for event in agents.sweep().fired] == ["forget", "finish"] * 2
    assert agents.get("a").status == agents.get("b").status == "terminated"


def end(manager: SessionManager, verb: str, session_id: str, cause: str) -> Session:
    """End a session by a verb, and give up on its tasks when the verb waits for them."""
    if verb == "fail":
        return manager.fail(session_id, cause)
    manager.terminate(session_id, reason=cause, wait=False)
    deadline = manager.next_deadline()
    if deadline is not None:
        manager.sweep(at=deadline)
    return manager.get(session_id)


@pytest.mark.parametrize("verb", ["terminate", "fail"])
@pytest.mark.parametrize("where", ["active", "waiting_for_input", "suspended"])
def test_examples_agent_ends_from_anywhere(agents: SessionManager, where: str, verb: str) -> None:
    """From each status the ending rows lead to the end; tasks that are dropped are named."""
    if where == "waiting_for_input":
        asking(agents)
    else:
        agents.create("a")
    if where == "suspended":
        agents.fire("a", "suspend")
    ended = end(agents, verb, "a", "enough")
    assert ended.status == "terminated"
    assert ("1 task dropped: build" in str(ended.state.error)) is (where == "waiting_for_input")
    left = [
        event for event in agents.history("a") if event.source == where and event.kind == "moved"
    ]
    assert [event.trigger for event in left][-1] == "terminate"
    assert_sent_and_back(agents, "a")


@pytest.mark.parametrize("verb", ["terminate", "fail"])
def test_examples_agent_ends_while_it_starts(agents: SessionManager, verb: str) -> None:
    """An agent that is ended during its start is aborted, and never active."""
    with pytest.raises(SessionStartError):
        agents.create("a", start=lambda _: end(agents, verb, "a", "enough"))
    assert triggers(agents, "a") == [None, "abort"]
    assert agents.get("a").state.error == "enough"


def test_examples_agent_is_recovered(house: House, agents: SessionManager) -> None:
    """Tasks of a dead owner are dropped, in the middle of a question too, which stays asked."""
    dead = house.open(lifecycle=AGENT)
    asking(dead)
    asking(agents, "mine")
    dead.close()
    assert agents.recover() == RecoveryReport(released=("a",), dropped_tasks=("build",))
    assert agents.get("a").status == "waiting_for_input"
    assert agents.get("mine").state.active_tasks == ("build",)
    assert agents.fire("a", "answer", text="yes", by="ana").status == "active"


# --- the order -------------------------------------------------------------------------------


def order_in(orders: SessionManager, status: str, session_id: str = "o") -> Session:
    """Make an order that stands in a status on its way to the customer."""
    order = orders.create(session_id)
    way: tuple[tuple[str, Callable[[], Session]], ...] = (
        ("cart", lambda: orders.fire(session_id, "put_in", sku="tea", cents=450)),
        ("placed", lambda: orders.fire(session_id, "check_out")),
        ("paid", lambda: orders.fire(session_id, "pay", cents=450)),
        ("shipped", lambda: orders.fire(session_id, "ship", parcel="P1")),
        ("delivered", lambda: orders.fire(session_id, "deliver")),
    )
    for reached, move in way:
        order = move()
        if reached == status:
            return order
    raise AssertionError(status)


@pytest.mark.parametrize("status", ["cart", "placed", "paid", "shipped", "delivered"])
def test_examples_order_goes_its_way(orders: SessionManager, status: str) -> None:
    """An order gets to each status by its own triggers, and is the same after it was sent."""
    assert order_in(orders, status).status == status
    assert_sent_and_back(orders, "o")
    assert orders.counts()[status] == 1


ENDS = {
    "cart": ["cancel"],
    "placed": ["cancel"],
    "paid": ["refund"],
    "shipped": ["recall", "take_back"],
}


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("verb", ["terminate", "fail"])
def test_examples_order_ends_by_its_own_rows(
    orders: SessionManager, status: str, verb: str
) -> None:
    """Whoever ends an order cancels it; what was paid goes back, and no order is delivered so."""
    order_in(orders, status)
    ended = end(orders, verb, "o", "the warehouse burnt down")
    assert ended.status == "cancelled"
    assert triggers(orders, "o")[-len(ENDS[status]) :] == ENDS[status]
    assert ended.state.metadata.get("paid_cents", 0) == 0
    if verb == "fail":
        assert ended.state.error == "the warehouse burnt down"
    assert end(orders, verb, "o", "again") == ended
    assert_sent_and_back(orders, "o")


def test_examples_order_deadlines_fire_by_themselves(house: House, orders: SessionManager) -> None:
    """A cart lives for a week from its last item, an order for three days from its check-out."""
    order_in(orders, "cart", "cart")
    order_in(orders, "placed", "placed")
    house.clock.advance(timedelta(days=3))
    orders.fire("cart", "put_in", sku="cup", cents=1)
    assert [(event.session_id, event.trigger) for event in orders.sweep().fired] == [
        ("placed", "lapse")
    ]
    assert orders.next_deadline() == house.clock.now() + timedelta(days=7)
    house.clock.advance(timedelta(days=7))
    assert [(event.session_id, event.trigger) for event in orders.sweep().fired] == [
        ("cart", "clear")
    ]
    assert orders.next_deadline() is None


def test_examples_order_judges_payments(orders: SessionManager) -> None:
    """A wrong amount is refused, what is no amount is the caller's mistake; nothing changes."""
    placed = order_in(orders, "placed")
    with pytest.raises(GuardRejectedError, match="5 cents are not the 450 that it costs"):
        orders.fire("o", "pay", cents=5)
    for cents in (True, "450", None):
        with pytest.raises(StateInvalidError, match="cents: expected an integer"):
            orders.fire("o", "pay", cents=cents)
        with pytest.raises(StateInvalidError, match="cents: expected an integer"):
            orders.explain("o", "pay", cents=cents)
    with pytest.raises(TypeError, match="needs the argument 'cents'"):
        orders.fire("o", "pay")
    assert orders.get("o") == placed


def test_examples_order_holds_twenty_items(orders: SessionManager) -> None:
    """The guard from the example's own factory counts what is in the cart."""
    orders.create("o")
    for number in range(20):
        orders.fire("o", "put_in", sku=f"tea-{number}", cents=1)
    with pytest.raises(GuardRejectedError) as caught:
        orders.fire("o", "put_in", sku="cup", cents=0)
    assert [failed.reason for failed in caught.value.refusal.failed_guards] == [
        "a cart holds 20 items",
        "nothing is sold for less than a cent",
    ]


def test_examples_order_lacks_the_verbs_of_a_session(orders: SessionManager) -> None:
    """A verb that plays no role here says so."""
    before = orders.create("o")
    for verb in (orders.touch, orders.start_conversation):
        with pytest.raises(LifecycleError, match="role"):
            verb("o")
    with pytest.raises(LifecycleError, match="role"):
        orders.begin_task("o", "t")
    assert orders.update("o", metadata={"note": "ring twice"}).revision == before.revision + 1


# --- when a process dies -----------------------------------------------------------------------

WORKS = """
    import sys

    sys.path.insert(0, "examples")
    from agent import AGENT
    from order import ORDER

    from session_fsm import SessionManager

    class Tracker:
        def stop(self):
            pass

    agents = SessionManager(sys.argv[1], lifecycle=AGENT)
    orders = SessionManager(sys.argv[1], lifecycle=ORDER)
    for name in ("asking", "working"):
        agents.create(name)
        agents.begin_task(name, "build")
    agents.fire("asking", "ask", text="May I?", of=["ana"])
    for name in ("kept", "sent_back"):
        orders.create(name, start=lambda _: Tracker())
        orders.fire(name, "put_in", sku="tea", cents=450)
        orders.fire(name, "check_out")
        orders.fire(name, "pay", cents=450)
        orders.fire(name, "ship", parcel="P1")
    print("at work", flush=True)

    def hang(_):
        print("starting", flush=True)
        input()

    agents.create("starting", start=hang)
"""
"""A program that has agents at work, orders whose parcels it tracks, and a start under way."""


def test_examples_are_recovered_when_their_process_dies(tmp_path: Path) -> None:
    """What a killed process left is cleared away by the ending rows, and nothing before that."""
    url = url_of(tmp_path / "x.db")
    with (
        Program(WORKS, url) as works,
        SessionManager(url, lifecycle=AGENT) as agents,
        SessionManager(url, lifecycle=ORDER) as orders,
    ):
        assert [works.hear(), works.hear()] == ["at work", "starting"]
        assert agents.recover() == orders.recover() == RecoveryReport()
        leaving = orders.terminate("sent_back", wait=False)
        assert leaving.status == "returning"
        assert Work("worker") in work_left(orders, "sent_back")
        works.kill()
        report = agents.recover()
        assert report.ended == ("starting",)
        assert sorted(report.released) == ["asking", "working"]
        assert report.dropped_tasks == ("build", "build")
        assert agents.get("starting").status == "terminated"
        assert agents.get("starting").state.error == "the owner died during the start"
        assert agents.get("asking").status == "waiting_for_input"
        assert agents.get("working").status == "idle"
        assert orders.recover() == RecoveryReport(ended=("sent_back",), released=("kept",))
        assert orders.get("sent_back").status == "cancelled"
        assert triggers(orders, "sent_back")[-2:] == ["recall", "take_back"]
        assert orders.get("kept").status == "shipped"
        assert agents.recover() == orders.recover() == RecoveryReport()
        assert agents.verify().problems == orders.verify().problems == ()
