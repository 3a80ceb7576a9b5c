"""The drawings of a lifecycle: all of its table in each format, and files that tell when stale."""

import html
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import pygraphviz
import pytest

from session_fsm import SESSION_LIFECYCLE
from session_fsm.diagrams import (
    FORMATS,
    DrawingError,
    format_of,
    render,
    stale,
    table_rows,
    write,
)
from session_fsm.diagrams.__main__ import main
from session_fsm.diagrams.graphviz import STAMP, digest, draw
from session_fsm.guards import Attempt, Deadline, Guard
from session_fsm.lifecycle import LIVE, Lifecycle, Row

TEXTS = ("mermaid", "dot", "markdown")
DRAWINGS = ("svg", "png")

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
        Row("expire", (Box.READY, Box.SUSPENDED), Box.DRAINING, ending=True,
            deadline=Deadline("last_activity_at + timeout", never)),
        Row("drained", Box.DRAINING, Box.ARCHIVED, ending=True),
        Row("probe", (Box.READY, Box.RUNNING), None, deadline=Deadline("each minute", never)),
        Row("update", LIVE, None, why="settings changed"),
    ),
    graces={"queue": 90},
    name="sandbox",
)  # fmt: skip
"""Twelve statuses: a loop, ways back, one row that is timed and ending, one timed that stays."""

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
            for number, (source, target) in enumerate(itertools.pairwise(ODD_WORDS))
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


def text(
    lifecycle: Lifecycle,
    form: str,
    counts: Mapping[tuple[str, str], int] | None = None,
    status_counts: Mapping[str, int] | None = None,
) -> str:
    """A lifecycle in a format that is text."""
    rendered = render(lifecycle, form, counts=counts, status_counts=status_counts)
    assert isinstance(rendered, str)
    return rendered


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


# --- what is shown -----------------------------------------------------------------------------


@LIFECYCLES
@pytest.mark.parametrize("form", [*TEXTS, "svg"])
def test_diagrams_show_every_row(lifecycle: Lifecycle, form: str) -> None:
    """Each row stands in each format with its trigger, its guards and its deadline."""
    shown = text(lifecycle, form)
    if form == "svg":
        shown = "\n".join(svg_texts(shown))
    elif form == "dot":
        shown = html.unescape(shown).replace("\u2060", "")
    elif form == "mermaid":
        shown = from_mermaid(shown)
    else:
        shown = from_markdown(shown)
    for row in lifecycle.rows:
        for words in plain(lifecycle, row):
            assert words in shown


@LIFECYCLES
def test_diagrams_dot_has_the_edges_of_the_lifecycle(lifecycle: Lifecycle) -> None:
    """Lines lead through a card from each source to each target, one for each kind of row."""
    keys = {name: key for key, name in mermaid_names(text(lifecycle, "mermaid")).items()}
    expected = {
        (
            keys[source],
            keys[row.target],
            "#b3261e" if row.ending else "#9a5b00" if row.deadline else "#1f5f99",
            "dashed" if row.deadline else "solid",
        )
        for row, source in lifecycle.moves()
        if row.target is not None
    }
    arrows = dot_arrows(text(lifecycle, "dot"))
    assert set(arrows) == expected
    assert len(arrows) == len(expected)


@LIFECYCLES
def test_diagrams_mermaid_has_the_edges_of_the_lifecycle(lifecycle: Lifecycle) -> None:
    """One arrow leads from each source to each target, with the rows between them on it."""
    mermaid = text(lifecycle, "mermaid")
    names = mermaid_names(mermaid)
    assert tuple(names.values()) == tuple(lifecycle.statuses)
    arrows = re.findall(r"^    (s\w+) --> (s\w+) : (.*)$", mermaid, re.MULTILINE)
    assert tuple((names[source], names[target]) for source, target, _ in arrows) == lifecycle.edges
    for source, target, label in arrows:
        lines = [from_mermaid(line) for line in label.split("<br/>")]
        for row in lifecycle.rows:
            if row.target == names[target] and names[source] in lifecycle.sources(row):
                sign = "◷ " * (row.deadline is not None) + "■ " * row.ending
                assert any(re.match(rf"{sign}{row.trigger}( \[|$)", line) for line in lines)


@LIFECYCLES
def test_diagrams_markdown_has_the_table(lifecycle: Lifecycle) -> None:
    """Each row of the table is a line with all its cells, in the table's order."""
    header, rows = table_rows(lifecycle)
    assert [row[0] for row in rows] == [row.trigger for row in lifecycle.rows]
    assert {len(row) for row in rows} == {len(header)}
    assert markdown_cells(text(lifecycle, "markdown")) == [list(row) for row in rows]


def test_diagrams_table_rows_say_all_of_a_row() -> None:
    """The cells name sources, target, guards, deadline, activity, way out and reason."""
    header, rows = table_rows(SESSION_LIFECYCLE)
    assert header[:4] == ("trigger", "from", "to", "guards")
    by_trigger = {row[0]: row for row in rows}
    assert by_trigger["expire"][1:] == (
        "active, idle",
        "terminating",
        "no active task; deadline passed",
        "at last_activity_at + timeout_minutes",
        "",
        "",
        "nobody came back",
    )
    assert by_trigger["stop_timeout"][4] == "at status_since + stop grace (10 s)"
    assert by_trigger["resume"][5:7] == ("yes", "")
    assert by_trigger["terminate"][5:7] == ("", "yes")
    assert by_trigger["update"][1:3] == ("every status but terminated", "–")


def test_diagrams_live_names_every_final_status() -> None:
    """`LIVE` is told by what it leaves out, derived from the lifecycle."""
    more = SESSION_LIFECYCLE.extend(
        statuses=("lost",), final=("lost",), rows=(Row("lose", "active", "lost"),)
    )
    (update,) = (row for row in table_rows(more)[1] if row[0] == "update")
    assert update[1] == "every status but terminated and lost"


@LIFECYCLES
def test_diagrams_mark_where_a_life_begins_and_ends(lifecycle: Lifecycle) -> None:
    """The initial status has the one arrow from the dot, the final ones alone a double border."""
    mermaid = text(lifecycle, "mermaid")
    names = mermaid_names(mermaid)
    begins = re.findall(r"\[\*\] --> (s\w+)", mermaid)
    ends = re.findall(r"(s\w+) --> \[\*\]", mermaid)
    assert [names[key] for key in begins] == [lifecycle.initial]
    assert tuple(names[key] for key in ends) == lifecycle.final
    graph = pygraphviz.AGraph(string=text(lifecycle, "dot"))
    assert graph.successors("begin") == begins
    assert [node for node in graph.nodes() if node.attr["peripheries"] == "2"] == ends


def test_diagrams_list_what_stays_inside_its_status() -> None:
    """A row that leaves the status as it is stands in the box of each of its sources."""
    graph = pygraphviz.AGraph(string=text(SESSION_LIFECYCLE, "dot"))
    mermaid = text(SESSION_LIFECYCLE, "mermaid")
    for row, source in SESSION_LIFECYCLE.moves():
        inside = f">{row.trigger}&#160;" in graph.get_node(f"s_{source}").attr["label"]
        assert inside == (row.target is None)
        described = re.search(rf"^    s_{source} : {row.trigger}( |$)", mermaid, re.MULTILINE)
        assert (described is not None) == (row.target is None)


def test_diagrams_show_names_as_they_are() -> None:
    """Whatever a name means to a format, the drawing shows the name; statuses stay apart."""
    shown = svg_texts(text(ODD, "svg"))
    assert {*ODD_WORDS}.issubset(shown)
    assert f"lifecycle: {ODD.name}" in shown
    assert any(words.endswith(f"and {' and '.join(SEEN[1:])}") for words in shown)
    labels = re.findall(r" : (.*)$", text(ODD, "mermaid"), re.MULTILINE)
    for label in labels:
        bare = re.sub(r"#\d+;|<br/>", "", label)
        assert not re.search(r"[\\`*<>{}:;\"#$~%|.]", bare)


@pytest.mark.parametrize("name", ["svg", "dot", "mermaid", "markdown"])
def test_diagrams_hold_no_control_characters(name: str) -> None:
    """No character of a name breaks a line, turns the direction of text or can't be encoded."""
    shown = text(ODD, name)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ud800\ufffe]", shown)
    shown.encode()


def test_diagrams_follow_the_lifecycle_alone(repository: Path) -> None:
    """Text is the same, byte for byte, whatever the seed of Python's hashes."""
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import test_diagrams as t\n"
        "for lifecycle in (t.SESSION_LIFECYCLE, t.SANDBOX, t.ODD):\n"
        "    for form in t.TEXTS:\n"
        "        sys.stdout.buffer.write(t.text(lifecycle, form).encode())\n"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=repository,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
    assert first.startswith(text(SESSION_LIFECYCLE, TEXTS[0]).encode())


# --- counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "moves", "none", "here"),
    [
        ("mermaid", "go_idle", "0 ×<br/>■ abort", "s_idle : 1,234 here"),
        (
            "markdown",
            "| active | idle | 2,312 |",
            "| active | terminating | 0 |",
            "| idle | 1,234 |",
        ),
        ("svg", "2,312 ×", "0 ×", "1,234 here"),
        ("dot", ">2,312 ×&#160;", ">0 ×&#160;", ">1,234 here&#160;"),
    ],
)
def test_diagrams_show_counts(form: str, moves: str, none: str, here: str) -> None:
    """Traffic stands at its edge and sessions in their status; without counts there are none."""
    counts = {("active", "idle"): 2312, ("idle", "active"): 7}
    counted = text(SESSION_LIFECYCLE, form, counts, {"idle": 1234})
    bare = text(SESSION_LIFECYCLE, form)
    for words in (moves, none, here):
        assert words in counted
    assert "2,312" in counted
    for words in ("2,312", none, here):
        assert words not in bare


def test_diagrams_draw_busy_edges_wider() -> None:
    """The width of a line grows with its traffic."""
    graph = pygraphviz.AGraph(
        string=text(
            SESSION_LIFECYCLE, "dot", counts={("active", "idle"): 2000, ("idle", "active"): 20}
        )
    )
    widths = [
        float(graph.get_edge(source, card).attr["penwidth"])
        for source, card in (
            ("s_initializing", "s_initializing to s_active"),
            ("s_active", "s_idle to s_active"),
            ("s_active", "s_active to s_idle"),
        )
    ]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(
    ("counts", "status_counts", "named"),
    [
        ({("active", "terminated"): 1}, None, "edge ('active', 'terminated')"),
        (None, {"asleep": 1}, "status 'asleep'"),
    ],
)
def test_diagrams_refuse_counts_of_what_is_not_there(
    counts: Mapping[tuple[str, str], int] | None,
    status_counts: Mapping[str, int] | None,
    named: str,
) -> None:
    """A count that could be shown nowhere is an error that names it, not left out."""
    with pytest.raises(ValueError, match=re.escape(named)):
        text(SESSION_LIFECYCLE, "dot", counts, status_counts)


# --- formats -----------------------------------------------------------------------------------


def test_diagrams_unknown_formats_are_named() -> None:
    """Asked for a format that there is not, the error lists those that there are."""
    with pytest.raises(ValueError, match="'gif'; formats are mermaid, dot, svg, png, markdown"):
        render(SESSION_LIFECYCLE, "gif")


def test_diagrams_formats_follow_the_ending() -> None:
    """A file's ending names its format, in any case; an unknown one is an error with the known."""
    names = {
        name: format_of(Path("some.where") / f"x{known.ending}") for name, known in FORMATS.items()
    }
    assert names == {name: name for name in FORMATS}
    assert format_of("REPORT.SVG") == "svg"
    with pytest.raises(ValueError, match=r"'\.gif'; endings are \.mmd, \.dot, \.svg, \.png, \.md"):
        format_of("x.gif")
    with pytest.raises(ValueError, match="''"):
        format_of("mmd")


@pytest.mark.parametrize("form", DRAWINGS)
def test_diagrams_name_the_extra_that_draws(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Graphviz, drawing fails with the extra to install; text needs none."""
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(DrawingError, match=re.escape("session_fsm[diagrams]")):
        render(SESSION_LIFECYCLE, form)
    assert all(text(SESSION_LIFECYCLE, form) for form in TEXTS)


def test_diagrams_tell_what_graphviz_said() -> None:
    """What Graphviz can't draw is an error with its words."""
    with pytest.raises(DrawingError, match=r"Graphviz could not draw svg: .*Invalid Input"):
        draw("digraph { -> }", "svg")


def test_diagrams_are_drawn_alike_on_many_threads() -> None:
    """Threads that draw at once get what one alone gets."""
    alone = render(SESSION_LIFECYCLE, "svg")
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: render(SESSION_LIFECYCLE, "svg"), range(4)))
    assert drawn == [alone] * 4


@pytest.mark.parametrize("form", DRAWINGS)
def test_diagrams_drawings_carry_the_digest_of_their_dot(form: str) -> None:
    """A drawing tells which DOT it was made from."""
    drawn = render(SANDBOX, form)
    data = drawn if isinstance(drawn, bytes) else drawn.encode()
    source_of = FORMATS[form].source_of
    assert source_of is not None
    assert source_of(data) == digest(text(SANDBOX, "dot"))
    assert STAMP.encode() in data


# --- files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the lifecycle of sessions by name, made once."""
    directory = tmp_path_factory.mktemp("drawn")
    made = write(SESSION_LIFECYCLE, directory)
    assert [path.name for path in made] == [f"session{known.ending}" for known in FORMATS.values()]
    return contents(directory)


@pytest.fixture
def directory(tmp_path: Path, drawn: dict[str, bytes]) -> Path:
    """A directory with all files fresh."""
    for name, data in drawn.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    """The files in a directory by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def changes(data: bytes, name: str) -> Iterator[tuple[str, bytes | None]]:
    """Each way in which a file can be stale; None: it is missing."""
    yield "missing", None
    yield "empty", b""
    yield "cut off", data[:-20]
    if name.endswith((".svg", ".png")):
        yield "of another DOT", made_from_another(name)
        yield "unstamped", data.replace(STAMP.encode(), b"?" * len(STAMP))
    else:
        yield "a byte changed", data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]
        yield "a byte more", data + b"\n"
        yield "other line ends", data.replace(b"\n", b"\r\n")


def made_from_another(name: str) -> bytes:
    """The drawing of a table that lacks a row of ours."""
    other = render(SESSION_LIFECYCLE.without("touch"), format_of(name))
    return other if isinstance(other, bytes) else other.encode()


def test_diagrams_fresh_files_are_left_alone(directory: Path) -> None:
    """Where all holds, nothing is stale and nothing is written again."""
    for path in directory.iterdir():
        os.utime(path, ns=(1, 1))
    assert stale(SESSION_LIFECYCLE, directory) == ()
    assert write(SESSION_LIFECYCLE, directory) == ()
    assert main(["--check", "--directory", str(directory)]) == 0
    assert main(["--directory", str(directory)]) == 0
    assert {path.stat().st_mtime_ns for path in directory.iterdir()} == {1}


@pytest.mark.parametrize("name", [f"session{known.ending}" for known in FORMATS.values()])
def test_diagrams_stale_files_are_found_and_made_anew(
    name: str, directory: Path, drawn: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of staleness of every file is found and named; only that file is made anew."""
    path = directory / name
    for kind, data in changes(drawn[name], name):
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        before = contents(directory)
        assert main(["--check", "--directory", str(directory)]) == 1, kind
        assert capsys.readouterr().err == f"{path} is stale or missing: run `make diagrams`\n"
        assert contents(directory) == before
        assert stale(SESSION_LIFECYCLE, directory) == (path,)
        assert write(SESSION_LIFECYCLE, directory) == (path,)
        assert contents(directory) == drawn, kind


def test_diagrams_drawings_may_differ_while_their_dot_holds(directory: Path) -> None:
    """A drawing made with other fonts is no drift: its DOT decides, not its bytes."""
    path = directory / "session.svg"
    path.write_bytes(path.read_bytes().replace(b"DejaVu Sans", b"Other Sans"))
    before = contents(directory)
    assert write(SESSION_LIFECYCLE, directory) == ()
    assert contents(directory) == before


def test_diagrams_missing_directory_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check of what is not there names every file and makes none; without it all are made."""
    directory = tmp_path / "a" / "b"
    assert main(["--check", "--directory", str(directory)]) == 1
    assert capsys.readouterr().err.count("is stale or missing") == len(FORMATS)
    assert not directory.exists()
    assert main(["--directory", str(directory)]) == 0
    assert capsys.readouterr().out.count("made ") == len(FORMATS)
    assert stale(SESSION_LIFECYCLE, directory) == ()


def test_diagrams_command_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be written ends the command with one line, not with a traceback."""
    (tmp_path / "file").touch()
    assert main(["--directory", str(tmp_path / "file")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_diagrams_file_names_stay_in_the_directory(tmp_path: Path) -> None:
    """A lifecycle whose name is a path gets no files outside the directory."""
    for name in ("../session", "a/b", "/session"):
        with pytest.raises(ValueError, match="can't be the name of a file"):
            write(SESSION_LIFECYCLE.extend(name=name), tmp_path / "inside")
    assert list(tmp_path.rglob("*")) == []


def test_diagrams_of_the_repository_are_fresh(repository: Path) -> None:
    """The files in the repository show the table as it is, by the command that the checks run."""
    run = subprocess.run(
        [sys.executable, "-m", "session_fsm.diagrams", "--check"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
