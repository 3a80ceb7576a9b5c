"""One process of a session, from its beginning to its end.

It is begun held, noted in the store, and let go (see `launching`); waited for through its pidfd,
in the loop of any thread and without a child watcher; and reaped only when all that came from it
has ended: until then its number, and that of its group, is nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, Protocol

import attrs

from ..errors import ProcessDiedError, StoreError
from ..families import LONGEST_KILL_SECONDS, ROUND_SECONDS, Family, kill_all
from ..launching import HeldProcess, close_pipes, hold
from ..looks import LOOKS, Look
from ..orphans import MarkKeeper, WorkerRecord, log_name
from ..processes import ProcessHandle
from .capture import Capture, Feed, Mask
from .patience import Patience, Watch

logger = logging.getLogger("session_fsm.worker")

LONGEST_LAST_OUTPUT: Final = 2000
"""Bytes of output that an error repeats."""


class ProcessContext(Protocol):
    """What a worker process needs to know of the session that it runs for.

    Attributes:
        session_id: The session.
        name: The child's name.
        owner_id: The manager that answers for it.
        store: Where it is noted; called in threads.
        stopping: Set when it is asked to stop.
    """

    @property
    def session_id(self) -> str: ...  # noqa: D102 - above
    @property
    def name(self) -> str: ...  # noqa: D102 - above
    @property
    def owner_id(self) -> str: ...  # noqa: D102 - above
    @property
    def store(self) -> MarkKeeper: ...  # noqa: D102 - above
    @property
    def stopping(self) -> asyncio.Event: ...  # noqa: D102 - above

    def ready(self) -> None:
        """Tell that the child can be worked with."""
        ...


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be run, and how; see `ProcessWorker`."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] | None
    cwd: str | None
    pipe_stdin: bool
    ready_line: bytes | None
    term_seconds: float
    log_bytes: int


class Run:
    """One process, from its beginning to its end.

    Whoever cancels it never interrupts a step: that is noted, and heeded between the steps.
    """

    def __init__(self, plan: Plan, context: ProcessContext) -> None:
        self.context = context
        self.feed: Feed | None = None
        self.process_id: int | None = None
        self._plan = plan
        self._token = secrets.token_hex(16)  # nobody may guess it, so no id that was handed in
        self._environ = dict(os.environ) if plan.environ is None else dict(plan.environ)
        self._mask = Mask(self._environ, self._token)
        self._capture: Capture | None = None
        self._patience = Patience()

    def log(self) -> bytes:
        """Return the end of what was said."""
        return b"" if self._capture is None else self._capture.text()

    async def live(self) -> None:
        """Run the process; errors as for a worker's call."""
        try:
            await self._live()
        except Exception as fault:
            if self._patience.cancels:
                raise asyncio.CancelledError from fault
            raise
        if self._patience.cancels:
            raise asyncio.CancelledError

    async def _live(self) -> None:
        begin = partial(hold, self._token, cwd=self._plan.cwd, pipe_stdin=self._plan.pipe_stdin)
        held = await self._patience.made(begin)
        watch = Watch(held.handle)
        record = self._record(held.family)
        by_itself = False
        try:
            self._open(held)
            by_itself = await self._ends_by_itself(held, watch, record)
        finally:
            how = await self._end(held, watch, record, at_once=by_itself)
        if by_itself and how != (0, None):
            said = self.log()[-LONGEST_LAST_OUTPUT:].decode(errors="replace").strip()
            raise ProcessDiedError(
                argv0=self._plan.argv[0], exit_code=how[0], signal=how[1], last_output=said
            )

    @property
    def _is_unwanted(self) -> bool:
        return self._patience.cancels > 0 or self.context.stopping.is_set()

    # --- beginning ------------------------------------------------------------------------

    def _record(self, family: Family) -> WorkerRecord:
        return WorkerRecord(
            owner_id=self.context.owner_id,
            session_id=self.context.session_id,
            child=self.context.name,
            family=family,
        )

    def _open(self, held: HeldProcess) -> None:
        stdin, stdout = held.process.stdin, held.process.stdout
        assert stdout is not None
        self.process_id = held.family.pid
        self.feed = None if stdin is None else Feed(stdin.fileno())
        waits = self._plan.ready_line is not None
        tells = logger.isEnabledFor(logging.DEBUG)
        self._capture = Capture(
            stdout.fileno(),
            limit=self._plan.log_bytes,
            mask=self._mask,
            on_line=self._said if waits or tells else None,
        )

    def _said(self, line: bytes) -> None:
        if line == self._plan.ready_line:
            self.context.ready()
        if logger.isEnabledFor(logging.DEBUG):
            text = line.decode(errors="replace")
            names = (self.context.session_id, self.context.name)
            logger.debug("session %r, %s: %s", *names, text)

    async def _ends_by_itself(self, held: HeldProcess, watch: Watch, record: WorkerRecord) -> bool:
        """Let the process run until it ends, or is to end; returns whether it was the first."""
        if self._is_unwanted:
            return False
        # From before it does anything, it can be found by others.
        keep = partial(self.context.store.set_mark, record.name, record.to_json())
        await self._patience.made(keep)
        if self._is_unwanted:
            return False
        release = partial(held.release, self._plan.argv, self._environ)
        kill = partial(held.handle.send, signal.SIGKILL)
        runs = await self._patience.made(release, hurry=kill)
        if self._patience.cancels:
            return False
        if not runs:
            return True
        if self._plan.ready_line is None:
            self.context.ready()
        stopping = asyncio.ensure_future(self.context.stopping.wait())
        await self._patience.first(watch.gone, stopping)
        stopping.cancel()
        await self._patience.first(stopping)
        return watch.gone.done()

    # --- ending ---------------------------------------------------------------------------

    async def _end(
        self, held: HeldProcess, watch: Watch, record: WorkerRecord, *, at_once: bool
    ) -> tuple[int | None, int | None]:
        """End whatever runs, reap the process, and say so; returns exit code and signal."""
        cancels = self._patience.cancels
        held.let_end()
        if self.feed is not None:
            self.feed.close()
        members: list[ProcessHandle] = []
        if not at_once:
            look = LOOKS.look(held.family)
            members += await self._patience.made(partial(_ask_to_end, look), begin=look.begin)
            hurries = self._patience.cancels > cancels
            await self._patience.gone(members, 0 if hurries else self._plan.term_seconds)
        left = await self._kill(held.family, members)
        if not watch.gone.done():
            await self._patience.first(watch.gone, seconds=ROUND_SECONDS)
        how = _reaped(held)
        watch.close()
        held.handle.close()
        for handle in members:
            handle.close()
        if self._capture is not None:
            self._capture.finish()
        close_pipes(held.process)
        self.process_id = None
        await self._note_end(record, left)
        return how

    async def _kill(self, family: Family, members: list[ProcessHandle]) -> int | None:
        """Kill what is left.

        Args:
            family: Whose processes.
            members: Those that were found; others are put in. One whose parent has ended may not
                be found again.

        Returns:
            How many run all the same; None if that can't be seen.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_KILL_SECONDS
        while True:
            alive = [member for member in members if not member.is_gone()]
            look = LOOKS.look(family)
            found = await self._patience.made(partial(_kill, look, alive), begin=look.begin)
            members += found or ()
            alive += found or ()
            await self._patience.gone(alive, ROUND_SECONDS)
            if not alive or found is None or loop.time() >= end:
                return None if found is None else len(alive)

    async def _note_end(self, record: WorkerRecord, left: int | None) -> None:
        """Keep the log, and drop the record, unless something is left for others to find."""
        store = self.context.store
        if left != 0:
            logger.error("%s: %s processes can't be killed", record.name, left or "some")
        name = log_name(record.session_id, record.child)
        try:
            await self._patience.made(partial(store.set_mark, name, self.log()))
            if left == 0:
                await self._patience.made(partial(store.drop_mark, record.name))
        except StoreError as fault:
            # The process has ended all the same, and a record of what is gone does no harm.
            logger.warning("%s has ended, and this could not be noted: %s", record.name, fault)


def _ask_to_end(look: Look) -> tuple[ProcessHandle, ...]:
    """Ask all that runs of a family to end; returns what was found."""
    try:
        members = look.members()
    except OSError as fault:  # there may be no descriptors left
        pid = look.family.pid
        logger.warning("process %d is killed, and not asked to end before: %s", pid, fault)
        return ()
    for handle in members:
        handle.ask_to_end()
    return members


def _kill(look: Look, members: Iterable[ProcessHandle]) -> tuple[ProcessHandle, ...] | None:
    """Kill some processes, and what else runs of a family whose leader was not reaped.

    Returns:
        What else was found; None if nothing could be looked for.
    """
    pid = look.family.pid
    found: tuple[ProcessHandle, ...] | None = None
    try:
        # Before any parent is killed: it may be all that tells where its children came from.
        found = look.members()
    except OSError as fault:
        logger.warning("what came from process %d was not looked for: %s", pid, fault)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.killpg(pid, signal.SIGKILL)  # all at one moment: none can fork meanwhile
    except (ChildProcessError, ProcessLookupError, PermissionError):
        pass  # if somebody else has reaped it, its number may be another's
    kill_all((*members, *(found or ())))
    return found


def _reaped(held: HeldProcess) -> tuple[int | None, int | None]:
    """Reap a process that has ended; returns its exit code, or the signal that ended it."""
    how = None
    try:
        how = os.waitid(os.P_PID, held.family.pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else has
    else:
        if how is None:
            return None, None  # it can't be killed
    held.process.returncode = 0  # so that nobody else asks
    if how is None:
        return None, None
    exited = how.si_code == os.CLD_EXITED
    return (how.si_status, None) if exited else (None, how.si_status)
