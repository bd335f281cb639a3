"""Retry and fallback policy."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    LLMBridgeError,
    ModelNotFoundError,
    ProviderError,
    ProviderNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from .call import Target

if TYPE_CHECKING:
    from tenacity import RetryCallState

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0

#: Errors after which the next model is called. InvalidRequestError is not one of them: it says that the request is
#: wrong, which the response of another model would hide.
_FALLBACK_ERRORS = (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidResponseError,
    ModelNotFoundError,
    ProviderNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)

T = TypeVar("T")


class RetryPolicy:
    """How often and for how long a call is attempted.

    :param max_retries: most retries of a failed attempt, at each model
    :param total_timeout: seconds for the whole call; the first attempt has its own timeout in any case
    """

    def __init__(self, max_retries: int, total_timeout: float) -> None:
        self._max_retries = max_retries
        self._total_timeout = total_timeout

    async def run(
        self, targets: Sequence[Target], timeout: float, attempt: Callable[[Target, float], Awaitable[T]]
    ) -> T:
        """Return the result of `attempt` for the first target that succeeds; raise the last error if none does.

        After a transient error the same target is tried again; then the next one, if the error may not occur there.

        :param attempt: gets the target and the seconds that it may take: `timeout`, or the rest of the total
        """
        deadline = time.monotonic() + max(self._total_timeout, timeout)

        *others, last = targets
        for target in others:
            try:
                return await self._retry(target, timeout, deadline, attempt)
            except LLMBridgeError as error:
                if not isinstance(error, _FALLBACK_ERRORS) or time.monotonic() >= deadline:
                    raise
        return await self._retry(last, timeout, deadline, attempt)

    async def _retry(
        self, target: Target, timeout: float, deadline: float, attempt: Callable[[Target, float], Awaitable[T]]
    ) -> T:
        try:
            return await attempt(target, min(timeout, deadline - time.monotonic()))
        except LLMBridgeError as error:
            if self._max_retries == 0 or not is_transient(error):
                raise
            first = [error]

        # Most calls succeed at once, and tenacity costs as much as the rest of a call: it is used only after a failure.
        from tenacity import AsyncRetrying, retry_if_exception

        def is_over(state: RetryCallState) -> bool:
            return state.attempt_number > self._max_retries or time.monotonic() + state.upcoming_sleep >= deadline

        async def next_attempt() -> T:
            if first:
                raise first.pop()
            return await attempt(target, min(timeout, deadline - time.monotonic()))

        retrying = AsyncRetrying(
            sleep=asyncio.sleep, stop=is_over, wait=_pause, retry=retry_if_exception(is_transient), reraise=True
        )
        return await retrying(next_attempt)


def is_transient(error: BaseException) -> bool:
    """Return whether the same attempt may succeed a little later.

    As in the providers' own libraries these are: rate limit, conflict, timeout, 5xx, no connection. An account without
    credit and a redirect are not transient.
    """
    match error:
        case RateLimitError():
            return error.status_code in (None, 429)
        case ProviderUnavailableError():
            return error.status_code is None or error.status_code >= 500
        case ProviderTimeoutError() | InvalidRequestError(status_code=409):
            return True
    return False


def _pause(state: RetryCallState) -> float:
    """Return the seconds to wait: what the provider asked for, else exponential backoff with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, ProviderError) and error.retry_after:
        return error.retry_after
    pause = min(_FIRST_PAUSE * 2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE)
    return pause * random.uniform(0.75, 1.0)  # noqa: S311  jitter needs no secrecy
