"""Nothing that was acknowledged is lost to a kill, and nothing is half there; see `crash`."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from crash_actions import ACTIONS
from operations import Chooser
from processes import Program

CRASH = Path(__file__).with_name("crash.py")
PARTS = ("nothing", "a part", "all")
"""How much of an action may be there after a kill."""
LONGEST = "purge of two batches"


def crash(*options: object) -> str:
    """Run the program, which must find no fault, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", CRASH, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("faults: none\n")
    return done.stdout


def number_before(words: str, text: str) -> int:
    """Return the number that stands before some words."""
    found = re.search(rf"([\d,]+) {words}", text)
    assert found is not None, text
    return int(found[1].replace(",", ""))


# --- kills -----------------------------------------------------------------------------------


def test_crash_of_a_writer_loses_nothing_that_was_acknowledged() -> None:
    """Writers are killed five times on one file: all that they acknowledged is there, and whole."""
    said = crash("--only", "writing", "--rounds", 5, "--seed", 4)
    assert number_before("kills", said) == 5
    assert number_before("acknowledged changes", said) > 50
    assert number_before("told events", said) > number_before("acknowledged changes", said)


@pytest.mark.parametrize("name", [action.name for action in ACTIONS])
def test_crash_in_the_middle_of_an_action_leaves_a_store_that_goes_on(name: str) -> None:
    """Killed before its first step, its last and some between, an action can be done again."""
    steps, moments = (2, 1) if name == LONGEST else (6, 2)
    said = crash("--only", name, "--steps", steps, "--moments", moments)
    kills = number_before("kills", said)
    assert kills == steps + moments + number_before("in a write", said)
    nothing, part, whole = (int(re.findall(rf"{each} (\d+)", said)[0]) for each in PARTS)
    assert nothing + part + whole == kills
    assert nothing


def test_crash_steps_find_an_action_that_is_not_one_transaction() -> None:
    """Two commits where one was promised, and a change behind the history's back, are found."""
    program = """
        import sqlite3
        import sys
        import tempfile
        from pathlib import Path

        sys.path.insert(0, "tests")
        import attrs
        from crash_actions import ACTIONS, CLOCK
        from crash_steps import FILE, kill_everywhere
        from session_fsm import SessionManager

        def two_commits(url):
            with SessionManager(url, clock=CLOCK) as manager:
                for session_id in "de":
                    if manager.find(session_id) is None:
                        manager.create(session_id)

        def behind_its_back(url):
            connection = sqlite3.connect(url.removeprefix("sqlite:///"))
            event = "DELETE FROM session_event WHERE session_id = 'a' AND revision = 2"
            connection.execute("DROP TRIGGER IF EXISTS session_event_stays")
            connection.commit()
            connection.execute(event)
            connection.commit()
            connection.close()

        [batch] = [action for action in ACTIONS if action.name == "batch"]
        for act in (two_commits, behind_its_back):
            action = attrs.evolve(batch, act=act)
            with tempfile.TemporaryDirectory() as name:
                killed = kill_everywhere(action, Path(name), most_steps=40, moments=0, seed=1)
            print(any("a part of it is there" in fault for fault in killed.faults))
            print(any("unbroken: " in fault for fault in killed.faults))
    """
    with Program(program) as said:
        assert said.rest() == ["True", "False", "True", "True"]


def test_crash_steps_find_a_write_that_is_torn_and_not_undone() -> None:
    """Where nothing is kept to undo a transaction with, a write that is torn breaks the file."""
    program = """
        import sqlite3
        import sys
        import tempfile
        from pathlib import Path

        sys.path.insert(0, "tests")
        import attrs
        from crash_actions import ACTIONS
        from crash_steps import kill_everywhere

        def without_a_journal(url):
            connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("BEGIN")
            for number in range(200):
                mark = (f"mark-{number}", b"x" * 900)
                connection.execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", mark)
            connection.execute("COMMIT")
            connection.close()

        [batch] = [action for action in ACTIONS if action.name == "batch"]
        action = attrs.evolve(batch, act=without_a_journal)
        with tempfile.TemporaryDirectory() as name:
            killed = kill_everywhere(action, Path(name), most_steps=2, moments=8, seed=1)
        print(any("in the write past" in fault and "malformed" in fault for fault in killed.faults))
    """
    with Program(program) as said:
        assert said.rest() == ["True"]


def test_crash_choices_are_those_of_the_seed() -> None:
    """The same seed makes the same choices, and another one makes others."""

    def chosen(seed: int) -> list[object]:
        chooser = Chooser("1", random.Random(seed), ["a", "b"], workers=True)
        return [chooser.next() for _ in range(50)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
