"""When an attempt is made again, and when another model is asked."""

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

#: What another model may not meet. An InvalidRequestError is not among them: it says that the request is wrong, which
#: an answer from elsewhere would hide.
_ANOTHER_MAY_ANSWER = (
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


class Retries:
    """How often and for how long a call is tried.

    :param most: how many times a failed attempt is made again, at each model
    :param within: seconds, from its start, in which a call ends; the first attempt has its whole timeout in any case
    """

    def __init__(self, most: int, within: float) -> None:
        self._most = most
        self._within = within

    async def run(self, targets: Sequence[Target], timeout: float, once: Callable[[Target, float], Awaitable[T]]) -> T:
        """What `once` returns for the first target that answers. It gets the target and the seconds that it may take:
        `timeout`, or what is left.

        A target is tried again after an error that passes, and then the next one is asked, if it may do better. The
        last error is raised.
        """
        deadline = time.monotonic() + max(self._within, timeout)

        *others, last = targets
        for target in others:
            try:
                return await self._repeat(target, timeout, deadline, once)
            except LLMBridgeError as error:
                if not isinstance(error, _ANOTHER_MAY_ANSWER) or time.monotonic() >= deadline:
                    raise
        return await self._repeat(last, timeout, deadline, once)

    async def _repeat(
        self, target: Target, timeout: float, deadline: float, once: Callable[[Target, float], Awaitable[T]]
    ) -> T:
        try:
            return await once(target, min(timeout, deadline - time.monotonic()))
        except LLMBridgeError as error:
            if self._most == 0 or not passes(error):
                raise
            first = [error]

        # Most calls succeed at once, and tenacity costs as much as the rest of a call: it comes in after a failure.
        from tenacity import AsyncRetrying, retry_if_exception

        def is_over(state: RetryCallState) -> bool:
            return state.attempt_number > self._most or time.monotonic() + state.upcoming_sleep >= deadline

        async def attempt() -> T:
            if first:
                raise first.pop()
            return await once(target, min(timeout, deadline - time.monotonic()))

        retrying = AsyncRetrying(
            sleep=asyncio.sleep, stop=is_over, wait=_pause, retry=retry_if_exception(passes), reraise=True
        )
        return await retrying(attempt)


def passes(error: BaseException) -> bool:
    """Whether the same attempt may succeed a little later, as the vendors' own libraries see it: a rate limit, a
    conflict, a timeout, a vendor that fails or cannot be reached. An account without credit and a redirect do not
    pass."""
    match error:
        case RateLimitError():
            return error.status_code in (None, 429)
        case ProviderUnavailableError():
            return error.status_code is None or error.status_code >= 500
        case ProviderTimeoutError() | InvalidRequestError(status_code=409):
            return True
    return False


def _pause(state: RetryCallState) -> float:
    """Seconds to wait: what the vendor asked for, else half a second and twice as long each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, ProviderError) and error.retry_after:
        return error.retry_after
    pause = min(_FIRST_PAUSE * 2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE)
    return pause * random.uniform(0.75, 1.0)  # noqa: S311  jitter needs no secrecy
