"""Totals as a backend may keep them: sheets, each the sums of a stretch of time, packed into three JSON texts.

A *time sheet* holds the calls of one origin in one cell of `coverage.GRAINS`, a *user sheet* those of one user of an
origin in one UTC day. A sheet has a line for each (provider, model_name, status), in no order. Its texts are made for
those who do not ask by status, who are most:

- sums, a list of `[provider, model_name, {status: calls}, *numbers]` over all statuses;
- failures, a list of `[provider, model_name, status, *numbers]` for each status but success, which is what they leave;
- histograms, for each item of the sums a pair `[response time, first token]`, which only successful calls have.

Numbers are in the order of `NUMBERS`, without the calls and with the zeros at the end left out. JSON has no largest
integer, so every sum stays exact.

A histogram is a text of numbers with commas between, each `(calls - 1) * 4096 + bucket`, in which a bucket may stand
more than once: two are added by writing one after the other, and counted only when they have become long.

A backend folds calls into sheets some time after they were recorded, keeps what it is given by key, and adds sheets
of one key with `extend`. It never needs to look inside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import pairwise
from operator import add, sub
from typing import Any

from pydantic_core import from_json

from .._shared.json_text import encode_json
from .._shared.money import from_units, to_units
from .reference import GRAINS as KEPT
from .reference import NEVER_PRICED
from .toolkit.time_cells import EPOCH, GRAINS, SECOND, USER_GRAINS, micros
from .types import Grain, TotalsRow, UsageRow

#: What a line counts, in units of 1e-12 dollar and ms. What a failed call seldom has comes last.
NUMBERS = (
    "calls",
    "requests",
    "unmeasured_calls",
    "unpriced_calls",
    "cost",
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "response_time_ms_count",
    "response_time_ms_sum",
    "cache_read_tokens",
    "reasoning_tokens",
    "cache_write_tokens",
)
_COST = NUMBERS.index("cost")
_ZEROS = [0] * (len(NUMBERS) - 1)
#: How so many numbers are written.
_FORMATS = [",".join(["%d"] * used) for used in range(len(NUMBERS))]

#: (provider, model_name, status).
LineKey = tuple[str, str, str]
#: Sums, failures, histograms.
Texts = tuple[str, str, str]
#: (origin, id_at_origin, start); no user is ''.
UserKey = tuple[str, str, int]
#: (grain, start, origin).
TimeKey = tuple[int, int, str]

SUCCESS = "success"

#: Every bucket of `storage.histogram` is smaller.
_BUCKETS = 4096
_LONG = 1_500


@dataclass(slots=True, eq=False)
class Line:
    """The sums of one line. What it holds is replaced, never changed in place."""

    numbers: Sequence[int] = (0,) * len(NUMBERS)
    response: str = ""
    first_token: str = ""

    def add(self, other: Line) -> None:
        """Add the sums of another line."""
        self.numbers = list(map(add, self.numbers, other.numbers))
        self.response = _joined(self.response, other.response)
        self.first_token = _joined(self.first_token, other.first_token)

    def negative(self) -> Line:
        """What takes these sums away."""
        response, first_token = (
            written({bucket: -calls for bucket, calls in counts(histogram).items()})
            for histogram in (self.response, self.first_token)
        )
        return Line([-number for number in self.numbers], response, first_token)

    def counted(self) -> tuple[tuple[int, ...], dict[int, int], dict[int, int]]:
        """What it says, however its histograms are written."""
        return tuple(self.numbers), counts(self.response), counts(self.first_token)


Sheet = dict[LineKey, Line]

_NOBODYS: LineKey = ("", "", "")
_CONTRADICTION = Line((1, *_ZEROS))


def pack(sheet: Mapping[LineKey, Line]) -> Texts:
    """The texts of a sheet. Lines that count nothing are left out, and a line that counts something has calls."""
    return extend(("[]", "[]", "[]"), sheet)


def extend(kept: Texts, sheet: Mapping[LineKey, Line]) -> Texts:
    """The texts of a kept sheet with the lines of `sheet` added. Its other lines are not read, which is most of what
    folding would cost."""
    before, failures, times = kept
    sums, histograms = _lines(before), _lines(times)
    models: dict[tuple[str, str], list[tuple[str, Line]]] = {}
    for (provider, model_name, status), line in sheet.items():
        models.setdefault((provider, model_name), []).append((status, line))
    failed: dict[LineKey, list[int]] = {}
    for model, lines in models.items():
        begin = _begin(model)
        at = _find(before, begin)
        by_status, *numbers = [{}] if at is None else _said(sums[at], begin)
        response, first_token = ("", "") if at is None else histograms[at][2:-2].split('","')
        for status, line in lines:
            calls, *others = line.numbers
            by_status[status] = by_status.get(status, 0) + calls
            numbers = _plus(numbers, others)
            if status == SUCCESS:
                response, first_token = _joined(response, line.response), _joined(first_token, line.first_token)
            else:
                failed[*model, status] = others
        counted = ",".join([f"{_quoted(status)}:{calls}" for status, calls in by_status.items() if calls])
        line_of_sums = _line(begin, numbers, f"{{{counted}}}" if counted or any(numbers) else "")
        _put(sums, at, line_of_sums)
        _put(histograms, at, f'["{response}","{first_token}"]' if line_of_sums else "")
    return _text(sums), _failures(failures, failed) if failed else failures, _text(histograms)


def _failures(kept: str, failed: Mapping[LineKey, list[int]]) -> str:
    lines = _lines(kept)
    for key, numbers in failed.items():
        begin = _begin(key)
        at = _find(kept, begin)
        _put(lines, at, _line(begin, numbers if at is None else _plus(_said(lines[at], begin), numbers)))
    return _text(lines)


def _lines(text: str) -> list[str]:
    """The items of a JSON list, each of which stands on a line of its own: within an item JSON has no line breaks."""
    return text[2:-2].split(",\n") if len(text) > 2 else []


def _text(lines: Iterable[str]) -> str:
    """The text of lines, of which '' are left out."""
    left = list(filter(None, lines))
    return "".join(("[\n", ",\n".join(left), "\n]")) if left else "[]"


@lru_cache(maxsize=4096)
def _begin(key: tuple[str, ...]) -> str:
    """What stands before what a line says of its key, from the end of the line above on."""
    return f"\n{encode_json(key)[:-1]},"


def _find(text: str, begin: str) -> int | None:
    """Which line it is that begins so; None: none."""
    at = text.find(begin)
    return None if at < 0 else text.count("\n", 0, at)


def _said(line: str, begin: str) -> list[Any]:
    return list(from_json("[" + line[len(begin) - 1 :]))


def _line(begin: str, numbers: list[int], counted: str = "") -> str:
    """A line that says this; '' if it says nothing."""
    used = len(numbers)
    while used and not numbers[used - 1]:
        used -= 1
    said = _FORMATS[used] % tuple(numbers[:used])
    said = f"{counted},{said}" if counted and said else counted or said
    return f"{begin[1:]}{said}]" if said else ""


def _put(lines: list[str], at: int | None, line: str) -> None:
    if at is None:
        lines.append(line)
    else:
        lines[at] = line


@lru_cache(maxsize=64)
def _quoted(status: str) -> str:
    return encode_json(status)


def _plus(kept: list[int], numbers: list[int]) -> list[int]:
    """Numbers added to some of which the zeros at the end are left out."""
    return [*map(add, kept, numbers), *numbers[len(kept) :]] if kept else numbers


def split(sums: Sequence[list[Any]], failures: Iterable[list[Any]]) -> Iterator[tuple[int | None, list[Any]]]:
    """For each status of each of the `sums`: where its histograms are (None: it has none), and its line, as if it were
    one of the sums, with all numbers."""
    failed = {(provider, model_name, status): numbers for provider, model_name, status, *numbers in failures}
    for index, (provider, model_name, by_status, *numbers) in enumerate(sums):
        left = full(numbers)
        for status in by_status.keys() - {SUCCESS}:
            of_status = full(failed.get((provider, model_name, status), []))
            left = list(map(sub, left, of_status))
            yield None, [provider, model_name, {status: by_status[status]}, *of_status]
        if SUCCESS in by_status or any(left):
            yield index, [provider, model_name, {SUCCESS: by_status.get(SUCCESS, 0)}, *left]


def full(numbers: list[int]) -> list[int]:
    """The numbers of a line with the zeros at the end."""
    return numbers + _ZEROS[len(numbers) :]


def unpack(sums: str, failures: str, histograms: str) -> Sheet:
    """The sheet of three texts."""
    return _sheet(from_json(sums), from_json(failures), from_json(histograms))


def _sheet(sums: Sequence[list[Any]], failures: Sequence[list[Any]], histograms: Sequence[list[str]]) -> Sheet:
    sheet: Sheet = {}
    for index, (provider, model_name, by_status, *numbers) in split(sums, failures):
        [(status, calls)] = by_status.items()
        line = Line([calls, *numbers], *(() if index is None else histograms[index]))
        sheet[provider, model_name, status] = line
    return sheet


def examine(sums: str, failures: str, histograms: str) -> Sheet:
    """The sheet of three texts to be compared with what calls make. Where they contradict each other it has a line that
    no calls make, and that alone where they cannot be read together."""
    lines, failed, pairs = from_json(sums), from_json(failures), from_json(histograms)
    if len(lines) != len(pairs):
        return {_NOBODYS: _CONTRADICTION}
    sheet = _sheet(lines, failed, pairs)
    models = {tuple(line[:2]) for line in lines}
    counted = {(*line[:2], status) for line in lines for status in line[2]} - {(*model, SUCCESS) for model in models}
    told = {tuple(line[:3]) for line in failed}
    is_timed = all(SUCCESS in line[2] or not any(pair) for line, pair in zip(lines, pairs, strict=True))
    if len(models) < len(lines) or len(told) < len(failed) or not told <= counted or not is_timed:
        sheet[_NOBODYS] = _CONTRADICTION
    return sheet


def merge(sheet: Sheet, other: Mapping[LineKey, Line]) -> None:
    """Add the lines of `other` to `sheet`."""
    for key, line in other.items():
        _add(sheet, key, line)


def _add(sheet: Sheet, key: LineKey, line: Line) -> None:
    kept = sheet.get(key)
    if kept is None:
        sheet[key] = Line(line.numbers, line.response, line.first_token)
    else:
        kept.add(line)


def counts(histogram: str) -> dict[int, int]:
    """bucket -> calls, in order and without zeros, of a histogram's text."""
    found: dict[int, int] = {}
    for text, times in Counter(histogram.split(",")).items() if histogram else ():
        number = int(text)
        bucket = number % _BUCKETS
        found[bucket] = found.get(bucket, 0) + (number // _BUCKETS + 1) * times
    return {bucket: found[bucket] for bucket in sorted(found) if found[bucket]}


def written(histogram: Mapping[int, int]) -> str:
    """The text of a histogram."""
    return ",".join([str((calls - 1) * _BUCKETS + bucket) for bucket, calls in histogram.items()])


def _joined(histogram: str, more: str) -> str:
    """Both, counted each time that they have become longer by another `_LONG`."""
    joined = f"{histogram},{more}" if histogram and more else histogram or more
    return written(counts(joined)) if len(joined) // _LONG > len(histogram) // _LONG else joined


@dataclass(slots=True)
class Sheets:
    """Sheets of both kinds by key, which are added to those that are kept."""

    users: defaultdict[UserKey, Sheet] = field(default_factory=lambda: defaultdict(dict))
    times: defaultdict[TimeKey, Sheet] = field(default_factory=lambda: defaultdict(dict))

    def add(self, origin: str, user: str | None, called_at: int, key: LineKey, line: Line) -> None:
        """Add a line that sums calls of one quarter of an hour, that of `called_at` (microseconds)."""
        second = called_at // SECOND
        place_line(self, (origin, user or "", second // USER_GRAINS[0] * USER_GRAINS[0]), key, line)
        place_line(self, (GRAINS[-1], second // GRAINS[-1] * GRAINS[-1], origin), key, line)

    def lines(self) -> int:
        """How many lines there are."""
        return sum(map(len, (*self.users.values(), *self.times.values())))


def place_line(sheets: Sheets, place: UserKey | TimeKey, key: LineKey, line: Line) -> None:
    """Add a line to the sheet of a user's day, or to that of a quarter of an hour and the coarser ones around it."""
    if isinstance(place[0], str):
        merge(sheets.users[place], {key: line})
        return
    _, start, origin = place
    for grain in GRAINS:
        merge(sheets.times[grain, int(start) // grain * grain, str(origin)], {key: line})


def compare(kept: Sheets, expected: Sheets) -> tuple[int, Sheets]:
    """How many lines either has, and those that are not the same in both."""
    checked, wrong = 0, Sheets()
    kinds: tuple[tuple[dict[Any, Sheet], dict[Any, Sheet], defaultdict[Any, Sheet]], ...] = (
        (kept.users, expected.users, wrong.users),
        (kept.times, expected.times, wrong.times),
    )
    for mine, theirs, differing in kinds:
        for place in {**mine, **theirs}:
            one, other = mine.get(place, {}), theirs.get(place, {})
            for key in {**one, **other}:
                checked += 1
                right = other.get(key, Line())
                if one.get(key, Line()).counted() != right.counted():
                    differing[place][key] = right
    return checked, wrong


#: Sums of calls of one line as `fold` takes them, in this order: origin, user ('' for none; only where they are of a
#: user), start of the cell in seconds, provider, model_name, status, histograms of response times and of first tokens
#: (None: none), and the numbers in the order of NUMBERS.
Sums = tuple[Any, ...]


def fold(users: Iterable[Sums], quarters: Iterable[Sums]) -> Sheets:
    """The sheets of calls that a backend has summed: by day and user, and by quarter of an hour. Sums of one line may
    come in parts."""
    sheets = Sheets()
    for origin, user, start, provider, model_name, status, response, first_token, *numbers in users:
        line = Line(numbers, response or "", first_token or "")
        _add(sheets.users[origin, user, start], (provider, model_name, status), line)
    for origin, start, provider, model_name, status, response, first_token, *numbers in quarters:
        line = Line(numbers, _joined("", response or ""), _joined("", first_token or ""))
        _add(sheets.times[GRAINS[-1], start, origin], (provider, model_name, status), line)
    for coarse, fine in reversed(list(pairwise(GRAINS))):
        for (grain, start, origin), sheet in list(sheets.times.items()):
            if grain == fine:
                merge(sheets.times[coarse, start // coarse * coarse, origin], sheet)
    return sheets


def cost_change(before: tuple[int | None, str | None], after: tuple[int | None, str | None], measured: bool) -> Line:
    """What a new (cost in units, cost_reason) of a call changes in its line; `measured`: it has total_tokens."""
    numbers = dict.fromkeys(NUMBERS, 0)
    for sign, (cost, reason) in ((-1, before), (1, after)):
        numbers["cost"] += sign * (cost or 0)
        numbers["unpriced_calls"] += sign * (cost is None and reason not in NEVER_PRICED)
        numbers["unmeasured_calls"] += sign * (not measured and reason != "not_billed")
    return Line(list(numbers.values()))


def kept_seconds(grain: Grain) -> int:
    """The length in seconds of a cell of purged totals."""
    return int(KEPT[grain] / timedelta(seconds=1))


def rows_of(
    grain: Grain, start: int, origin: str, user: str | None, sheet: Mapping[LineKey, Line]
) -> Iterator[TotalsRow]:
    """The contract's rows of a sheet, in their order; a day's are those of a user, '' for None."""
    for provider, model_name, status in sorted(sheet):
        key: dict[str, str | None] = {"origin": origin}
        if grain == "day":
            key["id_at_origin"] = user or None
        key |= {"provider": provider, "model_name": model_name, "status": status}
        yield TotalsRow(
            grain, EPOCH + timedelta(seconds=start), key, _sums(status, sheet[provider, model_name, status])
        )


def line_of(row: TotalsRow) -> tuple[UserKey | TimeKey, LineKey, Line]:
    """Where a row of the contract belongs among sheets, and its line."""
    key, start = row.key, micros(row.start) // SECOND
    origin = str(key["origin"])
    numbers = [getattr(row.sums, name) for name in NUMBERS]
    numbers[_COST] = to_units(row.sums.cost)
    line = Line(numbers, written(row.sums.response_time_histogram), written(row.sums.first_token_histogram))
    place: UserKey | TimeKey = (
        (origin, key["id_at_origin"] or "", start) if row.grain == "day" else (kept_seconds(row.grain), start, origin)
    )
    return place, (str(key["provider"]), str(key["model_name"]), str(key["status"])), line


def _sums(status: str, line: Line) -> UsageRow:
    numbers: dict[str, Any] = dict(zip(NUMBERS, line.numbers, strict=True))
    numbers["cost"] = from_units(numbers["cost"])
    return UsageRow(
        by_status={status: line.numbers[0]},
        response_time_histogram=counts(line.response),
        first_token_histogram=counts(line.first_token),
        **numbers,
    )
