"""A small chat back end over HTTP: a session for each conversation, a scripted model in it.

    CHAT_STORE=sqlite:///chats.db uvicorn examples.chat:app

    POST /chats                     -> 201 {"id": ...}
    POST /chats/<id>   {"text": …}  -> 200 {"id", "status", "messages"}, when it was answered
    GET /chats/<id>?messages=<n>    -> the same, as soon as there are so many messages
    DELETE /chats/<id>              -> the same, when the conversation has ended

What was said is durable before it is answered. Kill the process at any moment, by SIGKILL too, and
start it again: every conversation goes on where it was, with the answer that is due.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from session_fsm import Message, SessionContext, build_context
from session_fsm.aio import Child, ChildContext, ContextManager, SessionManager
from session_fsm.errors import SessionFsmError, SessionNotFoundError, TransitionError

logger = logging.getLogger(__name__)
THINKING_SECONDS = float(os.environ.get("CHAT_THINKING_SECONDS", "0"))
MOST_BYTES = 100_000
STATUS = {SessionNotFoundError: 404, TransitionError: 409, ValueError: 400, SessionFsmError: 503}


async def think(messages: tuple[Message, ...]) -> Message:
    """Answer what was said last; a real back end would ask a model here."""
    await asyncio.sleep(THINKING_SECONDS)
    asked = sum(message.role == "user" for message in messages)
    return Message("assistant", f"{messages[-1].content}? That is your question {asked}.")


async def model(child: ChildContext) -> None:
    """Answer whatever is not answered yet, as long as the conversation lasts."""
    manager, session_id = child.manager, child.session_id
    while not child.stopping.is_set():
        said = await manager.context(session_id).get()
        if said.messages and said.messages[-1].role == "user":
            async with manager.task(session_id, f"turn-{said.next_number}", timeout_seconds=7200):
                answer = await think(build_context(said, max_tokens=100_000).messages)
                await manager.context(session_id).change(partial(answered, said, answer))
        else:
            async for _ in child.inbox:  # something was said, or the end has come
                break


def answered(thought: SessionContext, answer: Message, now: SessionContext) -> SessionContext:
    """Add an answer, unless something was said meanwhile: then it is thought over again."""
    return now.with_messages([answer]) if now.history == thought.history else now


CHILDREN = [ContextManager.child(), Child("model", model, stop_seconds=0.5)]


class Chat:
    """The application, as ASGI calls it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._manager: SessionManager

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            status, body = await self._answer(scope, receive)
        except (SessionFsmError, ValueError) as error:
            status = next(STATUS[kind] for kind in STATUS if isinstance(error, kind))
            body = {"error": str(error)}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        async with SessionManager(self._store) as self._manager:
            await self._manager.recover()
            await self._manager.sweep()  # what has expired since is not to be gone on with
            last: str | None = None
            while page := await self._manager.list(status=("active", "idle"), after=last):
                for last in (session.session_id for session in page):
                    try:
                        await self._manager.supervise(last, CHILDREN)
                    except SessionFsmError:  # which keeps no other one from going on
                        logger.exception("conversation %s can't be gone on with", last)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: dict[str, Any], receive: Any) -> tuple[int, Any]:
        match scope["method"], *scope["path"].strip("/").split("/"):
            case "POST", "chats":
                return 201, {"id": (await self._manager.create(children=CHILDREN)).session_id}
            case "POST", "chats", session_id:
                text = await _text(receive)
                await self._manager.send_message(session_id, "user", text)
                return 200, await self._once(session_id, lambda said: said[-1]["role"] != "user")
            case "GET", "chats", session_id:
                least = int(parse_qs(scope["query_string"].decode()).get("messages", ["0"])[0])
                return 200, await self._once(session_id, lambda messages: len(messages) >= least)
            case "DELETE", "chats", session_id:
                await self._manager.terminate(session_id)
                return 200, await self._once(session_id, lambda _: True)
        return 404, {"error": "there is nothing here"}

    async def _once(self, session_id: str, condition: Callable[[Any], bool]) -> dict[str, Any]:
        """Tell of a conversation as soon as its messages are so, or it has ended."""
        changed = asyncio.Event()
        unsubscribe = self._manager.subscribe(lambda _: changed.set(), session_id)
        try:
            while True:
                changed.clear()
                status = (await self._manager.get(session_id)).status
                messages = [
                    {"role": message.role, "text": message.content}
                    for message in await self._manager.context(session_id).history()
                ]
                if condition(messages) or status in self._manager.lifecycle.final:
                    return {"id": session_id, "status": status, "messages": messages}
                await changed.wait()
        finally:
            unsubscribe()


async def _text(receive: Any) -> str:
    """Read the text of a message."""
    body, more = b"", True
    while more and len(body) <= MOST_BYTES:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    match None if more else json.loads(body):
        case {"text": str(text)} if text:
            return text
    raise ValueError('expected {"text": "..."} of at most 100 kB')


app = Chat(os.environ.get("CHAT_STORE", "sqlite:///chats.db"))
