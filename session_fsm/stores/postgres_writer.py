"""How commits get to a PostgreSQL server: together, in one round trip, and each with an answer.

Whoever finds nobody writing writes at once; who comes meanwhile is written together with others:
those that only move a session in one statement, the rest in one transaction, as one pipeline. If
anything is wrong with that, each of its commits is made again by the thread that it belongs to,
alone: one that the server refuses, or that waits for somebody else, does no harm to the others, and
one whose answer was lost asks what became of it.

There is one group at a time, as long as none takes long. Others could be under way to the server
meanwhile; but they would be smaller, and each costs both sides something of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import accumulate, takewhile
from typing import Final

import psycopg

from ..errors import SessionFsmError, StoreUnavailableError
from ..sharing import own_copy
from .abc import NotTogetherError, Outcome
from .commit_queue import CommitQueue, Request
from .postgres_commit import GoneError, PreparedCommit, Row
from .postgres_connection import Connections
from .postgres_faults import ConnectError, is_locked, is_lost, may_go_again, told
from .postgres_group import move_together
from .postgres_links import Connection
from .postgres_retrying import undo
from .postgres_sql import BRIEF

MAX_BYTES: Final = 16 * 2**20
"""Most bytes of states and events in one statement, unless one move alone has more."""
PATIENCE_SECONDS: Final = 1.0
"""Who waits goes on after that, through another connection: one may be silent for long."""
MAX_OPEN: Final = 10_000
"""Most operations that are remembered as never answered."""


class _AloneError(Exception):
    """A commit of a group has to be made alone.

    Args:
        may_have_landed: Whether it was sent, and its answer lost.
    """

    def __init__(self, *, may_have_landed: bool) -> None:
        super().__init__()
        self.may_have_landed = may_have_landed


class Writer:
    """What makes the commits of one store.

    Args:
        connections: The connections of the store.
        noted: Called with each commit that was made.

    Threads: safe.
    """

    def __init__(self, connections: Connections, noted: Callable[[PreparedCommit], None]) -> None:
        self._connections = connections
        self._noted = noted
        self._queue: CommitQueue[PreparedCommit] = CommitQueue(
            self._write, self._unknown, PATIENCE_SECONDS
        )
        self._open: OrderedDict[str, int] = OrderedDict()
        self._open_lock = threading.Lock()

    def commit(self, change: PreparedCommit) -> None:
        """Make a commit, alone or together with others; durable on return, unless in a batch.

        Raises:
            SessionFsmError: It was refused, or could not be written; nothing of it was.
            StoreUnavailableError: With its operation id: it may have been written.
        """
        connections = self._connections
        connections.check_open()
        if connections.in_batch:
            self._in_batch(change)
        elif change.before is not None:
            if connections.is_batching:
                with self.alone():
                    pass  # its transaction might wait for the batch's in the server, too long
            self._make_alone(change, may_have_landed=False)
        else:
            try:
                self._queue.submit(change)
            except _AloneError as alone:
                self._make_alone(change, may_have_landed=alone.may_have_landed)
        self._noted(change)

    def commit_all(self, changes: Sequence[PreparedCommit]) -> list[Outcome]:
        """Make commits together; outcomes as of `SessionStore.commit_all`."""
        self._connections.check_open()
        outcomes: list[Outcome] = [self._by_itself() for _ in changes]
        places = [place for place, change in enumerate(changes) if change.before is None]
        if places:
            errors = self._queue.submit_all(changes[place] for place in places)
            for place, error in zip(places, errors, strict=True):
                outcomes[place] = self._outcome(changes[place], error)
        return outcomes

    def _outcome(self, change: PreparedCommit, error: BaseException | None) -> Outcome:
        if error is None:
            self._noted(change)
        if not isinstance(error, _AloneError):
            return error
        return partial(self._ask, change) if error.may_have_landed else self._by_itself()

    def _by_itself(self) -> NotTogetherError:
        return NotTogetherError(
            problem=f"{self._connections.url}: written by itself, or not at all"
        )

    def _ask(self, change: PreparedCommit) -> None:
        """See to a commit whose answer was lost."""
        self._make_alone(change, may_have_landed=True)
        self._noted(change)

    def alone(self) -> AbstractContextManager[None]:
        """Keep every other thread from committing inside, but for what has taken long already."""
        return self._queue.alone()

    def is_open(self, operation_id: str, revision: int) -> bool:
        """Tell whether an operation that was never answered might still arrive at the server.

        Args:
            operation_id: The operation.
            revision: The revision that the session has now; once it has moved on, nothing that was
                decided from an older one lands.
        """
        with self._open_lock:
            expected = self._open.get(operation_id)
        return expected is not None and revision == expected

    # --- together -------------------------------------------------------------------------

    def _write(self, requests: Sequence[Request[PreparedCommit]]) -> None:
        ready = requests if len(requests) == 1 else [each for each in requests if _is_ready(each)]
        if not ready:
            return
        link: Connection | None = None
        try:
            with self._connections.link() as link:
                for part, send in _parts(ready, link):
                    rows = send(link, [change for _, change in part])
                    # First those that were made: whatever goes wrong behind, they are answered.
                    others = [
                        (request, change)
                        for (request, change), row in zip(part, rows, strict=True)
                        if not _is_made(request, change, row)
                    ]
                    for request, change in others:
                        request.answer(change.reason(link) or _AloneError(may_have_landed=False))
        except (psycopg.Error, UnicodeError) as fault:
            # Without a connection nothing was sent.
            lost = link is not None and isinstance(fault, psycopg.Error) and is_lost(fault, link)
            for request in ready:
                if request.pending:
                    request.answer(_AloneError(may_have_landed=lost))
        except SessionFsmError as fault:
            for request in ready:
                if request.pending:
                    request.answer(own_copy(fault))

    def _unknown(self, change: PreparedCommit) -> StoreUnavailableError:
        return self._never_answered(change, "the thread that was writing was interrupted")

    def _never_answered(self, change: PreparedCommit, problem: str) -> StoreUnavailableError:
        operation_id = change.operation_id
        with self._open_lock:
            self._open[operation_id] = change.commit.expected_revision
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return StoreUnavailableError(
            problem=f"{self._connections.url}: {problem}", operation_id=operation_id
        )

    # --- alone ----------------------------------------------------------------------------

    def _make_alone(self, change: PreparedCommit, *, may_have_landed: bool) -> None:
        """Make a commit until there is a definite answer, or no time left."""
        connections, patience = self._connections, self._connections.patience()
        locked = connections.lock_patience()
        while True:
            link: Connection | None = None
            try:
                connections.check_open()
                with connections.link() as link:
                    if may_have_landed and change.find_landed(link):
                        return
                    try:
                        if _made(link, change):
                            return
                        if may_have_landed and change.find_landed(link):
                            return  # it arrived meanwhile: what was in its way was itself
                        reason = change.reason(link)
                    except SessionFsmError as refused:
                        if may_have_landed and change.find_landed(link):
                            return
                        reason = refused
                    except psycopg.errors.UniqueViolation:
                        # Somebody has created the id, or has just ended a life of it.
                        reason = change.reason(link)
                    if reason is not None:
                        if may_have_landed and change.is_forgotten(link):
                            problem = "what it has left was compacted, or removed, meanwhile"
                            raise self._never_answered(change, problem) from reason
                        raise reason
                    fault: Exception = GoneError(
                        "it was refused again and again, for no reason that lasts"
                    )
            except ConnectError as missing:
                fault = missing
            except psycopg.Error as failed:
                fault = failed
                if is_lost(failed, link):
                    may_have_landed = True
                    connections.source.forget_idle()
                elif not may_go_again(failed):
                    if may_have_landed:
                        raise self._never_answered(change, _words(connections, failed)) from failed
                    raise told(failed, connections.target) from failed
            except UnicodeError as failed:
                raise told(failed, connections.target) from failed
            except StoreUnavailableError as closed:
                if may_have_landed and closed.operation_id is None:
                    raise self._never_answered(change, closed.problem) from closed
                raise
            # Whoever is in the way is waited for without a connection, which others need.
            if not (locked if is_locked(fault) else patience).pause():
                words = _words(connections, fault)
                if may_have_landed:
                    raise self._never_answered(change, words) from fault
                raise told(fault, connections.target) from fault

    # --- in a batch -----------------------------------------------------------------------

    def _in_batch(self, change: PreparedCommit) -> None:
        patience = self._connections.patience()
        while True:
            try:
                self._connections.write(change.apply)
            except GoneError as fault:
                if not patience.pause():
                    raise told(fault, self._connections.target) from fault
            else:
                return


def _words(connections: Connections, fault: Exception) -> str:
    error = told(fault, connections.target)
    return getattr(error, "problem", str(error)).removeprefix(f"{connections.url}: ")


Sent = tuple[Request[PreparedCommit], PreparedCommit]
Send = Callable[[Connection, Sequence[PreparedCommit]], list[Row | None]]


def _is_ready(request: Request[PreparedCommit]) -> bool:
    """Make what is sent for a change; if it can't be made, that is the answer of this one alone."""
    try:
        request.item.encode()
    except UnicodeError:
        request.answer(_AloneError(may_have_landed=False))
    except Exception as fault:  # noqa: BLE001 - of whatever kind: it is this one's
        request.answer(fault)
    return request.pending


def _parts(
    requests: Sequence[Request[PreparedCommit]], link: Connection
) -> Iterator[tuple[list[Sent], Send]]:
    """Yield parts, each of which goes to the server in a transaction of its own, and how."""
    sent = [(request, request.item) for request in requests]
    if len(sent) == 1:
        yield sent, _sent_together
        return
    # In one order, so that groups of other processes wait for this one, and not each for the other.
    sent.sort(key=lambda each: each[1].commit.session_id)
    # What is encoded here is UTF-8; a pool of somebody else's may talk otherwise with the server.
    can_encode = link.info.encoding == "utf-8"
    moves = [each for each in sent if each[1].only_moves and can_encode]
    while moves:
        some = moves[: _within(change.size for _, change in moves)]
        yield some, move_together
        del moves[: len(some)]
    if others := [each for each in sent if not (each[1].only_moves and can_encode)]:
        yield others, _sent_together


def _within(sizes: Iterable[int]) -> int:
    """Return how many can be sent at once, at least one."""
    ends = accumulate(sizes)
    return max(1, sum(1 for _ in takewhile(lambda end: end <= MAX_BYTES, ends)))


def _is_made(request: Request[PreparedCommit], change: PreparedCommit, row: Row | None) -> bool:
    """Answer a commit if it was made: a row came back for it then."""
    if row is not None:
        change.note(row)
        request.answer()
    return row is not None


def _sent_together(link: Connection, changes: Sequence[PreparedCommit]) -> list[Row | None]:
    """Send commits in one round trip; returns what the last statement of each returned."""
    if len(changes) == 1 and changes[0].is_one_statement:
        return [link.execute(*changes[0].statements(BRIEF)[0]).fetchone()]
    try:
        with link.pipeline():
            link.execute("BEGIN", prepare=False)
            cursors = [
                [link.execute(*statement) for statement in change.statements(BRIEF)]
                for change in changes
            ]
            ended = link.execute("COMMIT", prepare=False)
        if ended.statusmessage != "COMMIT":
            raise psycopg.errors.InFailedSqlTransaction("the transaction was undone")
    except psycopg.Error:
        undo(link)
        raise
    return [of_steps[-1].fetchone() for of_steps in cursors]


def _made(link: Connection, change: PreparedCommit) -> bool:
    """Make a commit alone; returns whether it was, if nothing has refused it by name."""
    if change.before is None:
        [row] = _sent_together(link, [change])
        if row is not None:
            change.note(row)
        return row is not None
    try:
        link.execute("BEGIN", prepare=False)
        change.apply(link)
    except GoneError:
        undo(link)
        return False
    except BaseException:
        undo(link)
        raise
    link.execute("COMMIT", prepare=False)
    return True
