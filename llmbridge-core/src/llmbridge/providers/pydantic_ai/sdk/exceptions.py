"""Reads the facts about a failed call from an exception of pydantic-ai or of an SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic_ai import exceptions

from ..error_mapping import CallFailure

#: Exceptions of the SDKs of Google and Amazon if they find no credentials, or none that they can use.
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


def call_failure(error: BaseException) -> CallFailure:
    """Return the facts about the failed call. An exception of unknown type means an invalid response: broken JSON, a
    field of the wrong type, a failed assertion of the SDK."""
    if (_kinds(error) | _kinds(error.__cause__)) & _NO_CREDENTIALS:
        return CallFailure("credentials")
    match error:
        case (
            TimeoutError()
            | exceptions.ModelTimeoutError()
            | exceptions.ModelRequestTimeout()
            | httpx2.TimeoutException()
        ):
            return CallFailure("timeout")
        case exceptions.ModelHTTPError():
            return _refused(error.status_code, error.body, error.headers or {}, error.retry_after)
        case exceptions.ModelConnectionError():
            return _unreachable(error.__cause__)
        case exceptions.ModelAPIError() if error.in_stream:
            return _refused(None, error.body, {}, error.retry_after)
        case exceptions.UserError() | NotImplementedError() | UnicodeEncodeError() | httpx2.InvalidURL():
            return CallFailure("request")
        case exceptions.ModelAPIError() if _kinds(error.__cause__) & {"APIStatusError", "APIConnectionError"}:
            return call_failure(error.__cause__ or error)
        case exceptions.ModelAPIError() | exceptions.UnexpectedModelBehavior():
            return CallFailure("response", status=200)
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
        return CallFailure("unreachable")
    return CallFailure("response")


def _kinds(error: BaseException | None) -> set[str]:
    """Return the names of an exception's classes: the SDKs use the same names, and not all SDKs are installed."""
    return {kind.__name__ for kind in type(error).__mro__}


def _unreachable(cause: BaseException | None) -> CallFailure:
    match cause:
        case httpx2.TimeoutException():
            return CallFailure("timeout")
        case httpx2.DecodingError() | httpx2.TooManyRedirects():
            return CallFailure("response")
        case httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError() | httpx2.InvalidURL():
            return CallFailure("request")
    if cause is not None and "APIConnectionError" in _kinds(cause):
        return _unreachable(cause.__cause__)
    return CallFailure("unreachable")


def _refused(
    status: int | None, body: object, headers: Mapping[str, str], retry_after: float | None = None
) -> CallFailure:
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
    return CallFailure(
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
