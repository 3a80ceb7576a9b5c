"""A lifecycle in text and pictures, derived from its table alone.

`render` shows any lifecycle in any of the `FORMATS`, with the traffic on it where it is counted.
Mermaid, DOT and Markdown come out the same, byte for byte, on every machine; SVG and PNG are drawn
from the DOT by Graphviz (extra `diagrams`) and carry its digest.
"""

from .files import stale, write
from .formats import FORMATS, Format, format_of, render
from .graphviz import DrawingError
from .markdown import table_rows

__all__ = [
    "FORMATS",
    "DrawingError",
    "Format",
    "format_of",
    "render",
    "stale",
    "table_rows",
    "write",
]
