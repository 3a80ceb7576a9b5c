"""One error that several are to raise: each raises its own."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

Fault = TypeVar("Fault", bound=BaseException)


def own_copy(fault: Fault) -> Fault:
    """Return an error for one more who is to raise it, with its cause; itself if it can't be."""
    if not isinstance(fault, Exception):
        return fault
    try:
        own = copy(fault)
    except Exception:  # noqa: BLE001 - a kind of somebody else's that is not made to be copied
        return fault
    own.__cause__ = fault.__cause__
    return own
