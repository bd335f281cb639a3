"""Streaming: passes on the chunks of a response as they arrive, and records the attempt once at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from ..providers.base import Completion, Delta
from ..schemas import LLMChunk, TokenUsage
from .attempt import Attempt
from .call import Call, Recorded, Target
from .retry import RetryPolicy

#: Seconds that a provider may take to close a stream.
_CLOSE_TIMEOUT = 5.0

logger = logging.getLogger("llmbridge.calls")


async def chunks(
    call: Call, retries: RetryPolicy, in_flight: Callable[[], AbstractContextManager[None]]
) -> AsyncGenerator[LLMChunk, None]:
    """Yield the response's text as it arrives, then a last chunk with the whole response.

    Retries and fallbacks happen only before the first text.
    """
    with in_flight():
        stream = await retries.run(call.targets, call.timeout, lambda target, limit: _open(call, target, limit))
        try:
            while stream.completion is None:
                yield LLMChunk(content=stream.text)
                await stream.advance(call.timeout)
            recorded = stream.succeed(stream.completion)
            if stream.text:
                yield LLMChunk(content=stream.text)
            yield LLMChunk(response=stream.response(stream.completion, *await recorded))
        except BaseException as error:
            await stream.fail(error)
            raise
        finally:
            await stream.close()


async def _open(call: Call, target: Target, limit: float) -> _Stream:
    """Start one attempt and return it at the first text; wait at most `limit` seconds for each step until then."""
    attempt = Attempt(call, target)
    try:
        await attempt.start()
        stream = _Stream(attempt, target.provider.stream(call.sent, target.model, timeout=limit))
    except BaseException as error:
        await attempt.fail(error)
        raise
    try:
        await stream.advance(limit)
    except BaseException as error:
        await stream.fail(error)
        await stream.close()
        raise
    return stream


class _Stream:
    """State of one attempt's stream: the newest `text`, and the `completion` at the end."""

    def __init__(self, attempt: Attempt, steps: AsyncIterator[Delta]) -> None:
        self.response = attempt.response
        self.text = ""
        self.completion: Completion | None = None
        self._attempt = attempt
        self._steps = steps
        self._usage: TokenUsage | None = None
        self._begun = False
        self._first_token_ms: int | None = None

    async def advance(self, limit: float) -> None:
        """Wait for the next text, or for the end: at most `limit` seconds for each step of the provider."""
        self.text = ""
        while not self.text and self.completion is None:
            step = await self._next(limit)
            self._begun = True
            self._usage = step.usage or self._usage
            self.text, self.completion = step.content, step.completion
        if self.text and self._first_token_ms is None:
            self._first_token_ms = self._attempt.elapsed_ms()

    def succeed(self, completion: Completion) -> Recorded:
        """Record the completion."""
        return self._attempt.succeed(completion, **self._measured)

    async def fail(self, error: BaseException) -> None:
        """Record the failure with the usage reported so far, unless the attempt is recorded already."""
        await self._attempt.fail(error, self._usage, begun=self._begun, **self._measured)

    async def close(self) -> None:
        """Close the provider's stream."""
        close = getattr(self._steps, "aclose", None)
        if close is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await close()
        except Exception as error:
            logger.debug("closing a stream raised %s", type(error).__name__)

    @property
    def _measured(self) -> dict[str, Any]:
        return {"stream": True, "time_to_first_token_ms": self._first_token_ms}

    async def _next(self, limit: float) -> Delta:
        try:
            async with asyncio.timeout(limit):
                step: object = await anext(self._steps)
        except TimeoutError as error:
            raise self._attempt.timeout_error(limit) from error
        except StopAsyncIteration:
            raise self._attempt.contract_error("ended a stream without a completion") from None
        if not isinstance(step, Delta):
            raise self._attempt.contract_error(f"yielded {type(step).__name__}, not a Delta")
        return step
