"""The endpoint of one provider: its address, and the key that belongs to that address."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import AuthenticationError, InvalidRequestError
from ..base import is_server_address
from .table import PROVIDERS

#: The key that is sent to a server that needs none: SDKs insist on a key.
NO_KEY = "no-key"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a provider's server, and what is sent to it besides the request.

    `kind` is the row of the table of providers. `api_key` None: the SDK looks for one. `has_key` tells whether a key is
    sent. `base_url` None is the provider's own address. `from_environment` is False if the address was passed: nothing
    of the environment may be sent to it. `http_client` is the caller's own and is not closed (None: one is made).
    """

    kind: str
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=False)
    has_key: bool = True
    from_environment: bool = True
    organization: str | None = None
    http_client: Any = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Return the key, or a placeholder if there is none."""
        return self.api_key or NO_KEY

    @property
    def login(self) -> tuple[str, str] | None:
        """Return the user name and password in the address; None if it has none, or if the caller's own client is used,
        which reads them itself."""
        login, found, _ = urlsplit(self.base_url or "").netloc.rpartition("@")
        if not found or self.http_client is not None:
            return None
        name, _, password = login.partition(":")
        return unquote(name), unquote(password)

    @property
    def address(self) -> str | None:
        """Return the address without the login, since SDKs log the addresses of their requests."""
        if self.base_url is None or self.login is None:
            return self.base_url
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def find_endpoint(
    name: str,
    kind: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    organization: str | None = None,
    http_client: object | None = None,
) -> Endpoint:
    """Return the endpoint of a provider of this `kind` that is registered as `name`.

    What is not passed is read from the environment, by this rule: a key is only sent to an address from the same place.
    If `base_url` is passed, nothing is read. If `api_key` is passed, the environment must have no address of this
    provider, unless the key is the environment's own.

    :raises AuthenticationError: there is no key, or it has characters that no key has
    :raises InvalidRequestError: an address is invalid or missing, or does not come from the same place as the key
    """
    row = PROVIDERS[kind]
    key = _valid_key(name, api_key, "api_key=")
    address = _valid_address(name, base_url, "base_url")
    if address is not None:
        return Endpoint(kind, key, address, key is not None, False, organization, http_client)
    if row.needs_address:
        raise InvalidRequestError(f"{name}: has no address of its own; pass base_url=", provider=name)
    variable = _first_set(row.variables.addresses)
    if key is not None and variable is not None and key not in map(_value, row.variables.keys):
        raise InvalidRequestError(
            f"{name}: api_key= was passed, but the address comes from {variable}; pass base_url= as well, since a key "
            "is only sent to an address from the same place",
            provider=name,
        )
    if row.protocol == "generic":  # pydantic-ai reads the environment itself
        return Endpoint(kind, key, organization=organization, http_client=http_client)
    if key is None and (key_variable := _first_set(row.variables.keys)) is not None:
        key = _valid_key(name, _value(key_variable), key_variable)
    address = row.address if variable is None else _valid_address(name, _value(variable), variable)
    if key is None and address is None:
        raise AuthenticationError(
            f"{name}: no key; set {' or '.join(row.variables.keys)}, or pass api_key=", provider=name
        )
    return Endpoint(kind, key, address, key is not None, True, organization, http_client)


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next(filter(_value, variables), None)


def _valid_key(name: str, text: str | None, source: str) -> str | None:
    key = (text or "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise AuthenticationError(f"{name}: {source} has characters that no key has", provider=name)
    return key or None


def _valid_address(name: str, text: str | None, source: str) -> str | None:
    address = (text or "").strip().rstrip("/")
    if address and not is_server_address(address):
        raise InvalidRequestError(f"{name}: {source} must be like http://localhost:8000/v1", provider=name)
    if urlsplit(address).query or urlsplit(address).fragment:
        raise InvalidRequestError(
            f"{name}: {source} has a query or a fragment, which clients log with every request; pass a key with "
            "api_key=, and other parameters with your own http_client=",
            provider=name,
        )
    return address or None
