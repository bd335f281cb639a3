"""`llmbridge models prices`, `set-price` and `update`."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge._pricing.genai_prices import editions

Command = Callable[..., Any]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is published where the environment says."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("LLMBRIDGE_PRICES_URL", f"http://127.0.0.1:{server.server_port}/data.json")
    yield folder / "data.json"
    server.shutdown()
    thread.join()
    server.server_close()
    editions.path().unlink(missing_ok=True)
    editions.refresh(at_once=True)


def cost_of_a_million(db_url: str, at: datetime) -> Decimal | None:
    async def record() -> Decimal | None:
        async with LLMDatabase(db_url) as db:
            call = {"origin": "o", "provider": "acme", "model_name": "large-1", "called_at": at}
            call_id = await db.record_api_call(**call, prompt_tokens=10**6, completion_tokens=0)
            assert call_id is not None
            row = await db.get_call_record(call_id)
            assert row is not None
            return row.estimated_cost

    return asyncio.run(record())


def test_a_price_is_in_force_from_its_time_until_the_next(cli: Command, db_url: str) -> None:
    assert (
        cli("models", "set-price", "acme:large-1", "--input", "0.5", "--output", "2", "--from", "2026-01-01").code == 0
    )
    changed = cli("models", "set-price", "acme:large-1", "--input", "0", "--output", "0", "--from", "2026-02-01T12:00Z")
    assert "acme:large-1 from 2026-02-01T12:00:00Z: input 0, output 0 dollars per million tokens" in changed.out
    costs = [cost_of_a_million(db_url, datetime(2026, 2, 1, hour, tzinfo=UTC)) for hour in (11, 12)]
    assert costs == [Decimal("0.5"), 0]
    assert cost_of_a_million(db_url, datetime(2025, 12, 31, tzinfo=UTC)) is None


def test_without_a_time_it_is_in_force_from_now_on(cli: Command, db_url: str) -> None:
    before = datetime.now(UTC)
    rates = ("--input", "1", "--output", "2", "--cache-read", "0.1", "--cache-write", "1.25", "--cache-write-1h", "2")
    document = cli("models", "set-price", "acme:m", *rates, "--json").document
    assert before <= datetime.fromisoformat(document.pop("effective_from")) <= datetime.now(UTC)
    assert document == {
        "provider": "acme",
        "model_name": "m",
        "input": "1",
        "output": "2",
        "cache_read": "0.1",
        "cache_write": "1.25",
        "cache_write_1h": "2",
        "rates": {},
        "context": {},
        "factor": None,
    }


def test_a_price_may_have_rates_of_units_and_a_context(cli: Command, db_url: str) -> None:
    rates = ("--input", "1", "--output", "2", "--rate", "web_searches=10", "--rate", "input_audio_tokens=40")
    said = cli("models", "set-price", "acme:m", *rates, "--context", "service_tier=priority", "--from", "2026-01-01")
    assert said.out == (
        "acme:m (service_tier=priority) from 2026-01-01T00:00:00Z: input 1, output 2 dollars per million tokens; "
        "input_audio_tokens 40, web_searches 10; unknown: cache read, cache write, cache write 1h\n"
    )
    assert cli("models", "set-price", "acme:m", "--rate", "rerank_searches=2").code == 0
    (second, first) = cli("models", "prices", "--json").document["prices"]
    assert (first["rates"], first["context"]) == ({"rerank_searches": "2"}, {})
    assert second["rates"] == {"input_audio_tokens": "40", "web_searches": "10"}
    assert second["context"] == {"service_tier": "priority"}
    table = cli("models", "prices").out
    assert "service_tier=priority" in table
    assert "input_audio_tokens 40, web_searches 10" in table
    assert "factor" not in table


def test_a_factor_is_set_for_a_provider_and_shown_with_the_rates(cli: Command, db_url: str) -> None:
    def rates() -> Any:
        return cli("models", "show", "openai:gpt-4o", "--json").document["rates"]

    plain = rates()
    said = cli("models", "set-price", "openai:*", "--factor", "0.78", "--from", "2026-01-01")
    assert said.out == "openai:* from 2026-01-01T00:00:00Z: 0.78 times the list price\n"
    found = rates()
    assert (plain["factor"], found["factor"], found["source"]) == (None, "0.78", "prices")
    assert Decimal(found["bands"][0]["input"]) == Decimal(plain["bands"][0]["input"]) * Decimal("0.78")
    assert ", times 0.78," in cli("models", "show", "openai:gpt-4o").out
    assert cli("models", "prices").out.splitlines()[-1].split()[-1] == "0.78"
    assert cli("models", "set-price", "openai:*", "--withdraw").out.endswith(": no price of your own\n")
    assert rates()["factor"] is None


def test_the_provider_of_a_price_is_spelt_as_calls_name_it(cli: Command, db_url: str) -> None:
    rates = ("--input", "9", "--output", "9")
    assert cli("models", "set-price", "OpenAI:gpt-4o", *rates).out.startswith("openai:gpt-4o from ")
    assert "no plugin, model or call" not in cli("models", "set-price", "openai:gpt-4o", *rates).err
    assert cli("models", "show", "openai:gpt-4o", "--json").document["rates"]["source"] == "own_prices"

    unknown = cli("models", "set-price", "opnai:gpt-4o", *rates)
    assert (unknown.code, unknown.out.startswith("opnai:gpt-4o from ")) == (0, True)
    assert "has the provider 'opnai' yet; did you mean openai?" in unknown.err
    assert "has the provider 'acme' yet\n" in cli("models", "set-price", "acme:m", *rates).err


def test_a_price_is_withdrawn_from_its_time_on(cli: Command, db_url: str) -> None:
    def rates() -> Any:
        return cli("models", "show", "openai:gpt-4o", "--json").document["rates"]

    listed = rates()
    assert cli("models", "set-price", "openai:gpt-4o", "--input", "9", "--output", "9").code == 0
    assert rates()["source"] == "own_prices"
    withdrawn = cli("models", "set-price", "openai:gpt-4o", "--withdraw")
    assert withdrawn.out.endswith("Z: no price of your own\n")
    assert rates() == listed
    assert cli("models", "prices").out.splitlines()[2].split()[2:] == ["-"] * 5


def test_own_prices_are_listed_with_what_is_not_known(cli: Command, db_url: str) -> None:
    cli("models", "set-price", "other:m", "--input", "3", "--output", "4")
    cli("models", "set-price", "acme:m", "--input", "0.5", "--output", "2", "--cache-read", "0", "--from", "2026-01-01")
    _, row, _ = cli("models", "prices").out.splitlines()
    assert row.split() == ["acme:m", "2026-01-01T00:00:00Z", "0.5", "2", "0", "-", "-"]
    [only] = cli("models", "prices", "--provider", "other", "--json").document["prices"]
    assert (only["provider"], only["cache_read"]) == ("other", None)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["large-1", "--input", "1"], "PROVIDER:NAME, such as openai:large-1"),
        (["acme:", "--input", "1"], "PROVIDER:NAME"),
        (["acme:m"], "give --input and --output"),
        (["acme:m", "--cache-read", "1"], "give --input and --output"),
        (["acme:m", "--withdraw", "--output", "0"], "--withdraw takes neither rates nor a factor"),
        (["acme:m", "--withdraw", "--factor", "1"], "--withdraw takes neither rates nor a factor"),
        (["acme:m", "--factor", "1", "--rate", "web_searches=1"], "--factor takes no rates"),
        (["acme:m", "--factor", "-1"], "--factor is negative"),
        (["acme:m", "--rate", "web_searches"], "write NAME=VALUE"),
        (["acme:m", "--rate", "web_searches=1", "--rate", "web_searches=2"], "--rate 'web_searches' is given twice"),
        (["acme:m", "--rate", "web_searches=cheap"], "--rate web_searches: not an amount of dollars"),
        (["acme:m", "--rate", "web_searchs=1"], "did you mean web_searches?"),
        (["acme:m", "--input", "1", "--rate", "output_tokens=1"], "use the field output"),
        (["acme:m", "--input", "cheap"], "--input: not an amount of dollars"),
        (["acme:m", "--input", "-1"], "--input is negative"),
        (["acme:m", "--input", "1", "--from", "soon"], "is not a time"),
        (["acme:m", "--input", "1", "--from", "all"], "--from needs a time"),
    ],
)
def test_a_price_that_cannot_be_set_is_a_mistake(cli: Command, db_url: str, args: list[str], said: str) -> None:
    result = cli("models", "set-price", *args)
    assert result.code == 2
    assert said in result.err
    assert cli("models", "prices", "--json").document == {"prices": []}


def test_update_fetches_newer_prices_and_names_them(cli: Command, db_url: str, published: Path) -> None:
    model = {"id": "large-1", "match": {"equals": "large-1"}, "prices": {"input_mtok": 0.3, "output_mtok": 1}}
    published.write_text(json.dumps([{"id": "acme", "name": "Acme", "api_pattern": "", "models": [model]}]))
    document = cli("models", "update", "--json").document
    assert (document["providers"], document["models"], document["path"]) == (1, 1, str(editions.path()))
    assert cli("models", "update").out == f"{document['version']}: 1 models of 1 providers\n"
    assert cost_of_a_million(db_url, datetime(2026, 1, 1, tzinfo=UTC)) == Decimal("0.3")


def test_an_update_that_fails_changes_nothing(cli: Command, published: Path) -> None:
    result = cli("models", "update")
    assert (result.code, result.out) == (1, "")
    assert "answered 404" in result.err
    assert not editions.path().exists()
