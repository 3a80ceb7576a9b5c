"""The worked lifecycles of `examples/`, as tests import them."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from session_fsm import Lifecycle

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

LIFECYCLES = {"agent": "AGENT", "order": "ORDER"}
"""The name of the lifecycle in each module."""


@functools.cache
def example(name: str) -> ModuleType:
    """Return an example as a module; it is run once."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worked(name: str) -> Lifecycle:
    """Return the lifecycle of an example."""
    lifecycle: Any = getattr(example(name), LIFECYCLES[name])
    assert isinstance(lifecycle, Lifecycle)
    return lifecycle
