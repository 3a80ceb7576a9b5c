"""What a manager that died has left running, and what workers have said: records in the store.

A worker process has a record from before it does anything to after it was reaped. A record of a
dead owner is an orphan's. The store knows who is dead; the record tells an orphan from a stranger
who has its number by now.

Records are kept under `worker/<owner>/<session>/<child>`, logs under `log/<session>/<child>`; each
name is quoted, so that none of them has a slash.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol
from urllib.parse import quote, unquote

import attrs

from .errors import CorruptRecordError
from .families import Ended, Family, end_families
from .jsontext import JsonError, dump_json, parse_json
from .processes import Place, this_place
from .session import Reaped, ReapedOutcome
from .stores.abc import SessionStore

logger = logging.getLogger(__name__)

RECORD_FORMAT: Final = 1
ORPHAN_TERM_SECONDS: Final = 2.0
"""How long orphans that are asked to end are waited for."""

_WORKERS: Final = "worker/"


class MarkKeeper(Protocol):
    """The part of a store that a worker writes to; calls may block."""

    def set_mark(self, name: str, body: bytes) -> None:
        """Keep something under a name."""
        ...

    def drop_mark(self, name: str) -> None:
        """Keep nothing under a name any longer."""
        ...


@attrs.frozen(kw_only=True)
class WorkerRecord:
    """What is stored of a worker process while it may run.

    Attributes:
        owner_id: The manager that began it.
        session_id: The session that it runs for.
        child: The name of the child that it is.
        family: Who it is: place, number, start, mark. Its group has its number.
    """

    owner_id: str
    session_id: str
    child: str
    family: Family

    @property
    def name(self) -> str:
        """What it is kept under."""
        return _WORKERS + "/".join(map(_quoted, (self.owner_id, self.session_id, self.child)))

    def to_json(self) -> bytes:
        """Write it; the name tells the rest."""
        family = self.family
        document = {
            "format": RECORD_FORMAT,
            "pid": family.pid,
            "process_group_id": family.pid,
            "start_ticks": family.start_ticks,
            "boot_id": family.place.boot_id,
            "pid_namespace": family.place.pid_namespace,
            "token": family.token,
        }
        if family.place.machine_id:
            document["machine_id"] = family.place.machine_id
        return dump_json(document)

    @classmethod
    def read(cls, name: str, body: bytes) -> WorkerRecord:
        """Read what was kept under a name.

        Raises:
            CorruptRecordError: It is no record, or of a format that is not known here.
        """
        owner_id, session_id, child = _ids_in(name)
        try:
            document = parse_json(body)
        except JsonError as fault:
            raise CorruptRecordError(record=name, problems=(str(fault),)) from None
        match document:
            case {
                "format": 1,
                "pid": int(pid),
                "process_group_id": int(group),
                "start_ticks": int(start_ticks),
                "boot_id": str(boot_id),
                "pid_namespace": str(pid_namespace),
                "token": str(token),
            } if pid == group > 1 and token and isinstance(document.get("machine_id", ""), str):
                family = Family(
                    place=Place(boot_id, pid_namespace, document.get("machine_id", "")),
                    pid=pid,
                    start_ticks=start_ticks,
                    token=token,
                )
            case _:
                problem = f"is no record of a worker in format {RECORD_FORMAT}"
                raise CorruptRecordError(record=name, problems=(problem,))
        return cls(owner_id=owner_id, session_id=session_id, child=child, family=family)


def reap_orphans(
    store: SessionStore,
    is_alive: Callable[[str], bool] | None = None,
    *,
    term_seconds: float = ORPHAN_TERM_SECONDS,
) -> tuple[Reaped, ...]:
    """End the worker processes that dead managers have left, and all that came from them.

    Each is asked to end, and killed if it has not. No process is touched whose identity is not the
    recorded one. May be called by many at the same time, and again.

    Args:
        store: Where their records are.
        is_alive: Tells whether an owner lives; None: the store is asked. Nothing of a living one is
            touched.
        term_seconds: How long those that are asked to end are waited for, all together.

    Returns:
        What became of each that a dead owner had a record of, by owner, session and child; may be
        empty.

    Raises:
        NotImplementedError: There are such records, and no `/proc` to look for processes in.
        StoreError: The store can't be read or written.
    """
    living: dict[str, bool] = {}
    alive = store.is_alive if is_alive is None else is_alive
    orphans: list[WorkerRecord] = []
    reaped: list[Reaped] = []
    for name, body in store.marks(_WORKERS):
        owner_id, session_id, child = _ids_in(name)
        if owner_id not in living:
            living[owner_id] = alive(owner_id)
        if living[owner_id]:
            continue
        try:
            orphans.append(WorkerRecord.read(name, body))
        except CorruptRecordError as fault:
            logger.error("a worker that may run still is not looked for: %s", fault)
            reaped.append(_told(owner_id, session_id, child, "unreadable"))
    if orphans:
        ended = _ended([each.family for each in orphans], term_seconds)
        reaped += [_settle(store, each, ended[each.family]) for each in orphans]
    return tuple(sorted(reaped, key=lambda each: (each.owner_id, each.session_id, each.child)))


def _ended(families: Collection[Family], term_seconds: float) -> Mapping[Family, Ended]:
    try:
        return end_families(families, term_seconds=term_seconds)
    except OSError as fault:
        logger.error("what dead owners have left can't be looked for: %s", fault)
        return {family: Ended(left=1) for family in families}


def _settle(store: SessionStore, record: WorkerRecord, ended: Ended) -> Reaped:
    place, here = record.family.place, this_place()
    outcome: ReapedOutcome
    is_of_another_machine = place.is_of_another_machine(here)
    if ended.left:
        outcome = "left"
    elif is_of_another_machine:
        # It may run there still, until somebody looks who is there.
        outcome = "elsewhere"
    elif place != here and place.boot_id == here.boot_id and not ended.asked:
        # Of a namespace that lies within this one, what is marked is seen; of others nothing is.
        outcome = "elsewhere"
    else:
        outcome = "killed" if ended.killed else "ended" if ended.asked else "gone"
        store.drop_mark(record.name)
    names = (record.owner_id, record.session_id, record.child)
    if outcome in ("left", "elsewhere"):
        level = logging.INFO if is_of_another_machine else logging.WARNING
        logger.log(level, "worker of owner %r, session %r, child %r: %s", *names, outcome)
    return _told(*names, outcome, ended.asked)


def _told(
    owner_id: str, session_id: str, child: str, outcome: ReapedOutcome, processes: int = 0
) -> Reaped:
    return Reaped(
        owner_id=owner_id,
        session_id=session_id,
        child=child,
        outcome=outcome,
        processes=processes,
    )


# --- logs -----------------------------------------------------------------------------------


def log_name(session_id: str, child: str) -> str:
    """Return what the log of a worker process is kept under."""
    return f"log/{_quoted(session_id)}/{_quoted(child)}"


def read_log(store: SessionStore, session_id: str, child: str) -> bytes | None:
    """Return what a child's process has said last, as it was when the last one ended.

    Args:
        store: The store of the session.
        session_id: The session that it ran for.
        child: The name of the child.

    Returns:
        Standard output and error as they came, secrets starred out, at most the worker's
        `log_bytes`; None if no process of such a child has ended, or the log was dropped.
    """
    return store.mark(log_name(session_id, child))


def drop_logs(store: SessionStore, session_id: str) -> int:
    """Drop the logs of all processes of a session; returns how many there were."""
    logs = store.marks(f"log/{_quoted(session_id)}/")
    for name, _ in logs:
        store.drop_mark(name)
    return len(logs)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _ids_in(name: str) -> tuple[str, str, str]:
    ids = [unquote(part) for part in name.removeprefix(_WORKERS).split("/")]
    owner_id, session_id, child = [*ids, "", ""][:3]
    return owner_id, session_id, child
