"""Factories of backends and providers from installed plugins, and listings of the plugins."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from .._shared.options import check_options
from .._shared.spelling import hint
from ..errors import (
    InvalidPluginError,
    InvalidRequestError,
    InvalidStorageURLError,
    LLMBridgeError,
    PluginError,
    ProviderError,
    StorageError,
)
from ._discovery import Kind, choose, claims, discard, load, providers, storage, switched_off, usable_names
from ._foreign import foreign_distribution_warning as foreign_distribution_warning

if TYPE_CHECKING:
    from ..providers.base import BaseLLMProvider
    from ..providers.hookspecs import ProviderPlugin
    from ..storage.base import StorageBackend
    from ..storage.hookspecs import StoragePlugin
    from ..storage.url import StorageURL


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """Entry of a listing: one installed plugin.

    `name` is the URL scheme or the prefix of model strings. If the plugin could not be loaded, `api_version` is None
    and `capabilities` is empty. `error` says why the name cannot be used (None: it can).
    """

    name: str
    distribution: str
    version: str
    module: str
    api_version: int | None = None
    capabilities: tuple[str, ...] = ()
    error: str | None = None


def create_backend(
    url: str | os.PathLike[str] | None = None,
    *,
    plugin: str | None = None,
    parameters: Collection[str] = (),
    **options: Any,
) -> StorageBackend | None:
    """Return the backend for `url`; None without a URL. Open nothing and create nothing on disk.

    :param url: URL or path of the database
    :param plugin: the distribution to use if several provide the scheme
    :param parameters: names of the caller's own parameters, one of which a misspelt option may mean
    :param options: options of the backend; they override those in the URL's query, and None counts as not given.
        `db_manager` is for `postgresql` and replaces the URL
    :raises InvalidStorageURLError: the URL is invalid, or an option is unknown or of the wrong type
    :raises UnknownStorageError: no installed and allowed plugin provides the scheme
    :raises PluginError: the plugin cannot be used, or several provide the scheme
    :raises StorageError: the plugin could not create a backend
    """
    from ..storage.base import StorageBackend
    from ..storage.url import StorageURL, parse

    injected = options.get("db_manager") is not None
    if url is not None and url != "":
        if injected:
            raise InvalidStorageURLError(
                "give a storage URL or db_manager=, not both: the manager has its own database"
            )
        address, query = parse(url)
    elif injected:
        address, query = StorageURL("postgresql"), {}
    else:
        left = sorted(
            name for name, value in options.items() if value is not None and name not in ("schema", "enable_monitoring")
        )
        if left:
            raise InvalidStorageURLError(
                f"options without a storage URL have no effect: {', '.join(left)}{hint(left[0], parameters)}"
            )
        return None

    claim = choose(storage(), address.scheme, plugin)
    found: StoragePlugin = load(storage(), claim)
    try:
        wanted = check_options(
            claim.distribution,
            found.options,
            query,
            options,
            everywhere={"schema": str, "enable_monitoring": bool},
            parameters=parameters,
        )
    except ValueError as error:
        raise InvalidStorageURLError(str(error)) from error

    try:
        backend: object = found.create(address, wanted)
    except LLMBridgeError:
        raise
    except Exception as error:
        _wrap(StorageError, f"{claim.distribution} could not create a backend for {address}", error, address, wanted)
    if not isinstance(backend, StorageBackend):
        discard(backend)
        raise InvalidPluginError(f"{claim}: create() returned {type(backend).__name__}, not a StorageBackend")
    if not injected and "persistent" in found.capabilities:
        backend.target = _target(found, address, wanted)
    return backend


def storage_plugin(url: str | os.PathLike[str], *, plugin: str | None = None) -> StoragePlugin:
    """Return the descriptor of the plugin for `url`. Raises like `create_backend`."""
    from ..storage.url import parse

    address, _ = parse(url)
    found: StoragePlugin = load(storage(), choose(storage(), address.scheme, plugin))
    return found


def create_provider(prefix: str, *, plugin: str | None = None, **options: Any) -> BaseLLMProvider:
    """Return the provider for the prefix of a model string. Connect to nothing.

    :param plugin: the distribution to use if several provide the prefix
    :param options: options of the provider; None counts as not given
    :raises ProviderNotFoundError: no installed and allowed plugin provides the prefix
    :raises PluginError: the plugin cannot be used, or several provide the prefix
    :raises InvalidRequestError: an option is unknown or of the wrong type
    :raises ProviderError: the plugin could not create a provider
    """
    from ..providers.base import BaseLLMProvider

    claim = choose(providers(), prefix, plugin)
    found: ProviderPlugin = load(providers(), claim)
    try:
        wanted = check_options(claim.distribution, found.options, {}, options)
    except ValueError as error:
        raise InvalidRequestError(str(error), provider=claim.name) from error

    try:
        provider: object = found.create(claim.name, wanted)
    except LLMBridgeError:
        raise
    except Exception as error:
        _wrap(ProviderError, f"{claim.distribution} could not create the provider {claim.name}", error, None, wanted)
    if not isinstance(provider, BaseLLMProvider):
        discard(provider)
        raise InvalidPluginError(f"{claim}: create() returned {type(provider).__name__}, not a BaseLLMProvider")
    return provider


def provider_plugin(prefix: str, *, plugin: str | None = None) -> ProviderPlugin:
    """Return the descriptor of the plugin that serves a model string's prefix. Raises like `create_provider`."""
    found: ProviderPlugin = load(providers(), choose(providers(), prefix, plugin))
    return found


def provider_names() -> set[str]:
    """Return the prefixes of installed and allowed provider plugins, without importing them."""
    return usable_names(providers())


def storage_plugins() -> list[PluginInfo]:
    """Return all installed storage plugins by scheme. Import the allowed ones; a broken one has its error."""
    return list(_listing(storage()))


def provider_plugins() -> list[PluginInfo]:
    """Return all installed provider plugins by prefix. Import the allowed ones; a broken one has its error."""
    return list(_listing(providers()))


def _target(found: StoragePlugin, address: StorageURL, options: Mapping[str, Any]) -> str | None:
    from ..storage.url import StorageURL, target

    joined = StorageURL(
        found.schemes[0].lower(),
        host=options.get("host", address.host),
        port=options.get("port", address.port),
        path=address.path,
        database=options.get("dbname", address.database),
    )
    return target(joined, {name: options[name] for name in ("schema", *found.identity) if name in options})


def _listing(kind: Kind) -> Iterator[PluginInfo]:
    for offers in claims(kind, fresh=True).values():
        for claim in offers:
            known = (claim.name, claim.distribution, claim.version, claim.value)
            if reason := switched_off(claim):
                yield PluginInfo(*known, error=f"switched off: {claim.distribution} {reason}")
                continue
            try:
                found = load(kind, claim)
            except PluginError as error:
                yield PluginInfo(*known, error=str(error))
                continue
            others = [other.distribution for other in offers if other != claim and switched_off(other) is None]
            yield PluginInfo(
                *known,
                api_version=found.api_version,
                capabilities=tuple(sorted(getattr(found, "capabilities", ()))),
                error=f"also provided by {', '.join(others)}: choose with plugin=" if others else None,
            )


def _wrap(
    kind: type[LLMBridgeError], text: str, error: Exception, url: StorageURL | None, options: Mapping[str, Any]
) -> NoReturn:
    """Raise an exception of a plugin as an error of `kind`, without the secrets that its text may contain."""
    from .._shared.redaction import redact

    secrets = [url.password, quote(url.password, safe="")] if url is not None and url.password else []
    secrets += [
        value
        for name, value in options.items()
        if isinstance(value, str) and value and re.search("pass|secret|token|key", name)
    ]
    reason = redact(f"{type(error).__name__}: {error}", secrets)
    # A traceback shows the cause's text as it is, so a cause with a secret in its text is not chained.
    whole = "".join(traceback.format_exception(error))
    raise kind(f"{text}: {reason}") from (None if any(secret in whole for secret in secrets) else error)
