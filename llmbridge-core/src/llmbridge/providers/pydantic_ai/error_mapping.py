"""From what a vendor answered, or failed to answer, to the errors of `llmbridge.errors`."""

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

#: What a vendor says inside a stream that began well, in the place of a status.
_OVERLOAD_CODES = frozenset({"overloaded_error", "api_error", "server_error", "internal_server_error"})

#: The codes and types of errors that our sentences repeat. Whatever else a vendor says may quote the request.
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

#: The parameters that our sentences name where the vendor points at one, such as `messages[3].content`.
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

Kind = Literal["http", "credentials", "timeout", "unreachable", "broken_off", "response", "request"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a call that failed.

    `kind` is how far it came: the vendor refused it (`http`, with the status), its library has nothing to show the
    vendor (`credentials`), the time was up, the vendor could not
    be reached, it stopped in the middle of its answer (`broken_off`), its answer is none (`response`), or nothing could
    be sent (`request`). `status` None at `http`: it was said inside an answer that began well. `codes` are the vendor's
    own words for its error, the most telling first, `message` its sentence for people, `parameter` what it points at:
    all unchecked, and any of them may quote the request. `headers` have names in lower case. `wait` is how many seconds
    the vendor asked to wait, where it did not say it in a header.
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
        """Those of the codes that are known, in lower case."""
        return [code for code in map(str.lower, self.codes) if code in _CODES]

    @property
    def known_parameter(self) -> str | None:
        """The parameter, if it is one that is known."""
        name = re.split(r"[.\[]", self.parameter or "", maxsplit=1)[0]
        return name if name in _PARAMETERS else None


class BrokenOffError(Exception):
    """A streamed answer ended before the vendor said that it was complete."""


class CountedError(Exception):
    """A call failed, by the exception that is the cause of this one, when the vendor had counted some of it."""

    def __init__(self, usage: TokenUsage) -> None:
        super().__init__()
        self.usage = usage


class VendorLibraryError(Exception):
    """Stands in for an exception of a vendor's library, whose text may quote the key, the prompt or the answer.

    It has the library's traceback and says of which type the exception was.
    """


def stand_in(error: BaseException) -> VendorLibraryError:
    """What to chain in the place of an exception of the vendor's library."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < 5:
        kinds.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__
    return VendorLibraryError(" from ".join(kinds) + " (text withheld)").with_traceback(error.__traceback__)


def to_error(
    failure: Failure, *, provider: str, model: str, server: str, timeout: float, has_key: bool
) -> LLMBridgeError:
    """The one place where a failed call gets its exception.

    `server` says where the call went, `timeout` how long it could take, in seconds, and `has_key` whether a key went
    with it. The text is ours: of the vendor's words it has only codes and parameters that are known beforehand.
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
                f"{provider}: its library finds no credentials in the environment, or none that can be used", **where
            )
        case "broken_off":
            return ProviderUnavailableError(f"{provider} at {server} broke off its answer from {model}", **where)
        case "response":
            return InvalidResponseError(
                f"{provider} at {server} answered no completion; is the base_url right?", **where
            )
        case "request":
            return InvalidRequestError(
                f"the request cannot be sent to {provider} for {model}: it asks for what cannot be put into the "
                "vendor's terms, a text of it is no valid Unicode, or the base_url is no address",
                **where,
            )
    return _refusal(failure, provider, model, server, has_key, where)


def _refusal(
    failure: Failure, provider: str, model: str, server: str, has_key: bool, where: dict[str, Any]
) -> LLMBridgeError:
    status, codes = failure.status or 0, set(failure.known_codes)
    words = (failure.message or "").lower()
    refused = f"{provider} refused the request for {model}: {_told(failure)}"
    if 300 <= status < 400:
        return ProviderUnavailableError(
            f"{provider} at {server} redirects ({status}), which is not followed; is the base_url right?", **where
        )
    if codes & _CONTENT_CODES or (status in (400, 403) and any(said in words for said in _CONTENT_WORDS)):
        return ContentFilterError(f"{refused}; its safety system objects to what the messages say", **where)
    if codes & _CONTEXT_CODES or (status in (400, 413, 422) and any(said in words for said in _CONTEXT_WORDS)):
        return ContextLengthError(
            f"{refused}; the messages and max_tokens are more than the model's context holds: shorten them, or take "
            "a model with a longer context",
            **where,
        )
    if status in (402, 429) or codes & _QUOTA_CODES or any(said in words for said in _QUOTA_WORDS):
        wait = retry_after(failure.headers)
        wait = failure.wait if wait is None else wait
        return RateLimitError(f"{refused}; {_limit(status, codes, wait)}", retry_after=wait, **where)
    if status in (401, 403) or codes & _KEY_CODES:
        return AuthenticationError(f"{refused}; {_doubt(status, has_key)}", **where)
    if status == 404 and ("model_not_found" in codes or "model" in words):
        return ModelNotFoundError(f"{refused}; it has no such model, or not for this API key")
    if status == 404:
        return InvalidRequestError(f"{refused}; {server} has no such address: is the base_url right?", **where)
    if status == 408:
        return ProviderTimeoutError(f"{provider} gave up on the request for {model}: {_told(failure)}", **where)
    if status == 413:
        return InvalidRequestError(f"{refused}; the request is too large: shorten its messages", **where)
    if status >= 500 or codes & _OVERLOAD_CODES:
        return ProviderUnavailableError(
            f"{provider} failed on its side for {model}: {_told(failure)}; try again later",
            retry_after=retry_after(failure.headers),
            **where,
        )
    if status >= 400:
        return InvalidRequestError(f"{refused}; check its parameters against what this model takes", **where)
    return InvalidResponseError(f"{provider} at {server} answered {status}, which is no completion", **where)


def _limit(status: int, codes: set[str], wait: float | None) -> str:
    if status == 402 or codes & _QUOTA_CODES:
        return "the account has no credit or quota left, which is mended in its billing"
    return "too many requests or tokens: " + ("slow down" if wait is None else f"try again in {wait:g} s")


def _doubt(status: int, has_key: bool) -> str:
    if not has_key:
        return "no API key was sent: pass api_key= along with the base_url"
    return "may this API key use the model?" if status == 403 else "is the API key right?"


def _told(failure: Failure) -> str:
    """The status, with the most telling code and the parameter where they are known: `400 invalid_value (stop)`."""
    code = next(iter(failure.known_codes), None)
    parameter = failure.known_parameter
    status = "an error in its answer" if failure.status is None else str(failure.status)
    return status + (f" {code}" if code else "") + (f" ({parameter})" if parameter else "")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that a vendor asked for, in seconds: `retry-after-ms`, else `retry-after` as a number or an HTTP date.

    None: it did not say, or not in a form that can be read.
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
