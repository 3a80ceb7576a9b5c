"""A lifecycle as a value: its statuses, its rows, and the checks that make it trustworthy.

Everything that is known of a lifecycle follows from its rows: the machine, what is permitted, the
way out of each status, the diagrams, the constraints of a database. A lifecycle that contradicts
itself is never built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Self

import attrs

from .errors import LifecycleError
from .fields import check_word
from .rows import LIVE as LIVE
from .rows import RESERVED_ARGUMENTS, RESERVED_TRIGGERS, Live, words
from .rows import Row as Row

ROLES: Final = ("activate", "rest", "wake", "begin_task", "end_task", "count", "touch", "update")
"""What a manager does by itself or by a verb; a lifecycle names the trigger for each."""

_GIVEN: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(ROLES, ()),
    "begin_task": ("task_id",),
    "end_task": ("task_id",),
}
"""The arguments that a manager gives to the trigger that plays a role; with `update`, others."""


def _rows(value: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(value)


def _roles(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(value)


def _graces(value: Mapping[str, float | timedelta]) -> Mapping[str, timedelta]:
    return {name: _duration(grace) for name, grace in value.items()}


def _duration(grace: Any) -> Any:
    """Return seconds as a duration; what is neither is kept, for the checks to name."""
    try:
        return grace if isinstance(grace, timedelta) else timedelta(seconds=grace)
    except (TypeError, ValueError, OverflowError):
        return grace


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

    Attributes:
        drains: The statuses midway on a way out: entered by an ending row, not final.

    Raises:
        LifecycleError: A row names an unknown status; two rows share a trigger and a source; a
            status can't be reached, or has no way to a final one by unguarded or timed rows; a
            final status has a way out; an ending row leads nowhere final, fires by itself, or
            competes with another one; a row would take tasks to where none may be held; an
            argument, a trigger, a role or a grace can't be used. The row is named.
    """

    statuses: tuple[str, ...] = attrs.field(converter=words)
    initial: str
    rows: tuple[Row, ...] = attrs.field(converter=_rows)
    roles: Mapping[str, str] = attrs.field(factory=dict, converter=_roles)
    final: tuple[str, ...] = attrs.field(default=None, converter=attrs.converters.optional(words))
    graces: Mapping[str, timedelta] = attrs.field(factory=dict, converter=_graces)
    name: str = "session"
    drains: frozenset[str] = attrs.field(init=False, repr=False, eq=False)
    _members: dict[str, str] = attrs.field(init=False, repr=False)
    _by_key: dict[tuple[str, str], Row] = attrs.field(init=False, repr=False)
    _leaving: dict[str, tuple[Row, ...]] = attrs.field(init=False, repr=False)
    _timed: dict[str, tuple[Row, ...]] = attrs.field(init=False, repr=False)
    _ways_out: dict[str, tuple[Row, ...]] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        keep = object.__setattr__
        self._check_words()
        keep(self, "_members", {status: status for status in self.statuses})
        if self.final is None:
            named = {source for row in self.rows for source in _named(row)}
            keep(self, "final", tuple(word for word in self.statuses if word not in named))
        self._check_rows()
        ends = {row.target for row in self.rows if row.ending and row.target is not None}
        keep(self, "drains", frozenset(ends.difference(self.final)))
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
        leaving = self._leaving.items()
        timed = {word: tuple(row for row in rows if row.deadline) for word, rows in leaving}
        keep(self, "_timed", timed)
        self._check_tasks()
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
        try:
            return self._members[word]
        except (KeyError, TypeError):
            raise self._error(f"there is no status {word!r}") from None

    def word(self, word: str | None) -> str | None:
        """Return the lifecycle's own member for a word, or the word itself if it is not known."""
        return word if word is None else self._members.get(word, word)

    def sources(self, row: Row) -> tuple[str, ...]:
        """Return the statuses from which a row may be fired."""
        return self.live if isinstance(row.sources, Live) else row.sources

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
        return self._timed.get(status, ())

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
        also_from: Mapping[str, Iterable[str] | str] | None = None,
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
            also_from: For triggers of ours, more statuses from which their row may be fired.
            roles: Roles to add or to give to another trigger.
            graces: Durations to add or to change.
            final: Final statuses to add.
            name: The new name; None: ours.

        Raises:
            LifecycleError: The result contradicts itself, or a trigger whose row is to be fired
                from more statuses has none, or several.
        """
        mine = self._widened(also_from or {})
        all_statuses = (*self.statuses, *statuses)
        all_final = (*self.final, *final)
        live = tuple(status for status in all_statuses if status not in all_final)

        def sources(row: Row) -> tuple[str, ...]:
            return live if isinstance(row.sources, Live) else row.sources

        added = tuple(rows)
        taken = {(row.trigger, source) for row in added for source in sources(row)}
        kept: list[Row] = []
        for row in mine:
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
            graces={**self.graces, **(graces or {})},
            final=all_final,
            name=self.name if name is None else name,
        )

    def _widened(self, also_from: Mapping[str, Iterable[str] | str]) -> tuple[Row, ...]:
        wider: dict[str, Row] = {}
        for trigger, sources in also_from.items():
            found = [row for row in self.rows if row.trigger == trigger]
            if len(found) != 1:
                raise self._error(f"{len(found)} rows have the trigger {trigger!r}, not one")
            [row] = found
            if isinstance(row.sources, Live):
                raise self._error(f"{row}: may be fired from every live status already")
            wider[trigger] = attrs.evolve(row, sources=(*row.sources, *words(sources)))
        return tuple(wider.get(row.trigger, row) for row in self.rows)

    def without(
        self, *triggers: str, statuses: Iterable[str] | str = (), name: str | None = None
    ) -> Self:
        """Return a lifecycle that lacks the rows, and the roles, of some triggers.

        Args:
            *triggers: Triggers whose rows are left out.
            statuses: Statuses to leave out, with the rows that lead to them; other rows can no
                longer be fired from them.
            name: The new name; None: ours.

        Raises:
            LifecycleError: A trigger or a status is unknown, or the result contradicts itself.
        """
        gone = words(statuses)
        for what, asked, known in (
            ("trigger", triggers, self.triggers),
            ("status", gone, self.statuses),
        ):
            if unknown := set(asked).difference(known):
                raise self._error(f"there is no {what} {', '.join(sorted(map(repr, unknown)))}")
        rows: list[Row] = []
        for row in self.rows:
            left = tuple(word for word in self.sources(row) if word not in gone)
            if left and row.trigger not in triggers and row.target not in gone:
                rows.append(row if left == self.sources(row) else attrs.evolve(row, sources=left))
        kept = {row.trigger for row in rows}
        return attrs.evolve(
            self,
            statuses=tuple(status for status in self.statuses if status not in gone),
            rows=rows,
            roles={role: trigger for role, trigger in self.roles.items() if trigger in kept},
            final=tuple(status for status in self.final if status not in gone),
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
        for what, named in (("initial", (self.initial,)), ("final", self.final or ())):
            for word in named:
                if word not in self.statuses:
                    raise self._error(f"the {what} status {word!r} is not among the statuses")
        for grace, length in self.graces.items():
            if not isinstance(length, timedelta):
                raise self._error(f"the {grace} grace is no duration: {length!r}")
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
        for row in self.rows:
            self._check_given(row)

    def _check_given(self, row: Row) -> None:
        """Check that whoever fires a row by itself, or in a role, can give it its arguments."""
        if row.required and (row.deadline is not None or row.ending):
            why = "fires by itself" if row.deadline is not None else "is ending"
            raise self._error(f"{row}: {why}, nobody could give it its arguments")
        for role in (role for role, trigger in self.roles.items() if trigger == row.trigger):
            given = _GIVEN[role]
            if role != "update" and (missing := set(row.required).difference(given)):
                names = ", ".join(sorted(missing))
                raise self._error(f"{row}: needs {names}, which the role {role!r} does not give")
            if untaken := set(given).difference(row.required, row.optional):
                names = ", ".join(sorted(untaken))
                raise self._error(f"{row}: does not take {names}, which the role {role!r} gives")

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
            if row.deadline.grace is not None and row.deadline.grace not in self.graces:
                raise self._error(f"{row}: there is no grace named {row.deadline.grace!r}")
            if row.ending:
                raise self._error(f"{row}: fires by itself, so nobody can go this way out at once")
        if row.ending and row.target is None:
            raise self._error(f"{row}: an ending row leads somewhere")

    def _check_tasks(self) -> None:
        """Check that no row leads with its tasks to where none may be held, for all it says."""
        for row, source in self.moves():
            if row.target is None or row.guards or row.effect is not None:
                continue  # what they do, nobody can read
            if self.holds_tasks(source) and not self.holds_tasks(row.target):
                raise self._error(
                    f"{row}: {source!r} may hold tasks, {row.target!r} may not: it needs a guard"
                    " that there is none, or an effect that drops them"
                )

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
    return () if isinstance(row.sources, Live) else row.sources


def with_graces(lifecycle: Lifecycle, graces: Mapping[str, float | None]) -> Lifecycle:
    """Return a lifecycle with other graces, in seconds; None: as it has them."""
    given = {name: seconds for name, seconds in graces.items() if seconds is not None}
    for name in given:
        if name not in lifecycle.graces:
            problem = f"has no {name} grace that could be set"
            raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
    return lifecycle.extend(graces=given) if given else lifecycle
