"""Supervised sessions on an event loop.

`SessionManager` has the verbs of the one for threads, awaited, over the same core. A session may
have children, which a `SessionSupervisor` starts, restarts and stops: nothing runs without a
parent, and when the manager is closed, nothing runs any longer.
"""

from .child_context import ChildContext
from .children import Child, ChildStatus, Inbox, RestartLimit
from .contexts import ContextManager
from .manager import SessionManager
from .process import ProcessWorker
from .supervisor import SessionSupervisor
from .tables import SessionTable

__all__ = [
    "Child",
    "ChildContext",
    "ChildStatus",
    "ContextManager",
    "Inbox",
    "ProcessWorker",
    "RestartLimit",
    "SessionManager",
    "SessionSupervisor",
    "SessionTable",
]
