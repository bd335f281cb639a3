"""Several processes on one file, forks, and the end of a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from llmbridge.storage import UsageQuery
from llmbridge_sqlite import SQLiteBackend

WRITER = """
import asyncio, sys
from uuid import UUID
from llmbridge.testing import make_call
from llmbridge_sqlite import SQLiteBackend

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with SQLiteBackend(sys.argv[1]) as backend:
        await backend.apply_migrations()
        for batch in range(25):
            calls = [make_call(n, id=UUID(int=(int(sys.argv[2]) << 64) + batch * 10 + n)) for n in range(10)]
            assert (await backend.record_calls(calls)).inserted == 10

asyncio.run(main())
"""

OPENER = """
import asyncio, sys
from llmbridge_sqlite import SQLiteBackend

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with SQLiteBackend(sys.argv[1]) as backend:
        await backend.apply_migrations()
        await backend.ping()

asyncio.run(main())
"""

UNCLOSED = """
import asyncio, sys
from llmbridge.testing import make_call
from llmbridge_sqlite import SQLiteBackend

async def main():
    backend = SQLiteBackend(sys.argv[1])
    await backend.connect()
    await backend.apply_migrations()
    await backend.record_calls([make_call()])
    return backend

kept = asyncio.run(main())
print("done")
"""

FORKER = """
import asyncio, os, sys
from llmbridge.storage import WrongLoopError
from llmbridge_sqlite import SQLiteBackend

async def main():
    async with SQLiteBackend(sys.argv[1]) as backend:
        await backend.apply_migrations()
        if os.fork() == 0:
            told = 0
            try:
                for use in (backend.ping, backend.list_prices, backend.connect, backend.disconnect):
                    try:
                        await use()
                    except WrongLoopError:
                        told += 1
            finally:
                os._exit(0 if told == 4 else 1)
        _, status = os.wait()
        await backend.ping()
        assert os.waitstatus_to_exitcode(status) == 0

asyncio.run(main())
"""

FORKED_OPENER = """
import asyncio, os, sys
from llmbridge.storage import StorageRefusedError
from llmbridge_sqlite import SQLiteBackend

async def use(path):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()

def fork(path):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    outcome = 1
    try:
        asyncio.run(use(path))
        outcome = 2
    except StorageRefusedError as error:
        outcome = 3 if "forked" in str(error) else 1
    finally:
        os._exit(outcome)

loop = asyncio.new_event_loop()
backend = SQLiteBackend(sys.argv[1])
loop.run_until_complete(backend.connect())
while_open = [fork(sys.argv[1]), fork(sys.argv[1] + ".another")]
loop.run_until_complete(backend.disconnect())
loop.close()
print(while_open, fork(sys.argv[1]))
"""


def run_together(processes):
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")


async def test_four_processes_writing_a_new_file_at_once_lose_nothing(python, path):
    run_together([python(WRITER, str(number)) for number in range(4)])
    async with SQLiteBackend(path) as backend:
        [row] = await backend.summarize_usage(UsageQuery())
    assert row.calls == 4 * 25 * 10


def test_eight_processes_opening_a_new_file_at_once_all_succeed(python):
    run_together([python(OPENER) for _ in range(8)])


def test_a_process_exits_though_its_backend_was_never_closed(python, shell):
    output, _ = (process := python(UNCLOSED)).communicate(timeout=60)
    assert (process.returncode, output) == (0, "done\n")
    assert shell("SELECT COUNT(*) AS calls FROM llmbridge_calls")[0]["calls"] == 1


def test_a_forked_child_is_told_and_does_no_harm(python):
    process = python(FORKER)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_forked_child_opens_what_its_parent_had_closed_and_no_file_that_was_open(python):
    output, _ = python(FORKED_OPENER).communicate(timeout=60)
    assert output == "[3, 2] 2\n"


async def test_opening_a_file_again_keeps_the_locks_that_this_process_has_on_it(path):
    """Without its shared lock another process takes itself for the last one and deletes the log on closing."""
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        async with SQLiteBackend(path) as other:
            await other.ping()
        asked = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT * FROM call_log'); c.close()"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", asked], check=True)
        assert path.with_name(f"{path.name}-wal").exists()
        await backend.ping()
