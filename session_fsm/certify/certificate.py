"""The certificate of a lifecycle: everything that was walked through, and what was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import attrs

from ..explain import validate
from ..lifecycle import Lifecycle
from ..state import SessionState
from .database import Attack, attack
from .findings import Claim, Finding, Findings
from .probes import states
from .real import Tried, try_states
from .switches import Switched
from .walk import Walked, walk
from .ways import Way, check_walked, ended, ways_out, ways_to_the_end


@attrs.frozen(kw_only=True)
class Certificate:
    """What is known of a lifecycle after everything was tried.

    Attributes:
        lifecycle: What was certified.
        walked: The walk through all settings of its guards and deadlines.
        tried: The walk with its own guards, deadlines and effects.
        ways: From each status that is not final, the surest way to a final one.
        ways_out: From each status that has one, its way out.
        ended: How many real states came to their end along `ways`, and how many live.
        attack: What plain SQL could do to a store of it.
        findings: Every counterexample; empty if it holds.
    """

    lifecycle: Lifecycle
    walked: Walked
    tried: Tried
    ways: Mapping[str, Way]
    ways_out: Mapping[str, Way]
    ended: tuple[int, int]
    attack: Attack
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether no counterexample was found."""
        return not self.findings

    def against(self, claim: Claim) -> tuple[Finding, ...]:
        """Return the counterexamples of one claim; empty if it holds."""
        return tuple(each for each in self.findings if each.claim is claim)

    @property
    def digest(self) -> str:
        """SHA-256 over all that was observed, in hex; the table and its fingerprint have no part.

        Two lifecycles with one digest were not told apart by anything that was tried.
        """
        observed = {
            "behaviours": [attrs.astuple(each) for each in self.walked.behaviours],
            "settings": self.walked.settings,
            "tried": attrs.astuple(self.tried),
            "ways": {status: _plain(way) for status, way in self.ways.items()},
            "ways_out": {status: _plain(way) for status, way in self.ways_out.items()},
            "ended": self.ended,
            "edges": sorted(self.attack.edges),
            "attacked": [attrs.astuple(each) for each in self.attack.kinds],
            "findings": list(map(str, self.findings)),
        }
        return hashlib.sha256(json.dumps(observed).encode()).hexdigest()


def _plain(way: Way) -> list[tuple[str, ...]]:
    return [attrs.astuple(leg) for leg in way]


def certify(lifecycle: Lifecycle, *, probes: Iterable[SessionState] = ()) -> Certificate:
    """Walk a lifecycle through everything that can be asked of it, and tell what was found.

    Every status, trigger, guard valuation and position of a deadline goes through the machine, and
    plain SQL attacks a store file. The same lifecycle gives the same certificate everywhere.

    Args:
        lifecycle: What is certified.
        probes: More states at which its own guards are tried, where those that are made up here
            can't reach what the guards look at.

    Raises:
        StateInvalidError: A probe is not valid in the lifecycle.
        StoreError: No store file could be made.

    Example:
        >>> from session_fsm import SESSION_LIFECYCLE
        >>> certify(SESSION_LIFECYCLE).holds
        True
    """
    given = tuple(probes)
    for probe in given:
        validate(probe, lifecycle)
    findings = Findings()
    switched = Switched(lifecycle)
    walked = walk(switched, findings)
    check_walked(switched, walked, findings)
    real = states(lifecycle, given)
    ways = ways_to_the_end(switched, findings)
    out = ways_out(switched, findings)
    tried = try_states(lifecycle, real, findings)
    attacked = attack(lifecycle, findings)
    for source, target in sorted(attacked.edges ^ _different(walked.edges)):
        does = "lets it pass" if (source, target) in attacked.edges else "refuses it"
        problem = f"the database {does}, the machine does not agree"
        findings.add(Claim.DATABASE, f"{source!r} → {target!r}", problem)
    return Certificate(
        lifecycle=lifecycle,
        walked=walked,
        tried=tried,
        ways=ways,
        ways_out=out,
        ended=ended(lifecycle, ways, real),
        attack=attacked,
        findings=findings.all(),
    )


def _different(edges: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset((source, target) for source, target in edges if source != target)
