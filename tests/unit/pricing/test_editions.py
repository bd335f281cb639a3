"""Newer price data are fetched only on request, and all processes of the machine use them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge._pricing.genai_prices import editions
from llmbridge._pricing.genai_prices.cards import bundled
from llmbridge._pricing.price_book import PriceBook
from llmbridge.errors import PriceDataError

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)

ACME = {
    "id": "acme",
    "name": "Acme",
    "api_pattern": "https://acme\\.example",
    "extractors": [{"of a kind": "that this release does not know"}],
    "models": [
        {
            "id": "large-1",
            "match": {"starts_with": "large-1"},
            "prices": [
                {"prices": {"input_mtok": 0.1, "output_mtok": 3}},
                {
                    "constraint": {"start_date": "2026-11-01"},
                    "prices": {
                        "input_mtok": {"base": 0.3, "tiers": [{"start": 200000, "price": 0.6}]},
                        "cache_read_mtok": 0.03,
                        "output_mtok": 1.2,
                    },
                },
            ],
        },
        {"id": "small", "match": {"equals": "small"}, "prices": {"input_mtok": 0.07}},
    ],
}


class Publisher:
    """A server on loopback that publishes what it is given."""

    def __init__(self) -> None:
        self.content = json.dumps([ACME]).encode()
        self.status = 200
        self.asked = 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                self.send_response(publisher.status)
                self.send_header("Content-Length", str(len(publisher.content)))
                self.end_headers()
                self.wfile.write(publisher.content)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/data.json"

    def publish(self, *providers: Any) -> None:
        self.content = json.dumps(providers).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    made = Publisher()
    monkeypatch.setenv("LLMBRIDGE_PRICES_URL", made.url)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def installed_prices() -> Iterator[None]:
    """The state directory is a new one in each test; the process forgets what the test before had in its own."""
    editions.refresh(at_once=True)
    yield
    with contextlib.suppress(OSError):
        editions.path().unlink()
    editions.refresh(at_once=True)


def rates(provider: str, model: str, prompt: int = 0) -> Any:
    card = PriceBook().rates(provider, model, NOW)
    return None if card is None else card.rates(prompt)


def in_another_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_newer_prices_are_in_force_at_once_and_name_their_edition(publisher: Publisher) -> None:
    assert rates("acme", "large-1") is None
    edition = editions.update()
    assert rates("acme", "large-1").input == Decimal("0.3")
    assert rates("acme", "large-1", 200_001).input == Decimal("0.6")
    assert rates("acme", "large-1").cache_read == Decimal("0.03")
    assert rates("acme", "small").input == Decimal("0.07")
    card = PriceBook().rates("acme", "large-1", NOW)
    assert card is not None
    assert card.version == edition.version
    assert edition.version.startswith(f"genai-prices {datetime.now(UTC):%Y-%m-%d} ")
    earlier = PriceBook().rates("acme", "large-1", datetime(2026, 10, 31, tzinfo=UTC))
    assert earlier is not None
    assert earlier.rates().input == Decimal("0.1")


def test_newer_prices_may_have_a_context(publisher: Publisher) -> None:
    fast = {"when": {"speed": "fast"}, "prices": {"input_mtok": 5}, "constraint": {"start_date": "2026-11-20"}}
    publisher.publish({**ACME, "models": [{**ACME["models"][1], "price_variants": [fast]}]})  # type: ignore[index, dict-item]
    editions.update()

    def rate(at: datetime, context: dict[str, str] | None) -> Decimal | None:
        card = PriceBook().rates("acme", "small", at, context=context)
        return None if card is None else card.rates().input

    assert rate(NOW, None) == Decimal("0.07")
    assert rate(NOW, {"speed": "fast"}) == 5
    assert rate(datetime(2026, 11, 19, tzinfo=UTC), {"speed": "fast"}) == Decimal("0.07")


def test_rows_name_the_edition_that_priced_them(publisher: Publisher) -> None:
    program = """
import asyncio
from llmbridge import LLMDatabase
async def record():
    async with LLMDatabase("memory://") as db:
        call = dict(origin="o", provider="acme", model_name="small", prompt_tokens=10**6, completion_tokens=0)
        row = await db.get_call_record(await db.record_api_call(**call))
        print(row.estimated_cost, row.price_version, sep="|")
asyncio.run(record())
"""
    edition = editions.update()
    assert in_another_process(program) == f"0.070000000000|{edition.version}, entry small"


def test_the_data_that_is_installed_survives_the_way_through_a_file(publisher: Publisher) -> None:
    from genai_prices.data import providers

    def published(value: Any) -> Any:
        if isinstance(value, list):
            return [published(one) for one in value]
        if isinstance(value, Decimal):
            return float(value)
        if hasattr(value, "isoformat"):
            return value.isoformat()
        if not hasattr(value, "__dict__"):
            return value
        fields = {name: published(one) for name, one in vars(value).items() if one is not None}
        return {name.rstrip("_"): one for name, one in fields.items() if name != "extractors"}

    publisher.publish(*map(published, providers))
    edition = editions.update()
    assert [one.id for one in edition.providers] == [one.id for one in providers]
    for one, other in zip(edition.providers, providers, strict=True):
        for mine, theirs in zip(one.models, other.models, strict=True):
            assert (mine.id, mine.match, mine.prices) == (theirs.id, theirs.match, theirs.prices)
            assert mine.price_variants == theirs.price_variants


async def test_a_running_process_takes_up_what_another_fetched(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert editions.MAX_AGE <= 300
    monkeypatch.setattr(editions, "MAX_AGE", 0.0)
    call = {"origin": "o", "provider": "acme", "model_name": "small", "prompt_tokens": 10**6, "completion_tokens": 0}
    async with LLMDatabase("memory://") as db:

        async def cost() -> Decimal | None:
            call_id = await db.record_api_call(**call)
            assert call_id is not None
            row = await db.get_call_record(call_id)
            assert row is not None
            return row.estimated_cost

        assert await cost() is None
        in_another_process("from llmbridge._pricing.genai_prices import editions; editions.update()")
        assert await cost() == Decimal("0.07")
        publisher.publish({**ACME, "models": [{**ACME["models"][1], "prices": {"input_mtok": 9}}]})  # type: ignore[index, dict-item]
        in_another_process("from llmbridge._pricing.genai_prices import editions; editions.update()")
        assert await cost() == 9
        editions.path().unlink()
        assert await cost() is None


def test_the_file_is_looked_at_only_now_and_then(publisher: Publisher) -> None:
    in_another_process("from llmbridge._pricing.genai_prices import editions; editions.update()")
    assert editions.is_fresh()
    editions.refresh()
    assert rates("acme", "small") is None


def test_nothing_is_fetched_unless_it_is_asked_for(publisher: Publisher) -> None:
    in_another_process(
        "import llmbridge, genai_prices; from llmbridge._pricing.price_book import PriceBook; from datetime import *;"
        "PriceBook().rates('openai', 'gpt-4o', datetime.now(UTC))"
    )
    assert publisher.asked == 0


def with_model(**fields: Any) -> bytes:
    """Data with one model more, which has these fields."""
    model = {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1}}
    return json.dumps([{**ACME, "models": [*ACME["models"], {**model, **fields}]}]).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"models": ["x"]}]', "a model must be a JSON object"),
        (b'["x"]', "a provider must be a JSON object"),
        (with_model(prices=["x"]), "a price must be a JSON object"),
        (with_model().replace(b": 1}", b": 1e99999999999999999999}"), "1e99999999999999999999 is out of range"),
        (with_model(context_window=0).replace(b": 0}", b": 1e99999999}"), "the number 1e99999999 is out of range"),
        (with_model(prices={"input_mtok": "1e-31"}), "acme:m: input_mtok has more than 30 decimal places"),
        (with_model(prices={"input_mtok": -5}), "acme:m: input_mtok is negative"),
        (
            with_model(prices={"requests_kcount": 9_000_000}),
            "acme:m: requests_kcount: an amount of dollars must be below",
        ),
        (
            with_model(prices={"input_mtok": {"base": 1, "tiers": [{"start": 9, "price": -1}]}}),
            "acme:m: input_mtok is negative",
        ),
        (
            with_model(prices=[{"prices": {}}, {"prices": {"cache_read_mtok": -1}}]),
            "acme:m: cache_read_mtok is negative",
        ),
        (
            with_model(price_variants=[{"when": {"speed": "fast"}, "prices": {"output_mtok": -1}}]),
            "acme:m: output_mtok is negative",
        ),
        (with_model(price_variants=[{"when": {}, "prices": {"output_mtok": 1}}]), "price_variants"),
        (with_model(price_variants=["x"]), "a price variant must be a JSON object"),
        (
            with_model(price_variants=[{"when": {"speed": "fast"}, "prices": {"cache_audio_read_mtok": 1}}]),
            "none for cache_read_tokens, input_audio_tokens",
        ),
        (with_model(match={"regex": "("}), "acme:m: '(' is not a valid regular expression"),
        (
            with_model(match={"or": [{"equals": ""}, {"and": [{"equals": "x"}, {"regex": "a{2,1}"}]}]}),
            "acme:m: 'a{2,1}' is not a valid regular expression",
        ),
    ],
)
def test_data_that_cannot_price_is_refused_and_says_what_is_wrong(
    publisher: Publisher, content: bytes, said: str
) -> None:
    publisher.content = content
    with pytest.raises(PriceDataError, match="not valid data of genai-prices") as raised:
        editions.update()
    assert said in str(raised.value)
    assert not editions.path().exists()
    assert rates("acme", "small") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"id": "acme"}]',
        json.dumps([{**ACME, "models": [{"id": "m", "match": {"guesses": "m"}, "prices": {}}]}]).encode(),
        json.dumps(
            [{**ACME, "models": [{"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": "x"}}]}]
        ).encode(),
        b"[" * 100_000,
    ],
    ids=["empty", "html", "object", "none", "numbers", "incomplete", "unknown match", "no number", "deep"],
)
def test_what_is_no_price_data_is_refused_and_changes_nothing(publisher: Publisher, content: bytes) -> None:
    editions.update()
    before = editions.path().read_bytes()
    publisher.content = content
    with pytest.raises(PriceDataError, match="not valid data of genai-prices"):
        editions.update()
    assert editions.path().read_bytes() == before
    assert rates("acme", "small").input == Decimal("0.07")


def test_an_answer_that_is_an_error_says_which(publisher: Publisher) -> None:
    publisher.status = 404
    with pytest.raises(PriceDataError, match=r"127\.0\.0\.1:\d+/data\.json answered 404"):
        editions.update()
    assert not editions.path().exists()


def test_who_does_not_answer_is_named_without_secrets() -> None:
    with pytest.raises(PriceDataError, match="ConnectError") as raised:
        editions.update("http://user:hunter2@127.0.0.1:1/data.json?token=hunter2")
    assert "127.0.0.1:1/data.json" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("status", [200, 403])
def test_no_log_and_no_traceback_has_the_secrets_of_an_address(
    publisher: Publisher, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    publisher.status, publisher.content = status, b"no prices"
    secret = publisher.url.replace("http://", "http://bob:hunter2@") + "?token=sekret"
    caplog.set_level(logging.DEBUG)
    for url in (secret, "http://bob:hunter2@127.0.0.1:1/?token=sekret", "bob:hunter2@127.0.0.1/?token=sekret"):
        with pytest.raises(PriceDataError) as raised:
            editions.update(url)
        error: BaseException | None = raised.value
        while error is not None:
            told = f"{caplog.text} {error!r} {error} {''.join(traceback.format_exception(error))}"
            assert "hunter2" not in told
            assert "sekret" not in told
            error = error.__context__
    assert publisher.asked == 1


def test_what_others_ask_meanwhile_is_logged_as_ever(publisher: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def ask_too() -> None:
        logging.getLogger("httpx2").info("another request")

    with editions._without_httpx2_logs():
        other = threading.Thread(target=ask_too)
        other.start()
        other.join()
        logging.getLogger("httpx2").info("this request")
    logging.getLogger("httpx2").info("the next request")
    assert caplog.messages == ["another request", "the next request"]


def test_more_than_prices_ever_take_is_not_read(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editions, "MAX_BYTES", 100)
    with pytest.raises(PriceDataError, match="more than 100 bytes"):
        editions.update()


def test_a_broken_file_is_warned_of_once_and_the_installed_prices_stay(
    publisher: Publisher, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editions, "MAX_AGE", 0.0)
    editions.update()
    with editions.path().open("ab") as file:
        file.write(b" ")
    program = """
from llmbridge._pricing.genai_prices import editions
from llmbridge._pricing.genai_prices.cards import bundled
print(editions.current() is bundled())
"""
    assert in_another_process(program) == "True"
    with caplog.at_level(logging.WARNING, "llmbridge"):
        for _ in range(3):
            editions.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "llmbridge models update" in caplog.text
    assert str(editions.path()) in caplog.text


def test_a_state_directory_that_cannot_be_written_is_an_error(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(PriceDataError, match="cannot be stored"):
        editions.update()
    assert rates("acme", "small") is None


def test_a_higher_release_of_genai_prices_that_came_later_has_newer_prices(publisher: Publisher) -> None:
    editions.update()
    heading, _, content = editions.path().read_bytes().partition(b"\n")

    def stored(installed: str, fetched_at: datetime) -> bool:
        changed = {**json.loads(heading), "genai_prices": installed, "fetched_at": fetched_at.isoformat()}
        editions.path().write_bytes(json.dumps(changed).encode() + b"\n" + content)
        os.utime(editions.path(), ns=(0, stored_so_far.pop()))
        editions.refresh(at_once=True)
        return editions.current() is bundled()

    stored_so_far = [4, 3, 2, 1]
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert stored("0.1.9", long_ago)
    assert not stored("0.1.9", datetime.now(UTC))
    assert not stored("99.0", long_ago)
