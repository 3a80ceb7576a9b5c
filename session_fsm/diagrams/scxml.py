"""The lifecycle as SCXML, the W3C's language for state machines, for engines that run it.

| in the table | in SCXML |
|---|---|
| a status | `<state>`, or `<final>` |
| a row that leads elsewhere | `<transition event=… target=…>`; to its own status, it enters anew |
| a row that stays | `<transition event=…>` without a target: nothing is left or entered |
| a guard | a variable, 1 while it holds, and `cond` of the rows that it guards |
| a deadline | a variable, 1 once it has passed, in `cond` of its row |
| a row that fires by itself | the event `due-TRIGGER` sets that variable and raises the trigger |
| a grace that begins with the status | `<send>` of that event with a delay, `<cancel>` on leaving |
| the way out, activity, the reason | attributes in a namespace of their own, which engines ignore |

What a guard asks is a function, and no part of the table: whoever runs the document sets its
variable before an event. The same goes for a deadline that depends on more than the status: its
host sends `due-TRIGGER`. Variables are numbers because these mean the same in ECMAScript and in
Python. Data that rows change is the host's.

Source: State Chart XML (SCXML), W3C Recommendation of 1 September 2015.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from .picture import Move, Node, Picture

NAMESPACE: Final = "http://www.w3.org/2005/07/scxml"
OWN_NAMESPACE: Final = "urn:session-fsm:lifecycle"
"""Of the attributes that SCXML doesn't know; its prefix is `fsm`."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What is an id in XML and a name in every language for expressions."""


@attrs.frozen
class _Names:
    """How things are called in the document; all names differ.

    Attributes:
        states: By the key of a status.
        guards: By the name of a guard.
        due: By the trigger of a row with a deadline.
    """

    states: Mapping[str, str]
    guards: Mapping[str, str]
    due: Mapping[str, str]


def render(picture: Picture) -> str:
    """Write a picture as SCXML."""
    return "".join(f"{line}\n" for line in _lines(picture))


def _lines(picture: Picture) -> Iterator[str]:
    names = _names(picture)
    initial = [names.states[node.key] for node in picture.nodes if node.initial]
    name = re.sub(r"[^A-Za-z0-9_]+", "_", picture.title)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield "<!-- Made from the table of the lifecycle. A guard's variable is 1 while it holds: set"
    yield "     it before an event is sent. The event due-TRIGGER says that a deadline passed. -->"
    yield _tag(
        "scxml",
        [
            ("xmlns", NAMESPACE),
            ("xmlns:fsm", OWN_NAMESPACE),
            ("version", "1.0"),
            ("datamodel", "ecmascript"),
            ("name", name),
            ("initial", " ".join(initial)),
            ("fsm:lifecycle", picture.title),
        ],
        end=">",
    )
    yield from _datamodel(picture, names)
    for node in picture.nodes:
        yield from _state(picture, node, names)
    yield "</scxml>"


def _datamodel(picture: Picture, names: _Names) -> Iterator[str]:
    deadlines = {move.trigger: move.due for move in picture.moves if move.due is not None}
    if not names.guards and not names.due:
        return
    yield "  <datamodel>"
    for guard, variable in names.guards.items():
        yield "    " + _tag("data", [("id", variable), ("expr", "1"), ("fsm:guard", guard)])
    for trigger, variable in names.due.items():
        told = ("fsm:deadline", deadlines[trigger] or "")
        yield "    " + _tag("data", [("id", variable), ("expr", "0"), told])
    yield "  </datamodel>"


def _state(picture: Picture, node: Node, names: _Names) -> Iterator[str]:
    identity = [("id", names.states[node.key]), ("fsm:status", node.name)]
    rows = _rows(picture, node)
    if not rows:
        yield "  " + _tag("final" if node.final else "state", identity)
        return
    yield "  " + _tag("state", identity, end=">")
    timers = [
        (move, f"timer_{move.trigger}_in_{names.states[node.key]}", move.delay_seconds)
        for move, _ in rows
        if move.delay_seconds is not None
    ]
    if timers:
        yield "    <onentry>"
        for move, timer, seconds in timers:
            yield "      " + _assign(names.due[move.trigger], "0")
            delay = f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
            sent = [("id", timer), ("event", _due(move)), ("delay", delay)]
            yield "      " + _tag("send", sent)
        yield "    </onentry>"
        yield "    <onexit>"
        yield from ("      " + _tag("cancel", [("sendid", timer)]) for _, timer, _ in timers)
        yield "    </onexit>"
    for move, target in rows:
        yield "    " + _tag("transition", _transition(move, target, names))
        if move.due is not None:
            yield "    " + _tag("transition", [("event", _due(move))], end=">")
            yield "      " + _assign(names.due[move.trigger], "1")
            yield "      " + _tag("raise", [("event", move.trigger)])
            yield "    </transition>"
    yield "  </state>"


def _transition(move: Move, target: Node | None, names: _Names) -> Iterator[tuple[str, str]]:
    yield "event", move.trigger
    conditions = [names.guards[guard] for guard in dict.fromkeys(move.guards)]
    if move.due is not None:
        conditions.append(names.due[move.trigger])
    if conditions:
        yield "cond", " && ".join(conditions)
    if target is not None:
        yield "target", names.states[target.key]
    if move.activity:
        yield "fsm:activity", "true"
    if move.ending:
        yield "fsm:ending", "true"
    if move.why:
        yield "fsm:why", move.why


def _rows(picture: Picture, node: Node) -> list[tuple[Move, Node | None]]:
    """Return the rows that may be fired in a status, each with its target, in the table's order."""
    found: list[tuple[Move, Node | None]] = [(move, None) for move in node.stays]
    for edge in picture.edges:
        if edge.source.key == node.key:
            found += [(move, edge.target) for move in edge.moves]
    return sorted(found, key=lambda row: picture.cells.index(row[0]))


def _names(picture: Picture) -> _Names:
    words = {node.key: node.name for node in picture.nodes}
    if not all(map(_NAME.fullmatch, words.values())):
        words = {key: key for key in words}
    taken = set(words.values())

    def named(prefix: str, things: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for thing in things:
            if thing not in found:
                name = plain = prefix + re.sub(r"[^A-Za-z0-9]+", "_", thing).strip("_")
                number = 1
                while name in taken:
                    number += 1
                    name = f"{plain}_{number}"
                taken.add(name)
                found[thing] = name
        return found

    return _Names(
        states=words,
        guards=named("guard_", (guard for move in picture.moves for guard in move.guards)),
        due=named("due_", (move.trigger for move in picture.moves if move.due is not None)),
    )


def _due(move: Move) -> str:
    # No trigger has a hyphen in it, so this is none of them.
    return f"due-{move.trigger}"


def _assign(variable: str, value: str) -> str:
    return _tag("assign", [("location", variable), ("expr", value)])


def _tag(name: str, attributes: Iterable[tuple[str, str]], end: str = "/>") -> str:
    told = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes)
    return f"<{name}{told}{end}"
