"""A lifecycle in text and pictures, derived from its table alone.

`render` shows any lifecycle in any of the `FORMATS`, and on it, where that is asked for: a session
with its way so far, a fleet with its traffic, or the rows that tests have covered. Text comes out
the same, byte for byte, on every machine. SVG and PNG are drawn by Graphviz (extra `diagrams`) and
carry the digest of what they were made from; the HTML page holds such a drawing where Graphviz is
installed.
"""

from .files import stale, write
from .formats import FORMATS, Format, format_of, render
from .graphviz import DrawingError
from .markdown import table_rows
from .overlay import Event, Standing, standing

__all__ = [
    "FORMATS",
    "DrawingError",
    "Event",
    "Format",
    "Standing",
    "format_of",
    "render",
    "stale",
    "standing",
    "table_rows",
    "write",
]
