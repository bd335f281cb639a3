"""Options of the backend: checked, and separated from the keywords of libpq."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from llmbridge.storage import InvalidStorageURLError, StorageURL, check_options
from llmbridge.storage.url import parse, target

from .dsn import KEYWORDS

if TYPE_CHECKING:
    from pgdbm import DatabaseConfig

SCHEMES = ("postgresql", "postgres")
SCHEMA = "llmbridge"
MAX_CONNECTIONS = 5

_OWN: Mapping[str, type] = {
    "db_manager": object,
    "enable_monitoring": bool,
    "max_connections": int,
    "pgbouncer": bool,
    "schema": str,
}

#: The options of the plugin: its own, and every keyword of libpq.
OPTIONS: Mapping[str, type] = {**KEYWORDS, **_OWN}


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked options. `schema` None means the schema of the manager, or `llmbridge`. `keywords` are those of libpq and
    may contain a password."""

    address: StorageURL
    schema: str | None = None
    enable_monitoring: bool = False
    max_connections: int = MAX_CONNECTIONS
    pgbouncer: bool = False
    db_manager: Any = field(default=None, repr=False)
    keywords: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str | StorageURL | None, options: Mapping[str, Any]) -> Self:
        """Return the settings of a URL. `options` override its query; None counts as not given.

        :raises InvalidStorageURLError: the URL is not one of a PostgreSQL database, or an option is invalid
        """
        address, query = parse(url) if isinstance(url, str) else (url or StorageURL(SCHEMES[0]), {})
        if address.scheme not in SCHEMES:
            raise InvalidStorageURLError(f"{address} is not a PostgreSQL URL; write postgresql://host/database")
        try:
            given = check_options("llmbridge-postgres", OPTIONS, query, options)
        except ValueError as error:
            raise InvalidStorageURLError(str(error)) from error
        if (url is None) is (given.get("db_manager") is None):
            raise InvalidStorageURLError("pass either a PostgreSQL URL or db_manager= (a pgdbm manager)")
        if given.get("max_connections", 1) < 1:
            raise InvalidStorageURLError("max_connections must be at least 1")
        keywords = {name: given.pop(name) for name in KEYWORDS.keys() & given.keys()}
        return cls(address, keywords=keywords, **given)


def target_of(config: DatabaseConfig | None, schema: str) -> str | None:
    """Return the database that a manager with that configuration uses, as `StorageBackend.target`; None if the
    configuration does not say it."""
    if config is None:
        return None
    address = StorageURL(SCHEMES[0], host=config.host, port=config.port, database=config.database)
    given: Mapping[str, Any] = {}
    if config.connection_string:
        try:
            address, given = parse(config.connection_string)
        except InvalidStorageURLError:  # asyncpg may still accept it
            return None
    joined = StorageURL(
        SCHEMES[0],
        host=given.get("host", address.host),
        port=given.get("port", address.port),
        database=given.get("dbname", address.database),
    )
    return target(joined, {} if schema == SCHEMA else {"schema": schema})


def check_schema(name: str) -> str:
    """Return `name` if it can be the name of the schema.

    :raises InvalidStorageURLError: it cannot; pgdbm writes it without quotes
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) or name.startswith("pg_"):
        raise InvalidStorageURLError(
            f"invalid schema {name!r}: pass schema= with at most 63 lower-case letters, digits and _; the name must "
            "start neither with a digit nor with pg_"
        )
    return name
