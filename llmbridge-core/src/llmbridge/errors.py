"""Exceptions of llmbridge.

    LLMBridgeError
    ├── ProviderError
    │   ├── AuthenticationError
    │   ├── RateLimitError
    │   ├── ProviderTimeoutError
    │   ├── ContextLengthError
    │   ├── ContentFilterError
    │   ├── InvalidRequestError (ValueError)
    │   ├── ProviderUnavailableError
    │   └── InvalidResponseError
    ├── ModelNotFoundError (LookupError, ValueError)
    ├── ProviderNotFoundError (LookupError, ValueError)
    ├── PriceDataError
    ├── PluginError
    │   ├── PluginLoadError (ImportError)
    │   ├── InvalidPluginError
    │   ├── IncompatiblePluginError
    │   └── AmbiguousPluginError
    └── StorageError
        ├── InvalidStorageURLError (ValueError)
        ├── UnknownStorageError (LookupError)
        ├── SchemaOutdatedError
        ├── SchemaTooNewError
        ├── MigrationError
        ├── RecordRejectedError (ValueError)
        ├── StorageUnavailableError
        ├── StorageRefusedError
        ├── PurgedDetailError (ValueError)
        ├── WrongLoopError (RuntimeError)
        ├── StorageClosedError (RuntimeError)
        └── UnsupportedOperationError (NotImplementedError)

In parentheses: further base classes.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from .schemas import TokenUsage


def redact(text: str) -> str:
    """Return `text` without anything that looks like a key or a password."""
    from ._shared import redaction

    return redaction.redact(text)


class LLMBridgeError(Exception):
    """Base class of all exceptions of llmbridge."""


class ProviderError(LLMBridgeError):
    """The provider refused the call, or failed.

    `provider` and `model` are those that were called. `status_code` is the HTTP status (None: there was no response),
    `retry_after` the wait in seconds that the provider asked for (None: it did not ask). `usage` are the tokens that
    the provider reported for an unusable response (None: it reported none).
    """

    #: Status of the failed attempt in its record.
    status = "error"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status_code: int | None = None,
        retry_after: float | None = None,
        usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status_code = status_code
        self.retry_after = retry_after
        self.usage = usage


class AuthenticationError(ProviderError):
    """The provider does not accept the API key, the key is missing, or it may not use this model."""


class RateLimitError(ProviderError):
    """The provider refused the call because of a rate limit or quota."""

    status = "rate_limited"


class ProviderTimeoutError(ProviderError):
    """The provider did not answer within the timeout. It may still process the request and charge for it."""

    status = "timeout"


class ContextLengthError(ProviderError):
    """The messages are longer than the model's context window."""


class ContentFilterError(ProviderError):
    """The provider's content filter refused the request or the response."""


class InvalidRequestError(ProviderError, ValueError):
    """The request is invalid, or uses something that the provider does not support. Change the request."""


class ProviderUnavailableError(ProviderError):
    """The provider cannot be reached, or failed with an error of its own (HTTP 5xx)."""


class InvalidResponseError(ProviderError):
    """The provider sent a response that cannot be used."""


class ModelNotFoundError(LLMBridgeError, LookupError, ValueError):
    """The model name does not tell its provider, or the provider does not have the model."""


class ProviderNotFoundError(LLMBridgeError, LookupError, ValueError):
    """The provider named in a model string is neither registered nor installed."""


class PriceDataError(LLMBridgeError):
    """Newer price data cannot be fetched, read or stored; the current prices stay."""


class PluginError(LLMBridgeError):
    """A plugin cannot be used. The text names the distribution and its entry point."""


class PluginLoadError(PluginError, ImportError):
    """Importing the plugin failed; the cause is chained. Other plugins still work."""


class InvalidPluginError(PluginError):
    """The plugin violates the plugin contract: its hook, descriptor or scheme is wrong."""


class IncompatiblePluginError(PluginError):
    """The plugin was built against an API version that this core does not accept."""


class AmbiguousPluginError(PluginError):
    """Several distributions provide the same name; choose one with `plugin="distribution-name"`."""


class StorageError(LLMBridgeError):
    """Storing or reading failed. Base class of all errors of storage."""


class InvalidStorageURLError(StorageError, ValueError):
    """The storage URL or its options are invalid."""


class UnknownStorageError(StorageError, LookupError):
    """No installed plugin provides the URL's scheme."""


class SchemaOutdatedError(StorageError):
    """The database needs migrations, and `migrate="check"` does not apply them."""


class SchemaTooNewError(StorageError):
    """A newer release migrated the database, and this release may not write to it."""


class MigrationError(StorageError):
    """A migration failed and was rolled back, or an applied migration differs from the shipped one."""


class RecordRejectedError(StorageError, ValueError):
    """The value can never be stored; retrying does not help.

    `ids` are the rejected records of a batch, if the backend knows them; else it is empty.
    """

    def __init__(self, message: str, *, ids: tuple[UUID, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class ConstraintError(StorageError):
    """A constraint or trigger of the database refused a row. A record that somebody else's constraint refuses waits in
    the spool, set aside, and can be stored once the constraint allows it.

    `ids` are the refused records of a batch, if the backend knows them; else it is empty.
    """

    def __init__(self, message: str, *, ids: tuple[UUID, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class StorageUnavailableError(StorageError):
    """The database is not available now, and the same operation may succeed later: connection lost, locked, timed out,
    disk full or read-only."""


class StorageRefusedError(StorageError):
    """The database cannot be used until somebody changes something: not a database of llmbridge, corrupt, wrong
    password, no permission, server too old, no such database."""


class PurgedDetailError(StorageError, ValueError):
    """The query needs detail of days that were purged.

    `earliest` (UTC) is the first time from which the query can be answered exactly. It is the end of the last quarter
    of an hour that an edge of the query cuts; for a query by user, the end of the last UTC day that an edge cuts; for a
    query by tag or error type, the start of the first day that is not purged.
    """

    def __init__(self, message: str, *, earliest: datetime) -> None:
        super().__init__(message)
        self.earliest = earliest


class WrongLoopError(StorageError, RuntimeError):
    """The object was used from another event loop than the one that opened it, or from a forked child process."""


class StorageClosedError(StorageError, RuntimeError):
    """The database was used before it was opened, or after it was closed."""


class UnsupportedOperationError(StorageError, NotImplementedError):
    """The backend does not have the capability that the operation needs."""
