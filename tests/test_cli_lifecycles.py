"""`--lifecycle MODULE:NAME`: what is imported, from where, and what can be wrong with it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from commanding import Answer, call, environment, program, url_of

from session_fsm import SESSION_LIFECYCLE, Lifecycle, Row, SessionManager
from session_fsm.cli.lifecycles import LIFECYCLE_VARIABLE, load_lifecycle
from session_fsm.cli.options import UsageError

DOOR = """
    from session_fsm import Lifecycle, Row

    print("this is no part of an answer")

    DOOR = Lifecycle(
        name="door",
        statuses=("open", "shut", "walled_up"),
        initial="open",
        rows=(
            Row("shut", "open", "shut", activity=True),
            Row("open", "shut", "open", activity=True),
            Row("wall_up", ("open", "shut"), "walled_up", ending=True),
        ),
    )
    WIDTH = 5


    class Doors:
        FRONT = DOOR.extend(name="front door")


    def make():
        return DOOR
"""


OWN = {"doors", "house", "house.inner", "broken", "gone", "leaving", "unclear", "bad", "shaky"}
"""The modules of the shop."""

SHAKY = """
    from doors import DOOR
    from session_fsm import Guard, Row

    loose = Guard("loose", lambda attempt: 1 / 0 > 0, "it hangs loose")
    SHAKY = DOOR.extend(name="shaky", rows=[Row("creak", "open", None, guards=loose)])
"""


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let modules be imported here that nobody knows of afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in OWN & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with modules, some of which can't be imported, and a store with doors."""
    sources = {
        "doors.py": DOOR,
        "house/__init__.py": "",
        "house/inner.py": "from doors import DOOR as INNER",
        "broken.py": "import session_fsm\n\n1 / 0\n",
        "gone.py": "import a_module_that_nobody_has",
        "leaving.py": "import sys\nsys.exit('this is a script')",
        "unclear.py": "def (:",
        "shaky.py": SHAKY,
        "bad.py": DOOR.replace(
            '"wall_up", ("open", "shut"), "walled_up"', '"wall_up", "ajar", "x"'
        ),
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source), encoding="utf-8")
    door = Lifecycle(
        name="door",
        statuses=("open", "shut", "walled_up"),
        initial="open",
        rows=(
            Row("shut", "open", "shut", activity=True),
            Row("open", "shut", "open", activity=True),
            Row("wall_up", ("open", "shut"), "walled_up", ending=True),
        ),
    )
    with SessionManager(url_of(tmp_path / "doors.db"), lifecycle=door) as manager:
        for name in ("back", "front"):
            manager.create(name)
        manager.fire("back", "shut")
    return tmp_path


def told(
    shop: Path,
    *words: str,
    command: Sequence[str] = program(),
    variables: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command in the directory of the shop."""
    named = ("--store", url_of(Path("doors.db")))
    done = subprocess.run(
        [*command, *words, *named],
        capture_output=True,
        cwd=shop,
        env=environment(**(variables or {})),
        text=True,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("imports")
def test_cli_lifecycle_without_a_name_is_that_of_a_session() -> None:
    """Nothing said, or nothing meant, is ours."""
    assert load_lifecycle(None) is load_lifecycle("") is SESSION_LIFECYCLE
    assert load_lifecycle("session_fsm:SESSION_LIFECYCLE") is SESSION_LIFECYCLE
    assert load_lifecycle("session_fsm.table:SESSION_LIFECYCLE") is SESSION_LIFECYCLE


def test_cli_lifecycle_is_found_in_the_current_directory(shop: Path) -> None:
    """A module beside the person is imported, also by the installed command; names may nest."""
    script = ("-c", "import sys; sys.path.pop(0); from session_fsm.cli import main; main()")
    for command in (program(), [sys.executable, *script]):
        answer = told(shop, "counts", "--json", "--lifecycle", "doors:DOOR", command=command)
        assert (answer.code, answer.err) == (0, "this is no part of an answer\n")
        assert answer.document == {"open": 1, "shut": 1, "walled_up": 0}
    for name in ("house.inner:INNER", "doors:Doors.FRONT"):
        assert told(shop, "counts", "--lifecycle", name).code == 0


def test_cli_lifecycle_may_stand_in_the_environment(shop: Path) -> None:
    """`SESSION_FSM_LIFECYCLE` is taken where `--lifecycle` is not given."""
    named = {LIFECYCLE_VARIABLE: "doors:DOOR"}
    assert "walled_up" in told(shop, "counts", variables=named).out
    assert "walled_up" not in told(shop, "counts", "--lifecycle", "", variables=named).out
    assert told(shop, "counts", variables={LIFECYCLE_VARIABLE: "nonsense"}).code == 2


def test_cli_lifecycle_of_a_safe_path_keeps_off_the_directory(shop: Path) -> None:
    """Where Python was told not to import from the current directory, it does not."""
    answer = told(shop, "counts", "--lifecycle", "doors:DOOR", variables={"PYTHONSAFEPATH": "1"})
    assert (answer.code, answer.out) == (2, "")
    assert "there is no module 'doors'" in answer.err


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("doors", "expected MODULE:NAME, such as shop.orders:ORDER for ORDER in shop/orders.py"),
        ("doors.py:DOOR", "expected MODULE:NAME"),
        ("./doors.py:DOOR", "expected MODULE:NAME"),
        (":DOOR", "expected MODULE:NAME"),
        ("doors:", "expected MODULE:NAME"),
        (".doors:DOOR", "expected MODULE:NAME"),
        ("doors:DOOR:x", "expected MODULE:NAME"),
        ("windows:DOOR", "there is no module 'windows'"),
        ("house.outer:DOOR", "there is no module 'house.outer'"),
        ("windows.inner:DOOR", "there is no module 'windows'"),
        ("doors:WINDOW", "module 'doors' has no 'WINDOW'; lifecycles in it: DOOR"),
        ("doors:Doors.BACK", "module 'doors' has no 'Doors.BACK'; lifecycles in it: DOOR"),
        ("house:DOOR", "module 'house' has no 'DOOR'; lifecycles in it: none"),
        ("doors:WIDTH", "'doors:WIDTH' is of type int, not a Lifecycle"),
        ("doors:make", "'doors:make' is of type function, not a Lifecycle"),
        ("doors:Lifecycle", "'doors:Lifecycle' is a class, not a Lifecycle"),
        ("broken:X", "module 'broken' can't be imported (line 3): ZeroDivisionError: division"),
        ("gone:X", "module 'gone' can't be imported (line 1): ModuleNotFoundError: No module nam"),
        ("leaving:X", "module 'leaving' can't be imported (line 2): SystemExit: this is a script"),
        ("unclear:X", "module 'unclear' can't be imported: SyntaxError: invalid syntax"),
        ("bad:DOOR", "module 'bad' can't be imported (line 6): LifecycleError: lifecycle 'door': "),
    ],
)
@pytest.mark.usefixtures("imports")
def test_cli_lifecycle_that_is_none_is_wrong_usage(
    shop: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    """What is wrong is named in one line, with exit code 2, before any store is opened."""
    monkeypatch.chdir(shop)
    answer = call("counts", "--lifecycle", name, "--store", "sqlite:///none.db")
    assert (answer.code, answer.out) == (2, "")
    [line] = [line for line in answer.err.splitlines() if "no part of an answer" not in line]
    assert line.startswith(f"session-fsm: --lifecycle: {problem}")
    assert line.endswith("(see session-fsm counts --help)")


@pytest.mark.usefixtures("imports")
def test_cli_lifecycle_of_a_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the current directory was removed, modules are looked for elsewhere."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_lifecycle("session_fsm:SESSION_LIFECYCLE") is SESSION_LIFECYCLE
    with pytest.raises(UsageError, match="there is no module 'doors_nowhere'"):
        load_lifecycle("doors_nowhere:DOOR")


def test_cli_lifecycle_has_statuses_of_its_own(shop: Path) -> None:
    """`--status` takes the words of the lifecycle that is named, and names them if it must."""
    named = ("--lifecycle", "doors:DOOR")
    found = told(shop, "list", "--status", "shut", "--json", *named).document
    assert [each["session_id"] for each in found["sessions"]] == ["back"]
    answer = told(shop, "list", "--status", "idle", *named)
    assert (answer.code, answer.out) == (2, "")
    assert "--status: there is no status 'idle'; statuses are open, shut, walled_up" in answer.err
    answer = told(shop, "list", "--status", "shut")
    assert answer.code == 2
    assert "statuses are initializing, active, idle, terminating, terminated" in answer.err


def test_cli_lifecycle_that_is_another_is_told(shop: Path) -> None:
    """Sessions of another lifecycle are not listed, and the note tells of which there are none."""
    answer = told(shop, "list")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "no sessions but ended ones in the lifecycle 'session'\n"
    answer = told(shop, "show", "back")
    assert (answer.code, answer.out) == (1, "")
    assert "session 'back' runs in the lifecycle 'door'" in answer.err


def test_cli_lifecycle_with_other_rows_is_a_failure(shop: Path) -> None:
    """A lifecycle that the store knows otherwise opens nothing."""
    source = (shop / "doors.py").read_text(encoding="utf-8")
    changed = source.replace('Row("open"', 'Row("unlock"')
    (shop / "changed.py").write_text(changed, encoding="utf-8")
    answer = told(shop, "counts", "--lifecycle", "changed:DOOR")
    assert (answer.code, answer.out) == (1, "")
    assert "lifecycle 'door': the store knows it with other rows" in answer.err


def test_cli_lifecycle_shows_what_it_has(shop: Path) -> None:
    """A lifecycle without tasks and conversations shows none."""
    answer = told(shop, "show", "front", "--lifecycle", "doors:DOOR")
    assert answer.code == 0
    assert "tasks" not in answer.out
    assert "conversations" not in answer.out
    assert "permitted now  shut, wall_up" in answer.out
    answer = told(shop, "terminate", "front", "--lifecycle", "doors:DOOR")
    assert answer.out == "front is walled_up\n"


@pytest.mark.usefixtures("imports")
def test_cli_lifecycle_with_a_broken_row_is_explained(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal names the rows that it had to leave out; the broken row itself is a failure."""
    monkeypatch.chdir(shop)
    path = shop / "shaky.db"
    with SessionManager(url_of(path), lifecycle=load_lifecycle("shaky:SHAKY")) as manager:
        manager.create("front")
    named = ("--lifecycle", "shaky:SHAKY")
    answer = call("explain", "front", "open", *named, store=path)
    assert answer.code == 3
    assert answer.lines[-3:] == [
        "permitted now  shut, wall_up",
        "fires next     nothing",
        "left out       guard 'loose' of 'creak' raised ZeroDivisionError: division by zero",
    ]
    answer = call("explain", "front", "creak", *named, store=path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.endswith(
        "guard 'loose' of 'creak' raised ZeroDivisionError: division by zero\n"
    )
