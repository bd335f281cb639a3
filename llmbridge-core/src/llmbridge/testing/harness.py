"""Fixtures of the kit, and a wrapper that checks every exception of a backend."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pytest
import pytest_asyncio

from ..errors import LLMBridgeError, UnsupportedOperationError
from ..plugins import create_backend, storage_plugins
from ..storage.base import SQLAccess, StorageBackend
from ..storage.types import CostChange
from ..storage.url import parse
from .records import EPOCH, make_call, make_totals

#: Arguments with which `needs` calls the methods of a capability that the plugin does not declare.
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "purge_calls": (EPOCH,),
    "reprice_calls": ([CostChange(make_call().id, None, None, "missing_rate", None, EPOCH)],),
    "read_totals": (),
    "write_totals": (make_totals([make_call()]), EPOCH),
    "erase_user": ("kit", "user-1"),
    "compact": (),
}

_CONTRACT_METHODS = frozenset(
    name
    for contract in (StorageBackend, SQLAccess)
    for name, member in vars(contract).items()
    if inspect.iscoroutinefunction(member)
)


class Watch:
    """Wrapper of a backend that fails a test if an exception of a driver or a password leaves a method.

    Core's errors, a plain ValueError and a cancellation pass through.
    """

    def __init__(self, watched: StorageBackend, secrets: frozenset[str]) -> None:
        self.watched = watched
        self._secrets = secrets

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.watched, name)
        return self._watching(attribute, name) if name in _CONTRACT_METHODS else attribute

    async def __aenter__(self) -> Watch:
        await self._watching(self.watched.__aenter__, "__aenter__")()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._watching(self.watched.__aexit__, "__aexit__")(kind, error, traceback)

    def _watching(self, method: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def call(*args: Any, **options: Any) -> Any:
            try:
                return await method(*args, **options)
            except Exception as error:
                where = f"{type(self.watched).__name__}.{name}"
                if any(secret in text for secret in self._secrets for text in _texts(error)):
                    raise AssertionError(f"{where} shows the password in a {type(error).__name__}") from None
                if not isinstance(error, LLMBridgeError) and type(error) is not ValueError:
                    kind = f"{type(error).__module__}.{type(error).__qualname__}"
                    raise AssertionError(f"{where} raised {kind}, which is not an error of the contract") from error
                raise

        return call


class Store:
    """Store of one test, for which any number of backends can be created."""

    def __init__(self, url: str, make: Callable[[str], StorageBackend], capabilities: frozenset[str]) -> None:
        self.url = url
        self.capabilities = capabilities
        password = urlsplit(url).password or ""
        self.secrets = frozenset({password, unquote(password)} - {""})
        self._make = make

    def backend(self) -> StorageBackend:
        """Return a new backend of the store: wrapped, not connected."""
        return cast("StorageBackend", Watch(self._make(self.url), self.secrets))

    def at(self, url: str) -> Store:
        """Return another store of the same kind."""
        return Store(url, self._make, self.capabilities)

    @property
    def is_shared(self) -> bool:
        """Whether several backend objects share the store."""
        return not self.capabilities.isdisjoint({"persistent", "multiprocess"})


def _texts(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def bare(backend: StorageBackend) -> StorageBackend:
    """Return the backend without its wrapper."""
    return cast("Watch", backend).watched


def needs(capability: str, *methods: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Mark a test of a capability. If the plugin does not declare it, test instead that each of its `methods` raises
    UnsupportedOperationError."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        @functools.wraps(test)
        async def run(self: Any, store: Store, backend: StorageBackend, **fixtures: Any) -> None:
            if capability in store.capabilities:
                await test(self, store, backend, **fixtures)
                return
            for method in methods:
                with pytest.raises(UnsupportedOperationError):
                    await getattr(backend, method)(*_ARGUMENTS[method])

        return run

    return decorate


@functools.cache
def _declared(scheme: str) -> frozenset[str]:
    usable = [plugin for plugin in storage_plugins() if plugin.name == scheme and plugin.error is None]
    assert len(usable) == 1, f"{len(usable)} usable plugins provide {scheme}://; the kit needs exactly one"
    return frozenset(usable[0].capabilities)


async def spin(steps: int) -> None:
    """Let the event loop run `steps` steps."""
    for _ in range(steps):
        await asyncio.sleep(0)


class Harness:
    """Fixtures of the kit. Each test has its own event loop, in every mode of pytest-asyncio."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    @pytest.fixture
    def storage_url(self) -> str:
        """Return the URL of a new, empty store; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define the fixture storage_url (llmbridge.testing)")

    @pytest.fixture
    def other_storage_url(self) -> str | None:
        """Return the URL of another new, empty store; None: it is not proven that stores have different identities."""
        return None

    @pytest.fixture
    def storage_outage(self) -> AbstractContextManager[Any] | None:
        """Return a context manager that makes the store unreachable; None: outages are not proven."""
        return None

    def make_backend(self, url: str) -> StorageBackend:
        """Return a backend for the store. Override this to pass options."""
        backend = create_backend(url)
        assert backend is not None
        return backend

    def capabilities(self, url: str) -> frozenset[str]:
        """Return the capabilities that the plugin of the URL declares."""
        return _declared(parse(url)[0].scheme)

    @pytest.fixture
    def store(self, storage_url: str) -> Store:
        """Return the store of this test."""
        return Store(storage_url, self.make_backend, self.capabilities(storage_url))

    @pytest_asyncio.fixture(loop_scope="function")
    async def backend(self, store: Store) -> AsyncIterator[StorageBackend]:
        """Yield a backend of the store: connected and migrated."""
        async with store.backend() as backend:
            await backend.apply_migrations()
            yield backend
