"""Logs of real agent sessions, replayed through a lifecycle.

`read_log` reads files of any known format into rows, `replay` drives a manager with them and
returns a `Report`.
"""

from .driver import replay
from .reading import Fault, Log, read_log
from .report import ReplayError, Report
from .rows import LogRow, RowKind

__all__ = ["Fault", "Log", "LogRow", "ReplayError", "Report", "RowKind", "read_log", "replay"]
