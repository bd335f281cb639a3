"""An answer that comes in pieces: handed on as they come, and on the books once, however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from ..providers.base import Completion, Delta
from ..schemas import LLMChunk, TokenUsage
from .attempt import Attempt
from .call import Call, Kept, Target
from .retry import Retries

#: Seconds that a provider may take to end a call which nobody listens to any more.
_CLOSING = 5.0

logger = logging.getLogger("llmbridge.streams")


async def chunks(
    call: Call, retries: Retries, in_flight: Callable[[], AbstractContextManager[None]]
) -> AsyncGenerator[LLMChunk, None]:
    """The answer's text as it comes, then a last chunk with the whole response.

    Until the first text there may be several attempts, afterwards there is no way back.
    """
    with in_flight():
        answer = await retries.run(call.targets, call.timeout, lambda target, limit: _begin(call, target, limit))
        try:
            while answer.completion is None:
                yield LLMChunk(content=answer.text)
                await answer.advance(call.timeout)
            kept = answer.succeed(answer.completion)
            if answer.text:
                yield LLMChunk(content=answer.text)
            yield LLMChunk(response=answer.response(answer.completion, *await kept))
        except BaseException as error:
            await answer.fail(error)
            raise
        finally:
            await answer.close()


async def _begin(call: Call, target: Target, limit: float) -> _Answer:
    """Ask a model once, and wait for at most `limit` seconds for each step until the first text."""
    attempt = Attempt(call, target)
    try:
        await attempt.begin()
        answer = _Answer(attempt, target.provider.stream(call.sent, target.model, timeout=limit))
    except BaseException as error:
        await attempt.fail(error)
        raise
    try:
        await answer.advance(limit)
    except BaseException as error:
        await answer.fail(error)
        await answer.close()
        raise
    return answer


class _Answer:
    """What has come of one attempt's answer: the newest `text`, and the `completion` when it is whole."""

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
        """Wait for the next text, or for the end: at most `limit` seconds for each step of the provider's."""
        self.text = ""
        while not self.text and self.completion is None:
            step = await self._next(limit)
            self._begun = True
            self._usage = step.usage or self._usage
            self.text, self.completion = step.content, step.completion
        if self.text and self._first_token_ms is None:
            self._first_token_ms = self._attempt.elapsed_ms()

    def succeed(self, completion: Completion) -> Kept:
        """Put the whole answer on the books."""
        return self._attempt.succeed(completion, **self._measured)

    async def fail(self, error: BaseException) -> None:
        """Put on the books what had come when it broke off, unless it was whole."""
        await self._attempt.fail(error, self._usage, begun=self._begun, **self._measured)

    async def close(self) -> None:
        """End the provider's part of the call."""
        close = getattr(self._steps, "aclose", None)
        if close is None:
            return
        try:
            async with asyncio.timeout(_CLOSING):
                await close()
        except Exception as error:
            logger.debug("ending a stream raised %s", type(error).__name__)

    @property
    def _measured(self) -> dict[str, Any]:
        return {"stream": True, "time_to_first_token_ms": self._first_token_ms}

    async def _next(self, limit: float) -> Delta:
        try:
            async with asyncio.timeout(limit):
                step: object = await anext(self._steps)
        except TimeoutError as error:
            raise self._attempt.timed_out(limit) from error
        except StopAsyncIteration:
            raise self._attempt.no_answer("ended a stream without a completion") from None
        if not isinstance(step, Delta):
            raise self._attempt.no_answer(f"yielded {type(step).__name__}, not a Delta")
        return step
