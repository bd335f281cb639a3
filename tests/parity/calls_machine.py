"""State machine that records, lists and sums calls: every backend must give the same results."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from llmbridge._usage.periods import UNITS, split, zone
from llmbridge.errors import RecordRejectedError
from llmbridge.storage import (
    EARLIEST,
    FILTER_FIELDS,
    LATEST,
    MAX_BATCH,
    CallQuery,
    CallRecord,
    StorageBackend,
    UsageQuery,
)
from llmbridge.storage.reference import field_value
from llmbridge.testing import make_call, make_calls

from . import values
from .contest import Contest, opened
from .sameness import Raised, outcome
from .stores import Arena

Fields = dict[str, Any]


#: Calls counted back from the last that was recorded, and moments of theirs or a microsecond beside.
WHICH = st.integers(0, 5)
_MOMENT = st.tuples(WHICH, st.sampled_from((0, 0, 1, -1)))
_FIELDS = st.lists(st.sampled_from((*FILTER_FIELDS, "tag:team")), max_size=2, unique=True)


class CallsParity(Contest):
    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.parties = arena.empty()
        self.last: list[CallRecord] = []
        self.oldest: datetime | None = None
        self.recorded: list[CallRecord] = []
        self.poisoned = 0
        self.agree(opened, lambda status: (status.pending, status.writable))

    def _record(self, calls: list[CallRecord]) -> None:
        self.agree(lambda backend: backend.record_calls(calls))
        self.last = calls
        self.recorded += calls
        self.oldest = min((call.called_at for call in calls), default=self.oldest)

    @rule(batch=st.lists(values.calls(), min_size=1, max_size=6))
    def record(self, batch: list[Fields]) -> None:
        self._record([make_call(**fields) for fields in batch])

    @rule(n=st.integers(1, 60), seed=st.integers(0, 9), days=st.sampled_from((0.1, 3, 400)))
    def record_crowd(self, n: int, seed: int, days: float) -> None:
        self._record(make_calls(n, seed, days=days))

    @rule(fields=values.calls())
    def record_every_name_and_tag(self, fields: Fields) -> None:
        tags = [{"id_at_origin": None, "metadata": {"team": tag}} for tag in values.SCALARS]
        names = [
            {"origin": name, "id_at_origin": user, "error_type": name}
            for name, user in zip(values.NAMES, reversed(values.NAMES), strict=True)
        ]
        self._record(
            [
                make_call(**{**fields, **changes, "id": UUID(int=2**90 + number)})
                for number, changes in enumerate((*tags, *names))
            ]
        )

    @precondition(lambda self: self.last)
    @rule(fields=values.calls())
    def record_last_batch_again(self, fields: Fields) -> None:
        self._record([make_call(**fields), *self.last, *self.last[:2]][:MAX_BATCH])

    @precondition(lambda self: self.oldest is not None and self.oldest - EARLIEST > timedelta(days=40))
    @rule(fields=values.calls(), by=st.sampled_from((timedelta(microseconds=1), timedelta(days=1), timedelta(days=40))))
    def record_late(self, fields: Fields, by: timedelta) -> None:
        assert self.oldest is not None
        self._record([make_call(**{**fields, "called_at": self.oldest - by})])

    @rule(fields=values.calls())
    def record_too_many(self, fields: Fields) -> None:
        call = make_call(**fields)
        self.agree(lambda backend: backend.record_calls([call] * (MAX_BATCH + 1)))

    @rule(
        before=st.lists(values.calls(), max_size=2),
        poison=st.sampled_from(values.POISON),
        after=st.lists(values.calls(), max_size=2),
        padding=st.sampled_from((0, 60)),
    )
    def record_poison(self, before: list[Fields], poison: Fields, after: list[Fields], padding: int) -> None:
        """Every database refuses the whole batch; memory could hold it, and is not asked. No purge has
        come so far that it would be too late."""
        self.poisoned += 1
        bad = make_call(id=UUID(int=2**100 + self.poisoned), called_at=values.TIMES[-1], **poison)
        batch = [make_call(**fields) for fields in before]
        batch += [bad, *make_calls(padding), *(make_call(**fields) for fields in after)]
        self.agreed = False
        _, *databases = self.parties
        answers = self.arena.of_all(
            {name: self.parties[name] for name in databases}, lambda backend: outcome(backend.record_calls(batch))
        )
        for name, answer in answers.items():
            assert isinstance(answer, Raised), f"{name} took {poison!r}: {answer!r}"
            assert answer.kind is RecordRejectedError, f"{name} refuses {poison!r} with {answer!r}"
            assert set(answer.attributes["ids"]) <= {bad.id}, f"{name} blames others than {bad.id}: {answer!r}"
        self.agreed = True

    @rule(
        filters=values.filters(),
        since=values.or_none(values.times),
        until=values.or_none(values.times),
        after=values.or_none(st.tuples(values.times, values.ids)),
        ids=values.or_none(st.lists(values.ids, max_size=4).map(tuple)),
        limit=st.sampled_from((100, 1, 2, 1000)),
    )
    def list_calls(self, **query: Any) -> None:
        self.agree(lambda backend: backend.list_calls(CallQuery(**query)))

    @rule(filters=values.filters(), limit=st.integers(1, 20))
    def page(self, filters: Any, limit: int) -> None:
        query = CallQuery(filters, limit=limit)
        for _ in range(6):
            after = self.agree(lambda backend, query=query: backend.list_calls(query)).next
            if after is None:
                break
            query = replace(query, after=after)

    @rule(
        filters=values.filters(),
        groupings=st.lists(values.groupings(), min_size=1, max_size=3),
        edges=values.edges,
    )
    def summarize(self, filters: Any, groupings: list[tuple[str, ...]], edges: tuple[datetime, ...]) -> None:
        for group_by in groupings:
            query = UsageQuery(filters, group_by, edges)
            self.agree(lambda backend, query=query: backend.summarize_usage(query))

    @precondition(lambda self: self.recorded)
    @rule(which=WHICH, fields=_FIELDS, moments=st.lists(_MOMENT, max_size=2), limit=st.sampled_from((1000, 1, 2)))
    def list_calls_like(self, which: int, fields: list[str], moments: list[Any], limit: int) -> None:
        """Ask by what one of the calls has, from and to the moments of calls, or right beside them."""
        edges = self._edges(moments)
        since, until = (edges[0], edges[1]) if len(edges) > 1 else (None, *edges, None)[:2]
        after = self.call(which) if limit == 2 else None
        query = CallQuery(
            self._filters(which, fields),
            since,
            until,
            limit,
            (after.called_at, after.id) if after is not None else None,
        )
        self.agree(lambda backend: backend.list_calls(query))

    @precondition(lambda self: self.recorded)
    @rule(
        which=WHICH,
        fields=_FIELDS,
        groupings=st.lists(values.groupings(), min_size=1, max_size=3),
        moments=st.lists(_MOMENT, max_size=3),
    )
    def summarize_like(
        self, which: int, fields: list[str], groupings: list[tuple[str, ...]], moments: list[Any]
    ) -> None:
        edges = self._edges(moments)
        edges = edges if len(edges) > 1 else tuple(sorted({EARLIEST, *edges, LATEST}))
        for group_by in groupings:
            query = UsageQuery(self._filters(which, fields), group_by, edges)
            self.agree(lambda backend, query=query: backend.summarize_usage(query))

    def call(self, which: int) -> CallRecord:
        return self.recorded[-1 - which % len(self.recorded)]

    def _filters(self, which: int, fields: list[str]) -> dict[str, tuple[str | None, ...]]:
        call = self.call(which)
        return {field: (field_value(call, field),) for field in fields}

    def _edges(self, moments: list[tuple[int, int]]) -> tuple[datetime, ...]:
        """Instants of recorded calls, or so many microseconds beside."""
        edges = set()
        for which, beside in moments:
            at = self.call(which).called_at
            edges.add(at if at == EARLIEST else at + timedelta(microseconds=beside))
        return tuple(sorted(edges))

    @rule(
        filters=values.filters(),
        group_by=values.groupings(periods=()),
        unit=st.sampled_from(UNITS),
        tz=st.sampled_from(values.ZONES),
        since=values.times,
        hours=st.sampled_from((1, 25, 24 * 40)),
    )
    def summarize_by_period(
        self, filters: Any, group_by: tuple[str, ...], unit: str, tz: str, since: datetime, hours: int
    ) -> None:
        assume(2 < since.year < 9998)
        edges = split(since, since + timedelta(hours=hours), unit, zone(tz)).edges
        query = UsageQuery(filters, ("period", *group_by), edges)
        self.agree(lambda backend: backend.summarize_usage(query))

    @rule(fields=values.calls())
    def reopen(self, fields: Fields) -> None:
        self.agree(lambda backend: backend.disconnect())
        self.agree(lambda backend: backend.record_calls([make_call(**fields)]))
        self.agree(opened, lambda status: (status.pending, status.writable))

    def look_closer(self) -> None:
        """What else must be the same at the end."""

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.agree(_everything)
                self.look_closer()
        finally:
            self.arena.of_all(self.parties, lambda backend: backend.disconnect())


async def _everything(backend: StorageBackend) -> tuple[Any, ...]:
    groupings = (
        (),
        ("tag:team", "status"),
        ("id_at_origin", "origin", "model_name"),
        ("id_at_origin", "origin", "error_type", "model_name", "provider"),
        ("response_model", "model_name"),
    )
    return (
        await backend.list_calls(CallQuery(limit=1000)),
        *[await outcome(backend.summarize_usage(UsageQuery(group_by=group_by))) for group_by in groupings],
    )
