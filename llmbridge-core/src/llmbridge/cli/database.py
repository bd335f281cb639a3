"""Which database a command works on: chosen, named without its secrets, opened."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import LLMBridgeError
from . import dotenv, output
from .exit_codes import UserError
from .options import Settings

if TYPE_CHECKING:
    from ..db import LLMDatabase

VARIABLES = ("LLMBRIDGE_DATABASE_URL", "DATABASE_URL")
DEFAULT = "~/.llmbridge/llmbridge.db"

#: Options of URLs that say which server, database and schema it is. None is a secret.
_PLACE = ("host", "hostaddr", "port", "dbname", "user", "schema")


@dataclass(frozen=True, slots=True, repr=False)
class Choice:
    """The URL of a database, which may hold a password, and where it comes from."""

    url: str
    source: str

    def masked(self) -> str:
        """The URL without password and options."""
        from ..storage.url import parse

        with self.explained():
            return str(parse(self.url)[0])

    def shown(self) -> str:
        """The URL without password, and of the options with those that say where the books are."""
        from ..storage.url import parse

        place = [f"{name}={quote(value)}" for name, value in parse(self.url)[1].items() if name in _PLACE]
        return f"{self.masked()}?{'&'.join(place)}" if place else self.masked()

    def without_books(self) -> UserError:
        """What to say where the database is there and has no books."""
        making = f"llmbridge init-db --db {shlex.quote(self.shown())}"
        return UserError(f"there are no books in {output.clean(self.shown())} yet; {output.clean(making)} makes them")

    def missing(self) -> str | None:
        """What to say where the database is a file that does not exist; None where it does, or is no file."""
        from ..storage.url import MEMORY, parse

        url, _ = parse(self.url)
        # One that may as well be a server's has a `database` too.
        if url.path is None or url.path == MEMORY or url.scheme == "memory" or url.database is not None:
            return None
        try:
            os.stat(url.path)
        except (FileNotFoundError, NotADirectoryError):
            making = f"llmbridge init-db --db {shlex.quote(self.masked())}"
            return f"there is no database at {os.path.abspath(url.path)} yet; {making} makes one"
        except (OSError, ValueError):
            return None  # whoever opens it says why it cannot be
        return None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """An error about the database says where that database was named."""
        try:
            yield
        except LLMBridgeError as error:
            error.add_note(f"the database from {self.source}")
            raise


def choose(given: str | None) -> Choice:
    """The database of `--db`, else of the environment or ./.env, else the one in the home directory."""
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
    """Choose the database and say which it is, and why."""
    choice = choose(settings.db)
    output.note(f"database: {output.clean(choice.shown())} (from {choice.source})")
    return choice


def books(settings: Settings, **options: Any) -> tuple[LLMDatabase, Choice]:
    """The chosen database, announced and not yet opened."""
    from ..db import LLMDatabase

    choice = announce(settings)
    with choice.explained():
        return LLMDatabase(choice.url, plugin=settings.plugin, **options), choice


def books_to_read(settings: Settings) -> tuple[LLMDatabase, Choice]:
    """The chosen database, announced and not yet opened; a file that does not exist is a mistake, and is not made."""
    db, choice = books(settings)
    if (text := choice.missing()) is not None:
        raise UserError(output.clean(text))
    return db, choice


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LLMDatabase]:
    """The chosen database, open and migrated; says so when it had to be. One without books is a mistake, and stays as
    it is."""
    db, choice = books_to_read(settings)
    try:
        await open_to_read(db, choice)
        yield db
    finally:
        await db.close()


async def open_to_read(db: LLMDatabase, choice: Choice) -> None:
    """Open a database and migrate it, and say so when it had to be; one without books is a mistake, and stays as it
    is."""
    with choice.explained():
        status = await db.schema_status()
        in_memory = db.backend is not None and db.backend.target is None
        if status is not None and status.current is None and not in_memory:
            raise choice.without_books()
        await db.initialize()
    if status is not None and status.pending:
        output.note(f"database: migrated: {', '.join(status.pending)}")
