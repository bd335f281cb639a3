"""Registry of the providers that a bridge can call, registered or installed, and of their models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from .._models import catalog
from .._records.validation import check_labels, check_name
from ..errors import LLMBridgeError, ProviderTimeoutError
from ..plugins import create_provider, provider_names
from ..providers.base import BaseLLMProvider
from ..providers.routing import resolve
from .call import Target

#: Most model strings in the cache of targets; resolving one takes as long as a good part of a call.
_MAX_TARGETS = 1_000

logger = logging.getLogger("llmbridge.calls")


class ProviderRegistry:
    """Providers by name, which is the part of a model string before the colon. Each is created once."""

    def __init__(self) -> None:
        self._providers: dict[str, BaseLLMProvider] = {}
        self._priced_as: dict[str, str] = {}
        self._price_contexts: dict[str, dict[str, str]] = {}
        self._replaced: list[BaseLLMProvider] = []
        self._targets: dict[str, Target] = {}
        self._discovered: dict[str, list[str]] = {}

    def register(
        self,
        name: str,
        provider: BaseLLMProvider | None,
        *,
        kind: str | None,
        priced_as: str | None,
        price_context: Mapping[str, str] | None,
        options: dict[str, Any],
    ) -> None:
        """Register a provider for models called `name:…`: the given object, or one that is created from options."""
        check_name("provider", name)
        if ":" in name:
            raise ValueError(f"{name!r} is not a valid name of a provider: it must not contain a colon")
        if provider is not None and (kind is not None or options):
            raise TypeError("register_provider() takes a provider, or kind and options to create one, not both")
        context = check_labels("price_context", dict(price_context or {}))
        made = provider if provider is not None else create_provider(kind or name, **options)
        if name in self._providers:
            self._replaced.append(self._providers[name])
        made.name = name
        self._providers[name] = made
        self._priced_as[name] = priced_as or kind or name
        self._price_contexts[name] = context
        self._discovered.pop(name, None)
        self._targets.clear()

    def provider(self, name: str) -> BaseLLMProvider:
        """Return the provider of that name; create it at first use."""
        if name not in self._providers:
            self._providers[name] = create_provider(name)
        return self._providers[name]

    def resolve(self, requested: str | None) -> tuple[str, str]:
        """Return the provider's name of a model string, and the name that the provider knows the model by."""
        return resolve(requested, self._names())

    def target(self, requested: str | None) -> Target:
        """Return the target of a model string. Its names are checked, so that the call can be recorded."""
        known = self._targets.get(requested or "")
        if known is not None:
            return known
        name, model = self.resolve(requested)
        provider = self.provider(name)
        context = self._price_contexts.get(name, {})
        target = Target(check_name("provider", name), provider, check_name("model", model), requested or "", context)
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        self._targets[target.requested] = target
        return target

    def priced_as(self, name: str) -> str | None:
        """Return the provider whose price list applies to the calls of provider `name`; None: its own."""
        return self._priced_as.get(name)

    def models(self) -> dict[str, list[str]]:
        """Return the names of models by provider: those that the provider listed, else those of the catalog.

        A provider without known models is omitted.
        """
        bundled: dict[str, list[str]] = {name: [] for name in sorted(self._names())}
        for model in catalog.models():
            bundled.get(model.provider, []).append(model.model_name)
        discovered = {name: list(models) for name, models in self._discovered.items()}
        return {name: models for name, models in {**bundled, **discovered}.items() if models}

    def model_info(self, requested: str) -> dict[str, Any]:
        """Return what is known about the model of a model string. See `LLMBridge.get_model_info`."""
        name, model = self.resolve(requested)
        kind = self._priced_as.get(name, name)
        known = [entry for entry in catalog.models() if (entry.provider, entry.model_name) == (kind, model)]
        discovered = self._discovered.get(name)
        supported = discovered is None or model in discovered
        return {**(known[0].model_dump() if known else {}), "provider": name, "model": model, "supported": supported}

    async def discover(self, name: str, timeout: float) -> None:
        """Ask a provider which models it has; wait at most `timeout` seconds.

        :raises ProviderError: it did not answer, or failed
        """
        provider = self.provider(name)
        try:
            async with asyncio.timeout(timeout):
                await provider.prepare()
                models = await provider.list_models()
        except TimeoutError as error:
            raise ProviderTimeoutError(f"{name} did not list its models within {timeout:g} s", provider=name) from error
        if models is not None:
            self._discovered[name] = sorted(models)

    async def discover_all(self, timeout: float) -> None:
        """Ask every provider which models it has. If one fails, its known models stay."""
        names = sorted(self._names())
        requests = (self.discover(name, timeout) for name in names)
        for name, outcome in zip(names, await asyncio.gather(*requests, return_exceptions=True), strict=True):
            if isinstance(outcome, LLMBridgeError):
                logger.debug("%s did not list its models: %s", name, type(outcome).__name__)
            elif outcome is not None:
                raise outcome

    def providers(self) -> list[BaseLLMProvider]:
        """Return every provider object, including replaced ones."""
        return [*self._providers.values(), *self._replaced]

    def drop_replaced(self) -> None:
        """Remove replaced providers after they were closed."""
        self._replaced.clear()

    def _names(self) -> set[str]:
        return provider_names() | self._providers.keys()
