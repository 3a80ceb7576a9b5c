"""Lifecycles that contradict themselves are refused when they are built."""

from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

import attrs
import pytest
from orders import HOLDING, LATER, NO, ORDER, no, order, rows_but

from session_fsm.errors import LifecycleError
from session_fsm.lifecycle import LIVE, ROLES, Lifecycle, Row


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
