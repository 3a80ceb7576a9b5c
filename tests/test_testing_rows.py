"""Coverage of rows: what is recorded of the steps of any session, and what pytest makes of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from session_fsm import (
    SESSION_LIFECYCLE,
    GuardRejectedError,
    InvalidTransitionError,
    Lifecycle,
    Row,
    SessionMachine,
    SessionManager,
    SessionState,
    step,
    transition,
)
from session_fsm.clock import ManualClock
from session_fsm.diagrams import render
from session_fsm.testing import RowCoverage, RowRecorder
from session_fsm.testing.rows import table

pytest_plugins = ("pytester",)

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NEW = SessionState.new("a", at=AT)
DOOR = Lifecycle(
    statuses=("open", "shut", "bricked up"),
    initial="open",
    rows=[
        Row("shut", "open", "shut"),
        Row("open", "shut", "open"),
        Row("knock", ("open", "shut"), None, required="machine"),
        Row("brick_up", "shut", "bricked up", ending=True),
    ],
    name="door",
)
CLOSED_DOOR = SessionState.new("d", at=AT, status="open")


def only(recorder: RowRecorder) -> RowCoverage:
    """What was recorded of the one lifecycle."""
    [coverage] = recorder.coverage()
    return coverage


def some(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The rows that were counted at all."""
    return {key: number for key, number in counts.items() if number}


# --- recording -------------------------------------------------------------------------------


def test_testing_rows_are_recorded_by_whichever_way() -> None:
    """A row counts, whoever fires it: a step, a transition, a machine, or a manager for them."""
    clock = ManualClock(AT)
    with RowRecorder([SESSION_LIFECYCLE]) as recorder:
        active = step(NEW, "activate", at=AT)
        transition(active, "idle", at=AT)
        SessionMachine(active).touch(at=AT)
        with SessionManager(clock=clock) as manager:
            manager.create("a")
            with manager.task("a", "t"):
                pass
            clock.advance(timedelta(minutes=30))
            manager.sweep()
    coverage = only(recorder)
    assert coverage.lifecycle is SESSION_LIFECYCLE
    assert some(coverage.fired) == {
        ("activate", "initializing"): 2,
        ("go_idle", "active"): 2,
        ("touch", "active"): 1,
        ("begin_task", "active"): 1,
        ("end_task", "active"): 1,
        ("expire", "idle"): 1,
        ("finish", "terminating"): 1,
    }
    assert list(coverage.fired) == [(row.trigger, at) for row, at in SESSION_LIFECYCLE.moves()]
    assert list(coverage.refused) == list(coverage.fired)
    assert coverage.headline == "7 of 23 rows were fired"
    assert coverage.percent == pytest.approx(100 * 7 / 23)
    assert len(coverage.missing) == 16
    assert coverage.missing[0] == ("abort", "initializing")


def test_testing_rows_that_refuse_are_recorded() -> None:
    """A row that its guards refuse was not fired; a move that has no row counts nowhere."""
    machine = SessionMachine(step(NEW, "activate", at=AT))
    machine.begin_task("t", at=AT)
    with RowRecorder([SESSION_LIFECYCLE]) as recorder:
        for _ in range(2):
            with pytest.raises(GuardRejectedError):
                machine.go_idle(at=AT)
        for trigger in ("activate", "explode"):
            with pytest.raises(InvalidTransitionError):
                machine.fire(trigger, at=AT)
        with pytest.raises(TypeError, match="needs the argument"):
            machine.fire("begin_task", at=AT)
    assert some(only(recorder).refused) == {("go_idle", "active"): 2}
    assert some(only(recorder).fired) == {}


def test_testing_rows_of_the_same_lifecycle_with_other_graces_count() -> None:
    """A lifecycle that differs by graces is the same; one with other rows or names is not."""
    slower = SESSION_LIFECYCLE.extend(graces={"start": 99})
    renamed = SESSION_LIFECYCLE.extend(name="other")
    longer = SESSION_LIFECYCLE.extend(rows=[Row("ping", "active", None)])
    with RowRecorder([SESSION_LIFECYCLE, DOOR]) as recorder:
        for lifecycle in (SESSION_LIFECYCLE, slower, renamed, longer):
            step(NEW, "activate", at=AT, lifecycle=lifecycle)
        step(CLOSED_DOOR, "knock", at=AT, lifecycle=DOOR, machine="hammer")
    sessions, doors = recorder.coverage()
    assert some(sessions.fired) == {("activate", "initializing"): 2}
    assert some(doors.fired) == {("knock", "open"): 1}


def test_testing_rows_are_recorded_in_every_thread() -> None:
    """No step of any thread is lost."""

    def work(_: int) -> None:
        for _ in range(200):
            step(NEW, "activate", at=AT)

    with RowRecorder([SESSION_LIFECYCLE]) as recorder, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert only(recorder).fired["activate", "initializing"] == 800


def test_testing_rows_recorder_leaves_the_machine_as_it_was() -> None:
    """While nothing is recorded, `fire` is what it was; recorders may be nested, not entered twice.

    What wraps it looks the same to whoever asks for its signature.
    """
    fire = SessionMachine.fire
    outer, inner = RowRecorder([SESSION_LIFECYCLE]), RowRecorder([SESSION_LIFECYCLE])
    with outer:
        assert SessionMachine.fire is not fire
        assert inspect.signature(SessionMachine.fire) == inspect.signature(fire)
        with inner, pytest.raises(RuntimeError, match="recording already"):
            step(NEW, "abort", at=AT)
            inner.__enter__()
        step(NEW, "activate", at=AT)
    assert SessionMachine.fire is fire
    step(NEW, "start_timeout", at=AT + timedelta(hours=1))
    assert some(only(inner).fired) == {("abort", "initializing"): 1}
    assert len(some(only(outer).fired)) == 2


def test_testing_rows_of_several_processes_are_added() -> None:
    """What a recorder tells is plain, and another one of the same lifecycles adds it."""
    recorders = [RowRecorder([DOOR, SESSION_LIFECYCLE]) for _ in range(2)]
    for recorder in recorders:
        with recorder:
            step(NEW, "activate", at=AT)
            with pytest.raises(GuardRejectedError):
                step(NEW, "start_timeout", at=AT)
            step(CLOSED_DOOR, "shut", at=AT, lifecycle=DOOR)
    here, there = recorders
    told = there.told()
    assert all(type(word) in (str, int) for rows in told.values() for row in rows for word in row)
    here.add(told)
    doors, sessions = here.coverage()
    assert some(doors.fired) == {("shut", "open"): 2}
    assert some(sessions.fired) == {("activate", "initializing"): 2}
    assert some(sessions.refused) == {("start_timeout", "initializing"): 2}


def test_testing_rows_report_tells_of_every_row() -> None:
    """The lines of the report: each row with its edge, how often it was fired and refused."""
    with RowRecorder([DOOR]) as recorder:
        step(step(CLOSED_DOOR, "shut", at=AT, lifecycle=DOOR), "open", at=AT, lifecycle=DOOR)
    assert list(table(only(recorder))) == [
        ("shut      open -> shut        1 fired", True),
        ("open      shut -> open        1 fired", True),
        ("knock     open stays          never fired", False),
        ("knock     shut stays          never fired", False),
        ("brick_up  shut -> bricked up  never fired", False),
    ]


def test_testing_rows_of_what_has_no_rows() -> None:
    """A lifecycle without rows has none that was not fired."""
    stone = Lifecycle(("there",), "there", [], name="stone")
    coverage = only(RowRecorder([stone]))
    assert (coverage.percent, coverage.missing, list(table(coverage))) == (100.0, (), [])


# --- the plugin ------------------------------------------------------------------------------

DOORS = """
from datetime import UTC, datetime
from session_fsm import Lifecycle, Row

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOTHING = 1
DOOR = Lifecycle(
    statuses=("open", "shut", "gone"),
    initial="open",
    rows=[Row("shut", "open", "shut"), Row("open", "shut", "open"), Row("end", "shut", "gone")],
    name="door",
)
"""
TESTS = """
from doors import AT, DOOR
from session_fsm import SessionMachine, SessionState, step
import pytest

@pytest.mark.parametrize("number", range(6))
def test_sessions(number):
    step(SessionState.new("a", at=AT), "activate", at=AT)

@pytest.mark.parametrize("number", range(4))
def test_doors(number):
    door = SessionMachine(SessionState.new("d", at=AT, status="open"), DOOR)
    for trigger in ("shut", "open", "shut", "end")[:number + 1]:
        door.fire(trigger, at=AT)

def test_nothing_is_wrapped_for_nothing(request):
    wrapped = hasattr(SessionMachine.fire, "__wrapped__")
    given = vars(request.config.option)
    assert wrapped == any(given[name] for name in given if name.startswith("rows"))
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a lifecycle of its own and tests of it, which don't fire all rows of ours."""
    pytester.makepyfile(doors=DOORS, test_doors=TESTS)
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\npythonpath = ["."]')
    return pytester


def run(project: pytest.Pytester, *options: str, code: int = 0) -> str:
    """Run the tests of a project, and return what was printed."""
    plugins = ("-p", "no:cacheprovider", "-p", "session_fsm.testing.plugin")
    result = project.runpytest_subprocess(*plugins, *options)
    told = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == code, told
    return told


def test_testing_rows_plugin_reports_nothing_unasked(project: pytest.Pytester) -> None:
    """Without an option, nothing is wrapped and nothing reported."""
    told = run(project)
    assert "11 passed" in told
    assert "rows of lifecycle" not in told


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_testing_rows_plugin_counts(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """Every row is told with its count, the same in one process and over several workers."""
    told = run(project, *workers, "--rows=doors:DOOR", "--rows", "--rows-diagram={name}.mmd")
    assert "rows of lifecycle 'door'" in told
    assert "shut  open -> shut  6 fired\nopen  shut -> open  3 fired" in told
    assert "end   shut -> gone  1 fired\n3 of 3 rows were fired" in told
    assert "activate            initializing -> active      6 fired" in told
    assert "touch               idle stays                  never fired" in told
    assert "1 of 23 rows were fired" in told
    assert "drawn in door.mmd\ndrawn in session.mmd" in told
    fired = {("shut", "open"): 6, ("open", "shut"): 3, ("end", "shut"): 1}
    lifecycle = Lifecycle(
        statuses=("open", "shut", "gone"),
        initial="open",
        rows=[Row("shut", "open", "shut"), Row("open", "shut", "open"), Row("end", "shut", "gone")],
        name="door",
    )
    drawn = render(lifecycle, "mermaid", coverage=fired)
    assert (project.path / "door.mmd").read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_testing_rows_plugin_is_strict(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """A row that no test fired fails the run where that was asked for, and is named."""
    told = run(project, *workers, "--rows-strict", "--rows-diagram", "rows.svg", code=1)
    assert "11 passed" in told
    assert "stop_timeout        terminating -> terminated   never fired" in told
    assert "activate " not in told
    assert "rows: lifecycle 'session': 1 of 23 rows were fired, of which 100 % must be" in told
    assert "not covered" in (project.path / "rows.svg").read_text(encoding="utf-8")


def test_testing_rows_plugin_is_content(project: pytest.Pytester) -> None:
    """Where every row was fired, a strict run succeeds, and tells no more than that."""
    quiet = ("--rows-skip-fired", "--rows-diagram=rows.md")
    told = run(project, "--rows-strict", *quiet, "--rows=doors:DOOR")
    assert "\n3 of 3 rows were fired\ndrawn in rows.md" in told
    assert " fired\n3 of 3" not in told
    assert "never fired" not in told


def test_testing_rows_plugin_asks_for_a_share(project: pytest.Pytester) -> None:
    """A share that was asked for is enough, and one that is not reached fails the run."""
    run(project, "--rows-fail-under=4.3")
    told = run(project, "--rows-fail-under=5", code=1)
    assert "1 of 23 rows were fired, of which 5 % must be" in told


def test_testing_rows_plugin_leaves_other_failures(project: pytest.Pytester) -> None:
    """A run that fails anyhow, or has no tests, ends as it would."""
    run(project, "--rows-strict", "-k", "nothing_of_this", code=5)
    run(project, "--rows-strict", "--collect-only")
    project.makepyfile(test_doors="def test_doors(): assert False")
    assert "1 failed" in run(project, "--rows", code=1)


def test_testing_rows_plugin_tells_of_a_dead_worker(project: pytest.Pytester) -> None:
    """Where a worker died, what it fired is not known: that is told, and no success."""
    project.makepyfile(test_doors="import os\ndef test_doors(): os._exit(3)")
    told = run(project, "-n1", "--max-worker-restart=0", "--rows", code=1)
    assert "rows: worker gw0 died, and what it fired is not known" in told


def test_testing_rows_plugin_tells_of_a_drawing_that_failed(project: pytest.Pytester) -> None:
    """A diagram that can't be written fails the run."""
    (project.path / "taken").write_text("", encoding="utf-8")
    told = run(project, "--rows=doors:DOOR", "--rows-diagram=taken/rows.mmd", code=1)
    assert "11 passed" in told
    assert "rows: taken/rows.mmd was not drawn: " in told


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--rows", "test_doors.py"), "--rows: expected MODULE:NAME, got 'test_doors.py': write"),
        (("--rows=nowhere:DOOR",), "'nowhere:DOOR' can't be imported: No module named 'nowhere'"),
        (("--rows=doors:WINDOW",), "'doors:WINDOW' can't be imported: module 'doors' has no"),
        (("--rows=doors:NOTHING",), "'doors:NOTHING' is a int, not a Lifecycle"),
        (("--rows-diagram=rows.gif",), "--rows-diagram: no format of diagrams ends in '.gif'"),
        (
            ("--rows=doors:DOOR", "--rows", "--rows-diagram=rows.svg"),
            "--rows-diagram: 2 lifecycles can't be drawn in one file: put {name} into its name",
        ),
        (("--rows-fail-under=101",), "--rows-fail-under: expected 0 to 100, got 101"),
    ],
)
def test_testing_rows_plugin_names_a_bad_option(
    project: pytest.Pytester, options: tuple[str, ...], problem: str
) -> None:
    """An option that can't be followed is a usage error, before any test runs."""
    told = run(project, *options, code=4)
    assert problem in told
    assert "passed" not in told


def test_testing_rows_plugin_needs_a_name_for_each_file(project: pytest.Pytester) -> None:
    """A lifecycle whose name is no file's name is told before any test runs."""
    changed = DOORS.replace('name="door"', 'name="front/door"')
    project.makepyfile(doors=changed)
    told = run(project, "--rows=doors:DOOR", "--rows-diagram={name}.mmd", code=4)
    assert "the name 'front/door' can't stand in that of a file" in told
