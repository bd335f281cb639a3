"""A port on the loopback interface that forwards to a server on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def relayed(path: Path) -> AsyncIterator[int]:
    """The port."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(path)
        try:
            await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))
        except ConnectionError:
            pass  # one side is gone, and so the other one is done
        finally:
            to_writer.close()
            writer.close()

    relay = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with relay:
        yield relay.sockets[0].getsockname()[1]
