"""The examples of the proposal that use PostgreSQL run as written, on a server with the names that they use."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pgdbm import AsyncDatabaseManager, DatabaseConfig

from llmbridge import LLMBridge, LLMRequest, Message

from ...support.postgres_server import OwnServer, own
from .relay import relayed

EXAMPLES = Path(__file__).parent / "examples"
URL = "postgresql://user:pass@localhost/myapp"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own() as server:
        server.run("CREATE ROLE \"user\" LOGIN PASSWORD 'pass'")
        server.demand_passwords("user")
        yield server


@pytest.fixture(autouse=True)
async def myapp(server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A new database `myapp` that is reached without naming a port."""
    server.run('CREATE DATABASE myapp OWNER "user"')
    async with relayed(server.socket / ".s.PGSQL.5432") as port:
        with monkeypatch.context() as environment:
            environment.setenv("PGPORT", str(port))
            yield
    server.run("DROP DATABASE myapp WITH (FORCE)")


def run(example: str, **names: Any) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / example), init_globals=names)


async def chat(service: LLMBridge) -> int:
    """Call `service` once and return how many calls are recorded then."""
    response = await service.chat(LLMRequest(model="echo:demo", messages=[Message(role="user", content="Hello")]))
    assert response.record_status == "committed"
    return len(await service.list_recent_calls())


async def test_production_records_calls() -> None:
    for calls in (1, 2):
        service = LLMBridge(
            db_connection_string="postgresql://user:pass@localhost/myapp",
            enable_db_logging=True,
        )
        assert await chat(service) == calls
        await service.close()


async def test_production_with_monitoring_knows_its_queries() -> None:
    service = run("production.py")["service"]
    assert await chat(service) == 1
    metrics = await service.db.get_query_metrics()
    assert metrics["queries_executed"] > 0
    assert metrics["queries_failed"] == 0
    assert any("llmbridge_calls" in query["query"] for query in await service.db.get_slow_queries(0))
    assert (await service.db.get_pool_stats())["size"] > 0
    await service.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_auto_detection_finds_postgresql(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL.replace("postgresql", scheme))
    service = run("auto_detection.py")["service"]
    assert type(service.db.backend).__name__ == "PostgreSQLBackend"
    assert await chat(service) == 1
    await service.close()


@pytest.mark.parametrize("connected", [False, True])
async def test_an_injected_manager_is_used_and_left_open(connected: bool) -> None:
    names = run("backward_compatibility.py", config=DatabaseConfig(connection_string=URL, schema="host"))
    service, manager = names["service"], names["db_manager"]
    assert isinstance(manager, AsyncDatabaseManager)
    if connected:
        await manager.connect()
    assert await chat(service) == 1
    await service.close()
    assert await manager.fetch_value("SELECT count(*) FROM {{tables.call_log}}") == 1
    await manager.disconnect()
