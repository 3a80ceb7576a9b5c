"""Frozen data that is made as fast as if it were not: filled as a draft, then sealed.

The constructor that attrs generates for a frozen class sets each field through a call of
`object.__setattr__`. A draft is an instance of a subclass that is not frozen, with the same layout:
its fields are set by plain statements, then its class is set to the frozen one. Nobody else sees it
before that.

Python audits the setting of a class: in a process with an audit hook (a library may have installed
one) each sealing costs a call of the hook.

    draft = new(Draft)
    draft.field = value
    draft.__class__ = Frozen
"""

from __future__ import annotations

import functools
from typing import Any


@functools.lru_cache(maxsize=64)
def draft_class(frozen: type[Any]) -> Any:
    """Return the class of drafts of a frozen attrs class with slots.

    Returns:
        A class whose instances can be filled, and sealed by setting their class to `frozen`.
    """
    # `__delattr__` shares its slot with `__setattr__`: with one of them in Python, both are slow.
    members = {
        "__slots__": (),
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,
    }
    return type(f"{frozen.__name__}Draft", (frozen,), members)
