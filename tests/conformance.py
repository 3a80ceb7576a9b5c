"""Runs the tests of transitions itself on `FastMachine`: `python tests/conformance.py [DIRECTORY]`.

The source archive comes from the package index by pip, is checked against its digest, and is kept
in the directory (`build/conformance`). Its tests are imported while `transitions.Machine` is ours:
every global, default and base class in them that names `Machine` gets it, and it is checked that
none was missed. What extends the stock machine (nested, graph, locked) stays what it was.

The exit code is 1 if a test failed, if a test module was not found, or if no step was short.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import subprocess
import sys
import tarfile
import types
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import transitions
import transitions.core
from transitions import Event, Machine

from session_fsm.machine import fast
from session_fsm.machine.fast import FastMachine

VERSION: Final = "0.9.3"
DIGEST: Final = "881fb75bb1654ed55d86060bb067f2c716f8e155f57bb73fd444e53713aafec8"
"""SHA-256 of the source archive of that version."""

SUITES: Final = ("test_core", "test_enum", "test_states", "test_add_remove", "test_reuse")


def archive(directory: Path) -> Path:
    """Return the source archive of transitions, fetched if it is not there."""
    path = directory / f"transitions-{VERSION}.tar.gz"
    if not path.exists():
        # Without isolation, pip asks the setuptools that is there for the name and the version.
        subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
             "--no-deps", "--no-build-isolation", "--no-binary=transitions",
             f"--dest={directory}", f"transitions=={VERSION}"],
            check=True,
        )  # fmt: skip
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != DIGEST:
        raise SystemExit(f"{path} is not what was released: its SHA-256 is {found}, not {DIGEST}")
    return path


def unpack(path: Path) -> Path:
    """Return a directory with the tests of the archive as the package `tests`, and nothing else."""
    root = path.parent / "unpacked"
    with tarfile.open(path) as packed:
        prefix = f"transitions-{VERSION}/"
        for member in packed.getmembers():
            name = member.name.removeprefix(prefix)
            file = packed.extractfile(member) if member.isfile() else None
            if file is not None and Path(name).parts[0] == "tests" and ".." not in name:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(file.read())
    return root


def import_suites(root: Path) -> list[types.ModuleType]:
    """Import the test modules with `FastMachine` wherever they name `Machine`."""
    # What builds on the stock machine is imported before, and keeps it.
    for name in ("diagrams", "factory", "locking", "markup", "nesting", "states"):
        importlib.import_module(f"transitions.extensions.{name}")
    sys.path.insert(0, str(root))
    with (
        mock.patch.object(transitions, "Machine", FastMachine),
        mock.patch.object(transitions.core, "Machine", FastMachine),
    ):
        modules = [importlib.import_module(f"tests.{name}") for name in ("utils", *SUITES)]
    left = [place for module in modules for place in stock_places(module)]
    if left:
        raise SystemExit(f"the stock Machine is left in {', '.join(left)}")
    return modules


def stock_places(module: types.ModuleType) -> Iterator[str]:
    """Yield each place of a module that still holds the stock machine."""
    for name, value in vars(module).items():
        if value is Machine:
            yield f"{module.__name__}.{name}"
        if inspect.isclass(value) and value.__module__ == module.__name__:
            for inner, member in vars(value).items():
                held = (*(getattr(member, "__defaults__", None) or ()), member)
                if Machine in held or (inspect.isclass(member) and Machine in member.__bases__):
                    yield f"{module.__name__}.{name}.{inner}"


class Counting(unittest.TextTestResult):
    """Counts for each test the triggers of our events, and those that took the general path."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.triggers = 0
        self.general = 0
        self.tests: Counter[str] = Counter()

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - the name of unittest
        """Begin to count anew."""
        super().startTest(test)
        self._before = (self.triggers, self.general)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - the name of unittest
        """Sort the test by the path that its triggers took."""
        super().stopTest(test)
        triggers = self.triggers - self._before[0]
        general = self.general - self._before[1]
        short = triggers - general
        self.tests["short" if short and not general else "both" if short else
                   "general" if general else "none"] += 1  # fmt: skip


def run(modules: list[types.ModuleType]) -> Counting:
    """Run the tests of some modules, and count the paths that they took."""
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(map(loader.loadTestsFromModule, modules))
    runner = unittest.TextTestRunner(resultclass=Counting, warnings="ignore")
    result: list[Counting] = []
    make_result = runner._makeResult

    def made() -> Counting:
        counting = make_result()
        assert isinstance(counting, Counting)
        result.append(counting)
        return counting

    short_or_not, general = fast.Event.trigger, Event.trigger

    @functools.wraps(short_or_not)  # a bound method is pickled by its name
    def count(event: fast.Event, *args: Any, **kwargs: Any) -> bool:
        result[0].triggers += 1
        return short_or_not(event, *args, **kwargs)

    def count_general(event: Event, *args: Any, **kwargs: Any) -> bool:
        result[0].general += isinstance(event, fast.Event)
        return general(event, *args, **kwargs)

    with (
        mock.patch.object(runner, "_makeResult", made),
        mock.patch.object(fast.Event, "trigger", count),
        mock.patch.object(Event, "trigger", count_general),
    ):
        runner.run(suite)
    return result[0]


def main(arguments: list[str]) -> int:
    """Run the tests, and print how many there were and which path they took."""
    directory = Path(arguments[0] if arguments else "build/conformance").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    result = run(import_suites(unpack(archive(directory))))
    short = result.triggers - result.general
    tests = result.tests
    print(f"transitions {VERSION}, {', '.join(SUITES)} on FastMachine:")
    print(f"  {result.testsRun} tests, {len(result.failures) + len(result.errors)} failed,"
          f" {len(result.skipped)} skipped (what they need is not installed)")  # fmt: skip
    print(f"  {result.triggers:,} triggers of FastMachine: {short:,} on the short path,"
          f" {result.general:,} on the general one")  # fmt: skip
    print(f"  {tests['short'] + tests['both']} tests had triggers on the short path"
          f" ({tests['both']} of them on both), {tests['general']} on the general one alone,"
          f" {tests['none']} fired none of FastMachine")  # fmt: skip
    return 0 if result.wasSuccessful() and short else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
