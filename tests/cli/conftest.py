"""The command line, run in this process, and a database for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge.cli import main

START = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without .env, and no colours or width from the machine."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*args: str) -> Result:
        capfd.readouterr()
        code = main(args)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def db_url(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Six calls in a file that the environment names: one a minute from 23:30 UTC, of which two cannot be priced."""
    url = f"sqlite:///{own_directory / 'calls.db'}"

    async def fill() -> None:
        known = {"origin": "shop", "provider": "openai", "model_name": "gpt-4o"}
        measured = {"prompt_tokens": 1000, "completion_tokens": 234, "response_time_ms": 40}
        calls = [
            {**known, **measured, "id_at_origin": "ann", "estimated_cost": "0.0000045", "metadata": {"team": "search"}},
            {**known, **measured, "id_at_origin": "ann", "estimated_cost": "1234567.000000000001"},
            {
                **known,
                **measured,
                "id_at_origin": "bob",
                "estimated_cost": "0.5",
                "metadata": {"team": "ads"},
                "response_model": "gpt-4o-2024-08-06",
            },
            {**known, "id_at_origin": "bob", "status": "timeout", "cost_reason": "unmeasured_usage"},
            {**known, **measured, "model_name": "mystery", "cost_reason": "unknown_model", "origin": "back-office"},
            {**known, "status": "rate_limited", "cost_reason": "not_billed", "error_type": "RateLimitError"},
        ]
        async with LLMDatabase(url) as db:
            for minute, call in enumerate(calls):
                await db.record_api_call(**call, called_at=START + timedelta(minutes=10 * minute))

    asyncio.run(fill())
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", url)
    return url
