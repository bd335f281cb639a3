"""The table of providers: each row agrees with the packaging, the price list and what the SDK reads."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest
from google.auth.exceptions import DefaultCredentialsError

from llmbridge.errors import AuthenticationError
from llmbridge.providers import GROUP
from llmbridge.providers.pydantic_ai import plugin, sdk
from llmbridge.providers.pydantic_ai.endpoint import find_endpoint
from llmbridge.providers.pydantic_ai.table import PROVIDERS
from llmbridge.providers.routing import EXTRAS

#: Variables with such a name that SDKs read, and that neither go into a request nor change its address.
UNUSED = {
    "ANTHROPIC_WEBHOOK_SIGNING_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "GCE_METADATA_HOST",
    "GOOGLE_API_USE_MTLS_ENDPOINT",
    "OPENAI_ADMIN_KEY",
    "WEBSOCKETS_MAX_NUM_HEADERS",
}

#: Providers whose SDK the tests do not install.
WITHOUT_SDK = ("bedrock", "cohere", "huggingface", "mistral", "xai")

SECRET_OR_ADDRESS = re.compile(r"(KEY|TOKEN|URL|ENDPOINT|HOST|HEADERS|CREDENTIALS)$")


class RecordedEnvironment(dict[str, str]):
    """Environment variables, and the names of those that were read."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)


def environments(kind: str) -> Iterator[dict[str, str]]:
    """All variables of a provider set, then all but its first key."""
    variables = PROVIDERS[kind].variables
    values = dict.fromkeys(variables.names, "x") | dict.fromkeys(variables.addresses, "http://127.0.0.1:9")
    yield values
    yield {name: value for name, value in values.items() if name not in variables.keys[:1]}


@pytest.mark.parametrize("kind", [kind for kind in PROVIDERS if kind not in WITHOUT_SDK])
def test_a_row_has_the_variables_that_the_sdk_reads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, outside, read = PROVIDERS[kind], dict(os.environ), set[str]()
    for values in environments(kind):
        environment = RecordedEnvironment({**outside, **values})
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", environment)
            address = "http://127.0.0.1:9" if row.needs_address else None
            with contextlib.suppress(AuthenticationError, DefaultCredentialsError):
                sdk.open_client(find_endpoint(kind, kind, base_url=address))
        read |= environment.read
    foreign = {*PROVIDERS["openai"].variables.names, *UNUSED} - {*row.variables.names}
    assert {name for name in read if SECRET_OR_ADDRESS.search(name)} - foreign <= {*row.variables.names}
    assert {*row.variables.names} <= read


def test_every_prefix_has_its_entry_point() -> None:
    claimed = {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.dist.name == "llmbridge-core"}
    described = dict.fromkeys(plugin.llmbridge_provider().prefixes, plugin.__name__)
    assert claimed == {**described, "echo": "llmbridge.providers.echo"}


def test_every_requirement_exists() -> None:
    extras = {
        distribution: set(metadata(distribution).get_all("Provides-Extra") or ())
        for distribution in ("llmbridge-core", "pydantic-ai-slim")
    }
    for row in PROVIDERS.values():
        distribution, extra = row.requirement.removesuffix("]").split("[")
        assert extra in extras[distribution]


def test_the_providers_with_an_extra_of_their_own_are_proposed() -> None:
    assert EXTRAS == ("openai", "anthropic", "google", "ollama")


def test_the_plugin_describes_the_variables_of_every_prefix() -> None:
    described = plugin.llmbridge_provider()
    assert described.variables.keys() == set(described.prefixes)


@pytest.mark.parametrize("kind", list(PROVIDERS))
def test_the_documentation_names_the_variables_of_every_provider(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "calling.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith(f"| `{kind}:` |")]
    row = PROVIDERS[kind]
    missing = {name for name in (*row.variables.keys, *row.variables.addresses) if f"`{name}`" not in line}
    assert not missing
    assert row.requirement in line or row.requirement == f"llmbridge-core[{kind}]"
