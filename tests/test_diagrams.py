"""The drawings of a lifecycle: all of its table in each format, and files that tell when stale."""

import html
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pygraphviz
import pytest
from drawing import (
    LIFECYCLES,
    ODD,
    ODD_WORDS,
    SANDBOX,
    SEEN,
    dot_arrows,
    from_markdown,
    from_mermaid,
    from_plantuml,
    markdown_cells,
    mermaid_names,
    plain,
    svg_texts,
    text,
)

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
from session_fsm.diagrams.graphviz import STAMP, draw
from session_fsm.diagrams.picture import picture_of
from session_fsm.lifecycle import Lifecycle, Row

TEXTS = ("mermaid", "dot", "markdown", "plantuml", "text", "ascii", "scxml")
"""Formats of which every byte follows from the lifecycle."""

DRAWINGS = ("svg", "png")
PAGES = ("html",)

READERS: Mapping[str, Callable[[str], str]] = {
    "mermaid": from_mermaid,
    "dot": lambda dot: html.unescape(dot).replace("\u2060", ""),
    "svg": lambda svg: "\n".join(svg_texts(svg)),
    "markdown": from_markdown,
    "plantuml": from_plantuml,
    "html": html.unescape,
}
"""What makes of a format the texts that it shows; others are read elsewhere."""


# --- what is shown -----------------------------------------------------------------------------


@LIFECYCLES
@pytest.mark.parametrize("form", READERS)
def test_diagrams_show_every_row(lifecycle: Lifecycle, form: str) -> None:
    """Each row stands in each format with its trigger, its guards and its deadline."""
    shown = READERS[form](text(lifecycle, form))
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
        statuses=("lost",), final=("lost",), rows=(Row("lose", "idle", "lost"),)
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
        clock = "◷ " if row.deadline else ""
        inside = f">{clock}{row.trigger}&#160;" in graph.get_node(f"s_{source}").attr["label"]
        assert inside == (row.target is None)
        described = re.search(
            rf"^    s_{source} : {clock}{row.trigger}( |$)", mermaid, re.MULTILINE
        )
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


@pytest.mark.parametrize("name", [*TEXTS, "svg", "html"])
def test_diagrams_hold_no_control_characters(name: str) -> None:
    """No character of a name breaks a line, turns the direction of text or can't be encoded."""
    shown = text(ODD, name)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ud800\ufffe]", shown)
    shown.encode()


def test_diagrams_follow_the_lifecycle_alone(repository: Path) -> None:
    """Text is the same, byte for byte, whatever the seed of Python's hashes."""
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from drawing import ODD, SANDBOX, SESSION_LIFECYCLE, WAYS, text\n"
        "for form in sys.argv[1:]:\n"
        "    for lifecycle in (SESSION_LIFECYCLE, SANDBOX, ODD):\n"
        "        sys.stdout.buffer.write(text(lifecycle, form).encode())\n"
        "    for shown in WAYS.values():\n"
        "        sys.stdout.buffer.write(text(SESSION_LIFECYCLE, form, **shown).encode())\n"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script, *TEXTS, *PAGES],
            cwd=repository,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
    assert first.startswith(text(SESSION_LIFECYCLE, TEXTS[0]).encode())


# --- formats -----------------------------------------------------------------------------------


def test_diagrams_unknown_formats_are_named() -> None:
    """Asked for a format that there is not, the error lists those that there are."""
    named = "'gif'; formats are mermaid, dot, svg, png, markdown, plantuml, html, text, ascii"
    with pytest.raises(ValueError, match=named):
        render(SESSION_LIFECYCLE, "gif")


def test_diagrams_formats_follow_the_ending() -> None:
    """A file's ending names its format, in any case; an unknown one is an error with the known."""
    names = {
        name: format_of(Path("some.where") / f"x{known.ending}") for name, known in FORMATS.items()
    }
    assert names == {name: name for name in FORMATS}
    assert format_of("REPORT.SVG") == "svg"
    with pytest.raises(ValueError, match=r"'\.gif'; endings are \.mmd, \.dot, \.svg, .*\.html"):
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


@pytest.mark.parametrize("form", [*DRAWINGS, *PAGES])
def test_diagrams_drawings_carry_the_digest_of_their_source(form: str) -> None:
    """A drawing tells what it was made from."""
    drawn = render(SANDBOX, form)
    data = drawn if isinstance(drawn, bytes) else drawn.encode()
    source, source_of = FORMATS[form].source, FORMATS[form].source_of
    assert source is not None
    assert source_of is not None
    assert source_of(data) == source(picture_of(SANDBOX))
    assert source_of(data) != source(picture_of(ODD))
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
