"""The proxy does to connections what it is told to, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_proxy import BOTH, Proxy

READY = b"Z\x00\x00\x00\x05I"
PATIENCE_SECONDS = 20.0


class Echo:
    """A server that notes each line that it hears, says it again, and that it is ready."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.heard: list[bytes] = []
        self.ends = 0
        self._changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        serving = []
        while True:
            side, _ = self._listener.accept()
            if not self.path:
                side.close()
                break
            serving.append(threading.Thread(target=self._serve, args=(side,)))
            serving[-1].start()
        for each in serving:
            each.join()

    def _serve(self, side: socket.socket) -> None:
        with side, side.makefile("rb") as lines:
            for line in lines:
                with self._changed:
                    self.heard.append(line)
                    self._changed.notify_all()
                try:
                    side.sendall(line + READY)
                except OSError:
                    continue
        with self._changed:
            self.ends += 1
            self._changed.notify_all()

    def wait_for(self, lines: int = 0, ends: int = 0) -> None:
        """Wait until it has heard so many lines, and the end of so many connections."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.heard) >= lines and self.ends >= ends, PATIENCE_SECONDS
            ), (self.heard, self.ends)

    def close(self) -> None:
        """End."""
        path, self.path = self.path, ""
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(path)
        self._thread.join()
        self._listener.close()


class Client:
    """One connection."""

    def __init__(self, proxy: Proxy) -> None:
        self._side = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_SECONDS)

    def say(self, line: str) -> None:
        """Send a line."""
        self._side.sendall(f"{line}\n".encode())

    def hears(self, line: str) -> bool:
        """Tell whether the next that is heard is the answer to a line."""
        expected, got = f"{line}\n".encode() + READY, b""
        while len(got) < len(expected) and (part := self._side.recv(len(expected) - len(got))):
            got += part
        return got == expected

    def hears_nothing(self, seconds: float = 0.2) -> bool:
        """Tell whether nothing is heard for a while, not even an end."""
        self._side.settimeout(seconds)
        try:
            self._side.recv(1)
            return False
        except TimeoutError:
            return True
        finally:
            self._side.settimeout(PATIENCE_SECONDS)

    def is_cut(self) -> bool:
        """Wait for the next, and tell whether it is the end."""
        try:
            return self._side.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Go away."""
        self._side.close()


def is_refused(proxy: Proxy) -> bool:
    """Tell whether no connection is made."""
    try:
        client = Client(proxy)
    except ConnectionError:
        return True
    try:
        return client.is_cut()
    finally:
        client.close()


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Echo]:
    """A server."""
    echo = Echo(tmp_path / "socket")
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    """The way to it."""
    with Proxy(echo.path) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    """A connection that has been answered once."""
    client = Client(proxy)
    client.say("hello")
    assert client.hears("hello")
    yield client
    client.close()


def test_proxy_passes_on_what_is_said(client: Client, echo: Echo, proxy: Proxy) -> None:
    """What is said goes both ways, and the end of a connection too."""
    client.say("x" * 300_000)
    assert client.hears("x" * 300_000)
    client.close()
    echo.wait_for(lines=2, ends=1)
    assert (proxy.accepted, proxy.closed) == (1, 0)


def test_proxy_reaches_a_port(echo: Echo) -> None:
    """The server may listen on a port as well: on another proxy's, for one."""
    with Proxy(echo.path) as inner, Proxy(("127.0.0.1", inner.port)) as outer:
        client = Client(outer)
        client.say("through two")
        assert client.hears("through two")
        client.close()


def test_proxy_closes_all(client: Client, echo: Echo, proxy: Proxy) -> None:
    """All connections are cut at once, on both sides, and new ones are made."""
    assert proxy.close_all() == 1
    assert client.is_cut()
    echo.wait_for(ends=1)
    again = Client(proxy)
    again.say("again")
    assert again.hears("again")
    again.close()


def test_proxy_refuses(client: Client, proxy: Proxy) -> None:
    """While it refuses there is no connection; healed, it makes them again."""
    proxy.refuse()
    assert client.is_cut()
    assert is_refused(proxy)
    proxy.heal()
    again = Client(proxy)
    again.say("again")
    assert again.hears("again")
    again.close()


def test_proxy_has_no_server(tmp_path: Path) -> None:
    """Where no server listens, connections are cut."""
    with Proxy(str(tmp_path / "nobody")) as proxy:
        assert is_refused(proxy)


def test_proxy_swallows_requests(client: Client, echo: Echo, proxy: Proxy) -> None:
    """A swallowed request gets nowhere, nobody is told, and its connection is of no use later."""
    proxy.swallow("request")
    client.say("lost")
    assert client.hears_nothing()
    assert echo.heard == [b"hello\n"]
    proxy.heal()
    assert client.is_cut()
    echo.wait_for(ends=1)
    assert echo.heard == [b"hello\n"]


def test_proxy_swallows_answers(client: Client, echo: Echo, proxy: Proxy) -> None:
    """A request whose answer is swallowed was delivered all the same."""
    proxy.swallow("answer")
    client.say("heard")
    echo.wait_for(lines=2)
    assert client.hears_nothing()
    proxy.heal()
    assert client.is_cut()


def test_proxy_swallows_the_end(client: Client, echo: Echo, proxy: Proxy) -> None:
    """A server does not learn that a program is gone from which nothing comes through."""
    proxy.swallow(*BOTH)
    client.say("lost")
    client.close()
    assert echo.ends == 0
    assert proxy.connections == 1
    proxy.heal()
    echo.wait_for(ends=1)


def test_proxy_holds(client: Client, echo: Echo, proxy: Proxy) -> None:
    """What is held is delivered when it is healed, also for a program that has gone since."""
    proxy.hold("request")
    client.say("late")
    assert client.hears_nothing()
    client.close()
    assert echo.heard == [b"hello\n"]
    proxy.heal()
    echo.wait_for(lines=2, ends=1)
    assert echo.heard == [b"hello\n", b"late\n"]


def test_proxy_delays(client: Client, proxy: Proxy) -> None:
    """What is delayed comes later, on the way there and on the way back."""
    proxy.delay(0.1)
    begun = time.monotonic()
    client.say("slow")
    assert client.hears("slow")
    assert time.monotonic() - begun >= 0.2


def test_proxy_loses_answers(client: Client, echo: Echo, proxy: Proxy) -> None:
    """A request is delivered, its connection cut, and its answer heard by nobody."""
    proxy.lose_answers(1)
    new = Client(proxy)
    new.say("new")
    assert new.hears("new")  # it was being made: it has nothing to lose
    client.say("done")
    assert client.is_cut()
    echo.wait_for(lines=3)
    assert echo.heard[-1] == b"done\n"
    assert proxy.lost == 1
    new.say("more")
    assert new.hears("more")
    new.close()
