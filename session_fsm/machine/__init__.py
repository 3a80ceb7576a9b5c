"""The machine: a lifecycle's rows as a `transitions.Machine`, and the small thing that it moves.

| module | what it does |
|---|---|
| `fast` | `FastMachine`, a drop-in `transitions.Machine` that skips what is not attached |
| `build` | the machine of a lifecycle, one for all its sessions |
| `session` | `SessionMachine`: one session, its frozen state and its revision |
| `steps` | `step` and `transition`: the same for one step, as functions |

Source: `Machine` of the package `transitions` decides whether a move is made, and where it leads.
"""

from .build import build_machine
from .fast import FastMachine
from .session import SessionMachine
from .steps import step, transition, trigger_to

__all__ = [
    "FastMachine",
    "SessionMachine",
    "build_machine",
    "step",
    "transition",
    "trigger_to",
]
