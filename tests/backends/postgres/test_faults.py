"""Errors of the connection: each is one sentence that says what to do and shows no password."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Iterator

import asyncpg
import pytest

from llmbridge.errors import (
    ConstraintError,
    MigrationError,
    RecordRejectedError,
    SchemaOutdatedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from llmbridge.storage import UsageQuery
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_postgres.errors import translate

from ...support.fake_postgres_server import answering, of_the_web, of_version, refusing
from ...support.postgres_server import OwnServer, Server

PASSWORD = "hunter2-do-not-show"


@pytest.fixture(autouse=True)
def secrecy(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log of any library has the password."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text


async def refusal(url: str) -> StorageError:
    """What connecting raises: one line, and nothing in its whole traceback has the password."""
    with pytest.raises(StorageError) as caught:
        await PostgreSQLBackend(url).connect()
    error = caught.value
    assert "\n" not in str(error)
    assert PASSWORD not in "".join(traceback.format_exception(error))
    assert PASSWORD not in repr(error)
    return error


@pytest.fixture
def guarded(own_server: OwnServer) -> OwnServer:
    own_server.run("DROP ROLE IF EXISTS guarded", f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
    own_server.demand_passwords("guarded")
    return own_server


async def test_the_right_password_opens(guarded: OwnServer) -> None:
    async with PostgreSQLBackend(guarded.database_url("postgres", user="guarded", password=PASSWORD)) as backend:
        await backend.ping()


async def test_a_wrong_password(guarded: OwnServer) -> None:
    error = await refusal(guarded.database_url("postgres", user="guarded", password=f"not-{PASSWORD}"))
    assert isinstance(error, StorageRefusedError)
    assert "password is wrong" in str(error)


async def test_an_unknown_user(server: Server) -> None:
    error = await refusal(server.database_url("postgres", user="nobody_of_that_name", password=PASSWORD))
    assert isinstance(error, StorageRefusedError)
    assert "user" in str(error)


async def test_a_database_that_is_missing(server: Server) -> None:
    error = await refusal(server.database_url("no_such_books", password=PASSWORD))
    assert isinstance(error, StorageRefusedError)
    assert "createdb" in str(error)


async def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = await refusal(f"postgresql://me:{PASSWORD}@no-such-host.invalid/books")
    assert isinstance(error, StorageRefusedError)
    assert "host name is unknown" in str(error)


async def test_a_name_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert isinstance(await refusal(f"postgresql://me:{PASSWORD}@db.example/books"), StorageUnavailableError)


async def test_nobody_listens_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books")
    assert isinstance(error, StorageUnavailableError)
    assert f"books on 127.0.0.1:{port}" in str(error)


async def test_a_socket_folder_without_a_server() -> None:
    error = await refusal(f"postgresql://me:{PASSWORD}@/books?host=/nonexistent")
    assert isinstance(error, StorageUnavailableError)


async def test_a_server_that_is_too_old() -> None:
    async with answering(of_version("14.9")) as port:
        error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books")
    assert isinstance(error, StorageRefusedError)
    assert "version 14" in str(error)
    assert "15 or newer" in str(error)


async def test_a_database_that_cannot_hold_every_text(server: Server) -> None:
    with server.database("ENCODING 'LATIN1' LOCALE 'C'") as name:
        error = await refusal(server.database_url(name))
    assert isinstance(error, StorageRefusedError)
    assert "UTF8" in str(error)


async def test_a_server_without_the_tls_that_was_asked_for() -> None:
    async with answering(of_version("17.2")) as port:
        error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books?sslmode=require")
    assert isinstance(error, StorageRefusedError)
    assert "sslmode" in str(error)


async def test_what_answers_is_no_postgresql() -> None:
    async with answering(of_the_web) as port:
        error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books")
    assert isinstance(error, StorageRefusedError)
    assert "it is not a PostgreSQL server; correct" in str(error)


async def test_a_certificate_of_authority_that_is_missing() -> None:
    error = await refusal(
        f"postgresql://me:{PASSWORD}@127.0.0.1/books?sslmode=verify-full&sslrootcert=/nonexistent.pem"
    )
    assert "nonexistent.pem" in str(error) or "root certificate" in str(error) or "No such file" in str(error)


async def test_a_pooler_that_refuses_what_a_server_takes() -> None:
    async with answering(refusing("08P01", "unsupported startup parameter: options")) as port:
        error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books?options=-c%20a%3Db")
    assert isinstance(error, StorageRefusedError)
    assert "?pgbouncer=true" in str(error)


async def test_too_many_connections_may_pass() -> None:
    async with answering(refusing("53300", "sorry, too many clients already")) as port:
        error = await refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/books")
    assert isinstance(error, StorageUnavailableError)


async def test_a_pooler_without_the_flag(backend: PostgreSQLBackend) -> None:
    """A pooler gives each transaction another connection of the server, which does not know our statements."""
    await backend.record_calls([make_call()])
    await backend.execute("DEALLOCATE ALL")
    with pytest.raises(StorageRefusedError, match=r"\?pgbouncer=true"):
        await backend.record_calls([make_call(1)])


async def test_with_the_flag_no_statement_is_kept_at_the_server(backend: PostgreSQLBackend, url: str) -> None:
    async with PostgreSQLBackend(url, pgbouncer=True, max_connections=1) as pooled:
        for number in range(3):
            await pooled.record_calls([make_call(number)])
            await pooled.execute("DEALLOCATE ALL")
            assert (await pooled.summarize_usage(UsageQuery()))[0].calls == number + 1
        assert await pooled.fetch_value("SELECT count(*) FROM pg_prepared_statements") == 0


async def test_over_a_pooler_nothing_is_migrated(url: str) -> None:
    async with PostgreSQLBackend(url, pgbouncer=True) as pooled:
        with pytest.raises(MigrationError, match="llmbridge storage migrate"):
            await pooled.apply_migrations()
        assert (await pooled.schema_status()).current is None
        async with PostgreSQLBackend(url) as direct:
            await direct.apply_migrations()
        assert (await pooled.apply_migrations()).applied == []


async def test_use_without_a_schema_names_the_command(url: str) -> None:
    async with PostgreSQLBackend(url) as backend:
        for use in (backend.record_calls([make_call()]), backend.summarize_usage(UsageQuery())):
            with pytest.raises(SchemaOutdatedError, match="llmbridge storage migrate"):
                await use


async def test_no_rights_to_the_tables(server: Server, database: str, backend: PostgreSQLBackend) -> None:
    with server.role() as name:
        async with PostgreSQLBackend(server.database_url(database, user=name)) as strange:
            with pytest.raises(StorageRefusedError, match=r"INSERT and UPDATE .*, DELETE to purge and to forget"):
                await strange.record_calls([make_call()])


async def test_a_value_that_cannot_be_stored_is_not_shown(backend: PostgreSQLBackend) -> None:
    secret = make_call(prompt_tokens=2**63, error_message=PASSWORD)
    with pytest.raises(RecordRejectedError) as caught:
        await backend.record_calls([secret])
    assert str(2**63) not in str(caught.value)


async def test_a_standby_is_left_as_soon_as_there_is_a_primary(server: Server, database: str, url: str) -> None:
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()
        server.run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await backend.disconnect()
        await backend.connect()
        with pytest.raises(StorageUnavailableError, match="read-only"):
            await backend.record_calls([make_call()])
        server.run(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        assert (await backend.record_calls([make_call()])).inserted == 1


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("40P01", StorageUnavailableError),
        ("40001", StorageUnavailableError),
        ("08006", StorageUnavailableError),
        ("57P01", StorageUnavailableError),
        ("57014", StorageUnavailableError),
        ("55P03", StorageUnavailableError),
        ("53100", StorageUnavailableError),
        ("25006", StorageUnavailableError),
        ("28000", StorageRefusedError),
        ("28P01", StorageRefusedError),
        ("3D000", StorageRefusedError),
        ("42501", StorageRefusedError),
        ("22003", RecordRejectedError),
        ("22021", RecordRejectedError),
        ("22P05", RecordRejectedError),
        ("22001", ConstraintError),
        ("22012", ConstraintError),
        ("23502", ConstraintError),
        ("23505", ConstraintError),
        ("23514", ConstraintError),
        ("54000", ConstraintError),
        ("P0001", ConstraintError),
        ("XX000", StorageError),
        ("42P01", SchemaOutdatedError),
    ],
)
def test_each_kind_of_error_is_one_of_the_contract(sqlstate: str, kind: type[StorageError]) -> None:
    error = asyncpg.PostgresError.new({"C": sqlstate, "M": "told", "S": "ERROR"})
    assert type(translate(error, "books on db")) is kind
