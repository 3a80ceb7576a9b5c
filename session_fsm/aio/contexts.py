"""The contexts of sessions on a loop, and messages that get to whoever works on a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..context import ContextFile, SessionContext
from ..contexts import ContextManager as BlockingContext
from ..errors import InboxFullError
from ..messages import Message, ToolCall
from ..prompting import DEFAULT_PARTS, BuiltContext, Counter, estimate_tokens
from ..session import Session
from .children import Child, Inbox
from .desk import Desk, documented_by
from .given import as_json, as_listed
from .steps import SteppedManager
from .timing import call_soon


@documented_by(BlockingContext)
class ContextManager:
    """What the model of one session may get to see; got from `SessionManager.context`.

    What its verbs do, and what they raise, is as for `session_fsm.ContextManager`. Cancelling one
    leaves the context as it was before it or as it is after it.

    Attributes:
        session_id: The session.

    Threads: none but that of the manager's loop.
    """

    def __init__(self, desk: Desk, inner: BlockingContext) -> None:
        self._desk = desk
        self._inner = inner
        self.session_id = inner.session_id

    @staticmethod
    def child(name: str = "context") -> Child:
        """Return a child that restores the context of its session, and is ready when that is done.

        A session whose context can't be read does not start with it, and nothing is built on half
        of a conversation. One that `supervise` was to start lives on without it: another version
        may read it.

        Args:
            name: Tells it from its siblings.
        """
        return Child(name, _restore, signals_ready=True, takes_messages=False)

    async def get(self) -> SessionContext:
        return await self._desk.do(self._inner.get)

    async def change(self, operation: Callable[[SessionContext], SessionContext]) -> SessionContext:
        return await self._desk.do(self._inner.change, operation)

    async def add_message(
        self,
        role: str,
        content: str,
        *,
        tool_calls: Iterable[ToolCall] = (),
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Message:
        return await self._desk.do(
            self._inner.add_message,
            role,
            content,
            tool_calls=as_listed(tool_calls),
            tool_call_id=tool_call_id,
            name=name,
        )

    async def add_messages(self, messages: Iterable[Message]) -> None:
        await self._desk.do(self._inner.add_messages, as_listed(messages))

    async def history(self) -> tuple[Message, ...]:
        return await self._desk.do(self._inner.history)

    async def clear_history(self) -> None:
        await self._desk.do(self._inner.clear_history)

    async def open_file(self, path: str, content: str = "") -> None:
        await self._desk.do(self._inner.open_file, path, content)

    async def close_file(self, path: str) -> None:
        await self._desk.do(self._inner.close_file, path)

    async def files(self) -> tuple[ContextFile, ...]:
        return await self._desk.do(self._inner.files)

    async def index_file(self, path: str, info: Any) -> None:
        await self._desk.do(self._inner.index_file, path, as_json(info))

    async def unindex_file(self, path: str) -> None:
        await self._desk.do(self._inner.unindex_file, path)

    async def find_files(self, pattern: str = "*") -> dict[str, Any]:
        return await self._desk.do(self._inner.find_files, pattern)

    async def set_value(self, key: str, value: Any) -> None:
        await self._desk.do(self._inner.set_value, key, as_json(value))

    async def value(self, key: str) -> Any:
        return await self._desk.do(self._inner.value, key)

    async def delete_value(self, key: str) -> None:
        await self._desk.do(self._inner.delete_value, key)

    async def values(self) -> dict[str, Any]:
        return await self._desk.do(self._inner.values)

    async def build_context(
        self,
        *,
        include: Iterable[str] = DEFAULT_PARTS,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        counter: Counter = estimate_tokens,
    ) -> BuiltContext:
        return await self._desk.do(
            self._inner.build_context,
            include=as_listed(include),
            max_messages=max_messages,
            max_tokens=max_tokens,
            counter=counter,
        )

    def __repr__(self) -> str:
        return repr(self._inner)


async def _restore(child: Any) -> None:
    await child.manager.context(child.session_id).get()
    child.ready()
    await child.stopping.wait()


async def say(desk: Desk, session_id: str, message: Message) -> Session:
    """Add a message to the context of a session, and hand it to whoever works on it.

    Who is cancelled when it is durable has sent it: it is handed on all the same.

    Raises:
        InboxFullError: Too many wait to be read; nothing was written.
    """

    async def deliver(session: Session) -> None:
        desk.expect(session)
        _deliver(desk.inner, session_id, message)

    session = await desk.calls(partial(desk.inner.say, session_id, message), undo=deliver)
    await deliver(session)
    return session


class LoopPost:
    """Takes messages to the children of sessions on a loop; see `Post`.

    Args:
        inner: The manager of threads, whose messages are taken.
    """

    def __init__(self, inner: SteppedManager) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()

    def check_room(self, session_id: str) -> None:
        """Accept that there will be one more message; errors as `Post.check_room`."""
        inbox = _inbox(self._inner.worker_of(session_id))
        if inbox is not None and inbox.full:
            raise InboxFullError(session_id=session_id, waiting=len(inbox))

    def deliver(self, session_id: str, message: Message) -> None:
        """Hand on a message, on the loop."""
        call_soon(self._loop, _deliver, self._inner, session_id, message)


def _deliver(inner: SteppedManager, session_id: str, message: Message) -> None:
    inbox = _inbox(inner.worker_of(session_id))
    if inbox is not None:
        # Others may have come before it; no more than calls are made at the same time.
        inbox.deliver(message)


def _inbox(worker: Any) -> Inbox | None:
    """Return the inbox of a supervisor, or of what a start has returned; None if it has none."""
    inbox = getattr(worker, "inbox", None)
    found = inbox() if callable(inbox) else inbox
    return found if isinstance(found, Inbox) else None
