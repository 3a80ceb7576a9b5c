"""Where the lines of a drawing in text run: beside the boxes, one for each status led to.

All lines to one status share its lane and end in one arrow, so that no line is taken for another:
where lines cross, each goes straight on. Lanes that are short run next to the boxes, and lanes that
never pass the same line of text share a column.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class Lane:
    """The line that leads to a status.

    Attributes:
        entry: Where it ends, at the status that it leads to, counted from the top.
        exits: Where rows lead into it, in order; at least one.
        column: Its place, counted from the boxes.
    """

    entry: int
    exits: tuple[int, ...]
    column: int

    @property
    def ends(self) -> tuple[int, int]:
        """Its first and its last line."""
        ends = (self.entry, *self.exits)
        return min(ends), max(ends)


def lanes_of(entries: Sequence[int], exits: Sequence[Sequence[int]], most: int) -> list[Lane]:
    """Lay out the lanes, as many as fit beside each other.

    Args:
        entries: Where each status is entered.
        exits: For each status, in the same order: where rows are that lead to it.
        most: Most columns.

    Returns:
        The lanes, from the boxes outwards; of those that don't fit, the longest are left out.
    """
    spans = [
        (entry, tuple(sorted(found))) for entry, found in zip(entries, exits, strict=True) if found
    ]
    spans.sort(key=lambda each: (max(each[0], *each[1]) - min(each[0], *each[1]), each))
    taken: list[list[tuple[int, int]]] = []
    lanes: list[Lane] = []
    for entry, found in spans:
        first, last = min(entry, *found), max(entry, *found)
        free = (
            column
            for column, others in enumerate(taken)
            if all(last < start or first > end for start, end in others)
        )
        column = next(free, len(taken))
        if column == most:
            continue
        if column == len(taken):
            taken.append([])
        taken[column].append((first, last))
        lanes.append(Lane(entry=entry, exits=found, column=column))
    return sorted(lanes, key=lambda lane: (lane.column, lane.ends))
