"""Events: what is sealed is read back, replaying rebuilds, and no change of a chain goes unseen."""

import copy
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    JsonArray,
    JsonObject,
    Row,
    SchemaVersionError,
    SessionConfig,
    SessionEvent,
    SessionMachine,
    SessionState,
    TransitionError,
    dumps,
)
from session_fsm.history import (
    NO_DIGEST,
    Sealed,
    Step,
    audit,
    chained,
    decode,
    encode,
    rebuild,
    seal,
    snapshot_problem,
    tombstone,
)
from session_fsm.testing import json_objects, states

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
Chain = list[Sealed]


def born(state: SessionState) -> Step:
    """The step that creates a session."""
    return Step(before=None, after=state, trigger=None, moves=False)


class Writer:
    """Lives a life, and seals each step of it."""

    def __init__(self, session_id: str = "a", **fields: Any) -> None:
        self.chain: Chain = []
        self.machine = SessionMachine(SessionState.new(session_id, at=START, **fields))
        self._seal(born(self.machine.state))

    @property
    def state(self) -> SessionState:
        return self.machine.state

    def fire(
        self, trigger: str, *, after: float = 1.0, reason: str | None = None, **more: Any
    ) -> None:
        before = self.state
        at = before.updated_at + timedelta(seconds=after)
        self.machine.fire(trigger, at=at, **more)
        row = SESSION_LIFECYCLE.find(trigger, before.status)
        assert row is not None
        moves = row.target is not None
        self._seal(
            Step(before=before, after=self.state, trigger=trigger, moves=moves, reason=reason)
        )

    def _seal(self, step: Step) -> None:
        self.chain.append(seal(step, revision=self.revision + 1, previous=self.digest))

    @property
    def revision(self) -> int:
        return self.chain[-1].event.revision if self.chain else 0

    @property
    def digest(self) -> str:
        return self.chain[-1].event.digest if self.chain else NO_DIGEST

    def purge(self) -> Sealed:
        return tombstone(
            self.state, revision=self.revision + 1, previous=self.digest, at=self.state.updated_at
        )


def a_life() -> Writer:
    """A life with every kind of event, tasks and data."""
    writer = Writer("é a", metadata={"n": [1, {"x": 0.5}]}, config={"features": ["f", "g"]})
    writer.fire("activate", reason="up")
    writer.fire("begin_task", task_id="t\u2019 1")
    writer.fire("begin_task", task_id="u")
    writer.fire("update", llm_config={"model": "m", "depth": 1})
    writer.fire("end_task", task_id="t\u2019 1")
    writer.fire("start_conversation")
    writer.fire("terminate", error="no\nmore", reason="asked \U0001f600")
    writer.fire("end_task", task_id="u")
    writer.fire("finish")
    return writer


def read(chain: Sequence[Sealed]) -> list[tuple[bytes, SessionEvent]]:
    """What a store would hand out: each body with what is read from it."""
    return [(each.body, decode(each.body, each.event.digest)) for each in chain]


def faults(chain: Sequence[Sealed]) -> tuple[str, ...]:
    """What audit has against a chain as it would be read."""
    return audit(read(chain), SESSION_LIFECYCLE)[0]


# --- one event -------------------------------------------------------------------------------


def test_history_event_is_read_back() -> None:
    """What is read from the bytes of an event is the event, of every kind."""
    writer = a_life()
    for sealed in [*writer.chain, writer.purge()]:
        assert decode(sealed.body, sealed.event.digest) == sealed.event
        assert encode(sealed.event) == sealed.body
        assert json.loads(sealed.body)["format"] == 1


def test_history_event_is_of_the_oldest_format_that_will_do() -> None:
    """Only events that tell what is new in a format are of it; all others are as before."""
    writer = Writer(config={"recovery": "restart"})
    writer.fire("activate")
    writer.fire("begin_task", task_id="t", timeout_seconds=60)
    writer.fire("update", config={"recovery": "end"})
    writer.fire("update", config={"timeout_minutes": 5})
    writer.fire("end_task", task_id="t")
    told = [json.loads(sealed.body) for sealed in writer.chain]
    assert [each["format"] for each in told] == [3, 1, 2, 3, 1, 2]
    configs = [each["changes"].get("config") for each in told]
    assert [config and config.get("recovery") for config in configs] == (
        ["restart", None, None, "end", None, None]
    )
    assert configs[4] == Writer(config={"timeout_minutes": 5}).chain[0].event.changes["config"]
    assert faults(writer.chain) == ()
    events = [event for _, event in read(writer.chain)]
    assert events == [sealed.event for sealed in writer.chain]
    assert [encode(event) for event in events] == [sealed.body for sealed in writer.chain]
    for number, event in enumerate(events[1:4], 1):
        state = rebuild(events[: number + 1], SESSION_LIFECYCLE)
        assert state is not None
        assert state.config.recovery == ("end" if event.revision == 4 else "restart")
    assert rebuild(events, SESSION_LIFECYCLE) == writer.state


def test_history_event_of_the_newest_format_is_written_so() -> None:
    """An event of format 3 has these bytes and this digest; both are for ever."""
    writer = Writer()
    writer.fire("activate")
    writer.fire("update", config={"recovery": "restart"})
    last = writer.chain[-1]
    assert last.body == (
        b'{"format":3,"session_id":"a","revision":3,"kind":"changed","trigger":"update",'
        b'"source":"active","target":"active","at":"2026-03-01T12:00:02.000000Z","reason":null,'
        b'"changes":{"config":{"max_conversations":100,"timeout_minutes":30,'
        b'"persistence_enabled":null,"features":[],"recovery":"restart"}}}'
    )
    assert last.event.digest == chained(writer.chain[-2].event.digest, last.body)
    assert last.event.digest == "711f8e47be90ca1044f8f5a324a5aa233bb2d736b6b66f15d894032d7a7f08a6"


def test_history_event_tells_what_changed() -> None:
    """An event holds what got another value, as `serialize` writes it, and nothing else."""
    created, activated, begun, *_ = [each.event for each in a_life().chain]
    assert (created.kind, created.trigger, created.source) == ("created", None, None)
    names = {field.name for field in attrs.fields(SessionState)}
    assert set(created.changes) == names - {"task_deadlines"}
    assert created.changes["created_at"] == "2026-03-01T12:00:00.000000Z"
    assert (activated.kind, activated.trigger, activated.reason) == ("moved", "activate", "up")
    assert (activated.source, activated.target) == ("initializing", "active")
    later = "2026-03-01T12:00:01.000000Z"
    assert activated.changes == {"status_since": later, "last_activity_at": later}
    assert (begun.kind, begun.source, begun.target) == ("changed", "active", "active")
    assert begun.changes == {
        "last_activity_at": "2026-03-01T12:00:02.000000Z",
        "active_tasks": ["t\u2019 1"],
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"x": 1}, {"x": True}),
        ({"x": 1}, {"x": 1.0}),
        ({"x": [False]}, {"x": [0]}),
        ({"x": 0.0}, {"x": -0.0}),
        ({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}),
    ],
    ids=repr,
)
def test_history_event_keeps_changes_that_python_does_not_see(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    """JSON that is equal in Python and written differently is a change, and is rebuilt."""
    writer = Writer(metadata=old)
    before = writer.state
    writer.fire("update", metadata=new)
    assert writer.chain[-1].event.changes.keys() == {"metadata"}
    rebuilt = rebuild([event for _, event in read(writer.chain)], SESSION_LIFECYCLE)
    assert rebuilt is not None
    assert dumps(rebuilt) == dumps(writer.state)
    assert snapshot_problem(writer.state, rebuilt, SESSION_LIFECYCLE) is None
    stale = before.derive({}, at=rebuilt.updated_at)
    problem = snapshot_problem(stale, rebuilt, SESSION_LIFECYCLE)
    assert problem == "its stored state differs from its history in metadata"


def test_history_event_of_equal_data_is_empty() -> None:
    """Data that is given again as it was is no change."""
    writer = Writer(metadata={"x": [1, 2.5]})
    writer.fire("update", metadata={"x": [1, 2.5]})
    assert writer.chain[-1].event.changes == {}


def test_history_event_never_changes() -> None:
    """Nobody changes an event, neither one that was sealed nor one that was read."""
    writer = Writer(config={"features": ["f"]}, metadata={"a": [{}]})
    sealed = writer.chain[0]
    for event in (sealed.event, decode(sealed.body, sealed.event.digest)):
        for value in (event.changes, event.changes["config"], event.changes["metadata"]["a"][0]):
            assert type(value) is JsonObject
            with pytest.raises(TypeError):
                value["x"] = 1
        for words in (event.changes["active_tasks"], event.changes["config"]["features"]):
            assert type(words) is JsonArray
            with pytest.raises(TypeError):
                words.append("x")
        assert hash(event) == hash(copy.deepcopy(event))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.revision = 7  # type: ignore[misc]  # that is what is tried


# --- bytes that are no event -----------------------------------------------------------------


def body(**changes: Any) -> bytes:
    """The bytes of an event with some keys changed; `...` leaves one out."""
    told = json.loads(Writer().chain[0].body) | changes
    return json.dumps({key: value for key, value in told.items() if value is not ...}).encode()


NEW = "unknown field in format"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"\xff{}", "not UTF-8"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"{}", "not the fields of an event"),
        (b'{"format": 1}', "not the fields of an event"),
        (b'{"format": 1, "format": 1}', 'the key "format" stands twice in one object'),
        (b"[" * 100_000, "not read: nested too deeply"),
        (body(format=...), "not the fields of an event"),
        (body(reason=...), "not the fields of an event"),
        (body(digest="x"), "not the fields of an event"),
        (body(format=True), "format: of the wrong type"),
        (body(format=1.0), "format: of the wrong type"),
        (body(format="1"), "format: of the wrong type"),
        (body(format=None), "format: of the wrong type"),
        (body(session_id=5), "session_id: of the wrong type"),
        (body(session_id=None), "session_id: of the wrong type"),
        (body(revision="1"), "revision: of the wrong type"),
        (body(revision=1.9), "revision: of the wrong type"),
        (body(revision=True), "revision: of the wrong type"),
        (body(kind=["created"]), "kind: of the wrong type"),
        (body(kind="died"), 'kind: unknown kind "died"'),
        (body(trigger={"a": 1}), "trigger: of the wrong type"),
        (body(source=["idle"]), "source: of the wrong type"),
        (body(target=5), "target: of the wrong type"),
        (body(at=None), "at: of the wrong type"),
        (body(at="2026-03-01"), "at: expected an instant"),
        (body(at="2026-02-30T00:00:00Z"), "at: no such instant"),
        (body(reason=False), "reason: of the wrong type"),
        (body(changes=[]), "changes: of the wrong type"),
        (body(changes=None), "changes: of the wrong type"),
        (body(changes={"config": {"recovery": "end"}}), f"changes.config.recovery: {NEW} 1"),
        (body(changes={"config": {"recovery": 5}}, format=2), f"changes.config.recovery: {NEW} 2"),
        (body(changes={"task_deadlines": {}}), f"changes.task_deadlines: {NEW} 1"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_history_decode_refuses_what_is_no_event(data: bytes, problem: str) -> None:
    """Nothing is guessed or converted: what is no event is told to be none."""
    with pytest.raises(DeserializationError) as caught:
        decode(data, "digest")
    assert caught.value.problems[0].startswith(problem)


def test_history_decode_names_every_wrong_type() -> None:
    """All that is of the wrong type is named at once."""
    with pytest.raises(DeserializationError) as caught:
        decode(body(revision=None, kind=1, changes=""), "")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "revision",
        "kind",
        "changes",
    ]


@pytest.mark.parametrize("depth", [400, 600, 900, 5_000])
def test_history_decode_takes_no_depth_for_a_crash(depth: int) -> None:
    """Changes of any depth are an event, or are refused as what they are."""
    deep = body(changes={"x": 0}).replace(b'"x": 0', b'"x": ' + b"[" * depth + b"]" * depth)
    try:
        event = decode(deep, "")
    except DeserializationError as fault:
        assert "nested too deeply" in str(fault)  # noqa: PT017 - either outcome is right
    else:
        assert event.changes.keys() == {"x"}


@pytest.mark.parametrize("number", [0, 4, 99, -1])
def test_history_decode_refuses_an_unknown_format(number: int) -> None:
    """An event of another format is told apart from one that is broken."""
    with pytest.raises(SchemaVersionError) as caught:
        decode(body(format=number), "")
    assert (caught.value.found, caught.value.supported) == (f"event {number}", "1, 2, 3")


# --- rebuilding ------------------------------------------------------------------------------

WORDS = st.sampled_from(("t", "u", "v"))
STEPS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.tuples(st.sampled_from(SESSION_LIFECYCLE.triggers), st.just({})),
    st.tuples(st.just("begin_task"), st.fixed_dictionaries({"task_id": WORDS})),
    st.tuples(st.just("end_task"), st.fixed_dictionaries({"task_id": WORDS})),
    st.tuples(
        st.just("update"),
        st.fixed_dictionaries(
            {},
            optional={
                "metadata": json_objects(max_leaves=5),
                "llm_config": st.sampled_from(({"x": 1}, {"x": True}, {"x": 1.0})),
                "config": st.sampled_from(
                    (
                        SessionConfig(),
                        SessionConfig(timeout_minutes=1),
                        SessionConfig(recovery="restart"),
                        SessionConfig(recovery="end"),
                    )
                ),
                "error": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            },
        ),
    ),
    st.tuples(st.sampled_from(("terminate", "finish")), st.just({"error": "broken"})),
)
DELAYS = st.sampled_from((-5.0, 0.0, 0.000001, 1.0, 12.5, 61.0, 4000.0))


@settings(max_examples=150)
@given(
    metadata=json_objects(max_leaves=5),
    steps=st.lists(st.tuples(STEPS, DELAYS, st.none() | st.just("why")), max_size=25),
)
def test_history_rebuilds_any_life_exactly(
    metadata: dict[str, Any], steps: list[tuple[tuple[str, dict[str, Any]], float, str | None]]
) -> None:
    """Replaying the stored events of any life gives its state to the letter, after every step."""
    writer = Writer(metadata=metadata)
    lives = [dumps(writer.state)]
    # Most walks begin where something can happen.
    for (trigger, arguments), after, reason in [(("activate", {}), 1.0, None), *steps]:
        try:
            writer.fire(trigger, after=after, reason=reason, **arguments)
        except (TransitionError, TypeError):
            continue
        lives.append(dumps(writer.state))
    events = read(writer.chain)
    assert len(events) == len(lives)
    for number, life in enumerate(lives, 1):
        rebuilt = rebuild((event for _, event in events[:number]), SESSION_LIFECYCLE)
        assert rebuilt is not None
        assert dumps(rebuilt) == life
    found, digest, revision = audit(events, SESSION_LIFECYCLE)
    assert (found, digest, revision) == ((), writer.digest, writer.revision)


@given(state=states())
def test_history_rebuilds_any_first_state(state: SessionState) -> None:
    """A state that is sealed as created is rebuilt to the letter, whatever it holds."""
    sealed = seal(born(state), revision=1, previous=NO_DIGEST)
    rebuilt = rebuild([decode(sealed.body, sealed.event.digest)], SESSION_LIFECYCLE)
    assert rebuilt == state
    assert rebuilt is not None
    assert dumps(rebuilt) == dumps(state)


def test_history_rebuilds_the_last_life() -> None:
    """A purged life is none; the one after it begins anew."""
    first = a_life()
    buried = [*first.chain, first.purge()]
    assert rebuild([each.event for each in buried], SESSION_LIFECYCLE) is None
    assert rebuild([], SESSION_LIFECYCLE) is None
    state = SessionState.new("é a", at=START)
    again = seal(born(state), revision=12, previous=buried[-1].event.digest)
    assert rebuild([buried[-1].event, again.event], SESSION_LIFECYCLE) == state


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda events: events[1:], "revision 2: happened before the session was created"),
        (lambda events: [attrs.evolve(events[0], target="asleep")], "status: unknown status"),
        (
            lambda events: [attrs.evolve(events[0], changes=JsonObject({"x": 1}))],
            "session_id: missing",
        ),
    ],
)
def test_history_rebuild_refuses_what_makes_no_state(
    change: Callable[[list[SessionEvent]], list[SessionEvent]], problem: str
) -> None:
    """Events that lead to no state are told so."""
    events = [each.event for each in a_life().chain]
    with pytest.raises(DeserializationError, match=problem):
        rebuild(change(events), SESSION_LIFECYCLE)


# --- audit -----------------------------------------------------------------------------------


def test_history_audit_finds_nothing_wrong_with_a_life() -> None:
    """A whole chain, a tombstone, and a life behind a tombstone are in order."""
    writer = a_life()
    assert faults(writer.chain) == ()
    buried = writer.purge()
    assert faults([*writer.chain, buried]) == ()
    assert faults([buried]) == ()
    state = SessionState.new("é a", at=START)
    step = born(state)
    again = seal(step, revision=buried.event.revision + 1, previous=buried.event.digest)
    assert faults([buried, again]) == ()
    assert audit([], SESSION_LIFECYCLE) == ((), NO_DIGEST, 0)


def test_history_audit_finds_every_changed_byte() -> None:
    """No byte of any event can be changed unseen: it is no event any more, or its digest is off."""
    chain = a_life().chain[:4]
    for number, sealed in enumerate(chain):
        for place in range(len(sealed.body)):
            for flip in (0x01, 0x20):
                changed = bytearray(sealed.body)
                changed[place] ^= flip
                other = Sealed(sealed.event, bytes(changed))
                try:
                    found = faults([*chain[:number], other, *chain[number + 1 :]])
                except (DeserializationError, SchemaVersionError):
                    continue
                assert any("its digest does not match" in problem for problem in found)


def test_history_audit_finds_every_missing_event() -> None:
    """Each event that is missing is found, but for the last, which a snapshot tells."""
    chain = a_life().chain
    for number in range(len(chain) - 1):
        assert faults([*chain[:number], *chain[number + 1 :]]), number
    found, digest, revision = audit(read(chain[:-1]), SESSION_LIFECYCLE)
    assert found == ()
    assert (digest, revision) != (chain[-1].event.digest, chain[-1].event.revision)


def test_history_audit_finds_every_swap_and_copy() -> None:
    """Events in another order, or twice, are found."""
    chain = a_life().chain
    for one in range(len(chain)):
        for two in range(one + 1, len(chain)):
            swapped = list(chain)
            swapped[one], swapped[two] = chain[two], chain[one]
            assert faults(swapped), (one, two)
        assert faults([*chain[: one + 1], *chain[one:]]), one


def test_history_audit_finds_an_event_of_another_life() -> None:
    """An event from another session's chain is found, wherever it is put."""
    chain, stranger = a_life().chain, a_life()
    stranger.chain[0] = seal(born(SessionState.new("b", at=START)), revision=1, previous=NO_DIGEST)
    other = Writer("b")
    other.fire("activate")
    other.fire("touch")
    for place in range(len(chain)):
        for sealed in other.chain:
            assert faults([*chain[:place], sealed, *chain[place:]])


def test_history_audit_finds_where_two_lives_are_joined() -> None:
    """The end of another chain of the same session does not fit, though its steps would."""
    one, two = Writer(), Writer()
    for writer, reason in ((one, "this"), (two, "that")):
        writer.fire("activate", reason=reason)
        for _ in range(3):
            writer.fire("touch")
    for place in range(2, 5):
        joined = [*one.chain[:place], *two.chain[place:]]
        assert faults(joined) == (f"revision {place + 1}: its digest does not match",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": "idle"}, "leaves 'idle', but the session was in 'active'"),
        ({"target": "terminated"}, "moved 'active' -> 'terminated' by 'terminate' is no row"),
        ({"trigger": "finish"}, "moved 'active' -> 'terminating' by 'finish' is no row"),
        ({"trigger": None}, "moved 'active' -> 'terminating' by nothing is no row"),
        ({"trigger": "touch", "target": "active"}, "moved 'active' -> 'active' by 'touch' is no"),
        ({"kind": "changed"}, "changed 'active' -> 'terminating' by 'terminate' is no row"),
        ({"kind": "created"}, "created 'active' -> 'terminating' by 'terminate' is no row"),
        ({"kind": "purged"}, "purged 'active' -> 'terminating' by 'terminate' is no row"),
        ({"kind": "purged", "target": "active"}, "purged 'active' -> 'active' by 'terminate' is"),
        ({"revision": 9}, "follows revision 7"),
        ({"revision": 7}, "follows revision 7"),
    ],
)
def test_history_audit_finds_illegal_steps(changes: dict[str, Any], problem: str) -> None:
    """A step that no row permits is found, though all digests be made anew."""
    writer = a_life()
    place = next(i for i, each in enumerate(writer.chain) if each.event.trigger == "terminate")
    assert place == 7
    forged: Chain = list(writer.chain[:place])
    digest = forged[-1].event.digest
    for sealed in writer.chain[place:]:
        event = sealed.event
        if sealed is writer.chain[place]:
            event = attrs.evolve(event, **changes)
        data = encode(event)
        digest = chained(digest, data)
        forged.append(Sealed(attrs.evolve(event, digest=digest), data))
    found = faults(forged)
    assert found
    assert found[0].startswith(f"revision {changes.get('revision', 8)}: {problem}")


@pytest.mark.parametrize("status", list(SESSION_LIFECYCLE.statuses))
def test_history_audit_knows_how_a_life_begins(status: str) -> None:
    """A life begins in the initial status, and in no other."""
    state = SessionState.new("a", at=START, status=status)
    sealed = seal(born(state), revision=1, previous=NO_DIGEST)
    assert bool(faults([sealed])) is (status != SESSION_LIFECYCLE.initial)


@pytest.mark.parametrize("status", list(SESSION_LIFECYCLE.statuses))
def test_history_audit_knows_what_may_be_purged(status: str) -> None:
    """A tombstone of what had not ended is found."""
    state = SessionState.new("a", at=START, status=status)
    sealed = tombstone(state, revision=5, previous="x", at=START)
    assert bool(faults([sealed])) is (status not in SESSION_LIFECYCLE.final)


def test_history_audit_takes_the_tombstone_of_another_lifecycle() -> None:
    """An id may have had its last life in a lifecycle whose words are not known here."""
    other = SESSION_LIFECYCLE.extend(
        statuses=("gone",),
        final=("gone",),
        rows=[Row("vanish", "idle", "gone")],
        name="other",
    )
    state = SessionState.new("a", at=START, status="gone")
    sealed = tombstone(state, revision=5, previous="x", at=START)
    assert audit(read([sealed]), other)[0] == ()
    assert faults([sealed]) == ()


def test_history_audit_finds_a_forged_tombstone() -> None:
    """A tombstone goes on from the digest that it names, and from no other."""
    sealed = a_life().purge()
    for changes in ({}, {"last_digest": "0" * 64}, {"last_digest": None}):
        data = encode(attrs.evolve(sealed.event, changes=JsonObject(changes)))
        assert faults([Sealed(sealed.event, data)])


# --- a snapshot and its history --------------------------------------------------------------


def test_history_snapshot_is_compared_field_by_field() -> None:
    """What a stored state has otherwise than its history is named."""
    rebuilt = a_life().state
    assert snapshot_problem(rebuilt, rebuilt, SESSION_LIFECYCLE) is None
    assert snapshot_problem(rebuilt, None, SESSION_LIFECYCLE) is not None
    stored = rebuilt.derive(
        {"error": None, "conversation_count": 5}, at=rebuilt.updated_at + timedelta(seconds=1)
    )
    problem = snapshot_problem(stored, rebuilt, SESSION_LIFECYCLE)
    assert problem is not None
    assert problem.endswith("in updated_at, conversation_count, error")


def test_history_snapshot_may_have_more_or_fewer_fields() -> None:
    """A field that only one of both has is named too, be it in the state or in its history."""
    plain = SessionState.new("a", status="active", at=START).update(at=START, active_tasks=["t"])
    limited = plain.update(at=START, task_deadlines={"t": START})
    restarted = plain.update(at=START, config={"recovery": "restart"})
    for other, name in ((limited, "task_deadlines"), (restarted, "config")):
        for stored, rebuilt in ((plain, other), (other, plain)):
            problem = snapshot_problem(stored, rebuilt, SESSION_LIFECYCLE)
            assert problem == f"its stored state differs from its history in {name}"


def test_history_offsets_do_not_matter() -> None:
    """An instant is the same at any offset: bodies and digests don't tell where it was made."""
    zone = timezone(timedelta(hours=5, minutes=45))
    one, two = (SessionState.new("a", at=at) for at in (START, START.astimezone(zone)))
    sealed = [seal(born(each), revision=1, previous="") for each in (one, two)]
    assert sealed[0] == sealed[1]
