"""A lifecycle as a value: its statuses, its rows, and the checks that make it trustworthy.

Everything that is known of a lifecycle follows from its rows: the machine, what is permitted, the
way out of each status, the diagrams, the constraints of a database. A lifecycle that contradicts
itself is never built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Self

import attrs

from .errors import LifecycleError
from .fields import check_word
from .guards import Attempt, Deadline, Guard

Effect = Callable[[Attempt], Mapping[str, Any]]
"""Returns the data fields that a move changes; pure."""

ROLES: Final = ("activate", "rest", "wake", "begin_task", "end_task", "count", "touch", "update")
"""What a manager does by itself or by a verb; a lifecycle names the trigger for each."""

RESERVED_ARGUMENTS: Final = frozenset(
    (
        "self",
        "at",
        "lifecycle",
        "state",
        "reason",
        "expected_revision",
        "session_id",
        "trigger",
        "to",
    )
)
RESERVED_TRIGGERS: Final = frozenset(("fire", "lifecycle", "revision", "state"))


class _Live(Enum):
    LIVE = "every status that is not final"


LIVE: Final = _Live.LIVE
"""As the sources of a row: all statuses that are not final."""


def _words(value: Iterable[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _rows(value: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(value)


def _guards(value: Iterable[Guard]) -> tuple[Guard, ...]:
    return tuple(value)


def _roles(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(value)


def _sources(value: Iterable[str] | str | _Live) -> tuple[str, ...] | _Live:
    return value if isinstance(value, _Live) else _words(value)


@attrs.frozen
class Row:
    """One legal move, or one legal change within a status.

    Attributes:
        trigger: What fires it; an identifier.
        sources: Statuses from which it may be fired; `LIVE`: all that are not final.
        target: The status that it leads to; None: the status stays.
        guards: What must hold, all of it.
        deadline: When it fires by itself; None: by hand only. It is a guard of the row too.
        effect: The data that it changes; None: none.
        activity: Whether it counts as somebody working with the session.
        ending: Whether it is part of its sources' way out.
        required: Arguments that must come with the trigger.
        optional: Arguments that may come with it.
        why: The reason for the row, in a few words.
        conditions: The guards in order, the deadline's own one last.
    """

    trigger: str
    sources: tuple[str, ...] | _Live = attrs.field(converter=_sources)
    target: str | None
    guards: tuple[Guard, ...] = attrs.field(default=(), converter=_guards, kw_only=True)
    deadline: Deadline | None = attrs.field(default=None, kw_only=True)
    effect: Effect | None = attrs.field(default=None, kw_only=True)
    activity: bool = attrs.field(default=False, kw_only=True)
    ending: bool = attrs.field(default=False, kw_only=True)
    required: tuple[str, ...] = attrs.field(default=(), converter=_words, kw_only=True)
    optional: tuple[str, ...] = attrs.field(default=(), converter=_words, kw_only=True)
    why: str = attrs.field(default="", kw_only=True)
    conditions: tuple[Guard, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        due = () if self.deadline is None else (self.deadline.passed(),)
        object.__setattr__(self, "conditions", self.guards + due)

    def __str__(self) -> str:
        sources = "LIVE" if isinstance(self.sources, _Live) else ", ".join(self.sources)
        return f"row {self.trigger!r} ({sources} -> {self.target or 'stays'})"


def _graces(value: Mapping[str, float | timedelta]) -> Mapping[str, timedelta]:
    graces = {}
    for name, grace in value.items():
        try:
            graces[name] = grace if isinstance(grace, timedelta) else timedelta(seconds=grace)
        except (TypeError, ValueError, OverflowError):
            problem = f"the {name} grace is no duration: {grace!r}"
            raise LifecycleError(problem=problem) from None
    return graces


@attrs.frozen(eq=False)
class Lifecycle:
    """The statuses of something that lives, and every legal move between them.

    Attributes:
        statuses: Distinct words (`str` or `StrEnum` members), in the order of a life.
        initial: The status in which a life begins.
        rows: The table; its order is the order in which moves are listed.
        roles: For each role that the manager may play, the trigger that it fires.
        final: The statuses that nothing leaves; None: those that no row names as a source.
        graces: Durations by name, as `timedelta` or seconds, for the deadlines of rows.
        name: How it is called in stores and diagrams.

    Raises:
        LifecycleError: A row names an unknown status; two rows share a trigger and a source; a
            status can't be reached, or has no way to a final one by unguarded or timed rows; a
            final status has a way out; an ending row leads nowhere final, or two of them compete;
            an argument, a trigger, a role or a grace can't be used. The row is named.
    """

    statuses: tuple[str, ...] = attrs.field(converter=_words)
    initial: str
    rows: tuple[Row, ...] = attrs.field(converter=_rows)
    roles: Mapping[str, str] = attrs.field(factory=dict, converter=_roles)
    final: tuple[str, ...] = attrs.field(default=None, converter=attrs.converters.optional(_words))
    graces: Mapping[str, timedelta] = attrs.field(factory=dict, converter=_graces)
    name: str = "session"
    _members: dict[str, str] = attrs.field(init=False, repr=False)
    _by_key: dict[tuple[str, str], Row] = attrs.field(init=False, repr=False)
    _leaving: dict[str, tuple[Row, ...]] = attrs.field(init=False, repr=False)
    _ways_out: dict[str, tuple[Row, ...]] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        keep = object.__setattr__
        self._check_words()
        keep(self, "_members", {status: status for status in self.statuses})
        if self.final is None:
            named = {source for row in self.rows for source in _named(row)}
            keep(self, "final", tuple(word for word in self.statuses if word not in named))
        self._check_rows()
        by_key = {(row.trigger, source): row for row in self.rows for source in self.sources(row)}
        keep(self, "_by_key", by_key)
        keep(
            self,
            "_leaving",
            {
                status: tuple(row for row in self.rows if status in self.sources(row))
                for status in self.statuses
            },
        )
        self._check_reachable()
        keep(self, "_ways_out", {status: self._find_way_out(status) for status in self.statuses})

    # --- looking things up ----------------------------------------------------------------

    def __contains__(self, status: object) -> bool:
        return isinstance(status, str) and status in self._members

    @property
    def live(self) -> tuple[str, ...]:
        """The statuses that are not final, in order."""
        return tuple(status for status in self.statuses if status not in self.final)

    @property
    def triggers(self) -> tuple[str, ...]:
        """The triggers, in the order of the table, each once."""
        return tuple(dict.fromkeys(row.trigger for row in self.rows))

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The legal (source, target) pairs, in the order of the statuses, each once."""
        pairs = {(source, row.target) for row, source in self.moves() if row.target is not None}
        order = {status: index for index, status in enumerate(self.statuses)}
        return tuple(sorted(pairs, key=lambda pair: (order[pair[0]], order[pair[1]])))

    def status(self, word: str) -> str:
        """Return the lifecycle's own member for a word.

        Raises:
            LifecycleError: There is no such status.
        """
        if word not in self:
            raise self._error(f"there is no status {word!r}")
        return self._members[word]

    def word(self, word: str | None) -> str | None:
        """Return the lifecycle's own member for a word, or the word itself if it is not known."""
        return word if word is None else self._members.get(word, word)

    def sources(self, row: Row) -> tuple[str, ...]:
        """Return the statuses from which a row may be fired."""
        return self.live if isinstance(row.sources, _Live) else row.sources

    def moves(self) -> Iterator[tuple[Row, str]]:
        """Yield each row with each of its sources, in the table's order."""
        for row in self.rows:
            for source in self.sources(row):
                yield row, source

    def find(self, trigger: str, status: str) -> Row | None:
        """Return the row that a trigger fires in a status, or None."""
        return self._by_key.get((trigger, status))

    def leaving(self, status: str) -> tuple[Row, ...]:
        """Return the rows that may be fired in a status, in the table's order."""
        return self._leaving.get(status, ())

    def timed(self, status: str) -> tuple[Row, ...]:
        """Return the rows that may fire by themselves in a status, in the table's order."""
        return tuple(row for row in self.leaving(status) if row.deadline is not None)

    def by_hand(self, source: str, target: str) -> Row | None:
        """Return the one hand-fired row between two statuses, or None.

        Raises:
            LifecycleError: There are two; ask for one of them by its trigger.
        """
        found = [
            row for row in self.leaving(source) if row.target == target and row.deadline is None
        ]
        if len(found) > 1:
            names = " and ".join(repr(row.trigger) for row in found)
            raise self._error(f"{names} both lead from {source!r} to {target!r}: fire one by name")
        return found[0] if found else None

    def role(self, role: str) -> str:
        """Return the trigger that plays a role.

        Raises:
            LifecycleError: The lifecycle has none for it.
        """
        if role not in self.roles:
            raise self._error(f"no trigger plays the role {role!r}")
        return self.roles[role]

    def holds_tasks(self, status: str) -> bool:
        """Whether a status may hold tasks: those that have the row which ends one."""
        return (self.roles.get("end_task", ""), status) in self._by_key

    def way_out(self, status: str) -> tuple[Row, ...]:
        """Return the ending rows that lead from a status to a final one; empty if it is final.

        Raises:
            LifecycleError: No ending row leaves the status.
        """
        if status not in self.final and not self._ways_out.get(status):
            raise self._error(f"no ending row leads out of {status!r}")
        return self._ways_out[status]

    @property
    def drains(self) -> frozenset[str]:
        """The statuses midway on a way out: entered by an ending row, not final."""
        targets = {row.target for row in self.rows if row.ending and row.target is not None}
        return frozenset(targets.difference(self.final))

    @property
    def fingerprint(self) -> str:
        """A digest of the statuses and rows by name, without durations; the same everywhere."""
        rows = [
            (
                row.trigger,
                source,
                row.target,
                [guard.name for guard in row.conditions],
                row.deadline.name if row.deadline else None,
                row.activity,
                row.ending,
            )
            for row, source in self.moves()
        ]
        told = (self.statuses, self.initial, self.final, rows, sorted(self.roles.items()))
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    # --- deriving others ------------------------------------------------------------------

    def extend(
        self,
        *,
        statuses: Iterable[str] = (),
        rows: Iterable[Row] = (),
        roles: Mapping[str, str] | None = None,
        graces: Mapping[str, float | timedelta] | None = None,
        final: Iterable[str] = (),
        name: str | None = None,
    ) -> Self:
        """Return a lifecycle with more statuses and rows, which win over ours.

        Args:
            statuses: Statuses to add, after ours.
            rows: Rows to add. Where one has a trigger and a source of ours, it takes the place of
                our row for that source.
            roles: Roles to add or to give to another trigger.
            graces: Durations to add or to change.
            final: Final statuses to add.
            name: The new name; None: ours.

        Raises:
            LifecycleError: The result contradicts itself.
        """
        all_statuses = (*self.statuses, *statuses)
        all_final = (*self.final, *final)
        live = tuple(status for status in all_statuses if status not in all_final)

        def sources(row: Row) -> tuple[str, ...]:
            return live if isinstance(row.sources, _Live) else row.sources

        added = tuple(rows)
        taken = {(row.trigger, source) for row in added for source in sources(row)}
        kept: list[Row] = []
        for row in self.rows:
            left = tuple(word for word in sources(row) if (row.trigger, word) not in taken)
            if left == sources(row):
                kept.append(row)
            elif left:
                kept.append(attrs.evolve(row, sources=left))
        return attrs.evolve(
            self,
            statuses=all_statuses,
            rows=(*kept, *added),
            roles={**self.roles, **(roles or {})},
            graces={**self.graces, **_graces(graces or {})},
            final=all_final,
            name=self.name if name is None else name,
        )

    def without(self, *triggers: str, name: str | None = None) -> Self:
        """Return a lifecycle that lacks the rows, and the roles, of some triggers.

        Raises:
            LifecycleError: A trigger is unknown, or the result contradicts itself.
        """
        if unknown := set(triggers).difference(self.triggers):
            raise self._error(f"there is no trigger {', '.join(sorted(map(repr, unknown)))}")
        return attrs.evolve(
            self,
            rows=[row for row in self.rows if row.trigger not in triggers],
            roles={role: name for role, name in self.roles.items() if name not in triggers},
            name=self.name if name is None else name,
        )

    # --- checks ---------------------------------------------------------------------------

    def _error(self, problem: str) -> LifecycleError:
        return LifecycleError(problem=problem, lifecycle=self.name)

    def _check_words(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise self._error(f"a lifecycle has a name, not {self.name!r}")
        for status in self.statuses:
            # The `str` of a member of `class X(str, Enum)` is another word than the member.
            if not isinstance(status, str) or str(status) != status:
                raise self._error(f"a status is a str or a StrEnum member, not {status!r}")
            problems: list[str] = []
            check_word(status, f"status {status!r}", problems)
            if problems:
                raise self._error("; ".join(problems))
        if len(set(self.statuses)) != len(self.statuses):
            raise self._error("a status stands twice")
        for what, words in (("initial", (self.initial,)), ("final", self.final or ())):
            for word in words:
                if word not in self.statuses:
                    raise self._error(f"the {what} status {word!r} is not among the statuses")
        for grace, length in self.graces.items():
            if length < timedelta(0):
                raise self._error(f"the {grace} grace is negative")

    def _check_rows(self) -> None:
        seen: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            self._check_row(row)
            for source in self.sources(row):
                if other := seen.get((row.trigger, source)):
                    raise self._error(f"{row} and {other} compete in {source!r}")
                seen[row.trigger, source] = row
        triggers = {row.trigger for row in self.rows}
        for role, trigger in self.roles.items():
            if role not in ROLES:
                raise self._error(f"{role!r} is no role; roles are {', '.join(ROLES)}")
            if trigger not in triggers:
                raise self._error(f"the role {role!r} names {trigger!r}, which no row has")

    def _check_row(self, row: Row) -> None:
        private = row.trigger.startswith("_")
        if not row.trigger.isidentifier() or private or row.trigger in RESERVED_TRIGGERS:
            raise self._error(f"{row}: {row.trigger!r} can't be a trigger's name")
        for source in self.sources(row):
            if source not in self.statuses:
                raise self._error(f"{row}: unknown status {source!r}")
            if source in self.final:
                raise self._error(f"{row}: {source!r} is final, nothing leaves it")
        if not self.sources(row):
            raise self._error(f"{row}: has no source")
        if row.target is not None and row.target not in self.statuses:
            raise self._error(f"{row}: unknown status {row.target!r}")
        arguments = (*row.required, *row.optional)
        for argument in arguments:
            if not argument.isidentifier() or argument in RESERVED_ARGUMENTS:
                raise self._error(f"{row}: {argument!r} can't be an argument's name")
        for guard in row.guards:
            # Leaving out an optional argument would leave out the guard.
            if missing := set(guard.needs).difference(row.required):
                names = ", ".join(sorted(missing))
                raise self._error(f"{row}: guard {guard.name!r} needs {names}, not required by it")
        if row.deadline is not None:
            if row.required:
                raise self._error(f"{row}: fires by itself, nobody could give it its arguments")
            if row.deadline.grace is not None and row.deadline.grace not in self.graces:
                raise self._error(f"{row}: there is no grace named {row.deadline.grace!r}")
        if row.ending and row.target is None:
            raise self._error(f"{row}: an ending row leads somewhere")

    def _check_reachable(self) -> None:
        if not self.final:
            raise self._error("no status is final")
        reached = self._closure({self.initial}, forwards=True, rows=self.rows)
        for status in self.statuses:
            if status not in reached:
                raise self._error(f"{status!r} can't be reached from {self.initial!r}")
        certain = [row for row in self.rows if row.deadline is not None or not row.guards]
        ending = self._closure(set(self.final), forwards=False, rows=certain)
        for status in self.statuses:
            if status not in ending:
                rows = ", ".join(str(row) for row in self.leaving(status) if row.target) or "none"
                raise self._error(
                    f"{status!r} has no way to a final status by unguarded or timed rows"
                    f" (its ways out: {rows})"
                )

    def _closure(self, reached: set[str], *, forwards: bool, rows: Iterable[Row]) -> frozenset[str]:
        pairs = [
            (source, row.target) if forwards else (row.target, source)
            for row in rows
            if row.target is not None
            for source in self.sources(row)
        ]
        while True:
            more = {end for start, end in pairs if start in reached}.difference(reached)
            if not more:
                return frozenset(reached)
            reached = reached | more

    def _find_way_out(self, status: str) -> tuple[Row, ...]:
        way: list[Row] = []
        passed = {status}
        while status not in self.final:
            ending = [row for row in self.leaving(status) if row.ending]
            if len(ending) > 1:
                raise self._error(f"{ending[0]} and {ending[1]} are both the way out of {status!r}")
            if not ending:
                if way:
                    raise self._error(f"{way[-1]} is ending, and leads nowhere final")
                return ()
            way.append(ending[0])
            assert ending[0].target is not None
            status = ending[0].target
            if status in passed:
                raise self._error(f"{ending[0]} is ending, and leads nowhere final")
            passed.add(status)
        return tuple(way)


def _named(row: Row) -> tuple[str, ...]:
    return () if isinstance(row.sources, _Live) else row.sources


def with_graces(lifecycle: Lifecycle, graces: Mapping[str, float | None]) -> Lifecycle:
    """Return a lifecycle with other graces, in seconds; None: as it has them."""
    given = {name: seconds for name, seconds in graces.items() if seconds is not None}
    for name in given:
        if name not in lifecycle.graces:
            problem = f"has no {name} grace that could be set"
            raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
    return lifecycle.extend(graces=given) if given else lifecycle
