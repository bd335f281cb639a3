"""Output: tables that never cut a number, JSON, plain lines, and notes on stderr."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from rich.console import Console

#: The smallest width to which a column of names is folded, in cells.
_MIN_WIDTH = 12

#: Control characters and those that change the direction of text: a name must not control the terminal.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class OutputError(Exception):
    """stdout cannot be written, although it is not a closed pipe; the cause says why."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. A `name` is aligned left and may be folded; a `figure` is aligned right and a `mark` left,
    and they are never folded. `|` in the header is where it may be broken in a narrow terminal.
    """

    header: str
    kind: Literal["name", "mark", "figure"] = "name"

    @property
    def title(self) -> str:
        """Return the header on one line."""
        return self.header.replace("|", "")

    @property
    def tall_title(self) -> str:
        """Return the header on as many lines as possible."""
        return self.header.replace("| ", "\n").replace("|", "-\n")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Print rows of text. `total` is the last row, in bold.

    If the terminal is too narrow, columns move together, then names are folded, then headers, then columns with only
    zeros are left out (and named), and at last each row is printed as a list. Output that is not a terminal has no
    limit.
    """
    from rich.console import Console

    terminal = Console()
    lines = [[clean(cell) for cell in row] for row in (*rows, *([total] if total is not None else []))]
    every = range(len(columns))
    busy = [i for i in every if columns[i].kind != "figure" or any(row[i] != "0" for row in lines)]
    for chosen, gap, tall, folded in (
        (every, 2, False, False),
        (every, 1, False, False),
        (every, 1, False, True),
        (every, 1, True, True),
        (busy, 1, True, True),
    ):
        shown = [columns[i] for i in chosen]
        titles = [column.tall_title if tall else column.title for column in shown]
        cells = [[row[i] for i in chosen] for row in lines]
        room = terminal.width - gap * (len(shown) - 1) if terminal.is_terminal else None
        widths = _widths(shown, [titles, *cells], room, folded=folded)
        if widths is None:
            continue
        _print_table(terminal, shown, titles, cells, widths, gap=gap, with_total=total is not None)
        if idle := [columns[i].title for i in every if i not in chosen]:
            line(f"0 everywhere: {', '.join(idle)}")
        return
    _print_list(terminal.width, columns, lines)


def json(document: Any) -> None:
    """Print one JSON document."""
    from json import dumps

    ascii_only = not _is_unicode()
    line(dumps(document, default=_jsonable, indent=2, ensure_ascii=ascii_only, allow_nan=False))


def line(text: str) -> None:
    """Print text, and end the line."""
    write(text if text.endswith("\n") else text + "\n")


def write(text: str) -> None:
    """Print text; characters that the encoding does not have are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError from error


def prose(text: str) -> None:
    """Print text of several lines, without control characters if it goes to a terminal."""
    if sys.stdout.isatty():
        text = "\n".join("\t".join(map(clean, one.split("\t"))) for one in text.split("\n"))
    line(text)


def note(text: str, end: str = "\n") -> None:
    """Print a line to stderr, which is not part of the result. A question ends with `end` instead."""
    encoding = (sys.stderr and sys.stderr.encoding) or "utf-8"
    # Without a stderr there is nowhere to say it.
    with contextlib.suppress(OSError, AttributeError):
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, end=end, flush=True)  # noqa: T201


def flush() -> None:
    """Flush stdout, so that a closed pipe raises here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError from error


def clean(text: str) -> str:
    """Return text on one line, without control characters."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\n", " "))


def count(number: int | None) -> str:
    """Return a number with thousands separators; `-` for None."""
    return "-" if number is None else f"{number:,}"


def tokens(number: int | None) -> str:
    """Return a number of tokens in words; None is unknown."""
    return "unknown" if number is None else f"{number:,} token{'' if number == 1 else 's'}"


def calls(number: int) -> str:
    """Return a number of calls in words."""
    return f"{number:,} call{'' if number == 1 else 's'}"


def at_least(text: str) -> str:
    """Return a sum marked as one that may be larger."""
    return f"≥ {text}" if _is_unicode() else f">= {text}"


def money(dollars: Decimal | None) -> str:
    """Return an amount of dollars without trailing zeros; `-` for None."""
    from ..reports import money_text

    return "-" if dollars is None else money_text(dollars)


def moment(at: datetime | None) -> str | None:
    """Return a time in ISO 8601, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _jsonable(value: Any) -> Any:
    match value:
        case Decimal():
            return money(value)
        case datetime():
            return moment(value)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _widths(
    columns: Sequence[Column], lines: Sequence[Sequence[str]], room: int | None, *, folded: bool
) -> list[int] | None:
    """Return a width for each column; None if they do not fit in `room` cells (None: there is no limit)."""
    from rich.cells import cell_len

    widths = [max(cell_len(text) for row in lines for text in row[i].split("\n")) for i in range(len(columns))]
    while room is not None and sum(widths) > room:
        foldable = [
            i for i, column in enumerate(columns) if folded and column.kind == "name" and widths[i] > _MIN_WIDTH
        ]
        if not foldable:
            return None
        widths[max(foldable, key=lambda i: widths[i])] -= 1
    return widths


def _print_table(
    terminal: Console,
    columns: Sequence[Column],
    titles: Sequence[str],
    lines: Sequence[Sequence[str]],
    widths: Sequence[int],
    *,
    gap: int,
    with_total: bool,
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # The gap is a column: the width of padding differs between releases of rich.
    laid_out = Table(box=None, padding=0, pad_edge=False, header_style="bold")
    for number, (column, title, width) in enumerate(zip(columns, titles, widths, strict=True)):
        if number:
            laid_out.add_column(width=gap)
        justify: Literal["left", "right"] = "right" if column.kind == "figure" else "left"
        laid_out.add_column(Text(title), justify=justify, vertical="top", width=width, overflow="fold")
    for number, cells in enumerate(lines, 1):
        is_total = with_total and number == len(lines)
        parts = [part for cell in cells for part in ("", Text(cell))]
        laid_out.add_row(*parts[1:], style="bold" if is_total else None)

    printed = io.StringIO()
    # Into memory: only `write` may write to a pipe that may be closed.
    Console(
        file=printed,
        width=sum(widths) + gap * (len(widths) - 1),
        force_terminal=terminal.is_terminal,
        no_color=terminal.no_color,
        highlight=False,
    ).print(laid_out)
    write("".join(f"{text.rstrip()}\n" for text in printed.getvalue().splitlines()))


def _print_list(width: int, columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> None:
    for cells in lines:
        named = list(zip(columns, cells, strict=True))
        line("  ".join(cell for column, cell in named if column.kind != "figure" and cell))
        said = ""
        for pair in (f"{column.title} {cell}" for column, cell in named if column.kind == "figure"):
            if said and len(said) + len(pair) + 5 > width:
                line(f"  {said},")
                said = ""
            said += f", {pair}" if said else pair
        if said:
            line(f"  {said}")
