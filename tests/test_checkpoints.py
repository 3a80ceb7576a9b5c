"""Checkpoints: what stands for events tells what they told, and no change of one goes unseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    SessionConfig,
    SessionEvent,
    dumps,
)
from session_fsm.compaction import checkpoint_of, fired
from session_fsm.history import audit, chained, decode, encode, rebuild
from session_fsm.stores import MemoryStore
from session_fsm.testing.authors import Author

Chain = list[tuple[bytes, SessionEvent]]
MOVES = (
    "activate",
    ("begin_task", {"task_id": "t"}),
    ("update", {"metadata": {"x": [1, True, -0.0]}}),
    "touch",
    ("end_task", {"task_id": "t"}),
    "start_conversation",
    "go_idle",
    "resume",
)


def a_life(reborn: bool = False) -> Chain:
    """The history of a session as a store hands it out; on demand with another life before."""
    author = Author(MemoryStore())
    if reborn:
        author.write("a", "activate", "terminate", "finish")
        author.bury("a")
    author.write("a", *MOVES, metadata={"é": [{}, None]})
    return list(author.store.history("a"))


def shortened(history: Chain, at: int) -> Chain:
    """Put a checkpoint in the place of the first events of a history."""
    events = [event for _, event in history]
    made = checkpoint_of(events, len(events) - at, SESSION_LIFECYCLE)
    if made is None:
        return history
    sealed = made.sealed()
    return [(sealed.body, sealed.event), *history[at:]]


def faults(history: Chain) -> tuple[str, ...]:
    """What audit has against a history as it would be read."""
    read = [(body, decode(body, event.digest)) for body, event in history]
    return audit(read, SESSION_LIFECYCLE)[0]


# --- what it tells ---------------------------------------------------------------------------


def test_checkpoints_are_read_back() -> None:
    """What is read from the bytes of a checkpoint is the checkpoint, and tells what it covers."""
    [(body, event), *_] = history = shortened(a_life(), 5)
    assert decode(body, event.digest) == event
    assert encode(event) == body
    told = event.changes["stands_for"]
    assert event.digest == chained(told["last_digest"], body)
    assert (event.kind, event.revision, event.trigger, event.reason) == (
        "checkpoint",
        5,
        None,
        None,
    )
    assert (event.source, event.target) == ("active", "active")
    assert told == {
        "last_digest": a_life()[4][1].digest,
        "events": 5,
        "fired": [
            ["activate", "initializing", 1],
            ["begin_task", "active", 1],
            ["touch", "active", 1],
            ["update", "active", 1],
        ],
    }
    assert history[1:] == a_life()[5:]


@pytest.mark.parametrize(
    ("config", "number"), [({}, 1), ({"recovery": "restart"}, 3)], ids=["released", "restarted"]
)
def test_checkpoints_are_of_the_oldest_format_that_will_do(
    config: dict[str, Any], number: int
) -> None:
    """A checkpoint is of the format that its state needs, and gives that state again."""
    author = Author(MemoryStore(), config_of=lambda _: SessionConfig(**config))
    author.write("a", *MOVES)
    whole = list(author.store.history("a"))
    [(body, event), *_] = history = shortened(whole, 5)
    assert json.loads(body)["format"] == number
    assert decode(body, event.digest) == event
    assert faults(history) == ()
    states = [rebuild((event for _, event in each), SESSION_LIFECYCLE) for each in (history, whole)]
    assert states[0] is not None
    assert states[0] == states[1]
    assert states[0].config == SessionConfig(**config)


@pytest.mark.parametrize("reborn", [False, True], ids=["one life", "another life before"])
@settings(max_examples=40)
@given(cuts=st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_checkpoints_tell_what_the_events_told(reborn: bool, cuts: Sequence[int]) -> None:
    """However a history is cut, and cut again, state, traffic and the end of the chain stay."""
    whole = history = a_life(reborn)
    for cut in cuts:
        if cut < len(history):
            history = shortened(history, cut)
    assert audit(history, SESSION_LIFECYCLE) == audit(whole, SESSION_LIFECYCLE)
    assert faults(history) == ()
    assert fired(event for _, event in history) == fired(event for _, event in whole)
    states = [rebuild((event for _, event in each), SESSION_LIFECYCLE) for each in (history, whole)]
    assert states[0] is not None
    assert states[1] is not None
    assert dumps(states[0]) == dumps(states[1])
    if (first := history[0][1]).kind == "checkpoint":
        assert first.changes["stands_for"]["events"] == len(whole) - len(history) + 1


def test_checkpoints_need_a_living_session() -> None:
    """No events, a checkpoint alone, and what is left of another life alone make no checkpoint."""
    events = [event for _, event in a_life(reborn=True)]
    assert checkpoint_of([], 1, SESSION_LIFECYCLE) is None
    assert checkpoint_of(events, len(events), SESSION_LIFECYCLE) is None
    assert checkpoint_of(events, len(events) - 1, SESSION_LIFECYCLE) is None
    assert checkpoint_of(events, len(events) - 2, SESSION_LIFECYCLE) is not None
    short = [event for _, event in shortened(a_life(), 5)]
    assert checkpoint_of(short, len(short) - 1, SESSION_LIFECYCLE) is None


def test_checkpoints_keep_a_history_going_on() -> None:
    """Any tail of a history verifies behind the checkpoint that belongs before it, and no other."""
    whole = a_life()
    for cut in range(1, len(whole)):
        assert faults(shortened(whole, cut)) == ()
        for other in range(1, len(whole)):
            if other != cut:
                assert faults([shortened(whole, cut)[0], *whole[other:]])


# --- what is found ---------------------------------------------------------------------------


def changed(history: Chain, change: Callable[[dict[str, Any]], object], *, seal: bool) -> Chain:
    """Change the checkpoint of a history, and on demand give it the digest that it has then."""
    [(body, event), *rest] = history
    told = json.loads(body)
    change(told)
    forged = json.dumps(told).encode()
    digest = event.digest
    if seal:
        digest = chained(told["changes"]["stands_for"]["last_digest"], forged)
    return [(forged, decode(forged, digest)), *rest]


def counting(row: list[Any]) -> Callable[[dict[str, Any]], object]:
    """Return what replaces the counts of a checkpoint, and says so many events that it adds up."""

    def change(told: dict[str, Any]) -> None:
        told["changes"]["stands_for"].update(fired=[row], events=row[2] + 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(at="2026-03-01T12:00:09.000000Z"),
        lambda told: told.update(reason="other"),
        lambda told: told["changes"].update(metadata={}),
        lambda told: told["changes"]["stands_for"].update(events=4),
        lambda told: told["changes"]["stands_for"]["fired"].pop(),
        lambda told: told["changes"]["stands_for"].update(last_digest="0" * 64),
    ],
    ids=["at", "reason", "metadata", "events", "fired", "digest"],
)
def test_checkpoints_that_were_changed_are_found(
    change: Callable[[dict[str, Any]], object],
) -> None:
    """Its digest covers all of its bytes."""
    found = faults(changed(shortened(a_life(), 5), change, seal=False))
    assert "revision 5: its digest does not match" in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda told: told["changes"]["stands_for"].update(last_digest="0" * 64),
            "revision 6: its digest does not match",
        ),
        (lambda told: told.update(revision=4), "revision 6: follows revision 4"),
        (
            lambda told: told.update(source="idle"),
            "revision 5: checkpoint 'idle' -> 'active' by nothing is no status to go on from",
        ),
        (
            lambda told: told.update(source="asleep", target="asleep"),
            "revision 5: checkpoint 'asleep' -> 'asleep' by nothing is no status to go on from",
        ),
        (
            lambda told: told.update(trigger="touch"),
            "revision 5: checkpoint 'active' -> 'active' by 'touch' is no status to go on from",
        ),
        (
            lambda told: told["changes"].update(status="idle"),
            "revision 5: checkpoint 'active' -> 'active' by nothing is no status to go on from",
        ),
        (
            lambda told: told["changes"]["stands_for"].update(events=4),
            "revision 5: its checkpoint stands for 4 events, of which 4 fired a row",
        ),
        (
            lambda told: told["changes"]["stands_for"].update(events=6),
            "revision 5: its checkpoint stands for 6 events, of which 4 fired a row",
        ),
        (
            lambda told: told["changes"]["stands_for"]["fired"].pop(),
            "revision 5: its checkpoint stands for 5 events, of which 3 fired a row",
        ),
        (
            counting(["touch", "terminated", 4]),
            "revision 5: its checkpoint counts 4 times 'touch' in 'terminated'",
        ),
        (
            counting(["touch", "active", -4]),
            "revision 5: its checkpoint counts -4 times 'touch' in 'active'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checkpoints_that_were_forged_are_found(
    change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    """A checkpoint with a digest that fits has to fit the table, itself, and what follows."""
    found = faults(changed(shortened(a_life(), 5), change, seal=True))
    assert any(each.startswith(problem) for each in found), found


def test_checkpoints_stand_at_the_beginning() -> None:
    """One that stands elsewhere is no link of a chain, whatever digest it has."""
    whole = a_life()
    [(body, event), *rest] = shortened(whole, 5)
    found = faults([*whole[:4], (body, event), *rest])
    assert found == ("revision 5: a checkpoint, but not the first of the history",)


@pytest.mark.parametrize(
    "told",
    [
        ...,
        None,
        [],
        {},
        {"last_digest": "", "events": 1},
        {"last_digest": "", "events": 1, "fired": [], "more": 1},
        {"last_digest": 1, "events": 1, "fired": []},
        {"last_digest": "", "events": True, "fired": []},
        {"last_digest": "", "events": 1.0, "fired": []},
        {"last_digest": "", "events": 1, "fired": {}},
        {"last_digest": "", "events": 1, "fired": "touch"},
        {"last_digest": "", "events": 1, "fired": [7]},
        {"last_digest": "", "events": 1, "fired": [["a", "b"]]},
        {"last_digest": "", "events": 1, "fired": [["a", "b", True]]},
        {"last_digest": "", "events": 1, "fired": [["a", None, 1]]},
    ],
    ids=repr,
)
def test_checkpoints_that_do_not_say_what_they_cover_are_none(told: Any) -> None:
    """What a checkpoint stands for is read strictly, or not at all."""
    body = json.loads(shortened(a_life(), 5)[0][0])
    body["changes"]["stands_for"] = told
    if told is ...:
        del body["changes"]["stands_for"]
    with pytest.raises(DeserializationError, match="stands_for: not as a checkpoint has it"):
        decode(json.dumps(body).encode(), "")


def test_checkpoints_alone_say_what_they_cover() -> None:
    """Another event that has such a thing among its changes makes up no state."""
    sealed = Author(MemoryStore()).draft("a").steps[0].sealed
    told = json.loads(sealed.body)
    told["changes"]["stands_for"] = {"last_digest": "", "events": 0, "fired": []}
    event = decode(json.dumps(told).encode(), "")
    with pytest.raises(DeserializationError, match="stands_for"):
        rebuild([event], SESSION_LIFECYCLE)
