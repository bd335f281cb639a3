"""What is printed: tables that never cut a figure, JSON, plain lines, and notes on stderr."""

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

#: A column of names is folded down to this many cells before anything else gives way.
_NARROWEST = 12

#: Control characters and those that turn the direction of text: whoever wrote a name may not steer the terminal.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class OutputError(Exception):
    """stdout does not take what is printed, though somebody still reads; the cause says why."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `name` stands left and may be folded, `figure` right and `mark` left, never folded.

    `|` in the header is where a narrow terminal may break it.
    """

    header: str
    kind: Literal["name", "mark", "figure"] = "name"

    @property
    def title(self) -> str:
        """The header on one line."""
        return self.header.replace("|", "")

    @property
    def tall_title(self) -> str:
        """The header on as many lines as it may have."""
        return self.header.replace("| ", "\n").replace("|", "-\n")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Print rows of text; `total` is the last one, set apart.

    Where the terminal is too narrow, columns move together, then names are folded, then headers, then
    columns of nothing but zeros left out (and named), then each row becomes a list of its own. What is not a terminal
    has any width.
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
    """Print text as it is, and end the line."""
    write(text if text.endswith("\n") else text + "\n")


def write(text: str) -> None:
    """Print text as it is; what the terminal's encoding does not have is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError from error


def prose(text: str) -> None:
    """Print text of several lines; a terminal gets nothing in it that could steer it."""
    if sys.stdout.isatty():
        text = "\n".join("\t".join(map(clean, one.split("\t"))) for one in text.split("\n"))
    line(text)


def note(text: str) -> None:
    """Say something that is not the result, on stderr."""
    encoding = (sys.stderr and sys.stderr.encoding) or "utf-8"
    # Without anybody to tell there is nothing left to do.
    with contextlib.suppress(OSError, AttributeError):
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)  # noqa: T201


def flush() -> None:
    """Hand all output over now, so that a closed pipe shows here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError from error


def clean(text: str) -> str:
    """Text on one line that a terminal only shows."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\n", " "))


def count(number: int | None) -> str:
    """A number with its thousands set apart; `-` for None."""
    return "-" if number is None else f"{number:,}"


def tokens(number: int | None) -> str:
    """A number of tokens in words; None is unknown."""
    return "unknown" if number is None else f"{number:,} token{'' if number == 1 else 's'}"


def calls(number: int) -> str:
    """A number of calls in words."""
    return f"{number:,} call{'' if number == 1 else 's'}"


def at_least(text: str) -> str:
    """The mark of a sum that may be larger."""
    return f"≥ {text}" if _is_unicode() else f">= {text}"


def moment(at: datetime | None) -> str | None:
    """A time in ISO 8601, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _jsonable(value: Any) -> Any:
    from .._shared.money import text

    match value:
        case Decimal():
            return text(value)
        case datetime():
            return moment(value)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _widths(
    columns: Sequence[Column], lines: Sequence[Sequence[str]], room: int | None, *, folded: bool
) -> list[int] | None:
    """A width for each column; None when they do not fit in `room`, of which there is any where it is None."""
    from rich.cells import cell_len

    widths = [max(cell_len(text) for row in lines for text in row[i].split("\n")) for i in range(len(columns))]
    while room is not None and sum(widths) > room:
        foldable = [
            i for i, column in enumerate(columns) if folded and column.kind == "name" and widths[i] > _NARROWEST
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

    # The gap is a column of its own: padding has another width from one release of rich to the next.
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
    # One that writes to memory: only `write` may meet the pipe that nobody reads any more.
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
