"""The README of llmbridge-py runs, except for the lines that the page on moving lists."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...support.fake_provider import FakeProvider
from .conftest import Run

ROOT = Path(__file__).parents[3]
README = (Path(__file__).parent / "upstream" / "README.md").read_text(encoding="utf-8")
DOCUMENT = (ROOT / "docs" / "moving-from-llmbridge-py.md").read_text(encoding="utf-8")

#: What stands before a block that begins in the middle of a program.
BEFORE = """
from llmbridge import LLMBridge, LLMRequest, Message
service = LLMBridge("sqlite:///calls.db")
"""


def changes() -> Iterator[tuple[str, str]]:
    """The lines of upstream's README that change, and what becomes of them: the first list of the document."""
    listed = re.search(r"^```diff\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert listed is not None
    lines = listed[1].splitlines()
    yield from zip(
        [line[1:] for line in lines if line.startswith("-")],
        [line[1:] for line in lines if line.startswith("+")],
        strict=True,
    )


def block(heading: str) -> str:
    """The Python under a heading, with the lines changed that the document lists."""
    [text] = re.findall(rf"^## {re.escape(heading)}\n\n```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for old, new in changes():
        text = re.sub(rf"^{re.escape(old)}$", lambda _, new=new: new, text, flags=re.MULTILINE)
    return str(text)


def calls(path: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as plain:
        return plain.execute("SELECT provider, model_name, status FROM call_log ORDER BY called_at").fetchall()


def test_every_line_that_changes_is_a_line_of_the_readme() -> None:
    for old, _ in changes():
        assert re.search(rf"^{re.escape(old)}$", README, re.MULTILINE)


def test_every_block_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"block\(\"(.*?)\"\)", source)) == set(re.findall(r"^## (.*)$", README, re.MULTILINE))


def test_no_database(run: Run) -> None:
    assert run(block("1) No database (just call a model)")) == "echo: Hello!\n"


def test_with_sqlite(run: Run, tmp_path: Path) -> None:
    printed = run(block("2) With SQLite (local logging)"))
    assert re.fullmatch(r"Response: echo: Hello!\nCost: \$0\.0000 if tracked\n", printed)
    assert calls(tmp_path / "my_app.db") == [("anthropic", "claude-haiku-4-5", "success")]
    assert not (tmp_path / "llmbridge.db").exists()


def test_with_postgresql(run: Run) -> None:
    assert run(block("3) With PostgreSQL (production logging)")) == ""


def test_caching(run: Run, server: FakeProvider) -> None:
    run(block("Caching") + "assert response.content.startswith('echo: ')\n", before=BEFORE, coroutine=True)
    [request] = server.requests
    assert request.body["temperature"] == 0


def test_model_registry(run: Run) -> None:
    printed = run(block("Model registry (optional)") + "assert stats is None\n", before=BEFORE, coroutine=True)
    assert "openai gpt-4o\n" in printed


def test_provider_selection(run: Run, tmp_path: Path) -> None:
    run(block("Provider selection"), before=BEFORE, coroutine=True)
    assert calls(tmp_path / "calls.db") == [
        ("anthropic", "claude-opus-4-8", "success"),
        ("openai", "gpt-4o", "success"),
    ]


def test_files_and_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    printed = run(block("Files and images") + "print(response.content)\n", before=BEFORE, coroutine=True)
    assert printed == "echo: What's in this image? [image_url]\n"


def test_initialization_patterns(run: Run) -> None:
    pool = "import asyncpg\npool = asyncpg.create_pool('postgresql://localhost/app')\n"
    filled_in = block("Initialization patterns").replace("AsyncDatabaseManager(...,", "AsyncDatabaseManager(pool=pool,")
    assert run(pool + filled_in + "print(service.origin)\n", coroutine=True) == "myapp\n"


def test_old_calls_are_imported_once(run: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "llmbridge.db")) as old:
        old.execute(
            "CREATE TABLE api_calls (id TEXT PRIMARY KEY, origin TEXT, id_at_origin TEXT, model_id INTEGER,"
            " provider TEXT, model_name TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, total_tokens INTEGER,"
            " estimated_cost REAL, dollars_per_million_tokens_input_used REAL,"
            " dollars_per_million_tokens_output_used REAL, status TEXT, error_type TEXT, error_message TEXT,"
            " called_at TIMESTAMP)"
        )
        common = ("app", "user-1", None, "openai", "gpt-4o-mini")
        rows = [
            ("11111111-1111-4111-8111-111111111111", *common, 10, 20, 30, 0.1, 0.15, 0.6, "success", None, None),
            ("22222222-2222-4222-8222-222222222222", *common, 1000, 100, 1100, 0, None, None, "success", None, None),
            ("33333333-3333-4333-8333-333333333333", *common, 0, 0, 0, 0, None, None, "error", "OSError", "broken"),
        ]
        times = ("2025-08-01T10:00:00+00:00", "2025-08-01 11:00:00", "2025-08-01T14:00:00+02:00")
        old.executemany(
            f"INSERT INTO api_calls VALUES ({', '.join('?' * 16)})",
            [(*row, at) for row, at in zip(rows, times, strict=True)],
        )
        old.commit()
    [program] = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    for _ in range(2):
        run(program, coroutine=True)
    with closing(sqlite3.connect(tmp_path / "llmbridge.db")) as plain:
        kept = plain.execute(
            "SELECT called_at, status, total_tokens, estimated_cost, cost_source, cost_reason FROM call_log"
            " ORDER BY called_at"
        ).fetchall()
        assert plain.execute("SELECT count(*) FROM api_calls").fetchone() == (3,)
    assert [row[1:] for row in kept] == [
        ("success", 30, "0.1", "caller", None),
        ("success", 1100, "0.00021", "prices", None),
        ("error", None, None, None, "not_billed"),
    ]
    assert [str(row[0])[11:16] for row in kept] == ["10:00", "11:00", "12:00"]
