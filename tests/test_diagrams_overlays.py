"""What is shown on top of a lifecycle: a session and its way, a fleet, and what tests cover."""

import re
from collections.abc import Mapping
from datetime import timedelta, timezone
from typing import Any

import attrs
import pygraphviz
import pytest
from drawing import (
    IDLE,
    LIFE,
    ODD,
    SANDBOX,
    START,
    WAYS,
    a_life,
    cells,
    from_mermaid,
    from_plantuml,
    svg_texts,
    text,
)

from session_fsm import SESSION_LIFECYCLE, SessionEvent, SessionManager, permitted
from session_fsm.diagrams import FORMATS, render, standing
from session_fsm.diagrams.looks import DARK, FAINT, HERE, INK, MISSED, RULE
from session_fsm.diagrams.path import path_of, shortened
from session_fsm.diagrams.words import span
from session_fsm.testing import ManualClock

EDGE = ("active", "idle")
EVERY = [name for name in FORMATS if name not in ("png", "dot", "scxml")]
"""The formats that show what is on top as text."""


def words_in(form: str, **shown: Any) -> str:
    """All that a drawing of the lifecycle of sessions says, each text on a line."""
    drawn = text(SESSION_LIFECYCLE, form, **shown)
    if form == "svg":
        return "\n".join(svg_texts(drawn))
    words = from_plantuml(from_mermaid(drawn)).replace("\u00a0", "")
    return words.replace("\\n", "\n").replace("\\", "")


def graph_of(**shown: Any) -> pygraphviz.AGraph:
    """The DOT of the lifecycle of sessions, read."""
    return pygraphviz.AGraph(string=text(SESSION_LIFECYCLE, "dot", **shown))


def line(graph: pygraphviz.AGraph, source: str, target: str, style: str) -> Mapping[str, str]:
    """The attributes of the line of one style that leaves a source for a target."""
    card = f"s_{source} to s_{target}"
    (found,) = (
        dict(edge.attr)
        for edge in graph.edges()
        if card in edge and f"s_{source}" in edge and edge.attr["style"] == style
    )
    return found


# --- the fleet ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "moves", "none", "here"),
    [
        ("mermaid", "2,312 ×", "0 ×<br/>■ abort", "s_idle : 1,234 here"),
        ("markdown", "| active | idle | 2,312 |", "| terminating | 0 |", "| idle | 1,234 |"),
        ("svg", "2,312 ×", "0 ×", "1,234 here"),
        ("dot", ">2,312 ×&#160;", ">0 ×&#160;", ">1,234 here&#160;"),
        ("plantuml", "2,312 ×", "0 ×", "s_idle : 1,234 here"),
        ("text", "2,312 × to idle", "0 × to terminating", "idle · 1,234 here"),
        ("ascii", "2,312 x to idle", "0 x to terminating", "idle ; 1,234 here"),
        ("html", "<td>idle</td><td>2,312</td>", "<td>0</td>", "<td>idle</td><td>1,234</td>"),
    ],
)  # fmt: skip
def test_diagrams_show_counts(form: str, moves: str, none: str, here: str) -> None:
    """Traffic stands at its edge and sessions in their status; without counts there are none."""
    counts = {("active", "idle"): 2312, ("idle", "active"): 7}
    counted = text(SESSION_LIFECYCLE, form, counts=counts, status_counts={"idle": 1234})
    bare = text(SESSION_LIFECYCLE, form)
    for words in (moves, none, here):
        assert words in counted
        assert words not in bare


@pytest.mark.parametrize("form", EVERY)
def test_diagrams_show_traffic_by_row(form: str) -> None:
    """Each row has its own number, those that keep the status too; an edge has their sum."""
    traffic = {("terminate", "idle"): 4321, ("expire", "idle"): 1111, ("touch", "idle"): 8765}
    shown = words_in(form, traffic=traffic)
    sign = "x" if form == "ascii" else "×"
    for number in ("4,321", "1,111", "8,765"):
        assert f"{number} {sign}" in shown
    if form not in ("text", "ascii", "markdown", "html"):
        assert "5,432 ×" in shown
    if form in ("markdown", "html"):
        assert "5,432" in shown


def test_diagrams_draw_busy_edges_wider() -> None:
    """The width of a line grows with its traffic, of an edge or of its own row."""
    by_edge = graph_of(counts={("active", "idle"): 2000, ("idle", "active"): 20})
    by_row = graph_of(
        traffic={("go_idle", "active"): 2000, ("resume", "idle"): 20, ("terminate", "idle"): 20}
    )
    for graph in (by_edge, by_row):
        widths = [
            float(line(graph, *edge, "solid")["penwidth"])
            for edge in (("initializing", "active"), ("idle", "active"), ("active", "idle"))
        ]
        assert widths[0] < widths[1] < widths[2]
    rare, usual = (line(by_row, "idle", "terminating", each) for each in ("dashed", "solid"))
    assert float(rare["penwidth"]) < float(usual["penwidth"])


def test_diagrams_of_an_idle_fleet_divide_by_nothing() -> None:
    """Where everything is 0, all lines are thin."""
    ways: list[dict[str, Any]] = [{"counts": {}}, {"traffic": {}}, {"counts": {EDGE: 0}}]
    for shown in ways:
        graph = graph_of(**shown)
        lines = [each.attr["penwidth"] for each in graph.edges_iter() if each[0] != "begin"]
        assert set(lines) == {"1.3"}


# --- one session -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", EVERY)
def test_diagrams_show_where_a_session_stands(form: str) -> None:
    """The status, the triggers that are permitted, and when the next one is due are shown."""
    at = IDLE.updated_at + timedelta(minutes=1)
    shown = words_in(form, **standing(IDLE, at=at))
    bare = words_in(form)
    due = IDLE.last_activity_at + timedelta(minutes=30)
    assert f"due {due:%Y-%m-%d %H:%M:%S} UTC" in shown
    if form in ("markdown", "html"):
        assert "It is in idle now." in shown
        assert "Permitted now: resume, terminate, touch and update." in shown
        return
    yes, here = ("+", ">") if form == "ascii" else ("✓", "▶")
    ending = "*" if form == "ascii" else "■"
    assert shown.count(f"{here} here now") == 2
    for name in ("resume", f"{ending} terminate", "touch", "update"):
        assert len(re.findall(rf"{re.escape(f'{yes} {name}')}(?!\w)", shown)) == 1
    assert f"{yes} go_idle" not in shown
    for words in ("here now", "permitted now", f"{yes} resume", "due "):
        assert words not in bare


def test_diagrams_standing_is_what_the_library_says() -> None:
    """`standing` gives what `permitted` and the state say at that instant, timed rows included."""
    late = IDLE.last_activity_at + timedelta(minutes=31)
    found = standing(IDLE, at=late)
    assert found["permitted"] == permitted(IDLE, at=late)
    assert "expire" in found["permitted"]
    assert found["next_timed"] == ("expire", IDLE.last_activity_at + timedelta(minutes=30))
    assert text(SESSION_LIFECYCLE, "dot", **found) != text(SESSION_LIFECYCLE, "dot")


def test_diagrams_colour_what_is_permitted_and_here() -> None:
    """In drawings, the current status is green with a thick border, as are lines that may go."""
    graph = graph_of(current="active", permitted=["go_idle"])
    assert graph.get_node("s_active").attr["color"] == HERE
    assert float(graph.get_node("s_active").attr["penwidth"]) > 2
    assert graph.get_node("s_idle").attr["color"] != HERE
    assert line(graph, "active", "idle", "solid")["color"] == HERE
    assert line(graph, "active", "terminating", "solid")["color"] != HERE
    assert "class s_active current" in text(SESSION_LIFECYCLE, "mermaid", current="active")
    assert "-[#17722f,bold]->" in text(
        SESSION_LIFECYCLE, "plantuml", current="active", permitted=["go_idle"]
    )


def test_diagrams_nothing_permitted_is_shown_as_that() -> None:
    """No permitted trigger at all is another picture than not asking for any."""
    assert "Permitted now: nothing." in text(
        SESSION_LIFECYCLE, "markdown", current="terminated", permitted=()
    )
    assert "Permitted" not in text(SESSION_LIFECYCLE, "markdown", current="terminated")


@pytest.mark.parametrize("form", EVERY)
def test_diagrams_show_a_path(form: str) -> None:
    """Each step has its number and its time where it was taken; statuses how long they held."""
    events, _ = a_life(2)
    shown = words_in(form, history=events)
    assert "imes are UTC, 2026-03-02" in shown
    if form in ("markdown", "html"):
        for event in events:
            assert f"{event.at:%Y-%m-%dT%H:%M:%S}.000000Z" in shown
        assert len(re.findall(r"2026-03-02T", shown)) == len(events)
        return
    assert "created #1 12:00:00" in shown
    for event in events:
        assert f"#{event.revision} {event.at:%H:%M:%S}" in shown
    assert "2 ×, 1 min 7 s here" in shown.replace(" x,", " ×,")
    assert "since 12:01:14" in shown


@pytest.mark.parametrize("form", EVERY)
def test_diagrams_of_long_paths_stay_readable(form: str) -> None:
    """A session that went a way a thousand times is drawn about as large as one that did once."""
    events, _ = a_life(300)
    short, long = (words_in(form, history=each) for each in (a_life(9)[0], events))
    assert len(events) > 1000
    assert f"{events[-1].revision:,}" in long
    if form not in ("markdown", "html"):
        assert len(long) < 1.2 * len(short)
    else:
        assert long.count("2026-03-02T") == len(events)


def test_diagrams_paths_fade_what_was_not_taken() -> None:
    """Lines and statuses off the path are pale, those on it keep their colours and are wide."""
    graph = graph_of(history=LIFE)
    assert line(graph, "active", "idle", "solid")["color"] not in (RULE, FAINT)
    assert float(line(graph, "active", "idle", "solid")["penwidth"]) > 2
    for style in ("solid", "dashed"):
        assert line(graph, "active", "terminating", style)["color"] == RULE
    assert graph.get_node("s_terminated").attr["color"] == RULE
    assert graph.get_node("s_active").attr["color"] != RULE


def test_diagrams_paths_of_several_days_tell_the_day() -> None:
    """Where a life is longer than a day, each time has its day."""
    clock = ManualClock(START)
    with SessionManager(clock=clock) as manager:
        manager.create("a", config={"timeout_minutes": None})
        clock.advance(timedelta(days=2, hours=3))
        manager.begin_task("a", "t")
        shown = words_in("text", history=manager.history("a"))
    assert "#3 2026-03-04 15:00:00" in shown
    assert "times are UTC" in shown
    assert "times are UTC, 2" not in shown


def test_diagrams_path_begins_with_this_life() -> None:
    """What is left of a purged life is no step; an empty or partial history is shown as it is."""
    clock = ManualClock(START)
    with SessionManager(clock=clock) as manager:
        manager.create("a")
        manager.terminate("a")
        clock.advance(timedelta(days=1))
        manager.purge(ended_before=clock.now())
        (tombstone,) = manager.history("a")
        assert path_of([tombstone]).steps == ()
        manager.create("a")
        events = manager.history("a")
    assert events[0] == tombstone
    assert [step.number for step in path_of(events).steps] == [e.revision for e in events[1:]]
    assert "created #6 12:00:00" in words_in("text", history=events)
    assert "created" not in words_in("text", history=LIFE[3:])
    assert "not taken" in words_in("svg", history=())


def test_diagrams_path_words_are_short() -> None:
    """Many steps are told by the first ones and the last, durations in two units."""
    steps = path_of(LIFE).at_row("go_idle", "active")
    assert [len(shortened(steps, most)) for most in (3, 5, 9, 10)] == [3, 5, 9, 9]
    assert shortened(steps, 4)[2] == "… 6 more …"
    assert shortened(steps, 4)[3] == steps[-1].told
    lengths = (0.0004, 0.25, 9.99, 59.9, 60, 3599, 3600, 90061, 86400 * 400 + 1)
    assert [span(timedelta(seconds=each)) for each in lengths] == [
        "0.0004 s", "0.25 s", "9.99 s", "59 s", "1 min", "59 min 59 s", "1 h", "1 d 1 h", "400 d",
    ]  # fmt: skip


# --- coverage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", EVERY)
def test_diagrams_show_coverage(form: str) -> None:
    """A row that no test fired is named as such, the others have their number, for each source."""
    missed = ("expire", "idle")
    coverage = {cell: 1000 + number for number, cell in enumerate(cells(SESSION_LIFECYCLE))}
    shown = words_in(form, coverage=coverage | {missed: 0})
    left_out = {cell: number for cell, number in coverage.items() if cell != missed}
    assert words_in(form, coverage=left_out) == shown
    for cell, number in coverage.items():
        assert (f"{number:,}" in shown) == (cell != missed)
    assert len(re.findall(r"not covered", shown, re.IGNORECASE)) >= 2, "at the row, and in all"
    if form == "markdown":
        assert "| `expire` | idle | not covered |" in shown
    if form in ("markdown", "html"):
        assert "Tests fired 22 of 23 rows. Not covered: expire from idle." in shown.replace(
            '</p>\n<p class="told">', " "
        )
    else:
        assert "1 of 23 rows not covered" in shown
    none = words_in(form, coverage=coverage)
    assert "✗ expire" not in none
    assert "Not covered" not in none


def test_diagrams_colour_what_is_not_covered_red() -> None:
    """The line of a row that was missed is red and wide; nothing else is red."""
    missed = {("expire", "idle"), ("touch", "active")}
    coverage = {cell: int(cell not in missed) for cell in cells(SESSION_LIFECYCLE)}
    graph = graph_of(coverage=coverage)
    red = {(each[0], each[1]) for each in graph.edges() if each.attr["color"] == MISSED}
    assert red == {
        ("s_idle", "s_idle to s_terminating"),
        ("s_idle to s_terminating", "s_terminating"),
    }
    assert f'<FONT COLOR="{MISSED}" POINT-SIZE="10"><B>✗ touch' in text(
        SESSION_LIFECYCLE, "dot", coverage=coverage
    )
    mermaid = text(SESSION_LIFECYCLE, "mermaid", coverage=coverage)
    assert re.findall(r"class (\w+) missed", mermaid) == ["s_active", "s_idle"]
    assert f"classDef missed stroke:{MISSED}," in mermaid
    assert "-[#d0021b,bold]-> s_terminating" in text(
        SESSION_LIFECYCLE, "plantuml", coverage=coverage
    )
    page = text(SESSION_LIFECYCLE, "html", coverage=coverage)
    assert re.findall(r'<tr class="missed"><td>(\w+)</td><td>(\w+)</td>', page) == [
        ("expire", "idle"),
        ("touch", "active"),
    ]
    full = text(SESSION_LIFECYCLE, "dot", coverage=dict.fromkeys(coverage, 1))
    assert full.count(MISSED) == 1, "the legend alone"


# --- what goes together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        ({"counts": {("active", "terminated"): 1}}, "no edge ('active', 'terminated')"),
        ({"status_counts": {"asleep": 1}}, "no status 'asleep'"),
        ({"traffic": {("go_idle", "idle"): 1}}, "no row ('go_idle', 'idle')"),
        ({"coverage": {("nap", "idle"): 0}}, "no row ('nap', 'idle')"),
        ({"coverage": {("touch", "idle"): -1}}, "is no count: -1"),
        ({"status_counts": {"idle": 1.5}}, "is no count: 1.5"),
        ({"counts": {}, "traffic": {}}, "counts and traffic both count moves"),
        ({"counts": {}, "current": "idle"}, "current and counts contradict"),
        ({"status_counts": {}, "history": ()}, "history and status_counts contradict"),
        ({"coverage": {}, "traffic": {}}, "traffic and coverage contradict"),
        ({"coverage": {}, "current": "idle"}, "current and coverage contradict"),
        ({"permitted": ()}, "permitted holds in a status: give current too"),
        ({"next_timed": ("expire", START)}, "next_timed holds in a status"),
        ({"current": "asleep"}, "no status 'asleep' to be the current one"),
        ({"current": "idle", "permitted": ("go_idle",)}, "no row for 'go_idle' leaves 'idle'"),
        ({"current": "idle", "permitted": "resume"}, "expected triggers, got the one text"),
        ({"current": "idle", "next_timed": ("resume", START)}, "'resume' doesn't fire by itself"),
        ({"current": "idle", "next_timed": ("nap", START)}, "'nap' doesn't fire by itself"),
        ({"current": "active", "history": LIFE}, "the history ends in 'idle', not in 'active'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["dot", "text"])
def test_diagrams_refuse_what_contradicts(shown: dict[str, Any], problem: str, form: str) -> None:
    """What could be shown nowhere, or can't be true together, is an error that names it."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        render(SESSION_LIFECYCLE, form, **shown)


def altered(number: int, **changes: Any) -> list[SessionEvent]:
    """The life with one event changed."""
    events = list(LIFE)
    events[number] = attrs.evolve(events[number], **changes)
    return events


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (altered(0, target="idle"), "event 1: no life begins in 'idle'"),
        (altered(2, trigger="nap"), "event 3: no row 'nap' from 'active'"),
        (altered(2, source="idle"), "event 3: no row 'begin_task' from 'idle'"),
        (altered(4, target="active"), "event 5: 'go_idle' doesn't lead to 'active'"),
        ([LIFE[0], LIFE[2]], "event 3 begins in 'active', not where the one before led"),
        ([LIFE[1], LIFE[0]], "event 1 comes after event 2: not in order"),
        ([*LIFE, LIFE[-1]], "comes after event"),
    ],
)
def test_diagrams_refuse_what_is_no_life(events: list[SessionEvent], problem: str) -> None:
    """A history that the lifecycle can't have led to is refused with the event that tells."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        render(SESSION_LIFECYCLE, "text", history=events)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("way", WAYS)
def test_diagrams_draw_everything_in_every_format(form: str, way: str) -> None:
    """Every format takes what is shown on top; most of them are another drawing with it."""
    drawn = render(SESSION_LIFECYCLE, form, **WAYS[way])
    assert drawn
    if form != "scxml":
        assert drawn != render(SESSION_LIFECYCLE, form)


def test_diagrams_of_other_lifecycles_have_overlays_too() -> None:
    """Loops, odd names and any number of statuses are no hindrance."""
    for lifecycle in (SANDBOX, ODD):
        coverage = dict.fromkeys(cells(lifecycle), 0)
        status = lifecycle.statuses[1]
        allowed = [row.trigger for row in lifecycle.leaving(status)]
        for form in ("text", "ascii", "dot", "mermaid", "plantuml", "markdown", "html"):
            assert len(text(lifecycle, form, coverage=coverage)) > len(text(lifecycle, form))
            text(lifecycle, form, current=status, permitted=allowed)
            text(lifecycle, form, traffic=coverage, status_counts={status: 2})


# --- light and dark ----------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """How well one colour can be read on another: 1 to 21, as WCAG 2 counts."""

    def light(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_diagrams_colours_can_be_read() -> None:
    """Each colour of letters has a contrast of 4.5 with each ground, in light and in dark."""
    grounds = ["white", "#eaf2fa", "#e9ecef", "#dcf3e2"]
    letters = [color for color in DARK if color not in (*grounds, RULE)]
    assert {INK, FAINT, HERE, MISSED} <= set(letters)
    for ground in grounds:
        light = "#ffffff" if ground == "white" else ground
        for color in letters:
            assert contrast(color, light) >= 4.5, (color, light)
            assert contrast(DARK[color], DARK[ground]) >= 4.5, (color, ground, "dark")


@pytest.mark.parametrize("way", [{}, *WAYS.values()], ids=["plain", *WAYS])
def test_diagrams_svg_has_a_dark_side_of_each_colour(way: dict[str, Any]) -> None:
    """Every colour in an SVG has one that stands for it where pages are dark, ground included."""
    svg = text(SESSION_LIFECYCLE, "svg", **way)
    style, body = svg[: svg.index("</style>")], svg[svg.index("</style>") :]
    assert "@media (prefers-color-scheme: dark)" in style
    used = set(re.findall(r'(fill|stroke)="([^"]+)"', body))
    for name, color in used:
        if color not in ("none", "transparent"):
            assert f'[{name}="{color}"] {{ {name}: {DARK[color]} }}' in style
    assert ("fill", "white") in used


def test_diagrams_times_are_utc() -> None:
    """Instants of other zones are shown in UTC."""
    zone = timezone(timedelta(hours=5, minutes=45))
    events = [attrs.evolve(event, at=event.at.astimezone(zone)) for event in LIFE]
    assert text(SESSION_LIFECYCLE, "text", history=events) == text(
        SESSION_LIFECYCLE, "text", history=LIFE
    )
