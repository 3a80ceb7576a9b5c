"""The cheapest tour of a graph that takes every arc: what lies under `paths`.

A tour that takes each arc at least once, as cheaply as can be, is the postman's problem on a
directed graph. Since every arc has to be taken, none of the hard variants arises: what must be
taken twice is a flow from the nodes that are entered too often to those that are left too often,
and the cheapest one is found by successive shortest paths, exactly. Arcs that lie in the tour as
often as they enter and leave each node form one circuit, by Hierholzer's way of joining circles.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class Arc:
    """A one-way street.

    Attributes:
        start: The node that it leaves, by number.
        end: The node that it enters.
        cost: What each use of it costs; not negative.
        due: How often it must be taken at least.
    """

    start: int
    end: int
    cost: int
    due: int


def cheapest_uses(arcs: Sequence[Arc], nodes: int) -> list[int]:
    """Tell how often each arc is taken by a cheapest closed tour.

    Args:
        arcs: Every node that lies on an arc which is due must be reachable from every other one.
        nodes: How many nodes there are, numbered from 0.

    Returns:
        For each arc, how often: at least as often as it is due. Each node is entered as often as
        it is left. No choice of uses with these properties costs less.

    Raises:
        ValueError: No tour takes all arcs that are due.
    """
    surplus = [0] * nodes
    for arc in arcs:
        surplus[arc.end] += arc.due
        surplus[arc.start] -= arc.due
    more = [0] * len(arcs)
    while any(left > 0 for left in surplus):
        way = _cheapest_way(arcs, more, surplus)
        if way is None:
            raise ValueError("no tour takes every arc that is due")
        start, end, steps = way
        for index, step in steps:
            more[index] += step
        surplus[start] -= 1
        surplus[end] += 1
    return [arc.due + extra for arc, extra in zip(arcs, more, strict=True)]


def _cheapest_way(
    arcs: Sequence[Arc], more: Sequence[int], surplus: Sequence[int]
) -> tuple[int, int, list[tuple[int, int]]] | None:
    """Return a cheapest way from a node that is entered too often to one that is left too often.

    Taking back an earlier use of an arc earns what it cost: that is how later ways put earlier ones
    right. By Bellman and Ford, because of those negative costs; graphs are small here.

    Returns:
        Its first and its last node, and its arcs, each with 1 (one more use) or -1 (one less).
    """
    far: list[int | None] = [0 if left > 0 else None for left in surplus]
    last: list[tuple[int, int, int] | None] = [None] * len(surplus)
    changed = True
    while changed:
        changed = False
        for index, arc in enumerate(arcs):
            turns = ((arc.start, arc.end, 1), (arc.end, arc.start, -1))
            for start, end, step in turns[: 2 if more[index] else 1]:
                begun, known = far[start], far[end]
                if begun is not None and (known is None or begun + step * arc.cost < known):
                    far[end] = begun + step * arc.cost
                    last[end] = (start, index, step)
                    changed = True
    ends = [(cost, node) for node, cost in enumerate(far) if cost is not None and surplus[node] < 0]
    if not ends:
        return None
    end = node = min(ends)[1]
    steps: list[tuple[int, int]] = []
    while (before := last[node]) is not None:
        node, index, step = before
        steps.append((index, step))
    return node, end, steps[::-1]


def circuit(arcs: Sequence[Arc], uses: Sequence[int], start: int) -> list[int]:
    """Return a closed tour from a node that takes each arc as often as told.

    Args:
        arcs: The arcs.
        uses: How often each is taken; each node is entered as often as it is left.
        start: Where the tour begins and ends.

    Returns:
        The arcs by number, in order; those that leave a node later in `arcs` are taken first, so
        that a tour which comes back to a node has the earlier ones to go on with.
    """
    left = list(uses)
    leaving: dict[int, list[int]] = {}
    for index, arc in enumerate(arcs):
        leaving.setdefault(arc.start, []).append(index)
    tour: list[int] = []
    walked: list[tuple[int, int | None]] = [(start, None)]
    while walked:
        node, by = walked[-1]
        open_arcs = leaving.get(node, [])
        while open_arcs and not left[open_arcs[-1]]:
            open_arcs.pop()
        if open_arcs:
            index = open_arcs[-1]
            left[index] -= 1
            walked.append((arcs[index].end, index))
        else:
            walked.pop()
            if by is not None:
                tour.append(by)
    tour.reverse()
    return tour
