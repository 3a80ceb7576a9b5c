"""What the tables of a session hold, and what is written to them.

A table is a name, an item a value by its key. A write is checked in full when it is made, and its
value copied: nobody can change it until it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import attrs

from .errors import ItemConflictError
from .fields import MAX_TIMEOUT_MINUTES, Problems, check_id, integer_of, raise_problems
from .jsonvalue import MAX_JSON_BYTES, freeze_value, shown

MAX_ITEM_BYTES: Final = MAX_JSON_BYTES
"""Longest encoded form of the value of one item, in bytes."""
MAX_TTL_SECONDS: Final = MAX_TIMEOUT_MINUTES * 60
"""Longest time to live of an item, about a thousand years."""

_HIDDEN: Final = "..."  # a value may be a secret, and a representation ends up in logs


@attrs.frozen(kw_only=True)
class Item:
    """A value in a table of a session, as it is stored.

    Attributes:
        key: What it is looked up by.
        value: JSON, deeply immutable.
        version: From 1 on, of the whole session: higher than that of every write before, so that
            no key ever has one twice while the session lives.
        expires_at: From when on it counts as absent; None: it stays.
        updated_at: When it was put there, by the clock of the manager that did.
    """

    key: str
    value: Any = attrs.field(repr=lambda _: _HIDDEN)
    version: int
    expires_at: datetime | None
    updated_at: datetime

    def is_live(self, at: datetime) -> bool:
        """Tell whether it has not expired at an instant."""
        return self.expires_at is None or at < self.expires_at


@attrs.frozen
class ItemPage:
    """Some of the items of a table, by key.

    Attributes:
        items: In the order of their keys; may be empty.
        next: What to hand to `items(after=…)` for the next page; None if this is the last.
    """

    items: tuple[Item, ...]
    next: str | None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


_check_version: Final = integer_of(0, optional=True)


def table_name(value: object) -> str:
    """Return the name of a table as it is kept.

    Raises:
        StateInvalidError: It is none: 1 to 255 printable characters, as an id.
    """
    return _id(value, "table")


def item_key(value: object) -> str:
    """Return the key of an item as it is kept; errors as `table_name`."""
    return _id(value, "key")


def _id(value: object, path: str) -> str:
    problems: Problems = []
    name: str = check_id(value, path, problems)
    raise_problems(problems)
    return name


def _check_ttl(value: object, problems: Problems) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_TTL_SECONDS:  # type: ignore[operator]
        most = f"more than 0 and at most {MAX_TTL_SECONDS}"
        problems.append(f"ttl_seconds: expected {most}, got {shown(value)}")
        return None
    return float(value)  # type: ignore[arg-type]


@attrs.frozen(init=False)
class Put:
    """Puts a value under a key; one that is there is replaced, with its time to live.

    Args:
        table: The table; 1 to 255 printable characters.
        key: What it is looked up by, of the same kind.
        value: JSON: an object, array, string, number, boolean or None; copied, at most
            `MAX_ITEM_BYTES` when written and 100 levels deep.
        expected_version: The version that the item must have; 0: there must be none; None: any.
        ttl_seconds: How long it lives from the write on; None: as long as the session is stored.

    Raises:
        StateInvalidError: Every fault, by its path.
    """

    table: str
    key: str
    value: Any = attrs.field(repr=lambda _: _HIDDEN)
    expected_version: int | None
    ttl_seconds: float | None

    def __init__(
        self,
        table: str,
        key: str,
        value: Any,
        *,
        expected_version: int | None = None,
        ttl_seconds: float | None = None,
    ) -> None:
        frozen, found = freeze_value(value, "value")
        problems: Problems = []
        self.__attrs_init__(
            check_id(table, "table", problems),
            check_id(key, "key", problems),
            frozen,
            _check_version(expected_version, "expected_version", problems),
            _check_ttl(ttl_seconds, problems),
        )
        raise_problems([*problems, *found])

    if TYPE_CHECKING:

        def __attrs_init__(self, *fields: Any) -> None: ...

    def expires_at(self, at: datetime) -> datetime | None:
        """Return when an item that is put at an instant expires; None if never."""
        if self.ttl_seconds is None:
            return None
        try:
            # What lives at all lives for the shortest time that there is.
            return at + (timedelta(seconds=self.ttl_seconds) or timedelta.resolution)
        except OverflowError:
            return None  # behind the last instant that there is


@attrs.frozen(init=False)
class Delete:
    """Removes the item of a key, if there is one; arguments and errors as for `Put`."""

    table: str
    key: str
    expected_version: int | None

    def __init__(self, table: str, key: str, *, expected_version: int | None = None) -> None:
        problems: Problems = []
        self.__attrs_init__(
            check_id(table, "table", problems),
            check_id(key, "key", problems),
            _check_version(expected_version, "expected_version", problems),
        )
        raise_problems(problems)

    if TYPE_CHECKING:

        def __attrs_init__(self, *fields: Any) -> None: ...


@attrs.frozen
class Clear:
    """Removes every item of a table; arguments and errors as for `Put`."""

    table: str = attrs.field(converter=table_name)


Write = Put | Delete | Clear
"""What is done to one table."""
Written = Item | int
"""What came of a write: the item that was put, or how many that had not expired were removed."""


@attrs.frozen
class ItemWrites:
    """Writes of one session that are made together, in order.

    Attributes:
        at: When; what has expired by then counts as absent.
        writes: What is written.
    """

    at: datetime
    writes: tuple[Write, ...]


def check_expected(session_id: str, write: Put | Delete, found: int) -> None:
    """Accept a write to an item that has a version; 0: there is none.

    Raises:
        ItemConflictError: It expects another one.
    """
    if write.expected_version is not None and write.expected_version != found:
        raise ItemConflictError(
            session_id=session_id,
            table=write.table,
            key=write.key,
            expected=write.expected_version,
            found=found,
        )
