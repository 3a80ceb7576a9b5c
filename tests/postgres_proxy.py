"""The network between a program and a PostgreSQL server, as bad as one likes.

A proxy listens on this machine, and passes on what is said to the server's own socket. It can be
told to close all connections, to refuse new ones, to swallow or to hold what goes one way or the
other, to delay it, and to deliver a request whose answer it then loses. What passes is not looked
into, except for the server's word that it has answered (`ReadyForQuery`).

What was sent to the server stays sent: a program that has gone away, or has closed its connection,
may still have a request under way that arrives later.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self

import attrs

Way = Literal["request", "answer"]
"""To the server, and from it."""
BOTH: Final[tuple[Way, Way]] = ("request", "answer")

_READY: Final = tuple(b"Z\x00\x00\x00\x05" + status for status in (b"I", b"T", b"E"))
_MOST_BYTES: Final = 65536


@attrs.define
class _Weather:
    """What happens to what is passed on."""

    refuses: bool = False
    swallows: frozenset[Way] = frozenset()
    holds: frozenset[Way] = frozenset()
    delay_seconds: float = 0.0
    answers_to_lose: int = 0


@attrs.define(eq=False)
class _Link:
    """One connection of a program, and the one to the server that belongs to it."""

    client: socket.socket
    server: socket.socket
    flowing: set[Way] = attrs.field(factory=lambda: set(BOTH))
    ready: bool = False
    asked: bool = False
    losing: bool = False
    spoilt: bool = False
    cut: bool = False


class Proxy:
    """A way to a server that can be cut off.

    Args:
        server: Where the server listens: the path of its socket, or a host and a port.

    Attributes:
        port: Where this listens, on 127.0.0.1.
        accepted: How many connections were accepted.
        closed: How many were cut by this.
        lost: How many answers were lost on purpose.

    Threads: safe.
    """

    def __init__(self, server: str | tuple[str, int]) -> None:
        self._server = server
        self._links: set[_Link] = set()
        self._weather = _Weather()
        self._changed = threading.Condition()
        self._closing = False
        self.accepted = self.closed = self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._accepting.start()

    # --- what can be done to it -----------------------------------------------------------

    def close_all(self) -> int:
        """Cut every connection that there is; returns how many."""
        with self._changed:
            return sum(self._cut(link) for link in tuple(self._links))

    def refuse(self) -> None:
        """Cut every connection that there is, and every new one, until it is healed."""
        with self._changed:
            self._weather.refuses = True
        self.close_all()

    def swallow(self, *ways: Way) -> None:
        """Accept and lose all that goes this way; nobody is told, until it is healed."""
        self._change(lambda weather: setattr(weather, "swallows", frozenset(ways)))

    def hold(self, *ways: Way) -> None:
        """Keep all that goes this way, and deliver it when it is healed."""
        self._change(lambda weather: setattr(weather, "holds", frozenset(ways)))

    def delay(self, seconds: float) -> None:
        """Deliver everything so much later."""
        self._change(lambda weather: setattr(weather, "delay_seconds", seconds))

    def lose_answers(self, count: int = 1) -> None:
        """Deliver the next requests, and cut their connections instead of delivering the answers.

        Only connections on which the server has answered once count: those that are being made
        have nothing to lose.
        """
        with self._changed:
            for link in self._links:
                link.asked = False
            self._weather.answers_to_lose = count

    def heal(self) -> None:
        """Pass on everything again; connections of which something was lost are cut."""
        with self._changed:
            self._weather = _Weather()
            for link in tuple(self._links):
                if link.spoilt:
                    self._cut(link)
            self._changed.notify_all()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        with self._changed:
            return len(self._links)

    def close(self) -> None:
        """Cut all connections and listen no longer."""
        with self._changed:
            self._closing = True
        self._listener.close()
        self.close_all()
        # Closing a listener does not wake who waits for a connection everywhere; one more does.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._accepting.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._links)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- passing on -----------------------------------------------------------------------

    def _change(self, change: Callable[[_Weather], None]) -> None:
        with self._changed:
            change(self._weather)
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                if self._closing:
                    client.close()
                    return
                self.accepted += 1
                refuses = self._weather.refuses
            server = None if refuses else self._connect()
            if server is None:
                _reset(client)
                continue
            link = _Link(client, server)
            with self._changed:
                self._links.add(link)
                if self._closing or self._weather.refuses:
                    self._cut(link)
            for way in BOTH:
                threading.Thread(
                    target=self._pump, args=(link, way), name=f"proxy-{way}", daemon=True
                ).start()

    def _connect(self) -> socket.socket | None:
        family = socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET
        server = socket.socket(family)
        try:
            server.connect(self._server)
        except OSError:
            server.close()
            return None
        return server

    def _pump(self, link: _Link, way: Way) -> None:
        source, sink = link.client, link.server
        if way == "answer":
            source, sink = sink, source
        # Whatever one side does not take any longer ends the way there, and not the way back.
        with contextlib.suppress(OSError):
            while part := source.recv(_MOST_BYTES):
                if self._passes(link, way, part):
                    sink.sendall(part)
            self._wait_to_end(link, way)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._changed:
            link.flowing.discard(way)
            if way == "answer":
                # Nobody listens any longer; what was asked before is still delivered.
                _shut(link.client, socket.SHUT_RD)
            if not link.flowing:
                self._links.discard(link)
                link.client.close()
                link.server.close()
                self._changed.notify_all()

    def _passes(self, link: _Link, way: Way, part: bytes) -> bool:
        """Wait until a part may go on; returns whether it is delivered."""
        begun = time.monotonic()
        with self._changed:
            while not link.cut:
                weather = self._weather
                if way in weather.swallows:
                    link.spoilt = True
                    return False
                left = begun + weather.delay_seconds - time.monotonic()
                if way in weather.holds:
                    self._changed.wait()
                elif left > 0:
                    self._changed.wait(left)
                else:
                    break
            if link.cut or link.spoilt:
                return False
            if way == "request":
                link.asked = link.ready
                return True
            return self._is_heard(link, part)

    def _wait_to_end(self, link: _Link, way: Way) -> None:
        """Wait until the end of one way may be told: it can't be where nothing else can."""
        with self._changed:
            while not link.cut and way in self._weather.holds | self._weather.swallows:
                self._changed.wait()

    def _is_heard(self, link: _Link, part: bytes) -> bool:
        """Tell whether an answer is delivered; if it is lost, cut its connection at its end."""
        ends = part.endswith(_READY)
        if link.asked and not link.losing and self._weather.answers_to_lose:
            self._weather.answers_to_lose -= 1
            self.lost += 1
            link.losing = True
        link.ready = link.ready or ends
        if link.losing and ends:
            self._cut(link)
        return not link.losing

    def _cut(self, link: _Link) -> bool:
        """Cut a connection, under the lock; returns whether it was not cut before."""
        if link.cut:
            return False
        link.cut = True
        self.closed += 1
        for side in (link.client, link.server):
            _shut(side, socket.SHUT_RDWR)
        self._changed.notify_all()
        return True


def _shut(side: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(how)


def _reset(side: socket.socket) -> None:
    """Close a connection so that whoever is at its other end is told of an error."""
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()
