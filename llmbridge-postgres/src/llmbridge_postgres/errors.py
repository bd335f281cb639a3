"""Translation of the driver's errors into those of the storage contract.

No error text contains a password: neither PostgreSQL nor asyncpg nor this module puts one into a message.
"""

from __future__ import annotations

import re
import socket
import ssl

import asyncpg
from pgdbm.errors import AsyncDBError

from llmbridge.storage import (
    ConstraintError,
    InvalidStorageURLError,
    LLMBridgeError,
    RecordRejectedError,
    SchemaOutdatedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)

#: The errors that `translate` takes.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    AsyncDBError,
    OSError,
    TimeoutError,
)

_POOLER = (
    "a connection pooler in transaction mode seems to be in front of it; add ?pgbouncer=true to the URL, and migrate "
    "with the URL of the server itself"
)
_PASSWORD = "the user or the password is wrong; correct them in the URL, in the passfile, or in PGPASSWORD"  # noqa: S105
_LOGIN = (
    "it refuses the login of this user; check the user, pg_hba.conf, and whether the server requires TLS "
    "(sslmode=require) or a client certificate (sslcert, sslkey)"
)
_PRIVILEGES = (
    "the user lacks a privilege: llmbridge needs SELECT, INSERT and UPDATE on its tables, DELETE to purge and to "
    "forget, and CREATE on its schema to migrate; grant them"
)
_READ_ONLY = "it is read-only now, as a standby is; the next attempt uses new connections"

#: By SQLSTATE, of which the first two characters are the class. https://www.postgresql.org/docs/current/errcodes-appendix.html
_REFUSED = {
    "28P01": _PASSWORD,
    "28": _LOGIN,
    "3D000": "the database does not exist; create it with `createdb`, or correct the name in the URL",
    "42501": _PRIVILEGES,
    "26000": _POOLER,
    "42P05": _POOLER,
}
_UNAVAILABLE = {
    "08": "the connection was lost; try again",
    "25006": _READ_ONLY,
    "25P": "a transaction took too long; try again",
    "40": "the transaction conflicted with another one; try again",
    "53": "it has no more connections, disk space or memory; free some",
    "55": "an object is locked or not ready; try again",
    "57": "the server is starting or stopping, or it cancelled the statement; try again",
    "58": "the system of the server failed; look into the server's log",
}
#: Errors that a value causes in llmbridge's own columns. 22000 is asyncpg's, for a value that it cannot send.
_REJECTED = {
    "22000": "it cannot store the value",
    "22003": "it cannot store a number of this size",
    "22008": "it cannot store this time",
    "22021": "its encoding lacks a character of the value",
    "22P05": "its encoding lacks a character of the value",
}
#: A canonical record gets these errors only from constraints, triggers and columns that somebody added or changed.
_CONSTRAINT = ("22", "23", "44", "54", "P0001", "P0004")
#: asyncpg shows the start of a value that it cannot encode. The reason is at the end, in parentheses.
_ARGUMENT = re.compile(r"(invalid input for query argument \$\d+): .*(?=\()")
_TLS_FILES = "check sslrootcert, sslcert, sslkey and sslpassword in the URL"
#: The certificate is valid, but for another host name or address.
#: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_OF_ANOTHER_HOST = (62, 64)
_LACKING = frozenset({"42P01", "42703", "42704", "3F000"})


def translate(error: BaseException, where: str) -> StorageError | LLMBridgeError:
    """Return the error of the contract for `error`, which the database `where` caused."""
    what = f"the PostgreSQL database {where}"
    if isinstance(error, LLMBridgeError):
        return error
    if isinstance(error, AsyncDBError):
        if isinstance(error.__cause__, DRIVER_ERRORS):
            return translate(error.__cause__, where)
        return StorageUnavailableError(f"{what}: {_first_line(error)}")
    if (alert := _refused_certificate(error)) is not None:
        return StorageRefusedError(f"{what}: the server does not trust the client certificate ({alert}); {_TLS_FILES}")
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return StorageUnavailableError(f"{what}: its tables changed while the statement ran; try again")
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error, what)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return InvalidStorageURLError(f"the URL of {what} is wrong: {_first_line(error)}")
    if isinstance(error, TimeoutError):
        return StorageUnavailableError(f"{what} did not answer in time; try again")
    if isinstance(error, OSError):
        return _translate_network(error, what)
    return StorageUnavailableError(f"{what}: {_first_line(error)}; try again")


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error of the server, empty if it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def _translate_sqlstate(error: asyncpg.PostgresError, what: str) -> StorageError:
    code, message = sqlstate(error), _first_line(error)
    if "startup parameter" in message:
        return StorageRefusedError(f"{what}: {_POOLER} (the server says: {message})")
    if code in _LACKING:
        return SchemaOutdatedError(
            f"{what} lacks a table or column of this release; run `llmbridge storage migrate` (the server says: "
            f"{message})"
        )
    for kind, hints in (
        (StorageRefusedError, _REFUSED),
        (StorageUnavailableError, _UNAVAILABLE),
        (RecordRejectedError, _REJECTED),
    ):
        hint = hints.get(code) or hints.get(code[:3]) or hints.get(code[:2])
        if hint is not None:
            return kind(f"{what}: {hint} (the server says: {message})")
    if code.startswith(_CONSTRAINT):
        return ConstraintError(f"{what}: {_constraint(error)} refuses the row (the server says: {message})")
    return StorageError(f"{what}: {message}")


def _constraint(error: asyncpg.PostgresError) -> str:
    """Return the name of the constraint or column that refused a row, without the values of the row."""
    table = getattr(error, "table_name", None)
    name = getattr(error, "constraint_name", None) or getattr(error, "column_name", None) or "a constraint or trigger"
    return f"{name} of {table}" if table else name


def _translate_network(error: OSError, what: str) -> StorageError:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return StorageUnavailableError(f"{what}: the host name cannot be resolved now; try again")
        return StorageRefusedError(f"{what}: the host name is unknown; correct it in the URL")
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OF_ANOTHER_HOST:
            return StorageRefusedError(
                f"{what}: its certificate is valid for another host ({error.verify_message.rstrip('.')}); use the host "
                "name of the certificate, or switch off the check of the name with sslmode=verify-ca"
            )
        return StorageRefusedError(
            f"{what}: its certificate is not trusted ({error.verify_message}); correct sslrootcert in the URL"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return StorageRefusedError(f"{what}: the TLS connection failed ({_tls_reason(error)}); {_TLS_FILES}")
    if "SSL upgrade" in str(error):
        # The server answered anything but yes. After a plain no, sslmode=prefer continues without TLS.
        return StorageRefusedError(
            f"{what}: the server does not support TLS, which sslmode requires, or it is not a PostgreSQL server; "
            "correct sslmode, host or port in the URL"
        )
    return StorageUnavailableError(f"{what} cannot be reached: {_first_line(error)}; check that the server runs there")


def _refused_certificate(error: BaseException) -> str | None:
    """Return the server's reason if it closed the connection because of the client certificate, else None."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and re.search("ALERT.*(UNKNOWN_CA|CERTIFICATE)", cause.reason or ""):
        return _tls_reason(cause)
    return None


def _tls_reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason. It gives none if a file has the wrong format."""
    reason: str | None = error.reason
    return "a file cannot be read as PEM" if reason is None else reason.replace("_", " ").lower()


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _ARGUMENT.sub(r"\1: ", line)
