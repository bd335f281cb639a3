"""Finding the provider of a model string."""

from __future__ import annotations

import pytest

from llmbridge.errors import ModelNotFoundError, ProviderNotFoundError
from llmbridge.providers.routing import resolve

KNOWN = ("openai", "anthropic", "google", "ollama", "echo", "acme")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai:gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("OpenAI:gpt-4o", ("openai", "gpt-4o")),
        ("  openai:gpt-4o ", ("openai", "gpt-4o")),
        ("openai:ft:gpt-4o:org::id", ("openai", "ft:gpt-4o:org::id")),
        ("acme:anything:at:all", ("acme", "anything:at:all")),
        ("echo:hello", ("echo", "hello")),
        ("ollama:llama3.2:latest", ("ollama", "llama3.2:latest")),
        ("gpt-4o", ("openai", "gpt-4o")),
        ("gpt-4.1-mini-2025-04-14", ("openai", "gpt-4.1-mini-2025-04-14")),
        ("chatgpt-4o-latest", ("openai", "chatgpt-4o-latest")),
        ("o1", ("openai", "o1")),
        ("o3", ("openai", "o3")),
        ("o4-mini", ("openai", "o4-mini")),
        ("text-embedding-3-small", ("openai", "text-embedding-3-small")),
        ("ft:gpt-4o-mini:org::id", ("openai", "ft:gpt-4o-mini:org::id")),
        ("claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("gemini-2.0-flash", ("google", "gemini-2.0-flash")),
        ("models/gemini-2.0-flash", ("google", "gemini-2.0-flash")),
        ("llama3.2:latest", ("ollama", "llama3.2:latest")),
        ("llama3.2", ("ollama", "llama3.2")),
        ("qwen2.5:7b", ("ollama", "qwen2.5:7b")),
        ("mistral:7b", ("ollama", "mistral:7b")),
        ("mistral:7b-instruct-q4_0", ("ollama", "mistral:7b-instruct-q4_0")),
        ("mixtral:8x7b", ("ollama", "mixtral:8x7b")),
        ("deepseek-r1:1.5b", ("ollama", "deepseek-r1:1.5b")),
        ("gemma3:27b", ("ollama", "gemma3:27b")),
        ("gemma3n:e4b", ("ollama", "gemma3n:e4b")),
        ("gpt-oss:120b-cloud", ("ollama", "gpt-oss:120b-cloud")),
        ("somebody/some-model:135m", ("ollama", "somebody/some-model:135m")),
        (
            "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
            ("ollama", "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"),
        ),
    ],
)
def test_finds_the_provider_and_its_name_for_the_model(model: str, expected: tuple[str, str]) -> None:
    assert resolve(model, KNOWN) == expected


def test_a_registered_name_wins_over_a_name_from_ollama() -> None:
    assert resolve("phi3:7b", ("phi3", "ollama")) == ("phi3", "7b")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mistral:7b", ("ollama", "mistral:7b")),
        ("mistral:latest", ("ollama", "mistral:latest")),
        ("mistral:mistral-large-latest", ("mistral", "mistral-large-latest")),
        ("mistral:ministral-8b-2410", ("mistral", "ministral-8b-2410")),
    ],
)
def test_mistral_is_a_provider_and_a_model_of_ollama(model: str, expected: tuple[str, str]) -> None:
    assert resolve(model, ("mistral", "ollama")) == expected


def test_mistral_alone_is_the_provider() -> None:
    assert resolve("mistral:7b", ("mistral",)) == ("mistral", "7b")


def test_a_registered_name_may_have_capitals() -> None:
    assert resolve("Acme:m", ("Acme",)) == ("Acme", "m")


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("openai:gpt-4o", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("anthropic:claude-sonnet-4-5", "anthropic"),
        ("models/gemini-2.0-flash", "google"),
        ("llama3.2:latest", "ollama"),
    ],
)
def test_says_how_to_install_the_provider_that_a_model_needs(model: str, provider: str) -> None:
    with pytest.raises(ProviderNotFoundError) as caught:
        resolve(model, ("echo",))
    assert f'pip install "llmbridge-core[{provider}]"' in str(caught.value)


def test_a_misspelled_prefix_gets_the_close_match_and_what_is_installed() -> None:
    with pytest.raises(ProviderNotFoundError) as caught:
        resolve("opnai:gpt-4o", ("echo", "openai"))
    assert str(caught.value).endswith("; installed: echo, openai; did you mean openai?")


def test_never_proposes_to_install_a_name_that_was_typed() -> None:
    with pytest.raises(ProviderNotFoundError) as caught:
        resolve("evil-package:model", ("echo",))
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize("model", ["some-model", "echo", "mistral-large-latest", "olive", "o", "o3x"])
def test_a_name_that_tells_no_provider_asks_for_a_prefix(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match="write provider:name"):
        resolve(model, KNOWN)


@pytest.mark.parametrize("model", [None, "", "   ", "openai:", "openai:  ", "echo:"])
def test_no_name_is_no_model(model: str | None) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve(model, KNOWN)
