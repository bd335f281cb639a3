"""Storage URLs: parsing, masking, and the text that identifies the store behind one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ..errors import InvalidStorageURLError

MEMORY = ":memory:"

_SCHEME = re.compile(r"[a-z][a-z0-9.-]*(\+[a-z0-9.+-]*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_MISSING_SLASHES = re.compile(r"[a-z][a-z0-9+.-]+:/|(?:memory|postgres|postgresql|sqlite):", re.IGNORECASE)
_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_SERVERS = frozenset({"postgres", "postgresql"})


@dataclass(frozen=True, slots=True, repr=False)
class StorageURL:
    """Address of a store. `str` and `repr` hide the password; `dsn()` does not.

    Parts are percent-decoded; None means that the URL does not have the part. `path` is the file of a file-based store,
    with `~` expanded (also SQLite's `:memory:`; for `memory://NAME` it is the name). `database` is the name of a
    server's database. If neither the scheme nor a host tells which of the two is meant, as in `store:///text`, both are
    set. Several hosts (`h1:1,h2:2`) stay in `host` as written, and `port` is None.
    """

    scheme: str
    username: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    database: str | None = None

    def dsn(self) -> str:
        """Return the URL with its password, for a driver to open; options are not part of it."""
        return self._text("" if self.password is None else ":" + quote(self.password, safe=""))

    def __str__(self) -> str:
        return self._text("" if self.password is None else ":***")

    def __repr__(self) -> str:
        return f"StorageURL({str(self)!r})"

    def _text(self, password: str) -> str:
        if self.scheme == "memory":
            return f"memory://{_quote(self.path or '')}"
        user = quote(self.username or "", safe="")
        host = _quote_host(self.host or "")
        port = "" if self.port is None else f":{self.port}"
        authority = (f"{user}{password}@" if user or password else "") + host + port
        rest = self.path if self.database is None else self.database
        return f"{self.scheme}://{authority}" + ("" if rest is None else f"/{_quote(rest)}")


def parse(address: str | os.PathLike[str]) -> tuple[StorageURL, dict[str, str]]:
    """Return the URL and the options of its query as text.

    Without `://`, the address is the path of a SQLite file, taken literally: `?`, `#` and `%` belong to its name.

    :raises InvalidStorageURLError: the address is neither a valid URL nor a path. No text shows a possible password.
    """
    if isinstance(address, os.PathLike):
        return _sqlite_file(os.fsdecode(address)), {}
    if not isinstance(address, str):
        raise InvalidStorageURLError(f"a storage URL must be a text or a path, not {type(address).__name__}")
    if not _DRIVE.match(address) and "://" in address:
        return _parse_url(address)
    if _MISSING_SLASHES.match(address):
        scheme = address.partition(":")[0]
        raise InvalidStorageURLError(f"{scheme}: needs two slashes: write {scheme}://…, or ./{scheme}:… for a file")
    if address == MEMORY or address.startswith("~") or re.search(r"[\\/]", address):
        return _sqlite_file(address), {}
    if address.lower().endswith(_FILE_SUFFIXES):
        return _sqlite_file(address), {}
    shown = f"{address!r}" if re.fullmatch(r"[\w.-]+", address) else "the text"
    raise InvalidStorageURLError(
        f"{shown} is neither a storage URL nor a file: write sqlite:///calls.db, postgresql://host/database, "
        "or a path with a separator"
    )


def target(url: StorageURL, options: Mapping[str, object] | None = None) -> str | None:
    """Return the text that identifies the store of `url`, however the URL is written; None: a store in memory.

    It never contains user or password, and only those `options` that are given here: they tell stores of one address
    apart. Paths are absolute and resolved. Nothing is opened.
    """
    if url.scheme == "memory" or url.path == MEMORY:
        return None
    if url.path is not None:
        text = str(StorageURL(url.scheme, path=os.path.normcase(os.path.realpath(url.path))))
    else:
        host = url.host if url.host is None or url.host.startswith("/") else url.host.lower()
        text = str(StorageURL(url.scheme, host=host, port=url.port, database=url.database))
    told = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in (options or {}).items())
    return f"{text}?{told}" if told else text


def _parse_url(text: str) -> tuple[StorageURL, dict[str, str]]:
    scheme, _, rest = text.partition("://")
    match = _SCHEME.fullmatch(scheme)
    if not match:
        raise InvalidStorageURLError(
            "the text before :// is not a valid scheme: a storage URL starts like sqlite:///calls.db"
        )
    if driver := match[1]:
        plain = scheme.removesuffix(driver).lower()
        raise InvalidStorageURLError(
            f"{scheme}:// names a driver, but the storage plugin chooses the driver: write {plain}://"
        )
    scheme = scheme.lower()
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", rest):
        raise InvalidStorageURLError(
            f"the {scheme} URL contains a control character or a lone surrogate: percent-encode control characters"
        )

    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    if "#" in rest or "#" in query:
        raise InvalidStorageURLError(f"the {scheme} URL contains a #: write it as %23")
    if authority and ("@" in path or "@" in query):
        raise InvalidStorageURLError(
            f"the {scheme} URL has an @ after its host: write @ as %40, and in a user name or password also / as %2F "
            "and ? as %3F"
        )
    options = _parse_query(scheme, query)

    if scheme == "memory":
        if not authority and slash:
            raise InvalidStorageURLError("write memory:// or memory://NAME, with two slashes")
        return StorageURL(scheme, path=_unquote(scheme, rest) or None), options
    if scheme == "sqlite":
        return _parse_sqlite(authority, slash, path), options
    username, password, host, port = _parse_authority(scheme, authority)
    return StorageURL(
        scheme,
        username=username,
        password=password,
        host=host,
        port=port,
        path=None if authority or scheme in _SERVERS or not path else _file_path(scheme, path),
        database=_unquote(scheme, path) or None,
    ), options


def _parse_sqlite(authority: str, slash: str, path: str) -> StorageURL:
    if authority:
        right = "sqlite:///FILE" if "@" in authority else f"sqlite:///{authority}{slash}{path}"
        raise InvalidStorageURLError(f"a SQLite file has no host: write {right} (three slashes, four if absolute)")
    if not slash:
        return StorageURL("sqlite", path=MEMORY)
    if not path:
        raise InvalidStorageURLError("sqlite:/// names no file: write sqlite:///calls.db, or sqlite:// for memory")
    return StorageURL("sqlite", path=_check_file(_file_path("sqlite", path)))


def _sqlite_file(path: str) -> StorageURL:
    return StorageURL("sqlite", path=_check_file(os.path.expanduser(path)))


def _check_file(path: str) -> str:
    if "\0" in path:
        raise InvalidStorageURLError("the name of a SQLite file contains a NUL character")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidStorageURLError("the name of a SQLite file cannot be encoded for the file system") from error
    return path


def _parse_authority(scheme: str, authority: str) -> tuple[str | None, str | None, str | None, int | None]:
    user_info, at, place = authority.rpartition("@")
    user, colon, secret = user_info.partition(":")
    username = _unquote(scheme, user) or None if at else None
    password = _unquote(scheme, secret) if colon else None
    if "," in place:
        return username, password, place, None

    bracketed = re.fullmatch(r"\[([^\[\]]*:[^\[\]]*)\](?::(.*))?", place)
    host, port = (bracketed[1], bracketed[2] or "") if bracketed else place.partition(":")[::2]
    if not bracketed and ("[" in place or "]" in place or ":" in port):
        raise InvalidStorageURLError(f"the {scheme} URL has an invalid host: write an IPv6 address as [::1]")
    if port and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise InvalidStorageURLError(
            f"the {scheme} URL has an invalid port: write a number from 1 to 65535; in a user name or password, "
            "write / as %2F, ? as %3F, : as %3A and @ as %40"
        )
    return username, password, _unquote(scheme, host) or None, int(port) if port else None


def _parse_query(scheme: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        name = _unquote(scheme, name)
        if not equals or not name:
            raise InvalidStorageURLError(f"the {scheme} URL has an option without name or value: write ?name=value")
        if name in options:
            raise InvalidStorageURLError(f"the {scheme} URL gives the option {name!r} twice")
        options[name] = _unquote(scheme, value)
    return options


def _file_path(scheme: str, path: str) -> str:
    decoded = _unquote(scheme, path)
    return os.path.expanduser(decoded) if path.startswith("~") else decoded


def _unquote(scheme: str, text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        # Not chained: the cause's text has the bytes, and they may be a password's.
        raise InvalidStorageURLError(f"the {scheme} URL has percent-encoding that is not UTF-8") from None
    if "\0" in decoded:
        raise InvalidStorageURLError(f"the {scheme} URL contains a NUL character")
    return decoded


def _quote(path: str) -> str:
    quoted = quote(path, safe="/:", errors="surrogateescape")
    # An encoded tilde is a character of the name; a bare one would mean the home directory.
    return "%7E" + quoted[1:] if quoted.startswith("~") else quoted


def _quote_host(host: str) -> str:
    if "," in host:
        return host
    if ":" in host and not host.startswith("/"):
        return f"[{quote(host, safe=':')}]"
    return quote(host, safe="")
