"""Servers that are not a usable PostgreSQL server: too old, behind a pooler, without TLS, silent, or something else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_SSL_REQUEST = 80877103

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """The port on loopback of a server that answers each connection so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def of_version(version: str, encoding: str = "UTF8") -> Answer:
    """A server that lets everybody in and tells its version."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _startup(reader, writer)
        writer.write(_message(b"R", struct.pack("!i", 0)))
        settings = {"server_version": version, "server_encoding": encoding, "client_encoding": "UTF8"}
        for name, value in settings.items():
            writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(_message(b"K", struct.pack("!ii", 1, 2)) + _message(b"Z", b"I"))
        await writer.drain()
        await reader.read()

    return answer


def refusing(sqlstate: str, text: str) -> Answer:
    """A server that answers the start of a session with an error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _startup(reader, writer)
        writer.write(_message(b"E", f"SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0".encode()))
        await writer.drain()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that accepts connections and never says a word."""
    await reader.read()


async def of_the_web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of another kind, which understands nothing."""
    await reader.read(8)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await writer.drain()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        if struct.unpack("!i", body[:4])[0] != _SSL_REQUEST:
            return
        writer.write(b"N")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
