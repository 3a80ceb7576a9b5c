"""A proxy between a store and its server, which loses, holds, or stops what goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

CHUNK_BYTES = 65_536
PATIENCE_SECONDS = 30.0


class _Pair:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens at a port of its own, and passes on to another one.

    Args:
        port: Where the server listens.

    Attributes:
        port: Where the proxy does.
        happened: Set once something that was armed has happened.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._refusing = False
        self._flow = threading.Event()
        self._flow.set()
        self._on_request: Callable[[_Pair, bytes], bool] | None = None
        self._on_answer: Callable[[_Pair, bytes], bool] | None = None
        self._late: list[tuple[socket.socket, bytes]] = []
        self.happened = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.append(pair)
            self._start(self._pass_on, pair, client, server, "_on_request")
            self._start(self._pass_on, pair, server, client, "_on_answer")

    def _pass_on(self, pair: _Pair, source: socket.socket, sink: socket.socket, hook: str) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                self._flow.wait()
                with self._lock:
                    act = getattr(self, hook)
                    passed = act is None or act(pair, data)
                if passed:
                    sink.sendall(data)
        except OSError:
            pass
        with self._lock:
            kept = any(pair.server is server for server, _ in self._late)
        if not kept:
            pair.close()

    # --- what goes wrong ------------------------------------------------------------------

    def lose_answer(self, to: bytes = b"") -> None:
        """Cut the connection when the server answers the next request that holds something.

        The server has done what it was asked then.
        """
        asked: list[_Pair] = []

        def on_request(pair: _Pair, data: bytes) -> bool:
            if to in data and not asked:
                asked.append(pair)
                self._on_request = None
            return True

        def on_answer(pair: _Pair, _: bytes) -> bool:
            if pair not in asked:
                return True
            self._on_answer = None
            self._cut(pair)
            return False

        self._arm(on_request, on_answer)

    def lose_request(self, of: bytes = b"") -> None:
        """Cut the connection instead of passing on the next request that holds something."""

        def on_request(pair: _Pair, data: bytes) -> bool:
            if of not in data:
                return True
            self._on_request = None
            self._cut(pair)
            return False

        self._arm(on_request, None)

    def hold_request(self, of: bytes = b"") -> None:
        """Keep the next request that holds something, and cut it off from who has sent it."""

        def on_request(pair: _Pair, data: bytes) -> bool:
            if of not in data:
                return True
            self._on_request = None
            self._late.append((pair.server, data))
            with contextlib.suppress(OSError):
                pair.client.shutdown(socket.SHUT_RDWR)
            self.happened.set()
            return False

        self._arm(on_request, None)

    def swallow_request(self, of: bytes = b"") -> None:
        """Lose the next request that holds something, and say so to nobody."""

        def on_request(_: _Pair, data: bytes) -> bool:
            if of not in data:
                return True
            self._on_request = None
            self.happened.set()
            return False

        self._arm(on_request, None)

    def deliver(self) -> None:
        """Pass on what was held."""
        for server, data in self._late:
            server.sendall(data)

    def _arm(
        self,
        on_request: Callable[[_Pair, bytes], bool] | None,
        on_answer: Callable[[_Pair, bytes], bool] | None,
    ) -> None:
        with self._lock:
            self.happened.clear()
            self._on_request, self._on_answer = on_request, on_answer

    def _cut(self, pair: _Pair) -> None:
        pair.close()
        self.happened.set()

    def refuse(self, *, refusing: bool = True) -> None:
        """Let nobody connect any more, or again."""
        self._refusing = refusing

    def cut_all(self) -> None:
        """Cut every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Pass nothing on inside, and close nothing."""
        self._flow.clear()
        try:
            yield
        finally:
            self._flow.set()

    # --- the end --------------------------------------------------------------------------

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flow.set()
        for server, _ in self._late:
            server.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
