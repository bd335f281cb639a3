"""URLs of hosting services, and every keyword of libpq."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from llmbridge.errors import InvalidStorageURLError, StorageUnavailableError
from llmbridge.plugins import create_backend
from llmbridge.storage.url import parse
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_postgres.dsn import KEYWORDS, connect_arguments, place
from llmbridge_postgres.options import Settings

from ...support.fake_postgres_server import answering, silent
from ...support.postgres_server import Server

IGNORED = {
    "channel_binding": "require",
    "client_encoding": "utf8",
    "gssencmode": "disable",
    "keepalives": "1",
    "keepalives_count": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "load_balance_hosts": "random",
    "require_auth": "scram-sha-256",
    "sslcompression": "0",
    "sslsni": "1",
    "tcp_user_timeout": "5000",
}


def arguments(url: str) -> dict[str, Any]:
    """What asyncpg is given, its DSN taken apart."""
    settings = Settings.of(url, {})
    made = connect_arguments(settings.address, settings.keywords)
    made |= {name: values[-1] for name, values in parse_qs(urlsplit(made.pop("dsn")).query).items()}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "postgresql://me:s%40cret@books.c1.eu-west-1.rds.amazonaws.com:5432/books?sslmode=verify-full&sslrootcert=/etc/rds.pem",
            {
                "host": "books.c1.eu-west-1.rds.amazonaws.com",
                "port": "5432",
                "user": "me",
                "password": "s@cret",
                "database": "books",
                "sslmode": "verify-full",
                "sslrootcert": "/etc/rds.pem",
            },
            id="RDS",
        ),
        pytest.param(
            "postgresql://postgres:pw@db.abcdefgh.supabase.co:5432/postgres",
            {
                "host": "db.abcdefgh.supabase.co",
                "port": "5432",
                "user": "postgres",
                "password": "pw",
                "database": "postgres",
            },
            id="Supabase",
        ),
        pytest.param(
            "postgres://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true",
            {
                "host": "aws-0-eu-central-1.pooler.supabase.com",
                "port": "6543",
                "user": "postgres.abcdefgh",
                "password": "pw",
                "database": "postgres",
            },
            id="Supabase's pooler",
        ),
        pytest.param(
            "postgresql://me:npg_pw@ep-cool-rain-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            {
                "host": "ep-cool-rain-1-pooler.eu-central-1.aws.neon.tech",
                "user": "me",
                "password": "npg_pw",
                "database": "neondb",
                "sslmode": "require",
            },
            id="Neon",
        ),
        pytest.param(
            "postgresql://me:pw@ep-1.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-1",
            {
                "host": "ep-1.neon.tech",
                "user": "me",
                "password": "pw",
                "database": "neondb",
                "sslmode": "require",
                "server_settings": {"application_name": "llmbridge", "options": "endpoint=ep-1"},
            },
            id="Neon without SNI",
        ),
        pytest.param(
            "postgres://u4f:p9d@ec2-54-1-2-3.compute-1.amazonaws.com:5432/d7b?ssl=true",
            {
                "host": "ec2-54-1-2-3.compute-1.amazonaws.com",
                "port": "5432",
                "user": "u4f",
                "password": "p9d",
                "database": "d7b",
                "sslmode": "require",
            },
            id="Heroku",
        ),
        pytest.param(
            "postgresql://me:pw@/books?host=/cloudsql/project:europe-west1:books",
            {
                "host": "/cloudsql/project:europe-west1:books",
                "user": "me",
                "password": "pw",
                "database": "books",
            },
            id="Cloud SQL",
        ),
        pytest.param(
            "postgresql://me@%2Fvar%2Frun%2Fpostgresql/books",
            {"host": "/var/run/postgresql", "user": "me", "database": "books"},
            id="socket folder as host",
        ),
        pytest.param(
            "postgresql://me@db1:5433,db2/books?target_session_attrs=read-write&connect_timeout=3",
            {
                "host": "db1:5433,db2",
                "user": "me",
                "database": "books",
                "target_session_attrs": "read-write",
                "timeout": 6,
            },
            id="two hosts",
        ),
        pytest.param(
            "postgresql://[::1]:5433/books", {"host": "[::1]", "port": "5433", "database": "books"}, id="IPv6"
        ),
        pytest.param("postgresql://", {}, id="nothing said"),
    ],
)
def test_urls_as_services_give_them(url: str, expected: dict[str, Any]) -> None:
    usual = {"timeout": 10, "server_settings": {"application_name": "llmbridge"}}
    assert arguments(url) == usual | expected


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_every_keyword_is_an_option_of_the_plugin(keyword: str) -> None:
    value = {"connect_timeout": 5, "ssl": True, "sslmode": "prefer", "target_session_attrs": "any", "port": "5432"}
    backend = create_backend("postgresql://localhost/books", **{keyword: value.get(keyword, "text")})
    assert isinstance(backend, PostgreSQLBackend)


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=always",
        "target_session_attrs=any-of-them",
        "port=five",
        "connect_timeout=soon",
        "sslmod=require",
        "max_connections=0",
        "max_connections=many",
        "pgbouncer=maybe",
        "sslrootcert=system&sslmode=require",
        "db_manager=x",
    ],
)
def test_wrong_options_are_errors_of_the_constructor(query: str) -> None:
    for make in (create_backend, PostgreSQLBackend):
        with pytest.raises(InvalidStorageURLError):
            make(f"postgresql://localhost/books?{query}")


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidStorageURLError, match="did you mean sslmode"):
        create_backend("postgresql://localhost/books?sslmod=require")


@pytest.mark.parametrize("schema", ["Books", 'my"books', "my books", "1st", "pg_books", "", "x" * 64, "bücher"])
def test_a_schema_with_quotes_or_capitals_is_refused_and_told_how_to_write_it(schema: str) -> None:
    with pytest.raises(InvalidStorageURLError, match="lower-case letters"):
        PostgreSQLBackend("postgresql://localhost/books", schema=schema)


def test_another_scheme_is_refused_by_a_backend_made_by_hand() -> None:
    with pytest.raises(InvalidStorageURLError, match="postgresql://"):
        PostgreSQLBackend("sqlite:///books.db")


def test_what_asyncpg_does_not_know_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="llmbridge"):
        create_backend("postgresql://localhost/books", **IGNORED)
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert all(name in record.getMessage() for name in IGNORED)


def test_the_systems_trust_can_be_asked_for() -> None:
    made = arguments("postgresql://db/books?sslrootcert=system")
    assert isinstance(made["ssl"], ssl.SSLContext)
    assert made["ssl"].check_hostname


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://me:pw@db:5433/books", "books on db:5433"),
        ("postgresql://db/books", "books on db"),
        ("postgresql://me:pw@/books?host=/run/pg&port=5433", "books on /run/pg"),
        ("postgresql://", "of the user on the local server"),
        ("postgresql://me@db", "me on db"),
        ("postgresql://?dbname=books&host=db", "books on db"),
    ],
)
def test_people_are_told_where_the_database_is(url: str, where: str) -> None:
    address, query = parse(url)
    assert place(address, query) == where


def test_no_text_of_a_backend_shows_a_password() -> None:
    backend = create_backend("postgresql://me:hunter2@db/books?sslpassword=hunter2", password="hunter2")
    settings = Settings.of("postgresql://me:hunter2@db/books?password=hunter2", {})
    assert "hunter2" not in f"{backend!r} {backend} {settings!r} {settings}"


async def test_ignored_keywords_do_not_keep_from_connecting(server: Server, database: str) -> None:
    async with PostgreSQLBackend(server.database_url(database, **IGNORED)) as backend:
        await backend.ping()


async def test_keywords_reach_the_server(server: Server, database: str) -> None:
    url = server.database_url(database, application_name="my books", options="-c work_mem=12345kB")
    async with PostgreSQLBackend(url) as backend:
        assert await backend.fetch_value("SHOW work_mem") == "12345kB"
        assert await backend.fetch_value("SHOW application_name") == "my books"


async def test_the_name_of_the_application_is_llmbridge_unless_told(url: str) -> None:
    async with PostgreSQLBackend(url) as backend:
        assert await backend.fetch_value("SHOW application_name") == "llmbridge"
    async with PostgreSQLBackend(url, fallback_application_name="mine") as backend:
        assert await backend.fetch_value("SHOW application_name") == "mine"


async def test_a_password_comes_from_the_passfile(tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:books:me:hunter2\n")
    passfile.chmod(0o600)
    settings = Settings.of(f"postgresql://me@/books?passfile={passfile}&host=127.0.0.1", {})
    passwords: list[str] = []

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        length = int.from_bytes(await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(b"R\0\0\0\x08\0\0\0\x03")
        await reader.readexactly(1)
        length = int.from_bytes(await reader.readexactly(4))
        passwords.append((await reader.readexactly(length - 4)).decode().rstrip("\0"))

    async with answering(answer) as port:
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await asyncpg.connect(**connect_arguments(settings.address, {**settings.keywords, "port": str(port)}))
    assert passwords == ["hunter2"]


async def test_a_standby_is_not_taken_for_a_primary(server: Server, database: str) -> None:
    with pytest.raises(StorageUnavailableError):
        await PostgreSQLBackend(server.database_url(database, target_session_attrs="standby")).connect()
    async with PostgreSQLBackend(server.database_url(database, target_session_attrs="primary")) as backend:
        await backend.ping()


async def test_a_server_that_never_answers_is_given_up_after_connect_timeout() -> None:
    async with answering(silent) as port:
        backend = PostgreSQLBackend(f"postgresql://me:hunter2@127.0.0.1:{port}/books?connect_timeout=1")
        with pytest.raises(StorageUnavailableError, match="did not answer in time"):
            await backend.connect()


def test_a_place_given_as_an_option_tells_stores_apart():
    urls = ("postgresql:///db?host=/a", "postgresql:///db?host=/b", "postgresql:///db?host=/b&port=5433")
    targets = {create_backend(url).target for url in (*urls, "postgres:///other?host=/a&dbname=db")}
    assert len(targets) == 3
