"""A plugin for pytest: which rows of a lifecycle the tests have fired.

    python -m pytest -p session_fsm.testing.plugin --rows shop.orders:ORDER

or, with `pytest_plugins = ["session_fsm.testing.plugin"]` in the topmost `conftest.py`, the same
without `-p`. Nothing is recorded, and nothing costs any time, unless one of the options is given:

`--rows[=MODULE:NAME]`
    Reports each row of a lifecycle, and may be given several times. Without a name, or where only
    others of these options are given, it is the lifecycle of a session.
`--rows-skip-fired`
    Reports those rows alone that no test fired.
`--rows-diagram=FILE`
    Draws the rows, those that no test fired in red, in the format of the file's ending. `{name}` in
    it stands for the lifecycle's name.
`--rows-strict`
    The run fails if a row was never fired.
`--rows-fail-under=PERCENT`
    The run fails if fewer of a lifecycle's rows were fired.

Rows count whether they are fired by a step, a session machine or a manager, in any thread. What
runs under `pytest-xdist` is counted together; what other processes do is not seen.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path, PurePath
from typing import Any, Final

import pytest

from ..diagrams import DrawingError, format_of, render
from ..lifecycle import Lifecycle
from .rows import RowCoverage, RowRecorder, table

_SESSIONS: Final = "session_fsm:SESSION_LIFECYCLE"
_NAME: Final = "{name}"
_KEY: Final = "session_fsm_rows"
"""Under which the workers of pytest-xdist hand over what they recorded."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("rows", "rows of session lifecycles (session_fsm)")
    group.addoption(
        "--rows",
        action="append",
        nargs="?",
        const=_SESSIONS,
        metavar="MODULE:NAME",
        help="report the rows of a lifecycle that the tests fire, such as --rows=shop.orders:ORDER;"
        f" may be given several times; without a name: {_SESSIONS}",
    )
    group.addoption(
        "--rows-skip-fired",
        action="store_true",
        help="report those rows alone that no test fired",
    )
    group.addoption(
        "--rows-diagram",
        metavar="FILE",
        help="draw the rows, those that no test fired in red, in the format of the file's ending;"
        f" {_NAME} in it stands for the lifecycle's name",
    )
    group.addoption(
        "--rows-strict",
        action="store_true",
        help="fail if a row was never fired",
    )
    group.addoption(
        "--rows-fail-under",
        type=float,
        metavar="PERCENT",
        help="fail if fewer of a lifecycle's rows were fired",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin to record, if any of the options was given.

    Raises:
        pytest.UsageError: An option can't be followed.
    """
    options = config.option
    asked = (options.rows, options.rows_diagram, options.rows_fail_under)
    if all(option is None for option in asked) and not options.rows_strict:
        return
    lifecycles = [_lifecycle(name) for name in options.rows or (_SESSIONS,)]
    recorder = RowRecorder(lifecycles)
    if options.rows_diagram is not None:
        _check_diagram(options.rows_diagram, [each.lifecycle for each in recorder.coverage()])
    least = options.rows_fail_under
    if least is not None and not 0 <= least <= 100:
        raise pytest.UsageError(f"--rows-fail-under: expected 0 to 100, got {least:g}")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker(recorder), _KEY)
    else:
        config.pluginmanager.register(_Main(recorder, config), _KEY)


def _lifecycle(name: str) -> Lifecycle:
    """Import a lifecycle.

    Raises:
        pytest.UsageError: The name names none.
    """
    words = name.replace(":", ".").split(".")
    if name.count(":") != 1 or not all(word.isidentifier() for word in words):
        hint = "write --rows=MODULE:NAME, or --rows behind the paths of tests"
        raise pytest.UsageError(f"--rows: expected MODULE:NAME, got {name!r}: {hint}")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as fault:
        raise pytest.UsageError(f"--rows: {name!r} can't be imported: {fault}") from fault
    if not isinstance(found, Lifecycle):
        raise pytest.UsageError(f"--rows: {name!r} is a {type(found).__name__}, not a Lifecycle")
    return found


def _check_diagram(file: str, lifecycles: list[Lifecycle]) -> None:
    """Accept the name of a file that can be drawn.

    Raises:
        pytest.UsageError: It has no ending of a format, or is the same for two lifecycles.
    """
    try:
        format_of(file)
    except ValueError as fault:
        raise pytest.UsageError(f"--rows-diagram: {fault}") from None
    files = {_file(file, lifecycle) for lifecycle in lifecycles}
    if len(files) < len(lifecycles):
        problem = f"{len(lifecycles)} lifecycles can't be drawn in one file"
        raise pytest.UsageError(f"--rows-diagram: {problem}: put {_NAME} into its name")


def _file(file: str, lifecycle: Lifecycle) -> Path:
    if _NAME in file and PurePath(lifecycle.name).name != lifecycle.name:
        problem = f"the name {lifecycle.name!r} can't stand in that of a file"
        raise pytest.UsageError(f"--rows-diagram: {problem}")
    return Path(file.replace(_NAME, lifecycle.name))


class _Worker:
    """Records in a worker of pytest-xdist, and hands over what it recorded."""

    def __init__(self, recorder: RowRecorder) -> None:
        self._recorder = recorder.__enter__()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what was recorded."""
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
        output[_KEY] = self._recorder.told()

    def pytest_unconfigure(self) -> None:
        """Stop recording."""
        self._recorder.__exit__(None, None, None)


class _Main:
    """Records where there are no workers, adds up what they recorded, and reports."""

    def __init__(self, recorder: RowRecorder, config: pytest.Config) -> None:
        self._recorder = recorder.__enter__()
        self._details = config.option.rows is not None and not config.option.rows_skip_fired
        self._diagram: str | None = config.option.rows_diagram
        least: float | None = config.option.rows_fail_under
        self._least = 100.0 if config.option.rows_strict else least
        self._problems: list[str] = []
        self._drawn: list[Path] = []

    def pytest_unconfigure(self) -> None:
        """Stop recording."""
        self._recorder.__exit__(None, None, None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Add what a worker of pytest-xdist has recorded."""
        told = getattr(node, "workeroutput", {}).get(_KEY)
        if told is not None:
            self._recorder.add(told)
        else:
            name = node.gateway.id
            self._problems.append(f"worker {name} died, and what it fired is not known")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Draw, and fail where too few rows were fired."""
        if session.config.option.collectonly:
            return
        for coverage in self._recorder.coverage():
            if self._diagram is not None:
                self._draw(self._diagram, coverage)
            if self._least is not None and coverage.percent < self._least:
                told = f"lifecycle {coverage.lifecycle.name!r}: {coverage.headline}"
                self._problems.append(f"{told}, of which {self._least:g} % must be")
        if self._problems and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _draw(self, file: str, coverage: RowCoverage) -> None:
        path = _file(file, coverage.lifecycle)
        try:
            drawn = render(coverage.lifecycle, format_of(path), coverage=coverage.fired)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(drawn if isinstance(drawn, bytes) else drawn.encode())
        except (DrawingError, OSError) as fault:
            self._problems.append(f"{path} was not drawn: {fault}")
        else:
            self._drawn.append(path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report on every row, or on those that were not fired."""
        write = terminalreporter
        for coverage in self._recorder.coverage():
            write.section(f"rows of lifecycle {coverage.lifecycle.name!r}", "-")
            for line, fired in table(coverage):
                if self._details or not fired:
                    write.write_line(line, **({} if fired else {"red": True}))
            write.write_line(coverage.headline, green=not coverage.missing, bold=True)
        for path in self._drawn:
            write.write_line(f"drawn in {path}")
        for problem in self._problems:
            write.write_line(f"rows: {problem}", red=True, bold=True)
