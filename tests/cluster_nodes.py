"""The nodes of a cluster and their server, what befalls them, and the account of that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
from cluster_faults import Fault, Kind, Outage
from postgres_proxy import BOTH, Proxy

PROCESS: Final = Path(__file__).with_name("cluster_process.py")
PATIENCE_SECONDS: Final = 60.0
"""How long a node may take to come to rest, or to its end; only one that hangs takes as long."""


class Restartable(Protocol):
    """A server that can be stopped and started."""

    def stop(self, mode: Any) -> None:
        """Stop it."""

    def start(self) -> None:
        """Start it again."""


class NodeProcess:
    """One node: the process that it is now, and the way from there to the server.

    Args:
        number: Which node.
        options: What every life of it is told, but for which life it is, and its file.
        directory: Where its lives write what they do.
        proxy: Its way to the server; None: it can't be cut off.
    """

    def __init__(
        self, number: int, options: dict[str, Any], directory: Path, proxy: Proxy | None
    ) -> None:
        self.number = number
        self.life = -1
        self.proxy = proxy
        self.files: dict[int, Path] = {}
        self._options = options
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin a new life."""
        self.life += 1
        file = self.files[self.life] = self._directory / f"{self.number}.{self.life}.jsonl"
        options = {
            **self._options, "node": self.number, "life": self.life, "records": str(file)
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", PROCESS, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def process(self) -> subprocess.Popen[str]:
        """Its process."""
        assert self._process is not None
        return self._process

    def say(self) -> None:
        """Send it a line: to rest, and then to end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self, expected: str) -> str | None:
        """Wait for a line; returns what is wrong with what comes instead, if it does not."""
        heard: list[str] = []
        reading = threading.Thread(target=self._hear, args=(expected, heard), daemon=True)
        reading.start()
        reading.join(PATIENCE_SECONDS)
        if not heard:
            self.process.send_signal(signal.SIGUSR1)  # says where it hangs
            reading.join(1)
            return f"node {self.number} hangs, and does not say {expected!r}"
        return None if heard == [expected] else f"node {self.number} said {heard[0]!r}"

    def _hear(self, expected: str, heard: list[str]) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        while line == "open" != expected:  # which each life of a node says, some time
            line = self.process.stdout.readline().strip()
        heard.append(line)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@attrs.define
class _Open:
    """A fault that has begun."""

    fault: Fault
    life: int
    begun: int
    end: Callable[[], None]


class Misfortune:
    """Makes faults, each at its time, and keeps account of them.

    Args:
        nodes: Whom they befall.
        server: What is restarted; None: it is not.

    Attributes:
        outages: Those that have ended.
        counts: How often what was done.
    """

    def __init__(self, nodes: list[NodeProcess], server: Restartable | None) -> None:
        self._nodes = nodes
        self._server = server
        self.outages: list[Outage] = []
        self.counts: Counter[str] = Counter()

    def befall(self, faults: tuple[Fault, ...], stopped: threading.Event) -> None:
        """Make faults at their times, counted from now; returns when all have ended."""
        start = time.monotonic()
        waiting = sorted(faults, reverse=True)
        under_way: list[tuple[float, _Open]] = []
        while waiting or under_way:
            next_end = min((at for at, _ in under_way), default=float("inf"))
            next_begin = waiting[-1].at if waiting else float("inf")
            stopped.wait(max(0.0, start + min(next_end, next_begin) - time.monotonic()))
            if next_end <= next_begin:
                found = min(under_way, key=lambda each: each[0])
                under_way.remove(found)
                self._end(found[1])
            else:
                fault = waiting.pop()
                if (begun := self._begin(fault)) is not None:
                    under_way.append((fault.at + fault.seconds, begun))

    def _begin(self, fault: Fault) -> _Open | None:
        begun = time.monotonic_ns()
        if fault.kind == "restart":
            if self._server is None:
                return None
            self._server.stop(fault.how)
            life, end = 0, self._server.start
        else:
            node = self._nodes[fault.node]
            life = node.life
            if fault.kind == "cut" and node.proxy is None:
                return None
            end = _begin_at(node, fault)
        self.counts[f"{fault.kind} {fault.how}".strip()] += 1
        return _Open(fault, life, begun, end)

    def _end(self, found: _Open) -> None:
        found.end()
        fault = found.fault
        self.outages.append(
            Outage(
                node=fault.node,
                life=found.life,
                kind=fault.kind,
                begun=found.begun,
                ended=time.monotonic_ns(),
            )
        )

    def total(self, kind: Kind) -> int:
        """Return how many faults of a kind there were."""
        return sum(each for name, each in self.counts.items() if name.split()[0] == kind)


def _begin_at(node: NodeProcess, fault: Fault) -> Callable[[], None]:
    """Begin a fault of a node; returns what ends it."""
    if fault.kind == "kill":
        node.kill()
        return node.start
    if fault.kind == "pause":
        node.process.send_signal(signal.SIGSTOP)
        return lambda: node.process.send_signal(signal.SIGCONT)
    proxy = node.proxy
    assert proxy is not None
    begin: dict[str, Callable[[], object]] = {
        "close": proxy.close_all,
        "refuse": proxy.refuse,
        "swallow requests": lambda: proxy.swallow("request"),
        "swallow answers": lambda: proxy.swallow("answer"),
        "swallow all": lambda: proxy.swallow(*BOTH),
        "hold requests": lambda: proxy.hold("request"),
        "hold answers": lambda: proxy.hold("answer"),
        "hold all": lambda: proxy.hold(*BOTH),
        "delay": lambda: proxy.delay(fault.seconds / 4),
        "lose answers": lambda: proxy.lose_answers(1 + int(10 * fault.seconds)),
    }
    begin[fault.how]()
    return proxy.heal
