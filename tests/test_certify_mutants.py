"""Faults that a certificate has to show: in the table, in the machine, in the database."""

import copy
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import product
from typing import Any

import attrs
import pytest
from mutants import KINDS, Mutation, mutations

from session_fsm import (
    SESSION_LIFECYCLE,
    Guard,
    GuardRejectedError,
    InvalidTransitionError,
    Lifecycle,
    LifecycleError,
    SessionMachine,
    SessionState,
    TransitionError,
)
from session_fsm.certify import Certificate, Claim, Finding, certify, render, trying, ways
from session_fsm.certify.database import attack
from session_fsm.certify.findings import Findings
from session_fsm.certify.probes import states
from session_fsm.certify.real import try_states
from session_fsm.certify.switches import Switched
from session_fsm.certify.walk import unknown_trigger, walk, walk_status, walk_trigger
from session_fsm.certify.ways import check_walked, ways_out, ways_to_the_end
from session_fsm.stores import sqlite_schema
from session_fsm.stores.sqlite_schema import statements


@pytest.fixture(scope="module")
def ours() -> Certificate:
    """The certificate of the lifecycle of sessions, without a fault."""
    certificate = certify(SESSION_LIFECYCLE)
    assert certificate.holds
    return certificate


# --- faults of the table -------------------------------------------------------------------------

NOT_BUILT, SWITCHED, REAL, ON_WAYS = "not built", "by switches", "by its own guards", "on its ways"
OUTCOMES = {
    "row dropped": {NOT_BUILT, SWITCHED},
    "source dropped": {SWITCHED},
    "source added": {NOT_BUILT, SWITCHED},
    "retargeted": {NOT_BUILT, SWITCHED},
    "guard removed": {SWITCHED},
    "guard turned": {REAL},
    "deadline removed": {SWITCHED},
    "activity flipped": {SWITCHED},
    "ending flipped": {NOT_BUILT, ON_WAYS},
    "effect dropped": {SWITCHED},
}
"""What has to tell the faults of each kind from none; some may not be built besides."""


def told_by(mutation: Mutation, ours: Certificate) -> str:
    """What tells a lifecycle with a fault from the one without; empty where nothing does."""
    try:
        mutant = mutation(SESSION_LIFECYCLE)
    except LifecycleError:
        return NOT_BUILT
    # What is likely to differ first, and what is quick: a certificate differs if a part of it does.
    switched = Switched(mutant)
    seen = {(each.status, each.trigger): each for each in ours.walked.behaviours}
    triggers = (*mutant.triggers, unknown_trigger(mutant.triggers))
    places = list(product(small_first(switched), triggers))
    if seen.keys() != set(places):
        return SWITCHED

    def differs(place: tuple[str, str]) -> bool:
        return walk_trigger(switched, *place, Findings()) != seen[place]

    changed = SESSION_LIFECYCLE.rows[mutation.number].trigger
    if any(differs(place) for place in places if place[1] == changed):
        return SWITCHED
    if try_states(mutant, states(mutant), Findings()) != ours.tried:
        return REAL
    if any(differs(place) for place in places if place[1] != changed):
        return SWITCHED
    return ON_WAYS if certify(mutant).digest != ours.digest else ""


def small_first(switched: Switched) -> list[str]:
    """The statuses, those with the fewest settings first."""
    words = map(str, switched.lifecycle.statuses)
    return sorted(words, key=lambda status: len(switched.switches(status)))


@pytest.mark.parametrize("kind", KINDS)
def test_certify_tells_every_faulty_table_apart(kind: str, ours: Certificate) -> None:
    """Each fault of a row keeps the lifecycle from being built, or shows in its certificate.

    The fingerprint of the table has no part in it: what was observed differs.
    """
    faulty = [each for each in mutations(SESSION_LIFECYCLE) if each.kind == kind]
    told = {each.name: told_by(each, ours) for each in faulty}
    assert [name for name, by in told.items() if not by] == []
    counts = Counter(told.values())
    assert all(counts[by] > 0 for by in OUTCOMES[kind])
    assert counts.keys() <= OUTCOMES[kind] | {NOT_BUILT}


def test_certify_knows_every_kind_of_fault() -> None:
    """Every row is dropped, led to each other status, and rid of each of its guards."""
    found = list(mutations(SESSION_LIFECYCLE))
    assert {each.kind for each in found} == set(KINDS) == OUTCOMES.keys()
    counts = Counter(each.kind for each in found)
    rows = SESSION_LIFECYCLE.rows
    assert counts["row dropped"] == len(rows)
    assert counts["retargeted"] == len(rows) * len(SESSION_LIFECYCLE.statuses)
    assert counts["guard removed"] == sum(len(row.guards) for row in rows)


def test_certify_digest_covers_every_part(ours: Certificate) -> None:
    """A part that differs makes another digest, and another text."""
    first = ours.walked.behaviours[0]
    other_walk = attrs.evolve(
        ours.walked,
        behaviours=(attrs.evolve(first, activity=not first.activity), *ours.walked.behaviours[1:]),
    )
    others = [
        attrs.evolve(ours, walked=other_walk),
        attrs.evolve(ours, tried=attrs.evolve(ours.tried, digest="another")),
        attrs.evolve(ours, tried=attrs.evolve(ours.tried, changes=())),
        attrs.evolve(ours, ways={}),
        attrs.evolve(ours, ways_out={}),
        attrs.evolve(ours, ended=(0, 1)),
        attrs.evolve(ours, attack=attrs.evolve(ours.attack, edges=frozenset())),
        attrs.evolve(ours, attack=attrs.evolve(ours.attack, kinds=())),
        attrs.evolve(ours, findings=(Finding(Claim.FINAL, "somewhere", "something"),)),
    ]
    assert len({ours.digest, *(each.digest for each in others)}) == len(others) + 1
    assert all(each.digest in render(each) for each in others)


# --- faults of the machine -----------------------------------------------------------------------


class FoundError(Exception):
    """A counterexample was found; the rest need not be tried."""


class FirstFinding(Findings):
    """Stops at the first counterexample."""

    def add(self, claim: Claim, where: str, problem: str, case: str = "") -> None:
        raise FoundError(claim)


def put_in(monkeypatch: pytest.MonkeyPatch, machine: type[SessionMachine]) -> None:
    """Put a machine in the place of the real one, wherever a certificate fires."""

    def step(state: SessionState, trigger: str, **given: Any) -> SessionState:
        return machine(state, given.pop("lifecycle")).fire(trigger, **given)

    monkeypatch.setattr(trying, "SessionMachine", machine)
    monkeypatch.setattr(trying, "step", step)
    monkeypatch.setattr(ways, "SessionMachine", machine)


def obeying(mutation: Callable[[Lifecycle], Lifecycle]) -> type[SessionMachine]:
    """A machine that obeys another table than the one that it is given."""
    others: dict[Lifecycle, Lifecycle] = {}

    class Obeying(SessionMachine):
        __slots__ = ()

        def __init__(self, state: SessionState, lifecycle: Lifecycle, *, revision: int = 0) -> None:
            if lifecycle not in others:
                others[lifecycle] = mutation(lifecycle)
            super().__init__(state, others[lifecycle], revision=revision)

    return Obeying


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ending flipped"])
def test_certify_finds_every_machine_with_a_faulty_table(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A machine that obeys a table with any one fault disagrees with the table without it.

    But for `ending`: which rows are the way out is no business of the machine.
    """
    switched = Switched(SESSION_LIFECYCLE)
    counts: Counter[bool] = Counter()
    for mutation in mutations(SESSION_LIFECYCLE):
        if mutation.kind != kind:
            continue
        try:
            mutation(SESSION_LIFECYCLE)
        except LifecycleError:
            counts[False] += 1
            continue
        counts[True] += 1
        with monkeypatch.context() as patch:
            put_in(patch, obeying(mutation))
            with pytest.raises(FoundError) as found:
                for status in small_first(switched):
                    walk_status(switched, status, FirstFinding())
            assert found.value.args == (Claim.AGREES,), mutation.name
    assert counts[True] > 0


class FiresOther(SessionMachine):
    """A machine that fires something else where a guard has said no."""

    __slots__ = ()

    def fire(self, trigger: str, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire a trigger, or another one."""
        try:
            return super().fire(trigger, at=at, **arguments)
        except GuardRejectedError:
            if trigger == "go_idle":
                return super().fire("terminate", at=at)
            raise


class LeavesFinal(SessionMachine):
    """A machine that lets notes be taken in a final status."""

    __slots__ = ()

    def fire(self, trigger: str, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire a trigger."""
        if trigger == "update" and self.state.status == "terminated":
            self._state = self.state.derive({}, at=at or self.state.updated_at)
            self.revision += 1
            return self.state
        return super().fire(trigger, at=at, **arguments)


def refusing(trigger: str) -> type[SessionMachine]:
    """A machine that refuses a trigger, whatever its guards say."""

    def refuse(lifecycle: Lifecycle) -> Lifecycle:
        never = Guard("never", lambda _: False, "never")
        rows = [
            attrs.evolve(row, guards=(never,)) if row.trigger == trigger else row
            for row in lifecycle.rows
        ]
        # What the checks of a lifecycle would refuse is built round them.
        built = copy.copy(lifecycle)
        object.__setattr__(built, "rows", tuple(rows))
        by_key = {(row.trigger, source): row for row in rows for source in built.sources(row)}
        object.__setattr__(built, "_by_key", by_key)
        return built

    return obeying(refuse)


@pytest.mark.parametrize(
    ("machine", "claim"),
    [
        (FiresOther, Claim.SINGLE),
        (LeavesFinal, Claim.FINAL),
        (refusing("stop_timeout"), Claim.ENDS),
        (refusing("finish"), Claim.WAY_OUT),
        (refusing("go_idle"), Claim.REACHED),
    ],
)
def test_certify_claims_fall_with_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: type[SessionMachine], claim: Claim
) -> None:
    """Each claim is about the machine: one that breaks it is found, though the table is right."""
    put_in(monkeypatch, machine)
    findings = Findings()
    switched = Switched(SESSION_LIFECYCLE)
    check_walked(switched, walk(switched, findings), findings)
    ways_to_the_end(switched, findings)
    ways_out(switched, findings)
    assert {Claim.AGREES, claim} <= {finding.claim for finding in findings.all()}


class Careless(SessionMachine):
    """A machine that does something besides what it is asked for."""

    __slots__ = ()
    fault = ""

    def fire(self, trigger: str, *, at: datetime | None = None, **arguments: Any) -> SessionState:
        """Fire a trigger, and do something wrong by the way."""
        before = self.state
        try:
            after = super().fire(trigger, at=at, **arguments)
        except TransitionError as error:
            self._refused_carelessly(error, before)
            raise
        match self.fault:
            case "revision":
                self.revision += 1
            case "answer":
                return before
            case "since":
                self._state = attrs.evolve(after, status_since=before.status_since)
            case "created":
                self._state = attrs.evolve(after, created_at=before.status_since)
            case "back in time":
                self._state = attrs.evolve(
                    after,
                    updated_at=max(after.status_since, after.last_activity_at),
                )
        return self.state

    def _refused_carelessly(self, error: TransitionError, before: SessionState) -> None:
        refusal = error.refusal
        match self.fault:
            case "change":
                self._state = attrs.evolve(before, error="refused")
            case "revision of a refusal":
                self.revision += 1
            case "first guard":
                error.refusal = attrs.evolve(refusal, failed_guards=refusal.failed_guards[:1])
            case "permitted":
                error.refusal = attrs.evolve(refusal, permitted=refusal.permitted[:1])
            case "timed":
                error.refusal = attrs.evolve(refusal, next_timed=None)
            case "kind" if refusal.kind == "unknown_trigger":
                error.refusal = attrs.evolve(refusal, kind="wrong_status")
            case "error":
                raise InvalidTransitionError(refusal=refusal, session_id=error.session_id)
            case "session":
                error.session_id = "another"
            case "crash":
                raise KeyError(before.status)


@pytest.mark.parametrize(
    "fault",
    ["revision", "answer", "since", "created", "back in time", "change", "revision of a refusal",
     "first guard", "permitted", "timed", "kind", "error", "session", "crash"],
)  # fmt: skip
def test_certify_finds_every_careless_machine(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The whole state, the revision, the answer and all of a refusal are compared."""
    put_in(monkeypatch, type("Careless", (Careless,), {"fault": fault, "__slots__": ()}))
    switched = Switched(SESSION_LIFECYCLE)
    with pytest.raises(FoundError):
        walk(switched, FirstFinding())


def test_certify_finds_a_dry_run_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`explain` has to say what `fire` raises."""
    monkeypatch.setattr(trying, "explain", lambda *_, **__: None)
    findings = Findings()
    walk_status(Switched(SESSION_LIFECYCLE), "idle", findings)
    assert {finding.problem for finding in findings.all()} == {"explain and fire differ"}


# --- faults of the database ----------------------------------------------------------------------

RULES = (
    "session_is_new",
    "session_begins",
    "session_stays_itself",
    "session_goes_on",
    "session_final_is_final",
    "session_moves_legally",
    "session_ends_first",
)
WEAKER = (
    ("    OR EXISTS (SELECT 1 FROM session WHERE rowid = NEW.rowid)\n", ""),
    (" OR NEW.lifecycle IS NOT OLD.lifecycle", ""),
    ("\n    OR NEW.rowid IS NOT OLD.rowid", ""),
    ("NEW.session_id IS NOT OLD.session_id OR ", ""),
    ("AND source = OLD.status AND target", "AND target"),
    ("AND source = OLD.status AND target = NEW.status", "AND source = OLD.status"),
    ("WHERE lifecycle = NEW.lifecycle AND status = NEW.status AND is_initial", "WHERE is_initial"),
    ("NEW.revision IS NOT OLD.revision + 1", "NEW.revision < OLD.revision"),
)
"""Parts of the rules, and what is put in their place."""


def attacked() -> set[Claim]:
    """What the attacks on a store find."""
    findings = Findings()
    attack(SESSION_LIFECYCLE, findings)
    return {finding.claim for finding in findings.all()}


def test_certify_finds_nothing_in_the_database_as_it_is() -> None:
    """The rules of the database stand every attack."""
    assert attacked() == set()


@pytest.mark.parametrize("rule", RULES)
def test_certify_finds_a_missing_rule_of_the_database(
    monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """Without any one of its rules the database lets something pass."""
    kept = [
        each
        for each in statements(sqlite_schema.TRIGGERS)
        if not each.startswith(f"CREATE TRIGGER {rule} ")
    ]
    assert len(kept) == len(statements(sqlite_schema.TRIGGERS)) - 1
    monkeypatch.setattr(sqlite_schema, "TRIGGERS", "\n".join(kept))
    assert attacked() == {Claim.DATABASE}


@pytest.mark.parametrize(("part", "instead"), WEAKER)
def test_certify_finds_a_weaker_rule_of_the_database(
    monkeypatch: pytest.MonkeyPatch, part: str, instead: str
) -> None:
    """With a part of a rule left out, the database lets something pass."""
    assert sqlite_schema.TRIGGERS.count(part) == 1
    weaker = sqlite_schema.TRIGGERS.replace(part, instead)
    monkeypatch.setattr(sqlite_schema, "TRIGGERS", weaker)
    assert attacked() == {Claim.DATABASE}


@pytest.mark.parametrize("edge", SESSION_LIFECYCLE.edges)
def test_certify_finds_a_move_that_the_database_refuses(
    monkeypatch: pytest.MonkeyPatch, edge: tuple[str, str]
) -> None:
    """The database has to let every edge of the graph pass."""
    left = [(SESSION_LIFECYCLE.name, *each) for each in SESSION_LIFECYCLE.edges if each != edge]
    monkeypatch.setattr(sqlite_schema, "_move_rows", lambda _: left)
    assert attacked() == {Claim.DATABASE}


def test_certify_finds_a_move_that_the_database_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has to refuse every pair that is no edge."""
    rows = [*SESSION_LIFECYCLE.edges, ("active", "terminated")]
    added = [(SESSION_LIFECYCLE.name, str(source), str(target)) for source, target in rows]
    monkeypatch.setattr(sqlite_schema, "_move_rows", lambda _: added)
    certificate = certify(SESSION_LIFECYCLE)
    assert ("active", "terminated") in certificate.attack.edges
    assert {finding.claim for finding in certificate.findings} == {Claim.DATABASE}
    where = {finding.where for finding in certificate.findings}
    assert "'active' → 'terminated'" in where
