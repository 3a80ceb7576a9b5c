"""What the URL of a PostgreSQL store says, and how it is shown: never with a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import attrs
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .postgres_sql import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

HIDDEN: Final = "***"
_SECRETS: Final = frozenset(
    each.keyword.decode() for each in pq.Conninfo.get_defaults() if each.dispchar == b"*"
) | {
    "password",
    "sslpassword",
    "scram_client_key",
    "scram_server_key",
    "oauth_client_secret",
}
"""The options that open something: those that libpq would not show as they are typed, and those
that it would not show at all, beside others that are harmless."""
_SCHEME: Final = "postgresql://"
_OURS: Final = ("schema", "prepare")
"""What stands in the query of a URL, and is not for libpq."""
_PREPARE: Final = {"true": True, "false": False}
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
        prepare: Whether statements are prepared.
        url: The URL as it may be shown to anybody.
        secrets: What must never be shown.
    """

    conninfo: str = attrs.field(repr=False)
    schema: str
    prepare: bool = True
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
    prepare: bool | None = None,
    statement_timeout_seconds: float | None = None,
    connect_timeout_seconds: float | None = None,
) -> Target:
    """Read the URL of a store.

    Args:
        url: As libpq takes it, and with `schema=` and `prepare=` in its query.
        schema: The schema; None: what the URL says, or the usual one.
        prepare: Whether statements are prepared; None: what the URL says, or that they are.
        statement_timeout_seconds: Told to the server, as the longest time for a statement and
            between two of a transaction, unless the URL has options that say another; None: nothing
            is told.
        connect_timeout_seconds: Longest time for a connection to be made; None: what the URL says.

    Raises:
        ValueError: It is no URL of PostgreSQL. The message does not quote it.
    """
    bare, named = _without_ours(url)
    schema = schema or named.get("schema") or DEFAULT_SCHEMA
    if prepare is None:
        prepare = _PREPARE.get(named.get("prepare", "true"))
    if prepare is None:
        raise ValueError("the URL of a PostgreSQL store has prepare=true or prepare=false")
    try:
        told = {name: str(value) for name, value in conninfo_to_dict(bare).items()}
    except ProgrammingError:
        # What psycopg says of it may quote a part of the password.
        problem = "a PostgreSQL store is postgresql://user@host:port/database?schema=name, each"
        raise ValueError(f"{problem} part of it optional and quoted as in any URL") from None
    secrets = _hidden(told)
    shown = _shown(told, schema, prepare=prepare)
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
    return Target(conninfo=conninfo, schema=schema, prepare=prepare, url=shown, secrets=secrets)


def target_of_pool(pool: ConnectionPool[Any], *, schema: str | None = None) -> Target:
    """Return where the connections of a pool lead, as far as it says so."""
    told = pool.conninfo if isinstance(pool.conninfo, str) else ""
    more = pool.kwargs if isinstance(pool.kwargs, dict) else {}
    try:
        target = target_of(told, schema=schema)
    except ValueError:
        target = target_of("", schema=schema)
    secrets = _hidden({name: str(value) for name, value in more.items() if value})
    return attrs.evolve(target, secrets=(*target.secrets, *secrets))


def _hidden(told: dict[str, str]) -> tuple[str, ...]:
    """Return the secrets among what libpq is told, the longest first: one may hold another.

    One that is the name of the user, say, as well is none of them: that name is shown in any case,
    and hidden wherever it stands it would tell that it opens something.
    """
    public = {value for name, value in told.items() if name not in _SECRETS}
    secrets = {value for name in _SECRETS if (value := told.get(name))}
    kept = {each for each in secrets - public if each not in _SCHEME}
    return tuple(sorted(kept, key=len, reverse=True))


def _without_ours(url: str) -> tuple[str, dict[str, str]]:
    if "://" not in url:
        return url, {}  # words with spaces between them, as libpq takes them too
    base, mark, query = url.partition("?")
    kept: list[str] = []
    ours: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        name, _, value = part.partition("=")
        if name in _OURS:
            ours[name] = unquote(value)
        else:
            kept.append(part)
    return "?".join([base, *(["&".join(kept)] if kept else [])]), ours


def _shown(told: dict[str, str], schema: str, *, prepare: bool) -> str:
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
    if not prepare:
        rest["prepare"] = "false"
    query = "&".join(
        f"{each}={HIDDEN if each in _SECRETS else quote(value, safe='')}"
        for each, value in rest.items()
    )
    return (
        f"{_SCHEME}{name}{'@' if name else ''}{places}"
        f"{f'/{database}' if database else ''}{f'?{query}' if query else ''}"
    )
