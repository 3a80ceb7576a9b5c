"""A log that is torn or has rubbish behind it: what is left is what stood at the end of a commit.

Commits are synced before they are acknowledged, so a power cut tears the last one at most, which
nobody was told of. A log that loses synced frames is damaged beyond that promise; what holds even
then is tested here: a prefix of the history, whole, and never a mixture.
"""

import struct
from pathlib import Path

import pytest
from faulty import PREAMBLE, Ledger, copied, plain
from processes import Program

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores.sqlite_connection import PAGE_BYTES

HEADER, FRAME, PAGE = 32, 24, PAGE_BYTES


class Torn:
    """A store as a process left it that was killed after some commits, all of them in the log.

    Attributes:
        ends: The length of the log after each commit; the first is that after the creation.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "made"
        self._directory.mkdir()
        self.path = self._directory / "sessions.db"
        self.ends: list[int] = []
        with SessionManager(f"sqlite:///{self.path}") as manager, plain(self.path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            ledger = Ledger()
            ledger.create(manager, "a")
            self.ends.append(self._log_size())
            for _ in range(5):
                ledger.add(manager, "a", ballast=1_000)
                self.ends.append(self._log_size())
            self.killed = copied(self.path, directory / "killed")
        self.log = self.log_of(self.killed).read_bytes()

    def _log_size(self) -> int:
        return self.log_of(self.path).stat().st_size

    @staticmethod
    def log_of(path: Path) -> Path:
        """Return where the log of a file is."""
        return path.with_name(f"{path.name}-wal")

    def with_log(self, log: bytes, name: str) -> Path:
        """Return a copy with another log."""
        path = copied(self.killed, self.killed.parent.parent / name)
        self.log_of(path).write_bytes(log)
        return path

    def commits_within(self, length: int) -> int:
        """Return how many commits are whole in so much of the log."""
        return sum(end <= length for end in self.ends)


@pytest.fixture
def torn(tmp_path: Path) -> Torn:
    """A store with some commits in its log."""
    return Torn(tmp_path)


def counted(path: Path) -> int:
    """Return how many commits a store holds, which verifies, and goes on from there."""
    with SessionManager(f"sqlite:///{path}") as manager:
        report = manager.verify()
        assert report.ok, report.problems
        found = manager.find("a")
        if found is None:
            assert report.sessions == report.events == 0
            manager.create("a", metadata={"count": 0})
            return 0
        count: int = found.state.metadata["count"]
        assert found.revision == count + 2
        assert manager.update("a", metadata={"count": -1}).revision == found.revision + 1
        assert manager.verify().ok
        return count + 1


def places(torn: Torn) -> dict[str, int]:
    """Return where a log may be cut, by what is there."""
    last, before = torn.ends[-1], torn.ends[-2]
    return {
        "no log at all": 0,
        "in the header of the log": HEADER // 2,
        "behind the header of the log": HEADER,
        "in the first header of a frame": HEADER + FRAME // 2,
        "in the first page": HEADER + FRAME + PAGE // 2,
        "behind the first frame": HEADER + FRAME + PAGE,
        "behind a commit": before,
        "in the header of the frame after it": before + FRAME - 1,
        "in a page after it": before + FRAME + 1,
        "before the frame that commits": last - FRAME - PAGE,
        "in the header of the frame that commits": last - PAGE - 1,
        "one byte before the end": last - 1,
        "the end": last,
    }


def test_faults_log_cut_anywhere(torn: Torn) -> None:
    """Wherever a log is cut, the commits that are whole in it are there, and no part of another."""
    assert torn.ends[-1] == len(torn.log)  # all of it counts
    kept = {}
    for number, (name, length) in enumerate(places(torn).items()):
        kept[name] = counted(torn.with_log(torn.log[:length], f"cut-{number}"))
        assert kept[name] == torn.commits_within(length), name
    assert (kept["one byte before the end"], kept["the end"]) == (5, 6)
    assert kept["no log at all"] == 0


def test_faults_log_cut_at_each_frame(torn: Torn) -> None:
    """Of the frames of one commit all are needed: any fewer are as if it had not been made."""
    first, last = torn.ends[-2], torn.ends[-1]
    frames = range(first, last + 1, FRAME + PAGE)
    assert len(frames) > 2
    kept = [counted(torn.with_log(torn.log[:end], f"cut-{end}")) for end in frames]
    assert kept == [5] * (len(frames) - 1) + [6]


@pytest.mark.parametrize(
    "rubbish", [b"\x00" * 9000, b"\xff" * 9000, b"again"], ids=lambda r: r[:1].hex()
)
def test_faults_log_with_rubbish_behind_it(torn: Torn, rubbish: bytes) -> None:
    """What lies behind the last commit is not read, be it a frame of the same log once more."""
    if rubbish == b"again":
        rubbish = torn.log[torn.ends[-2] :]
    path = torn.with_log(torn.log + rubbish, "rubbish")
    assert counted(path) == 6


def test_faults_log_damaged_in_the_middle(torn: Torn) -> None:
    """A byte that is not as it was written ends the log there: the commits before it hold."""
    start = torn.ends[2]
    flips = {
        "page number": start,
        "size after commit": start + 7,
        "salt": start + 8,
        "checksum": start + 16,
        "first byte of the page": start + FRAME,
        "last byte of the page": start + FRAME + PAGE - 1,
    }
    for name, position in flips.items():
        log = bytearray(torn.log)
        log[position] ^= 0x10
        assert counted(torn.with_log(bytes(log), name.replace(" ", "-"))) == 3, name


def test_faults_log_with_a_damaged_header(torn: Torn) -> None:
    """A log whose header is not its own is none: what was moved to the database holds."""
    for position in (0, 5, 16, 24):
        log = bytearray(torn.log)
        log[position] ^= 0x10
        assert counted(torn.with_log(bytes(log), f"header-{position}")) == 0


def test_faults_log_of_another_format_is_told(torn: Torn) -> None:
    """A log of a later format, sound in itself, is told of and left where it is."""
    words = list(struct.unpack(">6I", torn.log[:24]))
    words[1] += 1
    order = ">" if words[0] & 1 else "<"
    one = two = 0
    for first, second in struct.iter_unpack(f"{order}2I", struct.pack(">6I", *words)):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    log = struct.pack(">8I", *words, one, two) + torn.log[32:]
    path = torn.with_log(log, "later")
    with pytest.raises(StoreUnavailableError, match="CANTOPEN") as caught:
        SessionManager(f"sqlite:///{path}")
    assert caught.value.operation_id is None
    assert torn.log_of(path).read_bytes() == log


KILLED = (
    PREAMBLE
    + """
manager, ledger = SessionManager(f"sqlite:///{sys.argv[1]}"), Ledger()
ledger.create(manager, "a")
print(0, flush=True)
while True:
    ledger.add(manager, "a", ballast=10_000)
    print(ledger.counts["a"], flush=True)
"""
)


def test_faults_log_of_a_killed_process(tmp_path: Path) -> None:
    """What a process acknowledged before it was killed is there, and at most one change more."""
    path = tmp_path / "sessions.db"
    with Program(KILLED, path) as program:
        while int(program.hear()) < 20:
            pass
        program.kill()
        said = [20, *(int(line) for line in program.left())]
    assert counted(path) - 1 - said[-1] in (0, 1)
