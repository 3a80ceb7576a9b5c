"""Lifecycles that derive from others."""

from collections.abc import Callable
from datetime import timedelta

import attrs
import pytest
from orders import ORDER, order, rows_but

from session_fsm.errors import LifecycleError
from session_fsm.lifecycle import LIVE, Lifecycle, Row
from session_fsm.table import NO_ACTIVE_TASK, SESSION_LIFECYCLE


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
