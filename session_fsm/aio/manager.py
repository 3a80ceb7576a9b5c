"""The session manager for event loops: the verbs of the other one, awaited, and supervisors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from ..clock import Clock, IdFactory, random_id
from ..context import ContextLimits
from ..errors import ManagerClosedError
from ..keeper import MAX_TAKEOVERS, check_takeovers
from ..lifecycle import Lifecycle
from ..session import RecoveryReport, Session
from ..state import SessionConfig
from ..stores import SessionStore
from ..table import SESSION_LIFECYCLE
from .calls import GONE_THROUGH, Calls, put_note, until_done
from .children import Child, RestartLimit, checked_children
from .given import as_json
from .house import House
from .steps import SteppedManager
from .timing import Timing
from .verbs import SessionVerbs

P = ParamSpec("P")
T = TypeVar("T")


class SessionManager(SessionVerbs):
    """Creates, lists, moves, monitors, ends and recovers the sessions of one store, on a loop.

    It is opened by `async with`, and closed at its end: then everything that runs for its sessions
    is stopped, and waited for. What may block is done in threads; cancelling a call leaves the
    store as it was before it or as it is after it, and the `CancelledError` has a note that says
    which.

    Args:
        store: A store's URL (see `session_fsm.stores`), opened and closed by the manager; or an
            open store, which stays its owner's.
        lifecycle: The table that the sessions obey.
        clock: What tells the time; every wait goes by it. None: the store's.
        new_id: Makes the ids of sessions that are created without one.
        auto_idle: Whether the end of the last task puts a session to rest.
        start_grace_seconds: Longest start; None: the lifecycle's own, 60.
        stop_grace_seconds: Longest stop; None: the lifecycle's own, 10.
        touch_resolution_seconds: A touch that is nearer to the last activity writes nothing.
        context_limits: How much the context of a session holds.
        sweep_poll_seconds: The sweeper sleeps until the next deadline, and no longer than this, so
            that it sees what other processes did.
        max_threads: Most calls that the store is given at the same time.
        restart: Returns the children of a session that was taken over from a dead owner, and whose
            `config.recovery` says that its worker is started anew. Where many nodes share a store,
            what the dead have left is taken over by itself; None: such sessions are left to others.

    Raises:
        ValueError: A number is out of its range.

    Threads: none but that of the loop in which it was opened.
    """

    def __init__(
        self,
        store: str | SessionStore = "memory://",
        *,
        lifecycle: Lifecycle = SESSION_LIFECYCLE,
        clock: Clock | None = None,
        new_id: IdFactory = random_id,
        auto_idle: bool = True,
        start_grace_seconds: float | None = None,
        stop_grace_seconds: float | None = None,
        touch_resolution_seconds: float = 0.0,
        context_limits: ContextLimits = ContextLimits(),  # noqa: B008 - frozen
        new_owner_id: IdFactory = random_id,
        sweep_poll_seconds: float = 1.0,
        max_threads: int = 16,
        restart: Callable[[Session], Iterable[Child]] | None = None,
    ) -> None:
        if not 0 < sweep_poll_seconds < 1e9:
            problem = f"expected more than 0 and less than 1e9, got {sweep_poll_seconds}"
            raise ValueError(f"sweep_poll_seconds: {problem}")
        if not 1 <= max_threads <= 1000:
            raise ValueError(f"max_threads: expected 1 to 1000, got {max_threads}")
        self._open_manager = partial(
            SteppedManager,
            store,
            lifecycle=lifecycle,
            clock=clock,
            new_id=new_id,
            auto_idle=auto_idle,
            start_grace_seconds=start_grace_seconds,
            stop_grace_seconds=stop_grace_seconds,
            touch_resolution_seconds=touch_resolution_seconds,
            context_limits=context_limits,
            new_owner_id=new_owner_id,
        )
        self._poll_seconds = sweep_poll_seconds
        self._max_threads = max_threads
        self._restart = restart
        self._open: House | None = None
        self._closed = False

    # --- opening and closing ----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the store, and begin to sweep.

        Raises:
            StoreError: The store can't be opened.
            LifecycleError: The store knows another lifecycle by this name.
            ManagerClosedError: It was opened before.
        """
        if self._closed or self._open is not None:
            raise ManagerClosedError()
        calls = Calls(self._max_threads)
        try:
            inner = await calls(self._open_manager, undo=lambda inner: calls(inner.close))
        except BaseException:
            self._closed = True
            await calls.close()
            raise
        self._open = House(inner, calls, Timing(inner.clock), poll_seconds=self._poll_seconds)
        self._open.begin_to_recover(self, self._restart)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Stop what runs here, wait for it, and let go of the store; twice is harmless.

        Sessions stay as they are. Tasks and workers that are left can be recovered. Who cancels
        this hurries it on, and it is done all the same.
        """
        self._closed = True
        if (opened := self._open) is None:
            return
        closing = opened.begin_to_close()
        if await until_done(closing, hurry=opened.hurry):
            cancelled = asyncio.CancelledError()
            put_note(cancelled, GONE_THROUGH)
            raise cancelled
        self._open = None
        closing.result()

    @property
    def _desk(self) -> House:
        if self._open is None:
            raise ManagerClosedError()
        return self._open

    # --- creating ---------------------------------------------------------------------------

    async def create(
        self,
        session_id: str | None = None,
        *,
        config: SessionConfig | Mapping[str, Any] | None = None,
        llm_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        start: Callable[[Session], Awaitable[Any]] | None = None,
        children: Iterable[Child] = (),
        restarts: RestartLimit = RestartLimit(),  # noqa: B008 - frozen
    ) -> Session:
        """Create a session, start what runs for it, and activate it.

        Args:
            session_id: 1 to 255 printable characters; None: a new id.
            config: How it may be used; None: the defaults.
            llm_config: JSON object; None: empty.
            metadata: JSON object; None: empty.
            start: Awaited with the stored session; what it returns is the session's worker. If that
                has a method `stop()`, it is called when the session ends, and awaited if it can be;
                one that can't is called in a thread.
            children: What runs for the session, in the order in which it is started; a
                `SessionSupervisor` is then the session's worker.
            restarts: How often the children may be restarted.

        Returns:
            The session, active, with its worker.

        Raises:
            StateInvalidError: Every fault of the arguments; nothing was stored.
            SessionExistsError: The id is in use; nothing changed.
            SessionStartError: The start failed, or not everything was ready within the grace; the
                session has ended, with the cause in its `error`.
            StoreError: It could not be stored.
        """
        given = checked_children(children)
        if start is not None and given:
            raise TypeError("start, children: only one of the two is given")
        here = self._desk
        config, llm_config, metadata = map(as_json, (config, llm_config, metadata))
        if start is None and not given:
            return await here.do(
                here.inner.create,
                session_id,
                config=config,
                llm_config=llm_config,
                metadata=metadata,
            )
        begin = partial(here.inner.begin, session_id, config, llm_config, metadata)
        return await here.create(begin, self, start, given, restarts)

    async def supervise(
        self,
        session_id: str,
        children: Iterable[Child],
        *,
        restarts: RestartLimit = RestartLimit(),  # noqa: B008 - frozen
    ) -> Session:
        """Start children for a session that lives and has none.

        Such as one that was recovered, or one whose children have all ended, and none has failed.

        Args:
            session_id: Key of a stored session; it is touched.
            children: What runs for the session, in the order in which it is started.
            restarts: How often the children may be restarted.

        Returns:
            The session, with its worker.

        Raises:
            SessionNotFoundError: There is no such session.
            SessionSupervisedError: Something runs for it already, here or in another process.
            TransitionError: It is not to be worked with: it has expired, is ending, or has ended.
            SessionStartError: The start failed, or not everything was ready within the start grace;
                the session has ended, with the cause in its `error`.
            StoreError: A child found that what is stored can't be read, or the store not be
                reached: the session lives on, and nothing runs for it.
        """
        given = checked_children(children)
        if not given:
            raise ValueError("children: at least one is needed")
        return await self._desk.supervise(session_id, self, given, restarts)

    async def recover(
        self,
        *,
        restart: Callable[[Session], Iterable[Child]] | None = None,
        max_takeovers: int = MAX_TAKEOVERS,
    ) -> RecoveryReport:
        """Clear away what dead owners left; nothing of a living one is touched.

        Args:
            restart: Returns the children of a session whose worker is to be started anew; None:
                what the manager was given for that. If that is None too, such sessions are put to
                rest.
            max_takeovers: A session that was taken over more often within an hour is ended, where
                the store counts that.

        Returns:
            What was done, by session. Of those who recover at the same time, one gets each session.

        Raises:
            ValueError: No takeover at all is allowed.
            FencedError: This manager itself is counted as dead.
        """
        check_takeovers(max_takeovers)
        begin = self._restart if restart is None else restart
        return await self._desk.recover(self, begin, max_takeovers, all_=True)
