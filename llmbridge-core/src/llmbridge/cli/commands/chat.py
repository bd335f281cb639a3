"""`llmbridge chat`: one question, its answer, and its entry in the books."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import database, dotenv, filters, output
from ..exit_codes import FAILED, UserError
from ..options import Database, Json, Plugin, settings
from ..parser import Command

if TYPE_CHECKING:
    from ...schemas import LLMRequest, LLMResponse


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command)(chat)


def chat(
    context: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What to say; - reads it from stdin.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="VENDOR:NAME", help="The model to ask.", show_default=False)
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="NUMBER", help="Not sent unless given.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long to wait for the vendor.")
    ] = 60.0,
    user: Annotated[str | None, typer.Option(metavar="ID", help="On whose account (id_at_origin).")] = None,
    origin: Annotated[str, typer.Option(metavar="NAME", help="Application on whose account.")] = "llmbridge",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Metadata of the call. Repeatable.")
    ] = None,
    no_db: Annotated[bool, typer.Option("--no-db", metavar=" ", help="Keep no books.", show_default=False)] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Ask a model and put the call on the books.

    The answer goes to stdout, what it cost and its record to stderr. The exit code is 1 if the call is not known to be
    on the books, though it was answered.

    The key of the provider comes from the environment, or from ./.env, whose variables of the provider are used
    together if the environment has no key and no address of it. Nothing else of that file is used.
    """
    from ..._records.validation import check_name
    from ...schemas import LLMRequest, Message

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
        metadata=filters.metadata(tag),
    )
    if not origin:
        raise UserError("--origin is empty; name the application on whose account the call is")
    check_name("--origin", origin)
    asked = settings(context, db, json, plugin)
    with dotenv.provider_variables(model):
        choice = None if no_db else database.announce(asked)
        response = asyncio.run(_ask(request, choice, asked.plugin, origin, user))
    if asked.json:
        output.json(response.model_dump())
    else:
        output.prose(response.content)
        output.flush()
        output.note(_record_line(response))
    if response.record_status == "lost":
        raise typer.Exit(FAILED)


async def _ask(
    request: LLMRequest, choice: database.Choice | None, plugin: str | None, origin: str, user: str | None
) -> LLMResponse:
    from ...service import LLMBridge

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
    from ..._shared.money import text
    from ...storage.reference import NEVER_PRICED

    usage = response.usage or {}
    if response.cost is not None:
        cost = f"${text(response.cost)}"
    else:
        cost = f"{'nothing' if response.cost_reason in NEVER_PRICED else 'unknown'} ({response.cost_reason})"
    kept = {
        None: "not recorded: no database",
        "committed": f"recorded as {response.call_id}",
        "spooled": f"waits for the database as {response.call_id}",
        "lost": "the call is not known to be on the books: the database failed",
    }[response.record_status]
    out = usage.get("completion_tokens")
    tokens = f"{output.tokens(usage.get('prompt_tokens'))} in, {'unknown' if out is None else output.count(out)} out"
    return output.clean(f"{response.provider}:{response.model}, {tokens}, cost {cost}; {kept}")
