"""What went wrong in PostgreSQL, in the words of the storage contract. No text has a password: PostgreSQL, asyncpg
and we never put one into a message."""

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

#: What `translate` makes an error of the contract from.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    AsyncDBError,
    OSError,
    TimeoutError,
)

_POOLER = (
    "a connection pooler in transaction mode seems to stand before it; add ?pgbouncer=true to its URL, and migrate "
    "over the direct one"
)
_PASSWORD = "user or password is wrong; correct them in the URL, in the passfile, or in PGPASSWORD"  # noqa: S105
_ENTRY = (
    "it does not let this user in; check the user, pg_hba.conf, and whether it demands TLS (sslmode=require) or a "
    "certificate (sslcert, sslkey)"
)
_RIGHTS = (
    "the user lacks a right: the books need SELECT, INSERT and UPDATE on their tables, to purge and to forget DELETE "
    "as well, and to migrate CREATE on their schema; have them granted"
)
_READ_ONLY = "it is read-only now, as a standby is; it is tried again over new connections"

#: By SQLSTATE, of which the first two characters are the class. https://www.postgresql.org/docs/current/errcodes-appendix.html
_REFUSED = {
    "28P01": _PASSWORD,
    "28": _ENTRY,
    "3D000": "there is no such database; make it with `createdb`, or correct the name in the URL",
    "42501": _RIGHTS,
    "26000": _POOLER,
    "42P05": _POOLER,
}
_UNAVAILABLE = {
    "08": "the connection was lost; try again",
    "25006": _READ_ONLY,
    "25P": "a transaction took too long; try again",
    "40": "the transaction was in the way of another; try again",
    "53": "it lacks resources: connections, disk or memory; free some",
    "55": "what is needed is locked or not ready; try again",
    "57": "it is starting, stopping or stopped the statement; try again",
    "58": "its system failed; look into its log",
}
#: What the value itself causes in our own columns. 22000 is asyncpg's, for what it cannot send.
_REJECTED = {
    "22000": "it cannot hold the value",
    "22003": "it cannot hold the number",
    "22008": "it cannot hold the time",
    "22021": "its encoding lacks a character of the value",
    "22P05": "its encoding lacks a character of the value",
}
#: What a canonical record only gets from constraints, triggers and columns that somebody added or changed.
_CONSTRAINT = ("22", "23", "44", "54", "P0001", "P0004")
#: asyncpg shows the beginning of a value that it cannot encode; the reason stands at the end, in brackets.
_ARGUMENT = re.compile(r"(invalid input for query argument \$\d+): .*(?=\()")
_TLS_FILES = "look at sslrootcert, sslcert, sslkey and sslpassword in its URL"
#: The certificate is good, but for another name or address.
#: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_OF_ANOTHER_HOST = (62, 64)
_LACKING = frozenset({"42P01", "42703", "42704", "3F000"})


def translate(error: BaseException, where: str) -> StorageError | LLMBridgeError:
    """The error of the contract that `error`, met at the database `where`, stands for."""
    what = f"the PostgreSQL database {where}"
    if isinstance(error, LLMBridgeError):
        return error
    if isinstance(error, AsyncDBError):
        if isinstance(error.__cause__, DRIVER_ERRORS):
            return translate(error.__cause__, where)
        return StorageUnavailableError(f"{what}: {_first_line(error)}")
    if (alert := _refused_certificate(error)) is not None:
        return StorageRefusedError(f"{what}: it does not trust our certificate ({alert}); {_TLS_FILES}")
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return StorageUnavailableError(f"{what}: its tables changed meanwhile; try again")
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error, what)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return InvalidStorageURLError(f"the URL of {what} is wrong: {_first_line(error)}")
    if isinstance(error, TimeoutError):
        return StorageUnavailableError(f"{what} did not answer in time")
    if isinstance(error, OSError):
        return _translate_network(error, what)
    return StorageUnavailableError(f"{what}: {_first_line(error)}; try again")


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error of the server; empty if it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def _translate_sqlstate(error: asyncpg.PostgresError, what: str) -> StorageError:
    code, told = sqlstate(error), _first_line(error)
    if "startup parameter" in told:
        return StorageRefusedError(f"{what}: {_POOLER}; it said: {told}")
    if code in _LACKING:
        return SchemaOutdatedError(
            f"{what} lacks what this release needs; run `llmbridge storage migrate` (it said: {told})"
        )
    for kind, hints in (
        (StorageRefusedError, _REFUSED),
        (StorageUnavailableError, _UNAVAILABLE),
        (RecordRejectedError, _REJECTED),
    ):
        hint = hints.get(code) or hints.get(code[:3]) or hints.get(code[:2])
        if hint is not None:
            return kind(f"{what}: {hint} (it said: {told})")
    if code.startswith(_CONSTRAINT):
        return ConstraintError(f"{what}: {_constraint(error)} refuses the row (it said: {told})")
    return StorageError(f"{what}: {told}")


def _constraint(error: asyncpg.PostgresError) -> str:
    """Name what refused a row, without its values."""
    table = getattr(error, "table_name", None)
    name = getattr(error, "constraint_name", None) or getattr(error, "column_name", None) or "a constraint or trigger"
    return f"{name} of {table}" if table else name


def _translate_network(error: OSError, what: str) -> StorageError:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return StorageUnavailableError(f"{what}: the name of its host cannot be looked up now; try again")
        return StorageRefusedError(f"{what}: its host is unknown; correct the name in the URL")
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OF_ANOTHER_HOST:
            return StorageRefusedError(
                f"{what}: its certificate is for another host ({error.verify_message.rstrip('.')}); connect by the "
                "name in it, or check no name with sslmode=verify-ca"
            )
        return StorageRefusedError(
            f"{what}: its certificate is not to be trusted ({error.verify_message}); give the right sslrootcert"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return StorageRefusedError(f"{what}: TLS with it fails ({_tls_reason(error)}); {_TLS_FILES}")
    if "SSL upgrade" in str(error):
        # Whatever the answer was but a yes; to a no, sslmode=prefer goes on without.
        return StorageRefusedError(
            f"{what}: it has no TLS, which sslmode asks for, or is no PostgreSQL server; correct sslmode, host or port "
            "in the URL"
        )
    return StorageUnavailableError(f"{what} cannot be reached: {_first_line(error)}; look whether it runs there")


def _refused_certificate(error: BaseException) -> str | None:
    """What the server said of our certificate, if that is why the connection was lost."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and re.search("ALERT.*(UNKNOWN_CA|CERTIFICATE)", cause.reason or ""):
        return _tls_reason(cause)
    return None


def _tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL gives no reason where a file is not what it should be."""
    reason: str | None = error.reason
    return "a file cannot be read as PEM" if reason is None else reason.replace("_", " ").lower()


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _ARGUMENT.sub(r"\1: ", line)
