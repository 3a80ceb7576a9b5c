"""What a certificate claims, and what was found against it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import attrs


class Claim(Enum):
    """A property of a lifecycle; its value says it in a sentence."""

    AGREES = "The machine does what the table says, and nothing else."
    ENDS = "Every status that is not final reaches a final one by unguarded or timed rows alone."
    WAY_OUT = "The ending rows lead every status that has one to a final status."
    FINAL = "No final status can be left, and nothing changes in one."
    SINGLE = "No two rows compete for the same trigger in the same status."
    REACHED = "Every status is reached from the initial one."
    DATABASE = "The database's constraint admits exactly the graph, whoever writes."


@attrs.frozen
class Finding:
    """A counterexample: a case in which a claim does not hold.

    Attributes:
        claim: What does not hold.
        where: The status and the trigger, or the statement, in words.
        problem: What was found instead of what was due.
        case: The first case in which it was found; empty where `where` says all.
        times: In how many cases the same was found at the same place; at least one.
    """

    claim: Claim
    where: str
    problem: str
    case: str = ""
    times: int = 1

    def __str__(self) -> str:
        case = f" when {self.case}" if self.case else ""
        more = f" ({self.times:,} cases like it)" if self.times > 1 else ""
        return f"{self.where}: {self.problem}{case}{more}"


class Findings:
    """The counterexamples found so far, the same problem at the same place counted."""

    def __init__(self) -> None:
        self._found: dict[tuple[Claim, str, str], Finding] = {}

    def add(self, claim: Claim, where: str, problem: str, case: str = "") -> None:
        """Keep a counterexample, or count it if there is one like it."""
        key = (claim, where, problem)
        known = self._found.get(key)
        if known is None:
            self._found[key] = Finding(claim, where, problem, case)
        else:
            self._found[key] = attrs.evolve(known, times=known.times + 1)

    def all(self) -> tuple[Finding, ...]:
        """Return them by claim, in the order in which they were found; may be empty."""
        order = list(Claim)
        return tuple(sorted(self._found.values(), key=lambda each: order.index(each.claim)))


def listed(words: Iterable[str], none: str = "none") -> str:
    """Return words with commas between them.

    >>> listed(["a", "b"]), listed([])
    ('a, b', 'none')
    """
    return ", ".join(words) or none
