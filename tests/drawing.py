"""What the tests of drawings share: lifecycles to be drawn, and reading the formats back."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

import pygraphviz
import pytest

from session_fsm import SESSION_LIFECYCLE, SessionEvent, SessionManager, SessionState
from session_fsm.diagrams import render, standing
from session_fsm.guards import Attempt, Deadline, Guard
from session_fsm.lifecycle import LIVE, Lifecycle, Row
from session_fsm.testing import ManualClock

Box = StrEnum(
    "Box",
    "QUEUED SCHEDULED PROVISIONING BOOTING READY RUNNING WAITING SUSPENDED MIGRATING DRAINING"
    " FAILED ARCHIVED",
)


def never(attempt: Attempt) -> datetime | None:
    """No instant."""
    return None


def guard(name: str) -> Guard:
    """A guard of which only the name counts here."""
    return Guard(name, lambda attempt: True, "no")


SANDBOX = Lifecycle(
    statuses=Box,
    initial=Box.QUEUED,
    rows=(
        Row("schedule", Box.QUEUED, Box.SCHEDULED, guards=(guard("capacity is free"),)),
        Row("cancel", (Box.QUEUED, Box.SCHEDULED), Box.ARCHIVED, ending=True),
        Row("give_up", Box.QUEUED, Box.FAILED, deadline=Deadline("queue grace", never, "queue")),
        Row("provision", Box.SCHEDULED, Box.PROVISIONING),
        Row("boot", Box.PROVISIONING, Box.BOOTING, guards=(guard("image"), guard("volume"))),
        Row("fail", (Box.PROVISIONING, Box.BOOTING, Box.MIGRATING), Box.FAILED, ending=True),
        Row("boot_timeout", Box.BOOTING, Box.FAILED, deadline=Deadline("1 min after", never)),
        Row("up", Box.BOOTING, Box.READY, activity=True),
        Row("run", Box.READY, Box.RUNNING, activity=True),
        Row("rest", Box.RUNNING, Box.READY),
        Row("restart", Box.RUNNING, Box.RUNNING),
        Row("ask", Box.RUNNING, Box.WAITING),
        Row("answer", Box.WAITING, Box.RUNNING),
        Row("suspend", (Box.READY, Box.RUNNING, Box.WAITING), Box.SUSPENDED),
        Row("wake", Box.SUSPENDED, Box.READY, guards=(guard("not expired"),)),
        Row("migrate", (Box.READY, Box.SUSPENDED), Box.MIGRATING),
        Row("migrated", Box.MIGRATING, Box.READY),
        Row("retry", Box.FAILED, Box.QUEUED, guards=(guard("below max_retries"),)),
        Row("bury", Box.FAILED, Box.ARCHIVED, ending=True),
        Row("expire", (Box.READY, Box.SUSPENDED), Box.DRAINING,
            deadline=Deadline("last_activity_at + timeout", never)),
        Row("drained", Box.DRAINING, Box.ARCHIVED, ending=True),
        Row("probe", (Box.READY, Box.RUNNING), None, deadline=Deadline("each minute", never)),
        Row("update", LIVE, None, why="settings changed"),
    ),
    graces={"queue": 90},
    name="sandbox",
)  # fmt: skip
"""Twelve statuses: a loop, ways back, rows that end, that are timed, and one that stays besides."""

ODD_WORDS = (
    "end", "state", "note", "class", "direction", "classDef", "default", "graph", "node", "begin",
    '"quoted"', "it's", "back\\slash", "tail\\", "\\N \\G \\l", "<b>tag</b>", "a>b", "p|pe", "%%",
    "{brace}", "[*]", "a:b;c", "#quot; &amp;", "`tick` *star* _u_", "--> x", "1. list", "- item",
    "# head", "s1", "s_1", "constructor", "__proto__", "style#a;", "a--b", "www.x.org", "$m$",
    "~~no~~", "end note", "<script>", "x<br/>y", "ünï ☃ 日本",
)  # fmt: skip
UNSEEN_WORDS = ("two\nlines", "tab\there", "null\x00", "\u202eright to left", "\ud800", "\ufffe")
SEEN = ("two\\nlines", "tab\\there", "null\\x00", "\\u202eright to left", "\\ud800", "\\ufffe")
"""How words are shown that have characters which can't be."""

ODD = Lifecycle(
    statuses=ODD_WORDS,
    initial=ODD_WORDS[0],
    rows=(
        *(
            Row(
                f"go_{number}",
                source,
                target,
                guards=(guard(source), guard(target)),
                deadline=Deadline(target, never) if number % 3 else None,
                why=source,
            )
            for number, (source, target) in enumerate(pairwise(ODD_WORDS))
        ),
        Row("leave", LIVE, ODD_WORDS[-1], ending=True),
        Row("stay", ODD_WORDS[1], None, guards=[guard(word) for word in UNSEEN_WORDS]),
    ),
    name='odd "name" \\ <x>',
)
"""Names that mean something to a format, or that no file of text may hold."""

LIFECYCLES = pytest.mark.parametrize(
    "lifecycle", [SESSION_LIFECYCLE, SANDBOX, ODD], ids=["session", "sandbox", "odd"]
)


def text(lifecycle: Lifecycle, form: str, **shown: Any) -> str:
    """A lifecycle in a format that is text, with what is shown on top of it."""
    rendered = render(lifecycle, form, **shown)
    assert isinstance(rendered, str)
    return rendered


# --- what is shown on top --------------------------------------------------------------------

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""When the session of `a_life` is created."""


def a_life(turns: int = 9) -> tuple[tuple[SessionEvent, ...], SessionState]:
    """The history and the state of a session that woke for some turns of work, and is idle."""
    clock = ManualClock(START)
    with SessionManager(clock=clock) as manager:
        manager.create("a")
        for number in range(turns):
            clock.advance(timedelta(seconds=7))
            manager.begin_task("a", f"turn-{number}")
            clock.advance(timedelta(seconds=30))
            manager.end_task("a", f"turn-{number}", reason=f"answer <{number}>")
        return manager.history("a"), manager.get("a").state


def cells(lifecycle: Lifecycle) -> Iterator[tuple[str, str]]:
    """Each row by its trigger with each of its sources, in the table's order."""
    yield from ((row.trigger, source) for row, source in lifecycle.moves())


LIFE, IDLE = a_life()
WAYS: dict[str, dict[str, Any]] = {
    "current": {"current": "active", "permitted": ("go_idle", "touch")},
    "path": {**standing(IDLE, at=IDLE.updated_at + timedelta(minutes=1)), "history": LIFE},
    "counts": {"counts": {("active", "idle"): 2312}, "status_counts": {"idle": 1234}},
    "traffic": {"traffic": {("expire", "idle"): 7, ("begin_task", "active"): 9000}},
    "coverage": {
        "coverage": {cell: number % 3 for number, cell in enumerate(cells(SESSION_LIFECYCLE))}
    },
    "caption": {"caption": "session <a> | *b*"},
}
"""Each thing that is shown on top of the lifecycle of sessions, as arguments of `render`."""


# --- reading the formats back ------------------------------------------------------------------


def svg_texts(svg: str) -> list[str]:
    """The texts in an SVG, without what Graphviz alone needs: slack, and a thing of no width."""
    root = ET.fromstring(svg)
    found = (element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
    return [words.replace("\u2060", "").strip("\u00a0") for words in found]


def dot_arrows(dot: str) -> list[tuple[str, str, str, str]]:
    """What each line through a card goes from and to, with its colour and style."""
    graph = pygraphviz.AGraph(string=dot)
    heads: list[tuple[tuple[str, str, str], str]] = []
    tails: list[tuple[tuple[str, str, str], str]] = []
    for edge in graph.edges():
        if edge[0] == "begin":
            continue
        card, status = sorted(edge, key=lambda name: " to " not in name)
        look = (card, edge.attr["color"], edge.attr["style"])
        pointed = edge[1] if edge.attr["dir"] == "forward" else edge[0]
        (tails if edge.attr["dir"] == "none" else heads).append((look, status))
        assert edge.attr["dir"] == "none" or pointed == status
    return [
        (source, target, look[1], look[2])
        for look, source in tails
        for other, target in heads
        if look == other
    ]


def from_mermaid(words: str) -> str:
    """A text of Mermaid as it is shown."""
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), words)


def from_plantuml(words: str) -> str:
    """A text of PlantUML as it is shown."""
    bare = re.sub(r"</?color[^>]*>", "", words)
    return re.sub(r"<U\+([0-9A-F]+)>", lambda found: chr(int(found[1], 16)), bare)


def mermaid_names(mermaid: str) -> dict[str, str]:
    """The name of each status by its key: its first description."""
    names: dict[str, str] = {}
    for key, words in re.findall(r"^    (s\w+) : (.*)$", mermaid, re.MULTILINE):
        names.setdefault(key, from_mermaid(words))
    return names


def markdown_cells(markdown: str) -> list[list[str]]:
    """The cells of the first table as they are shown, without its header."""
    lines = markdown.split("\n\n")[2].splitlines()[2:]
    rows = [re.findall(r"(?:\\.|[^\\|])+", line) for line in lines]
    return [[from_markdown(cell).strip() for cell in row] for row in rows]


def from_markdown(words: str) -> str:
    """A text of Markdown as it is shown."""
    return re.sub(r"\\([!-/:-@\[-`{-~])|`(\w+)`", r"\1\2", words)


def plain(lifecycle: Lifecycle, row: Row) -> list[str]:
    """All words of a row, as they are shown."""
    words = [row.trigger, *(guard.name for guard in row.guards)]
    if row.deadline is not None:
        words.append(row.deadline.name)
    return [dict(zip(UNSEEN_WORDS, SEEN, strict=True)).get(word, word) for word in words]
