"""Whoever writes at the same time is written together, in turn, and always gets an answer."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from managing import await_event, begin, end, wait_until

from session_fsm.stores import commit_queue, relay
from session_fsm.stores.commit_queue import CommitQueue, Entry, Request
from session_fsm.stores.relay import Runner


class UnknownError(Exception):
    """Nobody can say whether it was written."""


class Book:
    """What is written, group by group; a test may hold the writing up, or make it fail.

    Attributes:
        groups: The items of each group.
        open: The items of which somebody was told that their fate is open.
        writing: Set as soon as somebody writes.
        go_on: Cleared, keeps whoever writes from going on.
        fault: Raised instead of writing.
    """

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.open: set[str] = set()
        self.writing = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.fault: BaseException | None = None
        self.refused: dict[str, Exception] = {}
        self.queue: CommitQueue[str] = CommitQueue(self.write, UnknownError)

    def write(self, requests: Sequence[Request[str]]) -> None:
        self.writing.set()
        await_event(self.go_on)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        self.groups.append([str(request.item) for request in requests])
        for request in requests:
            request.answer(self.refused.get(str(request.item)))

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Let somebody write `first`, and keep it from going on inside."""
        self.go_on.clear()
        self.writing.clear()
        first = begin(lambda: self.queue.submit("first"))
        await_event(self.writing)
        try:
            yield
        finally:
            self.go_on.set()
            with suppress(KeyboardInterrupt):
                end(first)

    def submit_behind(self, *items: str) -> list[Any]:
        """Have each item submitted by a thread of its own, in this order; returns the threads."""
        return [self.behind(partial(self.queue.submit, item)) for item in items]

    def behind(self, call: Callable[[], object]) -> Any:
        """Have something called by a thread that has to wait; returns once it waits."""
        waiting = len(self.queue._waiting)
        thread = begin(call)
        wait_until(lambda: len(self.queue._waiting) > waiting)
        return thread

    def wait_for_queue(self, length: int, outcome: Sequence[object] = ()) -> None:
        """Return once so many wait, or something has come out."""
        wait_until(lambda: bool(outcome) or len(self.queue._waiting) == length)

    @property
    def is_at_rest(self) -> bool:
        return self.queue._leading is None and not self.queue._waiting


def test_queue_alone_writes_at_once() -> None:
    """Who finds nobody writing writes on its own thread, alone."""
    threads: list[int] = []

    def write(requests: Sequence[Request[str]]) -> None:
        threads.append(threading.get_ident())
        [request] = requests
        request.answer()

    book = Book()
    book.queue = CommitQueue(write, UnknownError)
    book.queue.submit("a")
    book.queue.submit("b")
    assert threads == [threading.get_ident()] * 2


def test_queue_writes_together_what_comes_meanwhile() -> None:
    """Those who come while somebody writes are one group, in the order in which they came."""
    book = Book()
    with book.held_up():
        threads = book.submit_behind("a", "b", "c")
        assert book.groups == []
    end(*threads)
    assert book.groups == [["first"], ["a", "b", "c"]]
    assert book.is_at_rest


def test_queue_answers_each_with_its_own_error() -> None:
    """One of a group that is refused gets its error; the others have written."""
    book = Book()
    book.refused["b"] = ValueError("b")
    caught: list[str] = []

    def submit() -> None:
        try:
            book.queue.submit("b")
        except ValueError as fault:
            caught.append(str(fault))

    with book.held_up():
        threads = [*book.submit_behind("a"), book.behind(submit), *book.submit_behind("c")]
    end(*threads)
    assert book.groups == [["first"], ["a", "b", "c"]]
    assert caught == ["b"]


def test_queue_writes_all_of_a_thread_together() -> None:
    """What one thread hands over at once is written together, and each has its own answer."""
    book = Book()
    book.refused["b"] = ValueError("no")
    assert book.queue.submit_all("abc") == [None, book.refused["b"], None]
    with book.held_up():
        many = book.behind(lambda: book.queue.submit_all("def"))
        one = book.behind(lambda: book.queue.submit("g"))
    assert end(many, one) == [[None, None, None], None]
    assert book.groups == [["a", "b", "c"], ["first"], ["d", "e", "f", "g"]]
    assert book.is_at_rest


def test_queue_parts_no_thread_from_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread hands over at once is never parted; who does not fit in behind comes next."""
    monkeypatch.setattr(commit_queue, "MAX_TOGETHER", 4)
    book = Book()
    with book.held_up():
        threads = [
            book.behind(partial(book.queue.submit_all, items))
            for items in ("ab", "cde", "f", "ghijkl", "m")
        ]
    end(*threads)
    assert book.groups == [["first"], ["a", "b"], ["c", "d", "e", "f"], list("ghijkl"), ["m"]]
    assert book.is_at_rest


def test_queue_waits_until_all_of_a_thread_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks by itself whether it may go on waits for the last of its answers."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.001)
    book, half, go_on = Book(), threading.Event(), threading.Event()

    def write(requests: Sequence[Request[str]]) -> None:
        *some, last = requests
        for request in some:
            request.answer()
        half.set()
        await_event(go_on)
        last.answer()

    with book.held_up():
        leads = book.behind(partial(book.queue.submit, "a"))
        many = book.behind(partial(book.queue.submit_all, "bc"))
        book.queue._write = write
    await_event(half)
    with pytest.raises(TimeoutError):
        many.result(0.1)
    go_on.set()
    assert end(leads, many) == [None, [None, None]]
    assert book.is_at_rest


def test_queue_answers_all_of_a_thread_when_writing_fails() -> None:
    """If writing fails in an unforeseen way, each is told that its fate is open, and why."""
    book = Book()
    book.fault = fault = ZeroDivisionError()
    errors = book.queue.submit_all("ab")
    assert [type(error) for error in errors] == [UnknownError, UnknownError]
    assert [error.__cause__ for error in errors if error is not None] == [fault, fault]
    assert book.is_at_rest


def test_queue_interrupted_writing_tells_all_of_a_thread() -> None:
    """Of what a thread has handed over at once nothing is left without an answer."""
    book = Book()
    with book.held_up():
        leads = book.behind(lambda: book.queue.submit("a"))
        many = book.behind(lambda: book.queue.submit_all("bc"))
        book.queue._write = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        end(leads)
    assert [type(error) for error in end(many)[0]] == [UnknownError, UnknownError]
    assert book.is_at_rest


def test_queue_alone_in_a_block_comes_in_turn() -> None:
    """Who needs the writer for itself waits for those before, and lets nobody overtake."""
    book = Book()
    seen: list[int] = []

    def alone() -> None:
        with book.queue.alone():
            seen.append(len(book.groups))

    with book.held_up():
        threads = [*book.submit_behind("a", "b"), book.behind(alone), *book.submit_behind("c", "d")]
    end(*threads)
    assert book.groups == [["first"], ["a", "b"], ["c", "d"]]
    assert seen == [2]
    assert book.is_at_rest


def test_queue_waits_for_those_who_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds nobody writing, while others are being woken, writes together with who comes."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 60.0)
    book = Book()
    relay, other = book.queue._relay, Runner()
    other.turn.acquire()
    relay.wake(other)
    leads = begin(book.queue.submit, "a")
    wait_until(lambda: len(relay._waiting) == 1)
    follows = book.submit_behind("b", "c")
    assert book.groups == []
    relay.woke(other)
    end(leads, *follows)
    assert book.groups == [["a", "b", "c"]]
    assert book.is_at_rest
    assert not relay.is_running


def test_queue_overtakes_who_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several may write, those who wait go on after a while; where one may, they wait."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.01)
    for patience, overtaken in ((0.02, True), (None, False)):
        book, slow = Book(), threading.Event()

        def write(requests: Sequence[Request[str]], book: Book = book, slow: Any = slow) -> None:
            if requests[0].item == "slow":
                book.writing.set()
                await_event(slow)
            Book.write(book, requests)

        book.queue = CommitQueue(write, UnknownError, patience)
        first = begin(book.queue.submit, "slow")
        await_event(book.writing)
        others = [begin(book.queue.submit, item) for item in "ab"]
        if overtaken:
            end(*others)
            assert not first.done()
        book.wait_for_queue(0 if overtaken else 2)
        slow.set()
        end(first, *others)
        assert sorted(itertools.chain(*book.groups)) == ["a", "b", "slow"]
        assert (book.groups[-1] == ["slow"]) is overtaken
        assert book.is_at_rest
        book.queue.submit("later")


def test_queue_overtakes_nobody_who_writes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who needs the writer for itself has it until it is done; it may overtake a group."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.01)
    book = Book()
    book.queue = CommitQueue(book.write, UnknownError, 0.02)

    def alone() -> None:
        with book.queue.alone():
            pass

    with book.queue.alone():
        waits = begin(book.queue.submit, "a")
        wait_until(lambda: len(book.queue._waiting) == 1)
        book.queue._since -= 1
        assert not book.queue._overtakes(book.queue._waiting[0])
        assert book.groups == []
    end(waits)
    with book.held_up():
        end(begin(alone), begin(alone))
    assert book.groups == [["a"], ["first"]]


def test_queue_bounds_how_many_write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all take too long, no more than a few write, and the rest waits."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(commit_queue, "MOST_AT_ONCE", 2)
    book = Book()
    book.queue = CommitQueue(book.write, UnknownError, 0.02)
    with book.held_up():
        others = [begin(book.queue.submit, "a")]
        wait_until(lambda: len(book.queue._writing) == 2)
        others += [begin(book.queue.submit, item) for item in "bc"]
        wait_until(lambda: len(book.queue._waiting) == 2)
        book.queue._since -= 1
        assert not book.queue._overtakes(book.queue._waiting[0])
    end(*others)
    assert sorted(itertools.chain(*book.groups)) == ["a", "b", "c", "first"]
    assert book.queue._writing == []


def test_queue_who_was_overtaken_takes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader whose thread was held up until others led writes what is its own, and no more."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.01)
    book = Book()
    book.queue = CommitQueue(book.write, UnknownError, 0.02)
    late: Entry[str] = Entry((Request("late"),))
    book.queue._await_turn(late)  # leads, and its thread does nothing yet
    end(begin(book.queue.submit, "a"))
    with book.queue.alone():
        waits = begin(book.queue.submit, "b")
        wait_until(lambda: len(book.queue._waiting) == 1)
        assert late.group == [late]
        book.queue._gather(late.group)
        assert late.group == [late]
    end(waits)
    assert book.groups == [["a"], ["b"]]


@pytest.mark.parametrize("answered", [False, True])
def test_queue_who_is_never_woken_finds_out(
    monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    """Whoever was made to lead, or was answered, goes on, though an interrupt kept it asleep."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.01)
    book = Book()
    book.queue = CommitQueue(book.write, UnknownError, 60.0)
    first: Entry[str] = Entry((Request("first"),))
    book.queue._await_turn(first)
    waits = begin(book.queue.submit, "waits")
    wait_until(lambda: len(book.queue._waiting) == 1)
    assert first.group is not None
    if answered:
        book.queue._gather(first.group)
        first.group[1].requests[0].answer()
    book.queue._next_leader(first.group)  # and whoever was to be woken then is not
    end(waits, begin(book.queue.submit, "later"))
    assert book.groups == [["later"]] if answered else [["waits"], ["later"]]
    assert book.is_at_rest


def test_queue_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No group is longer than it may be; the rest is the next one."""
    monkeypatch.setattr(commit_queue, "MAX_TOGETHER", 3)
    book = Book()
    with book.held_up():
        threads = book.submit_behind(*"abcdefgh")
    end(*threads)
    assert book.groups == [["first"], list("abc"), list("def"), list("gh")]


def test_queue_itself_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the queue full waits for room before it, and is written in the end."""
    monkeypatch.setattr(commit_queue, "MAX_WAITING", 2)
    book = Book()
    with book.held_up():
        threads = book.submit_behind("a", "b")
        late = [begin(book.queue.submit, item) for item in "cde"]
        assert len(book.queue._waiting) == 2
    end(*threads, *late)
    written = list(itertools.chain(*book.groups))
    assert written[:3] == ["first", "a", "b"]
    assert sorted(written[3:]) == list("cde")
    assert book.is_at_rest


def test_queue_interrupted_writing_tells_each() -> None:
    """If whoever writes for others is interrupted, each of them is told that its fate is open."""
    book = Book()
    told: list[str] = []

    def submit(item: str) -> Callable[[], None]:
        def call() -> None:
            try:
                book.queue.submit(item)
            except (UnknownError, KeyboardInterrupt) as fault:
                told.append(f"{item}: {type(fault).__name__}")

        return call

    with book.held_up():
        threads = [book.behind(submit(item)) for item in "abc"]
        book.queue._write = raising(KeyboardInterrupt())
    end(*threads)
    assert sorted(told) == ["a: KeyboardInterrupt", "b: UnknownError", "c: UnknownError"]
    assert book.is_at_rest


def raising(fault: BaseException) -> Callable[[object], None]:
    """Return a function that raises."""

    def write(_: object) -> None:
        raise fault

    return write


PLACES = range(1, 400)
PASSED = {commit_queue.__file__, relay.__file__}


def interrupted_at(place: int, call: Callable[[], object]) -> bool:
    """Call something, with an interrupt at the n-th place of the queue where one can come.

    Python looks for signals where a function begins, and where a call of a function in C is over.

    Returns:
        Whether there was such a place.
    """
    left = place

    def look(frame: Any, event: str, _: object) -> None:
        nonlocal left
        files = (frame.f_code.co_filename, frame.f_back and frame.f_back.f_code.co_filename)
        if not {commit_queue.__file__, relay.__file__} & {*files} or event not in (
            "call",
            "c_return",
        ):
            return
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    before = sys.getprofile()
    # What the collector of garbage calls in between is no place of the queue, and swallows it.
    gc.disable()
    sys.setprofile(look)
    try:
        with suppress(KeyboardInterrupt, UnknownError):
            call()
    finally:
        sys.setprofile(before)
        gc.enable()
    return left <= 0


def test_queue_interrupt_anywhere_loses_no_turn() -> None:
    """Wherever the one who leads is interrupted, those who wait get their turn, and later ones."""
    for place in PLACES:
        book = Book()
        others: list[Any] = []

        def write(
            requests: Sequence[Request[str]], book: Book = book, others: Any = others
        ) -> None:
            if not others:
                others.extend(begin(swallowing(book, item)) for item in "ab")
                wait_until(lambda: len(book.queue._waiting) == 2)
            Book.write(book, requests)

        book.queue._write = write
        was_interrupted = interrupted_at(place, swallowing(book, "first"))
        end(*others)
        assert book.is_at_rest, place
        book.queue.submit("later")
        if not was_interrupted:
            assert place > 10
            return
    raise AssertionError("the queue has more places than that")


def check_lost_nothing(book: Book, sure: str, place: int) -> None:
    """See that each was written once, or told that its fate is open, and that the queue goes on."""
    assert book.is_at_rest, place
    book.queue.submit("later")
    written = list(itertools.chain(*book.groups))
    assert {sure, "later"} <= set(written), place
    assert set(written) | book.open >= {"a", "b"}, place
    assert len(written) == len(set(written)), place


@pytest.mark.parametrize("number", range(3))
def test_queue_interrupt_anywhere_of_who_waits_loses_no_turn(number: int) -> None:
    """Wherever whoever waits is interrupted, the others are written, and so are later ones."""
    for place in PLACES:
        book = Book()
        outcome: list[bool] = []

        def waiting(book: Book = book, place: int = place, outcome: Any = outcome) -> None:
            outcome.append(interrupted_at(place, lambda: book.queue.submit("waits")))

        with book.held_up():
            # As the one who leads, or as one of those who are woken by one another.
            others = [book.behind(swallowing(book, item)) for item in "ab"[:number]]
            waits = begin(waiting)
            book.wait_for_queue(number + 1, outcome)
            others += [begin(swallowing(book, item)) for item in "ab"[number:]]
        end(waits, *others)
        check_lost_nothing(book, "first", place)
        if not outcome[0]:
            return
    raise AssertionError("the queue has more places than that")


def test_queue_interrupt_anywhere_of_who_overtakes_loses_no_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever whoever overtakes is interrupted, the others are written, and later ones."""
    monkeypatch.setattr(commit_queue, "LOOK_SECONDS", 0.005)
    for place in PLACES:
        book, slow, outcome = Book(), threading.Event(), list[bool]()

        def write(requests: Sequence[Request[str]], book: Book = book, slow: Any = slow) -> None:
            if requests[0].item == "slow":
                book.writing.set()
                await_event(slow)
            Book.write(book, requests)

        def overtake(book: Book = book, place: int = place, outcome: Any = outcome) -> None:
            outcome.append(interrupted_at(place, lambda: book.queue.submit("overtakes")))

        book.queue = CommitQueue(write, UnknownError, 0.01)
        first = begin(swallowing(book, "slow"))
        await_event(book.writing)
        overtakes = begin(overtake)
        book.wait_for_queue(1, outcome)
        others = [begin(swallowing(book, item)) for item in "ab"]
        end(overtakes, *others)
        slow.set()
        end(first)
        check_lost_nothing(book, "slow", place)
        if not outcome[0]:
            return
    raise AssertionError("the queue has more places than that")


def swallowing(book: Book, item: str) -> Callable[[], None]:
    """Return what submits an item, and takes it as it comes if its fate is open."""

    def call() -> None:
        try:
            book.queue.submit(item)
        except UnknownError:
            book.open.add(item)

    return call
