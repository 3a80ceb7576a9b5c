"""Who writes next: one at a time, and whoever comes meanwhile is written together.

A caller that finds nobody writing writes at once, on its own thread. Callers that come meanwhile
wait in a queue; when the write is done, the first of them leads: it takes whoever waits by then,
and writes for all of them. Each has its answer when its own change is durable.

Those who were answered are woken one after another, and the next one to lead behind them, so that
those of them who come again at once are in its group.

Nobody overtakes: the queue is in the order of arrival, and whoever needs the writer for itself, for
a batch, waits its turn in the same queue. Only where several may write, whoever is first goes on
once others have been writing for long: they may wait for what never comes.

An interrupt (a signal raises `KeyboardInterrupt` between any two lines of the main thread) loses no
turn: whoever leads passes it on in any case.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Final, Generic, TypeVar

from .relay import Relay, Runner

Item = TypeVar("Item")

MAX_TOGETHER: Final = 256
"""Most changes that are written in one go, unless one thread alone comes with more."""
MAX_WAITING: Final = 4096
"""Most changes that wait, or a few more; whoever comes then looks again and again for room."""
ROOM_SECONDS: Final = 0.01
"""So often."""
MOST_AT_ONCE: Final = 4
"""Most groups that are being written, where whoever takes too long is overtaken."""
LOOK_SECONDS: Final = 0.25
"""So often those who wait look whether those whom they wait for go on at all."""


class Request(Generic[Item]):
    """A change that is to be written.

    Attributes:
        item: What is written.
        pending: Whether there is no answer yet.
        error: The answer, if it was not written.
    """

    __slots__ = ("error", "item", "pending")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.pending = True
        self.error: BaseException | None = None

    def answer(self, error: BaseException | None = None) -> None:
        """Say that it was written, or why not."""
        self.error = error
        self.pending = False


class Entry(Runner, Generic[Item]):
    """A thread that waits for what it wants to have written.

    Attributes:
        requests: Its changes; none where it needs the writer for itself.
        group: The entries that this one leads; None while it does not lead.
        turn: Released when there is an answer to all, or this one leads.
        is_gone: Whether its thread has left, or goes on by itself.
    """

    __slots__ = ("group", "requests")

    def __init__(self, requests: Sequence[Request[Item]] = ()) -> None:
        super().__init__()
        self.requests = requests
        self.group: list[Entry[Item]] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether all its changes have an answer."""
        return bool(self.requests) and not [each for each in self.requests if each.pending]


class CommitQueue(Generic[Item]):
    """The turns of whoever writes.

    Args:
        write: Writes a group of changes, durably, and answers each; called by one thread at a time,
            unless one takes too long. What it raises is an interrupt, or a fault of its own.
        unknown: Returns the error of an item of which nobody can say whether it was written.
        patience_seconds: What is too long; None: nothing is.

    Threads: safe.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Request[Item]]], None],
        unknown: Callable[[Item], BaseException],
        patience_seconds: float | None = None,
    ) -> None:
        self._write = write
        self._unknown = unknown
        self._patience_seconds = inf if patience_seconds is None else patience_seconds
        self._relay = Relay()
        self._mutex = threading.Lock()
        self._waiting: deque[Entry[Item]] = deque()
        self._room = threading.Event()  # of which nobody tells: it is looked for
        self._leading: list[Entry[Item]] | None = None
        self._since = 0.0
        self._writing: list[list[Entry[Item]]] = []

    def submit(self, item: Item) -> None:
        """Write a change, alone or together with others; durable on return.

        Raises:
            BaseException: What it was answered with.
        """
        request = Request(item)
        self._have_written((request,))
        if request.error is not None:
            try:
                raise request.error
            finally:
                del request  # or the traceback would hold itself
        assert not request.pending

    def submit_all(self, items: Iterable[Item]) -> list[BaseException | None]:
        """Write changes, together and maybe with others; what could be written is durable then.

        Args:
            items: At least one.

        Returns:
            What each was answered with; None: it was written.
        """
        requests = [Request(item) for item in items]
        try:
            self._have_written(requests)
        except Exception as fault:
            if any(request.pending for request in requests):
                raise
            # Some may have been written before that: each has an answer of its own.
            for request in requests:
                if request.error is not None and request.error.__cause__ is None:
                    request.error.__cause__ = fault
        return [request.error for request in requests]

    def _have_written(self, requests: Sequence[Request[Item]]) -> None:
        entry = Entry(requests)
        try:
            try:
                self._await_turn(entry)
                if (group := entry.group) is not None:
                    self._gather(group)
                    self._write([request for each in group for request in each.requests])
            finally:
                self._pass_on(entry)
        except BaseException:
            self._leave(entry)
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else from writing inside, but for those who were overtaken."""
        entry: Entry[Item] = Entry()
        try:
            try:
                self._await_turn(entry)
                yield
            finally:
                self._pass_on(entry)
        except BaseException:
            self._leave(entry)
            raise

    def _await_turn(self, entry: Entry[Item]) -> None:
        """Wait until an entry leads, or was written by another one."""
        try:
            # Not by a condition: one that is interrupted may release what another thread holds.
            while self._leading is not None and len(self._waiting) >= MAX_WAITING:
                self._room.wait(ROOM_SECONDS)
            with self._mutex:
                entry.turn.acquire()
                leads = self._leading is None
                if leads:
                    self._lead(entry)
                else:
                    self._waiting.append(entry)
            if leads:
                if not self._relay.is_running:
                    return
                # Those who are woken now may come again: together with them.
                self._relay.wake(entry)
            while not entry.turn.acquire(timeout=LOOK_SECONDS):
                self._relay.hurry()
                if self._overtakes(entry):
                    return
                if entry.group is not None or entry.is_answered:
                    # It is to be woken, and may wait for that for ever, if that was interrupted.
                    self._relay.pass_over(entry)
                    return
            self._relay.woke(entry)
        except BaseException:
            with self._mutex:
                # If it is not there, it leads, or is being written: then it is too late.
                if entry in self._waiting:
                    self._waiting.remove(entry)
            raise

    def _lead(self, entry: Entry[Item]) -> None:
        self._since = monotonic()
        self._leading = entry.group = [entry]
        self._writing.append(self._leading)

    def _overtakes(self, entry: Entry[Item]) -> bool:
        """Let an entry lead that is the first who waits, if whoever leads takes too long."""
        with self._mutex:
            leading = self._leading
            if (
                leading is None
                or not leading[0].requests
                or self._first() is not entry
                or monotonic() - self._since < self._patience_seconds
                or len(self._writing) >= MOST_AT_ONCE
            ):
                return False
            self._lead(entry)
            self._waiting.popleft()
            return True

    def _gather(self, group: list[Entry[Item]]) -> None:
        """Take whoever waits into a group, up to one who needs the writer for itself."""
        if not self._waiting:
            return
        with self._mutex:
            count = len(group[0].requests)
            # Who was overtaken takes nobody: they may stand behind somebody who writes alone.
            while (
                self._leading is group
                and (entry := self._first()) is not None
                and entry.requests
                and count + len(entry.requests) <= MAX_TOGETHER
            ):
                group.append(entry)
                self._waiting.popleft()
                count += len(entry.requests)

    def _first(self) -> Entry[Item] | None:
        """Return the first who waits."""
        # An interrupt may have left somebody in the queue who has had its turn.
        while self._waiting:
            first = self._waiting[0]
            if first.group is None and not first.is_answered:
                return first
            self._waiting.popleft()
        return None

    def _pass_on(self, leader: Entry[Item]) -> None:
        """Give everybody in a group that was led an answer, and the next one its turn.

        Nothing if the entry does not lead.
        """
        if (group := leader.group) is None:
            return
        self._answer_rest(group)
        following = self._next_leader(group)
        members = [entry for entry in group if entry is not leader]
        if following is not None:
            members.append(following)
        if members:
            self._relay.wake(*members)

    def _leave(self, entry: Entry[Item]) -> None:
        """Do what is left of `_pass_on`, which may have been interrupted itself; wake everybody."""
        group = entry.group or []
        self._answer_rest(group)
        if group:
            self._next_leader(group)
        leading = self._leading or []
        self._relay.wake_all(entry, *group, *leading[:1])

    def _answer_rest(self, group: Sequence[Entry[Item]]) -> None:
        for entry in group:
            for request in entry.requests:
                if request.pending:
                    request.answer(self._unknown(request.item))

    def _next_leader(self, group: Sequence[Entry[Item]]) -> Entry[Item] | None:
        """Let the first who waits lead, if a group still does; returns it, awake or not."""
        with self._mutex:
            self._writing = [each for each in self._writing if each is not group]
            if self._leading is not group:
                return None
            following = self._first()
            if following is None:
                self._leading = None
            else:
                self._lead(following)
                self._waiting.popleft()
        return following
