"""What the URL of a PostgreSQL store says, and how it is shown: never with a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import attrs
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .postgres_sql import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

HIDDEN: Final = "***"
_SECRETS: Final = ("password", "sslpassword")
_SCHEMA: Final = "schema="
_DEFAULTS: Final[dict[str, str]] = {
    "application_name": "session_fsm",
    # What a dead network would leave waiting for hours, without these.
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What libpq is told unless the URL says otherwise."""


@attrs.frozen(kw_only=True)
class Target:
    """Where a store is.

    Attributes:
        conninfo: What libpq is told.
        schema: The schema of the store.
        url: The URL as it may be shown to anybody.
        secrets: What must never be shown.
    """

    conninfo: str = attrs.field(repr=False)
    schema: str
    url: str
    secrets: tuple[str, ...] = attrs.field(repr=False)

    def hide(self, text: str) -> str:
        """Return a text with every secret in it hidden, as it is and as a URL quotes it."""
        for secret in self.secrets:
            for written in (secret, quote(secret), quote(secret, safe="")):
                text = text.replace(written, HIDDEN)
        return text


def target_of(
    url: str,
    *,
    schema: str | None = None,
    statement_timeout_seconds: float | None = None,
    connect_timeout_seconds: float | None = None,
) -> Target:
    """Read the URL of a store.

    Args:
        url: As libpq takes it, and with `schema=` in its query.
        schema: The schema; None: what the URL says, or the usual one.
        statement_timeout_seconds: Told to the server, as the longest time for a statement and
            between two of a transaction, unless the URL has options that say another; None: nothing
            is told.
        connect_timeout_seconds: Longest time for a connection to be made; None: what the URL says.

    Raises:
        ValueError: It is no URL of PostgreSQL. The message does not quote it.
    """
    bare, named = _without_schema(url)
    schema = schema or named or DEFAULT_SCHEMA
    try:
        told = {name: str(value) for name, value in conninfo_to_dict(bare).items()}
    except ProgrammingError:
        # What psycopg says of it may quote a part of the password.
        problem = "a PostgreSQL store is postgresql://user@host:port/database?schema=name, each"
        raise ValueError(f"{problem} part of it optional and quoted as in any URL") from None
    secrets = tuple(value for name in _SECRETS if (value := told.get(name)))
    shown = _shown(told, schema)
    if statement_timeout_seconds is not None:
        # Ours come first: of two that say the same, the server goes by the last. A transaction of a
        # process that was stopped in it would hold its locks for as long as that one sleeps.
        limit = max(1, round(statement_timeout_seconds * 1000))
        names = ("statement_timeout", "idle_in_transaction_session_timeout")
        ours = " ".join(f"-c {name}={limit}" for name in names)
        told["options"] = f"{ours} {told.get('options', '')}".rstrip()
    if connect_timeout_seconds is not None:
        told["connect_timeout"] = str(max(2, round(connect_timeout_seconds)))
    conninfo = make_conninfo("", **{**_DEFAULTS, **told, "client_encoding": "UTF8"})
    return Target(conninfo=conninfo, schema=schema, url=shown, secrets=secrets)


def target_of_pool(pool: ConnectionPool[Any], *, schema: str | None = None) -> Target:
    """Return where the connections of a pool lead, as far as it says so."""
    told = pool.conninfo if isinstance(pool.conninfo, str) else ""
    more = pool.kwargs if isinstance(pool.kwargs, dict) else {}
    try:
        target = target_of(told, schema=schema)
    except ValueError:
        target = target_of("", schema=schema)
    secrets = tuple(str(more[name]) for name in _SECRETS if more.get(name))
    return attrs.evolve(target, secrets=(*target.secrets, *secrets))


def _without_schema(url: str) -> tuple[str, str | None]:
    if "://" not in url:
        return url, None  # words with spaces between them, as libpq takes them too
    base, mark, query = url.partition("?")
    parts = query.split("&") if mark else []
    kept = [part for part in parts if not part.startswith(_SCHEMA)]
    names = [unquote(part.removeprefix(_SCHEMA)) for part in parts if part.startswith(_SCHEMA)]
    return "?".join([base, *(["&".join(kept)] if kept else [])]), names[-1] if names else None


def _shown(told: dict[str, str], schema: str) -> str:
    rest = dict(told)
    user, password = rest.pop("user", ""), rest.pop("password", None)
    hosts = rest.pop("host", "").split(",")
    ports = rest.pop("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    name = quote(user, safe="") + ("" if password is None else f":{HIDDEN}")
    places = ",".join(
        (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=False)
    )
    database = quote(rest.pop("dbname", ""), safe="")
    if schema != DEFAULT_SCHEMA:
        rest["schema"] = schema
    query = "&".join(
        f"{each}={HIDDEN if each in _SECRETS else quote(value, safe='')}"
        for each, value in rest.items()
    )
    return (
        f"postgresql://{name}{'@' if name else ''}{places}"
        f"{f'/{database}' if database else ''}{f'?{query}' if query else ''}"
    )
