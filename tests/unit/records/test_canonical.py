"""Every record that reaches a backend is in canonical form; other values are rejected."""

from __future__ import annotations

import functools
import operator
import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from llmbridge._pricing.price_book import PriceBook
from llmbridge._recording.record_builder import complete
from llmbridge._records import canonical, fast_path, validation
from llmbridge._records.fields import MAX_ERROR_MESSAGE, MAX_METADATA_BYTES, MAX_NAME
from llmbridge._shared import ids, redaction
from llmbridge.errors import RecordRejectedError
from llmbridge.schemas import CallRecord, LLMModel

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "id": ids.new_id(),
        "origin": "app",
        "provider": "openai",
        "model_name": "gpt-4o",
        "called_at": NOON,
        **changes,
    }


def recorded(**changes: Any) -> CallRecord:
    return complete(fields(**changes), PriceBook())


def test_a_canonical_record_stays_as_it_is() -> None:
    record = recorded(prompt_tokens=1, estimated_cost="0.000001", metadata={"a": [1, "x", None, 0.5]})
    assert complete(record.model_dump(), PriceBook()) == record


def test_ids_are_uuid7_and_rise_with_time() -> None:
    made = [ids.new_id() for _ in range(100)]
    assert {i.version for i in made} == {7}
    assert len(set(made)) == 100
    assert abs((made[0].int >> 80) / 1000 - datetime.now(UTC).timestamp()) < 5


def test_ids_are_drawn_from_random_bits_in_all_their_places() -> None:
    seen = functools.reduce(operator.or_, (ids.new_id().int for _ in range(500)))
    never = functools.reduce(operator.and_, (ids.new_id().int for _ in range(500)))
    random_places = (0xFFF << 64) | ((1 << 62) - 1)
    assert (seen & random_places, never & random_places) == (random_places, 0)
    assert len({ids.new_id() for _ in range(1000)}) == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_draws_ids_of_its_own() -> None:
    ids.new_id()  # so that there are random bits in stock
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"".join((ids.new_id().int & (1 << 62) - 1).to_bytes(8) for _ in range(5)))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = [(ids.new_id().int & (1 << 62) - 1).to_bytes(8) for _ in range(500)]
    assert len(theirs) == 40
    assert not any(number in theirs for number in ours)


def test_time_becomes_utc() -> None:
    local = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert recorded(called_at=local).called_at == NOON
    assert recorded(called_at=local).called_at.tzinfo is UTC


def test_unstorable_characters_become_replacement_characters() -> None:
    record = recorded(
        id_at_origin="a\0b",
        error_message="x\ud800y",
        metadata={"k\0": ["\udfff"]},
        tools_used=["t\0"],
        usage_details={"u\0": 1},
        price_context={"n\0": "\udfff"},
    )
    assert record.id_at_origin == "a\ufffdb"
    assert record.error_message == "x\ufffdy"
    assert record.metadata == {"k\ufffd": ["\ufffd"]}
    assert record.tools_used == ["t\ufffd"]
    assert (record.usage_details, record.price_context) == ({"u\ufffd": 1}, {"n\ufffd": "\ufffd"})


def test_free_text_is_cut() -> None:
    record = recorded(error_message="e" * 5000, finish_reason="f" * 300, error_type="E" * 300)
    assert len(record.error_message or "") == MAX_ERROR_MESSAGE
    assert len(record.finish_reason or "") == len(record.error_type or "") == MAX_NAME


def test_an_empty_user_is_nobody() -> None:
    assert recorded(id_at_origin="").id_at_origin is None


def test_a_float_of_money_enters_by_its_digits() -> None:
    assert recorded(estimated_cost=0.1).estimated_cost == Decimal("0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"called_at": datetime(2026, 3, 1)},
        {"called_at": datetime.max.replace(tzinfo=UTC)},
        {"called_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))},
        {"origin": ""},
        {"usage_details": {"web_searches": -1}},
        {"usage_details": {"web_searches": 2**63}},
        {"usage_details": {"web_searches": "many"}},
        {"usage_details": {"input_tokens": 1}},
        {"usage_details": {"x" * 4096: 1}},
        {"usage_details": ["web_searches"]},
        {"price_context": {"service_tier": 1}},
        {"price_context": {"service_tier": "x" * 4096}},
        {"origin": "o" * 256},
        {"id_at_origin": "u" * 256},
        {"provider": ""},
        {"model_name": "m" * 256},
        {"id": None},
        {"id": ""},
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**63},
        {"total_tokens": "many"},
        {"attempt": 0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"estimated_cost": float("nan")},
        {"estimated_cost": Decimal("Infinity")},
        {"estimated_cost": 9_000_000},
        {"status": "fine"},
        {"metadata": {1: "x"}},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": 2**63}},
        {"metadata": {"x": object()}},
        {"metadata": {"x": "y" * MAX_METADATA_BYTES}},
        {"metadata": ["x"]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_can_never_be_stored_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecordRejectedError):
        recorded(**wrong)


def test_metadata_may_nest_32_levels_deep() -> None:
    nested: Any = []
    for _ in range(30):
        nested = [nested]
    assert validation.check_metadata({"x": nested}) == {"x": nested}
    for deeper in ([nested], {"y": nested}):
        with pytest.raises(RecordRejectedError, match="32 levels"):
            validation.check_metadata({"x": deeper})


def test_a_metadata_that_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    with pytest.raises(RecordRejectedError, match="32 levels"):
        validation.check_metadata(endless)


def test_a_long_list_of_tools_is_cut() -> None:
    many = fields(tools_used=[f"tool {number}" for number in range(2_000)])
    assert canonical.convert(many)["tools_used"] == [f"tool {number}" for number in range(1_000)]
    assert fast_path.try_convert(many) is None


def test_metadata_of_exactly_8_kib_is_taken() -> None:
    just = {"x": "y" * (MAX_METADATA_BYTES - len('{"x":""}'))}
    assert validation.check_metadata(just) == just


def test_a_refusal_does_not_quote_what_was_given() -> None:
    with pytest.raises(RecordRejectedError) as refused:
        recorded(total_tokens="secret-prompt")
    assert "secret-prompt" not in str(refused.value)
    assert "total_tokens" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdefgh12345678",
        "cannot open postgresql://user:sk-proj-abcdefgh12345678@host/db",
        "Authorization: Bearer sk-proj-abcdefgh12345678",
        'body {"api_key": "sk-proj-abcdefgh12345678"}',
    ],
)
def test_error_messages_lose_their_keys(text: str) -> None:
    message = recorded(error_message=text).error_message
    assert message is not None
    assert "abcdefgh12345678" not in message


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("OPENAI_API_KEY=tellme99", "OPENAI_API_KEY=***"),
        ("PGPASSWORD=tell,me99 psql", "PGPASSWORD=*** psql"),
        ("password: 123456", "password: ***"),
        ("?access_token=tellme99&page=2", "?access_token=***&page=2"),
        ("client_secret: tellme99", "client_secret: ***"),
        ("{'clientSecret': 'tell me 99', 'id': 1}", "{'clientSecret': '***', 'id': 1}"),
        (r"{\"api_key\": \"tellme99\"}", r'{\"api_key\": \"***"}'),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("sent Basic dXNlcjpwYXNz", "sent Basic ***"),
        ("sent Bearer tellme99", "sent Bearer ***"),
        ("at postgresql://u:p@ss,word@h:5432/d", "at postgresql://u:***@h:5432/d"),
        ("at redis://:tellme99@h/0", "at redis://:***@h/0"),
        ("at mysql://u@corp:p/w@h/d", "at mysql://u@corp:***@h/d"),
        ("Incorrect key sk-canar***show", "Incorrect key ***"),
        ("('x-api-key', 'tellme99')", "('x-api-key', '***')"),
        ("(b'api-key', b'tellme99')", "(b'api-key', b'***')"),
        ("api_key%3Dtellme99", "api_key%3D***"),
        ("Cookie: session=tellme99; id=2", "Cookie: ***"),
        ("/blob?se=2026&sig=tellme99&sp=r", "/blob?se=2026&sig=***&sp=r"),
        ("Signature=tellme99", "Signature=***"),
        ("/callback?code=tellme99", "/callback?code=***"),
        ("-----BEGIN PRIVATE KEY-----\ntellme99\n-----END PRIVATE KEY-----", "***"),
        ("-----BEGIN RSA PRIVATE KEY-----\ntellme99", "***"),
        ("ya29.abcdefgh12345678", "***"),
        ("pplx-abcdefgh12345678", "***"),
        ("r8_abcdefgh12345678", "***"),
        ("fw_abcdefgh12345678", "***"),
        ("hf_abcdefgh12345678", "***"),
        ("ghp_abcdefgh12345678", "***"),
        ("github_pat_11ABCDEFG_abcdefgh", "***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("eyJhbGciOi.eyJzdWIiOi.SflKxwRJ_-x", "***"),
    ],
)
def test_what_looks_like_a_key_or_a_password_is_redacted(text: str, redacted: str) -> None:
    assert redaction.redact(text) == redacted
    assert redaction.redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8080/v1 cannot be reached, ask admin@example.com",
        "postgresql://user@host:5432/db",
        "max token: 4096",
        "max_token=4096.",
        "maximum context length is 128000 tokens",
        "max_tokens: 5000",
        "basic authentication is not offered",
        "duplicate key value violates unique constraint pk_models_id",
        "a monkey: nothing else",
        "/etc/passwd: it is not readable",
        "status code=404",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redaction.redact(text) == text


@pytest.mark.parametrize("part", ["://a:", "eyJaaaa-", "password ", "key='", "-----BEGIN PRIVATE KEY-----"])
def test_a_long_text_is_cut_before_it_is_searched(part: str) -> None:
    assert len(redaction.redact(part * 200_000)) <= 8_001


@pytest.mark.parametrize("filler", ["x ", "x"])
def test_no_part_of_a_secret_is_left_where_a_long_text_is_cut(filler: str) -> None:
    for length in range(7_900, 8_010):
        text = (filler * length)[:length] + " sk-proj-abcdefgh12345678"
        assert "abc" not in redaction.redact(text + " more" * 1_000)


def test_a_record_made_by_hand_is_brought_into_form() -> None:
    call = CallRecord(**fields(called_at=NOON.astimezone(timezone(timedelta(hours=5))), id_at_origin=""))
    record = complete(call.model_dump(exclude_unset=True), PriceBook())
    assert (record.called_at, record.called_at.tzinfo, record.id_at_origin) == (NOON, UTC, None)


def test_a_model_gets_its_id_and_times() -> None:
    model = canonical.canonical_model(
        LLMModel(provider="acme", model_name="m", dollars_per_million_tokens_input=Decimal("0.1")), id=7, now=NOON
    )
    assert (model.id, model.created_at, model.updated_at) == (7, NOON, NOON)
    assert model.dollars_per_million_tokens_input == Decimal("0.1")


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(RecordRejectedError):
        validation.check_rate("input", -1)


def test_a_temperature_of_zero_has_no_sign() -> None:
    assert repr(recorded(temperature=-0.0).temperature) == "0.0"
