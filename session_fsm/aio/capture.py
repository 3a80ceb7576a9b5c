"""The pipes of a worker process, on an event loop: what it says is kept, what it hears is sent."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from typing import Final

READ_BYTES: Final = 65536
LONGEST_LINE_BYTES: Final = 8192
"""A longer line is told in pieces."""
DRAIN_READS: Final = 64
"""How often a pipe is read at the end, should somebody who can't be found write to it for ever."""
SHORTEST_SECRET: Final = 8
"""A shorter value is no secret worth its name, and would star out words."""

_SECRET_NAME: Final = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|DSN", re.IGNORECASE)
STARS: Final = b"***"


class Mask:
    """Stars out the secrets of an environment, wherever they are said.

    Args:
        environ: The environment; those variables are secret whose name says so.
        also: Other secrets.

    Attributes:
        longest: Bytes of the longest secret; 0 if there is none.
    """

    def __init__(self, environ: Mapping[str, str], *also: str) -> None:
        given = [value for name, value in environ.items() if _SECRET_NAME.search(name)]
        texts = {os.fsencode(text) for text in (*given, *also) if len(text) >= SHORTEST_SECRET}
        longest_first = sorted(texts, key=len, reverse=True)
        self.longest = len(longest_first[0]) if longest_first else 0
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first))) if texts else None

    def __call__(self, data: bytes) -> bytes:
        """Return some output without secrets."""
        return data if self._pattern is None else self._pattern.sub(STARS, data)

    def without_head(self, data: bytes) -> bytes:
        """Cut off so much at the front that no rest of a secret stands there."""
        start = self.longest
        if self._pattern is not None:
            for found in self._pattern.finditer(data):
                if found.start() < start < found.end():
                    start = found.end()
        return data[start:]


class Capture:
    """Reads all that a process says, at once, and keeps the end of it.

    Args:
        fd: The pipe; it stays its owner's.
        limit: Most bytes that are kept.
        mask: What stars out secrets.
        on_line: Called with each line, without its end, secrets starred out; None: with none.

    Threads: none but the loop's.
    """

    def __init__(
        self, fd: int, *, limit: int, mask: Mask, on_line: Callable[[bytes], object] | None
    ) -> None:
        self._fd = fd
        self._limit = limit
        self._mask = mask
        self._on_line = on_line
        self._kept = bytearray()
        self._cut = False
        self._line = bytearray()
        os.set_blocking(fd, False)
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def text(self) -> bytes:
        """Return the end of what was said, secrets starred out."""
        kept = bytes(self._kept)
        if self._cut:
            kept = self._mask.without_head(kept)
        return self._mask(kept)[-self._limit :] if self._limit else b""

    def finish(self) -> None:
        """Read what is there still, and no more after that."""
        for _ in range(DRAIN_READS):
            if self._loop is None or not self._read():
                break
        self._stop()
        if self._line:
            self._tell(len(self._line))

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _read(self) -> bool:
        """Read once; returns whether something was there."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            self._stop()
            return False
        self._kept += data
        # Of what is shown, nothing may begin in the middle of a secret.
        room = self._limit + self._mask.longest
        if len(self._kept) > room:
            del self._kept[: -room or None]
            self._cut = True
        if self._on_line is not None:
            self._line += data
            self._tell_lines()
        return True

    def _tell_lines(self) -> None:
        while (end := self._line.find(b"\n", 0, LONGEST_LINE_BYTES)) >= 0 or (
            len(self._line) > LONGEST_LINE_BYTES
        ):
            self._tell(end + 1 if end >= 0 else LONGEST_LINE_BYTES)

    def _tell(self, size: int) -> None:
        line = bytes(self._line[:size])
        del self._line[:size]
        if self._on_line is not None:
            self._on_line(self._mask(line.rstrip(b"\r\n")))


class Feed:
    """Sends bytes to a process, as fast as it takes them.

    Args:
        fd: The pipe; it stays its owner's.

    Threads: none but the loop's.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._sending = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send bytes, after those of earlier calls; who is cancelled may have sent a part.

        Raises:
            BrokenPipeError: Nobody will read them.
        """
        async with self._sending:
            rest = memoryview(data)
            while rest:
                if self._closed:
                    raise BrokenPipeError("the process takes nothing any longer")
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    await self._until_writable()

    async def _until_writable(self) -> None:
        self._writable = writable = self._loop.create_future()
        self._loop.add_writer(self._fd, _settle, writable)
        try:
            await writable
        finally:
            self._writable = None
            if not self._closed:
                self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """Send no more; before the pipe is closed."""
        if not self._closed:
            self._closed = True
            self._loop.remove_writer(self._fd)
            if self._writable is not None:
                _settle(self._writable)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
