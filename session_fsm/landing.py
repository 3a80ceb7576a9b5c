"""A commit whose answer is lost: the store is asked what became of it, before anybody is told."""

from __future__ import annotations

from .errors import StoreError, StoreUnavailableError
from .stores.abc import SessionStore
from .stores.records import Commit


def write(store: SessionStore, commit: Commit) -> None:
    """Write a commit; if its answer is lost, ask whether it landed.

    Raises:
        StoreUnavailableError: It was not written; or, with its operation id, nobody knows.
        StoreError: As `SessionStore.commit`.
    """
    try:
        store.commit(commit)
    except StoreUnavailableError as fault:
        if fault.operation_id is None:
            raise
        try:
            landed = store.landed(commit.session_id, commit.operation_id)
            known = landed or not _is_covered(store, commit)
        except StoreError:
            raise fault from None
        if not known:
            raise
        if not landed:
            raise StoreUnavailableError(problem=fault.problem) from fault


def _is_covered(store: SessionStore, commit: Commit) -> bool:
    """Tell whether a checkpoint stands for what a commit wrote, or another in its place."""
    revision = commit.expected_revision + len(commit.steps)
    first = next(iter(store.history(commit.session_id)), None)
    return first is not None and first[1].kind == "checkpoint" and first[1].revision >= revision
