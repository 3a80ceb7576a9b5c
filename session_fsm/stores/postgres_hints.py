"""Hints between processes that something was committed; nothing rests on them.

They are LISTEN and NOTIFY. A notification inside of a commit would make commits wait for each
other, as the server puts those in one order. So it is sent behind the commit, by a thread of its
own, for all that was committed in a while together. One may be lost, or never come where an engine
or a pooler knows none: whoever waits looks by itself from time to time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors

from ..clock import random_id
from ..errors import StoreError
from .postgres_faults import ConnectError, has_no_right, is_not_now
from .postgres_links import not_listening

if TYPE_CHECKING:
    from .postgres_connection import Connections
    from .postgres_links import Connection

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.05
"""Shortest time between two notifications of one store."""
RETRY_SECONDS: Final = 1.0
REST_SECONDS: Final = 10.0
"""The same for a server that only reads for now, and logs what it refuses."""
_NOT_HERE: Final = (errors.FeatureNotSupported, errors.UndefinedFunction, errors.SyntaxError)
_AT_ONCE: Final = 4096
_NOTIFY: Final = b"SELECT pg_notify(%s::text, %s::text)"


def channel_of(schema: str) -> str:
    """Return the name of the channel of a schema, however long the name of that one is."""
    return f"session_fsm_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"


class Hints:
    """What one store tells others of, and hears from them.

    Args:
        connections: For this alone: one is kept for as long as anybody has watched. It needs two.
        listens: Whether others are heard of; False where no connection may be kept.

    Threads: safe. One sends, from the first commit on; one listens, from the first watch on.
    """

    def __init__(self, connections: Connections, *, listens: bool = True) -> None:
        self._connections = connections
        self._listens = listens
        self._channel = channel_of(connections.sql.schema)
        self._name = random_id()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._committed = threading.Event()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._threads: dict[Callable[[], None], threading.Thread] = {}
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)

    # --- sending --------------------------------------------------------------------------

    def committed(self) -> None:
        """Tell others, soon, that something was committed; does not wait, and never raises."""
        if not self._committed.is_set():
            self._committed.set()
            try:
                self._start(self._send)
            except (RuntimeError, MemoryError) as fault:  # no thread can be had
                logger.warning("nobody is told of a commit, others have to look: %s", fault)
                self._committed.clear()

    def _send(self) -> None:
        while True:
            self._committed.wait()
            if self._closing.is_set():
                return
            self._committed.clear()  # before it is sent: what is committed meanwhile is told again
            pause = PAUSE_SECONDS
            try:
                self._connections.read(
                    lambda link: link.execute(_NOTIFY, (self._channel, self._name))
                )
            except StoreError as fault:
                if _is_never(fault.__cause__):
                    logger.info("nobody is told of commits, others have to look: %s", fault)
                    return
                pause = _rest_after(fault.__cause__)
            self._closing.wait(pause)

    # --- listening ------------------------------------------------------------------------

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have something called when another process may have committed.

        Args:
            callback: Called on a thread of the store's own; what it raises is logged.

        Returns:
            What ends it; twice is harmless.

        Raises:
            RuntimeError: No thread can be had that listens.
        """
        key = object()
        self._callbacks[key] = callback
        if self._listens:
            try:
                self._start(self._listen)
            except BaseException:
                del self._callbacks[key]
                raise

        def end() -> None:
            self._callbacks.pop(key, None)

        return end

    def _listen(self) -> None:
        while not self._closing.is_set():
            pause = RETRY_SECONDS
            try:
                with self._connections.link() as link:
                    self._follow(link)
            except (psycopg.Error, StoreError) as fault:
                if _is_never(fault):
                    logger.info("commits of others are not heard of, only found: %s", fault)
                    return
                logger.debug("not listening for a while: %s", fault)
                pause = _rest_after(fault)
            if self._closing.wait(pause):
                return

    def _follow(self, link: Connection) -> None:
        link.remove_notify_handler(not_listening)
        try:
            link.execute(f'LISTEN "{self._channel}"'.encode())
            self._ring()  # what was committed before is heard of by nobody
            with selectors.DefaultSelector() as selector:
                selector.register(link.fileno(), selectors.EVENT_READ)
                selector.register(self._wakened, selectors.EVENT_READ)
                while not self._closing.is_set():
                    selector.select()
                    # Whatever was written there must not keep it awake.
                    with contextlib.suppress(BlockingIOError):
                        self._wakened.recv(_AT_ONCE)
                    heard = list(link.notifies(timeout=0))
                    if any(each.payload != self._name for each in heard):
                        self._ring()
        finally:
            link.add_notify_handler(not_listening)
            with contextlib.suppress(psycopg.Error):
                if not link.closed:
                    link.execute(f'UNLISTEN "{self._channel}"'.encode())

    def _ring(self) -> None:
        for callback in list(self._callbacks.values()):
            try:
                callback()
            except Exception:
                logger.exception("whoever watches has failed")

    # --- threads --------------------------------------------------------------------------

    def _start(self, work: Callable[[], None]) -> None:
        with self._starting:
            if work in self._threads or self._closing.is_set():
                return
            name = f"session_fsm {work.__name__[1:]}"
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads[work] = thread  # only one that has begun can be waited for

    def close(self) -> None:
        """Send and hear nothing any longer; twice is harmless, and so it is in a fork's child."""
        if self._connections.is_inherited:
            return  # what wakes the listener is the parent's, too
        with self._starting:
            if self._closing.is_set():
                return
            self._closing.set()
        self._committed.set()
        self._waker.send(b"!")
        for thread in self._threads.values():
            if thread is not threading.current_thread():
                thread.join()
        for end in (self._waker, self._wakened):
            end.close()


def _is_never(fault: BaseException | None) -> bool:
    """Tell whether an engine, or a role, will never send or hear anything."""
    return isinstance(fault, _NOT_HERE) or (
        has_no_right(fault) and not isinstance(fault, ConnectError)
    )


def _rest_after(fault: BaseException | None) -> float:
    return REST_SECONDS if is_not_now(fault) else RETRY_SECONDS
