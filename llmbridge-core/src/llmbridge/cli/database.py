"""The database that a command works on: chosen, shown without its secrets, opened."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import LLMBridgeError, StorageError
from . import dotenv, output
from .exit_codes import UserError
from .options import Settings

if TYPE_CHECKING:
    from ..db import LLMDatabase

VARIABLES = ("LLMBRIDGE_DATABASE_URL", "DATABASE_URL")
DEFAULT = "~/.llmbridge/llmbridge.db"

#: Options of URLs that tell the server, the database and the schema. None is a secret.
_PLACE = ("host", "hostaddr", "port", "dbname", "user", "schema")


@dataclass(frozen=True, slots=True, repr=False)
class Choice:
    """The URL of a database, which may have a password, and where the URL comes from."""

    url: str
    source: str

    def masked(self) -> str:
        """Return the URL without password and options."""
        from ..storage.url import parse

        with self.explained():
            return str(parse(self.url)[0])

    def shown(self) -> str:
        """Return the URL without password, and only with the options that tell where the database is."""
        from ..storage.url import parse

        place = [f"{name}={quote(value)}" for name, value in parse(self.url)[1].items() if name in _PLACE]
        return f"{self.masked()}?{'&'.join(place)}" if place else self.masked()

    def without_schema(self) -> UserError:
        """Return the error for a database that exists and has no tables of llmbridge."""
        making = f"llmbridge init-db --db {shlex.quote(self.shown())}"
        return UserError(
            f"{output.clean(self.shown())} has no tables of llmbridge yet; {output.clean(making)} creates them"
        )

    def missing(self) -> str | None:
        """Return the error text for a file that does not exist; None if it does, or if the database is not a file."""
        from ..storage.url import MEMORY, parse

        url, _ = parse(self.url)
        # One that may as well be a server's has a `database` too.
        if url.path is None or url.path == MEMORY or url.scheme == "memory" or url.database is not None:
            return None
        try:
            os.stat(url.path)
        except (FileNotFoundError, NotADirectoryError):
            making = f"llmbridge init-db --db {shlex.quote(self.masked())}"
            return f"there is no database at {os.path.abspath(url.path)} yet; {making} creates one"
        except (OSError, ValueError):
            return None  # opening it says why it cannot be opened
        return None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Add to an error about the database where its URL comes from."""
        try:
            yield
        except LLMBridgeError as error:
            error.add_note(f"the database from {self.source}")
            raise


def choose(given: str | None) -> Choice:
    """Return the database of `--db`, else of the environment or ./.env, else the one in the home directory."""
    if given is not None:
        if not given:
            raise UserError("--db is empty; write a URL such as sqlite:///calls.db")
        return Choice(given, "--db")
    for name in VARIABLES:
        if url := os.environ.get(name):
            return Choice(url, name)
        if url := dotenv.read().get(name):
            return Choice(url, f"{name} in ./{dotenv.FILE}")
    return Choice(DEFAULT, "the default")


def announce(settings: Settings) -> Choice:
    """Choose the database, and print which one it is and why."""
    choice = choose(settings.db)
    output.note(f"database: {output.clean(choice.shown())} (from {choice.source})")
    return choice


def connect(settings: Settings, **options: Any) -> tuple[LLMDatabase, Choice]:
    """Return the chosen database, announced and not opened."""
    from ..db import LLMDatabase

    choice = announce(settings)
    with choice.explained():
        return LLMDatabase(choice.url, plugin=settings.plugin, **options), choice


def connect_existing(settings: Settings) -> tuple[LLMDatabase, Choice]:
    """Return the chosen database, announced and not opened.

    :raises UserError: it is a file that does not exist, which is not created
    """
    db, choice = connect(settings)
    if (text := choice.missing()) is not None:
        raise UserError(output.clean(text))
    return db, choice


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LLMDatabase]:
    """Yield the chosen database, open and migrated.

    :raises UserError: it has no tables of llmbridge, and stays as it is
    """
    db, choice = connect_existing(settings)
    try:
        await open_existing(db, choice)
        yield db
    finally:
        await db.close()


async def open_existing(db: LLMDatabase, choice: Choice) -> None:
    """Open and migrate a database, and print the migrations.

    :raises UserError: it has no tables of llmbridge, and stays as it is
    """
    with choice.explained():
        status = await db.schema_status()
        in_memory = db.backend is not None and db.backend.target is None
        if status is not None and status.current is None and not in_memory:
            raise choice.without_schema()
        await db.initialize()
    if status is not None and status.pending:
        output.note(f"database: migrated: {', '.join(status.pending)}")


async def tell_of_spool(db: LLMDatabase) -> None:
    """Print how many calls wait on this machine, if any do: not all of them are in the database."""
    try:
        spool = await db.spool_status(reasons=0)
    except StorageError:
        return  # `doctor` says why the spool cannot be read
    waiting = 0 if spool is None else spool.waiting + spool.set_aside + spool.to_adopt
    if waiting:
        output.note(
            f"spool: {output.calls(waiting)} wait on this machine and may be missing here: llmbridge storage spool"
        )
