"""Tables on terminals of every width: numbers are never cut, names may be wrapped."""

from __future__ import annotations

import io
import re
import sys

import pytest

from llmbridge.cli import output
from llmbridge.cli.output import Column

COLUMNS = [Column("model"), Column("time", "mark"), Column("to|kens", "figure"), Column("idle", "figure")]
ROWS = [["openai:a-model-with-a-long-name", "12:00:00", "1,234,567,890", "0"], ["tiny", "12:00:01", "1", "0"]]
TOTAL = ["total", "", "1,234,567,891", "0"]


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> list[str]:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    output.table(COLUMNS, ROWS, TOTAL)
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("width", [120, 80, 60, 50, 45, 40, 36, 30, 20])
def test_no_figure_is_ever_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> None:
    lines = printed(monkeypatch, capsys, width)
    text = "\n".join(lines)
    for whole in ("1,234,567,890", "1,234,567,891", "12:00:00", "tiny"):
        assert whole in text
    assert "…" not in text
    assert "".join("".join(line.split()) for line in lines).count("openai:a-") == 1


@pytest.mark.parametrize("width", [120, 80, 60, 50, 45, 40])
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    assert max(map(len, printed(monkeypatch, capsys, width))) <= width


def test_first_gaps_give_way_then_names_then_empty_columns_then_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(monkeypatch, capsys, 80)[1] == "  ".join([*ROWS[0][:3], "   0"])
    assert printed(monkeypatch, capsys, 60)[1] == " ".join([*ROWS[0][:3], "   0"])
    assert printed(monkeypatch, capsys, 45)[1].split() == ["openai:a-model-wi", *ROWS[0][1:]]
    assert printed(monkeypatch, capsys, 38)[-1] == "0 everywhere: idle"
    assert printed(monkeypatch, capsys, 33)[:2] == [
        "openai:a-model-with-a-long-name  12:00:00",
        "  tokens 1,234,567,890, idle 0",
    ]


def test_what_is_no_terminal_has_any_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    output.table([Column("name"), Column("cost $", "figure")], [["n" * 300, "0.000000000001"]])
    assert capsys.readouterr().out.splitlines()[1] == f"{'n' * 300}  0.000000000001"


def test_an_encoding_without_the_character_escapes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", written)
    output.json({"name": "né"})
    output.line(output.at_least("né"))
    written.seek(0)
    assert written.read() == '{\n  "name": "n\\u00e9"\n}\n>= n\\xe9\n'
