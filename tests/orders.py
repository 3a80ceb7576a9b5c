"""The life of an order, which shares no word with a session's: what tests of lifecycles change."""

from datetime import timedelta
from typing import Any

from session_fsm.guards import Attempt, Deadline, Guard, after_grace
from session_fsm.lifecycle import LIVE, Lifecycle, Row


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
