"""For tests of programs with sessions, of lifecycles with guards and effects, and of stores.

Everything here takes any lifecycle; left out, it is that of a session. Needs the extra `testing`;
no production module imports this package.

- Time and identity: `ManualClock` stands still until it is moved, `SequentialIds` count.
  `run_simulated` runs a coroutine on an event loop that moves such a clock whenever there is
  nothing left to do, so that hours pass in milliseconds.
- Strategies for Hypothesis: `states` that are valid, `reachable_states` that walks lead to, and
  their parts.
- `paths` is the shortest set of ways that takes every row, `simple_paths` are all ways to an end:
  parameters for pytest, which names each test by its triggers. `walk` goes one by a session
  machine, `walk_managed` by a manager.
- `LifecycleRules` does to managers of a lifecycle, on a store, whatever can be done, and holds each
  answer against what the pure functions say.
- `StoreContract` is what every store keeps to, as tests.
- `RowRecorder` tells which rows were fired; for a whole run of pytest, `session_fsm.testing.plugin`
  does, as a report and as a diagram in which a row that no test fired is red.

Example:
    >>> from hypothesis import strategies as st
    >>> from session_fsm import Lifecycle, Row, guard
    >>> from session_fsm.stores import MemoryStore
    >>> @guard("only cash is taken", needs="cents")
    ... def is_cash(attempt):
    ...     return attempt.arguments["cents"] % 5 == 0
    >>> ORDER = Lifecycle(
    ...     ("open", "paid", "void"),
    ...     "open",
    ...     [
    ...         Row("pay", "open", "paid", guards=is_cash, required="cents"),
    ...         Row("cancel", "open", "void", ending=True),
    ...     ],
    ...     name="order",
    ... )
    >>> for path in paths(ORDER):
    ...     print(path, "leads to", walk(path, arguments={"pay": {"cents": 450}}).state.status)
    pay leads to paid
    cancel leads to void

    All of the manager's verbs with these guards, on a store of one's own:

    >>> class OrderRules(LifecycleRules):
    ...     lifecycle = ORDER
    ...     arguments = {"pay": {"cents": st.integers(1, 10)}}
    ...     def open_store(self):
    ...         return MemoryStore(ORDER)
    >>> TestOrders = OrderRules.TestCase

    And a run that fails if a row was never fired:

        python -m pytest -p session_fsm.testing.plugin --rows=shop.orders:ORDER --rows-strict
"""

from ..clock import ManualClock
from .ids import SequentialIds
from .paths import LifecyclePath, PathStep, paths, simple_paths
from .reachable import reachable_states
from .rows import RowCoverage, RowRecorder
from .rules import LifecycleRules
from .simulated import SimulatedLoop, run_simulated
from .store_contract import StoreContract
from .strategies import configs, instants, json_objects, session_ids, states
from .walks import Walk, walk, walk_managed

__all__ = [
    # time and identity
    "ManualClock",
    "SequentialIds",
    "SimulatedLoop",
    "run_simulated",
    # strategies
    "configs",
    "instants",
    "json_objects",
    "reachable_states",
    "session_ids",
    "states",
    # paths through a lifecycle
    "LifecyclePath",
    "PathStep",
    "Walk",
    "paths",
    "simple_paths",
    "walk",
    "walk_managed",
    # rows that tests fire
    "RowCoverage",
    "RowRecorder",
    # managers of a lifecycle
    "LifecycleRules",
    # contracts
    "StoreContract",
]
