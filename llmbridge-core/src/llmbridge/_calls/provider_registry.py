"""The vendors that a bridge can call, and their models: registered or installed, found by a model string."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from .._models import catalog
from .._records.validation import check_name
from ..errors import LLMBridgeError, ProviderTimeoutError
from ..plugins import create_provider, provider_names
from ..providers.base import BaseLLMProvider
from ..providers.routing import resolve
from .call import Target

#: Model strings whose vendor is remembered; finding it takes as long as a good part of a call.
_MOST_TARGETS = 1_000

logger = logging.getLogger("llmbridge.calls")


class ProviderRegistry:
    """Providers by the name that stands before the colon of a model string, each made once."""

    def __init__(self) -> None:
        self._providers: dict[str, BaseLLMProvider] = {}
        self._priced_as: dict[str, str] = {}
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
        options: dict[str, Any],
    ) -> None:
        """Serve models called `name:…` by a provider that is given, or that is made from options."""
        check_name("provider", name)
        if ":" in name:
            raise ValueError(f"{name!r} cannot stand before the colon of a model's name")
        if provider is not None and (kind is not None or options):
            raise TypeError("register_provider() takes a provider or the options to make one, not both")
        made = provider if provider is not None else create_provider(kind or name, **options)
        if name in self._providers:
            self._replaced.append(self._providers[name])
        made.name = name
        self._providers[name] = made
        self._priced_as[name] = priced_as or kind or name
        self._discovered.pop(name, None)
        self._targets.clear()

    def provider(self, name: str) -> BaseLLMProvider:
        """The provider of that name, made on first use."""
        if name not in self._providers:
            self._providers[name] = create_provider(name)
        return self._providers[name]

    def resolve(self, requested: str | None) -> tuple[str, str]:
        """The vendor that a model string leads to, and the name that it knows the model by."""
        return resolve(requested, self._vendors())

    def target(self, requested: str | None) -> Target:
        """What a model string leads to, checked so that it can be recorded."""
        known = self._targets.get(requested or "")
        if known is not None:
            return known
        vendor, model = self.resolve(requested)
        provider = self.provider(vendor)
        target = Target(check_name("provider", vendor), provider, check_name("model", model), requested or "")
        if len(self._targets) >= _MOST_TARGETS:
            self._targets.clear()
        self._targets[target.requested] = target
        return target

    def priced_as(self, vendor: str) -> str | None:
        """The vendor whose price list applies to the calls of another; None: its own."""
        return self._priced_as.get(vendor)

    def models(self) -> dict[str, list[str]]:
        """The names of models by vendor: as vendors listed them when they were asked, else as the catalog has them. A
        vendor of whose models nothing is known is left out."""
        named: dict[str, list[str]] = {vendor: [] for vendor in sorted(self._vendors())}
        for model in catalog.models():
            named.get(model.provider, []).append(model.model_name)
        told = {vendor: list(models) for vendor, models in self._discovered.items()}
        return {vendor: models for vendor, models in {**named, **told}.items() if models}

    def model_info(self, requested: str) -> dict[str, Any]:
        """What is known of the model that a model string leads to."""
        vendor, name = self.resolve(requested)
        kind = self._priced_as.get(vendor, vendor)
        known = [entry for entry in catalog.models() if (entry.provider, entry.model_name) == (kind, name)]
        discovered = self._discovered.get(vendor)
        supported = discovered is None or name in discovered
        return {**(known[0].model_dump() if known else {}), "provider": vendor, "model": name, "supported": supported}

    async def discover(self, vendor: str, timeout: float) -> None:
        """Ask a vendor which models it has, for at most `timeout` seconds."""
        provider = self.provider(vendor)
        try:
            async with asyncio.timeout(timeout):
                await provider.prepare()
                models = await provider.list_models()
        except TimeoutError as error:
            raise ProviderTimeoutError(
                f"{vendor} did not list its models within {timeout:g} s", provider=vendor
            ) from error
        if models is not None:
            self._discovered[vendor] = sorted(models)

    async def discover_all(self, timeout: float) -> None:
        """Ask every vendor which models it has; one that fails keeps what is known of it."""
        asked = sorted(self._vendors())
        asking = (self.discover(vendor, timeout) for vendor in asked)
        for vendor, outcome in zip(asked, await asyncio.gather(*asking, return_exceptions=True), strict=True):
            if isinstance(outcome, LLMBridgeError):
                logger.debug("%s did not list its models: %s", vendor, type(outcome).__name__)
            elif outcome is not None:
                raise outcome

    def providers(self) -> list[BaseLLMProvider]:
        """Every provider that was made, those that were replaced too."""
        return [*self._providers.values(), *self._replaced]

    def forget_replaced(self) -> None:
        """Let go of providers that were replaced; they are closed."""
        self._replaced.clear()

    def _vendors(self) -> set[str]:
        return provider_names() | self._providers.keys()
