"""TLS: which servers and clients are trusted, and one sentence for each error."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.errors import StorageError, StorageRefusedError
from llmbridge_postgres import PostgreSQLBackend

from ...support.certificates import Authority
from ...support.postgres_server import OwnServer

PASSWORD = "hunter2-do-not-show"

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(autouse=True)
def secrecy(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log of any library has the password."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text


def url(server: OwnServer, who: str = "postgres", host: str = "localhost", **keywords: Any) -> str:
    return f"postgresql://{who}@{host}:{server.port}/postgres?{urlencode(keywords)}"


async def is_encrypted(address: str) -> bool:
    async with PostgreSQLBackend(address) as backend:
        encrypted: bool = await backend.fetch_value(IS_ENCRYPTED)
        return encrypted


async def refusal(address: str) -> str:
    """What connecting says, in one line."""
    with pytest.raises(StorageRefusedError) as caught:
        await PostgreSQLBackend(address).connect()
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_connections_are_encrypted_without_a_check_of_the_server(server: OwnServer, mode: str) -> None:
    assert await is_encrypted(url(server, sslmode=mode))
    assert await is_encrypted(url(server, host="127.0.0.1", sslmode=mode))


async def test_without_a_word_of_tls_it_is_used_where_the_server_has_it(server: OwnServer) -> None:
    assert await is_encrypted(url(server))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_of_the_authority_is_trusted(server: OwnServer, authority: Authority, mode: str) -> None:
    assert await is_encrypted(url(server, sslmode=mode, sslrootcert=authority.trust))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_of_another_authority_is_not(server: OwnServer, stranger: Authority, mode: str) -> None:
    """As in libpq, a root certificate makes `require` check it."""
    said = await refusal(url(server, f"guarded:{PASSWORD}", sslmode=mode, sslrootcert=stranger.trust))
    assert "its certificate is not trusted" in said
    assert said.endswith("correct sslrootcert in the URL")


async def test_nor_is_it_by_the_operating_system(server: OwnServer) -> None:
    assert "sslrootcert" in await refusal(url(server, sslrootcert="system"))


async def test_a_certificate_for_another_host(server: OwnServer, authority: Authority) -> None:
    assert await is_encrypted(url(server, host="127.0.0.1", sslmode="verify-ca", sslrootcert=authority.trust))
    said = await refusal(url(server, host="127.0.0.1", sslmode="verify-full", sslrootcert=authority.trust))
    assert "its certificate is valid for another host" in said
    assert "127.0.0.1" in said
    assert said.endswith("sslmode=verify-ca")


async def test_a_certificate_opens_for_its_owner(server: OwnServer, authority: Authority) -> None:
    certificate, key = authority.certify("certified")
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "sslcert": certificate, "sslkey": key}
    assert await is_encrypted(url(server, "certified", **keywords))
    assert "sslcert" in await refusal(url(server, "certified", sslmode="require"))


async def test_a_key_under_a_password(server: OwnServer, authority: Authority) -> None:
    certificate, key = authority.certify("certified", password=PASSWORD)
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "sslcert": certificate, "sslkey": key}
    assert await is_encrypted(url(server, "certified", **keywords, sslpassword=PASSWORD))
    said = await refusal(url(server, "certified", **keywords, sslpassword=f"not-{PASSWORD}"))
    assert "sslpassword" in said


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_certificate_of_another_authority_does_not_open(
    server: OwnServer, authority: Authority, stranger: Authority, version: str
) -> None:
    certificate, key = stranger.certify("certified")
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "sslcert": certificate, "sslkey": key}
    backend = PostgreSQLBackend(url(server, "certified", **keywords, ssl_max_protocol_version=version))
    error: StorageError | None = None
    while not isinstance(error, StorageRefusedError):
        # In TLS 1.3 the server refuses it after the handshake and hangs up, which may be heard first.
        with pytest.raises(StorageError) as caught:
            await backend.connect()
        error = caught.value
    assert "alert unknown ca" in str(error)
    assert "sslcert" in str(error)


async def test_a_key_of_another_certificate(server: OwnServer, authority: Authority) -> None:
    (certificate, _), (_, key) = authority.certify("certified"), authority.certify("other")
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "sslcert": certificate, "sslkey": key}
    said = await refusal(url(server, "certified", **keywords))
    assert "key values mismatch" in said
    assert "sslkey" in said


@pytest.mark.parametrize("keyword", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_that_is_missing_or_something_else(
    server: OwnServer, authority: Authority, tmp_path: Path, keyword: str, content: str | None
) -> None:
    certificate, key = authority.certify("certified")
    file = tmp_path / "strange.pem"
    if content is not None:
        file.write_text(content)
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "sslcert": certificate, "sslkey": key}
    said = await refusal(url(server, "certified", **(keywords | {keyword: file})))
    assert keyword in said or (keyword == "sslcrl" and "crl" in said)
    assert content is not None or "strange.pem" in said


async def test_who_comes_without_tls_is_told_that_the_server_demands_it(server: OwnServer) -> None:
    assert "sslmode=require" in await refusal(url(server, f"guarded:{PASSWORD}", sslmode="disable"))


async def test_allow_turns_to_tls_where_the_server_demands_it(server: OwnServer) -> None:
    assert await is_encrypted(url(server, sslmode="allow"))
    assert not await is_encrypted(url(server, "unsafe", sslmode="allow"))


async def test_a_password_over_tls(server: OwnServer, authority: Authority) -> None:
    keywords = {"sslmode": "verify-full", "sslrootcert": authority.trust, "channel_binding": "prefer"}
    assert await is_encrypted(url(server, "guarded:right", **keywords))
    assert "password is wrong" in await refusal(url(server, f"guarded:{PASSWORD}", **keywords))


async def test_calls_are_recorded_over_tls(server: OwnServer, authority: Authority) -> None:
    async with LLMBridge(url(server, sslmode="verify-full", sslrootcert=authority.trust)) as bridge:
        response = await bridge.chat(LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")]))
    assert response.record_status == "committed"
