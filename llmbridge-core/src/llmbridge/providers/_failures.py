"""From what a vendor answered, or failed to answer, to the errors of `llmbridge.errors`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ..errors import (
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

_CONTENT_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "moderation_blocked",
        "ResponsibleAIPolicyViolation",
        "invalid_prompt",
    }
)
_CONTENT_WORDS = ("safety system", "content management policy", "usage policy")

_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_CONTEXT_WORDS = (
    "maximum context length",
    "exceeds the context length",
    "exceeds the available context size",
    "prompt is too long",
    "reduce the length of the messages",
)

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

#: How much of a vendor's own words an error repeats, in characters.
_MESSAGE_LENGTH = 300

#: Repeating this many characters of a prompt in a row is quoting it.
_QUOTATION = 16

_KEY_LIKE = re.compile(r"\b(sk|pk)-[\w*.-]{4,}|\bBearer\s+\S+", re.IGNORECASE)

Kind = Literal["http", "timeout", "unreachable", "response", "request"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a call that failed.

    `kind` is how far it came: the vendor refused it (`http`, with the status), the time was up, the vendor could not
    be reached, its answer is none (`response`), or nothing could be sent (`request`). `codes` are the vendor's own
    words for its error, `message` its sentence for people, unchecked; `headers` have names in lower case.
    """

    kind: Kind
    status: int | None = None
    codes: frozenset[str] = frozenset()
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


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
    failure: Failure,
    *,
    provider: str,
    model: str,
    server: str,
    timeout: float,
    secrets: Iterable[str],
    private: Iterable[str],
) -> LLMBridgeError:
    """The one place where a failed call gets its exception.

    `server` says where the call went and `timeout` how long it could take, in seconds. No text of `secrets` or
    `private` gets into the exception.
    """
    message = quotable(failure.message, secrets=secrets, private=private)
    said = f": {message}" if message else ""
    where: dict[str, Any] = {"provider": provider, "model": model, "status_code": failure.status}
    match failure.kind:
        case "timeout":
            return ProviderTimeoutError(f"{provider} did not answer for {model} within {timeout:g} s", **where)
        case "unreachable":
            return ProviderUnavailableError(
                f"{provider} at {server} cannot be reached or broke the connection", **where
            )
        case "response":
            return InvalidResponseError(
                f"{provider} at {server} answered no completion; is the base_url right?", **where
            )
        case "request":
            return InvalidRequestError(f"the request cannot be sent to {provider} for {model}{said}", **where)
    return _refusal(failure, f"{provider} answered {failure.status} for {model}{said}", where)


def _refusal(failure: Failure, text: str, where: dict[str, Any]) -> LLMBridgeError:
    status = failure.status or 0
    words = (failure.message or "").lower()
    if failure.codes & _CONTENT_CODES or (status in (400, 403) and any(said in words for said in _CONTENT_WORDS)):
        return ContentFilterError(text, **where)
    if failure.codes & _CONTEXT_CODES or (status in (400, 413, 422) and any(said in words for said in _CONTEXT_WORDS)):
        return ContextLengthError(text, **where)
    if status in (402, 429) or failure.codes & _QUOTA_CODES:
        return RateLimitError(text, retry_after=retry_after(failure.headers), **where)
    if status in (401, 403):
        question = "is the API key right" if status == 401 else "may this API key use the model"
        return AuthenticationError(f"{text}; {question}?", **where)
    if status == 404 and ("model_not_found" in failure.codes or "model" in words):
        return ModelNotFoundError(text)
    if status == 404:
        return InvalidRequestError(f"{text}; is the base_url right?", **where)
    if status == 408:
        return ProviderTimeoutError(text, **where)
    if status >= 500:
        return ProviderUnavailableError(text, **where)
    if status >= 400:
        return InvalidRequestError(text, **where)
    return InvalidResponseError(text, **where)


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


def quotable(message: str | None, *, secrets: Iterable[str], private: Iterable[str]) -> str | None:
    """A vendor's sentence as an exception may repeat it: short, on one line, without keys.

    None: there is no sentence, or it quotes a private text.
    """
    if message is None or message.lstrip().startswith("<"):
        return None
    for secret in secrets:
        message = message.replace(secret, "***")
    message = _KEY_LIKE.sub("***", " ".join(message.split()))
    if len(message) > _MESSAGE_LENGTH:
        message = message[: _MESSAGE_LENGTH - 3] + "..."
    return None if any(_quotes(message, text) for text in private) else message


def _quotes(message: str, text: str) -> bool:
    text = " ".join(text.split())
    if not text:
        return False
    if len(text) < _QUOTATION:
        return len(text) > 3 and text in message
    if any(message[i : i + _QUOTATION] in text for i in range(len(message) - _QUOTATION + 1)):
        return True
    # Names and numbers of a prompt are shorter, and nothing that a vendor would say by itself.
    return any(word in text for word in message.split() if len(word) > 5 and any(letter.isdigit() for letter in word))
