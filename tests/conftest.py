"""What all tests share: the repository they run in and how Hypothesis searches."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine and run, so a red check is red for everybody. A developer
# looks for new ones with HYPOTHESIS_PROFILE=explore. Neither times a single example: a machine
# under load is no defect of the code.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, which holds setup.cfg and the package."""
    return Path(__file__).resolve().parent.parent


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so; programs of the tests would inherit it, and
    # never be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["postgres_server"]
