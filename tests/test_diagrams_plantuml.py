"""PlantUML: the whole graph in its grammar, and names that its markup can't take for its own."""

import re

import pytest
from drawing import LIFECYCLES, ODD, ODD_WORDS, WAYS, from_plantuml, text

from session_fsm import SESSION_LIFECYCLE
from session_fsm.diagrams.plantuml import escaped
from session_fsm.lifecycle import Lifecycle

STATE = re.compile(r'state "([^"]*)" as (s\w+)( #[0-9a-f]{6})?')
ARROW = re.compile(r"(s\w+) -(?:up)?\[#[0-9a-f]{6}(?:,dashed)?(?:,bold)?\]-> (s\w+) : (.*)")
DESCRIPTION = re.compile(r"(s\w+) : (.+)")
OTHERS = re.compile(
    r"@startuml|@enduml|'.*|hide empty description|skinparam [\w ]+#?\w*( \{)?|  \w+ #?\w+|\}"
    r"|\[\*\] --> s\w+|s\w+ --> \[\*\]|legend|endlegend"
)
COLOR = re.compile(r"</?color(:#[0-9a-f]{6})?>")


def names_of(diagram: str) -> dict[str, str]:
    """The name of each status by its key."""
    return {key: from_plantuml(name) for name, key, _ in STATE.findall(diagram)}


@LIFECYCLES
@pytest.mark.parametrize("way", [None, *WAYS])
def test_diagrams_plantuml_is_in_its_grammar(lifecycle: Lifecycle, way: str | None) -> None:
    """Every line is one of the few forms of a state diagram, with every overlay."""
    if way is not None and lifecycle is not SESSION_LIFECYCLE:
        return
    lines = text(lifecycle, "plantuml", **WAYS.get(way or "", {})).splitlines()
    legend = slice(lines.index("legend") + 1, lines.index("endlegend"))
    told = lines[legend]
    for line in (*lines[: legend.start], *lines[legend.stop :]):
        assert any(form.fullmatch(line) for form in (STATE, ARROW, DESCRIPTION, OTHERS)), line
    assert (lines[0], lines[-1]) == ("@startuml", "@enduml")
    keys = {key for _, key, _ in STATE.findall("\n".join(lines))}
    for line in lines:
        if found := ARROW.fullmatch(line):
            assert {found[1], found[2]} <= keys
    assert all(COLOR.sub("", words).strip() for words in told)


@LIFECYCLES
def test_diagrams_plantuml_has_the_edges_of_the_lifecycle(lifecycle: Lifecycle) -> None:
    """One arrow leads from each source to each target, with the rows between them on it."""
    diagram = text(lifecycle, "plantuml")
    names = names_of(diagram)
    assert tuple(names.values()) == tuple(lifecycle.statuses)
    arrows = ARROW.findall(diagram)
    assert tuple((names[source], names[target]) for source, target, _ in arrows) == lifecycle.edges
    for source, target, label in arrows:
        lines = [from_plantuml(line).strip("\u00a0") for line in label.split(r"\n")]
        for row in lifecycle.rows:
            if row.target == names[target] and names[source] in lifecycle.sources(row):
                sign = "◷ " * (row.deadline is not None) + "■ " * row.ending
                assert any(re.match(rf"{sign}{row.trigger}( \[|$)", line) for line in lines)
    initial = re.findall(r"^\[\*\] --> (\w+)$", diagram, re.MULTILINE)
    final = re.findall(r"^(\w+) --> \[\*\]$", diagram, re.MULTILINE)
    assert [names[key] for key in initial] == [lifecycle.initial]
    assert tuple(names[key] for key in final) == lifecycle.final


def test_diagrams_plantuml_shows_names_as_they_are() -> None:
    """Whatever means something to PlantUML's markup is written by its number."""
    diagram = text(ODD, "plantuml")
    assert tuple(names_of(diagram).values()) == ODD_WORDS
    labels = [name for name, _, _ in STATE.findall(diagram)]
    labels += [label for _, _, label in ARROW.findall(diagram)]
    for label in labels:
        bare = re.sub(r"<U\+[0-9A-F]{4,}>|</?color(:#[0-9a-f]{6})?>|\\n", "", label)
        assert not re.search(r"[\\`*<>{}:;\"'#$~%|&@!=.^?]|--|__|//|\[\[", bare), bare
    assert escaped("a_b -c --d __e **f") == (
        "a_b <U+002D>c <U+002D><U+002D>d <U+005F><U+005F>e <U+002A><U+002A>f"
    )
    assert escaped("end") == "end"


@pytest.mark.parametrize("arrow", ["s_active -[#17722f,bold]-> s_idle", "s_idle -up[#1f5f99,bold]"])
def test_diagrams_plantuml_arrows_have_the_look_of_their_rows(arrow: str) -> None:
    """What is permitted and what was taken is bold, what leads back points upwards."""
    shown = {"current": "active", "permitted": ["go_idle"], "history": WAYS["path"]["history"][:7]}
    assert arrow in text(SESSION_LIFECYCLE, "plantuml", **shown)
