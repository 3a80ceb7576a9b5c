"""A sample of `make fuzz`, what it found before, and what it finds when it should."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import fuzz
import fuzz_targets
import pytest
from fuzz import Finding, batch, examine, limits
from fuzz_targets import TARGETS, Target, take_log, take_text
from processes import ROOT

from session_fsm import loads

INPUTS = 4_000


def test_fuzz_sample_has_no_findings(tmp_path: Path) -> None:
    """Each reader refuses some of the inputs and takes some, and does nothing else."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "tests/fuzz.py", f"--inputs={INPUTS}", "--seed=7",
         "--processes=1", f"--output={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert list(tmp_path.iterdir()) == []
    counts = {
        words: int(number.replace(",", ""))
        for number, words in re.findall(r"^ *([\d,]+)  (.*?)$", run.stdout, re.MULTILINE)
    }
    assert counts.pop("findings, seed 7") == 0
    total = next(words for words in counts if words.startswith("inputs in"))
    assert counts.pop(total) == sum(counts.values()) == INPUTS
    for target in TARGETS:
        of_target = [words for words in counts if words.startswith(f"{target.name}: ")]
        assert any(word in " ".join(of_target) for word in ("accepted", "rows, no faults"))
        assert len(of_target) >= 3


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "_"))
def test_fuzz_inputs_hang_on_seed_and_number(target: Target) -> None:
    """A seed and a number tell an input, whatever was drawn before."""
    first = [target.make(Random(f"1/{number}")) for number in range(20)]
    again = [target.make(Random(f"1/{number}")) for number in reversed(range(20))]
    assert first == again[::-1]
    assert sum(one != first[0] for one in first) > 15


# --- what it must find ---------------------------------------------------------------------------


def _forgets_a_key(data: bytes) -> str:
    """A reader that looks for a key that one shape of line lacks."""
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return "refused"
        if isinstance(value, dict) and value.get("type") == "user":
            value["message"]
    return "accepted"


def _compares_all(data: bytes) -> str:
    """A reader that takes quadratic time, which shows on long inputs alone."""
    return str(sum(one == other for one in data for other in data))


def _copies_all(data: bytes | str) -> str:
    """A reader that fills the memory where a text has many levels."""
    return str(len(bytearray(2**30)) if "[[[[" in str(data) else 0)


def _loses_a_change(data: bytes | str) -> str:
    """A reader whose states come back as other ones."""
    answer = take_text(data)
    assert answer != "accepted" or not loads(data).active_tasks, "another state came back"
    return answer


PLANTED = [
    (Target("key", TARGETS[3].make, _forgets_a_key), 400, "KeyError: 'message'"),
    (Target("time", TARGETS[2].make, _compares_all), 150, "TooLongError"),
    (Target("memory", TARGETS[0].make, _copies_all), 600, "MemoryError"),
    (Target("state", TARGETS[0].make, _loses_a_change), 400, "another state came back"),
]


@pytest.mark.parametrize(
    ("target", "inputs", "problem"), PLANTED, ids=[target.name for target, _, _ in PLANTED]
)
def test_fuzz_finds_what_is_planted(
    monkeypatch: pytest.MonkeyPatch, target: Target, inputs: int, problem: str
) -> None:
    """A missing key, quadratic time, memory without bound and a changed state are found."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    monkeypatch.setattr(fuzz, "TARGETS", (target,))
    monkeypatch.setattr(fuzz_targets, "TARGETS", (target,))
    outcomes, findings = batch(11, 0, inputs)
    assert findings
    assert outcomes[target.name, "FINDING"] == len(findings) < inputs
    assert problem in findings[0].problem


def test_fuzz_saves_what_it_finds(tmp_path: Path) -> None:
    """A finding is kept with its input, and with the command that gives it again."""
    path = Finding("event lines", 5, 77, "KeyError:\n'a'", b"\xff{}").save(tmp_path)
    assert path.with_suffix(".input").read_bytes() == b"\xff{}"
    told = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert told.startswith("python tests/fuzz.py --seed 5 --first 77 --inputs 1\n")
    assert "KeyError" in told
    Finding("deserialize", 5, 78, "KeyError", {"a": 10**5000}).save(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("*.input"))] == ["event-lines-5-77.input"]


def test_fuzz_limits_end_with_their_block() -> None:
    """After a run, the process has its memory and its signals again."""
    with limits():
        greedy = Target("memory", lambda _: b"", lambda _: str(len(bytearray(2**30))))
        assert isinstance(examine(greedy, 1, 1), Finding)
    assert len(bytearray(2**30)) == 2**30


# --- what it found before ------------------------------------------------------------------------


def transcript(text: str) -> bytes:
    """Return a transcript of one typed text."""
    line = {"type": "user", "sessionId": "s", "timestamp": "2026-03-02T09:00:00Z"}
    return json.dumps(line | {"message": {"content": text}}).encode()


FOUND: list[tuple[str, Any, Any]] = [
    ("blanks in a command", take_log, transcript("<command-name>" + " " * 200_000 + "x")),
    ("blanks and a slash", take_log, transcript("<command-name>" + " /" * 100_000)),
    ("millions of empty lines", take_log, gzip.compress(b"\n" * 5_000_000 + transcript("x"), 1)),
    ("commands without end", take_log, transcript("<command-name>" * 15_000)),
]


@pytest.mark.parametrize(
    ("take", "data"),
    [(take, data) for _, take, data in FOUND],
    ids=[name.replace(" ", "_") for name, _, _ in FOUND],
)
def test_fuzz_found_these_before(take: Any, data: Any) -> None:
    """What was found is read in time, and to an answer."""
    with limits():
        outcome = examine(Target("found", lambda _: data, take), 0, 0)
    assert isinstance(outcome, str), outcome.problem
