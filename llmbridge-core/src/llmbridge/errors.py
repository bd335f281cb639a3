"""The whole exception tree: what went wrong, with which object, what to do next."""

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
    """Base of every error that llmbridge raises on purpose."""


class ProviderError(LLMBridgeError):
    """A vendor refused or failed a call.

    `provider` and `model` name whom we called, `status_code` is the HTTP status (None: there was no answer),
    `retry_after` the wait in seconds that the vendor asked for (None: it did not say). `usage` is what the vendor
    counted of an answer that is of no use (None: nothing).
    """

    #: What the failed attempt is recorded as.
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
    """The vendor does not accept the key, the key is missing, or it may not use this model."""


class RateLimitError(ProviderError):
    """The vendor asks to slow down."""

    status = "rate_limited"


class ProviderTimeoutError(ProviderError):
    """The vendor did not answer within the timeout. It may still have worked, and charged."""

    status = "timeout"


class ContextLengthError(ProviderError):
    """The messages are longer than the model's context."""


class ContentFilterError(ProviderError):
    """The vendor's safety system refused the request or the answer."""


class InvalidRequestError(ProviderError, ValueError):
    """The request cannot be served as it is: the vendor said so, or it does not offer what was asked."""


class ProviderUnavailableError(ProviderError):
    """The vendor cannot be reached or failed on its side."""


class InvalidResponseError(ProviderError):
    """The vendor answered something that is no answer."""


class ModelNotFoundError(LLMBridgeError, LookupError, ValueError):
    """No vendor can be told from this model name, or the vendor does not have the model."""


class ProviderNotFoundError(LLMBridgeError, LookupError, ValueError):
    """The vendor named in a model string is neither registered nor installed."""


class PriceDataError(LLMBridgeError):
    """Newer prices cannot be fetched, read or stored; those in force stay."""


class PluginError(LLMBridgeError):
    """A plugin cannot be used. Each kind below names the distribution and its entry point."""


class PluginLoadError(PluginError, ImportError):
    """Importing the plugin failed; the cause is chained. Only its own scheme is affected."""


class InvalidPluginError(PluginError):
    """The plugin does not keep the plugin contract: wrong hook, wrong descriptor, wrong scheme."""


class IncompatiblePluginError(PluginError):
    """The plugin was built against an API version that this core does not accept."""


class AmbiguousPluginError(PluginError):
    """Two distributions claim the same name; `plugin="distribution-name"` decides."""


class StorageError(LLMBridgeError):
    """A storage backend, or the way to it, failed."""


class InvalidStorageURLError(StorageError, ValueError):
    """The text is no URL of a store, or its options are wrong."""


class UnknownStorageError(StorageError, LookupError):
    """No installed plugin claims the scheme."""


class SchemaOutdatedError(StorageError):
    """The store needs migrations that were not asked for (`migrate="check"`)."""


class SchemaTooNewError(StorageError):
    """The store was migrated by a newer release, which says that this one may no longer write it."""


class MigrationError(StorageError):
    """A migration failed and left nothing behind, or an applied one is not the one that we ship."""


class RecordRejectedError(StorageError, ValueError):
    """This value can never be stored; retrying the same value is useless.

    A backend that knows which records of a batch it means names their ids; otherwise `ids` is empty.
    """

    def __init__(self, message: str, *, ids: tuple[UUID, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class StorageUnavailableError(StorageError):
    """Could succeed later: connection lost, locked, timed out, disk full or read-only."""


class StorageRefusedError(StorageError):
    """Will not mend by itself: not our store, corrupt, wrong password, no rights, too old, no such database."""


class PurgedDetailError(StorageError, ValueError):
    """The question needs detail of days that were purged; `earliest` (UTC) is the first time from which it can
    be answered exactly: where the last quarter of an hour ends that its edges cut, or the last UTC day for a question
    by or about users. For one about tags or types of errors it is the start of the first day that was not purged."""

    def __init__(self, message: str, *, earliest: datetime) -> None:
        super().__init__(message)
        self.earliest = earliest


class WrongLoopError(StorageError, RuntimeError):
    """Used from another event loop than the one that opened it, or from a forked child."""


class StorageClosedError(StorageError, RuntimeError):
    """Used before `connect()` or after `disconnect()`."""


class UnsupportedOperationError(StorageError, NotImplementedError):
    """The backend does not have the capability that the operation needs."""
