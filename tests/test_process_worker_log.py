"""What a worker process says is kept, up to a bound, and never holds it up."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest
from worker_processes import (
    PATIENCE_SECONDS,
    Stand,
    number_of,
    paused,
    run,
    started,
    within_patience,
    worker_of,
)

from session_fsm.aio.capture import LONGEST_LINE_BYTES, Capture, Feed, Mask
from session_fsm.orphans import drop_logs, log_name, read_log
from session_fsm.stores import MemoryStore

pytest_plugins = ("worker_fixtures",)
pytestmark = pytest.mark.usefixtures("marked")

NO_MASK = Mask({})


class Pipe:
    """A pipe that is read by a capture, in steps that the test makes."""

    def __init__(self, **options: Any) -> None:
        self._in, self._out = os.pipe()
        self.lines: list[bytes] = []
        defaults: dict[str, Any] = {"limit": 100, "mask": NO_MASK, "on_line": self.lines.append}
        self.capture = Capture(self._in, **{**defaults, **options})

    async def say(self, data: bytes) -> None:
        """Write something, and have it read."""
        os.write(self._out, data)
        before = asyncio.get_running_loop().create_future()
        # The reader was there first: when this one is called, it has been.
        asyncio.get_running_loop().call_soon(before.set_result, None)
        await before
        await asyncio.sleep(0)

    def close(self) -> bytes:
        """Close both ends, and return what was kept."""
        os.close(self._out)
        self.capture.finish()
        os.close(self._in)
        return self.capture.text()


# --- kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 1000, 65536])
def test_worker_log_keeps_the_end(limit: int) -> None:
    """Of ten megabytes that nobody reads the end is kept, and the process is not held up."""
    source = """
        import os
        for number in range(10000):
            os.write(1, b"%09d\\n" % number * 100)
        os.write(2, b"the end")
    """
    stand, worker = Stand(), worker_of(source, log_bytes=limit)
    run(worker(stand))
    whole = b"".join(b"%09d\n" % number * 100 for number in range(9900, 10000)) + b"the end"
    assert worker.log() == whole[len(whole) - limit :]
    assert read_log(stand.store, stand.session_id, stand.name) == worker.log()


def test_worker_log_is_read_while_the_process_runs() -> None:
    """What was said so far can be read at any time; before anything was said it is empty."""
    worker = worker_of("print(input(), flush=True); input()", stdin="pipe")
    assert worker.log() == worker.log("chat/1") == b""

    async def work() -> None:
        task = await started(worker, Stand())
        assert worker.log() == b""
        await worker.send(b"one\n")
        while worker.log() != b"one\n":
            await asyncio.sleep(0)
        assert worker.log("chat/1") == b"one\n"
        assert worker.log("chat/2") == b""
        await worker.send(b"two\n")
        await task

    run(work())
    assert worker.log("chat/1") == b"one\n"


def test_worker_log_has_what_was_said_last() -> None:
    """What the process said just before it was killed is in its log."""
    source = "import os; os.write(1, b'x' * 60000); os.kill(os.getpid(), 9)"
    worker = worker_of(source)
    with pytest.raises(Exception, match="signal 9"):
        run(worker(Stand()))
    assert worker.log() == b"x" * 60000


def test_worker_log_is_kept_for_the_session() -> None:
    """Each child's log stands under its own name, is replaced by the next one, and is dropped."""
    store = MemoryStore()
    for session_id, name, said in (
        ("a", "x", "1"),
        ("a/b", "x", "2"),
        ("a", "y", "3"),
        ("a", "x", "4"),
        ("a", "b/x", "5"),
        ("a%2Fb", "x", "6"),
    ):
        run(worker_of(f"print({said})")(Stand(store=store, session_id=session_id, name=name)))
    assert read_log(store, "a", "x") == b"4\n"
    assert read_log(store, "a/b", "x") == b"2\n"
    assert read_log(store, "a", "y") == b"3\n"
    assert read_log(store, "a", "b/x") == b"5\n"
    assert read_log(store, "b", "x") is None
    assert drop_logs(store, "a") == 3
    assert drop_logs(store, "a") == 0
    left = {name for name, _ in store.marks("")}
    assert left == {log_name("a/b", "x"), log_name("a%2Fb", "x")}


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
def test_worker_log_never_shows_a_part_of_a_secret(pieces: int) -> None:
    """However the output comes in pieces and is cut, no five letters of a secret are shown."""
    secret = b"abcdefghijklmnop"
    mask = Mask({"MY_TOKEN": secret.decode(), "NAME": "harmless!"})
    parts = {secret[at : at + 5] for at in range(len(secret) - 4)}
    data = b"harmless! " + b"".join(b"." * number + secret for number in range(20))

    async def work() -> None:
        for limit in range(0, 200, 7):
            pipe = Pipe(limit=limit, mask=mask)
            for start in range(0, len(data), pieces):
                await pipe.say(data[start : start + pieces])
            shown = pipe.close()
            assert len(shown) <= limit
            assert not [part for part in parts if part in shown]
            if limit > 20:
                assert shown.endswith(b"...***")

    run(work())


def test_worker_log_is_not_cut_where_all_was_kept() -> None:
    """As long as no more was said than is kept, all of it is shown."""
    mask = Mask({"A_KEY": "0123456789"})

    async def work() -> None:
        pipe = Pipe(limit=20, mask=mask)
        await pipe.say(b"12345678 0123456789!")
        assert pipe.capture.text() == b"12345678 ***!"
        assert pipe.close() == b"12345678 ***!"

    run(work())


def test_worker_log_stars_out_secrets_by_their_names() -> None:
    """Values are secret whose names say so; short ones and others are not, longer ones go first."""
    mask = Mask(
        {
            "API_KEY": "secret-1",
            "github_token": "secret-1-and-more",
            "PGPASSWORD": "short",
            "HOME": "/home/me",
            "AWS_SECRET": "a.b*c[d]",
        },
        "also-this",
    )
    said = b"secret-1-and-more secret-1 short /home/me a.b*c[d] also-this aXb*c[d]"
    assert mask(said) == b"*** *** short /home/me *** *** aXb*c[d]"
    assert mask.longest == len("secret-1-and-more")
    assert (NO_MASK(b"x"), NO_MASK.longest) == (b"x", 0)


# --- told -----------------------------------------------------------------------------------


def test_worker_log_lines_go_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Each line is told at DEBUG, whatever bytes it has: with session and child, no secret."""
    source = r"""
        import os
        os.write(1, b"one\r\n\ntwo \xff ")
        os.write(2, os.environ["A_TOKEN"].encode() + b"\nno end")
    """
    worker = worker_of(source, env={"A_TOKEN": "not-for-you"})
    with caplog.at_level(logging.DEBUG, "session_fsm.worker"):
        run(worker(Stand()))
    told = [r.getMessage() for r in caplog.records if r.name == "session_fsm.worker"]
    said = ["one", "", "two \N{REPLACEMENT CHARACTER} ***", "no end"]
    assert told == [f"session 'chat/1', sandbox: {line}" for line in said]


def test_worker_log_tells_no_lines_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens at DEBUG, no line is put together."""
    with caplog.at_level(logging.INFO, "session_fsm.worker"):
        run(worker_of("print('hush')")(Stand()))
    assert caplog.records == []


def test_worker_log_tells_endless_lines_in_pieces() -> None:
    """A line without end is told in pieces, so that it is never kept whole."""
    size = LONGEST_LINE_BYTES

    async def work() -> None:
        pipe = Pipe()
        for _ in range(5):
            await pipe.say(b"x" * (size // 2))
        assert [len(line) for line in pipe.lines] == [size, size]
        pipe.close()
        assert b"".join(pipe.lines) == b"x" * (5 * (size // 2))

    run(work())


# --- what it hears --------------------------------------------------------------------------


def test_worker_input_waits_for_the_process() -> None:
    """A megabyte sent at once arrives whole and in order, as fast as the process reads."""
    source = """
        import hashlib, sys
        print(hashlib.sha256(sys.stdin.buffer.read(2 * 10**6)).hexdigest(), flush=True)
    """
    worker = worker_of(source, stdin="pipe")

    async def work() -> None:
        import hashlib

        task = await started(worker, Stand())
        one, two = b"a" * 10**6, b"b" * 10**6
        await asyncio.gather(worker.send(one), worker.send(two))
        await task
        assert worker.log().decode().strip() == hashlib.sha256(one + two).hexdigest()

    run(work())


def test_worker_input_ends_with_the_process() -> None:
    """Who sends to a process that reads no more, has ended or has no such pipe, is told."""

    async def work() -> None:
        worker, stand = paused(stdin="pipe"), Stand()
        with pytest.raises(BrokenPipeError):
            await worker.send(b"x")
        task = await started(worker, stand)
        sending = asyncio.ensure_future(worker.send(b"x" * 10**7))
        await asyncio.sleep(0)
        stand.stopping.set()
        await within_patience(asyncio.wait((task, sending)))
        assert isinstance(sending.exception(), BrokenPipeError)
        with pytest.raises(BrokenPipeError):
            await worker.send(b"x")
        with pytest.raises(ValueError, match="stdin='pipe'"):
            await worker_of("").send(b"x")

    run(work())


def test_worker_input_can_be_given_up() -> None:
    """Who is cancelled while it sends leaves nothing behind that waits, and others can send."""

    async def work() -> None:
        out, end = os.pipe()
        feed = Feed(end)
        sending = asyncio.ensure_future(feed.send(b"x" * 10**6))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait((sending,), timeout=PATIENCE_SECONDS)
        sent = 0
        other = asyncio.ensure_future(feed.send(b"y"))
        while not other.done():
            sent += os.read(out, 65536).count(b"x")
            await asyncio.sleep(0)
        assert os.read(out, 10) == b"y"
        assert 0 < sent < 10**6
        feed.close()
        os.close(end)
        os.close(out)

    run(work())


def test_worker_log_ends_though_a_pipe_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should somebody hold the pipe who can't be found, the end does not wait for him."""
    stand, worker = Stand(), paused()

    async def work() -> None:
        task = await started(worker, stand)
        held = os.open(f"/proc/{number_of(worker)}/fd/1", os.O_WRONLY)
        os.write(held, b"late\n")
        stand.stopping.set()
        await within_patience(task)
        os.close(held)

    run(work())
    assert worker.log() == b"ready\nlate\n"
