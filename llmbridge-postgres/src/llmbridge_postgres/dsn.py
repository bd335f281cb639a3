"""Connection parameters: the keywords of libpq, and their translation to arguments of asyncpg.

The keywords are those of PostgreSQL 18: https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from llmbridge.storage import InvalidStorageURLError, StorageRefusedError, StorageURL

logger = logging.getLogger("llmbridge.postgres")

#: Seconds within which a server must answer, unless `connect_timeout` is given.
CONNECT_SECONDS = 10

_PLACE = ("host", "hostaddr", "port")
_WHO = ("user", "password", "dbname")
#: asyncpg reads these in a DSN as libpq does.
_IN_DSN = (
    "gsslib",
    "krbsrvname",
    "passfile",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
)
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_OTHERS = ("application_name", "connect_timeout", "fallback_application_name", "options", "servicefile", "ssl")
#: asyncpg has no equivalent of these: it encrypts and authenticates in its own way, and always uses UTF-8.
_IGNORED = (
    "channel_binding",
    "client_encoding",
    "gssdelegation",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "sslcertmode",
    "sslcompression",
    "sslcrldir",
    "sslkeylogfile",
    "sslsni",
    "tcp_user_timeout",
)

#: Every keyword with its type, in the form of the plugin's options.
KEYWORDS: Mapping[str, type] = dict.fromkeys((*_PLACE, *_WHO, *_IN_DSN, *_OTHERS, *_IGNORED), str) | {
    "connect_timeout": int,
    "ssl": bool,
}

_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}


def connect_arguments(address: StorageURL, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect` for a URL. The keywords of its query override its other parts.

    :raises InvalidStorageURLError: a keyword has a value that libpq refuses
    """
    for name, choices in _CHOICES.items():
        if keywords.get(name, choices[0]) not in choices:
            raise InvalidStorageURLError(f"{name} in the PostgreSQL URL must be one of {', '.join(choices)}")
    ignored = sorted(set(_IGNORED) & keywords.keys())
    if ignored:
        logger.debug("asyncpg does not support these keywords of the PostgreSQL URL, ignored: %s", ", ".join(ignored))

    where = _place(address, keywords)
    query = where | {name: keywords[name] for name in _IN_DSN if name in keywords}
    if keywords.get("ssl"):
        query.setdefault("sslmode", "require")
    trust = {"ssl": _system_trust(query)} if query.get("sslrootcert") == "system" else {}
    seconds = keywords.get("connect_timeout", CONNECT_SECONDS)
    name = keywords.get("application_name") or keywords.get("fallback_application_name") or "llmbridge"
    settings = {"application_name": name} | {n: keywords[n] for n in ("options",) if n in keywords}
    return {
        "dsn": "postgresql://?" + urlencode(query),
        "user": keywords.get("user", address.username),
        "password": keywords.get("password", address.password),
        "database": keywords.get("dbname", address.database),
        "timeout": (seconds if seconds > 0 else CONNECT_SECONDS) * (where.get("host", "").count(",") + 1),
        "server_settings": settings,
        "servicefile": keywords.get("servicefile"),
        **trust,
    }


def check_files(keywords: Mapping[str, Any], where: str) -> None:
    """Check that the files of TLS can be read. Neither asyncpg nor OpenSSL says which of them cannot.

    :raises StorageRefusedError: a file that a keyword names cannot be read
    """
    if keywords.get("sslmode") == "disable":
        return
    for name in _FILES:
        path = keywords.get(name)
        if not path or path == "system":
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise StorageRefusedError(
                f"the PostgreSQL database {where}: the file {path}, given by {name} in the URL, cannot be read "
                f"({error.strerror}); correct the path or the permissions of the file"
            ) from error


def place(address: StorageURL, keywords: Mapping[str, Any]) -> str:
    """Return host, port and name of the database, for messages. The name defaults to that of the user."""
    where = _place(address, keywords)
    given = (keywords.get("dbname"), address.database, keywords.get("user"), address.username)
    name = next(filter(None, given), "of the user")
    host = where.get("host", "the local server")
    port = f":{where['port']}" if "port" in where and not host.startswith("/") else ""
    return f"{name} on {host}{port}"


def _place(address: StorageURL, keywords: Mapping[str, Any]) -> dict[str, str]:
    host = keywords.get("host") or keywords.get("hostaddr") or address.host
    port = keywords.get("port") or (None if address.port is None else str(address.port))
    if port is not None and not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", port):
        raise InvalidStorageURLError("port in the PostgreSQL URL must be a number, or one number for each host")
    if host and ":" in host and "," not in host and not host.startswith(("/", "[")):
        host = f"[{host}]"
    return {name: text for name, text in (("host", host), ("port", port)) if text}


def _system_trust(query: dict[str, str]) -> ssl.SSLContext:
    """Return the TLS context of `sslrootcert=system`: it trusts the CAs of the operating system and checks host names,
    which libpq requires then."""
    if query.get("sslmode", "verify-full") != "verify-full":
        raise InvalidStorageURLError("sslrootcert=system in the PostgreSQL URL needs sslmode=verify-full")
    context = ssl.create_default_context()
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), lambda: query.get("sslpassword", ""))
    return context
