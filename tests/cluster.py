"""Four processes on one PostgreSQL server, killed, paused and cut off at random, for a minute.

    python tests/cluster.py [--seconds N] [--nodes N] [--places N] [--seed N] [--lease N]
        [--fsync] [--keep PATH]

The server is a real one, which is restarted twice meanwhile; between it and each node there is a
proxy. What the nodes were told is held against what is stored in the end; see `cluster_check` and
`linearizability`. The same seed makes the same choices and the same faults at the same times; what
meets what is up to the machine. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import attrs
from cluster_check import (
    DROPPED,
    WAKING_SECONDS,
    Account,
    Claims,
    Histories,
    Run,
    by_itself,
    faults_of_fed_nodes,
    feed_faults,
    feed_order_faults,
    lost_sessions,
    not_fired,
    not_taken,
    overlaps,
    stale_writes,
    taken_from_the_living,
    wrong_claims,
)
from cluster_faults import plan
from cluster_nodes import Misfortune, NodeProcess, Restartable
from cluster_process import UPKEEP_SECONDS
from linearizability import check
from postgres_proxy import Proxy

from session_fsm import PositionedEvent, SessionManager, StoreError
from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.stores.abc import all_ids
from session_fsm.stores.records import Work

POLL_SECONDS: Final = 0.1
SETTLE_SECONDS: Final = 30.0
"""How long the nodes may take to clear away what is left, once nothing befalls them any longer."""

UNDER_WAY_SECONDS: Final = 4.0
"""How long it may take until a session that was taken over has a worker again."""
SOON_SECONDS: Final = 2.0
"""What is due within this time is waited for: longer than any task's limit."""


@attrs.frozen(kw_only=True)
class Told:
    """What is to be done.

    Attributes:
        seconds: For how long there are faults.
        nodes: How many processes.
        places: In how many places sessions live that all nodes call.
        seed: What decides.
        lease_seconds: How long a node counts as alive without being heard of.
        fsync: Whether the server waits for the disk.
        keep: Where what the nodes wrote, and the histories, are kept; None: nowhere.
    """

    seconds: float = 60.0
    nodes: int = 4
    places: int = 24
    seed: str = "1"
    lease_seconds: float = 3.0
    fsync: bool = False
    keep: Path | None = None


@attrs.define
class Outcome:
    """What came of it.

    Attributes:
        faults: What is wrong, in words.
        lines: What there was, for whoever reads.
        calls: How many calls were made.
        counts: How often what befell the cluster.
    """

    faults: list[str] = attrs.field(factory=list)
    lines: list[str] = attrs.field(factory=list)
    calls: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)


class _FeedReader:
    """Reads the feed of a store all the while, whatever becomes of the server."""

    def __init__(self, url: str) -> None:
        self.events: list[PositionedEvent] = []
        self.faults: list[str] = []
        self._url = url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def finish(self) -> None:
        """Read what there is, and no more."""
        self._ending.set()
        self._thread.join()

    def _read(self) -> None:
        with ExitStack() as stack:
            manager = stack.enter_context(_patiently(lambda: SessionManager(self._url)))
            after = 0
            while True:
                last = self._ending.is_set()
                try:
                    page = manager.read_events(after, limit=500)
                except StoreError as fault:
                    if last:
                        self.faults.append(f"the feed can't be read: {fault}")
                        return
                    self._ending.wait(POLL_SECONDS)
                    continue
                self.events += page.events
                after = page.position
                if last and not page.events:
                    return
                if not page.events:
                    self._ending.wait(POLL_SECONDS)


def _patiently(make: Callable[[], SessionManager]) -> SessionManager:
    """Open a manager, however long the server may be away."""
    end = time.monotonic() + SETTLE_SECONDS
    waiting = threading.Event()
    while True:
        try:
            return make()
        except StoreError:
            if time.monotonic() > end:
                raise
            waiting.wait(POLL_SECONDS)


def live(
    told: Told,
    *,
    url: str,
    node_urls: Sequence[str],
    proxies: Sequence[Proxy | None],
    server: Restartable | None,
    lease_seconds: float | None,
) -> Outcome:
    """Have a cluster live on a store, and hold what it was told against what is stored.

    Args:
        told: What is to be done.
        url: Of the store, whatever befalls the nodes.
        node_urls: Of the store, as each node reaches it.
        proxies: What is between each node and the server; None: nothing.
        server: What is restarted; None: nothing is.
        lease_seconds: What nodes are told; None: the store has none.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        if (directory := told.keep) is None:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="nodes-"))
            directory = Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        # Made once, before all others come.
        manager = stack.enter_context(SessionManager(url))
        nodes = []
        for number, (node_url, proxy) in enumerate(zip(node_urls, proxies, strict=True)):
            options: dict[str, Any] = {
                "url": node_url,
                "seed": told.seed,
                "places": told.places,
                "lease_seconds": lease_seconds,
            }
            node = NodeProcess(number, options, directory, proxy)
            node.start()
            stack.callback(node.kill)
            nodes.append(node)
        outcome.faults += [fault for node in nodes if (fault := node.hear("open")) is not None]
        misfortune = Misfortune(nodes, server)
        reader = _FeedReader(url)
        stack.callback(reader.finish)
        faults = plan(
            told.seed,
            nodes=told.nodes,
            seconds=told.seconds,
            lease_seconds=told.lease_seconds,
        )
        misfortune.befall(faults, threading.Event())
        outcome.faults += _settle(nodes, manager)
        claims = [_claims(manager)]
        # What is under way at the one moment is done at the other.
        threading.Event().wait(UNDER_WAY_SECONDS)
        claims.append(_claims(manager))
        threading.Event().wait(WAKING_SECONDS)
        ended = time.monotonic_ns()
        _end(nodes, outcome)
        reader.finish()
        outcome.faults += reader.faults
        run = Run(
            nodes=told.nodes,
            lease_seconds=told.lease_seconds,
            look_seconds=UPKEEP_SECONDS,
            outages=misfortune.outages,
            zero=time.monotonic_ns() - int(SYSTEM_CLOCK.now().timestamp() * 1e9),
            ended=ended,
        )
        outcome.counts = misfortune.counts
        _compare(outcome, run, nodes, manager, reader.events, claims)
        if told.keep is not None:
            _keep(told.keep, run, manager)
    return outcome


def _settle(nodes: list[NodeProcess], manager: SessionManager) -> list[str]:
    """Let all callers come to rest, and wait until nothing is left by the dead, and nothing due."""
    for node in nodes:
        node.say()
    found = [fault for node in nodes if (fault := node.hear("rests")) is not None]
    end = time.monotonic() + SETTLE_SECONDS
    waiting = threading.Event()
    left: object = "nothing could be read"
    while time.monotonic() < end:
        try:
            store = manager.store
            abandoned = store.abandoned()
            soon = SYSTEM_CLOCK.now() + timedelta(seconds=SOON_SECONDS)
            left = (abandoned, store.due(soon, 10, None))
            if not any(left):
                return found
        except StoreError as fault:
            left = fault
        waiting.wait(POLL_SECONDS)
    return [*found, f"left when all was well again for {SETTLE_SECONDS:g} s: {left}"]


def _claims(manager: SessionManager) -> list[Claims]:
    """Return who answers for what in all sessions that live."""
    found = []
    store = manager.store
    for session_id in all_ids(store):
        begun = time.monotonic_ns()
        before, work = store.load(session_id), store.work_in(session_id)
        after = store.load(session_id)
        assert before is not None
        assert after is not None
        if before.state.status in manager.lifecycle.final:
            continue
        tasks = before.state.active_tasks if before.revision == after.revision else ()
        found.append(
            Claims(
                session_id=session_id,
                begun=begun,
                ended=time.monotonic_ns(),
                worker=Work("worker") in work,
                unclaimed=tuple(each for each in tasks if Work("task", each) not in work),
            )
        )
    return found


def _end(nodes: list[NodeProcess], outcome: Outcome) -> None:
    for node in nodes:
        node.say()
    outcome.faults += [fault for node in nodes if (fault := node.hear("ended")) is not None]


def _compare(
    outcome: Outcome,
    run: Run,
    nodes: list[NodeProcess],
    manager: SessionManager,
    fed: list[PositionedEvent],
    claims: list[list[Claims]],
) -> None:
    begun = time.monotonic()
    account = Account()
    callers: dict[str, tuple[int, int]] = {}
    for node in nodes:
        for life, file in node.files.items():
            before = len(account.calls)
            account.read(node.number, life, file)
            for call in account.calls[before:]:
                callers[call.operation.tag] = (node.number, life)
    report = manager.verify()
    histories = _histories(manager, outcome)
    again = _whole_feed(manager)
    outcome.faults += account.faults
    outcome.faults += report.problems
    outcome.faults += check(account.calls, histories, by_itself)
    outcome.faults += overlaps(account.shifts, run)
    first, *later = [wrong_claims(each, account.shifts, run) for each in claims]
    outcome.faults += [fault for fault in first if all(fault in each for each in later)]
    outcome.faults += stale_writes(histories)
    outcome.faults += not_taken(account.shifts, histories, run)
    outcome.faults += taken_from_the_living(account, callers, histories, run)
    outcome.faults += not_fired(account.calls, histories, run)
    outcome.faults += lost_sessions(account, histories)
    outcome.faults += feed_faults(fed, again, histories)
    outcome.faults += faults_of_fed_nodes(account.fed, again)
    outcome.faults += feed_order_faults(fed, account.calls)
    outcome.calls = len(account.calls)
    outcome.lines += _lines(account, run, histories, outcome.counts)
    outcome.lines.append(f"checked in {time.monotonic() - begun:.1f} s")


def _keep(directory: Path, run: Run, manager: SessionManager) -> None:
    """Keep what is stored, for whoever looks for what went wrong."""
    with (directory / "histories.txt").open("w") as file:
        for session_id in all_ids(manager.store):
            for event in manager.history(session_id):
                print(run.at(event), *attrs.astuple(event, recurse=False), file=file)
    with (directory / "outages.txt").open("w") as file:
        print(*run.outages, sep="\n", file=file)


def _histories(manager: SessionManager, outcome: Outcome) -> Histories:
    found = {}
    for session_id in all_ids(manager.store):
        try:
            found[session_id] = manager.history(session_id)
        except StoreError as fault:
            outcome.faults.append(str(fault))
    return found


def _whole_feed(manager: SessionManager) -> list[PositionedEvent]:
    events: list[PositionedEvent] = []
    after = 0
    while (page := manager.read_events(after)).events:
        events += page.events
        after = page.position
    return events


def _lines(account: Account, run: Run, histories: Histories, befallen: Counter[str]) -> list[str]:
    calls = account.calls
    known = [call for call in calls if not call.open or call.revision is None]
    errors = Counter(call.error or "killed" for call in known if call.error or call.open)
    open_ = sum(call.open for call in known)
    steps = [event for each in histories.values() for event in each]
    reasons = Counter(event.reason for event in steps)
    triggers = Counter(event.trigger for event in steps)
    lives = {(each.node, each.life) for each in run.outages}
    changed = sum(len(each) - 1 for each in account.owners.values())
    took, longest = account.longest
    return [
        f"{len(calls):,} calls, {open_:,} of them left open; "
        + ", ".join(f"{number:,} {error}" for error, number in errors.most_common()),
        f"{len(histories):,} sessions, {len(steps):,} events",
        "faults: " + ", ".join(f"{number} {name}" for name, number in sorted(befallen.items())),
        f"{len(lives)} lives of nodes were hit; {changed} times a living node became another owner",
        f"{len(account.shifts):,} workers; {reasons['taken over']:,} were started anew elsewhere",
        f"{reasons[DROPPED]:,} tasks of the dead dropped, {triggers['task_timeout']:,} timed out",
        f"nodes wrote: {', '.join(f'{n:,} {kind}' for kind, n in account.counts.most_common())}",
        f"the longest call took {took / 1e9:.2f} s: {longest}",
    ]


def run_cluster(told: Told) -> Outcome:
    """Have a cluster live on a server of its own."""
    from postgres_server import PostgresServer

    with ExitStack() as stack:
        fsync = "on" if told.fsync else "off"
        server = PostgresServer(fsync=fsync, full_page_writes=fsync)
        stack.callback(server.remove)
        way = ("127.0.0.1", server.port)
        proxies = [stack.enter_context(Proxy(way)) for _ in range(told.nodes)]
        outcome = live(
            told,
            url=server.url(),
            node_urls=[server.url(port=each.port) for each in proxies],
            proxies=proxies,
            server=server,
            lease_seconds=told.lease_seconds,
        )
        cut = sum(each.closed for each in proxies)
        lost = sum(each.lost for each in proxies)
        outcome.lines.append(f"{cut:,} connections were cut, and {lost:,} answers lost")
        said = server.log.read_text(errors="replace").splitlines()
        outcome.faults += [line for line in said if "PANIC" in line or "TRAP:" in line]
    return outcome


def main() -> None:
    """Do what the command line says."""
    summary, *_ = str(__doc__).splitlines()
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--seconds", type=float, default=60, help="for how long there are faults")
    parser.add_argument("--nodes", type=int, default=4, help="how many processes")
    parser.add_argument("--places", type=int, default=24, help="where sessions live that all call")
    parser.add_argument("--seed", default="1", help="what decides all choices")
    parser.add_argument("--lease", type=float, default=3, help="seconds of a node's lease")
    parser.add_argument("--fsync", action="store_true", help="have the server wait for the disk")
    parser.add_argument("--keep", type=Path, help="where to keep what was written")
    told = parser.parse_args()
    logging.getLogger("session_fsm").addHandler(logging.NullHandler())  # it is told of it anyway
    outcome = run_cluster(
        Told(
            seconds=told.seconds,
            nodes=told.nodes,
            places=told.places,
            seed=told.seed,
            lease_seconds=told.lease,
            fsync=told.fsync,
            keep=told.keep,
        )
    )
    fsync = "on" if told.fsync else "off"
    print(f"{told.nodes} nodes, {told.seconds:g} s, seed {told.seed}, fsync {fsync}")
    print(*outcome.lines, sep="\n")
    print(*outcome.faults[:50], f"wrong: {len(outcome.faults) or 'nothing'}", sep="\n")
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
