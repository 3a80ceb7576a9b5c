"""What befalls a cluster, and when: drawn by lot beforehand, so that a seed tells all of it.

Each node has faults of its own, one after the other: it is killed and comes back later, it is
paused, or it is cut off from the server. The server itself is stopped and started again twice.
"""

from __future__ import annotations

import random
from typing import Final, Literal

import attrs

Kind = Literal["kill", "pause", "cut", "restart"]
Cut = Literal[
    "close",
    "refuse",
    "swallow requests",
    "swallow answers",
    "swallow all",
    "hold requests",
    "hold answers",
    "hold all",
    "delay",
    "lose answers",
]

KINDS: Final[dict[Kind, int]] = {"kill": 3, "pause": 3, "cut": 6}
"""What befalls a node, and how often it is that."""
CUTS: Final[tuple[Cut, ...]] = (
    "close",
    "refuse",
    "swallow requests",
    "swallow answers",
    "swallow all",
    "hold requests",
    "hold requests",
    "hold answers",
    "hold all",
    "delay",
    "lose answers",
    "lose answers",
)
QUIET_SECONDS: Final = (0.4, 3.0)
"""How long nothing befalls a node between two faults."""


@attrs.frozen(kw_only=True, order=True)
class Fault:
    """One fault.

    Attributes:
        at: After so many seconds.
        seconds: How long it lasts; of a killed node, until it is started again.
        node: Whom it befalls; -1: the server.
        kind: What it is.
        how: Of a cut: which; of a restart: how the server is stopped.
    """

    at: float
    seconds: float
    node: int
    kind: Kind
    how: str = ""


def plan(seed: str, *, nodes: int, seconds: float, lease_seconds: float) -> tuple[Fault, ...]:
    """Draw what befalls a cluster.

    Args:
        seed: What decides.
        nodes: How many nodes there are.
        seconds: For how long there are faults; all have ended then.
        lease_seconds: Faults are shorter than this, or longer, by lot.

    Returns:
        The faults, in order; those of one node do not overlap.
    """
    chance = random.Random(f"{seed} faults")
    faults = [
        _restart(chance, seconds * chance.uniform(0.25, 0.4), "immediate"),
        _restart(chance, seconds * chance.uniform(0.6, 0.75), "fast"),
    ]
    for node in range(nodes):
        now = chance.uniform(*QUIET_SECONDS)
        while (fault := _fault(chance, node, now, lease_seconds)).at + fault.seconds < seconds:
            faults.append(fault)
            now = fault.at + fault.seconds + chance.uniform(*QUIET_SECONDS)
    return tuple(sorted(faults))


def _restart(chance: random.Random, at: float, how: str) -> Fault:
    return Fault(at=at, seconds=chance.uniform(0.0, 1.0), node=-1, kind="restart", how=how)


def _fault(chance: random.Random, node: int, at: float, lease_seconds: float) -> Fault:
    [kind] = chance.choices(tuple(KINDS), tuple(KINDS.values()))
    long = chance.random() < 0.5
    span = chance.uniform(1.1, 2.0) if long else chance.uniform(0.05, 0.6)
    how = chance.choice(CUTS) if kind == "cut" else ""
    if how == "close":
        span = 0.0
    return Fault(at=at, seconds=span * lease_seconds, node=node, kind=kind, how=how)


# --- when a cluster was well -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Outage:
    """A time for which a node could not do what it has to, or none could.

    Attributes:
        node: Which node; -1: all, because the server was away.
        life: Which of its lives; of the server, 0.
        kind: Why.
        begun: When it began, in nanoseconds by the clock of all processes.
        ended: When it had ended.
    """

    node: int
    life: int
    kind: Kind
    begun: int
    ended: int


def good_seconds(
    outages: list[Outage], nodes: int, begun: int, ended: int, *, warm_seconds: float
) -> float:
    """Return for how long of a time at least one node was well.

    Args:
        outages: Of all nodes, and of the server.
        nodes: How many nodes there are.
        begun: The time begins.
        ended: The time ends.
        warm_seconds: How long a node, or the server, takes until it is well again.
    """
    warm = int(warm_seconds * 1e9)
    edges: list[tuple[int, int, int]] = [(begun, 0, 0), (ended, 0, 0)]
    for each in outages:
        lo, hi = max(each.begun, begun), min(each.ended + warm, ended)
        if lo < hi:
            edges += [(lo, each.node, 1), (hi, each.node, -1)]
    out = dict.fromkeys(range(-1, nodes), 0)
    good, last = 0, begun
    for at, node, change in sorted(edges):
        if not out[-1] and not all(out[each] for each in range(nodes)):
            good += at - last
        out[node] += change
        last = at
    return good / 1e9
