"""The order of the modules, read from their imports.

`FLOORS` is the one list of what stands on what. A module imports lower floors only. Inside a
package, siblings may also import its `abc`, and its face (`__init__`, `__main__`) what it shows of
them. Imports inside functions and under `TYPE_CHECKING` count as any.
"""

import ast
import configparser
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ORDER = (
    "errors jsontext drafts",
    "clock sharing",
    "jsonvalue keys",
    "fields",
    "state",
    "guards",
    "rows",
    "lifecycle",
    "table",
    "explain",
    "machine.noticing",
    "machine.fast",
    "machine.build",
    "machine.session",
    "machine.steps",
    "machine",
    "diagrams.words diagrams.overlay diagrams.width diagrams.lanes",
    "diagrams.path",
    "diagrams.picture",
    "diagrams.looks diagrams.glyphs diagrams.graphviz",
    "diagrams.dot diagrams.mermaid diagrams.markdown",
    "diagrams.plantuml diagrams.scxml diagrams.text",
    "diagrams.svg diagrams.png",
    "diagrams.page",
    "diagrams.formats",
    "diagrams.files",
    "diagrams",
    "session",
    "telling",
    "serialization.instants",
    "serialization.converter",
    "serialization.reading",
    "serialization.schema serialization.written",
    "serialization",
    "history items messages",
    "context",
    "context_rows prompting",
    "compaction",
    "stores.records stores.postgres_ddl stores.postgres_rules stores.postgres_sql",
    "stores.postgres_tokens",
    "stores.postgres_url",
    "stores.postgres_faults",
    "stores.feed stores.reading stores.traffic",
    "stores.abc stores.memory_indexes stores.memory_items stores.memory_lives",
    "stores.memory_work stores.relay stores.sqlite_feed stores.sqlite_keys",
    "stores.memory stores.owners stores.sqlite_file stores.commit_queue stores.sqlite_schema",
    "stores.sqlite_items",
    "stores.sqlite_commit stores.sqlite_traffic stores.sqlite_writer",
    "stores.sqlite_connection stores.sqlite_upgrade",
    "stores.sqlite_tables",
    "stores.sqlite stores.spanning",
    "stores.postgres_clock stores.postgres_links stores.postgres_shape",
    "stores.postgres_arrays stores.postgres_pool stores.postgres_retrying stores.postgres_schema",
    "stores.postgres_commit",
    "stores.postgres_connection",
    "stores.postgres_counts stores.postgres_doubts stores.postgres_feed stores.postgres_group",
    "stores.postgres_newcomers",
    "stores.postgres_hints",
    "stores.postgres_items",
    "stores.postgres_leases stores.postgres_takeover stores.postgres_traffic",
    "stores.postgres_reading stores.postgres_removing stores.postgres_tables",
    "stores.postgres_upgrade stores.postgres_writer",
    "stores.postgres_checks stores.postgres_owning stores.postgres_tending",
    "stores.postgres",
    "stores",
    "processes",
    "families",
    "launching looks orphans",
    "certify.findings certify.reading certify.files",
    "certify.switches certify.probes certify.trying",
    "certify.walk certify.database",
    "certify.real certify.ways",
    "certify.certificate",
    "certify.text",
    "certify",
    "changes decisions hooks landing owning work",
    "endings slots waking",
    "batching",
    "core",
    "feeds together upkeep workers",
    "reader starting",
    "recovering",
    "keeper",
    "tables",
    "contexts",
    "manager",
    "aio.capture aio.patience",
    "aio.process_run",
    "aio.process",
    "observing.logs observing.otel",
    "observing",
    "aio.timing aio.calls aio.given aio.steps",
    "aio.nursery aio.children aio.listening aio.moving aio.sweeping",
    "aio.recovering",
    "aio.following aio.holding",
    "aio.desk",
    "aio.tasks aio.feeds aio.tables aio.contexts",
    "aio.verbs",
    "aio.child_context",
    "aio.supervisor",
    "aio.house",
    "aio.manager",
    "aio",
    "replay.rows replay.lines",
    "replay.files replay.formats",
    "replay.reading",
    "replay.report",
    "replay.driver",
    "replay",
    ".",
    "cli.text cli.records cli.options",
    "cli.output cli.opening cli.lifecycles",
    "cli.pictures cli.sessions",
    "cli.certificates cli.explaining cli.replays cli.upkeep",
    "cli.program",
    "cli",
    "__main__",
    "testing.authors testing.flow testing.ids testing.rows testing.simulated testing.strategies",
    "testing.paths",
    "testing.plugin testing.walks",
    "testing.arguments",
    "testing.reachable testing.rules_oracle",
    "testing.rules_driving",
    "testing.rules_showing",
    "testing.rules_ending",
    "testing.rules_moving",
    "testing.rules",
    "testing.store_batches testing.store_listing testing.store_sessions testing.store_work",
    "testing.store_compaction testing.store_feed testing.store_items testing.store_taking",
    "testing.store_expiry",
    "testing.store_contract",
    "testing",
)
"""The modules from the ground up; those of one line stand on one floor. `.` is the public face."""

FLOORS: dict[str, int] = {
    f"session_fsm.{name}".removesuffix(".."): floor
    for floor, names in enumerate(ORDER)
    for name in names.split()
}
"""Floor of each module, by the longest name that is the module's own or a package around it.

The name `session_fsm` is the public face alone: a module that no other name covers has no floor.
Modules of one package that build on each other have names of their own here, with floors between.
"""

SOLE_IMPORTERS = {
    "transitions": r"session_fsm\.machine(\..*)?",
    "cryptography": r"session_fsm\.keys",
    "cattrs": r"session_fsm\.serialization(\..*)?",
    "sortedcontainers": r"session_fsm\.stores\.memory_(indexes|items)",
    "sqlite3": r"session_fsm\.(stores\.sqlite.*|certify\.database)",
    "psycopg": r"session_fsm\.stores\.postgres.*",
    "psycopg_pool": r"session_fsm\.stores\.postgres.*",
    "typer": r"session_fsm\.cli(\..*)?",
    "rich": r"session_fsm\.cli(\..*)?",
    "opentelemetry": r"session_fsm\.observing\.otel",
    "pygraphviz": r"session_fsm\.diagrams(\..*)?",
    "hypothesis": r"session_fsm\.testing(\..*)?",
}
"""Packages that one part of the code hides from the rest."""

IMPORTED_AS = {"opentelemetry-api": "opentelemetry", "psycopg-pool": "psycopg_pool"}
"""What a distribution is imported as, where that is not its name."""

HOSTS = {"pytest": r"session_fsm\.testing\.plugin"}
"""Packages that load a part of the code themselves: they are there whenever it is."""

SHARED = {"attrs", "filelock", "orjson"}
"""Packages from outside that any module may import."""

STATUS = r"(initializing|active|idle|terminating|terminated)"
"""The words of our lifecycle."""

STATUS_OWNERS = {"session_fsm.state", "session_fsm.table"}
"""The modules that define the statuses and what is legal between them."""

ROOT = Path(__file__).resolve().parent.parent


def module_name(path: Path, root: Path) -> str:
    """The dotted name of the module in a file below root."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_under(root: Path) -> dict[str, Path]:
    """The modules of the package in root, by name."""
    return {module_name(path, root): path for path in sorted(root.glob("session_fsm/**/*.py"))}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Each module that a module imports with the line, wherever the import stands.

    `from package import name` imports the module `package.name` where there is one.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield node.lineno, submodule if submodule in known else origin


def floor_of(name: str) -> int:
    """The floor on which a module stands."""
    if name in FLOORS:
        return FLOORS[name]
    around = name.rpartition(".")[0]
    while around != "session_fsm":
        if around in FLOORS:
            return FLOORS[around]
        around = around.rpartition(".")[0]
    raise LookupError(f"{name}: say in FLOORS on which floor it stands")


def is_shipped(name: str) -> bool:
    """Whether a name is this package or a module in it."""
    return name == "session_fsm" or name.startswith("session_fsm.")


def may_import(name: str, target: str, *, is_face: bool) -> bool:
    """Whether one module of the package may import another one of it.

    Raises:
        LookupError: One of them has no floor.
    """
    own, other = floor_of(name), floor_of(target)
    if name.endswith(".__main__"):
        name, is_face = name.removesuffix(".__main__"), True
        if target == name:
            return True
    if name.startswith(f"{target}."):
        return False  # a package's face shows its modules; one that imports it goes in a circle
    if is_face and name != "session_fsm" and target.startswith(f"{name}."):
        return True
    if target == f"{name.rpartition('.')[0]}.abc":
        return True
    return other < own


def floor_faults(root: Path) -> list[str]:
    """Every import that goes up or sideways, and every module without a floor."""
    modules = modules_under(root)
    faults = set()
    for name, path in modules.items():
        is_face = path.name == "__init__.py"
        try:
            floor_of(name)
            for line, target in imports_of(name, path, set(modules)):
                if is_shipped(target) and not may_import(name, target, is_face=is_face):
                    faults.add(
                        f"{name}:{line} (floor {floor_of(name)}) "
                        f"imports {target} (floor {floor_of(target)})"
                    )
        except LookupError as error:
            faults.add(str(error))
    return sorted(faults)


def outside_faults(root: Path) -> list[str]:
    """Every import of a package from outside by a module that may not import it."""
    modules = modules_under(root)
    faults = []
    for name, path in modules.items():
        for line, target in imports_of(name, path, set(modules)):
            package = target.partition(".")[0]
            owner = (SOLE_IMPORTERS | HOSTS).get(package)
            if owner is not None:
                if not re.fullmatch(owner, name):
                    faults.append(f"{name}:{line} imports {package}, which belongs to {owner}")
            elif not is_shipped(target) and package not in SHARED | sys.stdlib_module_names:
                faults.append(f"{name}:{line} imports {package}, which SHARED does not list")
    return faults


def side_faults(root: Path) -> list[str]:
    """Every import of `session_fsm.testing` by a module outside it."""
    modules = modules_under(root)
    side = re.compile(r"session_fsm\.testing(\..*)?")
    return [
        f"{name}:{line} imports {target}"
        for name, path in modules.items()
        if not side.fullmatch(name)
        for line, target in imports_of(name, path, set(modules))
        if side.fullmatch(target)
    ]


def is_status_branch(node: ast.AST) -> bool:
    """Whether a node compares with a status of our lifecycle, in Python or in SQL text."""
    if isinstance(node, ast.Compare | ast.MatchValue):
        return re.search(rf"'{STATUS}'|SessionStatus\.[A-Z]+\b", ast.unparse(node)) is not None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        sql = rf"(=|<>|\bin\s*\(.*)\s*'{STATUS}'"
        return re.search(sql, node.value, re.IGNORECASE) is not None
    return False


def status_branches(root: Path) -> list[str]:
    """Every comparison with a status of our lifecycle outside the modules that define it."""
    return [
        f"{name} branches on {ast.unparse(node)}"
        for name, path in modules_under(root).items()
        if name not in STATUS_OWNERS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        if is_status_branch(node)
    ]


def test_floors_modules_import_lower_floors_only() -> None:
    """Every module has a floor and imports lower ones, or the `abc` beside it."""
    assert len(modules_under(ROOT)) > 1
    assert floor_faults(ROOT) == []


def test_floors_packages_from_outside_have_one_home() -> None:
    """A package from outside is imported by its owner alone, or is on the shared list."""
    assert outside_faults(ROOT) == []


def test_floors_testing_stands_at_the_side() -> None:
    """No production module imports what is made for tests."""
    assert side_faults(ROOT) == []


def test_floors_no_branch_on_a_status() -> None:
    """What is legal stands in the table: no other module compares with a status word."""
    assert status_branches(ROOT) == []


def test_floors_lists_cover_what_setup_declares() -> None:
    """Each dependency that users install has a place on one of the two lists, and no other has."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    declared = setup["options"]["install_requires"] + "".join(
        extras[extra] for extra in extras if extra not in {"suite", "bench", "dev"}
    )
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in declared.split()}
    names = {IMPORTED_AS.get(name, name) for name in names}
    homes = SOLE_IMPORTERS.keys() - sys.stdlib_module_names
    assert names == homes | SHARED


@pytest.mark.parametrize(
    ("faults", "path", "source", "expected"),
    [
        (floor_faults, "state.py", "from session_fsm.machine import X", "imports session_fsm.mach"),
        (
            floor_faults,
            "state.py",
            "def f():\n    from . import table",
            "imports session_fsm.table",
        ),
        (floor_faults, "errors.py", "from .clock import Clock", "imports session_fsm.clock"),
        (floor_faults, "state.py", "import session_fsm", "imports session_fsm (floor "),
        (floor_faults, "stores/memory.py", "from . import sqlite", "imports session_fsm.stores.sq"),
        (floor_faults, "shelf.py", "", "session_fsm.shelf: say in FLOORS"),
        (outside_faults, "state.py", "import transitions.core", "imports transitions"),
        (outside_faults, "stores/memory.py", "from sqlite3 import connect", "imports sqlite3"),
        (outside_faults, "state.py", "import requests", "imports requests"),
        (outside_faults, "cli.py", "from pytest import fixture", "imports pytest, which belongs"),
        (side_faults, "cli.py", "from .testing import ManualClock", "imports session_fsm.testi"),
        (status_branches, "cli.py", "x = s.status == SessionStatus.IDLE", "branches on s.status"),
        (status_branches, "cli.py", "x = s.status in ('idle', 'other')", "branches on s.status"),
        (
            status_branches,
            "cli.py",
            "match s:\n    case 'idle':\n        pass",
            "branches on 'idle'",
        ),
        (status_branches, "stores/memory.py", "x = \"where status = 'idle'\"", "branches on"),
    ],
)
def test_floors_faults_are_found(
    tmp_path: Path,
    faults: Callable[[Path], list[str]],
    path: str,
    source: str,
    expected: str,
) -> None:
    """Each kind of wrong import is reported, with the module that has it."""
    for name in ("clock", "machine", "table", "testing", "stores/__init__", "stores/sqlite"):
        module = tmp_path / "session_fsm" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.touch()
    (tmp_path / "session_fsm" / path).write_text(source, encoding="utf-8")
    (found,) = faults(tmp_path)
    assert found.startswith("session_fsm." + path.removesuffix(".py").replace("/", "."))
    assert expected in found


def test_floors_a_package_may_show_its_modules(tmp_path: Path) -> None:
    """A face imports its modules and siblings their `abc`, but no module its own face.

    From outside, and for the face of the whole package, floors alone count.
    """
    sources = {
        "__init__": "from .stores import open_store\nfrom . import cli",
        "cli": "from .stores import open_store",
        "state": "from .stores import abc",
        "stores/__init__": "from . import abc, memory",
        "stores/__main__": "from . import memory\nfrom session_fsm import stores",
        "stores/abc": "",
        "stores/memory": "from .abc import Store",
        "stores/spanning": "import session_fsm.stores",
    }
    for name, source in sources.items():
        module = tmp_path / "session_fsm" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(source, encoding="utf-8")

    def told(where: str, target: str) -> str:
        floors = floor_of(where.partition(":")[0]), floor_of(target)
        return f"{where} (floor {floors[0]}) imports {target} (floor {floors[1]})"

    assert floor_faults(tmp_path) == [
        told("session_fsm.state:1", "session_fsm.stores.abc"),
        told("session_fsm.stores.spanning:1", "session_fsm.stores"),
        told("session_fsm:2", "session_fsm.cli"),
    ]


def test_floors_modules_are_short() -> None:
    """The median module is under 200 lines, and none is over 500."""
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in modules_under(ROOT).items()
    }
    assert statistics.median(lengths.values()) < 200
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_floors_import_brings_no_extra() -> None:
    """Importing the package loads no package of an extra and no test tool."""
    script = "import session_fsm, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "session_fsm" in loaded
    tools = {"hypothesis", "pytest", "_pytest"}
    extras = {"typer", "rich", "cryptography", "psycopg", "psycopg_pool", "pygraphviz"}
    assert loaded & (tools | extras) == set()
