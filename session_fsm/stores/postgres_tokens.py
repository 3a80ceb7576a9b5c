"""The tokens that owners of this process state, and when one that does not fit is given up.

A token grows with each change of hands, so that an owner from whom a session was taken over is
refused whatever it writes to it in that name. An owner that lives may own a session no longer as
well, because others have let go of its worker or of its start, and it may not know: then its token
is old, and it is to write as anybody does that never owned the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

TAKEN: Final = "(extract(epoch FROM taken_at) * 1000000)::bigint"
"""When a session was taken over last, as a token has it."""


class Token(NamedTuple):
    """What an owner states of a session.

    Attributes:
        number: Grows with each change of hands.
        taken: When the session was taken over last, in microseconds; None: never, as of when this
            was given.
    """

    number: int
    taken: int | None = None

    def is_given_up(self, owner_id: str, found: Token, found_owner: str | None) -> bool:
        """Tell whether the session has other hands, and was not taken from who states this.

        Args:
            owner_id: Who states this, and lives.
            found: The token that the session has now.
            found_owner: Who owns it now; None: nobody.
        """
        if found.number == self.number or found_owner == owner_id:
            return False
        # Whatever its lease says: the one change since was that somebody took it over.
        return found.number != self.number + 1 or found.taken == self.taken


class Tokens:
    """The tokens of the sessions that owners of this process have.

    Args:
        in_batch: Tells whether this thread has a batch open, which may be undone.

    Threads: safe.
    """

    def __init__(self, in_batch: Callable[[], bool] = lambda: False) -> None:
        self._in_batch = in_batch
        self._of: dict[str, dict[str, Token]] = {}
        self._before: dict[tuple[str, str], Token | None] = {}
        self._next = 0
        self._lock = threading.Lock()

    def of(self, owner_id: str, session_id: str) -> Token | None:
        """Return the token that an owner states of a session; None if it does not own it."""
        found = self._of.get(session_id)
        return None if found is None else found.get(owner_id)

    def stated(self, session_id: str, owner_id: str | None = None) -> dict[str, Token]:
        """Return the tokens that are stated of a session, by one owner or by any; may be empty."""
        found = self._of.get(session_id, {})
        return {each: token for each, token in found.items() if owner_id in (None, each)}

    def some(self, most: int) -> list[tuple[str, str, Token]]:
        """Return owner, session and token of so many at most, of all of them in turn.

        What a batch has changed is not told of until that has ended.
        """
        with self._lock:
            kept = [each for each in self._all() if each[:2] not in self._before]
            first = self._next if self._next < len(kept) else 0
            self._next = first + most
        return kept[first : first + most]

    def _all(self) -> list[tuple[str, str, Token]]:
        return [
            (owner_id, session_id, token)
            for session_id, some in list(self._of.items())
            for owner_id, token in some.items()
        ]

    def keep(self, owner_id: str, session_id: str, token: Token | None) -> None:
        """Keep the token of an owner; None: it does not own the session any longer."""
        if token is None and session_id not in self._of:
            return
        with self._lock:
            self._change(owner_id, session_id, token)

    def drop(self, owner_id: str, session_id: str, token: Token) -> None:
        """Keep a token no longer that was found to be old, unless there is a newer one by now."""
        with self._lock:
            if self.of(owner_id, session_id) == token:
                self._change(owner_id, session_id, None)

    def _change(self, owner_id: str, session_id: str, token: Token | None) -> None:
        before = self._put(owner_id, session_id, token)
        if self._in_batch():
            self._before.setdefault((owner_id, session_id), before)
        else:
            # Told by a commit that is durable, whatever becomes of a batch.
            self._before.pop((owner_id, session_id), None)

    def _put(self, owner_id: str, session_id: str, token: Token | None) -> Token | None:
        # Always another dict: who reads one meanwhile has it as it was.
        kept = dict(self._of.get(session_id, {}))
        before = kept.pop(owner_id, None)
        if token is not None:
            kept[owner_id] = token
        if kept:
            self._of[session_id] = kept
        else:
            self._of.pop(session_id, None)
        return before

    def forget(self, owner_id: str) -> None:
        """Keep nothing of an owner any longer."""
        for each, session_id, _ in self._all():
            if each == owner_id:
                self.keep(owner_id, session_id, None)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Put back what a batch changes, and nothing else, if it is not written."""
        self._before = {}
        try:
            yield
        except BaseException as fault:
            # An interrupt may come while it is being written.
            known = isinstance(fault, Exception) and getattr(fault, "operation_id", None) is None
            self._put_back(undone=known)
            raise
        finally:
            self._before = {}

    def _put_back(self, *, undone: bool) -> None:
        with self._lock:
            for (owner_id, session_id), token in self._before.items():
                # Where nobody knows, some token is stated: one that does not fit is refused, and
                # given up then, while without one the owner would write whoever has the session.
                if undone or token is not None:
                    self._put(owner_id, session_id, token)
