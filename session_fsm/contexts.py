"""The contexts of sessions, kept in a table of each: durable with the session, gone with it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

import attrs

from .changes import Change
from .context import ContextFile, ContextLimits, SessionContext
from .context_rows import HEAD, changed_rows, context_of, head_of
from .core import Core
from .decisions import Decision, Say, WriteItems
from .errors import (
    CorruptRecordError,
    ItemConflictError,
    ItemNotFoundError,
    StateInvalidError,
)
from .items import Delete, Item, Put, Write
from .messages import Message, ToolCall
from .prompting import DEFAULT_PARTS, BuiltContext, Counter, build_context, estimate_tokens
from .session import Session
from .tables import TableKeeper

logger = logging.getLogger(__name__)

TABLE: Final = "context"
"""The table of a session in which its context is; nobody else should write to it."""
MAX_RECENT_CONTEXTS: Final = 100
"""Contexts that are kept in memory, so that they need not be read again."""
_PAGE: Final = 500

Operation = Callable[[SessionContext], SessionContext]


class Contexts:
    """Reads and changes the contexts of the sessions of a core.

    Threads: safe. Nobody's change is lost: each is made on condition that the head is as it was.
    """

    def __init__(self, core: Core, limits: ContextLimits) -> None:
        self._core = core
        self._limits = limits
        self._recent: OrderedDict[str, SessionContext] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, session_id: str) -> SessionContext:
        """Return the context of a session as it is stored now.

        Raises:
            SessionNotFoundError: There is no such session.
            CorruptRecordError: It can't be read.
        """
        return self._read(session_id)[1]

    def change(
        self, session_id: str, operation: Operation, decision: Decision | None = None
    ) -> tuple[Change | None, SessionContext]:
        """Change a context, by an operation that is made again if another writer was first.

        Args:
            session_id: Whose context.
            operation: Returns the new context.
            decision: Made in the same transaction.

        Returns:
            What came of the decision, and the context; None where there was nothing to write.
        """
        core = self._core
        while True:
            version, before = self._read(session_id)
            after = operation(before)
            if not isinstance(after, SessionContext):
                told = f"expected it to return a SessionContext, not {type(after).__name__}"
                raise TypeError(f"operation: {told}")
            if after is before and decision is None:
                return None, after
            after = attrs.evolve(after, change=core.new_operation_id())
            writes = _writes(version, before, after)
            try:
                change = core.change(session_id, WriteItems(writes, decision))
            except ItemConflictError:
                continue  # somebody else has changed it, and that is kept
            self._keep(session_id, after)
            return change, after

    def _read(self, session_id: str) -> tuple[int, SessionContext]:
        """Return the version of the head, 0 if there is none yet, and the context."""
        self._core.check_open()
        while (head := self._row(session_id, HEAD)) is not None:
            recent = self._recent.get(session_id)
            if recent is None or head_of(recent) != head.value:
                rows = self._rows(session_id)
                if self._row(session_id, HEAD) != head:
                    continue  # it was changed meanwhile: the rows need not belong together
                recent = self._keep(session_id, self._context_of(session_id, rows))
            return head.version, recent
        self._core.read(session_id)  # that there is no context is told of sessions only
        return 0, SessionContext(limits=self._limits)

    def _row(self, session_id: str, key: str) -> Item | None:
        return self._core.store.item(session_id, TABLE, key, self._core.clock.now())

    def _rows(self, session_id: str) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        after: str | None = None
        while True:
            now = self._core.clock.now()
            page = self._core.store.items(session_id, TABLE, _PAGE, after, now)
            rows.update((item.key, item.value) for item in page)
            if len(page) < _PAGE:
                return rows
            after = page[-1].key

    def _context_of(self, session_id: str, rows: Mapping[str, Any]) -> SessionContext:
        try:
            return context_of(rows, self._limits)
        except StateInvalidError as fault:
            record = f"the context of session {session_id!r}"
            raise CorruptRecordError(record=record, problems=fault.problems) from None

    def _keep(self, session_id: str, context: SessionContext) -> SessionContext:
        with self._lock:
            self._recent[session_id] = context
            self._recent.move_to_end(session_id)
            if len(self._recent) > MAX_RECENT_CONTEXTS:
                self._recent.popitem(last=False)
        return context


def _writes(version: int, before: SessionContext, after: SessionContext) -> tuple[Write, ...]:
    put, deleted = changed_rows(before if version else None, after)
    # The head is first: where somebody else was faster, nothing else is looked at.
    head = Put(TABLE, HEAD, put.pop(HEAD), expected_version=version)
    return (
        head,
        *(Delete(TABLE, key) for key in deleted),
        *(Put(TABLE, key, row) for key, row in put.items()),
    )


class ContextManager:
    """What the model of one session may get to see; got from `SessionManager.context`.

    It is kept in the table `context` of the session: durable with it, gone with it, encrypted if
    the session is. Each change is one transaction, and is made again on what is there if another
    writer was first, here or in another process. What changes it is allowed where `update` is.

    Every verb raises `SessionNotFoundError` if the session is not stored, `CorruptRecordError` if
    its context can't be read, and `StoreError`. Every change raises `StateInvalidError` for what a
    context can't hold, and `TransitionError` where the session's data can't be changed; nothing
    was changed then.

    Attributes:
        session_id: The session.

    Threads: safe.
    """

    def __init__(self, contexts: Contexts, session_id: str, now: Callable[[], Any]) -> None:
        self._contexts = contexts
        self._now = now
        self.session_id = session_id

    def get(self) -> SessionContext:
        """Return all of it, as it is stored now; it never changes."""
        return self._contexts.read(self.session_id)

    def change(self, operation: Operation) -> SessionContext:
        """Change it by a function, in one transaction.

        Args:
            operation: Called with the present context, returns the new one; called again if
                another writer was first, so it should do nothing else.

        Raises:
            TypeError: It has returned something else.
        """
        return self._contexts.change(self.session_id, operation)[1]

    # --- the conversation ---------------------------------------------------------------------

    def add_message(
        self,
        role: str,
        content: str,
        *,
        tool_calls: Iterable[ToolCall] = (),
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Message:
        """Add a message to the conversation; arguments as for `Message`. Nobody is told.

        Returns:
            The message, with the time at which it was added.
        """
        message = Message(
            role,
            content,
            at=self._now(),
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            name=name,
        )
        self.add_messages([message])
        return message

    def add_messages(self, messages: Iterable[Message]) -> None:
        """Add messages to the conversation, all or none; see `SessionContext.with_messages`."""
        added = tuple(messages)
        self.change(lambda context: context.with_messages(added))

    def history(self) -> tuple[Message, ...]:
        """Return the messages of the conversation, oldest first."""
        return self.get().messages

    def clear_history(self) -> None:
        """Forget the conversation."""
        self.change(SessionContext.without_messages)

    # --- files --------------------------------------------------------------------------------

    def open_file(self, path: str, content: str = "") -> None:
        """Make a file active, or an active one the last that was opened.

        Args:
            path: Which file.
            content: Its text, or what is to be known of it.
        """
        at = self._now()
        self.change(lambda context: context.with_file(path, content, at=at))

    def close_file(self, path: str) -> None:
        """Make a file inactive, if it is active."""
        self.change(lambda context: context.without_file(path))

    def files(self) -> tuple[ContextFile, ...]:
        """Return the active files, the one that was opened last behind all others."""
        return tuple(self.get().files.values())

    def index_file(self, path: str, info: Any) -> None:
        """Keep what is known of a file, JSON, in the index."""
        self.change(lambda context: context.with_indexed(path, info))

    def unindex_file(self, path: str) -> None:
        """Take a file out of the index, if it is there."""
        self.change(lambda context: context.without_indexed(path))

    def find_files(self, pattern: str = "*") -> dict[str, Any]:
        """Return what is known of the files in the index whose path fits a pattern of the shell.

        Args:
            pattern: As of `fnmatch`, minding case; `*` fits `/` too.
        """
        found = self.get().index.items()
        return {path: info for path, info in sorted(found) if fnmatchcase(path, pattern)}

    # --- values -------------------------------------------------------------------------------

    def set_value(self, key: str, value: Any) -> None:
        """Keep a working value, JSON, under a key."""
        self.change(lambda context: context.with_value(key, value))

    def value(self, key: str) -> Any:
        """Return a working value.

        Raises:
            ItemNotFoundError: There is none under this key.
        """
        values = self.get().values
        if key not in values:
            raise ItemNotFoundError(session_id=self.session_id, table=TABLE, key=str(key))
        return values[key]

    def delete_value(self, key: str) -> None:
        """Remove a working value, if it is there."""
        self.change(lambda context: context.without_value(key))

    def values(self) -> dict[str, Any]:
        """Return the working values by key."""
        return dict(self.get().values)

    # --- what a model gets --------------------------------------------------------------------

    def build_context(
        self,
        *,
        include: Iterable[str] = DEFAULT_PARTS,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        counter: Counter = estimate_tokens,
    ) -> BuiltContext:
        """Put together what a model gets; see `session_fsm.prompting.build_context`."""
        return build_context(
            self.get(),
            include=include,
            max_messages=max_messages,
            max_tokens=max_tokens,
            counter=counter,
        )

    def __repr__(self) -> str:
        return f"<ContextManager of session {self.session_id!r}>"


class ContextKeeper(TableKeeper):
    """Gives the contexts of the sessions of a core; arguments and threads as for the keeper."""

    _contexts: Contexts

    def context(self, session_id: str) -> ContextManager:
        """Return the context of a session; nothing is read or written.

        Args:
            session_id: Key of a stored session.
        """
        self._core.check_open()
        return ContextManager(self._contexts, session_id, self._core.clock.now)

    def send_message(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        tool_calls: Iterable[ToolCall] = (),
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Session:
        """Add a message to the context of a session, and hand it to its worker.

        It is refused by the table where no conversation could be started, but that those that are
        under way may go on at `max_conversations`. A session at rest wakes for it, and counts as
        active now, in one transaction with the message. Once that is durable the message is put
        into the worker's inbox, if the worker runs here and has one: `worker.inbox.put(message)`,
        which should not block; what that raises is logged, for the message is kept anyway. In a
        batch that is when the batch is durable; of one that is undone the worker hears nothing.

        Args:
            session_id: Key of a stored session.
            role: One of `session_fsm.messages.ROLES`.
            content: The text; may be empty.
            tool_calls: What the model wants to be called; of role `assistant` only.
            tool_call_id: Whose result it is; of role `tool`, and needed there.
            name: Who of several that play the role; None: not told.

        Returns:
            The session, active.

        Raises:
            SessionNotFoundError: There is no such session.
            StateInvalidError: It is no message, or the result of no call that waits for one.
            TransitionError: Nothing can be said in the session: it has expired, is ending, or has
                ended, or its start is not done.
            CorruptRecordError: Its context can't be read.
        """
        now = self._core.clock.now()
        message = Message(
            role, content, at=now, tool_calls=tool_calls, tool_call_id=tool_call_id, name=name
        )
        session = self._say(session_id, message)
        self._core.batches.when_durable(partial(self._hand_on, session_id, message))
        return session

    def _hand_on(self, session_id: str, message: Message) -> None:
        """Hand a message that is durable to the worker of its session, if that takes any."""
        put = getattr(getattr(self._workers.get(session_id), "inbox", None), "put", None)
        if put is not None:
            try:
                put(message)
            except Exception:
                logger.exception("a message was not put into the inbox of %r", session_id)

    def _say(self, session_id: str, message: Message) -> Session:
        change, _ = self._contexts.change(
            session_id, lambda context: context.with_messages((message,)), Say()
        )
        assert change is not None
        return self._session(self._workers.act(change))
