"""A commit whose answer is lost: the store is asked what became of it, before anybody is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from .errors import StoreError, StoreUnavailableError
from .stores.abc import SessionStore
from .stores.records import Commit, Work

_WORKER = Work("worker")


def write(
    store: SessionStore,
    commit: Commit,
    doubtful: deque[Commit],
    make: Callable[[], None] | None = None,
) -> None:
    """Write a commit; if its answer is lost, ask whether it landed.

    Args:
        store: Where it is written.
        commit: The commit.
        doubtful: It is put there if it would claim a worker, and nobody knows whether it does.
        make: Writes it, and raises as `SessionStore.commit`; None: that does.

    Raises:
        StoreUnavailableError: It was not written; or, with its operation id, nobody knows.
        StoreError: As `SessionStore.commit`.
    """
    try:
        _write(store, commit, make)
    except StoreUnavailableError as fault:
        if fault.operation_id is not None and _WORKER in commit.claims:
            doubtful.append(commit)
        raise


def _write(store: SessionStore, commit: Commit, make: Callable[[], None] | None) -> None:
    try:
        if make is None:
            store.commit(commit)
        else:
            make()
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
    """Tell whether what a commit wrote, or another in its place, is gone from the history.

    A checkpoint stands for it then, or the one event that is left of a session that was removed.
    """
    revision = commit.expected_revision + len(commit.steps)
    first = next(iter(store.history(commit.session_id)), None)
    if first is None:
        return False
    event = first[1]
    return event.revision >= revision + (event.kind != "checkpoint")


def landed_late(store: SessionStore, doubtful: deque[Commit]) -> Iterator[Commit]:
    """Yield the commits that have landed after all, perhaps; those that may still do are kept."""
    for _ in range(len(doubtful)):
        try:
            commit = doubtful.popleft()
        except IndexError:
            return  # another thread has come first
        try:
            landed = store.landed(commit.session_id, commit.operation_id)
            may_have = landed or _is_covered(store, commit)
        except StoreError:
            doubtful.append(commit)
            continue
        if may_have:
            yield commit
