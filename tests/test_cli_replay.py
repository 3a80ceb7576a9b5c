"""`replay`: the report for people and machines, faults with their places, and going on."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from commanding import MALICE, MALICE_SHOWN, call, started, url_of

from session_fsm import SESSION_LIFECYCLE
from session_fsm.diagrams import FORMATS, render
from session_fsm.replay import Report, read_log, replay
from session_fsm.stores import MemoryStore

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample_trace.jsonl.gz"


@pytest.fixture(scope="module")
def report() -> Report:
    """What the replay of the sample must report, by the library."""
    return replay(read_log([SAMPLE]), MemoryStore(SESSION_LIFECYCLE))


def told(document: dict[str, Any]) -> dict[str, Any]:
    """A report for machines without what differs from run to run, or is no part of it."""
    return {
        name: value
        for name, value in document.items()
        if name not in ("rows_per_second", "store", "faults")
    }


def same(report: Report) -> dict[str, Any]:
    """A report of the library as it must be told to machines."""
    return told(json.loads(json.dumps(report.as_dict())))


def rows(path: Path, *seconds: float, session: str = "a") -> Path:
    """A log with a response at each of some seconds."""
    lines = (
        json.dumps({"ts": 1767615451 + each, "session": session, "event": "response"})
        for each in seconds
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# --- the report ------------------------------------------------------------------------------


def test_cli_replay_json_is_the_report(report: Report) -> None:
    """Machines get the report of the library, where it went, and the faults."""
    answer = call("replay", str(SAMPLE), "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.document
    assert told(found) == same(report)
    assert found["rows_per_second"] > 0
    assert (found["store"], found["faults"]) == ("memory://", [])


def test_cli_replay_report_for_people_has_every_figure(report: Report) -> None:
    """Every figure of the report stands in a line with its name."""
    answer = call("replay", str(SAMPLE))
    assert (answer.code, answer.err) == (0, "")
    lines = {" ".join(line.split()) for line in answer.lines}
    rate = re.search(r"rows +2,706, [0-9,]+ a second", answer.out)
    assert rate is not None
    assert {
        "store memory://",
        f"requests {report.requests}",
        f"sessions {report.sessions}, {report.successors} successors among them",
        f"most open at once {report.peak_open}",
        f"late rows {report.late_rows}",
        f"trailing rows {report.trailing_rows}",
        "verified yes",
        "refusals none",
    } <= lines
    ends = [re.sub(r"^(ended|moves|time in|findings) ", "", line) for line in lines]
    for counts in (report.ended, report.findings):
        assert {f"{name} {number:,}" for name, number in counts.items()} <= set(ends)
    for edge, number in report.edges.items():
        assert f"{edge.replace('->', ' → ')} {number:,}" in ends
    for status in report.seconds_in_status:
        assert any(line.startswith(f"{status} ") and line[-1] in "dhns" for line in ends)


def test_cli_replay_takes_the_settings(tmp_path: Path) -> None:
    """The time-out and the quiet gap are those that were asked for."""
    log = rows(tmp_path / "a.jsonl", 0, 90, 90 + 11 * 60)
    usual = call("replay", str(log), "--json").document
    assert (usual["sessions"], usual["edges"]["active->idle"]) == (1, 1)
    short = call("replay", str(log), "--timeout-minutes", "10", "--json").document
    assert (short["sessions"], short["findings"]) == (2, {"begin_after_expiry": 1})
    quick = call("replay", str(log), "--quiet-gap-seconds", "60", "--json").document
    assert quick["edges"]["active->idle"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--timeout-minutes", "0"),
        ("--timeout-minutes", "1.5"),
        ("--timeout-minutes", "999999999999"),
        ("--quiet-gap-seconds", "-1"),
        ("--quiet-gap-seconds", "nan"),
        ("--quiet-gap-seconds", "inf"),
        ("--quiet-gap-seconds", "1e300"),
        ("--diagram", "report.pdf"),
        ("--store", "mysql://me:hunter2@host/db"),
        ("--store", "sqlite://relative.db"),
        ("--store", "sqlite:///"),
        ("--store", "sqlite:///:memory:"),
        ("--frobnicate",),
    ],
)
def test_cli_replay_refuses_wrong_usage_at_once(words: tuple[str, ...]) -> None:
    """A value that is no good is named before anything is read, and no password with it."""
    answer = call("replay", "/dev/zero", *words)
    assert (answer.code, answer.out) == (2, "")
    assert words[0] in answer.err
    assert "hunter2" not in answer.err
    assert answer.err.count("\n") == 1


def test_cli_replay_needs_a_path() -> None:
    """Without a path there is nothing to be replayed: wrong usage."""
    assert call("replay").code == 2


# --- the store -------------------------------------------------------------------------------


def test_cli_replay_makes_its_store_and_goes_on_in_it(tmp_path: Path, report: Report) -> None:
    """The sessions are in a new store afterwards, and the same replay again reports the same."""
    store = tmp_path / "new.db"
    first, second = (call("replay", str(SAMPLE), "--json", store=store).document for _ in range(2))
    assert told(first) == told(second) == same(report)
    assert first["store"] == second["store"] == url_of(store)
    assert second["rows_per_second"] is None
    assert sum(call("counts", "--json", store=store).document.values()) == report.sessions
    assert call("verify", store=store).code == 0


def test_cli_replay_takes_the_store_of_the_environment(tmp_path: Path) -> None:
    """`SESSION_FSM_STORE` names the store for every command."""
    variables = {"SESSION_FSM_STORE": url_of(tmp_path / "new.db")}
    assert started("replay", str(SAMPLE), "--json", **variables).code == 0
    assert len(started("list", "--json", **variables).document["sessions"]) == 2


def test_cli_replay_of_another_input_is_a_failure(tmp_path: Path) -> None:
    """A store that holds one replay takes no other one, and stays as it is."""
    store = tmp_path / "new.db"
    assert call("replay", str(SAMPLE), store=store).code == 0
    before = call("list", "--all", "--json", store=store).out
    answer = call("replay", str(rows(tmp_path / "a.jsonl", 0)), store=store)
    assert (answer.code, answer.out) == (1, "")
    assert "holds the replay of another input" in answer.err
    assert call("list", "--all", "--json", store=store).out == before


def test_cli_replay_of_nothing_makes_no_store(tmp_path: Path) -> None:
    """Where no row could be read, the store is not made, and not spoilt for the right path."""
    store = tmp_path / "new.db"
    answer = call("replay", str(tmp_path / "misspelt.jsonl"), "--json", store=store)
    assert answer.code == 1
    assert (answer.document["rows"], answer.document["store"]) == (0, "memory://")
    assert list(tmp_path.iterdir()) == []
    assert call("replay", str(SAMPLE), store=store).code == 0


def test_cli_replay_into_what_is_no_store_is_a_failure(tmp_path: Path) -> None:
    """A file that is no store, and a directory that is missing, are named in one line."""
    for path in (SAMPLE, tmp_path / "missing" / "new.db"):
        copy = path
        if path is SAMPLE:
            copy = tmp_path / "copy.db"
            copy.write_bytes(SAMPLE.read_bytes())
        answer = call("replay", str(SAMPLE), store=copy)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.count("\n") == 1
        assert copy.name in answer.err


# --- faults ----------------------------------------------------------------------------------


def test_cli_replay_reports_faults_with_their_places(tmp_path: Path) -> None:
    """The rest is replayed and reported, each fault has its file and line, the exit code is 1."""
    log = rows(tmp_path / "a.jsonl", 0, 1, 2)
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join([lines[0], '{"broken', lines[1], lines[2][:-9]]), encoding="utf-8")
    stray = tmp_path / "notes.jsonl"
    stray.write_text("not a log\n", encoding="utf-8")
    absent = tmp_path / "absent.jsonl"
    words = ("replay", *map(str, (log, stray, absent)))
    answer = call(*words)
    assert answer.code == 1
    assert answer.lines[1].split()[:2] == ["rows", "2,"]
    first, second, third, fourth = answer.err.splitlines()
    assert first.startswith(f"session-fsm: {log}:2: ")
    assert second.startswith(f"session-fsm: {log}:4: truncated last line: ")
    assert third.startswith(f"session-fsm: {stray}: not a log: ")
    assert fourth == f"session-fsm: {absent}: can't be opened: No such file or directory"
    found = call(*words, "--json")
    assert found.code == 1
    assert found.err == answer.err
    assert [(each["file"], each["line"]) for each in found.document["faults"]] == [
        (str(log), 2),
        (str(log), 4),
        (str(stray), None),
        (str(absent), None),
    ]
    for fault, line in zip(found.document["faults"], answer.err.splitlines(), strict=True):
        assert line.endswith(f": {fault['problem']}")


def test_cli_replay_names_twenty_faults_and_counts_the_rest(tmp_path: Path) -> None:
    """People get the first twenty faults and the number of the others, machines get all."""
    log = rows(tmp_path / "a.jsonl", 0)
    with log.open("a", encoding="utf-8") as file:
        file.write("{\n" * 1_025)
    answer = call("replay", str(log), "--json")
    assert len(answer.document["faults"]) == 1_025
    lines = answer.err.splitlines()
    assert len(lines) == 21
    assert lines[19].startswith(f"session-fsm: {log}:21: ")
    assert lines[20] == "session-fsm: and 1,005 more"


def test_cli_replay_of_a_truncated_archive(tmp_path: Path) -> None:
    """What a cut-off gzip file still holds is replayed, and the cut is a fault."""
    log = tmp_path / "cut.jsonl.gz"
    log.write_bytes(SAMPLE.read_bytes()[:-4000])
    answer = call("replay", str(log), "--json")
    assert answer.code == 1
    assert answer.document["rows"] > 1000
    assert "truncated gzip stream" in answer.err


def test_cli_replay_shows_hostile_logs_and_names(tmp_path: Path) -> None:
    """Names of files, ids and contents that a terminal would obey are shown in escapes."""
    name = MALICE.replace("/", "")
    log = rows(tmp_path / f"{name}.jsonl", 0)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"ts": 1767615460, "session": MALICE, "event": MALICE}) + "\n")
        file.write(MALICE.replace("\r\n", "") + "\n")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    answer = call("replay", str(log), str(odd))
    assert answer.code == 1
    for line in (answer.out + answer.err).split("\n"):
        assert line.isprintable()
    assert MALICE_SHOWN.replace("/", "") in answer.err
    found = call("replay", str(log), str(odd), "--json")
    assert found.out.isascii()
    assert found.document["faults"][0]["file"] == str(log)
    assert found.document["faults"][-1]["file"].endswith(r"\udcff.jsonl")


def test_cli_replay_reads_directories_and_plain_files(tmp_path: Path, report: Report) -> None:
    """A directory stands for the logs below it, and an unpacked log reads like a packed one."""
    below = tmp_path / "x" / "y"
    below.mkdir(parents=True)
    (below / "log.jsonl").write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    assert told(call("replay", str(tmp_path), "--json").document) == same(report)


# --- the diagram -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", list(FORMATS))
def test_cli_replay_draws_the_moves(tmp_path: Path, report: Report, format: str) -> None:
    """The diagram has the counts of the edges on it, in the format of its ending."""
    path = tmp_path / f"moves{FORMATS[format].ending}"
    answer = call("replay", str(SAMPLE), "--diagram", str(path))
    assert (answer.code, answer.err) == (0, f"{path} written\n")
    drawn = render(SESSION_LIFECYCLE, format, counts=report.moves())
    assert path.read_bytes() == (drawn if isinstance(drawn, bytes) else drawn.encode())


def test_cli_replay_diagram_that_can_not_be_written_is_a_failure(tmp_path: Path) -> None:
    """A diagram that can't be written is a failure that names the file."""
    path = tmp_path / "missing" / "moves.mmd"
    answer = call("replay", str(SAMPLE), "--diagram", str(path))
    assert answer.code == 1
    assert str(path) in answer.err
