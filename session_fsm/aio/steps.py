"""The manager of threads, with its long verbs taken apart: what takes long is not a step of it.

Starting and stopping what runs for a session, and waiting for its end, are done on the loop. The
steps before, between and after are those of the manager itself, and each is one short call.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from ..changes import Change
from ..clock import Clock
from ..decisions import Decision, cause_in_words
from ..endings import Fail
from ..errors import SessionFsmError, SessionStartError
from ..explain import next_timed
from ..feeds import page_if_open
from ..manager import SessionManager
from ..messages import Message
from ..recovering import recover
from ..session import FeedPage, RecoveryReport, Session
from ..starting import Claimed
from ..state import SessionConfig
from ..stores.records import Work
from ..together import AskedT, Came, Together
from ..workers import DeferredWorker

logger = logging.getLogger(__name__)


class Post(Protocol):
    """Takes messages to whoever works on a session.

    Threads: safe.
    """

    def check_room(self, session_id: str) -> None:
        """Accept that there will be one more message.

        Raises:
            InboxFullError: Too many wait to be read.
        """
        ...

    def deliver(self, session_id: str, message: Message) -> None:
        """Hand on a message that is durable."""
        ...


class SteppedManager(SessionManager):
    """A manager whose workers tell when they have stopped; everything else as there.

    Attributes:
        post: What takes messages to those who run here; set before any is sent.

    Threads: safe.
    """

    post: Post

    @property
    def owner_id(self) -> str:
        """In whose name work is claimed."""
        return self._core.owner_id

    def in_name_of(self, owner_id: str) -> AbstractContextManager[None]:
        """Have what is done inside be done in the name of an owner, dead or alive."""
        return self._core.name.acting(owner_id)

    @property
    def clock(self) -> Clock:
        """What tells the time."""
        return self._core.clock

    @property
    def touch_decision(self) -> Decision:
        """Notes that somebody is there, unless that was noted a moment ago."""
        return self._touch

    def change(self, session_id: str, decision: Decision, expected_revision: int | None) -> Session:
        """Decide on a session and commit; errors as `Core.change`."""
        if self._core.observer is None:
            decision = self._together.timed(decision)
        return self._change(session_id, decision, expected_revision)

    def is_at_hand(self, session_id: object, decision: Decision) -> bool:
        """Tell whether a change may be made together with others, at the first try."""
        return self._together.is_at_hand(session_id, decision)

    def change_together(
        self,
        asked: Iterable[AskedT],
        tell: Callable[[AskedT, Session | BaseException | None, datetime | None], None],
    ) -> None:
        """Make changes at one go.

        Args:
            asked: What is asked for.
            tell: As for `Together.make`; told besides when the session is due.
        """

        def tell_session(each: AskedT, came: Came) -> None:
            if not isinstance(came, Change):
                tell(each, came, None)
                return
            try:
                session, due = each.context.run(self._acted, came)
            except BaseException as fault:  # noqa: BLE001 - it is told
                tell(each, fault, None)
            else:
                tell(each, session, due)

        self._together.make(asked, tell_session)

    @cached_property
    def _together(self) -> Together:
        return Together(self._core)

    def _acted(self, change: Change) -> tuple[Session, datetime | None]:
        change = self._workers.act(change)
        session = self._session(change)
        if change.steps:
            return session, change.steps[-1].deadline_at
        return session, self.deadline_of(session)

    def begin(
        self,
        session_id: str | None,
        config: SessionConfig | Mapping[str, Any] | None,
        llm_config: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Claimed:
        """Create a session for which something is about to be started; errors as `create`."""
        return self._starting.begin(self._new_state(session_id, config, llm_config, metadata))

    def adopt(self, session_id: str) -> Claimed:
        """Claim the worker of a session that lives without one.

        Raises:
            SessionSupervisedError: Something runs for it already.
        """
        return self._starting.adopt(session_id)

    def recover_for(
        self, *, restarts: bool, max_takeovers: int, restarting: bool
    ) -> tuple[RecoveryReport, tuple[Claimed, ...]]:
        """Clear away what dead owners left, but for the sessions that get a new worker.

        Args:
            restarts: Whether there is somebody who starts workers anew.
            max_takeovers: A session that was taken over more often lately is ended.
            restarting: Whether sessions whose worker is to be started anew are taken at all.

        Returns:
            What was done; the sessions whose worker was claimed, and has to be started. Should it
            fail on the way, they are returned all the same, and the rest is left to the next call.
        """
        self._core.check_open()
        claimed: list[Claimed] = []
        try:
            report = recover(
                self._core,
                self._starting,
                self._left_over(),
                restart=claimed.append if restarts else None,
                max_takeovers=max_takeovers,
                restarting=restarting,
            )
        except Exception:
            if not claimed:
                raise
            # Nobody else starts what is claimed here.
            logger.exception("not all that dead owners left was recovered")
            report = RecoveryReport(restarted=tuple(each.session_id for each in claimed))
        return report, tuple(claimed)

    def restart_failed(self, claimed: Claimed, cause: BaseException) -> SessionStartError:
        """End a session whose worker was claimed and can't be started."""
        self.not_adopted(claimed)
        return self._starting.failed(claimed, cause)

    def not_adopted(self, claimed: Claimed) -> None:
        """Let go of the claim of a worker that does not run."""
        self._starting.let_go(claimed)

    def attach(self, session_id: str, worker: DeferredWorker) -> None:
        """Have a worker asked to stop when its session is ended; this blocks nobody."""
        self._workers.add(session_id, worker, worker.owner_id)

    def started(self, claimed: Claimed, worker: DeferredWorker | None) -> Session:
        """Activate a session whose start is done; None: nothing runs on.

        Raises:
            SessionStartError: It could not be activated, and has ended.
        """
        return self._starting.done(claimed, worker)

    def start_failed(self, claimed: Claimed, cause: BaseException | str) -> Exception:
        """End a session whose start failed; returns what its creator is told."""
        return self._starting.failed(claimed, cause)

    def worker_stopped(self, session_id: str, worker: DeferredWorker, error: str | None) -> None:
        """Note that what ran for a session has stopped, and go on with its way out."""
        self._workers.stopped(session_id, worker, error)

    def worker_gone(self, session_id: str, worker: DeferredWorker) -> None:
        """Note that what ran for a session runs no longer, though the session is not ended."""
        self._workers.gone(session_id, worker)

    def worker_failed(self, session_id: str, cause: str, owner_id: str) -> Session:
        """End a session because what ran for it has failed; refused where its owner is dead."""
        return self._change(session_id, Fail(cause_in_words(cause)), owner_id=owner_id)

    def ahead(self, session: Session) -> timedelta:
        """Return by how much the instants of a session are ahead of the clock."""
        return self._ahead(session)

    def go_on_ending(self, session_id: str, ahead: timedelta) -> tuple[Session, float | None]:
        """Take a session on its way out as far as time lets it go.

        Returns:
            The session, and how long to wait before it is looked at again; None if it has ended.
        """
        return self._go_on_ending(self.get(session_id), ahead)

    def say(self, session_id: str, message: Message) -> Session:
        """Add a message to the context of a session; errors as `send_message`, nobody gets it."""
        return self._say(session_id, message)

    def _say(self, session_id: str, message: Message) -> Session:
        self.post.check_room(session_id)
        return super()._say(session_id, message)

    def _hand_on(self, session_id: str, message: Message) -> None:
        self.post.deliver(session_id, message)

    def worker_of(self, session_id: str) -> Any:
        """Return what runs here for a session, as it is shown; None if nothing does."""
        return self._workers.get(session_id)

    def page_if_open(self, after: int, session_id: str | None) -> FeedPage | None:
        """Read what a feed has in hand next; None once it is closed, else as `read_events`."""
        return page_if_open(self._core, after, session_id)

    def begin_to_listen(self) -> None:
        """Be about to listen to commits: what is there so far is read by whoever listens."""
        self._core.lookout.begin()

    def listen(self, callback: Callable[[], object], session_id: str | None) -> Callable[[], None]:
        """Have something called when there may be more of a feed; returns what ends that."""
        return self._core.bell.listen(callback, session_id)

    def look(self) -> None:
        """Look for what other processes did, and call whoever listens and is concerned."""
        self._core.lookout.look()

    def ended_tasks(self, tasks: Mapping[str, Collection[str]]) -> dict[tuple[str, str], str]:
        """Return those of some tasks that were ended, and why.

        Args:
            tasks: Ids of tasks that were begun, by session.
        """
        ended: dict[tuple[str, str], str] = {}
        for session_id, wanted in tasks.items():
            work = self._core.store.work_in(session_id)
            for task_id in wanted:
                if Work("task", task_id) not in work:
                    ended[session_id, task_id] = self._cause_of_end(session_id, task_id)
        return ended

    def _cause_of_end(self, session_id: str, task_id: str) -> str:
        # What can't be read, or is gone, keeps nobody from hearing that the task has ended.
        with contextlib.suppress(SessionFsmError):
            for event in reversed(self.history(session_id)):
                if task_id not in event.changes.get("active_tasks", (task_id,)):
                    return event.reason or f"{event.trigger} was fired"
        return "another process has ended it"

    def deadline_of(self, session: Session) -> datetime | None:
        """Return when the first timed row of a session is due; None if none is."""
        timed = next_timed(session.state, self.lifecycle)
        return None if timed is None else timed[1]

    def grace_seconds(self, name: str, default: float) -> float:
        """Return a grace of the lifecycle, in seconds; the default if it has none of this name."""
        grace = self.lifecycle.graces.get(name)
        return default if grace is None else grace.total_seconds()
