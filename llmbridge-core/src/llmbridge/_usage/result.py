"""The result of a usage query: rows of sums with rates, means and percentiles, which serialise with exact money."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, Self, get_args

from pydantic import Field, PrivateAttr, computed_field

from ..schemas import CallStatus, Money, Result, construct
from ..storage.histogram import percentile, value
from ..storage.reference import Sums
from ..storage.types import UsageRow

#: Fields whose value decides which attempt a request ends with, so that no request can be counted by them.
FIELDS_OF_ATTEMPTS = frozenset({"provider", "model_name", "response_model", "status", "error_type"})


class UsageResult(Result):
    """Sums over the calls of one group, with figures that are computed from them.

    `key` has the fields of `group_by` by the names that were asked for. `calls` counts attempts, `requests` first
    attempts. `by_status` has no zeros. Token sums and `cost` (dollars, exact) do not include calls whose value is
    unknown: `unpriced_calls` counts the calls without a cost whose reason is neither not_billed nor synthetic,
    `unmeasured_calls` those without tokens. Times are whole milliseconds, of successful calls; percentiles, and the
    mean time to the first token, are within 1.1 % and half a millisecond. A rate is from 0 to 1. None is the figure
    of no calls.

    In JSON, money is text without an exponent.
    """

    key: dict[str, Any] = Field(default_factory=dict)
    calls: int = 0
    requests: int = 0
    by_status: dict[str, int] = Field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Money = Decimal(0)
    unpriced_calls: int = 0
    unmeasured_calls: int = 0
    response_time_ms_sum: int = 0
    response_time_ms_count: int = 0

    _row: UsageRow = PrivateAttr(default_factory=UsageRow)
    _counts_requests: bool = PrivateAttr(default=True)

    @classmethod
    def of(cls, row: UsageRow, key: dict[str, Any], *, counts_requests: bool) -> Self:
        """Return the result for a row of a backend, without validation, which would take longer than the query.

        :param counts_requests: whether the row has all attempts of its requests
        """
        values = dict(zip(_SUMS, _get_sums(row), strict=True))
        values["key"] = key
        values["cost"] = row.cost or Decimal(0)
        return construct(cls, values, _NAMES, {"_row": row, "_counts_requests": counts_requests})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def failed_calls(self) -> int:
        """The number of calls that did not succeed; `by_status` and grouping by error_type tell them apart."""
        return self.calls - self.by_status.get("success", 0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def success_rate(self) -> float | None:
        """The part of the calls that succeeded."""
        return self.by_status.get("success", 0) / self.calls if self.calls else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def request_success_rate(self) -> float | None:
        """The part of the requests that succeeded, after whichever attempt: successful calls for each first attempt.

        None too if the query filters or groups by model, provider, status or error, so that the row may not have all
        attempts of a request.
        """
        if not self._counts_requests or not self.requests:
            return None
        return self.by_status.get("success", 0) / self.requests

    @computed_field  # type: ignore[prop-decorator]
    @property
    def response_time_mean_ms(self) -> int | None:
        """The mean time of a call."""
        count = self.response_time_ms_count
        return round(self.response_time_ms_sum / count) if count else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def response_time_p50_ms(self) -> int | None:
        """The median of the time of a call."""
        return self.response_time_ms(50)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def response_time_p95_ms(self) -> int | None:
        """The 95th percentile of the time of a call."""
        return self.response_time_ms(95)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def response_time_p99_ms(self) -> int | None:
        """The 99th percentile of the time of a call."""
        return self.response_time_ms(99)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_token_mean_ms(self) -> int | None:
        """The mean time to the first token."""
        histogram = self._row.first_token_histogram
        timed = sum(histogram.values())
        return round(sum(value(index) * calls for index, calls in histogram.items()) / timed) if timed else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_token_p50_ms(self) -> int | None:
        """The median of the time to the first token."""
        return self.first_token_ms(50)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_token_p95_ms(self) -> int | None:
        """The 95th percentile of the time to the first token."""
        return self.first_token_ms(95)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_token_p99_ms(self) -> int | None:
        """The 99th percentile of the time to the first token."""
        return self.first_token_ms(99)

    def response_time_ms(self, percent: float) -> int | None:
        """Return a percentile of the time of a call, such as 99.9; 50 is the median."""
        return _rounded(percentile(self._row.response_time_histogram, percent))

    def first_token_ms(self, percent: float) -> int | None:
        """Return a percentile of the time to the first token; 50 is the median."""
        return _rounded(percentile(self._row.first_token_histogram, percent))

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dict, as a data frame takes it: the fields of the key, and all figures. Statuses are counted
        under names such as `timeout_calls`, money is a Decimal."""
        figures = self.model_dump(exclude={"key", "by_status"})
        statuses = {f"{status}_calls": self.by_status.get(status, 0) for status in get_args(CallStatus)}
        return {**self.key, **figures, **statuses}


_SUMS = tuple(UsageResult.model_fields)
_NAMES = set(_SUMS)
_get_sums = attrgetter(*_SUMS)


class UsageResults(list[UsageResult]):
    """The rows of a usage query."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as flat dicts: `pandas.DataFrame(rows.to_dicts())`."""
        return [row.to_dict() for row in self]

    def total(self) -> UsageResult:
        """Return the sums over all rows, with an empty key."""
        sums = Sums()
        for row in self:
            sums.add_row(row._row)
        return UsageResult.of(sums.row(), {}, counts_requests=all(row._counts_requests for row in self))


def results(rows: Iterable[UsageRow], keys: Iterable[dict[str, Any]], asked: Sequence[str]) -> UsageResults:
    """Return the results for rows of a backend.

    :param keys: the key of each row, by the names that the caller used
    :param asked: the fields that the query filters or groups by
    """
    counts_requests = FIELDS_OF_ATTEMPTS.isdisjoint(asked)
    return UsageResults(
        UsageResult.of(row, key, counts_requests=counts_requests) for row, key in zip(rows, keys, strict=True)
    )


def _rounded(ms: float | None) -> int | None:
    return None if ms is None else round(ms)
