"""Starts programs in processes of their own, quickly: it has imported their modules, and forks.

Each line of standard input is a JSON list: `["start", program, arguments]` is answered with the id of the process, and
`["wait", id]` with its exit code, or the negative number of the signal that ended it. A program of `endings.py` ends as
the interpreter does, the others end at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback

import asyncpg  # noqa: F401
import defects
import endings
import recording
from calls import numbered

import llmbridge_postgres.backend  # noqa: F401
import llmbridge_sqlite.backend  # noqa: F401
from llmbridge._pricing.price_book import load_prices

numbered(0).model_dump_json()
asyncio.run(load_prices())


def start(program: str, arguments: dict[str, object]) -> int:
    child = os.fork()
    if child:
        return child
    os.close(0)
    os.dup2(2, 1)
    if program in endings.WAYS:
        defects.apply(arguments.pop("defect", None))
        endings.run(program, **arguments)
        sys.exit()
    code = 1
    try:
        code = recording.run(program, arguments) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer = start(*arguments) if command == "start" else end(*arguments)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


main()
