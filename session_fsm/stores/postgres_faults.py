"""What errors of a PostgreSQL server mean, by their SQLSTATE and by the state of the connection.

No message is looked into: servers speak many languages, and other engines have words of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from ..errors import CorruptRecordError, SessionFsmError, StoreUnavailableError
from .postgres_url import Target

_LOST_STATES: Final = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"}
"""The server shuts down, has crashed, starts, or has ended the connection."""
_LOST_CLASS: Final = "08"
_LOCKED: Final = "55P03"
_AGAIN: Final = {"40001", "40P01", _LOCKED}
"""Transactions that ran into each other: a serialization failure, a deadlock, a lock not had."""
_OPEN: Final = {"40003"}
"""The server itself does not know whether the statement was completed."""
_BROKEN: Final = {"XX001", "XX002"}
_NO_RIGHT: Final = "42501"
_NOT_NOW: Final = {"25006", "53100", "55000"}
"""Nobody may write: the server is read-only, as one that stands by is, or its disk is full; or
nobody may delete, as what stands there is published, and has no replica identity."""


class SilentError(psycopg.OperationalError):
    """The server has said nothing for too long; the connection was closed."""


class ConnectError(psycopg.OperationalError):
    """No connection was to be had; nothing was sent."""


def is_lost(fault: psycopg.Error, connection: psycopg.Connection[object] | None) -> bool:
    """Tell whether a connection ended with an error, so that its last answer may be missing."""
    state = fault.sqlstate
    if state is not None and (
        state in _LOST_STATES or state in _OPEN or state.startswith(_LOST_CLASS)
    ):
        return True
    if isinstance(fault, ConnectError | SilentError):
        return True
    return connection is not None and (connection.closed or connection.broken)


def may_go_again(fault: psycopg.Error) -> bool:
    """Tell whether a transaction was undone only because of others, and may be done again."""
    return fault.sqlstate in _AGAIN


def is_locked(fault: Exception) -> bool:
    """Tell whether somebody else had locked something for longer than was to be waited for."""
    return isinstance(fault, psycopg.Error) and fault.sqlstate == _LOCKED


def has_no_right(fault: BaseException | None) -> bool:
    """Tell whether the role may not do that, now or later."""
    return isinstance(fault, psycopg.Error) and fault.sqlstate == _NO_RIGHT


def is_not_now(fault: BaseException | None) -> bool:
    """Tell whether the server only reads for now: it may write again, or one in its place."""
    return isinstance(fault, psycopg.Error) and fault.sqlstate in _NOT_NOW


@contextmanager
def left_to_others() -> Iterator[None]:
    """Pass over what the role may not do, or the server can't for now."""
    try:
        yield
    except StoreUnavailableError as fault:
        if not (has_no_right(fault.__cause__) or is_not_now(fault.__cause__)):
            raise


def told(fault: Exception, target: Target, operation_id: str | None = None) -> SessionFsmError:
    """Return what an error of the database means to a user of the store."""
    state = getattr(fault, "sqlstate", None)
    words = getattr(getattr(fault, "diag", None), "message_primary", None) or str(fault)
    problem = target.hide(words.strip() or type(fault).__name__)
    if state in _BROKEN or isinstance(fault, UnicodeDecodeError):
        return CorruptRecordError(record=f"the database {target.url}", problems=(problem,))
    name = state or type(fault).__name__
    return StoreUnavailableError(
        problem=f"{target.url}: {problem} ({name})", operation_id=operation_id
    )
