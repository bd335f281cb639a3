"""Several processes on one database, forks, and the end of a process."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from uuid import UUID

from llmbridge.storage import CallQuery, CallRecord, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend

from ...support.postgres_server import Server

Python = Callable[..., "subprocess.Popen[str]"]

WRITER = """
import asyncio, sys
from uuid import UUID
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend

async def main():
    async with PostgreSQLBackend(sys.argv[1]) as backend:
        for batch in range(25):
            calls = [make_call(n, id=UUID(int=(int(sys.argv[2]) << 64) + batch * 10 + n)) for n in range(10)]
            assert (await backend.record_calls(calls)).inserted == 10

asyncio.run(main())
"""

ENDLESS = """
import asyncio, sys
from itertools import count
from llmbridge._recording.batch_writer import BatchWriter
from llmbridge._shared.ids import new_id
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend

async def main():
    async with PostgreSQLBackend(sys.argv[1]) as backend:
        recorder = BatchWriter(backend.record_calls, timeout=5)

        async def caller():
            while True:
                call = make_call(id=new_id())
                await recorder.record(call)
                print(call.id, flush=True)

        await asyncio.gather(*(caller() for _ in range(80)))

asyncio.run(main())
"""

UNCLOSED = """
import asyncio, sys
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend

async def main():
    backend = PostgreSQLBackend(sys.argv[1])
    await backend.connect()
    await backend.record_calls([make_call()])
    return backend

kept = asyncio.run(main())
print("done")
"""

FORKER = """
import asyncio, os, sys
from llmbridge.storage import WrongLoopError
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend

async def main():
    backend = PostgreSQLBackend(sys.argv[1])
    await backend.connect()
    child = os.fork()
    if child == 0:
        for use in (backend.ping, backend.connect, backend.disconnect, backend.schema_status):
            try:
                await use()
            except WrongLoopError:
                continue
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), (await backend.record_calls([make_call()])).inserted)
    await backend.disconnect()

asyncio.run(main())
"""


async def test_four_processes_lose_nothing(backend: PostgreSQLBackend, python: Python) -> None:
    for program in [python(WRITER, str(number)) for number in range(1, 5)]:
        _, err = program.communicate(timeout=60)
        assert program.returncode == 0, err
    assert (await backend.summarize_usage(UsageQuery()))[0].calls == 1000


async def test_what_was_acknowledged_to_a_process_that_was_killed_is_there(
    backend: PostgreSQLBackend, python: Python, server: Server, database: str
) -> None:
    acknowledged: set[UUID] = set()
    ours = set(server.backends(database))
    programs = [python(ENDLESS) for _ in range(8)]
    for program in programs:
        assert program.stdout is not None
        acknowledged |= {UUID(program.stdout.readline().strip()) for _ in range(200)}
        program.kill()
        rest = program.communicate()[0].splitlines()
        acknowledged |= {UUID(line) for line in rest if len(line) == 36}
    while set(server.backends(database)) - ours:  # the server still ends what it was sent
        await asyncio.sleep(0.01)
    stored: list[CallRecord] = []
    query = CallQuery(limit=1000)
    while True:
        page = await backend.list_calls(query)
        stored += page.calls
        if page.next is None:
            break
        query = CallQuery(limit=1000, after=page.next)
    assert len(acknowledged) >= 8 * 200
    assert acknowledged <= {call.id for call in stored}
    question = UsageQuery(group_by=("model_name", "status"))
    assert_same(await backend.summarize_usage(question), summarize(stored, question))


def test_a_backend_never_closed_does_not_keep_the_process(backend: PostgreSQLBackend, python: Python) -> None:
    out, err = python(UNCLOSED).communicate(timeout=60)
    assert out == "done\n", err


def test_a_forked_child_is_refused_and_its_parent_goes_on(backend: PostgreSQLBackend, python: Python) -> None:
    out, err = python(FORKER).communicate(timeout=60)
    assert out == "0 1\n", err
