"""The lifecycle that a command works with: ours, or one that `--lifecycle MODULE:NAME` names."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import redirect_stdout
from types import ModuleType
from typing import Annotated, Final, NoReturn

import typer

from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .options import UsageError

LIFECYCLE_VARIABLE: Final = "SESSION_FSM_LIFECYCLE"

_OPTION: Final = "--lifecycle"

LifecycleName = Annotated[
    str | None,
    typer.Option(
        _OPTION,
        envvar=LIFECYCLE_VARIABLE,
        metavar="MODULE:NAME",
        show_default="the lifecycle of a session",
        help="The lifecycle that the sessions obey, from a module that Python can import;"
        " the current directory is searched first.",
    ),
]
"""The option, as a command declares it; `load_lifecycle` makes a lifecycle of its value."""


def load_lifecycle(name: str | None) -> Lifecycle:
    """Import the lifecycle that a person named.

    The module is imported as `python -m` would: the current directory is searched first, unless
    Python was told to keep off it. What the module prints goes to the standard error.

    Args:
        name: `module:NAME`, each part dotted where it is nested; None or empty: the lifecycle of a
            session.

    Raises:
        UsageError: The name is malformed, there is no such module, it raised while it was imported
            or has no such name, or what it names is no lifecycle.
    """
    if not name:
        return SESSION_LIFECYCLE
    module_name, separator, path = name.partition(":")
    words = (*module_name.split("."), *path.split("."))
    is_file = module_name.endswith(".py")
    if not separator or is_file or not all(word.isidentifier() for word in words):
        example = "such as shop.orders:ORDER for ORDER in shop/orders.py"
        raise UsageError(_OPTION, f"expected MODULE:NAME, {example}, got {name!r}")
    module = _imported(module_name)
    found: object = module
    for word in path.split("."):
        try:
            found = getattr(found, word)
        except AttributeError:
            known = ", ".join(_lifecycles_in(module)) or "none"
            problem = f"module {module_name!r} has no {path!r}; lifecycles in it: {known}"
            raise UsageError(_OPTION, problem) from None
    if not isinstance(found, Lifecycle):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise UsageError(_OPTION, f"{name!r} is {kind}, not a Lifecycle")
    return found


def _imported(name: str) -> ModuleType:
    _search_here()
    try:
        with redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name is not None and f"{name}.".startswith(f"{fault.name}."):
            raise UsageError(_OPTION, f"there is no module {fault.name!r}") from None
        _failed(name, fault)
    except (Exception, SystemExit) as fault:  # noqa: BLE001 - whatever a stranger's module does
        _failed(name, fault)


def _search_here() -> None:
    """Let modules of the current directory be imported, as `python -m` does."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed meanwhile
        return
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)


def _failed(name: str, fault: BaseException) -> NoReturn:
    """Say why a module was not imported, and at which line of it.

    Raises:
        UsageError: Always.
    """
    line, trace = None, fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f" (line {line})"
    told = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    raise UsageError(_OPTION, f"module {name!r} can't be imported{where}: {told}") from None


def _lifecycles_in(module: ModuleType) -> list[str]:
    names = vars(module).items()
    return sorted(each for each, value in names if isinstance(value, Lifecycle))
