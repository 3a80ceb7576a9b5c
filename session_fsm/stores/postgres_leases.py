"""Who lives, by the clock of the database: each owner has a row with an instant, renewed in time.

An owner lives until that instant. It is renewed long before, never once it has passed, and the
owner itself gives up earlier than the database does: at the end of its lease less a margin, counted
from before the request was sent, by a clock that goes on while the machine is suspended. In between
it has the time to stop what it runs, before anybody else begins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Final

from ..errors import FencedError, StoreError, StoreUnavailableError
from .postgres_clock import DatabaseClock, Seconds, boot_time
from .postgres_connection import Connections
from .postgres_links import Connection
from .postgres_newcomers import Newcomer, Newcomers

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 30.0
_BEATS: Final = 3
"""So often is a lease renewed in the time that it lasts."""
_RETRIES: Final = 5
"""So often is it tried, in the time between two renewals, where the server can't be reached."""

_RENEW: Final = (
    "UPDATE {s}.owner SET expires_at = clock_timestamp() + %s::interval"
    " WHERE owner_id = ANY(%s::text[]) AND expires_at > clock_timestamp()"
    " RETURNING owner_id"
)
_NOW: Final = "SELECT clock_timestamp() AT TIME ZONE 'UTC'"
_DISMISS: Final = "DELETE FROM {s}.owner WHERE owner_id = ANY(%s::text[])"
_LIVING: Final = (
    "SELECT owner_id FROM {s}.owner"
    " WHERE owner_id = ANY(%s::text[]) AND expires_at > clock_timestamp() LIMIT 1"
)


class _Lease:
    """The lease of one owner of this process."""

    __slots__ = ("end", "is_lapsed", "is_told", "lapsed", "owner_id", "teller")

    def __init__(self, owner_id: str, end: float, lapsed: Callable[[], None] | None) -> None:
        self.owner_id = owner_id
        self.end = end
        self.lapsed = lapsed
        self.is_lapsed = False
        self.is_told = False
        self.teller: threading.Thread | None = None


class Leases:
    """The leases of the owners of one store.

    Args:
        connections: Those of the store.
        beats: Others, that nobody can use up, and that give up soon.
        clock: Told what time the database has, whenever that is known anew.
        beaten: Called after each renewal; it does not wait, and never raises.
        lease_seconds: How long an owner lives without a renewal.
        margin_seconds: How much earlier it gives up itself; None: a third of that.
        seconds: Tells what has passed.

    Threads: safe. One renews, one watches the ends, and each owner that has lapsed is told on a
    thread of its own; all of them begin with the first owner.
    """

    def __init__(
        self,
        connections: Connections,
        beats: Connections,
        *,
        clock: DatabaseClock,
        beaten: Callable[[], None],
        lease_seconds: float = LEASE_SECONDS,
        margin_seconds: float | None = None,
        seconds: Seconds = boot_time,
    ) -> None:
        self.lease_seconds = lease_seconds
        self.margin_seconds = lease_seconds / 3 if margin_seconds is None else margin_seconds
        if not 0 <= self.margin_seconds < lease_seconds:
            raise ValueError(f"a lease of {lease_seconds} s has no margin of {margin_seconds} s")
        self._connections = connections
        self._beats = beats
        self._sql = connections.sql
        self._clock = clock
        self._beaten = beaten
        self._seconds = seconds
        self._leases: dict[str, _Lease] = {}
        self._newcomers = Newcomers(connections.sql, seconds)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def beat_seconds(self) -> float:
        """The time between two renewals."""
        return self.lease_seconds / _BEATS

    # --- owners ---------------------------------------------------------------------------

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        """Make an owner known, and keep it alive.

        Where the role only reads, nobody is made known. Where the server does for now, the owner is
        as soon as that is over; until then it can't write.

        Args:
            owner_id: The owner.
            lapsed: Called once it can't be sure any longer that it lives; again until it returns.

        Raises:
            StoreUnavailableError: An owner of this name lives, the server can't be reached, or it
                has no connection left for heartbeats.
        """
        if not self._threads:
            self._take_connection()
        newcomer = Newcomer(owner_id, self._interval(), lapsed)
        if self._newcomers.take_in(newcomer, self._connections):
            self._admit(newcomer)
        elif owner_id not in self._newcomers:
            return
        try:
            self._start()
        except BaseException:
            self.dismiss(owner_id)  # nobody would renew it
            raise

    def _admit(self, newcomer: Newcomer) -> None:
        lease = _Lease(newcomer.owner_id, self._end(newcomer.sent), newcomer.lapsed)
        with self._changed:
            self._leases[newcomer.owner_id] = lease
            self._changed.notify_all()

    def _take_connection(self) -> None:
        """Have the connection of the heartbeats made, which they keep.

        Who works may use up what the server or the role may have before the first of them.
        """
        self._connections.check_open()
        patience = self._connections.patience()
        while True:
            try:
                self._beats.outside_batch(self.measure)
                return
            except StoreUnavailableError:
                if not patience.pause():
                    raise

    def dismiss(self, owner_id: str) -> None:
        """Declare an owner of this process dead; of another one: nothing."""
        self._newcomers.discard(owner_id)
        with self._changed:
            known = self._leases.pop(owner_id, None)
        if known is not None:
            self._remove([owner_id])

    def _remove(self, owner_ids: list[str]) -> bool:
        try:
            self._beats.outside_batch(lambda link: link.execute(self._sql(_DISMISS), [owner_ids]))
        except StoreError as fault:
            logger.warning("owners die when their leases end, nobody could say so: %s", fault)
            return False
        return True

    def check(self, owner_id: str, session_id: str) -> None:
        """Refuse to write for an owner of this process that can't be sure that it lives.

        Raises:
            FencedError: It can't.
            StoreUnavailableError: It is not known yet.
        """
        self._newcomers.check(owner_id)
        if self.lapsed(owner_id):
            raise FencedError(session_id=session_id, owner_id=owner_id)

    def has(self, owner_id: str) -> bool:
        """Tell whether this is an owner of this process, be it one that has lapsed."""
        return owner_id in self._leases

    def lapsed(self, owner_id: str) -> bool:
        """Tell whether this is an owner of this process that can't be sure that it lives."""
        lease = self._leases.get(owner_id)
        return lease is not None and not self._is_held(lease)

    def fence(self, link: Connection, session_id: str, owner_id: str | None = None) -> None:
        """Refuse to write for an owner that does not live; in a transaction.

        Args:
            link: In that transaction.
            session_id: What is written to.
            owner_id: In whose name; None: in that of any owner of this process, if it has any.

        Raises:
            FencedError: It does not, or none does.
            StoreUnavailableError: It is not known yet, or none is.
        """
        if owner_id is not None:
            self.check(owner_id, session_id)
            if link.execute(self._sql(_LIVING), [[owner_id]]).fetchone() is None:
                raise FencedError(session_id=session_id, owner_id=owner_id)
            return
        leases = list(self._leases.values())
        if not leases:
            for newcomer in self._newcomers:
                self._newcomers.check(newcomer)
            return
        held = [lease.owner_id for lease in leases if self._is_held(lease)]
        if not held or link.execute(self._sql(_LIVING), [held]).fetchone() is None:
            raise FencedError(session_id=session_id, owner_id=leases[0].owner_id)

    def _is_held(self, lease: _Lease) -> bool:
        if not lease.is_lapsed and self._seconds() < lease.end:
            return True
        with self._changed:
            lease.is_lapsed = True
            self._changed.notify_all()
        return False

    def _interval(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    def _end(self, sent: float) -> float:
        return sent + self.lease_seconds - self.margin_seconds

    # --- what goes on by itself -----------------------------------------------------------

    def renew(self) -> bool:
        """Renew the leases that are held, take in newcomers, and learn what time it is.

        Returns:
            Whether all of that was done.
        """
        leases = list(self._leases.values())
        held = [lease for lease in leases if self._is_held(lease)]
        gone = [lease.owner_id for lease in leases if lease.is_told]
        try:
            if gone and self._remove(gone):
                with self._changed:
                    for owner_id in gone:
                        # It stays refused until it is dismissed; there is nothing to remove.
                        if (lease := self._leases.get(owner_id)) is not None:
                            lease.is_told = False
            if held:
                sent, renewed = self._beats.outside_batch(lambda link: self._renewed(link, held))
                with self._changed:
                    for lease in held:
                        if lease.owner_id not in renewed:
                            lease.is_lapsed = True
                        elif not lease.is_lapsed:
                            lease.end = self._end(sent)
                    self._changed.notify_all()
            self._beats.outside_batch(self.measure)
            return self._newcomers.take_in_all(self._beats, self._admit, self.dismiss)
        except StoreError as fault:
            logger.warning("leases were not renewed: %s", fault)
            return False

    def _renewed(self, link: Connection, held: list[_Lease]) -> tuple[float, set[str]]:
        sent = self._seconds()
        names = [lease.owner_id for lease in held]
        rows = link.execute(self._sql(_RENEW), (self._interval(), names)).fetchall()
        return sent, {owner_id for (owner_id,) in rows}

    def measure(self, link: Connection) -> None:
        """Ask what time it is."""
        sent = self._seconds()
        row = link.execute(self._sql(_NOW), binary=True).fetchone()
        received = self._seconds()
        assert row is not None
        self._clock.measure(sent, received, row[0].replace(tzinfo=UTC))

    def _start(self) -> None:
        with self._changed:
            for work in (self._beat, self._watch)[len(self._threads) :]:
                thread = threading.Thread(target=work, name=f"session_fsm {work.__name__[1:]}")
                thread.daemon = True
                thread.start()
                self._threads.append(thread)

    def _beat(self) -> None:
        pause = self.beat_seconds
        while not self._closing.wait(pause):
            done = False
            try:
                done = self.renew()
                if done:
                    self._beaten()
            except Exception:
                # Whatever it is that fails now: without this thread every owner lapses.
                logger.exception("leases could not be renewed")
            pause = self.beat_seconds if done else self.beat_seconds / _RETRIES

    def _watch(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                now = self._seconds()
                pause = self.beat_seconds
                try:
                    ends = self._look(now)
                except Exception:
                    # Such as no thread to be had: nobody else tells those who have lapsed.
                    logger.exception("owners that have lapsed could not be told")
                    ends, pause = [], self.beat_seconds / _RETRIES
                # A clock of the machine may jump where the wait does not: it looks again soon.
                self._changed.wait(min([*ends, pause]))

    def _look(self, now: float) -> list[float]:
        """Have those told who have lapsed; returns in how many seconds the others do."""
        leases = list(self._leases.values())
        for lease in leases:
            lease.is_lapsed = lease.is_lapsed or now >= lease.end
        for lease in leases:
            if lease.is_lapsed and lease.teller is None:
                teller = threading.Thread(
                    target=self._tell, args=(lease,), name="session_fsm lapsed", daemon=True
                )
                teller.start()
                lease.teller = teller
        return [lease.end - now for lease in leases if not lease.is_lapsed]

    def _tell(self, lease: _Lease) -> None:
        logger.error("owner %s can't be sure any longer that it lives", lease.owner_id)
        while lease.lapsed is not None:
            try:
                lease.lapsed()
                break
            except Exception:
                logger.exception("owner %s has lapsed, and could not stop", lease.owner_id)
                if self._closing.wait(self.beat_seconds):
                    return
        # Only now may others take what it had before its lease ends by itself.
        lease.is_told = True

    def close(self) -> None:
        """Declare every owner of this process dead, and end the threads."""
        self._closing.set()
        self._newcomers.clear()
        with self._changed:
            # Of one that could not stop, others wait for the end of its lease.
            gone = [
                lease.owner_id
                for lease in self._leases.values()
                if lease.is_told or not lease.is_lapsed
            ]
            self._leases.clear()
            self._changed.notify_all()
        if gone:
            self._remove(gone)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
