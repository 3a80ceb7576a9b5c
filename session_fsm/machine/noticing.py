"""Objects, lists and mappings that notice when they change.

What was resolved from an object is true until the object changes. A `Noticing` object remembers
what was resolved from it, and declares it stale when an attribute is set; the containers tell their
owner when something in them is replaced. What is stale is resolved anew, never mended.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

RESOLVING: Final = threading.RLock()
"""Held while something is resolved, and while something is declared stale.

One for all: what is resolved rests on several objects, and is remembered by each of them. No step
takes it.
"""


class Resolvable(Protocol):
    """Something that was resolved, and may be stale."""

    valid: bool


class Noticing:
    """An object that declares stale what was resolved from it, when an attribute of it is set."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied: all but what can be resolved anew."""
        return {key: value for key, value in self.__dict__.items() if key != "_resolved"}

    def remember(self, resolved: Resolvable) -> None:
        """Declare something stale at the next change."""
        with RESOLVING:
            known = self.__dict__.get("_resolved", ())
            self.__dict__["_resolved"] = [*(each for each in known if each.valid), resolved]

    def forget(self) -> None:
        """Declare stale what was resolved so far."""
        with RESOLVING:
            for resolved in self.__dict__.pop("_resolved", ()):
                resolved.valid = False


def _telling(*names: str) -> Callable[[type[T]], type[T]]:
    """Return a decorator of containers: the named methods tell the owner that something changed."""

    def decorate(cls: type[T]) -> type[T]:
        for name in names:
            setattr(cls, name, _told(getattr(cls, name)))
        return cls

    return decorate


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def change(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            if self.owner is not None:
                self.owner.forget()

    return change


class _Owned:
    """A container with an owner; a copy has none before it is given one."""

    owner: Noticing | None = None

    def __getstate__(self) -> None:
        return None


@_telling("__delitem__", "__iadd__", "__imul__", "__setitem__", "append", "clear", "extend",
          "insert", "pop", "remove", "reverse", "sort")  # fmt: skip
class NoticingList(_Owned, list[Any]):
    """A list that tells its owner when it changes."""


_MAPPING: Final = ("__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem",
                   "setdefault", "update")  # fmt: skip


@_telling(*_MAPPING)
class NoticingStates(_Owned, OrderedDict[str, Any]):
    """The states of a machine by name; tells the machine when it changes."""


@_telling(*_MAPPING)
class NoticingTransitions(_Owned, defaultdict[str, Any]):
    """The transitions of an event, a list for each source; tells the event when one changes."""

    def __init__(self, given: Mapping[str, Iterable[Any]] | None = None) -> None:
        super().__init__(NoticingList)
        for source, transitions in (given or {}).items():
            self[source] = transitions

    def __setitem__(self, source: str, transitions: Iterable[Any]) -> None:
        kept = transitions if isinstance(transitions, NoticingList) else NoticingList(transitions)
        kept.owner = self.owner
        super().__setitem__(source, kept)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (), None, None, iter(self.items()))

    def own(self, owner: Noticing) -> None:
        """Make an object the one that is told."""
        self.owner = owner
        for transitions in self.values():
            transitions.owner = owner
