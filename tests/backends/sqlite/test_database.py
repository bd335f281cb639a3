"""LLMDatabase on a SQLite file: callers share transactions, processes share the file, and no call is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llmbridge import CallRecord, LLMDatabase
from llmbridge.storage import RecordResult
from llmbridge_sqlite import SQLiteBackend

FIELDS: dict[str, Any] = {
    "origin": "app",
    "id_at_origin": "user-1",
    "provider": "openai",
    "model_name": "gpt-4o-mini",
    "prompt_tokens": 12,
    "completion_tokens": 7,
}

WRITER = """
import asyncio, sys
from llmbridge import LLMDatabase

async def main(url, name, calls):
    async with LLMDatabase(url, record_timeout=60) as db:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(calls // 10):
            await asyncio.gather(*(db.record_api_call(
                origin=name, provider="openai", model_name="gpt-4o-mini", prompt_tokens=1, completion_tokens=1
            ) for _ in range(10)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""

FORGETFUL = """
import asyncio, sys
from llmbridge import LLMBridge, LLMRequest, Message

async def main():
    bridge = LLMBridge(sys.argv[1])
    response = await bridge.chat(LLMRequest(model="echo:x", messages=[Message(role="user", content="Hi")]))
    print(response.record_status)

asyncio.run(main())
"""


class Counting(SQLiteBackend):
    """Counts the transactions that write calls, and looks at the file from outside after each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.transactions = 0

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.transactions += 1
        return await super().record_calls(calls)


def rows(path: Path, query: str = "SELECT COUNT(*) FROM call_log") -> Any:
    with closing(sqlite3.connect(path)) as plain:
        return plain.execute(query).fetchone()[0]


async def test_a_thousand_callers_at_once_are_a_thousand_rows_in_few_transactions(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    backend = Counting(path)
    async with LLMDatabase(backend=backend) as db:

        async def record() -> None:
            call_id = await db.record_api_call(**FIELDS)
            assert call_id is not None
            assert rows(path, f"SELECT COUNT(*) FROM llmbridge_calls WHERE id = X'{call_id.hex}'") == 1

        await asyncio.gather(*(record() for _ in range(1000)))
    assert rows(path) == 1000
    assert backend.transactions <= 50


def test_four_processes_that_open_one_new_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, f"sqlite:///{path}", f"writer-{n}", "250"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    results = [writer.communicate("go\n", timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0], results
    assert not any("locked" in errors for _, errors in results)
    assert rows(path) == 1000
    assert rows(path, "SELECT COUNT(DISTINCT origin) FROM call_log") == 4


def test_a_bridge_that_is_never_closed_lets_the_process_end(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    ended = subprocess.run(
        [sys.executable, "-c", FORGETFUL, f"sqlite:///{path}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "committed\n"
    assert rows(path) == 1
