"""The files that show a lifecycle in every format: which are stale, and making those anew.

What Graphviz draws differs with its version and with the fonts of a machine. So a drawing isn't
compared with one that is made here: it holds as long as that does which it was made from.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from ..lifecycle import Lifecycle
from .formats import FORMATS, Format
from .picture import Picture, picture_of


def stale(lifecycle: Lifecycle, directory: Path) -> tuple[Path, ...]:
    """Return the files that are missing or don't show the lifecycle, in the order of the formats.

    Raises:
        ValueError: The name of the lifecycle, which is that of the files, can't be one.
        OSError: A file is there and can't be read.
    """
    return tuple(path for path, _ in _stale(lifecycle, directory, picture_of(lifecycle)))


def write(lifecycle: Lifecycle, directory: Path) -> tuple[Path, ...]:
    """Make the files anew that are stale, leaving the others alone.

    Returns:
        The files that were made, in the order of the formats; may be empty.

    Raises:
        ValueError: The name of the lifecycle, which is that of the files, can't be one.
        DrawingError: Graphviz, which draws some of them, is not installed or failed.
        OSError: A file or the directory can't be written.
    """
    picture = picture_of(lifecycle)
    found = _stale(lifecycle, directory, picture)
    directory.mkdir(parents=True, exist_ok=True)
    for path, known in found:
        path.write_bytes(_bytes(known, picture))
    return tuple(path for path, _ in found)


def _stale(
    lifecycle: Lifecycle, directory: Path, picture: Picture
) -> tuple[tuple[Path, Format], ...]:
    if PurePath(lifecycle.name).name != lifecycle.name:
        raise ValueError(f"the name {lifecycle.name!r} can't be the name of a file")
    paths = ((directory / f"{lifecycle.name}{known.ending}", known) for known in FORMATS.values())
    return tuple((path, known) for path, known in paths if not _holds(path, known, picture))


def _holds(path: Path, known: Format, picture: Picture) -> bool:
    if not path.is_file():
        return False
    data = path.read_bytes()
    if known.source_of is None or known.source is None:
        return data == _bytes(known, picture)
    return known.source_of(data) == known.source(picture)


def _bytes(known: Format, picture: Picture) -> bytes:
    rendered = known.render(picture)
    return rendered if isinstance(rendered, bytes) else rendered.encode()
