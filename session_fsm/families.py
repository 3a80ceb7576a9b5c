"""A process and all that came from it: who they are, and how they are ended together.

What came from a process are those of its group and session, their children, and those that have
inherited its mark, an entry of the environment: whoever leaves group, session and parent keeps
that. One that has left all of them and has cleared or overwritten its environment is not found.

Source: setsid(2), environ(7); how a session of processes outlives its leader: credentials(7).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs

from .processes import (
    Place,
    ProcessHandle,
    ProcessStat,
    all_stats,
    stat_of,
    this_place,
    tokens_of,
    wait_until_gone,
)

LONGEST_KILL_SECONDS: Final = 10.0
"""Longest that killed processes are waited for: one may hang in the kernel."""
ROUND_SECONDS: Final = 1.0
"""Longest wait for the killed before it is looked whether they have made others meanwhile."""


@attrs.frozen(kw_only=True)
class Family:
    """A process that leads a session of its own, and all that came from it.

    Attributes:
        place: Where its number counts.
        pid: Its number; that of its group and session, too.
        start_ticks: When it started, in clock ticks since the boot.
        token: Its mark.
    """

    place: Place
    pid: int
    start_ticks: int
    token: str

    def is_led_by(self, stat: ProcessStat | None) -> bool:
        """Tell whether a process, seen here, is its leader, be it that it has ended."""
        if stat is None:
            return False
        return (stat.pid, stat.start_ticks) == (self.pid, self.start_ticks)


def family_of(pid: int, token: str) -> Family:
    """Return the family of a process that is there.

    Raises:
        ProcessLookupError: There is none of that number.
    """
    stat = stat_of(pid)
    if stat is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return Family(place=this_place(), pid=pid, start_ticks=stat.start_ticks, token=token)


def find_members(families: Collection[Family]) -> dict[Family, tuple[ProcessHandle, ...]]:
    """Find what runs of each family, its leader included; this process is left out.

    Returns:
        A handle for each process, to be closed by the caller; families of which nothing runs have
        none.

    Raises:
        OSError: It can't be looked, as there are no descriptors left.
    """
    here = this_place()
    near = [each for each in families if each.place.boot_id == here.boot_id]
    found: dict[Family, tuple[ProcessHandle, ...]] = dict.fromkeys(families, ())
    if not near:
        return found
    stats = {stat.pid: stat for stat in all_stats()}
    stats.pop(os.getpid(), None)
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    # Nobody is older than what it came from.
    oldest = min(each.start_ticks for each in near)
    marked: dict[str, set[int]] = {}
    joined: dict[int, set[int]] = {}
    for stat in stats.values():
        if stat.start_ticks >= oldest and not stat.is_over:
            for token in tokens_of(stat.pid):
                marked.setdefault(token, set()).add(stat.pid)
        for number in (stat.pid, stat.group, stat.session):
            joined.setdefault(number, set()).add(stat.pid)
    taken: list[ProcessHandle] = []
    try:
        for family in near:
            pids = set(marked.get(family.token, ()))
            if family.place == here and _leads(family, stats):
                pids |= joined[family.pid]
            everybody = sorted(_with_descendants(pids, children))
            handles = (ProcessHandle.take(pid, stats[pid].start_ticks) for pid in everybody)
            first = len(taken)
            taken.extend(handle for handle in handles if handle is not None)
            found[family] = tuple(taken[first:])
    except BaseException:
        for handle in taken:
            handle.close()
        raise
    return found


def _leads(family: Family, stats: Mapping[int, ProcessStat]) -> bool:
    """Tell whether the leader's group and session, as they were seen, are still its own."""
    # Others may have number, group and session as soon as the leader has gone: it had them all the
    # while if it has them now.
    return family.is_led_by(stats.get(family.pid)) and family.is_led_by(stat_of(family.pid))


def _with_descendants(pids: Iterable[int], children: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


@attrs.define
class Ended:
    """What became of a family.

    Attributes:
        asked: How many of its processes ran.
        killed: How many had to be killed.
        left: How many run all the same.
    """

    asked: int = 0
    killed: int = 0
    left: int = 0


def end_families(families: Collection[Family], *, term_seconds: float) -> dict[Family, Ended]:
    """Ask all processes of some families to end, and kill those that have not, until none is left.

    Args:
        families: Those that the caller has not begun itself: nobody waits here for how they ended.
        term_seconds: How long those that are asked are waited for.

    Returns:
        What became of each.

    Raises:
        OSError: It can't be looked, as there are no descriptors left.
    """
    ended = {family: Ended() for family in families}
    members: dict[Family, list[ProcessHandle]] = {family: [] for family in families}
    killed: dict[Family, set[tuple[int, int]]] = {family: set() for family in families}
    try:
        for family, handles in find_members(families).items():
            members[family] += handles
            ended[family].asked = sum(handle.ask_to_end() for handle in handles)
        unseen = {family for family in families if not members[family]}
        wait_until_gone([each for handles in members.values() for each in handles], term_seconds)
        end = time.monotonic() + LONGEST_KILL_SECONDS
        waiting = list(families)
        while waiting:
            doomed: dict[Family, list[ProcessHandle]] = {}
            for family, found in find_members(waiting).items():
                # One whose parent has ended may not be found again.
                alive = [handle for handle in members[family] if not handle.is_gone()]
                doomed[family] = [*alive, *found]
                members[family] += found
                ended[family].left = len(doomed[family])
            # One look may miss whoever is begun while another one ends: it takes two in a row.
            gone = {family for family in waiting if not doomed[family]}
            waiting = [family for family in waiting if family not in gone & unseen]
            unseen = gone
            if time.monotonic() >= end:
                break
            for family in waiting:
                killed[family] |= kill_all(doomed[family])
                _kill_group(family, members[family])
                ended[family].killed = len(killed[family])
            every = [each for handles in doomed.values() for each in handles]
            wait_until_gone(every, ROUND_SECONDS)
    finally:
        for handle in [each for handles in members.values() for each in handles]:
            handle.close()
    return ended


def _kill_group(family: Family, members: Iterable[ProcessHandle]) -> None:
    # Whoever makes others without end is not found one by one.
    for handle in members:
        is_leader = (handle.pid, handle.start_ticks) == (family.pid, family.start_ticks)
        if is_leader and handle.pid != os.getpgrp():  # this process may have come from there, too
            handle.kill_group()


def kill_all(handles: Iterable[ProcessHandle]) -> set[tuple[int, int]]:
    """Kill some processes; returns number and start of those that could be."""
    return {(each.pid, each.start_ticks) for each in handles if each.send(signal.SIGKILL)}
