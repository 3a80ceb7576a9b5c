"""What is left of a file by a process that is killed before each of its steps, one after the other.

`crash_forks` forks and kills; a process of its own does it, which has no threads.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from processes import ROOT

_PROGRAM = """
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, "tests")
from crash_forks import Fuse, fork, unbroken

{act}

written, directory = map(Path, sys.argv[1:])
copy = directory / "copy.db"


def put_back():
    for each in directory.glob("copy.db*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.copy(written, copy)


put_back()
steps, _ = unbroken(lambda: act(copy))
for step in range(1, steps + 1):
    put_back()
    code = fork(lambda: act(copy), Fuse(step)).end(None)
    assert code == -signal.SIGKILL, code
    for suffix in ("", "-wal"):
        if Path(f"{{copy}}{{suffix}}").exists():
            shutil.copy(f"{{copy}}{{suffix}}", directory / f"killed-{{step}}.db{{suffix}}")
print(steps)
"""


def killed_copies(act: str, written: Path, directory: Path) -> list[Path]:
    """Do something with a file in forks, each killed before another step; return what they left.

    Args:
        act: Source that defines `act(path)`.
        written: The file as it is before; nobody has it open.
        directory: An empty one for the copies.

    Returns:
        A file, with its log, for each step: every statement, and every change of files.
    """
    directory.mkdir(exist_ok=True)
    source = _PROGRAM.format(act=textwrap.dedent(act))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source, written, directory],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return [directory / f"killed-{step}.db" for step in range(1, int(done.stdout) + 1)]
