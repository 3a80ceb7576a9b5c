"""The built wheel, used from an empty directory: a flat layout would hide a file left out of it."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end and give what it printed; a failure shows all of it."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from the source archive, which is built from a copy."""
    source = tmp_path_factory.mktemp("source") / "session_fsm"
    shutil.copytree(repository, source, ignore=LEFT_BEHIND)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "out", cwd=source)
    (built,) = (source / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the installed wheel and nothing else in it."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A directory with nothing in it to work from."""
    place = tmp_path / "empty"
    place.mkdir()
    return place


def run_installed(script: str, site: Path, cwd: Path) -> str:
    """Run a script that finds the package in site first, and nothing by its own directory."""
    return run(
        sys.executable,
        "-I",
        "-W",
        "error",
        "-c",
        f"import sys; sys.path.insert(0, {str(site)!r})\n{script}",
        cwd=cwd,
    )


def test_wheel_has_every_file_of_the_package(wheel: Path, repository: Path) -> None:
    """The wheel has all of session_fsm/, the typed marker among it, and nothing beside it."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = repository / "session_fsm"
    expected = {
        path.relative_to(repository).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "session_fsm/py.typed" in expected
    assert packed == expected


def test_wheel_tells_what_it_is(wheel: Path, repository: Path) -> None:
    """Its metadata has the version of setup.cfg, the license and the README, its command is there.

    The changelog has an entry for that version.
    """
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    version = setup["metadata"]["version"]
    info = f"session_fsm-{version}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    lines = metadata.splitlines()
    assert f"Version: {version}" in lines
    assert "License-Expression: MIT" in lines
    assert "Requires-Python: >=3.11" in lines
    assert (repository / "README.md").read_text(encoding="utf-8").strip() in metadata
    assert "session-fsm = session_fsm.cli:main" in commands.splitlines()
    assert f"## {version}" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")


def test_wheel_modules_all_import(site: Path, empty: Path) -> None:
    """Every module of the installed wheel imports, from the wheel, without a warning."""
    script = """
import importlib, pathlib, pkgutil
import session_fsm
home = pathlib.Path(session_fsm.__file__).parent
names = ["session_fsm"]
names += [m.name for m in pkgutil.walk_packages(session_fsm.__path__, "session_fsm.")]
for name in names:
    if not name.endswith(".__main__"):
        module = importlib.import_module(name)
        assert home in pathlib.Path(module.__file__).parents, module.__file__
print(home)
print(len(names))
"""
    home, count = run_installed(script, site, empty).splitlines()
    assert Path(home) == site / "session_fsm"
    assert int(count) == len(list((site / "session_fsm").rglob("*.py")))


def test_wheel_makes_a_step(site: Path, empty: Path) -> None:
    """The installed wheel moves a session, and leaves the directory it was run in empty."""
    script = """
import datetime, pathlib
import session_fsm
assert pathlib.Path(session_fsm.__file__).with_name("py.typed").is_file()
at = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)
state = session_fsm.SessionState.new("one", at=at)
print(session_fsm.step(state, "activate", at=at).status)
"""
    assert run_installed(script, site, empty) == "active\n"
    assert list(empty.iterdir()) == []


def test_wheel_command_runs(site: Path, empty: Path) -> None:
    """The installed command prints the table from the wheel alone."""
    output = run(site / "bin" / "session-fsm", "table", cwd=empty, PYTHONPATH=str(site))
    assert "activate" in output
    assert list(empty.iterdir()) == []
