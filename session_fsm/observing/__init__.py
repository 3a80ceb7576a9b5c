"""What operators watch: events in logs (`log_events`), metrics and spans (`instrument`).

`instrument` needs the extra `otel`; nothing else here does, and importing the package loads none
of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .logs import log_events

if TYPE_CHECKING:
    from .otel import instrument


def __getattr__(name: str) -> Any:
    if name == "instrument":
        from .otel import instrument

        return instrument
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["instrument", "log_events"]
