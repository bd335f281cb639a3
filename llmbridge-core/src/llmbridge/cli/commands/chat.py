"""`llmbridge chat`: sends one message to a model, prints the response and records the call."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import database, dotenv, filters, output
from ..exit_codes import FAILED, UserError
from ..options import Database, Json, Plugin, settings

if TYPE_CHECKING:
    from ...schemas import LLMRequest, LLMResponse


def chat(
    context: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The message; - reads it from stdin.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="PROVIDER:NAME", help="The model to call.", show_default=False),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="NUMBER", help="Not sent unless given.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Maximum tokens of the response.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="Timeout of the provider.")] = 60.0,
    user: Annotated[str | None, typer.Option(metavar="ID", help="User of the call (id_at_origin).")] = None,
    origin: Annotated[str, typer.Option(metavar="NAME", help="Application of the call.")] = "llmbridge",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Metadata of the call. Repeatable.")
    ] = None,
    no_db: Annotated[
        bool, typer.Option("--no-db", metavar=" ", help="Do not record the call.", show_default=False)
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Call a model and record the call.

    The response goes to stdout, its cost and the record to stderr. The exit code is 1 if there is a response, but the
    call may not be recorded.

    The key of the provider comes from the environment, or from ./.env, whose variables of the provider are used
    together if the environment has no key and no address of it. Nothing else of that file is used.
    """
    from ...schemas import LLMRequest, Message

    if model is None:
        raise UserError(
            "name a model: --model PROVIDER:NAME, for example --model openai:gpt-4o-mini, or --model echo:demo, "
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
    _check_origin(origin)
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


def _check_origin(origin: str) -> None:
    """Refuse an invalid origin before the database is opened, so that the database is not blamed for it."""
    from ...errors import RecordRejectedError
    from ...service import LLMBridge

    if not origin:
        raise UserError("--origin is empty; write the name of the application")
    try:
        LLMBridge(origin=origin)
    except RecordRejectedError as error:
        raise RecordRejectedError(f"--{error}") from error


def _from_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError("stdin is not text in this terminal's encoding") from error
    except (AttributeError, OSError, ValueError) as error:
        raise UserError("stdin cannot be read") from error


def _record_line(response: LLMResponse) -> str:
    from ...storage.reference import NEVER_PRICED

    usage = response.usage or {}
    if response.cost is not None:
        cost = f"${output.money(response.cost)}"
    else:
        cost = f"{'nothing' if response.cost_reason in NEVER_PRICED else 'unknown'} ({response.cost_reason})"
    kept = {
        None: "not recorded: no database",
        "committed": f"recorded as {response.call_id}",
        "spooled": f"waits for the database as {response.call_id}",
        "lost": "the call may not be recorded: the database failed",
    }[response.record_status]
    out = usage.get("completion_tokens")
    tokens = f"{output.tokens(usage.get('prompt_tokens'))} in, {'unknown' if out is None else output.count(out)} out"
    return output.clean(f"{response.provider}:{response.model}, {tokens}, cost {cost}; {kept}")
