"""Backends and providers from plugins: a URL or a prefix in, a working object out."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from .._shared.options import check_options
from ..errors import (
    InvalidPluginError,
    InvalidRequestError,
    InvalidStorageURLError,
    LLMBridgeError,
    PluginError,
    ProviderError,
    StorageError,
)
from ._discovery import CORE, Kind, choose, claims, discard, load, providers, storage, switched_off, usable_names

if TYPE_CHECKING:
    from ..providers.base import BaseLLMProvider
    from ..providers.hookspecs import ProviderPlugin
    from ..storage.base import StorageBackend
    from ..storage.hookspecs import StoragePlugin
    from ..storage.url import StorageURL


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One installed plugin, as a listing shows it.

    `name` is the URL scheme or model prefix. `api_version` is None, and `capabilities` empty, where the plugin
    could not be loaded; `error` says why the name cannot be used as it is (None: it can).
    """

    name: str
    distribution: str
    version: str
    module: str
    api_version: int | None = None
    capabilities: tuple[str, ...] = ()
    error: str | None = None


def create_backend(
    url: str | os.PathLike[str] | None = None, *, plugin: str | None = None, **options: Any
) -> StorageBackend | None:
    """The backend for `url`; None for no URL. Opens nothing and creates nothing on disk.

    `plugin` is the name of the distribution to use where several claim the scheme. `options` come before those in
    the URL's query; None counts as not given. `db_manager` is for `postgresql`, and stands instead of a URL.

    :raises InvalidStorageURLError: `url` is no URL of a store, or an option is unknown or of the wrong type
    :raises UnknownStorageError: no plugin that is installed and allowed answers for the scheme
    :raises PluginError: the plugin cannot be used, or several claim the scheme
    :raises StorageError: the plugin could not make a backend from `url`
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
            raise InvalidStorageURLError(f"options without a storage URL mean nothing: {', '.join(left)}")
        return None

    claim = choose(storage(), address.scheme, plugin)
    found: StoragePlugin = load(storage(), claim)
    try:
        wanted = check_options(
            claim.distribution, found.options, query, options, everywhere={"schema": str, "enable_monitoring": bool}
        )
    except ValueError as error:
        raise InvalidStorageURLError(str(error)) from error

    try:
        backend: object = found.create(address, wanted)
    except LLMBridgeError:
        raise
    except Exception as error:
        _wrap(StorageError, f"{claim.distribution} could not make a backend for {address}", error, address, wanted)
    if not isinstance(backend, StorageBackend):
        discard(backend)
        raise InvalidPluginError(f"{claim}: create() returned {type(backend).__name__}, not a StorageBackend")
    if not injected and "persistent" in found.capabilities:
        backend.target = _target(found, address, wanted)
    return backend


def storage_plugin(url: str | os.PathLike[str], *, plugin: str | None = None) -> StoragePlugin:
    """The descriptor of the plugin that answers for `url`. Raises like `create_backend`."""
    from ..storage.url import parse

    address, _ = parse(url)
    found: StoragePlugin = load(storage(), choose(storage(), address.scheme, plugin))
    return found


def create_provider(prefix: str, *, plugin: str | None = None, **options: Any) -> BaseLLMProvider:
    """The provider for a model string's prefix. Connects to nothing. None counts as an option not given.

    :raises ProviderNotFoundError: no plugin that is installed and allowed answers for the prefix
    :raises PluginError: the plugin cannot be used, or several claim the prefix
    :raises InvalidRequestError: an option is unknown or of the wrong type
    :raises ProviderError: the plugin could not make a provider
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
        _wrap(ProviderError, f"{claim.distribution} could not make the provider {claim.name}", error, None, wanted)
    if not isinstance(provider, BaseLLMProvider):
        discard(provider)
        raise InvalidPluginError(f"{claim}: create() returned {type(provider).__name__}, not a BaseLLMProvider")
    return provider


def provider_plugin(prefix: str, *, plugin: str | None = None) -> ProviderPlugin:
    """Return the descriptor of the plugin that serves a model string's prefix. Raises like `create_provider`."""
    found: ProviderPlugin = load(providers(), choose(providers(), prefix, plugin))
    return found


def provider_names() -> set[str]:
    """The prefixes that installed and allowed provider plugins claim; imports none of them."""
    return usable_names(providers())


def storage_plugins() -> list[PluginInfo]:
    """All installed storage plugins by scheme. Imports those that are allowed; a broken one shows its error."""
    return list(_listing(storage()))


def provider_plugins() -> list[PluginInfo]:
    """All installed provider plugins by prefix. Imports those that are allowed; a broken one shows its error."""
    return list(_listing(providers()))


def foreign_distribution_warning() -> str | None:
    """What to say if llmbridge-py is installed beside us; None if it is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        foreign = version("llmbridge-py")
    except PackageNotFoundError:
        return None
    return (
        f"llmbridge-py {foreign} is installed beside {CORE}: both own the package `llmbridge`, and each overwrites "
        f"the other's files. Run `pip uninstall llmbridge-py`, then `pip install --force-reinstall {CORE}`."
    )


def _target(found: StoragePlugin, address: StorageURL, options: Mapping[str, Any]) -> str | None:
    from ..storage.url import StorageURL, target

    joined = StorageURL(
        found.schemes[0].lower(),
        host=options.get("host", address.host),
        port=options.get("port", address.port),
        path=address.path,
        database=options.get("dbname", address.database),
    )
    return target(joined, options.get("schema"))


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
            rivals = [other.distribution for other in offers if other != claim and switched_off(other) is None]
            yield PluginInfo(
                *known,
                api_version=found.api_version,
                capabilities=tuple(sorted(getattr(found, "capabilities", ()))),
                error=f"claimed by {', '.join(rivals)} too: choose with plugin=" if rivals else None,
            )


def _wrap(
    kind: type[LLMBridgeError], text: str, error: Exception, url: StorageURL | None, options: Mapping[str, Any]
) -> NoReturn:
    """Raise what a plugin let out as an error of ours, without the secrets that its text may have."""
    from .._shared.redaction import redact

    secrets = [url.password, quote(url.password, safe="")] if url is not None and url.password else []
    secrets += [
        value
        for name, value in options.items()
        if isinstance(value, str) and value and re.search("pass|secret|token|key", name)
    ]
    told = redact(f"{type(error).__name__}: {error}", secrets)
    # A traceback shows the cause's text as it is, so a cause that tells a secret is left out.
    whole = "".join(traceback.format_exception(error))
    raise kind(f"{text}: {told}") from (None if any(secret in whole for secret in secrets) else error)
