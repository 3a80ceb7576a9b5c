"""`diagram`, `table` and `schema`, which need no store."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from commanding import call, environment, plain, program, shown, terminal

from session_fsm import SESSION_LIFECYCLE, json_schema
from session_fsm.diagrams import FORMATS, render, table_rows

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("format", ["mermaid", "dot", "markdown"])
def test_cli_diagram_prints_text(format: str) -> None:
    """A diagram that is text comes out as it is rendered; Mermaid is what comes unasked."""
    answer = call("diagram", "--format", format)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == render(SESSION_LIFECYCLE, format)
    if format == "mermaid":
        assert call("diagram").out == answer.out


@pytest.mark.parametrize("format", list(FORMATS))
def test_cli_diagram_is_written_by_the_ending_of_the_file(tmp_path: Path, format: str) -> None:
    """Each format is chosen by the ending of the file, and written there; a file is replaced."""
    path = tmp_path / f"life{FORMATS[format].ending}"
    path.write_bytes(b"what was there before")
    answer = call("diagram", "--output", str(path))
    assert (answer.code, answer.out) == (0, f"{path} written\n")
    drawn = render(SESSION_LIFECYCLE, format)
    assert path.read_bytes() == (drawn if isinstance(drawn, bytes) else drawn.encode())


def test_cli_diagram_format_wins_over_the_ending(tmp_path: Path) -> None:
    """With `--format`, the file may be called anything."""
    path = tmp_path / "life.txt"
    assert call("diagram", "--format", "dot", "-o", str(path)).code == 0
    assert path.read_text(encoding="utf-8") == render(SESSION_LIFECYCLE, "dot")
    answer = call("diagram", "-o", str(tmp_path / "other.txt"))
    assert answer.code == 2
    assert answer.err.startswith("session-fsm: --output: no format of diagrams ends in '.txt'")
    assert not (tmp_path / "other.txt").exists()


def test_cli_diagram_png_goes_to_a_pipe() -> None:
    """A pipe gets the bytes of a PNG and nothing else."""
    run = subprocess.run(
        program("diagram", "--format", "png"),
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert run.stdout.startswith(PNG)
    assert run.stdout.endswith(b"IEND\xaeB`\x82")
    assert run.stderr == b""


def test_cli_diagram_png_is_kept_off_a_terminal() -> None:
    """On a terminal a PNG is refused as wrong usage, and not a byte of it is shown."""
    with terminal("diagram", "--format", "png") as screen:
        assert screen.end() == 2
    assert "PNG" not in screen.seen
    assert "give --output FILE" in screen.seen


def test_cli_diagram_json(tmp_path: Path) -> None:
    """Machines get the text, the bytes in base64, or where the file is."""
    text = call("diagram", "--format", "dot", "--json").document
    drawn = render(SESSION_LIFECYCLE, "dot")
    assert text == {"format": "dot", "encoding": "text", "content": drawn}
    picture = call("diagram", "--format", "png", "--json").document
    assert (picture["format"], picture["encoding"]) == ("png", "base64")
    assert base64.b64decode(picture["content"]).startswith(PNG)
    path = str(tmp_path / "life.mmd")
    written = call("diagram", "-o", path, "--json").document
    assert written == {"format": "mermaid", "output": path}


@pytest.mark.parametrize("words", [("--format", "gif"), ("--format", "")])
def test_cli_diagram_unknown_format_is_wrong_usage(words: tuple[str, ...]) -> None:
    """A format that there is not is refused, and those that there are, are named."""
    answer = call("diagram", *words)
    assert (answer.code, answer.out) == (2, "")
    assert all(name in answer.err for name in FORMATS)


def test_cli_diagram_that_can_not_be_written_is_a_failure(tmp_path: Path) -> None:
    """A file that can't be written is named in one line, with exit code 1."""
    path = tmp_path / "missing" / "life.mmd"
    answer = call("diagram", "-o", str(path))
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"session-fsm: {path}: No such file or directory\n"


def test_cli_table_has_every_row() -> None:
    """Every cell of the table is there, a row in a line, in the table's order."""
    answer = call("table")
    header, rows = table_rows(SESSION_LIFECYCLE)
    assert (answer.code, answer.err) == (0, "")
    assert len(answer.lines) == len(rows) + 1
    for line, cells in zip(answer.lines, (header, *rows), strict=True):
        assert line.split() == " ".join(cells).split()


def test_cli_table_breaks_no_word_on_a_narrow_terminal() -> None:
    """Where the terminal is narrow, cells take several lines, and triggers and words stay whole."""
    screen = plain(shown("table", columns=120).out)
    assert max(map(len, screen.splitlines())) <= 120
    header, rows = table_rows(SESSION_LIFECYCLE)
    words = {word for row in (header, *rows) for cell in row for word in cell.split()}
    assert words == set(screen.split())


def test_cli_table_as_markdown_and_json() -> None:
    """Markdown is that of the diagrams; machines get every row with its names."""
    assert call("table", "--format", "markdown").out == render(SESSION_LIFECYCLE, "markdown")
    found = call("table", "--json").document
    assert found["lifecycle"] == "session"
    assert found["statuses"] == list(SESSION_LIFECYCLE.statuses)
    assert [tuple(edge) for edge in found["edges"]] == list(SESSION_LIFECYCLE.edges)
    assert [row["trigger"] for row in found["rows"]] == [
        row.trigger for row in SESSION_LIFECYCLE.rows
    ]
    assert found["rows"][6] == {
        "trigger": "expire",
        "from": ["active", "idle"],
        "to": "terminating",
        "guards": ["no active task", "deadline passed"],
        "fires_at": "last_activity_at + timeout_minutes",
        "activity": False,
        "ending": False,
        "required": [],
        "optional": [],
        "why": "nobody came back",
    }
    assert call("table", "--format", "html").code == 2


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_schema_is_the_schema(form: tuple[str, ...]) -> None:
    """The schema is printed as the library has it."""
    answer = call("schema", *form)
    assert (answer.code, answer.err) == (0, "")
    assert answer.document == json_schema()
