"""The life of an order: a lifecycle of its own, which shares no word with that of a session.

    python examples/order.py [STORE]

STORE is a URL such as `sqlite:///orders.db`; without one, the orders live in memory. What is left
in a file can be looked into, from this directory:

    session-fsm list --all --store sqlite:///orders.db --lifecycle order:ORDER

A cart that nobody checks out is cleared after a week, an order that nobody pays after three days.
Whoever ends an order, be it the customer, a failure, or the recovery of what a dead process left,
goes the way of the rows marked `ending`: what was shipped is recalled and taken back. No order
"ends" by being delivered.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from session_fsm import (
    LIVE,
    Attempt,
    Deadline,
    Guard,
    Lifecycle,
    Row,
    SessionManager,
    StateInvalidError,
    TransitionError,
    after_grace,
    guard,
)
from session_fsm.clock import ManualClock

CART_DAYS: Final = 7


class OrderStatus(StrEnum):
    """Where an order stands."""

    CART = "cart"
    PLACED = "placed"
    PAID = "paid"
    SHIPPED = "shipped"
    RETURNING = "returning"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


CART, PLACED, PAID, SHIPPED, RETURNING, DELIVERED, CANCELLED = OrderStatus

# --- what an order knows, kept in its metadata ---------------------------------------------------


def total_cents(attempt: Attempt) -> int:
    """Return what the items of an order cost, in cents."""
    return sum(item["cents"] for item in attempt.state.metadata.get("items", ()))


def _with(attempt: Attempt, **more: Any) -> Mapping[str, Any]:
    return {"metadata": {**attempt.state.metadata, **more}}


# --- guards: plain functions with a name and a reason --------------------------------------------


def _cents(attempt: Attempt) -> int:
    cents = attempt.arguments["cents"]
    if type(cents) is int:
        return cents
    # No refusal, which another amount or a later time would mend: the caller has made a mistake.
    raise StateInvalidError(problems=(f"cents: expected an integer, got {cents!r}",))


@guard("the cart is empty")
def has_items(attempt: Attempt) -> bool:
    """Let nobody check out without anything to buy."""
    return bool(attempt.state.metadata.get("items"))


@guard(
    lambda attempt: f"{_cents(attempt)} cents are not the {total_cents(attempt)} that it costs",
    needs="cents",
)
def exact_amount(attempt: Attempt) -> bool:
    """Take neither more nor less than what the order costs."""
    return _cents(attempt) == total_cents(attempt)


@guard("nothing is sold for less than a cent", needs="cents")
def has_price(attempt: Attempt) -> bool:
    """Take no item for nothing."""
    return _cents(attempt) > 0


def at_most(items: int) -> Guard:
    """Return the guard that lets a cart hold so many items."""

    def check(attempt: Attempt) -> bool:
        return len(attempt.state.metadata.get("items", ())) < items

    return Guard(f"at most {items} items", check, f"a cart holds {items} items")


# --- deadlines -----------------------------------------------------------------------------------


def _cart_deadline(attempt: Attempt) -> datetime:
    return attempt.state.last_activity_at + timedelta(days=CART_DAYS)


FORGOTTEN = Deadline(f"last_activity_at + {CART_DAYS} days", _cart_deadline)
UNPAID = after_grace("payment")

# --- effects: what a move changes ----------------------------------------------------------------


def _item_added(attempt: Attempt) -> Mapping[str, Any]:
    item = {"sku": attempt.arguments["sku"], "cents": attempt.arguments["cents"]}
    return _with(attempt, items=[*attempt.state.metadata.get("items", ()), item])


def _payment_noted(attempt: Attempt) -> Mapping[str, Any]:
    return _with(attempt, paid_cents=attempt.arguments["cents"])


def _parcel_noted(attempt: Attempt) -> Mapping[str, Any]:
    return _with(attempt, parcel=attempt.arguments["parcel"])


def _paid_back(attempt: Attempt) -> Mapping[str, Any]:
    return {**_with(attempt, paid_cents=0), **_cause_noted(attempt)}


def _cause_noted(attempt: Attempt) -> Mapping[str, Any]:
    return {"error": attempt.arguments["error"]} if "error" in attempt.arguments else {}


def _given(attempt: Attempt) -> Mapping[str, Any]:
    return {name: attempt.arguments[name] for name in ("metadata",) if name in attempt.arguments}


# --- the table -----------------------------------------------------------------------------------

ORDER = Lifecycle(
    name="order",
    statuses=OrderStatus,
    initial=CART,
    rows=(
        Row("put_in", CART, None, guards=(at_most(20), has_price), required=("sku", "cents"),
            effect=_item_added, activity=True, why="the customer wants it"),
        Row("check_out", CART, PLACED, guards=has_items, activity=True, why="the order is made"),
        Row("clear", CART, CANCELLED, deadline=FORGOTTEN, why="nobody came back to the cart"),
        Row("pay", PLACED, PAID, guards=exact_amount, required="cents", effect=_payment_noted,
            activity=True, why="the money came"),
        Row("lapse", PLACED, CANCELLED, deadline=UNPAID, why="the money never came"),
        Row("ship", PAID, SHIPPED, required="parcel", effect=_parcel_noted, activity=True,
            why="the parcel left the house"),
        Row("deliver", SHIPPED, DELIVERED, activity=True, why="the customer has it"),
        Row("cancel", (CART, PLACED), CANCELLED, ending=True, optional="error",
            effect=_cause_noted, why="asked for, or something failed"),
        Row("refund", PAID, CANCELLED, ending=True, optional="error", effect=_paid_back,
            why="the money goes back"),
        Row("recall", SHIPPED, RETURNING, ending=True, why="the parcel is called back"),
        Row("take_back", RETURNING, CANCELLED, ending=True, optional="error", effect=_paid_back,
            why="the parcel is here again, and the money goes back"),
        Row("annotate", LIVE, None, optional="metadata", effect=_given, why="a note"),
    ),
    roles={"update": "annotate"},
    graces={"payment": timedelta(days=3)},
)  # fmt: skip
"""Seven statuses, two of them final; one verb of the manager has a role here: `update`."""


def main(store: str = "memory://") -> None:
    """Tell the stories of four orders, in a time that jumps."""
    clock = ManualClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    with SessionManager(store, lifecycle=ORDER, clock=clock) as orders:
        print("# An order goes its way")
        orders.create("tea-and-cup")
        print(orders.explain("tea-and-cup", "check_out"))
        orders.fire("tea-and-cup", "put_in", sku="tea", cents=450)
        orders.fire("tea-and-cup", "put_in", sku="cup", cents=1200)
        orders.fire("tea-and-cup", "check_out")
        try:
            orders.fire("tea-and-cup", "pay", cents=1200)
        except TransitionError as fault:
            print(fault.refusal.headline)
        orders.fire("tea-and-cup", "pay", cents=1650)
        orders.fire("tea-and-cup", "ship", parcel="JD014600")
        print("tea-and-cup is", orders.fire("tea-and-cup", "deliver").status)

        print("# One is cancelled on its way, by the rows that end an order")
        orders.create("kettle")
        orders.fire("kettle", "put_in", sku="kettle", cents=3900)
        orders.fire("kettle", "check_out")
        orders.fire("kettle", "pay", cents=3900)
        orders.fire("kettle", "ship", parcel="JD014601")
        ended = orders.terminate("kettle", reason="ordered twice")
        fired = [event.trigger for event in orders.history("kettle")[-2:]]
        print("kettle is", ended.status, "by", " and ".join(map(str, fired)))
        print("kettle has", ended.state.metadata["paid_cents"], "cents paid")

        print("# Two are forgotten, each with a deadline of its own")
        orders.create("abandoned")
        orders.create("unpaid")
        orders.fire("unpaid", "put_in", sku="spoon", cents=300)
        orders.fire("unpaid", "check_out")
        for _ in range(2):
            due = orders.next_deadline()
            assert due is not None
            clock.set(due)
            for event in orders.sweep().fired:
                print(f"{event.at:%d %B}: {event.session_id} {event.trigger} -> {event.target}")
        print({str(status): number for status, number in orders.counts().items() if number})


if __name__ == "__main__":
    main(*sys.argv[1:2])
