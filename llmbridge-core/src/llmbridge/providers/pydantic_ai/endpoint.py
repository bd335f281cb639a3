"""Where a vendor's server is, and what it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

#: Sent where a server of one's own asks for no key.
NO_KEY = "no-key"


@dataclass(frozen=True, slots=True)
class Access:
    """How one vendor is reached.

    `kind` is the vendor whose protocol the server speaks. `api_key` None: we know of none; `has_key` says whether one
    goes with the requests all the same. `base_url` None is the vendor's own address. `from_environment` False keeps
    back what the environment holds for the vendor. `http_client` is the caller's own, which we do not close (None: one
    is made).
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
        """The key, or a placeholder where there is none: clients insist on one."""
        return self.api_key or NO_KEY

    @property
    def login(self) -> tuple[str, str] | None:
        """The name and the password in the address, for a client of ours; None: there are none in it, or the client is
        the caller's, which takes them from there."""
        login, found, _ = urlsplit(self.base_url or "").netloc.rpartition("@")
        if not found or self.http_client is not None:
            return None
        name, _, password = login.partition(":")
        return unquote(name), unquote(password)

    @property
    def address(self) -> str | None:
        """The address without the login, since clients log the addresses of their requests."""
        if self.base_url is None or self.login is None:
            return self.base_url
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def of_organization(self, organization: str | None) -> Access:
        """The same for one organization of the vendor's."""
        return replace(self, organization=organization)
