"""What encryption at rest costs each move: `python -m benchmarks.encryption`.

Both stores take turns in files of their own. The directory may be one in memory: what is compared
is work, and a disk only adds the same wait to both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from session_fsm import Keyring, SessionManager, generate_key
from session_fsm.stores import SqliteStore

from .measuring import Turn, file_system_of, in_turns, percentile, repeated, show, table
from .subjects import there_and_back

TURN_SECONDS = 0.2
SIZES: dict[str, dict[str, Any]] = {
    "30 bytes": {"user": "ada", "number": 1},
    "20 kB": {"text": "x" * 20_000},
}
"""What stands in the metadata."""


def subjects(
    held: ExitStack, directory: Path, metadata: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is measured, by verb and store."""
    for name, keyring in (("plain", None), ("encrypted", Keyring(generate_key()))):
        store = SqliteStore(directory / f"{name}.db", keyring=keyring)
        held.enter_context(closing(store))
        manager = held.enter_context(SessionManager(store))
        for session_id in ("moved", "changed"):
            manager.create(session_id, metadata=metadata)
        yield f"move {name}", there_and_back(manager, "moved")
        yield f"update {name}", partial(manager.update, "changed", metadata=_counting)
        yield f"get {name}", partial(manager.get, "moved")


def _counting(metadata: Any) -> Any:
    return {**metadata, "count": metadata.get("count", 0) + 1}


def lines(given: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# What encryption at rest costs"
    yield ""
    yield f"Medians of each verb's latencies in {given.rounds} turns, on {given.kind}."
    for size, metadata in SIZES.items():
        with TemporaryDirectory(dir=given.directory) as made, ExitStack() as held:
            turns: dict[str, Callable[[], Turn]] = {
                name: partial(repeated, act, given.seconds)
                for name, act in subjects(held, Path(made), metadata)
            }
            records = in_turns(turns, given.rounds)
        took = {
            name: percentile((each for turn in record.turns for each in turn.latencies), 0.5)
            for name, record in records.items()
        }
        yield ""
        rows = []
        for verb in ("move", "update", "get"):
            plain, encrypted = (took[f"{verb} {name}"] * 1e6 for name in ("plain", "encrypted"))
            more = encrypted - plain
            rows.append((verb, f"{plain:.0f} µs", f"{encrypted:.0f} µs", f"{more:+.0f} µs"))
        yield from table((f"metadata of {size}", "plain", "encrypted", "more"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what encryption at rest costs.")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="where files are")
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each verb")
    parser.add_argument("--quick", action="store_true", help="few and short ones")
    given = parser.parse_args(arguments)
    given.rounds, given.seconds = (1, 0.01) if given.quick else (given.rounds, TURN_SECONDS)
    given.directory.mkdir(parents=True, exist_ok=True)
    given.kind = file_system_of(given.directory)
    show(lines(given), given.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
