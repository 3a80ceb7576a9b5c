"""What opens a PostgreSQL server is passed on as it is: TLS, and passwords, which nobody is shown.

The server of the wheel knows no TLS. So it ends before the server, where poolers often end it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from managing import wait_until
from postgres_server import PostgresServer

from session_fsm import StoreUnavailableError
from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.stores import PostgresStore, open_store
from session_fsm.testing.authors import Author

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
PASSWORD, QUOTED = "s3cr:et/%", "s3cr%3Aet%2F%25"


def certified(directory: Path, name: str) -> Path:
    """Make a certificate of 127.0.0.1 that is signed by itself; the key stands beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = SYSTEM_CLOCK.now()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


class Tls:
    """Speaks TLS with clients, and passes on what they say to a server that knows none.

    Args:
        port: Where the server listens.
        certificate: What it shows to clients.

    Attributes:
        port: Where it listens itself.
        encrypted: How many connections it has passed on.
        refused: How many wanted to go on without TLS; they were closed.
    """

    def __init__(self, port: int, certificate: Path) -> None:
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = self.refused = 0
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            code = 0
            while code != SSL_REQUEST:
                _, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
                if code not in (SSL_REQUEST, GSS_REQUEST):
                    self.refused += 1
                    return
                client.sendall(b"S" if code == SSL_REQUEST else b"N")
            with (
                self._context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                self.encrypted += 1
                self._ends += [inside, server]
                back = threading.Thread(target=_pump, args=(server, inside), daemon=True)
                back.start()
                _pump(inside, server)
                back.join()

    def close(self) -> None:
        """Close everything, and wait until nothing is done any longer."""
        for end in [self._listener, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in list(self._threads):
            thread.join(30)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server shows."""
    return certified(tmp_path_factory.mktemp("tls"), "shown")


@pytest.fixture
def tls(postgres: PostgresServer, certificate: Path) -> Iterator[Tls]:
    """What speaks TLS before the server."""
    with closing(Tls(postgres.port, certificate)) as tls:
        yield tls


def through(tls: Tls, postgres: PostgresServer, url: str, more: str) -> str:
    """Return a URL that leads through TLS, with more in its query."""
    return url.replace(f":{postgres.port}/", f":{tls.port}/") + more


def test_postgres_tls_is_what_the_url_asks_for(
    tls: Tls, postgres: PostgresServer, postgres_url: str, certificate: Path
) -> None:
    """All connections of a store are encrypted, to a server whose certificate is known."""
    url = through(tls, postgres, postgres_url, f"&sslmode=verify-full&sslrootcert={certificate}")
    with closing(open_store(url)) as store:
        assert isinstance(store, PostgresStore)
        store.enlist("author")
        Author(store).write("a", "activate")
        for each in (store._connections, store._beats, store._hinting):
            with each.link() as link:
                assert link.pgconn.ssl_in_use
        assert store.check() == ()
    assert tls.encrypted >= 3
    assert tls.refused == 0


@pytest.mark.parametrize("more", ["&sslmode=verify-full&sslrootcert={other}", "&sslmode=disable"])
def test_postgres_tls_is_never_done_without(
    more: str, tls: Tls, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """A server that nobody vouches for is not told anything, and none is asked in clear instead."""
    other = certified(tmp_path, "other")
    url = through(tls, postgres, postgres_url, more.format(other=other))
    with pytest.raises(StoreUnavailableError) as caught:
        open_store(url)
    assert tls.encrypted == 0
    if "verify" in more:
        assert "certificate verify failed" in str(caught.value)
        assert tls.refused == 0
    else:
        assert tls.refused > 0


@pytest.fixture
def locked(postgres: PostgresServer) -> Iterator[str]:
    """A role that has to know its password."""
    role = f"locked_{postgres.new_schema()}"
    [(name,)] = postgres.execute("SHOW hba_file")
    before = Path(name).read_bytes()
    Path(name).write_bytes(f"host all {role} 127.0.0.1/32 scram-sha-256\n".encode() + before)
    postgres.execute("SELECT pg_reload_conf()")
    postgres.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")

    def refuses() -> bool:
        try:
            psycopg.connect(postgres.url(user=role)).close()
        except psycopg.OperationalError:
            return True
        return False

    wait_until(refuses)  # it reads its rules again when it does
    yield role
    Path(name).write_bytes(before)
    postgres.execute("SELECT pg_reload_conf()")
    postgres.execute(f"DROP OWNED BY {role} CASCADE")
    postgres.execute(f"DROP ROLE {role}")


def test_postgres_tls_and_passwords_open_a_store(
    locked: str, postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The right password opens, a wrong one is told at once, and neither is ever shown."""
    right = postgres_url.replace("postgres@", f"{locked}:{QUOTED}@")
    with closing(PostgresStore(right)) as store:
        assert f"{locked}:***@" in store.url
        assert store.check() == ()
    for wrong in (f"{locked}:{QUOTED}x@", f"{locked}@"):
        with pytest.raises(StoreUnavailableError) as caught:
            PostgresStore(postgres_url.replace("postgres@", wrong))
        text = f"{caught.value!r} {caught.value} {caught.value.__cause__} {caplog.text}"
        assert "password" in text
        assert PASSWORD not in text
        assert QUOTED not in text
