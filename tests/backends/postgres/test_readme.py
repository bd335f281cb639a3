"""The code in the README of the backend runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge_postgres.options import OPTIONS

from ...support.postgres_server import Server

README = (Path(__file__).parents[3] / "llmbridge-postgres" / "README.md").read_text(encoding="utf-8")
SQL = re.findall(r"^```sql\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

REQUEST = LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")])


async def test_the_rights_it_grants_are_enough_and_its_query_runs(server: Server, url: str, database: str) -> None:
    grants, query = SQL
    async with LLMBridge(url):
        pass
    with server.role([database]) as app:
        server.run(*filter(str.strip, grants.replace("app", app).split(";")), database=database)
        async with LLMBridge(server.database_url(database, user=app), migrate="check") as bridge:
            assert (await bridge.chat(REQUEST)).record_status == "committed"
            [row] = server.run(query, database=database)
            assert (row["model_name"], row["call_count"]) == ("parrot", 1)


async def test_its_snippet_uses_the_pool_of_an_application(server: Server, url: str, database: str) -> None:
    [snippet] = PYTHON
    names: dict[str, Any] = {"url": url, "REQUEST": REQUEST}
    used = snippet.replace("    ...", "    await bridge.chat(REQUEST)")
    waiting = eval(compile(used, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert inspect.isawaitable(waiting)
    await waiting
    assert await names["manager"].fetch_value("SELECT count(*) FROM billing.call_log") == 1
    await names["manager"].disconnect()


def test_every_option_it_names_is_one() -> None:
    table = re.findall(r"^\| `(\w+)=", README, re.MULTILINE)
    assert set(table) == {"schema", "max_connections", "pgbouncer", "enable_monitoring"}
    assert set(re.findall(r"[?&]([a-z_]+)=", README)) | set(table) <= OPTIONS.keys()
