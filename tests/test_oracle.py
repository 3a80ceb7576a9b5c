"""Another engine on our SCXML export does what our machine does, trigger by trigger."""

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from oracle import SCXML, replay, runs_with_status, states_of

from session_fsm import LIVE, SESSION_LIFECYCLE, Guard, Lifecycle, Row
from session_fsm.diagrams import render
from session_fsm.guards import Deadline, after_grace


def exported(lifecycle: Lifecycle) -> str:
    """The SCXML of a lifecycle."""
    text = render(lifecycle, "scxml")
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_oracle_agrees_on_random_triggers(seed: int) -> None:
    """Both engines accept the same of 100,000 random triggers, and stand in the same status.

    Every row is fired from every source, and refused where it can be.
    """
    done = replay(SESSION_LIFECYCLE, exported(SESSION_LIFECYCLE), seed=seed, steps=25_000)
    assert done.difference is None
    assert done.steps == 25_000
    for row, source in SESSION_LIFECYCLE.moves():
        key = (str(source), row.trigger)
        by_time = done.timed[str(source)] > 0 and row.deadline is not None
        assert done.fired[key] > 0 or by_time, key
        if row.conditions:
            assert done.refused[key] > 0, key
    assert all(done.refused[str(status), "unknown"] > 0 for status in SESSION_LIFECYCLE.live)
    assert done.timed["initializing"] > 0
    assert done.timed["terminating"] > 0


def guard(name: str) -> Guard:
    """A guard that is set from outside."""
    return Guard(name, lambda _: True, "set so")


ODD = Lifecycle(
    ("to do", "s0", 'in <review> & "more"', "übrig", "gone"),
    "to do",
    (
        Row("start", "to do", "s0", guards=(guard("a b"), guard("a-b"), guard('<&">'))),
        Row("again", "s0", "s0", guards=(guard("a b"),)),
        Row("look", "s0", 'in <review> & "more"', deadline=after_grace("short")),
        Row("rest", 'in <review> & "more"', "übrig", guards=(guard("a-b"),)),
        Row("timeout", 'in <review> & "more"', "s0", deadline=after_grace("long")),
        Row("back", "übrig", "s0", deadline=Deadline("some day", lambda _: None)),
        Row("note", LIVE, None, guards=(guard("a b"), guard("a b"))),
        Row("stop", ("to do", "s0", 'in <review> & "more"', "übrig"), "gone", ending=True),
    ),
    graces={"short": 2.5, "long": 10},
    name="odd & <ends>",
)
"""Words that need escapes, guards whose names are alike, a row to its own status, two graces."""


def test_oracle_agrees_on_a_lifecycle_with_odd_words() -> None:
    """Any lifecycle can be exported, whatever its words are."""
    done = replay(ODD, exported(ODD), seed=1, steps=10_000)
    assert done.difference is None
    assert done.fired["s0", "again"] > 0
    assert done.fired["übrig", "back"] > 0
    assert done.timed["s0"] > 0
    assert done.timed['in <review> & "more"'] > 0


# --- that it bites -------------------------------------------------------------------------------


FAULTS = ("dropped", "retargeted", "unguarded", "guarded otherwise", "later")


def faulty(lifecycle: Lifecycle) -> Iterator[tuple[str, str]]:
    """Yield exports with one fault each, with a name."""
    text = exported(lifecycle)
    for number in range(len(list(ElementTree.fromstring(text).iter()))):
        for fault in FAULTS:
            root = ElementTree.fromstring(text)
            element = list(root.iter())[number]
            name = f"{lifecycle.name}: {path_to(root, element)} {fault}"
            if spoiled(root, element, fault):
                yield name, ElementTree.tostring(root, "unicode")


def path_to(root: ElementTree.Element, element: ElementTree.Element) -> str:
    """Where an element stands, in words."""
    parents = {child: parent for parent in root.iter() for child in parent}
    words: list[str] = []
    while element is not root:
        known = (element.get(name) for name in ("id", "event", "sendid", "location"))
        what = next((each for each in known if each is not None), "")
        words.insert(0, f"{element.tag.removeprefix(SCXML)} {what}".strip())
        element = parents[element]
    return " / ".join(words)


def spoiled(root: ElementTree.Element, element: ElementTree.Element, fault: str) -> bool:
    """Put a fault in an element; whether it can have it, and it has to show."""
    tag = element.tag.removeprefix(SCXML)
    states = [str(each.get("id")) for each in states_of(root)]
    match fault:
        case "dropped" if tag in ("transition", "send", "cancel", "raise", "assign"):
            parents = {child: parent for parent in root.iter() for child in parent}
            around = parents[element]
            around.remove(element)
            told_by_host = {f"due-{row.trigger}" for row, _ in OPAQUE}
            return not told_by_host & {element.get("event"), around.get("event")}
        case "retargeted" if tag == "transition" and element.get("target"):
            old = states.index(str(element.get("target")))
            element.set("target", states[(old + 1) % len(states)])
            return True
        case "unguarded" if element.get("cond"):
            del element.attrib["cond"]
            return True
        case "guarded otherwise" if element.get("cond"):
            variables = [str(each.get("id")) for each in root.iter(f"{SCXML}data")]
            used = str(element.get("cond")).split(" && ")
            other = next(each for each in variables if each not in used)
            element.set("cond", " && ".join([other, *used[1:]]))
            return True
        case "later" if element.get("delay"):
            element.set("delay", "61s")
            return True
    return False


OPAQUE = [
    (row, source)
    for lifecycle in (SESSION_LIFECYCLE, ODD)
    for row, source in lifecycle.moves()
    if row.deadline is not None and not runs_with_status(row)
]
"""Rows whose deadline is set by the host before each trigger: they need no event of their own."""

FAULTY = {
    name: (lifecycle, text)
    for lifecycle in (SESSION_LIFECYCLE, ODD)
    for name, text in faulty(lifecycle)
}
HARMLESS = {
    # What is entered once, or left for ever, has no timer of an earlier stay to be rid of.
    "session: state initializing / onentry / assign due_start_timeout dropped",
    "session: state terminating / onentry / assign due_stop_timeout dropped",
    "session: state terminating / onexit / cancel timer_stop_timeout_in_terminating dropped",
}
assert FAULTY.keys() >= HARMLESS


@pytest.mark.parametrize("fault", [name for name in FAULTY if name not in HARMLESS])
def test_oracle_finds_every_fault_of_an_export(fault: str) -> None:
    """An export with any one fault does something else within a part of the triggers."""
    lifecycle, text = FAULTY[fault]
    done = replay(lifecycle, text, seed=0, steps=25_000)
    assert done.difference is not None
