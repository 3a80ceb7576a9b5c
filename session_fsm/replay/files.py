"""Which files the paths of a log stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from .lines import reason

SUFFIXES: Final = (".jsonl", ".jsonl.gz")
"""The ends of the names of the files that are taken from a directory."""


def log_files(
    paths: Iterable[str | os.PathLike[str]], on_fault: Callable[[str, str], None]
) -> tuple[str, ...]:
    """Find the files that some paths stand for.

    Args:
        paths: Files, and directories, which stand for all files below them whose names end in
            `SUFFIXES`. Links to directories are not followed.
        on_fault: Told of each path that stands for nothing, and why.

    Returns:
        The files in the order of `paths`, those of a directory sorted by name; each once, however
        often it is named. A file that is named need not exist.
    """
    found: dict[str, str] = {}
    for path in (os.fspath(each) for each in paths):
        for file in _below(path, on_fault) if os.path.isdir(path) else (path,):
            found.setdefault(_identity(file), file)
    return tuple(found.values())


def _below(folder: str, on_fault: Callable[[str, str], None]) -> Iterator[str]:
    refused: list[OSError] = []
    found = sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, onerror=refused.append)
        for name in names
        if name.endswith(SUFFIXES)
    )
    for fault in refused:
        on_fault(str(fault.filename or folder), f"can't be listed: {reason(fault)}")
    if not found and not refused:
        wanted = " or ".join(f"*{suffix}" for suffix in SUFFIXES)
        on_fault(folder, f"a directory without logs: nothing below it is named {wanted}")
    yield from found


def _identity(file: str) -> str:
    try:
        return os.path.realpath(file)
    except (OSError, ValueError):
        return file
