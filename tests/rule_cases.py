"""The rules of the library's own lifecycles: what comes with their triggers, and a run of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test
from working import worked

from session_fsm import SESSION_LIFECYCLE, Lifecycle, Row, SessionState
from session_fsm.stores import SessionStore, SqliteStore
from session_fsm.testing import LifecycleRules
from session_fsm.testing.arguments import Arguments, modest_configs

AGENT, ORDER = worked("agent"), worked("order")
NAMES = ("ana", "ben")


def _total(state: SessionState) -> int:
    return sum(item["cents"] for item in state.metadata.get("items", ()))


def _note(state: SessionState) -> st.SearchStrategy[Mapping[str, Any]]:
    notes = st.fixed_dictionaries({"metadata": st.just({**state.metadata, "note": "fragile"})})
    return st.just({}) | notes


AGENT_ARGUMENTS: Arguments = {
    "ask": {"text": st.text(max_size=3), "of": st.sampled_from((["ana"], ["ana", "ben"], [], 1))},
    "answer": {"text": st.text(max_size=3), "by": st.sampled_from(NAMES)},
    "analyse_code": {"path": st.sampled_from(("src", "tests"))},
    # Whoever sets all of the metadata forgets who was asked: a function of the state keeps that.
    "update": _note,
}
ORDER_ARGUMENTS: Arguments = {
    "put_in": {"sku": st.sampled_from(("tea", "cup")), "cents": st.integers(0, 9)},
    "pay": {"cents": lambda state: st.sampled_from((_total(state), _total(state), 1, "much"))},
    "ship": {"parcel": st.sampled_from(("JD01", "JD02"))},
    "annotate": _note,
}


class AgentRules(LifecycleRules):
    """Agents, in memory."""

    lifecycle = AGENT
    arguments = AGENT_ARGUMENTS
    configs = modest_configs(features=("code_analysis", "search"))


class OrderRules(LifecycleRules):
    """Orders, in memory."""

    lifecycle = ORDER
    arguments = ORDER_ARGUMENTS


class OnSqlite(LifecycleRules):
    """Mixed in, keeps sessions in one file; each manager opens it."""

    def open_store(self) -> SessionStore:
        """Open the file."""
        return SqliteStore(self.directory / "sessions.db", self.lifecycle)


class Counted(LifecycleRules):
    """Mixed in, counts the rows that were fired in all runs of a class."""

    fired: ClassVar[Counter[tuple[str, str]]]

    def teardown(self) -> None:
        """Count, then close everything."""
        if self.managers:
            traffic = self.managers[0].traffic()
            self.fired.update({row: times for row, times in traffic.items() if times})
        super().teardown()


def with_row(row: Row) -> Lifecycle:
    """The lifecycle of sessions with one row more."""
    return SESSION_LIFECYCLE.extend(name="own", rows=(row,))


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: starts that fail on purpose, by the thousand, would fill the report."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run(rules: type[LifecycleRules], *, examples: int, steps: int = 30) -> None:
    """Run rules, the same ones each time, and raise what they find; nothing is shrunk."""
    with quiet():
        run_state_machine_as_test(
            rules,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=True,
                database=None,
                deadline=None,
                print_blob=False,
                report_multiple_bugs=False,
                phases=(Phase.generate,),
            ),
        )


@contextmanager
def found() -> Iterator[list[BaseException]]:
    """Expect that rules inside find something; it is in the list that is given then."""
    caught: list[BaseException] = []
    try:
        yield caught
    except Exception as fault:  # noqa: BLE001 - whatever a planted fault leads to is a find
        caught.append(fault)
    assert caught, "the rules found nothing"
    assert not isinstance(caught[0], HypothesisException), "it is the search that went wrong"
