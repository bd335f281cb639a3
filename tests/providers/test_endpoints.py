"""The endpoint of every provider: keys and addresses, from the environment and from arguments."""

from __future__ import annotations

import logging
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai.providers import infer_provider_class

from llmbridge import LLMBridge
from llmbridge.errors import AuthenticationError, InvalidRequestError, ProviderNotFoundError
from llmbridge.plugins import create_provider
from llmbridge.providers.pydantic_ai.endpoint import find_endpoint
from llmbridge.providers.pydantic_ai.table import PROVIDERS as TABLE
from llmbridge.schemas import LLMRequest, Message

from ..support.fake_provider import FakeProvider, Reply
from .conftest import KEY, OWN, PROVIDERS, Provider

HI = LLMRequest(model="m", messages=[Message(role="user", content="hi")])


def every(providers: tuple[Provider, ...] = OWN) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("which", providers, ids=lambda one: one.name)


def key_in(server: FakeProvider, which: Provider) -> str:
    [request] = server.requests
    name = "x-goog-api-key" if which.name == "google" else "authorization"
    return request.headers[name].removeprefix("Bearer ")


async def call(name: str, **options: Any) -> None:
    provider = create_provider(name, **options)
    try:
        await provider.complete(HI, "any-model", timeout=20.0)
    finally:
        await provider.close()


async def test_credentials_that_a_library_does_not_find_are_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    with pytest.raises(AuthenticationError, match=r"google-cloud: .* no credentials") as caught:
        await call("google-cloud")
    assert (caught.value.provider, caught.value.__context__) == ("google-cloud", None)


@every(OWN)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_password_in_an_address_goes_to_its_server_and_into_no_log(
    server: FakeProvider, which: Provider, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    address = server.url if which.name == "openai" else server.origin
    address = address.replace("http://", "http://b%20ob:hunter2%40@")
    provider = create_provider(which.name, api_key=KEY, base_url=address)
    if streamed:
        [_ async for _ in provider.stream(HI, "any-model", timeout=20.0)]
    else:
        await provider.complete(HI, "any-model", timeout=20.0)
    await provider.close()
    [request] = server.requests
    assert request.headers["authorization"] == f"Basic {b64encode(b'b ob:hunter2@').decode()}"
    assert "hunter2" not in caplog.text


async def test_a_client_of_the_callers_own_gets_the_address_as_it_is(server: FakeProvider) -> None:
    async with httpx2.AsyncClient() as client:
        await call("openai", base_url=server.url.replace("http://", "http://bob:hunter2@"), http_client=client)
    [request] = server.requests
    assert request.headers["authorization"] == f"Basic {b64encode(b'bob:hunter2').decode()}"


async def test_what_is_meant_for_a_gateway_goes_to_the_gateway(server: FakeProvider) -> None:
    with pytest.raises(InvalidRequestError, match=r"litellm: .* base_url"):
        await call("litellm", api_key=KEY)
    await call("litellm", api_key=KEY, base_url=server.url)
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_no_other_provider_has_openais_address() -> None:
    for kind, row in TABLE.items():
        if row.protocol != "generic" or row.needs_address:
            continue
        try:
            found = infer_provider_class(kind)
        except ImportError:  # its packages are not here
            continue
        if row.requirement == "pydantic-ai-slim[openai]" and kind not in (
            "azure",
            "vllm",
        ):  # which raise without an address
            assert "api.openai.com" not in found(api_key=KEY).base_url


@every(OWN[1:])  # OpenAI's address always has it
@pytest.mark.parametrize("version", ["", "/v1", "/"])
async def test_the_address_may_have_the_version_or_not(server: FakeProvider, which: Provider, version: str) -> None:
    if which.name == "google":
        version = version.replace("/v1", "/v1beta")
    await call(which.name, api_key=KEY, base_url=server.origin + version)
    assert key_in(server, which) == KEY


@pytest.mark.parametrize(
    ("name", "variables", "expected"),
    [
        ("openai", {"OPENAI_API_KEY": "sk-1"}, "sk-1"),
        ("anthropic", {"ANTHROPIC_API_KEY": "sk-1"}, "sk-1"),
        ("google", {"GOOGLE_API_KEY": "sk-1", "GEMINI_API_KEY": "sk-2"}, "sk-1"),
        ("google", {"GEMINI_API_KEY": "sk-2"}, "sk-2"),
        ("ollama", {"OLLAMA_API_KEY": "sk-1"}, "sk-1"),
        ("ollama", {}, "no-key"),
    ],
)
async def test_the_environments_key_goes_to_the_environments_address(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch, name: str, variables: dict[str, str], expected: str
) -> None:
    [which] = [known for known in OWN if known.name == name]
    address = {"google": "GOOGLE_GEMINI_BASE_URL"}.get(name, f"{name.upper()}_BASE_URL")
    monkeypatch.setenv(address, server.origin + which.suffix)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    await call(name)
    assert key_in(server, which) == expected


@every((*OWN, *PROVIDERS[4:]))
async def test_nothing_of_the_environment_goes_to_an_address_given_by_hand(
    server: FakeProvider, which: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prefix in ("OPENAI", "ANTHROPIC", "GOOGLE", "GEMINI", "OLLAMA", "GROQ", "VLLM"):
        monkeypatch.setenv(f"{prefix}_API_KEY", "canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer canary\nX-Team: canary")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: canary")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "canary")
    monkeypatch.setenv("OPENAI_ORG_ID", "canary")
    await call(which.name, base_url=server.origin + which.suffix)
    assert key_in(server, which) == "no-key"
    assert "canary" not in repr(server.requests)


@pytest.mark.parametrize("variable", ["GROQ_CUSTOM_HEADERS", "OPENAI_CUSTOM_HEADERS"])
async def test_headers_of_the_environment_go_to_no_address_given_by_hand(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "X-Team: mine")
    await call("groq", api_key=KEY, base_url=server.origin)
    [request] = server.requests
    assert "x-team" not in request.headers


#: Each provider with each variable that may hold its address.
ADDRESSABLE = [(kind, variable) for kind, row in TABLE.items() for variable in row.variables.addresses]


@pytest.mark.parametrize(("kind", "variable"), ADDRESSABLE)
async def test_a_key_given_by_hand_goes_to_no_address_of_the_environment(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str
) -> None:
    monkeypatch.setenv(variable, server.url)
    with pytest.raises(InvalidRequestError, match=f"{kind}: .* {variable}; pass base_url= as well"):
        find_endpoint(kind, kind, api_key=KEY)
    with pytest.raises((InvalidRequestError, ProviderNotFoundError)):  # whose SDK is not installed is not found
        await call(kind, api_key=KEY)
    assert server.requests == []


async def test_the_environments_own_key_may_be_passed_beside_its_address(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    await call("openai", api_key=KEY)
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("google", "GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("groq", "GROQ_API_KEY"),
        ("deepseek", "DEEPSEEK_API_KEY"),
    ],
)
async def test_a_missing_key_is_named(name: str, variable: str) -> None:
    with pytest.raises(AuthenticationError, match=variable) as caught:
        await call(name)
    assert caught.value.provider == name


@every()
@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://"])
async def test_an_address_that_is_none_is_refused(which: Provider, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="base_url"):
        await call(which.name, api_key=KEY, base_url=url)


@every((*OWN, PROVIDERS[5]))
async def test_a_client_of_ones_own_is_used_and_not_closed(server: FakeProvider, which: Provider) -> None:
    async with httpx2.AsyncClient(headers={"x-mine": "yes"}, timeout=30.0) as client:
        for _ in range(2):
            await call(which.name, api_key=KEY, base_url=server.origin + which.suffix, http_client=client)
        assert not client.is_closed
        assert client.event_hooks["response"] == []
    assert [request.headers["x-mine"] for request in server.requests] == ["yes", "yes"]


@every(PROVIDERS)
async def test_a_redirect_is_not_followed(server: FakeProvider, which: Provider) -> None:
    server.reply = Reply(307, b"", {"Location": f"{server.origin}/elsewhere"})
    with pytest.raises(Exception, match=r"redirect|broke|answered"):
        await call(which.name, api_key=KEY, base_url=server.origin + which.suffix)
    assert len(server.requests) == 1


@every()
async def test_every_kind_can_be_registered_under_another_name(server: FakeProvider, which: Provider) -> None:
    bridge = LLMBridge(max_retries=0)
    bridge.register_provider("acme", kind=which.name, api_key=KEY, base_url=server.origin + which.suffix)
    request = LLMRequest(model="acme:some-model", messages=HI.messages)
    assert (await bridge.chat(request)).provider == "acme"
    with pytest.raises(AuthenticationError, match="acme refused") as caught:
        await bridge.chat(request.model_copy(update={"model": "acme:some-model--auth"}))
    assert caught.value.provider == "acme"
    await bridge.close()


def test_only_openai_knows_organizations() -> None:
    with pytest.raises(InvalidRequestError, match="organization"):
        create_provider("anthropic", organization="org-1")


async def test_an_option_that_a_provider_does_not_have_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="deepseek takes no base_url"):
        await call("deepseek", api_key=KEY, base_url="http://127.0.0.1:9")


@every()
@pytest.mark.parametrize("end", ["?subscription=KEY", "/v1?key=KEY&x=1", "#KEY"])
async def test_an_address_with_a_query_is_refused_without_showing_it(which: Provider, end: str) -> None:
    with pytest.raises(InvalidRequestError, match="query or a fragment") as refused:
        await call(which.name, api_key="key", base_url=f"http://127.0.0.1:9{end}")
    assert "KEY" not in str(refused.value)
