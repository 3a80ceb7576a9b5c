"""Two managers over one store, and what they must show: the shadows of its sessions.

This is what `LifecycleRules` stands on. It makes every call of a manager beside a story of the
oracle, and compares the outcome: the answer or the error, the events, the stored state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from ..clock import Clock, ManualClock, instant_text
from ..errors import (
    LifecycleError,
    SessionFsmError,
    SessionNotFoundError,
    TransitionError,
)
from ..history import Step, seal
from ..lifecycle import Lifecycle
from ..manager import SessionManager
from ..serialization import dumps
from ..session import Session, SessionEvent
from ..state import SessionConfig, SessionState
from ..stores import MemoryStore
from ..stores.abc import SessionStore
from ..table import SESSION_LIFECYCLE
from .arguments import Arguments, DrawnArguments, modest_configs
from .reachable import BEGINNING
from .rules_oracle import Foreseen, Move, Oracle, Story, Telling

IDS: Final = ("a", "b", "c", "d")
"""Ids of the sessions that live, end, and are created again."""
UNKNOWN: Final = "no such word"
"""Neither a trigger nor a status."""
MANAGERS: Final = st.integers(0, 1)
SESSIONS: Final = st.runner().flatmap(lambda rules: st.sampled_from(rules.sessions_to_drive))
"""Ids, mostly of sessions that live: what is done to one that has ended is the same each time."""
NEW_SESSIONS: Final = st.runner().flatmap(lambda rules: st.sampled_from(rules.sessions_to_create))
"""Ids, mostly of sessions that are not there."""
REASONS: Final = st.sampled_from((None, "asked for"))


@attrs.define(kw_only=True)
class Shadow:
    """What a session must be.

    Attributes:
        state: Its state.
        revision: The revision of its last event.
        starter: Which owner created it.
        owners: Which owner answers for each task in flight.
    """

    state: SessionState
    revision: int
    starter: int
    owners: dict[str, int]


class Driven(RuleBasedStateMachine):
    """Two managers, the shadows of their sessions, and the comparison of both."""

    lifecycle: ClassVar[Lifecycle] = SESSION_LIFECYCLE
    arguments: ClassVar[Arguments] = {}
    configs: ClassVar[st.SearchStrategy[SessionConfig]] = modest_configs()
    metadata: ClassVar[st.SearchStrategy[Mapping[str, Any]]] = st.just({})
    auto_idle: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._drawn = DrawnArguments(self.lifecycle, self.arguments)
        self.clock = ManualClock(BEGINNING, autojump=True)
        self.managers: list[SessionManager] = []
        self.shadows: dict[str, Shadow] = {}
        self._stores: list[SessionStore] = []
        self._owners: list[int] = []
        self._owner_numbers = count()
        self._finds: list[AssertionError] = []
        self._dead: set[int] = set()
        self._graves: dict[str, int] = {}
        self._lives: dict[str, list[SessionEvent]] = {each: [] for each in IDS}
        self._all_events: dict[str, list[SessionEvent]] = {each: [] for each in IDS}
        self._told: dict[str, list[SessionEvent]] = {each: [] for each in IDS}
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    # --- what a user may say ------------------------------------------------------------------

    def open_store(self) -> SessionStore:
        """Open the store that the managers work on; closed by the rules.

        A store that is `durable` is opened once for each manager, and again when a manager is
        opened anew: each time the same place. Another one is opened once, and shared. At the
        beginning it is empty. `self.directory` is a place for files.
        """
        return MemoryStore(self.lifecycle)

    def open_manager(self, store: SessionStore, clock: Clock) -> SessionManager:
        """Open a manager on an open store; override it for one with other arguments."""
        return SessionManager(
            store, lifecycle=self.lifecycle, clock=clock, auto_idle=self.auto_idle
        )

    @property
    def directory(self) -> Path:
        """A directory of this run alone, new and empty; it is removed at the end."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="lifecycle-rules-")
        return Path(self._directory.name)

    # --- opening and closing ------------------------------------------------------------------

    def open_both(self) -> None:
        """Open two managers on an empty store."""
        for number in range(2):
            self.open(number)
        for store in self._stores:
            found = store.ids(1, None)
            assert found == (), f"open_store must give an empty store at first; it holds {found}"

    def open(self, number: int) -> None:
        """Open a manager, in the place of one that was closed or behind the others."""
        shared = bool(self._stores) and not self._stores[0].durable
        store = self._stores[0] if shared else self.open_store()
        self._stores[number : number + 1] = [store]
        manager = self.open_manager(store, self.clock)
        self.managers[number : number + 1] = [manager]
        self._owners[number : number + 1] = [next(self._owner_numbers)]
        manager.subscribe(self._hear)

    def _hear(self, event: SessionEvent) -> None:
        self._told.setdefault(event.session_id, []).append(event)

    def close(self, number: int) -> None:
        """Close a manager, with its store if that is its own."""
        self.managers[number].close()
        self._dead.add(self._owners[number])
        if self._stores[number].durable:
            self._stores[number].close()

    def teardown(self) -> None:
        """Close everything that is open, and remove the files."""
        try:
            for manager in self.managers:
                manager.close()
        finally:
            for store in self._stores:
                store.close()
            if self._directory is not None:
                self._directory.cleanup()

    # --- drawing ------------------------------------------------------------------------------

    @property
    def sessions_to_drive(self) -> tuple[str, ...]:
        """Ids to choose from; one stands there the more often, the more there is to do with it."""
        final = self.lifecycle.final
        live = [each for each, it in self.shadows.items() if it.state.status not in final]
        return (*live, *live, *live, *IDS)

    @property
    def sessions_to_create(self) -> tuple[str, ...]:
        """Ids to choose from; one that is in use stands there once."""
        absent = [each for each in IDS if each not in self.shadows]
        return (*absent, *absent, *absent, *IDS)

    def draw(self, data: st.DataObject, trigger: str, session_id: str) -> dict[str, Any]:
        """Draw what comes with a trigger; nothing, if the session is not there."""
        shadow = self.shadows.get(session_id)
        if shadow is None:
            return {}
        told = self._drawn.draw(data.draw, trigger, shadow.state)
        if isinstance(told.get("config"), SessionConfig):
            told["config"] = kept_anywhere(told["config"])
        return told

    def new(self, session_id: str, data: st.DataObject) -> tuple[SessionState, dict[str, Any]]:
        """Return the first state of a session, and what it is created with."""
        config, metadata = data.draw(self.configs, "config"), data.draw(self.metadata, "metadata")
        given: dict[str, Any] = {"config": kept_anywhere(config), "metadata": metadata}
        initial = self.lifecycle.initial
        return SessionState.new(session_id, at=self.now, status=initial, **given), given

    # --- doing something, and knowing what comes of it ----------------------------------------

    @property
    def now(self) -> datetime:
        """The instant that the clock stands at."""
        return self.clock.now()

    def oracle(self, at: datetime | None = None) -> Oracle:
        """Return what foresees verbs at an instant; None: now."""
        return Oracle(self.lifecycle, self.now if at is None else at, self.auto_idle)

    def drive(
        self,
        number: int,
        session_id: str,
        verb: Callable[[SessionManager], Session],
        story: Story,
        *,
        reason: str | None = None,
    ) -> None:
        """Call a verb of a manager, and compare what comes of it with a story.

        Args:
            number: Which manager.
            session_id: The session that the verb is about; it may be absent.
            verb: Calls the manager.
            story: Tells what the verb does.
            reason: What was said with the verb; None: nothing.
        """
        shadow = self.shadows.get(session_id)
        if shadow is None:
            fault = self.refused(number, verb)
            kinds = (SessionNotFoundError, LifecycleError)
            assert isinstance(fault, kinds), f"there is no session {session_id!r}, but: {fault!r}"
            return
        foreseen = self.oracle().foresee(shadow.state, story)
        if foreseen.fault is not None:
            same_fault(self.refused(number, verb), foreseen.fault)
            return
        session = verb(self.managers[number])
        events = self.absorb(number, session_id, foreseen)
        said = [event.reason for event in events]
        due = [reason, *(None for _ in events[1:])][: len(events)]
        assert said == due, (
            f"{session_id!r}: the events have the reasons {said}, and must have {due}"
        )
        self.same_session(session)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a find that is made while a manager calls us: it may take it for our failure."""
        try:
            yield
        except AssertionError as find:
            self._finds.append(find)
            raise

    def raise_noted(self) -> None:
        """Raise what was found while a manager called us."""
        if self._finds:
            raise self._finds[0]

    def refused(self, number: int, verb: Callable[[SessionManager], object]) -> Exception:
        """Call a verb that must be refused; what it raised is returned."""
        try:
            result = verb(self.managers[number])
        except (SessionFsmError, TypeError) as fault:
            return fault
        raise AssertionError(f"it must be refused, and gave {result!r}")

    def absorb(self, number: int, session_id: str, foreseen: Foreseen) -> tuple[SessionEvent, ...]:
        """Compare what a manager has committed with what had to come, and take it over.

        Args:
            number: Which manager committed.
            session_id: Whose steps.
            foreseen: What had to come; the shadow moves on by it.

        Returns:
            The new events.
        """
        assert foreseen.fault is None, f"{session_id!r}: refused, and done: {foreseen.fault}"
        shadow = self.shadows[session_id]
        events = self.unseen(number, session_id)
        fired = [event.trigger for event in events]
        expected = [move.trigger for move in foreseen.moves]
        assert fired == expected, f"{session_id!r}: {fired} were committed, where {expected} follow"
        for event, move in zip(events, foreseen.moves, strict=True):
            shadow.revision += 1
            self._same_event(event, move, shadow.revision)
        self._take(number, session_id, shadow, foreseen.state, events)
        return events

    def unseen(self, number: int, session_id: str) -> tuple[SessionEvent, ...]:
        """Return the events of a session behind those that were compared already."""
        history = self.managers[number].history(session_id)
        seen = len(self._lives[session_id])
        assert list(history[:seen]) == self._lives[session_id], f"{session_id!r}: its past changed"
        return history[seen:]

    def _take(
        self,
        number: int,
        session_id: str,
        shadow: Shadow,
        state: SessionState,
        events: Iterable[SessionEvent],
    ) -> None:
        ended = shadow.state.status in self.lifecycle.final
        assert not (ended and tuple(events)), f"{session_id!r} had ended, and was changed"
        shadow.owners = {
            task: shadow.owners.get(task, self._owners[number]) for task in state.active_tasks
        }
        shadow.state = state
        self._remember(session_id, events)

    def _remember(self, session_id: str, events: Iterable[SessionEvent]) -> None:
        self._lives[session_id] += events
        self._all_events[session_id] += events

    def _same_event(self, event: SessionEvent, move: Move, revision: int) -> None:
        """Compare an event with the move that it must tell of, all but its reason and digest."""
        row = self.lifecycle.find(move.trigger, move.before.status)
        moves = row is not None and row.target is not None
        step = Step(before=move.before, after=move.after, trigger=move.trigger, moves=moves)
        told = attrs.evolve(event, digest="", reason=None)
        due = attrs.evolve(seal(step, revision=revision, previous="").event, digest="")
        assert told == due, f"the event is {told}, and must be {due}"

    def same_session(self, session: Session) -> None:
        """Compare a session that a manager hands out with its shadow."""
        shadow = self.shadows[session.session_id]
        shown = dumps(session.state, self.lifecycle)
        due = dumps(shadow.state, self.lifecycle)
        assert shown == due, f"the session is {shown!r}, and must be {due!r}"
        assert session.revision == shadow.revision, f"{session} must be at {shadow.revision}"
        member, kind = self.lifecycle.status(shadow.state.status), type(session.status)
        assert kind is type(member), f"the status is a {kind.__name__}, not the lifecycle's own"

    # --- creating and burying -----------------------------------------------------------------

    def born(self, number: int, state: SessionState) -> None:
        """Compare the event of a creation with the first state, and begin its shadow."""
        session_id = state.session_id
        revision = self._graves.get(session_id, 0) + 1
        self.shadows[session_id] = Shadow(
            state=state, revision=revision, starter=self._owners[number], owners={}
        )
        first = self.unseen(number, session_id)[:1]
        step = Step(before=None, after=state, trigger=None, moves=False)
        due = seal(step, revision=revision, previous="").event
        told = [attrs.evolve(event, digest="") for event in first]
        assert told == [attrs.evolve(due, digest="")], f"it was created by {told}, not by {due}"
        self._remember(session_id, first)

    def buried(self, number: int, session_id: str) -> None:
        """Compare the tombstone of a session with what it must be, and end its shadow."""
        shadow = self.shadows.pop(session_id)
        history = self.managers[number].history(session_id)
        at = max(self.now, shadow.state.updated_at)
        told = [(each.kind, each.revision, instant_text(each.at)) for each in history]
        assert told == [("purged", shadow.revision + 1, instant_text(at))], f"{told} are left"
        last = self._lives[session_id][-1].digest
        assert history[0].changes == {"last_digest": last}
        self._graves[session_id] = shadow.revision + 1
        self._lives[session_id] = list(history)
        self._all_events[session_id] += history


def kept_anywhere(config: SessionConfig) -> SessionConfig:
    """Return a configuration that leaves open where a session is kept.

    One that lives in the memory of a manager is not there for another.
    """
    return attrs.evolve(config, persistence_enabled=None)


def nothing(_: SessionState) -> Telling:
    """Tell the story in which nothing happens."""
    yield from ()


def same_fault(fault: Exception, due: Exception | None) -> None:
    """Compare what a verb raised with what it had to raise."""
    assert type(fault) is type(due), f"it raised {fault!r}, and had to raise {due!r}"
    if isinstance(fault, TransitionError) and isinstance(due, TransitionError):
        assert fault.refusal == due.refusal, f"refused by {fault.refusal}, not by {due.refusal}"
    else:
        assert str(fault) == str(due), f"it said {fault}, and had to say {due}"
