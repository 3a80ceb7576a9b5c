"""The contract of stores, as tests that any store can be put through."""

from __future__ import annotations

from .store_batches import BatchRules
from .store_compaction import CompactionRules
from .store_expiry import ItemTimeRules
from .store_feed import FeedRules
from .store_items import ItemRules
from .store_listing import ListingRules
from .store_sessions import SessionRules
from .store_taking import TakingRules
from .store_work import WorkRules


class StoreContract(
    SessionRules,
    ListingRules,
    WorkRules,
    TakingRules,
    BatchRules,
    CompactionRules,
    FeedRules,
    ItemRules,
    ItemTimeRules,
):
    """What every store keeps to; see `session_fsm.stores.abc`.

    Subclass it in a test module of pytest, with a fixture `store` that gives a new, empty store of
    the session lifecycle and closes it afterwards:

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store(self):
                store = MyStore()
                yield store
                store.close()
    """
