"""One attempt at a call: sent once, timed, and on the books however it ends."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidResponseError, ProviderTimeoutError
from ..providers.base import Completion
from ..schemas import CallRecord, LLMResponse, RecordStatus, TokenUsage
from . import outcome
from .call import Call, Kept, Target


class Attempt:
    """One request to one model. Its clock starts when the provider is ready."""

    def __init__(self, call: Call, target: Target) -> None:
        self.call = call
        self.target = target
        self._numbered = call.next_attempt()
        self._called_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._ended = False

    async def begin(self) -> None:
        """Let the provider do what is not the vendor's time, and start the clock."""
        await self.target.provider.prepare()
        self._called_at = datetime.now(UTC)
        self._started = time.monotonic()

    def elapsed_ms(self) -> int:
        """Milliseconds since the clock started."""
        return round((time.monotonic() - self._started) * 1000)

    def succeed(self, completion: Completion, **measured: Any) -> Kept:
        """Put the answer on the books."""
        return self._keep({**outcome.success(completion), **measured})

    def response(self, completion: Completion, record: CallRecord | None, status: RecordStatus | None) -> LLMResponse:
        """The answer, with its cost and its place on the books."""
        return outcome.response(self.call.request, self.target.vendor, completion, record, status)

    async def fail(
        self, error: BaseException, usage: TokenUsage | None = None, *, begun: bool = False, **measured: Any
    ) -> None:
        """Put what went wrong on the books, unless the attempt is there already. A caller that is gone does not wait
        for them. `usage` is what was counted until then, `begun` whether there was an answer to count."""
        if self._ended:
            return
        keeping = self._keep({**outcome.failure(error, usage, begun=begun), **measured})
        if isinstance(error, Exception):
            await keeping

    def timed_out(self, limit: float) -> ProviderTimeoutError:
        """What to raise when `limit` seconds are over."""
        return ProviderTimeoutError(
            f"{self.target.vendor} did not answer within {limit:g} s",
            provider=self.target.vendor,
            model=self.target.model,
        )

    def no_answer(self, what: str) -> InvalidResponseError:
        """What to raise when the provider does not do what its contract says."""
        return InvalidResponseError(
            f"the provider of {self.target.vendor} {what}", provider=self.target.vendor, model=self.target.model
        )

    def _keep(self, ending: dict[str, Any]) -> Kept:
        self._ended = True
        target = self.target
        fields = {
            **self.call.known,
            **self._numbered,
            "provider": target.vendor,
            "model_name": target.model,
            "requested_model": target.requested,
            "called_at": self._called_at,
            "response_time_ms": self.elapsed_ms(),
            **ending,
        }
        return self.call.keep(target.vendor, fields)


async def answer(call: Call, target: Target, limit: float) -> LLMResponse:
    """Ask a model once, and wait at most `limit` seconds for the whole answer."""
    attempt = Attempt(call, target)
    try:
        await attempt.begin()
        completion = await _complete(attempt, limit)
    except BaseException as error:
        await attempt.fail(error)
        raise
    return attempt.response(completion, *await attempt.succeed(completion))


async def _complete(attempt: Attempt, limit: float) -> Completion:
    target = attempt.target
    try:
        async with asyncio.timeout(limit):
            completion: object = await target.provider.complete(attempt.call.sent, target.model, timeout=limit)
    except TimeoutError as error:
        raise attempt.timed_out(limit) from error
    if not isinstance(completion, Completion):
        raise attempt.no_answer(f"returned {type(completion).__name__}, not a Completion")
    return completion
