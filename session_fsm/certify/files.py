"""The certificate that is kept in a file, so that a change of behaviour shows as a change of it."""

from __future__ import annotations

from pathlib import Path, PurePath

from ..lifecycle import Lifecycle

ENDING = ".certificate.md"


def path_of(lifecycle: Lifecycle, directory: Path) -> Path:
    """Return where the certificate of a lifecycle is kept.

    Raises:
        ValueError: The name of the lifecycle, which is that of the file, can't be one.
    """
    if PurePath(lifecycle.name).name != lifecycle.name:
        raise ValueError(f"the name {lifecycle.name!r} can't be the name of a file")
    return directory / f"{lifecycle.name}{ENDING}"


def drift(path: Path, text: str) -> str | None:
    """Tell where a file differs from the certificate that it should hold.

    Returns:
        In words: that it is missing, or the first line that differs; None if it holds.

    Raises:
        OSError: It is there and can't be read.
    """
    if not path.exists():
        return "it is missing"
    data = path.read_bytes()
    if data == text.encode():
        return None
    kept, fresh = data.decode("utf-8", "replace").splitlines(), text.splitlines()
    for number, (old, new) in enumerate(zip(kept, fresh, strict=False), 1):
        if old != new:
            return f"line {number} is {old!r}, has to be {new!r}"
    if len(kept) != len(fresh):
        return f"it has {len(kept)} lines, has to have {len(fresh)}"
    return "its lines end differently"
