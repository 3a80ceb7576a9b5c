"""Changes that tasks ask for, made together: one thread makes all that wait, at one go.

The first that is asked for has the thread begin, in the next turn of the loop; what is asked for
meanwhile waits until that is done. Whoever takes long, a store or a guard, is waited for by nobody
who comes later, as long as there are threads: what waits by then is made by another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from ..decisions import Decision
from ..errors import ManagerClosedError
from ..session import Session
from ..sharing import own_copy
from ..together import Asked
from .calls import FAILED, GONE_THROUGH, NOT_BEGUN, Calls, until_done
from .steps import SteppedManager
from .timing import call_soon

logger = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 0.1
"""Who waits longer is no longer made to wait."""
MOST_TOGETHER: Final = 256
"""Most changes that are made at one go."""
LOOK_SECONDS: Final = 0.01
"""How often it is looked for what nobody tells of."""


class _Move(Asked):
    """A change that a task waits for.

    Attributes:
        is_told: Whether it is known what came of it, be it that nobody waits for `told` any longer.
        came: What: a session, or an error; None: nothing, and it is to be made by itself.
        told: Done when it is known.
    """

    __slots__ = ("_unbegun", "came", "is_told", "told")

    def __init__(
        self,
        session_id: str,
        decision: Decision,
        expected_revision: int | None,
        told: asyncio.Future[None],
    ) -> None:
        super().__init__(session_id, decision, expected_revision, contextvars.copy_context())
        self.is_told = False
        self.came: Session | BaseException | None = None
        self.told = told
        self._unbegun = [None]

    def begin(self) -> bool:
        """Tell whether whoever asks, on whichever thread, is the first: to make it, or not to."""
        return _is_first(self._unbegun)


Told = tuple[_Move, Session | BaseException | None, datetime | None]
"""A change, what came of it, and when the session is due."""


class _Going:
    """Changes that are made together.

    Attributes:
        moves: The changes.
        told: What came of them, but for those that are told later; None: that is not known of all.
    """

    __slots__ = ("_unclaimed", "moves", "told")

    def __init__(self, moves: list[_Move]) -> None:
        self.moves = moves
        self.told: list[Told] | None = None
        self._unclaimed = [None]

    def claim(self) -> bool:
        """Tell whether whoever asks, on whichever thread, is the first to do so."""
        return _is_first(self._unclaimed)


class Moving:
    """Makes changes of sessions for one event loop.

    Args:
        inner: The manager of threads.
        calls: Makes its calls.
        expect: Is told when sessions are due.

    Threads: none but the loop's.
    """

    def __init__(
        self, inner: SteppedManager, calls: Calls, expect: Callable[[datetime], None]
    ) -> None:
        self._inner = inner
        self._calls = calls
        self._expect = expect
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[_Move, None] = {}  # in order
        self._is_due = False
        self._going: _Going | None = None
        self._left = 0
        self._busy: asyncio.Future[None] | None = None

    async def __call__(
        self,
        session_id: str,
        decision: Decision,
        expected_revision: int | None = None,
        *,
        waits: bool = False,
    ) -> Session:
        """Decide on a session and commit; errors as `Core.change`.

        Args:
            session_id: Key of a stored session.
            decision: What is decided on it.
            expected_revision: The revision that it must have; None: any.
            waits: Whether the decision may take long, or has more to be written than steps.

        Raises:
            asyncio.CancelledError: With a note that says what became of it.
            ManagerClosedError: No calls are made any longer.
        """
        if not waits and self._inner.is_at_hand(session_id, decision):
            if not self._calls.is_open:
                raise ManagerClosedError()
            told = self._loop.create_future()
            move = _Move(session_id, decision, expected_revision, told)
            self._ask(move)
            try:
                await told
            except asyncio.CancelledError as cancelled:
                await self._take_back(move, cancelled)
                raise
            came = move.came
            if isinstance(came, BaseException):
                try:
                    raise came
                finally:
                    del came, move  # or the traceback would hold itself
            if came is not None:
                return came
        change = partial(self._inner.change, session_id, decision, expected_revision)
        session = await self._calls(change)
        due = self._inner.deadline_of(session)
        if due is not None:
            self._expect(due)
        return session

    async def _take_back(self, move: _Move, cancelled: asyncio.CancelledError) -> None:
        """Undo that a change was asked for, or wait for it; notes what has become of it."""
        if not move.is_told and move.begin():
            self._waiting.pop(move, None)
            move.is_told = True
            self._let_go(1)
        elif not move.is_told:
            move.told = self._loop.create_future()
            await until_done(move.told)
        if isinstance(move.came, BaseException):
            cancelled.add_note(f"{FAILED}{move.came!r}")
        else:
            cancelled.add_note(NOT_BEGUN if move.came is None else GONE_THROUGH)

    def _ask(self, move: _Move) -> None:
        if not self._left:
            # Whoever closes waits for that.
            self._busy = self._loop.create_future()
            self._calls.hold(self._busy)
        self._left += 1
        self._waiting[move] = None
        self._see_to_next()

    def _see_to_next(self) -> None:
        # In the next turn: until then all who are to go on in this one may have asked.
        if self._waiting and not self._is_due and self._going is None:
            self._is_due = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        moves = list(islice(self._waiting, MOST_TOGETHER))
        if not moves:
            return
        going = self._going = _Going(moves)
        for move in moves:
            del self._waiting[move]
        patience = self._loop.call_later(PATIENCE_SECONDS, self._go_on_without, going)
        try:
            made = self._calls.begin(partial(self._make, going))
        except BaseException as fault:  # noqa: BLE001 - no thread can be had; it is told
            if going.claim():
                going.told = [(move, own_copy(fault), None) for move in moves]
            self._look(going, patience)
        else:
            made.add_done_callback(lambda _: self._look(going, patience))

    def _look(self, going: _Going, patience: asyncio.TimerHandle) -> None:
        """Tell what came of changes, once that is known."""
        if going.told is None:
            # No thread could be had, and one has taken them all the same.
            self._loop.call_later(LOOK_SECONDS, self._look, going, patience)
            return
        patience.cancel()
        self._tell(going.told)
        self._go_on_without(going)

    def _go_on_without(self, going: _Going) -> None:
        if self._going is going:
            self._going = None
            self._see_to_next()

    def _make(self, going: _Going) -> None:
        """Make changes; on a thread."""
        if not going.claim():
            return
        me = threading.get_ident()
        told: list[Told] = []

        def tell(move: _Move, came: Session | BaseException | None, due: datetime | None) -> None:
            if threading.get_ident() == me:
                told.append((move, came, due))
            else:
                call_soon(self._loop, self._tell, ((move, came, due),))

        try:
            self._inner.change_together(going.moves, tell)
        except BaseException as fault:
            logger.exception("of %d changes not all have an answer", len(going.moves))
            told += [(move, own_copy(fault), None) for move in going.moves]  # if it has no answer
        going.told = told

    def _tell(self, told: Sequence[Told]) -> None:
        count = 0
        for move, came, _ in told:
            if not move.is_told:
                move.is_told, move.came = True, came
                count += 1
                if not move.told.done():
                    move.told.set_result(None)
        self._let_go(count)
        first = min((due for _, _, due in told if due is not None), default=None)
        if first is not None:
            self._expect(first)

    def _let_go(self, count: int) -> None:
        self._left -= count
        if not self._left and self._busy is not None:
            self._calls.let_go(self._busy)
            self._busy = None


def _is_first(untaken: list[None]) -> bool:
    """Tell whether nobody, on whichever thread, was here before: what one takes is gone."""
    try:
        untaken.pop()
    except IndexError:
        return False
    return True
