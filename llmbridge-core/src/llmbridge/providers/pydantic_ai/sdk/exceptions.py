"""From an exception of pydantic-ai, or of an SDK below it, to what it says of the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic_ai import exceptions

from ..error_mapping import Failure

#: What the libraries of Google and Amazon raise where they find no credentials, or none that can be used.
_NO_CREDENTIALS = frozenset(
    {
        "DefaultCredentialsError",
        "RefreshError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "NoAuthTokenError",
        "TokenRetrievalError",
        "SSOError",
    }
)


def failure(error: BaseException) -> Failure:
    """What an exception says of the call. Whatever is not known is an answer that is none: JSON that is broken, a
    field of the wrong type, an assertion of the library."""
    if (_kinds(error) | _kinds(error.__cause__)) & _NO_CREDENTIALS:
        return Failure("credentials")
    match error:
        case (
            TimeoutError()
            | exceptions.ModelTimeoutError()
            | exceptions.ModelRequestTimeout()
            | httpx2.TimeoutException()
        ):
            return Failure("timeout")
        case exceptions.ModelHTTPError():
            return _refused(error.status_code, error.body, error.headers or {}, error.retry_after)
        case exceptions.ModelConnectionError():
            return _unreachable(error.__cause__)
        case exceptions.ModelAPIError() if error.in_stream:
            return _refused(None, error.body, {}, error.retry_after)
        case exceptions.UserError() | NotImplementedError() | UnicodeEncodeError() | httpx2.InvalidURL():
            return Failure("request")
        case exceptions.ModelAPIError() if _kinds(error.__cause__) & {"APIStatusError", "APIConnectionError"}:
            return failure(error.__cause__ or error)
        case exceptions.ModelAPIError() | exceptions.UnexpectedModelBehavior():
            return Failure("response", status=200)
    kinds = _kinds(error)
    if "APIStatusError" in kinds:
        status, body = getattr(error, "status_code", None), getattr(error, "body", None)
        return _refused(status, body, getattr(getattr(error, "response", None), "headers", {}))
    if kinds & {"ClientError", "ServerError"}:  # of Google's SDK
        headers = getattr(getattr(error, "response", None), "headers", {})
        return _refused(getattr(error, "code", None), getattr(error, "details", None), headers)
    if "APIConnectionError" in kinds:
        return _unreachable(error.__cause__)
    if "TransportError" in kinds or isinstance(error, OSError):
        return Failure("unreachable")
    return Failure("response")


def _kinds(error: BaseException | None) -> set[str]:
    """The names of an exception's classes: those of the SDKs go by the same ones, and not all are installed."""
    return {kind.__name__ for kind in type(error).__mro__}


def _unreachable(cause: BaseException | None) -> Failure:
    match cause:
        case httpx2.TimeoutException():
            return Failure("timeout")
        case httpx2.DecodingError() | httpx2.TooManyRedirects():
            return Failure("response")
        case httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError() | httpx2.InvalidURL():
            return Failure("request")
    if cause is not None and "APIConnectionError" in _kinds(cause):
        return _unreachable(cause.__cause__)
    return Failure("unreachable")


def _refused(status: int | None, body: object, headers: Mapping[str, str], retry_after: float | None = None) -> Failure:
    facts: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    error = facts.get("error")
    facts = error if isinstance(error, Mapping) else facts
    inner = facts.get("innererror")
    codes = [
        *(detail.get("reason") for detail in _mappings(facts.get("details"))),
        facts.get("code"),
        inner.get("code") if isinstance(inner, Mapping) else None,
        facts.get("type"),
        facts.get("status"),
    ]
    message = body if isinstance(body, str) else error if isinstance(error, str) else None
    message = message or facts.get("message") or facts.get("detail")
    return Failure(
        "http",
        status=status,
        codes=tuple(code for code in codes if isinstance(code, str)),
        parameter=param if isinstance(param := facts.get("param"), str) else None,
        message=message if isinstance(message, str) else None,
        headers={name.lower(): value for name, value in headers.items()},
        wait=retry_after,
    )


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
