"""A proxy between a client and its server that cuts their connections at a given byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Proxy:
    """Relays every byte, until so many have passed as `cut_after` says: then every connection breaks at once."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._left: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.cuts = 0

    def cut_after(self, count: int) -> None:
        self._left = count

    def cut(self) -> None:
        self._left = None
        self.cuts += bool(self._open)
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._socket))
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(self._relay(reader, back), self._relay(there, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if self._left is not None and self._left <= len(data):
                    sink.write(data[: self._left])
                    with suppress(ConnectionError):
                        await sink.drain()
                    self.cut()
                    return
                if self._left is not None:
                    self._left -= len(data)
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def proxy(socket: Path) -> AsyncIterator[Proxy]:
    """A proxy on loopback before the server that listens on a Unix socket."""
    made = Proxy(socket)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
        await asyncio.sleep(0)
