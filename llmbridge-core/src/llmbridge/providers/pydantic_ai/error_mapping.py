"""Maps a failed call of a provider to the errors of `llmbridge.errors`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ...errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    LLMBridgeError,
    ModelNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from ...schemas import TokenUsage

_CONTENT_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "moderation_blocked",
        "responsibleaipolicyviolation",
        "invalid_prompt",
    }
)
_CONTENT_WORDS = ("safety system", "content management policy", "content filtering policy", "usage policy")

_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_CONTEXT_WORDS = (
    "maximum context length",
    "exceeds the context length",
    "exceeds the available context size",
    "exceeds the maximum number of tokens allowed",
    "prompt is too long",
    "reduce the length of the messages",
)

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
_QUOTA_WORDS = ("credit balance is too low", "check your plan and billing details")

_KEY_CODES = frozenset({"api_key_invalid", "authentication_error", "unauthenticated"})

#: Codes that a provider sends inside a stream, where there is no HTTP status.
_OVERLOAD_CODES = frozenset({"overloaded_error", "api_error", "server_error", "internal_server_error"})

#: The codes and types of errors that our texts repeat. Everything else that a provider sends may quote the request.
_CODES = (
    _CONTENT_CODES
    | _CONTEXT_CODES
    | _QUOTA_CODES
    | _KEY_CODES
    | _OVERLOAD_CODES
    | {
        "account_deactivated",
        "deploymentnotfound",
        "deadline_exceeded",
        "engine_overloaded",
        "failed_precondition",
        "forbidden",
        "insufficient_balance",
        "insufficient_permissions",
        "internal",
        "internal_error",
        "invalid_api_key",
        "invalid_argument",
        "invalid_authentication",
        "invalid_image",
        "invalid_json_schema",
        "invalid_model",
        "invalid_organization",
        "invalid_parameter",
        "invalid_request_error",
        "invalid_schema",
        "invalid_type",
        "invalid_value",
        "json_validate_failed",
        "method_not_supported",
        "missing_required_parameter",
        "model_not_available",
        "model_not_found",
        "not_found",
        "not_found_error",
        "organization_restricted",
        "overloaded",
        "permission_denied",
        "permission_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "request_timeout",
        "resource_exhausted",
        "request_too_large",
        "service_unavailable",
        "slow_down",
        "string_above_max_length",
        "timeout",
        "timeout_error",
        "token_limit_exceeded",
        "tool_use_failed",
        "unavailable",
        "unknown_parameter",
        "unknown_url",
        "unsupported_country_region_territory",
        "unsupported_model",
        "unsupported_parameter",
        "unsupported_value",
    }
)

#: The parameters that our texts name if the provider names one, such as `messages[3].content`.
_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)

Kind = Literal["http", "credentials", "timeout", "unreachable", "incomplete", "response", "request"]


@dataclass(frozen=True, slots=True)
class CallFailure:
    """The facts about a failed call.

    `kind` tells how far the call came: the provider refused it (`http`, with the status), the SDK found no credentials
    (`credentials`), the timeout passed, the provider could not be reached, a streamed response ended too early
    (`incomplete`), the response was not a completion (`response`), or the request could not be sent (`request`).
    `status` is None at `http` if the error came inside a stream. `codes` are the provider's codes, the most specific
    first, `message` is its text, `parameter` the parameter that it names: all unchecked, and each may quote the
    request. `headers` have names in lower case. `wait` is the wait that the provider asked for outside the headers, in
    seconds.
    """

    kind: Kind
    status: int | None = None
    codes: tuple[str, ...] = ()
    message: str | None = None
    parameter: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None

    @property
    def known_codes(self) -> list[str]:
        """Return the codes that are in the list of known codes, in lower case."""
        return [code for code in map(str.lower, self.codes) if code in _CODES]

    @property
    def known_parameter(self) -> str | None:
        """Return the parameter if it is in the list of known parameters, else None."""
        name = re.split(r"[.\[]", self.parameter or "", maxsplit=1)[0]
        return name if name in _PARAMETERS else None


class IncompleteStreamError(Exception):
    """A streamed response ended before the provider said that it was complete."""


class PartialUsageError(Exception):
    """A call failed, with the cause of this exception, after the provider had reported usage."""

    def __init__(self, usage: TokenUsage) -> None:
        super().__init__()
        self.usage = usage


class SDKError(Exception):
    """The replacement for an exception of an SDK, whose text may quote the key, the prompt or the response.

    It has the traceback of that exception, and its text names the type.
    """


def without_text(error: BaseException) -> SDKError:
    """Return the exception to chain instead of an exception of an SDK."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < 5:
        kinds.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__
    return SDKError(" from ".join(kinds) + " (text withheld)").with_traceback(error.__traceback__)


def to_error(
    failure: CallFailure, *, provider: str, model: str, server: str, timeout: float, has_key: bool
) -> LLMBridgeError:
    """Return the exception for a failed call.

    `server` is the host that was called, `timeout` is in seconds, and `has_key` tells whether a key was sent. The text
    is ours: it repeats only codes and parameters of the lists in this module.
    """
    where: dict[str, Any] = {"provider": provider, "model": model, "status_code": failure.status}
    match failure.kind:
        case "timeout":
            return ProviderTimeoutError(f"{provider} did not answer for {model} within {timeout:g} s", **where)
        case "unreachable":
            return ProviderUnavailableError(
                f"{provider} at {server} cannot be reached or broke the connection", **where
            )
        case "credentials":
            return AuthenticationError(
                f"{provider}: its SDK finds no credentials in the environment, or none that it can use", **where
            )
        case "incomplete":
            return ProviderUnavailableError(f"{provider} at {server} broke off its response from {model}", **where)
        case "response":
            return InvalidResponseError(
                f"{provider} at {server} answered without a completion; is the base_url right?", **where
            )
        case "request":
            return InvalidRequestError(
                f"the request cannot be sent to {provider} for {model}: the provider's API has no form for it, a text "
                "of it is not valid Unicode, or the base_url is not a valid address",
                **where,
            )
    return _refusal(failure, provider, model, server, has_key, where)


def _refusal(
    failure: CallFailure, provider: str, model: str, server: str, has_key: bool, where: dict[str, Any]
) -> LLMBridgeError:
    status, codes = failure.status or 0, set(failure.known_codes)
    words = (failure.message or "").lower()
    refused = f"{provider} refused the request for {model}: {_summary(failure)}"
    if 300 <= status < 400:
        return ProviderUnavailableError(
            f"{provider} at {server} redirects ({status}), which is not followed; is the base_url right?", **where
        )
    if codes & _CONTENT_CODES or (status in (400, 403) and any(said in words for said in _CONTENT_WORDS)):
        return ContentFilterError(f"{refused}; its safety system refused the content of the messages", **where)
    if codes & _CONTEXT_CODES or (status in (400, 413, 422) and any(said in words for said in _CONTEXT_WORDS)):
        return ContextLengthError(
            f"{refused}; the messages and max_tokens are longer than the model's context: shorten them, or use a model "
            "with a longer context",
            **where,
        )
    if status in (402, 429) or codes & _QUOTA_CODES or any(said in words for said in _QUOTA_WORDS):
        wait = retry_after(failure.headers)
        wait = failure.wait if wait is None else wait
        return RateLimitError(f"{refused}; {_limit(status, codes, wait)}", retry_after=wait, **where)
    if status in (401, 403) or codes & _KEY_CODES:
        return AuthenticationError(f"{refused}; {_key_hint(status, has_key)}", **where)
    if status == 404 and ("model_not_found" in codes or "model" in words):
        return ModelNotFoundError(f"{refused}; it has no such model, or not for this API key")
    if status == 404:
        return InvalidRequestError(f"{refused}; {server} has no such address: is the base_url right?", **where)
    if status == 408:
        return ProviderTimeoutError(f"{provider} gave up on the request for {model}: {_summary(failure)}", **where)
    if status == 413:
        return InvalidRequestError(f"{refused}; the request is too large: shorten its messages", **where)
    if status >= 500 or codes & _OVERLOAD_CODES:
        return ProviderUnavailableError(
            f"{provider} failed on its side for {model}: {_summary(failure)}; try again later",
            retry_after=retry_after(failure.headers),
            **where,
        )
    if status >= 400:
        return InvalidRequestError(f"{refused}; check its parameters against what this model takes", **where)
    return InvalidResponseError(f"{provider} at {server} answered {status}, which is not a completion", **where)


def _limit(status: int, codes: set[str], wait: float | None) -> str:
    if status == 402 or codes & _QUOTA_CODES:
        return "the account has no credit or quota left: check its billing"
    return "too many requests or tokens: " + ("slow down" if wait is None else f"try again in {wait:g} s")


def _key_hint(status: int, has_key: bool) -> str:
    if not has_key:
        return "no API key was sent: pass api_key= along with the base_url"
    return "may this API key use the model?" if status == 403 else "is the API key right?"


def _summary(failure: CallFailure) -> str:
    """Return the status with the most specific known code and parameter: `400 invalid_value (stop)`."""
    code = next(iter(failure.known_codes), None)
    parameter = failure.known_parameter
    status = "an error in its response" if failure.status is None else str(failure.status)
    return status + (f" {code}" if code else "") + (f" ({parameter})" if parameter else "")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a provider asked for, in seconds: `retry-after-ms`, else `retry-after` as a number or date.

    None: there is no such header, or it is invalid.
    """
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _positive(text)
    if seconds is not None or text is None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
