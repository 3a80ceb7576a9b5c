"""The lifecycle as SCXML: well formed, whole, and with names that every engine can read."""

from collections.abc import Mapping
from xml.etree import ElementTree

import pytest
from oracle import OWN, SCXML, read, states_of

from session_fsm import LIVE, SESSION_LIFECYCLE, Guard, Lifecycle, Row
from session_fsm.diagrams import render
from session_fsm.diagrams.scxml import NAMESPACE
from session_fsm.guards import Deadline, after_grace

CHILDREN: Mapping[str, set[str]] = {
    "scxml": {"datamodel", "state", "final"},
    "datamodel": {"data"},
    "state": {"onentry", "onexit", "transition"},
    "onentry": {"assign", "send"},
    "onexit": {"cancel"},
    "transition": {"assign", "raise"},
}
"""What the W3C lets stand in an element, as far as it is used here."""
ATTRIBUTES: Mapping[str, set[str]] = {
    "scxml": {"initial", "name", "version", "datamodel"},
    "data": {"id", "src", "expr"},
    "state": {"id", "initial"},
    "final": {"id"},
    "transition": {"event", "cond", "target", "type"},
    "assign": {"location", "expr"},
    "send": {"id", "event", "delay"},
    "cancel": {"sendid"},
    "raise": {"event"},
}
"""The attributes that the W3C knows, as far as they are used here."""


def root_of(lifecycle: Lifecycle) -> ElementTree.Element:
    """The parsed export of a lifecycle."""
    text = render(lifecycle, "scxml")
    assert isinstance(text, str)
    return ElementTree.fromstring(text)


def never(name: str) -> Guard:
    """A guard."""
    return Guard(name, lambda _: False, "never")


def test_scxml_has_what_the_recommendation_knows() -> None:
    """Elements are of the W3C's namespace, where they may stand; what is ours has its own."""
    for element in root_of(SESSION_LIFECYCLE).iter():
        tag = element.tag.removeprefix(SCXML)
        assert element.tag == f"{{{NAMESPACE}}}{tag}"
        assert {child.tag.removeprefix(SCXML) for child in element} <= CHILDREN.get(tag, set())
        foreign = {name for name in element.attrib if name.startswith(OWN)}
        assert set(element.attrib) - foreign <= ATTRIBUTES.get(tag, set())


def test_scxml_has_every_status() -> None:
    """Each status is a state, the final one a `final`; the initial one is entered first."""
    root = root_of(SESSION_LIFECYCLE)
    assert root.get("initial") == "initializing"
    assert [state.get("id") for state in states_of(root)] == list(SESSION_LIFECYCLE.statuses)
    assert [each.get("id") for each in root.iter(f"{SCXML}final")] == ["terminated"]


def test_scxml_has_every_row_from_every_source() -> None:
    """Each row is a transition: its event, its target or none, and all of its conditions."""
    root = root_of(SESSION_LIFECYCLE)
    document = read(ElementTree.tostring(root, "unicode"))
    found = {
        (state.get("id"), each.get("event")): each
        for state in states_of(root)
        for each in state.findall(f"{SCXML}transition")
        if not str(each.get("event")).startswith("due-")
    }
    assert len(found) == len(list(SESSION_LIFECYCLE.moves()))
    for row, source in SESSION_LIFECYCLE.moves():
        transition = found[source, row.trigger]
        assert transition.get("target") == row.target
        conditions = [document.guards[guard.name] for guard in row.guards]
        conditions += [document.due[row.trigger]] if row.deadline else []
        assert transition.get("cond", "") == " && ".join(conditions)
        assert (transition.get(f"{OWN}ending") == "true") is row.ending
        assert (transition.get(f"{OWN}activity") == "true") is row.activity
        assert transition.get(f"{OWN}why", "") == row.why


def test_scxml_sends_what_fires_by_itself() -> None:
    """A grace that begins with the status is a delayed event, cancelled on leaving."""
    root = root_of(SESSION_LIFECYCLE)
    sent = {each.get("id"): each.get("delay") for each in root.iter(f"{SCXML}send")}
    assert sent == {
        "timer_start_timeout_in_initializing": "60s",
        "timer_stop_timeout_in_terminating": "10s",
    }
    assert {each.get("sendid") for each in root.iter(f"{SCXML}cancel")} == sent.keys()


@pytest.mark.parametrize(
    ("seconds", "delay"), [(0, "0s"), (0.5, "0.5s"), (1e-6, "0.000001s"), (86_400e3, "86400000s")]
)
def test_scxml_writes_delays_without_exponents(seconds: float, delay: str) -> None:
    """A delay is a number and its unit, as CSS 2 has it."""
    lifecycle = SESSION_LIFECYCLE.extend(graces={"stop": seconds})
    [send] = [
        each
        for each in root_of(lifecycle).iter(f"{SCXML}send")
        if each.get("event") == "due-stop_timeout"
    ]
    assert send.get("delay") == delay


def test_scxml_leaves_a_deadline_to_its_host_that_is_not_of_the_status() -> None:
    """A deadline of the author's own, though it uses a grace, is nothing that a delay can say."""
    own = Deadline("when it suits", lambda _: None, "start")
    rows = [
        Row("stop", "a", "z", ending=True),
        Row("late", "a", "z", deadline=own),
        Row("later", "a", "z", deadline=after_grace("start")),
    ]
    root = root_of(Lifecycle(("a", "z"), "a", rows, graces={"start": 1}))
    assert [each.get("event") for each in root.iter(f"{SCXML}send")] == ["due-later"]
    events = [each.get("event") for each in root.iter(f"{SCXML}transition")]
    assert events == ["stop", "late", "due-late", "later", "due-later"]


def test_scxml_names_are_ids_and_differ() -> None:
    """Whatever the words are, each state and each variable has a name of its own."""
    rows = [
        Row("stop", ("guard_a_b", "in review", "s1"), "z", ending=True),
        Row("go", "guard_a_b", "in review", guards=(never("a b"), never("a-b"), never("é"))),
        Row("on", "in review", "s1", guards=(never('"<&>"\n'), never("ü"))),
        Row("guard", LIVE, None),
    ]
    root = root_of(Lifecycle(("guard_a_b", "in review", "s1", "z"), "guard_a_b", rows, name="é <"))
    ids = [str(each.get("id")) for each in root.iter() if each.get("id") is not None]
    assert len(ids) == len(set(ids)) == 4 + 5
    assert all(each.isascii() and each.isidentifier() for each in ids)
    states = {state.get(f"{OWN}status"): state.get("id") for state in states_of(root)}
    assert list(states) == ["guard_a_b", "in review", "s1", "z"]
    assert root.get("initial") == states["guard_a_b"]
    targets = {each.get("target") for each in root.iter(f"{SCXML}transition")} - {None}
    assert targets <= set(states.values())
    guards = [each.get(f"{OWN}guard") for each in root.iter(f"{SCXML}data")]
    assert guards == ["a b", "a-b", "é", '"<&>"\\n', "ü"]
    assert root.get(f"{OWN}lifecycle") == "é <"
    assert str(root.get("name")).isascii()


def test_scxml_of_a_bare_lifecycle_has_no_variables() -> None:
    """Without guards and deadlines there is nothing to declare."""
    root = root_of(Lifecycle(("a", "z"), "a", [Row("stop", "a", "z")]))
    assert [each.tag.removeprefix(SCXML) for each in root] == ["state", "final"]
