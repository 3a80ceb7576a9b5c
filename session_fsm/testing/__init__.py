"""What tests of programs with sessions need: time that stands still, ids that count, valid data.

And for whoever writes a store: its contract, as tests. Needs the extra `testing`; no production
module imports this package.
"""

from ..clock import ManualClock
from .ids import SequentialIds
from .store_contract import StoreContract
from .strategies import configs, instants, json_objects, session_ids, states

__all__ = [
    # time and identity
    "ManualClock",
    "SequentialIds",
    # strategies
    "configs",
    "instants",
    "json_objects",
    "session_ids",
    "states",
    # contracts
    "StoreContract",
]
