"""Discovery of plugins: finds the distributions that provide a scheme or a prefix, and loads their descriptors.

The search reads entry points and imports nothing. Only the chosen plugin is imported, at its first use.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import (
    AmbiguousPluginError,
    IncompatiblePluginError,
    InvalidPluginError,
    LLMBridgeError,
    PluginLoadError,
    ProviderNotFoundError,
    UnknownStorageError,
)

if TYPE_CHECKING:
    from importlib.metadata import Distribution

    import pluggy

CORE = "llmbridge-core"
ALLOW_VARIABLE = "LLMBRIDGE_PLUGINS"
DENY_VARIABLE = "LLMBRIDGE_DISABLE_PLUGINS"

#: Distributions of this project, the only ones that an error text proposes to install.
_FIRST_PARTY = {"sqlite": "llmbridge-sqlite", "postgresql": "llmbridge-postgres", "postgres": "llmbridge-postgres"}

logger = logging.getLogger("llmbridge.plugins")

#: Held while plugins are registered and described, never while one is imported.
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of plugin, storage or provider: what differs between the two.

    `names` is the descriptor's field with the names that it provides, `written` the format in which a user writes one.
    """

    group: str
    hook: str
    descriptor: type
    names: str
    api_versions: frozenset[int]
    written: str
    not_found: type[LLMBridgeError]
    first_party: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """Entry point of a distribution: its module `value` provides a name."""

    name: str
    distribution: str
    version: str
    value: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.name} = {self.value})"

    @property
    def key(self) -> str:
        """The distribution's name in normalized form, for comparison."""
        return normalized(self.distribution)


@dataclass(slots=True)
class _Registry:
    """Registered modules by name, and their descriptors by module and hook."""

    manager: pluggy.PluginManager
    described: dict[tuple[str, str], Any] = field(default_factory=dict)


@functools.cache
def storage() -> Kind:
    """Return the kind of storage plugins, whose names are URL schemes."""
    from ..storage.hookspecs import API_VERSIONS, GROUP, StoragePlugin

    return Kind(
        GROUP, "llmbridge_storage", StoragePlugin, "schemes", API_VERSIONS, "{}://", UnknownStorageError, _FIRST_PARTY
    )


@functools.cache
def providers() -> Kind:
    """Return the kind of provider plugins, whose names are prefixes of model strings."""
    from ..providers.hookspecs import API_VERSIONS, GROUP, ProviderPlugin

    return Kind(GROUP, "llmbridge_provider", ProviderPlugin, "prefixes", API_VERSIONS, "{}:", ProviderNotFoundError, {})


def claims(kind: Kind, *, fresh: bool = False) -> dict[str, tuple[Claim, ...]]:
    """Return the claims of each name. With `fresh`, read the installed distributions again."""
    if fresh:
        importlib.invalidate_caches()
        _scan.cache_clear()
    return _scan(kind.group, tuple(sys.path))


def choose(kind: Kind, name: str, plugin: str | None) -> Claim:
    """Return the claim of `name` to use.

    :param plugin: the distribution to use if several provide the name
    :raises AmbiguousPluginError: several distributions provide the name
    :raises UnknownStorageError: none does (for providers: ProviderNotFoundError)
    """
    name = name.lower()
    installed = _offers(kind, name, plugin, claims(kind)) or _offers(kind, name, plugin, claims(kind, fresh=True))
    usable = [claim for claim in installed if switched_off(claim) is None]
    if len(usable) == 1:
        return usable[0]
    what = kind.written.format(name)
    if usable:
        offering = " and ".join(f"{claim.distribution} {claim.version}" for claim in usable)
        raise AmbiguousPluginError(
            f'{what} is provided by {offering}: choose with plugin="{usable[0].distribution}", uninstall one, '
            f"or name one in {DENY_VARIABLE}"
        )
    if installed:
        reasons = "; ".join(f"{claim.distribution} {switched_off(claim)}" for claim in installed)
        raise kind.not_found(f"the plugin for {what} is switched off: {reasons}")
    if others := claims(kind).get(name):
        offered = ", ".join(claim.distribution for claim in others)
        raise kind.not_found(f"plugin={plugin!r} does not provide {what}; installed plugins that do: {offered}")
    raise kind.not_found(_unknown(kind, name))


def switched_off(claim: Claim) -> str | None:
    """Return why the environment variables switch off the claim's distribution; None if they do not."""
    denied, allowed = _listed(DENY_VARIABLE), _listed(ALLOW_VARIABLE)
    if denied is not None and claim.key in denied:
        return f"is named in {DENY_VARIABLE}"
    if allowed is not None and claim.key not in allowed and claim.key != CORE:
        return f"is not named in {ALLOW_VARIABLE}"
    return None


def usable_names(kind: Kind) -> set[str]:
    """Return the names that installed and allowed distributions provide."""
    return {name for name, offers in claims(kind).items() if any(switched_off(claim) is None for claim in offers)}


def load(kind: Kind, claim: Claim) -> Any:
    """Return the validated descriptor of the claim's module; import and register the module at its first use.

    :raises PluginError: the plugin cannot be used. A later call tries again. Other plugins are not affected.
    """
    if not re.fullmatch(r"\w+(\.\w+)*", claim.value):
        raise InvalidPluginError(f"{claim}: the entry point must name a module, such as {claim.name} = my_package")
    try:
        module = importlib.import_module(claim.value)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(f"{claim} cannot be imported: {type(error).__name__}: {error}") from error

    with _lock:
        registry = _registry()
        _register(registry, claim, module)
        if (claim.value, kind.hook) not in registry.described:
            registry.described[claim.value, kind.hook] = _describe(kind, claim, module, registry.manager)
        found = registry.described[claim.value, kind.hook]
    names = getattr(found, kind.names)
    if claim.name not in {name.lower() for name in names}:
        raise InvalidPluginError(f"{claim}: the plugin's descriptor lists other names: {', '.join(names) or 'none'}")
    return found


def discard(value: object) -> None:
    """Close a coroutine that was returned by mistake instead of an object, so that Python does not warn about it."""
    if inspect.iscoroutine(value):
        value.close()


def normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@functools.lru_cache(maxsize=8)
def _scan(group: str, path: tuple[str, ...]) -> dict[str, tuple[Claim, ...]]:
    from importlib.metadata import distributions

    found: dict[tuple[str, str], Claim] = {}
    for distribution in distributions(path=list(path)):
        for claim in _read(distribution, group):
            # A distribution can be found twice, as an editable install and as its source tree: the first one counts.
            found.setdefault((claim.name, claim.key), claim)
    by_name: dict[str, tuple[Claim, ...]] = {}
    for (name, _), claim in sorted(found.items()):
        by_name[name] = (*by_name.get(name, ()), claim)
    return by_name


def _read(distribution: Distribution, group: str) -> list[Claim]:
    try:
        if group not in (distribution.read_text("entry_points.txt") or ""):
            return []
        name, version = distribution.metadata["Name"], distribution.version
        return [
            Claim(point.name.lower(), name, version, point.value)
            for point in distribution.entry_points
            if point.group == group
        ]
    except Exception as error:  # damaged metadata of one distribution must not hide the others
        logger.warning(
            "the metadata of a distribution cannot be read; its plugins are ignored: %s: %s",
            type(error).__name__,
            error,
        )
        return []


def _offers(kind: Kind, name: str, plugin: str | None, known: Mapping[str, tuple[Claim, ...]]) -> list[Claim]:
    return [claim for claim in known.get(name, ()) if plugin is None or claim.key == normalized(plugin)]


def _unknown(kind: Kind, name: str) -> str:
    installed, ours = usable_names(kind), kind.first_party
    listed = ", ".join(sorted(installed)) or "none"
    text = f"no installed plugin provides {kind.written.format(name)}; installed: {listed}."
    close = [name] if name in ours else difflib.get_close_matches(name, {*installed, *ours}, n=1)
    for match in close:
        if match != name:
            text += f" Did you mean {kind.written.format(match)}?"
        if match not in installed and match in ours:
            text += f" To install it, run:\npip install {ours[match]}"
    return text


def _listed(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {normalized(name.strip()) for name in value.split(",") if name.strip()}


@functools.cache
def _registry() -> _Registry:
    import pluggy

    from ..providers import hookspecs as provider_hooks
    from ..storage import hookspecs as storage_hooks

    manager = pluggy.PluginManager("llmbridge")
    manager.add_hookspecs(storage_hooks)
    manager.add_hookspecs(provider_hooks)
    return _Registry(manager)


def _register(registry: _Registry, claim: Claim, module: ModuleType) -> None:
    import pluggy

    manager = registry.manager
    registered = manager.get_plugin(claim.value)
    if registered is module:
        return
    if registered is not None:
        manager.unregister(registered)
        registry.described = {key: found for key, found in registry.described.items() if key[0] != claim.value}
    try:
        manager.register(module, name=claim.value)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        manager.unregister(name=claim.value)
        raise InvalidPluginError(f"{claim}: {error}") from error


def _describe(kind: Kind, claim: Claim, module: ModuleType, manager: pluggy.PluginManager) -> Any:
    if not any(caller.name == kind.hook for caller in manager.get_hookcallers(module) or ()):
        raise InvalidPluginError(f"{claim}: the module has no {kind.hook}() marked with @hookimpl")
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    try:
        found: Any = manager.subset_hook_caller(kind.hook, remove_plugins=others)()
    except (Exception, SystemExit) as error:
        raise PluginLoadError(f"{claim}: {kind.hook}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind.descriptor):
        discard(found)
        wanted = kind.descriptor.__name__
        raise InvalidPluginError(f"{claim}: {kind.hook}() returned {type(found).__name__}, not a {wanted}")
    _check(kind, claim, found)
    return found


def _check(kind: Kind, claim: Claim, found: Any) -> None:
    _check_version(kind, claim, found.api_version)
    _check_fields(kind, claim, found)


def _check_version(kind: Kind, claim: Claim, version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise InvalidPluginError(f"{claim}: api_version must be a whole number")
    if version not in kind.api_versions:
        accepted = ", ".join(map(str, sorted(kind.api_versions)))
        advice = "upgrade the plugin" if version < min(kind.api_versions) else f"upgrade {CORE}"
        raise IncompatiblePluginError(
            f"{claim} was built against API version {version}, and this {CORE} accepts {accepted}: {advice}"
        )


def _check_fields(kind: Kind, claim: Claim, found: Any) -> None:
    from ..providers.base import ProviderVariables
    from ..storage.hookspecs import CAPABILITIES

    names, options = getattr(found, kind.names), found.options
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise InvalidPluginError(f"{claim}: {kind.names} must be a tuple of texts")
    if not isinstance(options, Mapping) or not all(
        isinstance(name, str) and isinstance(of, type) for name, of in options.items()
    ):
        raise InvalidPluginError(f"{claim}: options must map names to types")
    identity: object = getattr(found, "identity", ())
    if not isinstance(identity, tuple) or not all(name in options for name in identity):
        raise InvalidPluginError(f"{claim}: identity must be a tuple of names of its options")
    variables: object = getattr(found, "variables", {})
    if not isinstance(variables, Mapping) or not all(isinstance(of, ProviderVariables) for of in variables.values()):
        raise InvalidPluginError(f"{claim}: variables must map prefixes to ProviderVariables")
    if not callable(found.create):
        raise InvalidPluginError(f"{claim}: create must be a function")
    capabilities: object = getattr(found, "capabilities", frozenset())
    if not isinstance(capabilities, frozenset | set):
        raise InvalidPluginError(f"{claim}: capabilities must be a frozenset")
    if unknown := capabilities - CAPABILITIES:
        raise InvalidPluginError(
            f"{claim}: unknown capabilities {', '.join(sorted(map(str, unknown)))}; known: "
            f"{', '.join(sorted(CAPABILITIES))}"
        )
