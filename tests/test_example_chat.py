"""The chat back end of the examples: real HTTP, killed for real, and it goes on where it was."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from managing import PATIENCE_SECONDS, begin, end
from processes import ROOT

from session_fsm import SessionManager
from session_fsm.clock import SYSTEM_CLOCK, ManualClock


class Server:
    """The back end in a process of its own, on a socket that outlives it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, thinking_seconds: float = 0.0) -> None:
        """Start it; requests wait in the socket until it answers."""
        number = self._socket.fileno()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "uvicorn", "--fd", str(number)),
                *("--log-level", "warning", "examples.chat:app"),
            ],
            cwd=ROOT,
            pass_fds=(number,),
            env={"CHAT_STORE": self._store, "CHAT_THINKING_SECONDS": str(thinking_seconds)},
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        self._socket.close()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make a request; returns the status and what was answered."""
        host, port = self._socket.getsockname()
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        text = body if isinstance(body, bytes) else json.dumps(body)
        try:
            connection.request(method, path, None if body is None else text)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A back end that does not run yet."""
    made = Server(f"sqlite:///{tmp_path}/chats.db")
    yield made
    made.close()


def texts(told: Any) -> list[str]:
    """Return what was said in a conversation."""
    return [message["text"] for message in told["messages"]]


def test_example_chat_is_short() -> None:
    """The whole back end is under 150 lines."""
    assert len((ROOT / "examples" / "chat.py").read_text().splitlines()) < 150


def test_example_chat_answers(server: Server) -> None:
    """A conversation is begun, answered and ended over HTTP; what is no request is refused."""
    server.start()
    status, told = server.ask("POST", "/chats")
    assert status == 201
    path = f"/chats/{told['id']}"
    status, told = server.ask("POST", path, {"text": "What is a session"})
    assert (status, told["status"]) in ((200, "active"), (200, "idle"))
    assert texts(told)[1] == "What is a session? That is your question 1."
    wrong: list[Any] = [{"text": 5}, {}, [], b"no json", {"text": "x" * 200_000}]
    for body in wrong:
        assert server.ask("POST", path, body)[0] == 400
    assert server.ask("GET", "/chats/nobody")[0] == 404
    assert server.ask("PUT", "/elsewhere")[0] == 404
    assert texts(server.ask("GET", path)[1]) == texts(told)
    assert server.ask("DELETE", path)[1]["status"] == "terminated"
    status, refused = server.ask("POST", path, {"text": "Still there"})
    assert (status, "terminated" in refused["error"]) == (409, True)
    assert server.stop() in (0, -signal.SIGTERM)


def test_example_chat_survives_a_kill(server: Server, tmp_path: Path) -> None:
    """Killed in the middle of a thought, and started again, it gives the answer that is due."""
    server.start(thinking_seconds=3600)
    ids = [server.ask("POST", "/chats")[1]["id"] for _ in range(5)]
    asking = [begin(server.ask, "POST", f"/chats/{each}", {"text": each}) for each in ids]
    for each in ids:
        assert texts(server.ask("GET", f"/chats/{each}?messages=1")[1]) == [each]
    server.stop(signal.SIGKILL)
    for each in asking:
        with pytest.raises((http.client.HTTPException, OSError)):
            end(each)
    server.start()
    for each in ids:
        status, told = server.ask("GET", f"/chats/{each}?messages=2")
        assert (status, texts(told)) == (200, [each, f"{each}? That is your question 1."])
        told = server.ask("POST", f"/chats/{each}", {"text": "And now"})[1]
        assert texts(told)[2:] == ["And now", "And now? That is your question 2."]
    assert server.stop() in (0, -signal.SIGTERM)
    with SessionManager(f"sqlite:///{tmp_path}/chats.db") as manager:
        assert manager.verify().ok
        assert manager.counts()["idle"] == 5


def test_example_chat_starts_after_a_long_time(server: Server, tmp_path: Path) -> None:
    """What has expired while nobody was there ends when it starts; the others are gone on with."""
    clock = ManualClock(SYSTEM_CLOCK.now() - timedelta(hours=2))
    with SessionManager(f"sqlite:///{tmp_path}/chats.db", clock=clock) as manager:
        for session_id, minutes in (("old", 30), ("working", 30), ("patient", None)):
            manager.create(session_id, config={"timeout_minutes": minutes})
            manager.send_message(session_id, "user", "Hello")
        manager.begin_task("working", "turn-1")  # no time-out runs until its owner is seen dead
        manager.fire("old", "go_idle")
    server.start()
    assert len(server.ask("GET", "/chats/patient?messages=2")[1]["messages"]) == 2
    assert server.ask("GET", "/chats/old")[1]["status"] == "terminated"
    assert server.ask("POST", "/chats/old", {"text": "And now"})[0] == 409
    assert len(server.ask("GET", "/chats/working?messages=2")[1]["messages"]) == 2
    assert server.stop() in (0, -signal.SIGTERM)


def test_example_chat_starts_though_one_conversation_is_broken(
    server: Server, tmp_path: Path
) -> None:
    """A conversation that can't be read is refused; it keeps none of the others from going on."""
    url = f"sqlite:///{tmp_path}/chats.db"
    with SessionManager(url) as manager:
        for session_id in ("a", "broken", "c"):
            manager.create(session_id)
            manager.send_message(session_id, "user", "Hello")
        head = manager.table("broken", "context")
        head.put("head", {**head.get("head"), "format": 99})
    server.start()
    for session_id in ("a", "c"):
        told = server.ask("GET", f"/chats/{session_id}?messages=2")[1]
        assert texts(told) == ["Hello", "Hello? That is your question 1."]
    assert server.ask("GET", "/chats/broken")[0] == 503
    assert server.stop() in (0, -signal.SIGTERM)
    with SessionManager(url) as manager:
        assert manager.get("broken").status == "active"  # for whoever can read it
