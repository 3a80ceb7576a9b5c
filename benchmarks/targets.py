"""What the figures are held to, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from .measuring import table


@attrs.frozen
class Verdict:
    """A figure beside what it should be.

    Attributes:
        subject: What was measured.
        found: The figure; None where it could not be measured.
        bound: What it should be.
        sense: Whether the bound is the least or the most that is good.
        unit: Follows the figures.
        why_not: Why it could not be measured.
    """

    subject: str
    found: float | None
    bound: float
    sense: Literal["at least", "at most"] = "at least"
    unit: str = "×"
    why_not: str = ""

    @property
    def reached(self) -> bool:
        """Whether the figure is within its bound; one that is missing is not."""
        if self.found is None:
            return False
        return self.found >= self.bound if self.sense == "at least" else self.found <= self.bound

    @property
    def told(self) -> str:
        """The verdict in words."""
        if self.found is None:
            return f"not measured: {self.why_not}"
        return "reached" if self.reached else "MISSED"


def verdict_lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield the verdicts as a table, and below it in one sentence what was missed."""
    verdicts = list(verdicts)
    rows = [
        (
            each.subject,
            "–" if each.found is None else _figure(each.found, each.unit),
            f"{each.sense} {each.bound:,g} {each.unit}",
            each.told,
        )
        for each in verdicts
    ]
    yield from table(("target", "found", "should be", "verdict"), rows)
    missed = [each.subject for each in verdicts if each.found is not None and not each.reached]
    unknown = [each.subject for each in verdicts if each.found is None]
    yield ""
    if missed:
        yield f"**Missed, {len(missed)} of {len(verdicts)}:** {'; '.join(missed)}."
    else:
        yield f"None of the {len(verdicts) - len(unknown)} targets that were measured is missed."
    if unknown:
        yield f"**Not measured:** {'; '.join(unknown)}."


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
