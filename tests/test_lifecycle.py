"""Lifecycles as values: what follows from their rows."""

import copy
from datetime import timedelta
from typing import Any

import attrs
import pytest
from orders import HOLDING, LATER, NO, ORDER, SOME_DAY, order, rows_but

from session_fsm.errors import LifecycleError
from session_fsm.lifecycle import LIVE, Lifecycle, Row, with_graces
from session_fsm.state import SessionStatus
from session_fsm.table import SESSION_LIFECYCLE

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
    with pytest.raises(LifecycleError, match=r"there is no status \['paid'\]"):
        ORDER.status(["paid"])  # type: ignore[arg-type]  # what is tested


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
