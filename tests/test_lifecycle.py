"""Lifecycles as values: what follows from the rows, what is refused at build, what derives."""

import copy
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

import attrs
import pytest

from session_fsm.errors import LifecycleError
from session_fsm.guards import Attempt, Deadline, Guard, after_grace
from session_fsm.lifecycle import LIVE, ROLES, Lifecycle, Row, with_graces
from session_fsm.state import SessionStatus
from session_fsm.table import NO_ACTIVE_TASK, SESSION_LIFECYCLE


def no(_: Attempt) -> bool:
    """A check that lets nothing pass."""
    return False


NO = Guard("no", no, "never")
SOME_DAY = Deadline("some day", lambda shown: shown.at + timedelta(days=1))
LATER = after_grace("patience")


def order(**changes: Any) -> Lifecycle:
    """The life of an order, which shares no word with a session's, with some parts others."""
    parts: dict[str, Any] = {
        "statuses": ("cart", "paid", "shipped", "delivered", "cancelled"),
        "initial": "cart",
        "rows": (
            Row("pay", "cart", "paid", guards=[NO], required="amount", why="money came"),
            Row("abandon", "cart", "cancelled", deadline=LATER, why="nobody came back"),
            Row("ship", "paid", "shipped"),
            Row("refund", "paid", "cancelled", ending=True),
            Row("cancel", "cart", "cancelled", ending=True, optional=["reason_code"]),
            Row("deliver", "shipped", "delivered", ending=True),
            Row("note", LIVE, None, optional="metadata"),
        ),
        "roles": {"update": "note", "activate": "ship"},
        "graces": {"patience": 3600},
        "name": "order",
    }
    return Lifecycle(**parts | changes)


ORDER = order()


def rows_but(*others: Row) -> tuple[Row, ...]:
    """The rows of the order, each replaced by the other one with its trigger, and new ones."""
    by_trigger = {row.trigger: row for row in others}
    known = {row.trigger for row in ORDER.rows}
    added = tuple(row for row in others if row.trigger not in known)
    return tuple(by_trigger.get(row.trigger, row) for row in ORDER.rows) + added


HOLDING = rows_but(
    Row("refund", "paid", "cancelled", effect=lambda _: {"active_tasks": ()}, ending=True),
    Row("unpack", "paid", None, required="task_id"),
)
"""With a role for `unpack`, an order that is paid may hold tasks, and `ship` would take them on."""


# --- what follows from the rows --------------------------------------------------------------


def test_lifecycle_tells_what_its_rows_say() -> None:
    """Final and live statuses, triggers, edges and rows are read from the table, in its order."""
    assert ORDER.final == ("delivered", "cancelled")
    assert ORDER.live == ("cart", "paid", "shipped")
    assert ORDER.triggers == ("pay", "abandon", "ship", "refund", "cancel", "deliver", "note")
    assert ORDER.edges == (
        ("cart", "paid"),
        ("cart", "cancelled"),
        ("paid", "shipped"),
        ("paid", "cancelled"),
        ("shipped", "delivered"),
    )
    assert [row.trigger for row in ORDER.leaving("cart")] == ["pay", "abandon", "cancel", "note"]
    assert ORDER.leaving("delivered") == ORDER.leaving("lost") == ()
    assert [row.trigger for row in ORDER.timed("cart")] == ["abandon"]
    assert ORDER.timed("paid") == ()
    assert len(list(ORDER.moves())) == 6 + 3


def test_lifecycle_finds_rows() -> None:
    """A row is found by trigger and status; where there is none, None."""
    pay = ORDER.rows[0]
    assert ORDER.find("pay", "cart") is pay
    assert ORDER.find("pay", "paid") is None
    assert ORDER.find("nonsense", "cart") is None
    assert ORDER.find("note", "paid") is ORDER.find("note", "shipped") is ORDER.rows[-1]
    assert ORDER.find("note", "delivered") is None


def test_lifecycle_live_means_all_that_are_not_final() -> None:
    """A row of LIVE sources leaves every status that is not final, and no other."""
    note = ORDER.rows[-1]
    assert note.sources is LIVE
    assert ORDER.sources(note) == ORDER.live
    assert str(note) == "row 'note' (LIVE -> stays)"
    assert str(ORDER.rows[2]) == "row 'ship' (paid -> shipped)"


def test_lifecycle_knows_its_words() -> None:
    """A status is recognised by its word, and its own member is given for it."""
    assert "paid" in ORDER
    assert "lost" not in ORDER
    assert 5 not in ORDER
    assert ORDER.status("paid") == "paid"
    assert SESSION_LIFECYCLE.status("idle") is SESSION_LIFECYCLE.word("idle") is SessionStatus.IDLE
    assert SESSION_LIFECYCLE.word("lost") == "lost"
    assert SESSION_LIFECYCLE.word(None) is None
    with pytest.raises(LifecycleError, match=r"lifecycle 'order': there is no status 'lost'"):
        ORDER.status("lost")


def test_lifecycle_rows_take_one_word_or_many() -> None:
    """One source and one argument may stand for a tuple of one; the deadline is the last guard."""
    row = Row("go", "a", "b", guards=[NO], deadline=LATER, optional="note")
    assert row == Row("go", ("a",), "b", guards=(NO,), deadline=LATER, optional=["note"])
    assert row.sources == ("a",)
    assert [guard.name for guard in row.conditions] == ["no", "deadline passed"]
    assert Row("go", ["a", "b"], "c").sources == ("a", "b")
    assert "deadline passed" not in repr(row)
    with pytest.raises(TypeError):
        Row("go", "a", "b", [NO])  # type: ignore[call-arg]  # what is tested


def test_lifecycle_by_hand_is_the_one_row_between_two_statuses() -> None:
    """Timed rows are not fired by hand; where nothing leads, there is none."""
    found = ORDER.by_hand("cart", "cancelled")
    assert found is not None
    assert found.trigger == "cancel"
    assert ORDER.by_hand("cart", "shipped") is None
    assert ORDER.by_hand("cart", "cart") is None
    assert ORDER.by_hand("cart", "lost") is ORDER.by_hand("lost", "cart") is None


def test_lifecycle_by_hand_names_both_where_there_are_two() -> None:
    """Two hand-fired rows between two statuses are told by name, and none is chosen."""
    lifecycle = order(rows=rows_but(Row("gift", "cart", "paid")))
    with pytest.raises(LifecycleError) as caught:
        lifecycle.by_hand("cart", "paid")
    assert caught.value.problem == (
        "'pay' and 'gift' both lead from 'cart' to 'paid': fire one by name"
    )
    assert caught.value.lifecycle == "order"


def test_lifecycle_roles_name_triggers() -> None:
    """A role gives its trigger; one that the lifecycle lacks is an error that names it."""
    assert ORDER.role("update") == "note"
    with pytest.raises(LifecycleError, match=r"'order': no trigger plays the role 'begin_task'"):
        ORDER.role("begin_task")


def test_lifecycle_statuses_that_end_tasks_hold_them() -> None:
    """Tasks may be held where the row that ends one leaves; without the role, nowhere."""
    assert not any(map(ORDER.holds_tasks, ORDER.statuses))
    ships = [
        Row("ship", "paid", "shipped", guards=[NO]) if row.trigger == "ship" else row
        for row in HOLDING
    ]
    holding = order(rows=ships, roles={"end_task": "unpack"})
    assert [status for status in holding.statuses if holding.holds_tasks(status)] == ["paid"]


def test_lifecycle_way_out_follows_the_ending_rows() -> None:
    """The way out is the chain of ending rows, empty where the end is reached."""
    assert [row.trigger for row in ORDER.way_out("paid")] == ["refund"]
    assert [row.trigger for row in ORDER.way_out("shipped")] == ["deliver"]
    assert ORDER.way_out("delivered") == ()
    long = order(rows=rows_but(Row("refund", "paid", "shipped", ending=True)))
    assert [row.trigger for row in long.way_out("paid")] == ["refund", "deliver"]
    assert long.drains == frozenset({"shipped"})
    assert ORDER.drains == frozenset()


def test_lifecycle_without_ending_rows_has_no_way_out() -> None:
    """A status without an ending row is an error when asked, not a shortest path."""
    lifecycle = order(rows=rows_but(Row("refund", "paid", "cancelled")))
    with pytest.raises(LifecycleError, match=r"no ending row leads out of 'paid'"):
        lifecycle.way_out("paid")
    with pytest.raises(LifecycleError, match=r"no ending row leads out of 'lost'"):
        lifecycle.way_out("lost")
    assert len(lifecycle.way_out("cart")) == 1


# --- values ----------------------------------------------------------------------------------


def test_lifecycle_is_a_value_that_never_changes() -> None:
    """No later change of what a lifecycle was made of reaches it, and no field can be set."""
    statuses, rows = list(ORDER.statuses), list(ORDER.rows)
    roles, graces = {"update": "note"}, {"patience": 5.0}
    made = order(statuses=statuses, rows=rows, roles=roles, graces=graces)
    statuses.append("lost")
    rows.clear()
    roles["activate"] = "pay"
    graces["patience"] = 6.0
    assert (made.statuses, made.rows) == (ORDER.statuses, ORDER.rows)
    assert made.roles == {"update": "note"}
    assert made.graces == {"patience": timedelta(seconds=5)}
    for field in attrs.fields(Lifecycle):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(made, field.name, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.rows[0].target = "delivered"  # type: ignore[misc]  # what is tested


def test_lifecycle_may_be_a_key_and_be_copied() -> None:
    """A lifecycle hashes by identity; a copy says the same."""
    assert len({ORDER, order()}) == 2
    assert copy.deepcopy(ORDER).fingerprint == ORDER.fingerprint


def test_lifecycle_graces_are_durations_or_seconds() -> None:
    """A grace is given in seconds or as a duration, and may be nothing."""
    assert ORDER.graces == {"patience": timedelta(hours=1)}
    assert order(graces={"patience": timedelta(hours=1)}).graces == ORDER.graces
    assert order(graces={"patience": 0}).graces == {"patience": timedelta(0)}


@pytest.mark.parametrize("grace", ["1 h", None, float("nan"), 1e99])
def test_lifecycle_graces_that_are_no_durations_are_named(grace: Any) -> None:
    """What is neither a duration nor seconds is told with the name of the grace."""
    for derive in (order, ORDER.extend):
        with pytest.raises(LifecycleError, match="'order': the patience grace is no duration: "):
            derive(graces={"patience": grace})


def test_lifecycle_with_graces_changes_those_that_are_there() -> None:
    """Graces are changed by name; one that the lifecycle lacks is an error that names it."""
    assert with_graces(ORDER, {"patience": 5.0}).graces == {"patience": timedelta(seconds=5)}
    assert with_graces(ORDER, {"patience": None, "haste": None}) is ORDER
    with pytest.raises(LifecycleError, match="'order': has no haste grace that could be set"):
        with_graces(ORDER, {"haste": 1.0})


def test_lifecycle_fingerprint_tells_lifecycles_apart() -> None:
    """The fingerprint is the same for the same table, and another for any other move or name."""
    fingerprint = ORDER.fingerprint
    assert fingerprint == order().fingerprint == order(graces={"patience": 1}).fingerprint
    others = [
        order(rows=rows_but(Row("ship", "paid", "delivered"), Row("x", "paid", "shipped"))),
        order(rows=rows_but(Row("ship", "paid", "shipped", guards=[NO]))),
        order(rows=rows_but(Row("ship", "paid", "shipped", activity=True))),
        order(rows=rows_but(Row("refund", "paid", "cancelled"))),
        order(rows=rows_but(Row("abandon", "cart", "cancelled", deadline=SOME_DAY))),
        order(rows=rows_but(Row("gift", "cart", "paid"))),
        order(roles={}),
        order(statuses=("cart", "paid", "shipped", "cancelled", "delivered")),
    ]
    prints = [other.fingerprint for other in others]
    assert len({fingerprint, *prints}) == 1 + len(others)
    assert len(fingerprint) == 64


# --- what is refused at build ----------------------------------------------------------------


class Old(str, Enum):  # noqa: UP042 - what is tested
    """The kind of enumeration that was usual before `StrEnum`; its members print as names."""

    CART = "cart"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        # words
        ({"statuses": (*ORDER.statuses, "cart")}, "a status stands twice"),
        ({"statuses": (*ORDER.statuses, "")}, "status '': 0 characters; 1 to 255 are allowed"),
        ({"statuses": (*ORDER.statuses, " x")}, "status ' x': leading or trailing blank"),
        ({"statuses": (*ORDER.statuses, "a\nb")}, "status 'a\\nb': expected printable"),
        ({"statuses": (*ORDER.statuses, "x" * 256)}, f"status '{'x' * 256}': 256 characters"),
        ({"statuses": (*ORDER.statuses, 5)}, "a status is a str or a StrEnum member, not 5"),
        ({"statuses": (Old.CART,)}, "a status is a str or a StrEnum member, not <Old.CART"),
        ({"statuses": ()}, "the initial status 'cart' is not among the statuses"),
        ({"initial": "lost"}, "the initial status 'lost' is not among the statuses"),
        ({"final": ("delivered", "lost")}, "the final status 'lost' is not among the statuses"),
        ({"graces": {"patience": -1}}, "the patience grace is negative"),
        ({"name": " "}, "a lifecycle has a name, not ' '"),
        ({"name": 5}, "a lifecycle has a name, not 5"),
        # rows
        (
            {"rows": rows_but(Row("ship", "lost", "shipped"))},
            "row 'ship' (lost -> shipped): unknown status 'lost'",
        ),
        (
            {"rows": rows_but(Row("ship", "paid", "lost"))},
            "row 'ship' (paid -> lost): unknown status 'lost'",
        ),
        ({"rows": rows_but(Row("ship", (), "shipped"))}, "row 'ship' ( -> shipped): has no source"),
        (
            {"rows": (*ORDER.rows, Row("ship", ("cart", "paid"), "cancelled"))},
            "row 'ship' (cart, paid -> cancelled) and row 'ship' (paid -> shipped) compete in",
        ),
        (
            {"rows": (*ORDER.rows, Row("note", "paid", "shipped"))},
            "row 'note' (paid -> shipped) and row 'note' (LIVE -> stays) compete in 'paid'",
        ),
        (
            {"rows": rows_but(Row("ship", ("paid", "paid"), "shipped"))},
            "row 'ship' (paid, paid -> shipped) and row 'ship' (paid, paid -> shipped) compete",
        ),
        (
            {"rows": rows_but(Row("return", "delivered", "cancelled")), "final": ["delivered"]},
            "row 'return' (delivered -> cancelled): 'delivered' is final, nothing leaves it",
        ),
        (
            {"rows": rows_but(Row("rate", "delivered", None)), "final": ORDER.final},
            "row 'rate' (delivered -> stays): 'delivered' is final, nothing leaves it",
        ),
        # names
        *(
            (
                {"rows": rows_but(Row(trigger, "cart", "paid"))},
                f"row {trigger!r} (cart -> paid): {trigger!r} can't be a trigger's name",
            )
            for trigger in ("", "two words", "1st", "fire", "state", "revision", "lifecycle")
        ),
        *(
            (
                {"rows": rows_but(Row(trigger, "cart", "paid"))},
                f"row {trigger!r} (cart -> paid): {trigger!r} can't be a trigger's name",
            )
            for trigger in ("_status", "__init__")
        ),
        *(
            (
                {"rows": rows_but(row)},
                f"row 'ship' (paid -> shipped): {argument!r} can't be an argument's name",
            )
            for argument in ("", "two words", "at", "lifecycle", "state", "reason", "self")
            for row in (
                Row("ship", "paid", "shipped", required=argument),
                Row("ship", "paid", "shipped", optional=argument),
            )
        ),
        (
            {
                "rows": rows_but(
                    Row("ship", "paid", "shipped", guards=[attrs.evolve(NO, needs=("van",))])
                )
            },
            "row 'ship' (paid -> shipped): guard 'no' needs van, not required by it",
        ),
        (
            {
                "rows": rows_but(
                    Row(
                        *("ship", "paid", "shipped"),
                        guards=[attrs.evolve(NO, needs=("van",))],
                        optional="van",
                    )
                )
            },
            "row 'ship' (paid -> shipped): guard 'no' needs van, not required by it",
        ),
        # timed rows
        (
            {"rows": rows_but(Row("abandon", "cart", "cancelled", deadline=LATER, required="x"))},
            "row 'abandon' (cart -> cancelled): fires by itself, nobody could give it its argum",
        ),
        (
            {"rows": rows_but(Row("abandon", "cart", "cancelled", deadline=LATER, ending=True))},
            "row 'abandon' (cart -> cancelled): fires by itself, so nobody can go this way out",
        ),
        ({"graces": {}}, "row 'abandon' (cart -> cancelled): there is no grace named 'patience'"),
        # roles
        ({"roles": {"update": "nonsense"}}, "the role 'update' names 'nonsense', which no row has"),
        ({"roles": {"paint": "note"}}, f"'paint' is no role; roles are {', '.join(ROLES)}"),
        (
            {"rows": rows_but(Row("ship", "paid", "shipped", required="van"))},
            "row 'ship' (paid -> shipped): needs van, which the role 'activate' does not give",
        ),
        (
            {"roles": {"begin_task": "ship"}},
            "row 'ship' (paid -> shipped): does not take task_id, which the role 'begin_task' giv",
        ),
        # tasks
        (
            {"rows": HOLDING, "roles": {"end_task": "unpack"}},
            "row 'ship' (paid -> shipped): 'paid' may hold tasks, 'shipped' may not: it needs a gu",
        ),
        # the graph
        ({"final": ()}, "no status is final"),
        (
            {"statuses": (*ORDER.statuses, "lost"), "final": (*ORDER.final, "lost")},
            "'lost' can't be reached from 'cart'",
        ),
        (
            {"rows": rows_but(Row("pay", "cart", None))},
            "'paid' can't be reached from 'cart'",
        ),
        (
            {"rows": rows_but(Row("deliver", "shipped", "delivered", guards=[NO]))},
            "'shipped' has no way to a final status by unguarded or timed rows (its ways out: row",
        ),
        (
            {
                "statuses": (*ORDER.statuses, "lost"),
                "rows": rows_but(Row("lose", "shipped", "lost")),
                "final": ORDER.final,
            },
            "'lost' has no way to a final status by unguarded or timed rows (its ways out: none)",
        ),
        # ways out
        (
            {"rows": rows_but(Row("note", LIVE, None, ending=True))},
            "row 'note' (LIVE -> stays): an ending row leads somewhere",
        ),
        (
            {"rows": rows_but(Row("refund", "paid", "cancelled", ending=True, required="by"))},
            "row 'refund' (paid -> cancelled): is ending, nobody could give it its arguments",
        ),
        (
            {"rows": rows_but(Row("ship", "paid", "shipped", ending=True))},
            "row 'ship' (paid -> shipped) and row 'refund' (paid -> cancelled) are both the way",
        ),
        (
            {
                "rows": rows_but(
                    Row("refund", "paid", "shipped", ending=True),
                    Row("deliver", "shipped", "delivered"),
                )
            },
            "row 'refund' (paid -> shipped) is ending, and leads nowhere final",
        ),
        (
            {
                "rows": rows_but(
                    Row("refund", "paid", "shipped", ending=True),
                    Row("deliver", "shipped", "delivered"),
                    Row("back", "shipped", "paid", ending=True),
                )
            },
            "row 'back' (shipped -> paid) is ending, and leads nowhere final",
        ),
        (
            {
                "rows": rows_but(
                    Row("cancel", "cart", "paid", ending=True),
                    Row("refund", "paid", "shipped", ending=True),
                    Row("deliver", "shipped", "delivered"),
                    Row("back", "shipped", "paid", ending=True),
                    Row("give_up", "shipped", "cancelled"),
                )
            },
            "row 'back' (shipped -> paid) is ending, and leads nowhere final",
        ),
    ],
)
def test_lifecycle_contradictions_are_named(changes: dict[str, Any], problem: str) -> None:
    """A lifecycle that contradicts itself is not built; the error names the row, or the word."""
    with pytest.raises(LifecycleError) as caught:
        order(**changes)
    assert caught.value.lifecycle == changes.get("name", "order")
    assert caught.value.problem[: len(problem)] == problem


@pytest.mark.parametrize(
    "ship",
    [
        Row("ship", "paid", "shipped", guards=NO),
        Row("ship", "paid", "shipped", effect=lambda _: {"active_tasks": ()}),
    ],
)
def test_lifecycle_tasks_may_end_with_a_move(ship: Row) -> None:
    """A guard may see to it that there is no task, an effect may drop them: nobody can tell."""
    rows = [ship if row.trigger == "ship" else row for row in HOLDING]
    assert order(rows=rows, roles={"end_task": "unpack"}).holds_tasks("paid")


def test_lifecycle_updates_may_need_arguments() -> None:
    """Whoever updates names what is changed, so the row may ask for it."""
    note = Row("note", LIVE, None, required="metadata")
    assert order(rows=rows_but(note)).role("update") == "note"


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"guards": [no]}, "a function is no Guard; `guard` makes one of a function"),
        ({"guards": (NO, "no")}, "a str is no Guard"),
        ({"deadline": timedelta(days=1)}, "a timedelta is no Deadline"),
        ({"effect": {"error": "lost"}}, "a dict is no function of an attempt"),
    ],
)
def test_lifecycle_rows_are_made_of_their_parts(parts: dict[str, Any], problem: str) -> None:
    """What is no guard, deadline or effect is told when the row is made, and the row is named."""
    with pytest.raises(TypeError) as caught:
        Row("ship", "paid", "shipped", **parts)
    assert str(caught.value).startswith(f"row 'ship' (paid -> shipped): {problem}")


def test_lifecycle_rows_take_one_guard_or_many() -> None:
    """One guard may stand for a tuple of one."""
    assert Row("ship", "paid", "shipped", guards=NO).guards == (NO,)


def test_lifecycle_timed_rows_are_a_way_to_the_end() -> None:
    """A status whose only way out is timed is no dead end, guarded though it is."""
    deliver = Row("deliver", "shipped", "delivered", guards=[NO], deadline=LATER)
    assert order(rows=rows_but(deliver)).find("deliver", "shipped") == deliver


def test_lifecycle_of_one_status_is_the_least() -> None:
    """A life that is over as it begins is no contradiction."""
    only = Lifecycle(statuses=["done"], initial="done", rows=[])
    assert (only.final, only.live, only.edges, only.triggers) == (("done",), (), (), ())


def test_lifecycle_words_may_be_members() -> None:
    """The statuses may be a StrEnum, and rows may name them by member or by word."""

    class Light(StrEnum):
        RED = "red"
        GREEN = "green"
        OFF = "off"

    rows = [Row("go", Light.RED, "green"), Row("stop", "green", Light.RED), Row("end", LIVE, "off")]
    lights = Lifecycle(statuses=Light, initial="red", rows=rows, final="off")
    assert lights.final == ("off",)
    assert lights.edges == (("red", "green"), ("red", "off"), ("green", "red"), ("green", "off"))
    assert lights.status("green") is Light.GREEN


# --- what derives ----------------------------------------------------------------------------


def test_lifecycle_extend_adds_to_what_is_there() -> None:
    """Statuses, rows, roles, graces and a name are added; the original stays as it was."""
    waiting = SESSION_LIFECYCLE.extend(
        statuses=["waiting_for_input"],
        rows=[
            Row("ask", "active", "waiting_for_input", guards=[NO_ACTIVE_TASK]),
            Row("answer", "waiting_for_input", "active", activity=True),
            Row("terminate", "waiting_for_input", "terminating", ending=True),
        ],
        graces={"stop": 1},
        name="asking",
    )
    assert waiting.statuses == (*SESSION_LIFECYCLE.statuses, "waiting_for_input")
    assert waiting.rows[: len(SESSION_LIFECYCLE.rows)] == SESSION_LIFECYCLE.rows
    assert [row.trigger for row in waiting.way_out("waiting_for_input")] == ["terminate", "finish"]
    assert waiting.graces == {"start": timedelta(seconds=60), "stop": timedelta(seconds=1)}
    assert waiting.final == SESSION_LIFECYCLE.final
    assert waiting.roles == SESSION_LIFECYCLE.roles
    assert waiting.name == "asking"
    assert SESSION_LIFECYCLE.graces["stop"] == timedelta(seconds=10)
    assert "waiting_for_input" not in SESSION_LIFECYCLE


def test_lifecycle_extend_gives_live_rows_the_new_statuses() -> None:
    """A row of LIVE sources leaves the statuses that are added too."""
    longer = ORDER.extend(
        statuses=["lost"], rows=[Row("lose", "shipped", "lost"), Row("find", "lost", "shipped")]
    )
    assert longer.find("note", "lost") is ORDER.find("note", "paid")


@pytest.mark.parametrize(
    ("added", "ours"),
    [
        (Row("note", "lost", None, why="another"), ("cart", "paid", "shipped")),
        (Row("note", ("lost", "cart"), None, why="another"), ("paid", "shipped")),
        (Row("note", LIVE, None, why="another"), ()),
        (Row("note", ("cart", "paid", "shipped", "lost"), None, why="another"), ()),
        (Row("note", "paid", None, why="another"), ("cart", "shipped", "lost")),
    ],
)
def test_lifecycle_extend_replaces_rows_source_by_source(added: Row, ours: tuple[str, ...]) -> None:
    """A new row takes the place of ours for its sources alone, a status that is added included."""
    rows = [Row("lose", "shipped", "lost"), Row("find", "lost", "shipped"), added]
    longer = ORDER.extend(statuses=["lost"], rows=rows)
    for status in longer.live:
        found = longer.find("note", status)
        assert found is not None
        assert (found.why == "") is (status in ours)


def test_lifecycle_extend_replaces_explicit_sources_too() -> None:
    """Of a row with two sources, the one that is not named again stays."""
    other = Row("terminate", "idle", "terminating", ending=True, why="quietly")
    extended = SESSION_LIFECYCLE.extend(rows=[other])
    kept = extended.find("terminate", "active")
    assert extended.find("terminate", "idle") == other
    assert kept is not None
    assert kept.sources == ("active",)
    assert kept.why == "asked for, or the worker died"


def test_lifecycle_extend_adds_final_statuses() -> None:
    """A status may be added as final; what was final stays so."""
    longer = ORDER.extend(statuses=["lost"], rows=[Row("lose", LIVE, "lost")], final=["lost"])
    assert longer.final == ("delivered", "cancelled", "lost")
    assert longer.find("lose", "shipped") is not None
    with pytest.raises(LifecycleError, match=r"row 'revive' .*'cancelled' is final"):
        ORDER.extend(rows=[Row("revive", "cancelled", "cart")])
    with pytest.raises(LifecycleError, match=r"'shipped' is final, nothing leaves it"):
        ORDER.extend(final=["shipped"])


def test_lifecycle_extend_gives_roles_to_other_triggers() -> None:
    """Roles are added, or given to another trigger."""
    extended = ORDER.extend(roles={"update": "ship", "touch": "note"})
    assert extended.roles == {"update": "ship", "activate": "ship", "touch": "note"}


def test_lifecycle_extend_widens_rows() -> None:
    """A row of ours may be fired from more statuses; its other parts and its place stay."""
    wider = ORDER.extend(
        statuses=["lost"],
        rows=[Row("lose", "shipped", "lost")],
        also_from={"refund": "lost", "ship": ("cart",)},
    )
    refund = wider.find("refund", "lost")
    assert refund is wider.find("refund", "paid")
    assert refund is not None
    assert refund.sources == ("paid", "lost")
    assert attrs.evolve(refund, sources="paid") == ORDER.find("refund", "paid")
    assert [row.trigger for row in wider.way_out("lost")] == ["refund"]
    assert wider.triggers == (*ORDER.triggers, "lose")
    assert wider.find("ship", "cart") is not None


def test_lifecycle_without_statuses_lacks_what_leads_there() -> None:
    """A status goes with the rows that lead to it, and as a source; with the roles that lose."""
    less = SESSION_LIFECYCLE.without(statuses="idle", name="restless")
    assert less.statuses == ("initializing", "active", "terminating", "terminated")
    assert set(SESSION_LIFECYCLE.triggers).difference(less.triggers) == {"go_idle", "resume"}
    assert set(SESSION_LIFECYCLE.roles).difference(less.roles) == {"rest", "wake"}
    assert less.find("touch", "active") is not None
    assert less.edges == tuple(pair for pair in SESSION_LIFECYCLE.edges if "idle" not in pair)
    assert order(rows=rows_but(Row("pay", "cart", "paid"))).without(
        statuses=["cancelled"]
    ).final == ("delivered",)


def test_lifecycle_extend_with_nothing_says_the_same() -> None:
    """A lifecycle that is extended by nothing has the same table."""
    for lifecycle in (ORDER.extend(rows=[Row("update", LIVE, None)]), SESSION_LIFECYCLE):
        assert lifecycle.extend().fingerprint == lifecycle.fingerprint
        assert lifecycle.extend(name="other").rows == lifecycle.rows
        assert lifecycle.extend().name == lifecycle.without("update").name == lifecycle.name


def test_lifecycle_without_lacks_rows_and_roles() -> None:
    """The rows and roles of the triggers are gone, the rest stays."""
    less = ORDER.without("note", "abandon", name="curt")
    assert less.triggers == ("pay", "ship", "refund", "cancel", "deliver")
    assert less.roles == {"activate": "ship"}
    assert less.name == "curt"
    assert less.final == ORDER.final
    assert ORDER.without().fingerprint == ORDER.fingerprint


@pytest.mark.parametrize(
    ("derive", "problem"),
    [
        (lambda: ORDER.without("nonsense", "note", "abc"), "there is no trigger 'abc', 'nonsense'"),
        (lambda: ORDER.without(statuses=["x", "cart"]), "there is no status 'x'"),
        (lambda: ORDER.without(statuses="cart"), "the initial status 'cart' is not among the"),
        (lambda: ORDER.without(statuses="shipped"), "'delivered' can't be reached from 'cart'"),
        (
            lambda: ORDER.extend(also_from={"note": "cart"}),
            "row 'note' (LIVE -> stays): may be fired from every live status already",
        ),
        (lambda: ORDER.extend(also_from={"x": "cart"}), "0 rows have the trigger 'x', not one"),
        (
            lambda: order(rows=rows_but(), roles={}).extend(also_from={"pay": "cart"}),
            "row 'pay' (cart, cart -> paid) and row 'pay' (cart, cart -> paid) compete in 'cart'",
        ),
        (
            lambda: ORDER.extend(rows=[Row("pay", "shipped", None)]).extend(
                also_from={"pay": "paid"}
            ),
            "2 rows have the trigger 'pay', not one",
        ),
        (lambda: ORDER.without("deliver"), "'delivered' can't be reached from 'cart'"),
        (lambda: ORDER.extend(statuses=["paid"]), "a status stands twice"),
        (lambda: ORDER.extend(statuses=["lost"]), "'lost' can't be reached from 'cart'"),
        (lambda: ORDER.extend(graces={"patience": -1}), "the patience grace is negative"),
        (lambda: ORDER.extend(roles={"touch": "x"}), "the role 'touch' names 'x'"),
    ],
)
def test_lifecycle_derived_ones_are_checked(derive: Callable[[], Lifecycle], problem: str) -> None:
    """A lifecycle that derives from another is checked like any."""
    with pytest.raises(LifecycleError) as caught:
        derive()
    assert caught.value.problem.startswith(problem)


def test_lifecycle_without_its_ending_row_has_no_way_out() -> None:
    """A status that a timed row alone leaves is no contradiction, and nothing ends it by hand."""
    lifecycle = SESSION_LIFECYCLE.without("terminate")
    with pytest.raises(LifecycleError, match=r"no ending row leads out of 'active'"):
        lifecycle.way_out("active")
    assert [row.trigger for row in lifecycle.way_out("terminating")] == ["finish"]
