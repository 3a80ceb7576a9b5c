"""Hypothesis strategies for states and their parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from ..clock import as_utc
from ..fields import MAX_ID_CHARACTERS, MAX_TIMEOUT_MINUTES
from ..jsonvalue import MAX_INTEGER, MIN_INTEGER
from ..lifecycle import Lifecycle
from ..state import RECOVERY_POLICIES, SessionConfig, SessionState
from ..table import SESSION_LIFECYCLE

# --- the parts of a state --------------------------------------------------------------------

_OFFSETS = (
    UTC,
    timezone(timedelta(hours=5, minutes=45)),
    timezone(timedelta(hours=-11)),
    timezone(timedelta(hours=14)),
    timezone(timedelta(seconds=-1, microseconds=-1)),
)
_FIRST_INSTANT = datetime(1, 1, 2)  # noqa: DTZ001 - Hypothesis wants naive limits
_LAST_INSTANT = datetime(9999, 12, 30)  # noqa: DTZ001 - the same
_LAST_CREATION = datetime(9998, 1, 1)  # noqa: DTZ001 - the same
_LONGEST_LIFE = timedelta(days=400)


def instants(
    *, min_value: datetime = _FIRST_INSTANT, max_value: datetime = _LAST_INSTANT
) -> st.SearchStrategy[datetime]:
    """Generate aware instants, in UTC and at other offsets.

    Args:
        min_value: The earliest, naive, at any offset.
        max_value: The latest, naive, at any offset.
    """
    return st.datetimes(min_value, max_value, timezones=st.sampled_from(_OFFSETS))


def session_ids() -> st.SearchStrategy[str]:
    """Generate ids of sessions, which are good names of tasks and features too."""
    characters = st.characters(
        exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"),
        include_characters=" ",
    )
    words = st.text(characters, min_size=1, max_size=MAX_ID_CHARACTERS)
    longest = characters.filter(str.strip).map(lambda letter: letter * MAX_ID_CHARACTERS)
    return words.filter(lambda word: word == word.strip()) | longest


def _texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


def json_objects(*, max_leaves: int = 20) -> st.SearchStrategy[dict[str, Any]]:
    """Generate plain dicts that a state accepts as `llm_config` and `metadata`.

    Args:
        max_leaves: About how many values that hold no others there are at most.
    """
    keys = _texts() | st.sampled_from(("key", "api_key", "a b", ""))
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(MIN_INTEGER, MAX_INTEGER)
        | st.sampled_from((MIN_INTEGER, MAX_INTEGER, 2**53 + 1))
        | st.floats(allow_nan=False, allow_infinity=False)
        | _texts()
    )
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=max_leaves,
    )
    return st.dictionaries(keys, values, max_size=5)


def configs(*, features: Iterable[str] = ()) -> st.SearchStrategy[SessionConfig]:
    """Generate configurations, the limits of each field among them.

    Args:
        features: Features that are as likely as all others together, such as those which guards of
            a lifecycle ask for.
    """
    known = tuple(features)
    feature = session_ids() | st.sampled_from(known) if known else session_ids()
    small = st.integers(1, 3)
    return st.builds(
        SessionConfig,
        max_conversations=st.none() | small | st.integers(1, MAX_INTEGER),
        timeout_minutes=st.none() | small | st.integers(1, MAX_TIMEOUT_MINUTES),
        persistence_enabled=st.none() | st.booleans(),
        features=st.lists(feature, unique=True, max_size=3),
        recovery=st.just("release") | st.sampled_from(RECOVERY_POLICIES),
    )


# --- states ----------------------------------------------------------------------------------


@st.composite
def states(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    *,
    status: str | None = None,
    config: st.SearchStrategy[SessionConfig] | None = None,
    metadata: st.SearchStrategy[Mapping[str, Any]] | None = None,
) -> SessionState:
    """Generate valid states of a lifecycle.

    A state that is generated need not be one that its rows lead to: `reachable_states` are.

    Args:
        draw: Given by Hypothesis.
        lifecycle: Whose statuses they are in, and which of those may hold tasks.
        status: The status that all are in; None: any.
        config: How the sessions may be used; None: any way there is.
        metadata: What they know; None: any JSON object.

    Raises:
        LifecycleError: There is no such status.

    Example:
        >>> from hypothesis import given, settings
        >>> from session_fsm import explain
        >>> @settings(max_examples=20, derandomize=True, database=None)
        ... @given(states(status="idle"))
        ... def test_no_task_begins_in_a_session_at_rest(state):
        ...     assert explain(state, "begin_task", task_id="t").kind == "wrong_status"
        >>> test_no_task_begins_in_a_session_at_rest()
    """
    if status is not None:
        chosen = lifecycle.status(status)
    else:
        chosen = draw(st.sampled_from(lifecycle.statuses))
    limits = draw(configs() if config is None else config)
    created_at = as_utc(draw(instants(max_value=_LAST_CREATION)))
    age = draw(st.sampled_from((timedelta(0), timedelta(hours=1), _LONGEST_LIFE)))
    moments = st.timedeltas(timedelta(0), age) | st.just(timedelta(0)) | st.just(age)
    most = limits.max_conversations or 1
    counts = st.integers(0, 3) | st.sampled_from((most - 1, most)) | st.integers(0, MAX_INTEGER)
    tasks = st.lists(session_ids(), unique=True, max_size=3)
    active = draw(tasks) if lifecycle.holds_tasks(chosen) else []
    limited: list[str] = []
    if active and any("timeout_seconds" in row.optional for row in lifecycle.rows):
        limited = draw(st.lists(st.sampled_from(active), unique=True))
    ahead = st.timedeltas(timedelta(0), timedelta(hours=1))
    return SessionState(
        session_id=draw(session_ids()),
        status=chosen,
        config=limits,
        llm_config=draw(json_objects(max_leaves=5)),
        metadata=draw(json_objects(max_leaves=5) if metadata is None else metadata),
        created_at=created_at,
        updated_at=created_at + age,
        status_since=created_at + draw(moments),
        last_activity_at=created_at + draw(moments),
        active_tasks=active,
        task_deadlines={task: created_at + draw(moments) + draw(ahead) for task in limited},
        conversation_count=draw(counts),
        error=draw(st.none() | _texts()),
    )
