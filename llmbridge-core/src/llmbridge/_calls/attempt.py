"""One attempt at a call: sent once, timed, and recorded with its outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidResponseError, ProviderTimeoutError
from ..providers.base import Completion
from ..schemas import CallRecord, LLMResponse, RecordStatus, TokenUsage
from . import outcome
from .call import Call, Recorded, Target


class Attempt:
    """One request to one model. Its time is measured from the moment when the provider is ready."""

    def __init__(self, call: Call, target: Target) -> None:
        self.call = call
        self.target = target
        self._ids = call.next_attempt()
        self._called_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._recorded = False

    async def start(self) -> None:
        """Prepare the provider, which does not count as response time, and start the clock."""
        await self.target.provider.prepare()
        self._called_at = datetime.now(UTC)
        self._started = time.monotonic()

    def elapsed_ms(self) -> int:
        """Return the milliseconds since the clock started."""
        return round((time.monotonic() - self._started) * 1000)

    def succeed(self, completion: Completion, **measured: Any) -> Recorded:
        """Record the completion."""
        return self._record({**outcome.success_fields(completion), **measured})

    def response(self, completion: Completion, record: CallRecord | None, status: RecordStatus | None) -> LLMResponse:
        """Return the response, with its cost and the status of its record."""
        return outcome.response(self.call.request, self.target.provider_name, completion, record, status)

    async def fail(
        self, error: BaseException, usage: TokenUsage | None = None, *, begun: bool = False, **measured: Any
    ) -> None:
        """Record the failure, unless the attempt is recorded already. A caller that was cancelled does not wait for it.

        :param usage: the tokens that the provider reported until then
        :param begun: whether the response had begun, so that it may have to be paid for
        """
        if self._recorded:
            return
        recording = self._record({**outcome.failure_fields(error, usage, begun=begun), **measured})
        if isinstance(error, Exception):
            await recording

    def timeout_error(self, limit: float) -> ProviderTimeoutError:
        """Return the error for a provider that did not answer within `limit` seconds."""
        return ProviderTimeoutError(
            f"{self.target.provider_name} did not answer within {limit:g} s",
            provider=self.target.provider_name,
            model=self.target.model,
        )

    def contract_error(self, what: str) -> InvalidResponseError:
        """Return the error for a provider object that violates the provider contract."""
        name = self.target.provider_name
        return InvalidResponseError(f"the provider {name} {what}", provider=name, model=self.target.model)

    def _record(self, outcome_fields: dict[str, Any]) -> Recorded:
        self._recorded = True
        target = self.target
        fields = {
            **self.call.common_fields,
            **self._ids,
            "provider": target.provider_name,
            "model_name": target.model,
            "requested_model": target.requested,
            "called_at": self._called_at,
            "response_time_ms": self.elapsed_ms(),
            **outcome_fields,
            "price_context": self._price_context(outcome_fields.get("price_context")),
        }
        return self.call.record(target.provider_name, fields)

    def _price_context(self, told: Mapping[str, str] | None) -> dict[str, str] | None:
        """Return the terms of the price: those that the answer told before those of the caller and the provider."""
        return {**self.target.price_context, **self.call.common_fields["price_context"], **(told or {})} or None


async def send(call: Call, target: Target, limit: float) -> LLMResponse:
    """Send the request to a model once and return its response; wait at most `limit` seconds for it."""
    attempt = Attempt(call, target)
    try:
        await attempt.start()
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
        raise attempt.timeout_error(limit) from error
    if not isinstance(completion, Completion):
        raise attempt.contract_error(f"returned {type(completion).__name__}, not a Completion")
    return completion
