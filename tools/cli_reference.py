"""Generator of `docs/cli.md` from the objects that `llmbridge --help` prints.

    python tools/cli_reference.py        # writes the page

A test compares the committed page with `page()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from llmbridge.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

HEAD = """\
# Command line

Every command and option of `llmbridge`. [Operating](operating.md) explains when to use which. This page is generated
from the commands' `--help` by `python tools/cli_reference.py`; do not edit it.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    root = get_command(app)
    common = {param.opts[0] for param in root.params if param.opts[0] != "--version"}
    sections = [HEAD, "## llmbridge", _text(root), _table(root, frozenset()), *_paragraphs(root.epilog)]
    for name, command in _commands("llmbridge", root):
        sections += [f"## {name}", f"`{_usage(name, command)}`", _text(command), _table(command, common)]
        shared = [f"`{param.opts[0]}`" for param in command.params if param.opts[0] in common]
        if shared:
            sections.append(f"Common options: {', '.join(shared)}.")
    return "\n\n".join(filter(None, (section.strip() for section in sections))) + "\n"


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command below `group`, and every group before its commands."""
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(f"{prefix} {name}", command)


def _usage(name: str, command: Any) -> str:
    if hasattr(command, "commands"):
        return f"{name} COMMAND"
    given = [param for param in command.params if param.param_type_name == "argument"]
    return " ".join((name, "[OPTIONS]", *(p.metavar if p.required else f"[{p.metavar}]" for p in given)))


def _text(command: Any) -> str:
    return "\n\n".join(_paragraphs(command.help))


def _paragraphs(text: str | None) -> list[str]:
    return [_plain(" ".join(part.split())) for part in (text or "").split("\n\n")]


def _table(command: Any, common: set[str] | frozenset[str]) -> str:
    rows = [_row(param) for param in command.params if param.opts[0] not in common]
    return "\n".join(("| argument or option | meaning |", "|---|---|", *rows)) if rows else ""


def _row(param: Any) -> str:
    if param.param_type_name == "argument":
        names = f"`{param.metavar}`"
    else:
        names = ", ".join(f"`{name} {param.metavar or ''}".rstrip() + "`" for name in param.opts)
    notes = ["Required."] if param.required else []
    if param.default not in (None, False, "") and not param.required:
        notes.append(f"Default: `{param.default}`.")
    return f"| {names} | {' '.join((_plain(param.help or ''), *notes))} |"


def _plain(text: str) -> str:
    """Return the text with what Markdown would take for markup escaped."""
    for mark in ("|", "*", "<", "_"):
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
