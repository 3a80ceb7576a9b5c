"""The formats of logs that can be replayed.

A format is told by the content of a line, never by the name of its file. To add one, write a
module with a `Format` beside the others and name it in `FORMATS`.
"""

from __future__ import annotations

from typing import Final

from .abc import Entry, Format, RowError
from .claude_code import CLAUDE_CODE
from .event_lines import EVENT_LINES

FORMATS: Final[tuple[Format, ...]] = (EVENT_LINES, CLAUDE_CODE)
"""All formats; the first that recognizes a line wins."""

__all__ = ["CLAUDE_CODE", "EVENT_LINES", "FORMATS", "Entry", "Format", "RowError"]
