"""Write the sample trace: made-up agent sessions that show every rule of a replay.

    python examples/make_sample.py [FILE]

The trace is the same at every run: two days, event lines, gzip. A session's id tells what it
shows. Nothing in it was recorded anywhere.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("sample_trace.jsonl.gz")
FIRST_DAY = datetime(2025, 3, 3, tzinfo=UTC)
SEED = 20250303

QUIET_GAP_SECONDS = 120.0
TIMEOUT_SECONDS = 1800.0
TOOLS = ("Read", "Edit", "Bash", "Grep", "Glob", "Write")

Row = dict[str, Any]


class Script:
    """Writes the rows of one session, with a pen that moves forward in time.

    Args:
        session: The id that the rows carry.
        start: When the first row comes, in hours after the first midnight.
        seed: What the chances of this session are drawn from.
    """

    def __init__(self, session: str, start: float, seed: int) -> None:
        self.rows: list[Row] = []
        self._session = session
        self._at_ms = round((FIRST_DAY + timedelta(hours=start)).timestamp() * 1000)
        self._random = random.Random(seed)  # noqa: S311 - the same draws every time are wanted
        self._seed = seed

    def wait(self, seconds: float) -> Script:
        """Let time pass."""
        self._at_ms += round(seconds * 1000)
        return self

    def until_next_day(self, hour: float) -> Script:
        """Let time pass until an hour of the second day."""
        at = FIRST_DAY + timedelta(days=1, hours=hour)
        self._at_ms = max(self._at_ms, round(at.timestamp() * 1000))
        return self

    def row(self, event: str, kind: str, **fields: Any) -> Script:
        """Write one row at the pen."""
        row: Row = {"ts": self._at_ms / 1000, "session": self._session, "event": event}
        row["type"] = kind
        row |= {key.replace("__", "."): value for key, value in fields.items()}
        row["uuid"] = self._uuid(len(self.rows))
        if self.rows:
            row["parentUuid"] = self._uuid(len(self.rows) - 1)
        self.rows.append(row)
        return self

    def hook(self, event: str, name: str) -> Script:
        """A hook runs."""
        return self.row(
            "progress",
            "progress",
            data__type="hook_progress",
            data__hookEvent=event,
            data__hookName=name,
        )

    def open(self, how: str = "startup") -> Script:
        """The session is opened: a hook tells so."""
        return self.hook("SessionStart", f"SessionStart:{how}").wait(self._between(4, 20))

    def request(self, command: str | None = None) -> Script:
        """The person types a prompt."""
        fields = {} if command is None else {"command": command}
        return self.row("request", "user", **fields).wait(self._between(1, 6))

    def response(self, content: str, **fields: Any) -> Script:
        """The model answers with one block of content."""
        return self.row(
            "response",
            "assistant",
            content_types=[content],
            input_tokens=self._random.randrange(4, 12),
            output_tokens=self._random.randrange(20, 900),
            **fields,
        )

    def tool(self, ticks: int = 0, agent: str | None = None) -> Script:
        """The model uses a tool, which may tell of its progress, and has its result."""
        name = "Task" if agent else self._random.choice(TOOLS)
        self.response("tool_use", tool_use=[name]).wait(self._between(0.1, 2))
        for second in range(1, ticks + 1):
            if agent:
                self.row("progress", "progress", data__type="agent_progress", data__agentId=agent)
            else:
                elapsed = {"data__type": "bash_progress", "data__elapsedTimeSeconds": second}
                self.row("progress", "progress", **elapsed)
            self.wait(self._between(0.8, 1.6))
        self.row("tool_result", "user").wait(self._between(0.1, 0.8))
        return self.hook("PostToolUse", f"PostToolUse:{name}").wait(self._between(1, 5))

    def work(self, tools: int, ticks: int = 2) -> Script:
        """The model thinks, uses tools and answers; the turn stays in flight."""
        self.response("thinking").wait(self._between(1, 8))
        for _ in range(tools):
            self.tool(self._random.randrange(ticks + 1))
        return self.response("text").wait(self._between(0.1, 0.6))

    def done(self) -> Script:
        """The turn ends, and two rows tell so."""
        self.row("system:stop_hook_summary", "system", hookCount=1).wait(0.002)
        return self.row("system:turn_duration", "system", durationMs=self._random.randrange(60000))

    def turn(self, tools: int = 4) -> Script:
        """A prompt, its work, and the end of the turn."""
        return self.request().work(tools).done()

    def turns(self, count: int, tools: int = 5) -> Script:
        """Some turns, with a person reading in between."""
        for _ in range(count):
            self.turn(self._random.randrange(1, tools + 1)).wait(self._between(30, 600))
        return self

    def leave(self) -> Script:
        """The person types /exit; what comes with it stands before or behind it."""
        self.row("local_command", "user")
        self.row("local_command", "user", command="/exit").wait(0.001)
        return self.row("meta", "user")

    def _uuid(self, number: int) -> str:
        return str(uuid.UUID(int=self._seed << 64 | number, version=4))

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()


def ordinary(script: Script) -> None:
    """Turns with ends, then nobody comes back: it expires."""
    script.open().turns(13, tools=7)


def across_midnight(script: Script) -> None:
    """Work that goes on from one day into the next."""
    script.open().turns(16)


def stop_hook_only(script: Script) -> None:
    """The Stop hook alone tells of the end of a turn."""
    script.open()
    for _ in range(5):
        script.request().work(4).hook("Stop", "Stop").wait(240)


def no_end_rows(script: Script) -> None:
    """Nothing tells of the end of a turn: the gaps do."""
    script.open("clear")
    for _ in range(5):
        script.request().work(4).wait(QUIET_GAP_SECONDS * 3)


def gap_inside_a_turn(script: Script) -> None:
    """A tool is silent for too long: the turn has ended, and its result begins another."""
    script.open().request().response("thinking").wait(5).response("tool_use", tool_use=["Bash"])
    script.wait(QUIET_GAP_SECONDS * 5).row("tool_result", "user").wait(3).work(3).done()


def gap_not_longer(script: Script) -> None:
    """A gap as long as the quiet gap, and no longer, is none."""
    script.open().request().response("tool_use", tool_use=["Bash"]).wait(QUIET_GAP_SECONDS)
    script.row("tool_result", "user").wait(2).work(2).done()


def interrupted(script: Script) -> None:
    """The person presses escape, twice in a row once: the second has no turn to end."""
    script.open().request().work(3).row("interrupt", "user").wait(8)
    script.request().work(2).row("interrupt", "user").wait(1).row("interrupt", "user").wait(40)
    script.turns(3)


def hook_stopped(script: Script) -> None:
    """A hook forbids the prompt; the next one is let through."""
    script.open().request().row("hook_stopped", "user").wait(12).turns(3)


def exit_idle(script: Script) -> None:
    """Left between two turns; the rows that belong to it are trailing."""
    script.open().turns(9).leave()


def exit_in_flight(script: Script) -> None:
    """Left in the middle of a turn, which is dropped."""
    script.open().turns(3).request().work(2).leave()


def back_after_exit(script: Script) -> None:
    """Left and taken up again under the same id, twice: two successors."""
    for _ in range(3):
        script.open("resume").turns(2).leave()
        script.wait(900).row("synthetic_response", "assistant", stop_reason="stop_sequence")
        script.wait(15)


def back_after_expiry(script: Script) -> None:
    """Expired over lunch, and taken up again."""
    script.open().turns(4).wait(2 * TIMEOUT_SECONDS).open("resume").turns(3)


def back_the_next_day(script: Script) -> None:
    """Expired in the night, and taken up again in the morning."""
    script.open().turns(6).until_next_day(9).turns(6)


def back_on_the_dot(script: Script) -> None:
    """A prompt at the very instant of the deadline comes too late."""
    script.open().turn().wait(TIMEOUT_SECONDS).turn()


def trailing_after_expiry(script: Script) -> None:
    """Rows that begin nothing come for an expired session."""
    script.open().turns(2).wait(2 * TIMEOUT_SECONDS)
    script.row("pr-link", "pr-link").wait(30).row("system:turn_duration", "system", durationMs=1)
    script.wait(30).row("info", "info").wait(30).row("warning", "warning")


def kept_alive(script: Script) -> None:
    """Nothing but signs of life, each before the deadline, for three hours."""
    script.open().turn()
    for command in ("/model", "/ide", "/mcp", "/model", "/compact", "/release-notes", "/ide"):
        script.wait(TIMEOUT_SECONDS - 240).row("local_command", "user", command=command)
        script.wait(1).row("system:local_command", "system")


def opened_only(script: Script) -> None:
    """Opened, and never used."""
    script.open()


def queued_prompts(script: Script) -> None:
    """Prompts typed while a turn is in flight: more conversations, one turn."""
    script.open()
    for _ in range(3):
        script.request().work(2).row("queue:enqueue", "queue-operation").wait(4)
        script.work(1).row("queue:dequeue", "queue-operation").request().work(2).done().wait(90)
    script.row("queue:enqueue", "queue-operation").wait(2).row("queue:remove", "queue-operation")


def sub_agents(script: Script) -> None:
    """A sub-agent works for minutes, and each sign of it keeps the turn in flight."""
    script.open().request("/review").response("thinking").wait(4)
    for agent in ("a1", "a2", "a3"):
        script.tool(90, agent=agent)
    script.response("text").wait(1).done()


def long_command(script: Script) -> None:
    """A command that runs for minutes, telling so each second."""
    script.open().request().tool(240).response("text").wait(1).done().wait(60).turn()


def background_task(script: Script) -> None:
    """A task in the background reports, and nobody had to type for it."""
    script.open().turn().wait(400).row("task_notification", "user").wait(2).work(2).done()
    script.wait(500).row("task_notification", "user").wait(2).work(1).done()


def api_errors(script: Script) -> None:
    """The model's service fails, is tried again, fails for good; later it works."""
    script.open().request()
    for attempt in range(1, 6):
        script.row("system:api_error", "system", retryAttempt=attempt, maxRetries=5)
        script.wait(2**attempt)
    script.row("api_error_message", "assistant", stop_reason="stop_sequence").wait(1).done()
    script.wait(300).turns(2)


def compaction(script: Script) -> None:
    """The context is compacted in the middle of the work."""
    script.open().turns(3, tools=8).request().work(6)
    script.row("system:microcompact_boundary", "system", trigger="auto", preTokens=90000).wait(5)
    script.work(4).row("system:compact_boundary", "system", trigger="auto", preTokens=155000)
    script.row("compact_summary", "user").wait(2).hook("SessionStart", "SessionStart:compact")
    script.wait(3).work(4).done().wait(120).turns(3)


def open_idle_at_end(script: Script) -> None:
    """Idle, and not yet expired, when the trace ends."""
    script.open().turns(3, tools=3).turn()


def open_in_flight_at_end(script: Script) -> None:
    """A turn in flight when the trace ends: its last row is the trace's last."""
    script.open().turns(2, tools=2).request().tool(5).response("thinking")


SCENES: tuple[tuple[Callable[[Script], None], float], ...] = (
    (ordinary, 8.0),
    (stop_hook_only, 8.1),
    (back_after_exit, 8.2),
    (kept_alive, 8.3),
    (interrupted, 8.4),
    (no_end_rows, 9.0),
    (opened_only, 9.5),
    (exit_idle, 10.0),
    (back_after_expiry, 10.5),
    (sub_agents, 11.0),
    (gap_inside_a_turn, 13.0),
    (gap_not_longer, 13.2),
    (back_on_the_dot, 13.5),
    (queued_prompts, 14.0),
    (compaction, 14.2),
    (exit_in_flight, 15.0),
    (back_the_next_day, 16.0),
    (across_midnight, 23.4),
    (hook_stopped, 32.0),
    (long_command, 32.5),
    (trailing_after_expiry, 33.0),
    (background_task, 34.0),
    (api_errors, 35.0),
    (open_idle_at_end, 38.0),
    (open_in_flight_at_end, 38.4),
)
"""What is shown, and when it begins, in hours after the first midnight."""


def sample_rows() -> list[Row]:
    """Return the rows of the sample, in the order of time."""
    rows: list[Row] = []
    for number, (scene, start) in enumerate(SCENES):
        script = Script(f"sample-{scene.__name__.replace('_', '-')}", start, SEED + number)
        scene(script)
        rows += script.rows
    return sorted(rows, key=lambda row: row["ts"])


def sample_bytes() -> bytes:
    """Return the sample as it is written, before compression."""
    lines = (json.dumps(row, separators=(",", ":")) for row in sample_rows())
    return "".join(f"{line}\n" for line in lines).encode()


def main(output: Path = OUTPUT) -> None:
    """Write the sample; no name and no time goes into it, so that it is the same again."""
    output.write_bytes(gzip.compress(sample_bytes(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
