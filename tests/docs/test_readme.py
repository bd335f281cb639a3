"""The code in the README and in the pages of `docs` runs."""

from __future__ import annotations

import ast
import base64
import inspect
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command

from llmbridge import LLMBridge, LLMDatabase
from llmbridge.cli.app import app
from llmbridge.schemas import CallRecord
from llmbridge.storage import StoragePlugin
from llmbridge.storage.hookspecs import GROUP
from llmbridge.testing import StorageContract

from ..support.fake_provider import FakeProvider, running

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
#: The page on moving has tests of its own, beside upstream's README.
MOVING = ROOT / "docs" / "moving-from-llmbridge-py.md"
PAGES = [README, *sorted(set((ROOT / "docs").glob("*.md")) - {MOVING})]


def blocks(language: str, *pages: Path) -> list[str]:
    """The code of that language in the pages, in order."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [text for page in pages for text in fence.findall(page.read_text(encoding="utf-8"))]


PYTHON = blocks("python", *PAGES)
SHELL = blocks("sh", README)
#: A pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def snippet(part: str) -> str:
    """The one Python snippet that contains `part`."""
    [found] = [text for text in PYTHON if part in text]
    return found


def shape(line: str) -> list[str]:
    """The words of a line, without ids, times, paths and widths."""
    ids, times = r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}", r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?"
    return re.sub(rf"{ids}|{times}|sqlite:\S+|\b[\d,]+(?=\s*$|\s+success$)", "*", line).split()


async def run(text: str) -> dict[str, Any]:
    """Run a snippet as its reader does, at the top level of a coroutine, and return its names."""
    names: dict[str, Any] = {"__name__": "readme"}
    waiting = eval(compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(waiting):
        await waiting
    return names


@pytest.fixture(autouse=True)
def new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeProvider]:
    """A stand-in that the environment points `openai:` and the snippet's own provider to."""
    with running() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-reader")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("ACME_API_KEY", "acme-reader")
        monkeypatch.setenv("ACME_BASE_URL", server.url)
        yield server


def test_every_snippet_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    parts = re.findall(r"snippet\(\"(.*?)\"\)", source)
    assert sorted(snippet(part) for part in parts) == sorted(PYTHON)


async def test_the_first_snippet_calls_a_provider_and_reads_usage(
    server: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(snippet("get_usage_stats"))
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer sk-reader"]
    assert capsys.readouterr().out == "echo: Hi\n0.000006000000 dollars, committed\n1 calls, 19 tokens, $0.000006\n"


def test_the_first_program_of_the_site_is_a_file_that_runs(server: FakeProvider, new_folder: Path) -> None:
    (new_folder / "first.py").write_text(snippet("asyncio.run(main())"), encoding="utf-8")
    done = subprocess.run([sys.executable, "first.py"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("echo: Hi 0.000006000000 committed\n", "")


async def test_an_endpoint_of_one_s_own_is_called_by_its_name(
    server: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(snippet("ACME_BASE_URL"))
    [request] = server.requests
    assert (request.headers["authorization"], request.body["model"]) == ("Bearer acme-reader", "large-1")
    assert capsys.readouterr().out == "echo: Hi\n"


async def test_own_prices_may_have_a_context_or_a_factor() -> None:
    await run(snippet("factor="))
    async with LLMDatabase("sqlite:///calls.db") as db:
        assert [price.key[:3] for price in await db.list_prices()] == [
            ("acme", "large-1", '{"service_tier":"priority"}'),
            ("acme", "large-1", "{}"),
            ("openai", "*", "{}"),
        ]


async def test_counts_in_any_unit_are_priced() -> None:
    await run(snippet("audio_seconds"))
    async with LLMDatabase("sqlite:///calls.db") as db:
        calls = (await db.find_calls()).calls
    assert sorted(str(call.estimated_cost) for call in calls) == ["0.001180000000", "0.012000000000"]


async def test_a_price_context_comes_from_the_caller(server: FakeProvider, capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("price_context="))
    assert capsys.readouterr().out == "0.000042500000\n"


async def test_a_fastapi_application_shares_one_bridge() -> None:
    app = (await run(snippet("FastAPI")))["app"]
    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
        async with client:
            answers = [await client.post("/ask", params={"text": text, "user": "user-1"}) for text in ("Hi", "Bye")]
            told = await client.post("/tell", params={"text": "Hi", "user": "user-1"})
    assert [answer.json() for answer in answers] == [{"answer": "echo: Hi"}, {"answer": "echo: Bye"}]
    assert told.text == "echo: Hi"
    async with LLMBridge("sqlite:///calls.db", origin="shop") as bridge:
        stats = await bridge.get_usage_stats("user-1")
    assert stats is not None
    assert stats.total_calls == 3


async def test_an_answer_comes_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("in bridge.stream"))
    assert capsys.readouterr().out == (
        "echo: Hi\n {'prompt_tokens': 1, 'completion_tokens': 2, 'total_tokens': 3} committed\n"
    )


async def test_an_answer_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("response_format"))
    assert capsys.readouterr().out == "Hi None\n"


async def test_a_tool_is_called_and_its_result_answered(
    server: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(snippet("tools=[weather]"))
    called, answer = capsys.readouterr().out.splitlines()
    assert called == 'weather {"city": "Lima"}'
    assert answer == "echo: How is the weather in Lima?"
    assert [message["role"] for message in server.requests[-1].body["messages"]] == ["user", "assistant", "tool"]


async def test_an_image_is_sent_with_its_question(
    server: FakeProvider, new_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (new_folder / "chart.png").write_bytes(base64.b64decode(PNG))
    await run(snippet("analyze_image"))
    [message] = server.requests[0].body["messages"]
    assert [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"] == [
        f"data:image/png;base64,{PNG}"
    ]
    assert capsys.readouterr().out.startswith("echo: What does it show?")


async def test_usage_is_read_by_day_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    async with LLMBridge("sqlite:///calls.db", origin="shop") as bridge:
        assert bridge.db is not None
        for team in ("search", "search", "ads"):
            await bridge.db.record_api_call(
                origin="shop",
                id_at_origin="user-1",
                provider="openai",
                model_name="gpt-4o-mini",
                prompt_tokens=1000,
                completion_tokens=0,
                metadata={"team": team},
            )
    await run(snippet("group_by"))
    by_day, by_user, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d gpt-4o-mini 3 calls \$0\.00045(0*) unpriced: 0", by_day)
    assert re.fullmatch(r"user-1 2 calls \$0\.0003(0*) 1\.0 None", by_user)
    assert re.fullmatch(r".+ openai gpt-4o-mini success 0\.00015(0*)", last)


async def test_a_call_of_another_library_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("cache_read_tokens=256"))
    # 556 fresh tokens, 256 read from the cache and 97 of output, at 0.15, 0.075 and 0.6 dollars per million
    assert Decimal(capsys.readouterr().out) == Decimal("0.0001608")
    async with LLMBridge("sqlite:///calls.db", origin="shop") as bridge:
        assert sum(row.cost for row in await bridge.usage()) == Decimal("0.0126608")


async def test_an_own_price_is_set() -> None:
    await run(snippet("from that day on"))
    async with LLMBridge("sqlite:///calls.db") as bridge:
        assert bridge.db is not None
        call_id = await bridge.db.record_api_call(
            origin="shop", provider="acme", model_name="large-1", prompt_tokens=1000, completion_tokens=100
        )
        assert call_id is not None
        call = await bridge.db.get_call_record(call_id)
    assert call is not None
    assert call.estimated_cost == Decimal("0.0007")


async def test_models_are_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("bridge.models"))
    *found, estimate = capsys.readouterr().out.splitlines()
    costs = [Decimal(words[1]) for words in map(str.split, found) if len(words) == 2]
    assert costs
    assert costs == sorted(costs)
    assert ["openai:gpt-4o-mini", "0.15", "0.6", "128000"] in map(str.split, found)
    assert Decimal(estimate) == Decimal("0.0000025")


async def test_the_spool_and_the_closing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("record_timeout"))
    status, spool, committed, closed = capsys.readouterr().out.splitlines()
    assert (status, committed) == ("committed", "1")
    assert "'waiting': 0" in spool
    assert closed == "CloseReport(committed=0, spooled=0, lost=0)"


async def test_the_sql_reads_the_view() -> None:
    async with LLMBridge("sqlite:///calls.db") as bridge:
        assert bridge.db is not None
        await bridge.db.record_api_call(origin="shop", provider="p", model_name="m", estimated_cost="0.1")
    [query] = blocks("sql", *PAGES)
    with closing(sqlite3.connect("calls.db")) as plain:
        [row] = plain.execute(query).fetchall()
    assert row[1:] == ("m", 1, None, "0.1")


async def test_a_plugin_describes_its_backend() -> None:
    names = await run(snippet("@hookimpl"))
    plugin = names["llmbridge_storage"]()
    assert isinstance(plugin, StoragePlugin)
    assert plugin.schemes == ("mystore",)
    [entry_point] = blocks("toml", *PAGES)
    assert list(tomllib.loads(entry_point)["project"]["entry-points"][GROUP]) == list(plugin.schemes)


async def test_a_backend_is_proven_by_a_subclass() -> None:
    names = await run(snippet("StorageContract"))
    assert issubclass(names["TestMyStore"], StorageContract)


def test_the_command_line_prints_what_is_shown(server: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", "sqlite:///calls.db")
    monkeypatch.setenv("COLUMNS", "120")
    [session] = blocks("console", *PAGES)
    commands = re.findall(r"^\$ llmbridge (.*)\n((?:[^$].*\n)+)", session, re.MULTILINE)
    assert len(commands) == session.count("$ llmbridge")
    for command, shown in commands:
        command_line = [sys.executable, "-m", "llmbridge.cli", *shlex.split(command)]
        done = subprocess.run(command_line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [shape(line) for line in done.stdout.splitlines()] == [shape(line) for line in shown.splitlines()]


def test_every_command_is_told_of_and_no_other() -> None:
    rows = re.findall(r"^\| (`llmbridge .*?) \|", (ROOT / "docs" / "operating.md").read_text("utf-8"), re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"(?:`llmbridge |, `)([a-z-]+)", row)}
    assert told == set(get_command(app).commands)


def test_what_runs_on_every_change_is_the_command_of_the_tests_and_what_the_readme_adds() -> None:
    [command] = [text for text in SHELL if "nox" in text]
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in run
    added = re.findall(r"^.*nox.*$", run.replace(command, ""), re.MULTILINE)
    assert added
    assert [line for line in added if f"`{line}`" not in README.read_text(encoding="utf-8")] == []


def test_the_commands_of_the_set_up_come_first() -> None:
    assert "--model echo:" in SHELL[0]
    assert "nox" in SHELL[1]


@pytest.mark.parametrize("page", [*PAGES, MOVING], ids=lambda page: page.name)
def test_every_place_that_is_linked_is_there(page: Path) -> None:
    for file, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text(encoding="utf-8")):
        there = page.parent / file if file else page
        assert there.exists(), f"{page.name} links {file}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in titles]


def test_every_page_is_linked_from_the_readme() -> None:
    readme = README.read_text(encoding="utf-8")
    assert [page.name for page in (*PAGES[1:], MOVING) if f"](docs/{page.name})" not in readme] == []


def test_every_field_of_a_call_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "records.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(field for row in rows for field in re.findall(r"`(\w+)`", row)) == sorted(CallRecord.model_fields)
