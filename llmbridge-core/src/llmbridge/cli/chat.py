"""`llmbridge chat`: one question, its answer, and its entry in the books."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import database, output, questions
from .outcome import UserError
from .settings import Database, Json, settings

if TYPE_CHECKING:
    from ..schemas import LLMRequest, LLMResponse


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chat)


def chat(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="VENDOR:NAME", help="The model to ask.", show_default=False)
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Not sent unless given.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the vendor.")] = 60.0,
    user: Annotated[str | None, typer.Option(metavar="ID", help="On whose account (id_at_origin).")] = None,
    origin: Annotated[str, typer.Option(metavar="NAME", help="Application on whose account.")] = "llmbridge",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Metadata of the call. Repeatable.")
    ] = None,
    no_db: Annotated[bool, typer.Option("--no-db", metavar=" ", help="Keep no books.", show_default=False)] = False,
    db: Database = None,
    json: Json = False,
) -> None:
    """Ask a model and put the call on the books.

    The answer goes to stdout, what it cost and its record to stderr.

    Vendors' keys come from the environment, or from ./.env: NAME_API_KEY, with NAME_BASE_URL and NAME_ORG_ID, of
    vendors whose key is not in the environment. Nothing else of that file is used.
    """
    from ..schemas import LLMRequest, Message

    if model is None:
        raise UserError(
            "name a model: --model VENDOR:NAME, for example --model openai:gpt-4o-mini, or --model echo:demo, "
            "which answers offline"
        )
    if temperature is not None and not math.isfinite(temperature):
        raise UserError("--temperature must be a finite number")
    said = _from_stdin() if text == "-" else text
    if not said.strip():
        raise UserError("there is no text to send")
    messages = [Message(role="system", content=system)] if system is not None else []
    request = LLMRequest(
        model=model,
        messages=[*messages, Message(role="user", content=said)],
        temperature=temperature,
        max_tokens=max_tokens,
        timeout=timeout,
        metadata=questions.metadata(tag),
    )
    asked = settings(context, db, json)
    choice = None if no_db else database.announce(asked)
    with database.keys_from_env_file():
        response = asyncio.run(_ask(request, choice, asked.plugin, origin, user))
    if asked.json:
        output.json(response.model_dump())
        return
    output.prose(response.content)
    output.flush()
    output.note(_record_line(response))


async def _ask(
    request: LLMRequest, choice: database.Choice | None, plugin: str | None, origin: str, user: str | None
) -> LLMResponse:
    from ..service import LLMBridge

    if choice is None:
        bridge = LLMBridge(origin=origin)
    else:
        with choice.explained():
            bridge = LLMBridge(choice.url, plugin=plugin, origin=origin)
    async with bridge:
        return await bridge.chat(request, id_at_origin=user)


def _from_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError("stdin is not text in this terminal's encoding") from error
    except (AttributeError, OSError, ValueError) as error:
        raise UserError("stdin cannot be read") from error


def _record_line(response: LLMResponse) -> str:
    from ..money import text

    usage = response.usage or {}
    cost = f"${text(response.cost)}" if response.cost is not None else f"unknown ({response.cost_reason})"
    kept = {
        None: "not recorded: no database",
        "committed": f"recorded as {response.call_id}",
        "spooled": f"waits for the database as {response.call_id}",
        "lost": "not recorded: the database failed",
    }[response.record_status]
    tokens = f"{output.count(usage.get('prompt_tokens'))} tokens in, {output.count(usage.get('completion_tokens'))} out"
    return output.clean(f"{response.provider}:{response.model}, {tokens}, cost {cost}; {kept}")
