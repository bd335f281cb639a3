"""`llmbridge calls`: the latest calls, page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Command = Callable[..., Any]


def test_calls_are_listed_newest_first(cli: Command, db_url: str) -> None:
    header, *rows = cli("calls").out.splitlines()
    assert header.split() == ["time", "(UTC)", "origin/user", "model", "tokens", "cost", "$", "ms", "status"]
    assert [row.split() for row in rows] == [
        ["2026-03-02", "00:20:00", "shop/-", "openai:gpt-4o", "-", "not_billed", "-", "rate_limited"],
        ["2026-03-02", "00:10:00", "back-office/-", "openai:mystery", "1,234", "unknown_model", "40", "success"],
        ["2026-03-02", "00:00:00", "shop/bob", "openai:gpt-4o", "-", "unmeasured_usage", "-", "timeout"],
        ["2026-03-01", "23:50:00", "shop/bob", "openai:gpt-4o", "1,234", "0.5", "40", "success"],
        ["2026-03-01", "23:40:00", "shop/ann", "openai:gpt-4o", "1,234", "1234567.000000000001", "40", "success"],
        ["2026-03-01", "23:30:00", "shop/ann", "openai:gpt-4o", "1,234", "0.0000045", "40", "success"],
    ]


def test_times_are_shown_in_the_zone_asked_for(cli: Command, db_url: str) -> None:
    header, row = cli("calls", "--limit", "1", "--tz", "Asia/Kathmandu").out.splitlines()
    assert header.startswith("time (Asia/Kathmandu)")
    assert row.startswith("2026-03-02 06:05:00 ")


def test_json_has_whole_records(cli: Command, db_url: str) -> None:
    call = cli("calls", "--user", "bob", "--status", "success", "--json").document["calls"][0]
    assert (call["estimated_cost"], call["cost_source"]) == ("0.5", "caller")
    assert call["called_at"] == "2026-03-01T23:50:00Z"
    assert call["metadata"] == {"team": "ads"}
    assert len(call["id"]) == 36


def test_a_cursor_goes_on_where_the_page_before_ended(cli: Command, db_url: str) -> None:
    seen, cursor = [], None
    for _ in range(3):
        page = cli("calls", "--limit", "2", "--json", *(["--cursor", cursor] if cursor else [])).document
        seen += [call["called_at"] for call in page["calls"]]
        cursor = page["next"]
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 6
    assert cursor is None


def test_the_table_says_how_to_go_on(cli: Command, db_url: str) -> None:
    first = cli("calls", "--limit", "5")
    *_, option, cursor = first.err.split()
    assert option == "--cursor"
    rest = cli("calls", option, cursor)
    assert rest.out.splitlines()[1].startswith("2026-03-01 23:30:00")
    assert "--cursor" not in rest.err


def test_filters_choose_the_calls(cli: Command, db_url: str) -> None:
    def found(*options: str) -> int:
        return len(cli("calls", "--json", *options).document["calls"])

    assert found("--origin", "shop", "--user", "ann") == 2
    assert found("--tag", "team=ads") == 1
    assert found("--model", "mystery", "--provider", "openai") == 1
    assert found("--since", "2026-03-01T23:40:00Z", "--until", "2026-03-02") == 2
    assert found("--since", "7d") == 0


def test_a_range_that_holds_no_time_is_a_mistake(cli: Command, db_url: str) -> None:
    result = cli("calls", "--since", "2026-03-02", "--until", "2026-03-01")
    assert (result.code, result.out) == (2, "")
    assert "must be before until" in result.err
