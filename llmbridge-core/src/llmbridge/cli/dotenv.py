"""What `VENDOR:NAME` means to a filter, and the address of a vendor's server."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import output
from .exit_codes import UserError

if TYPE_CHECKING:
    from ..db import LLMDatabase

Values = Sequence[str | None] | None


async def split(db: LLMDatabase, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters `provider` and `model_name` where models were named with their vendor, as tables show them; empty
    where none was.

    A name may have a colon of its own (`llama3.2:latest`): what stands before it is a vendor only if a plugin, a
    model or a call has one of that name, and `provider` names no other. Says so where nobody has a vendor of
    `provider`.
    """
    provider: Values = filters.get("provider")
    models: Sequence[str | None] = filters.get("model_name") or ()
    prefixes = {model.partition(":")[0] for model in models if model is not None and ":" in model}
    names = await known(db) if prefixes or provider else set()
    if provider is not None:
        for name in provider:
            if name is not None and name not in names:
                tell_unknown(name, names)
        prefixes &= {*provider} if len(provider) == 1 else set()
    vendors = prefixes & names
    if not vendors:
        return {}
    named = [model is not None and model.partition(":")[0] in vendors for model in models]
    if len(vendors) > 1 or (provider is None and not all(named)):
        raise UserError("--model takes several names only of one vendor: ask once for each vendor")
    bare = tuple(
        model.partition(":")[2] if model and has_vendor else model
        for model, has_vendor in zip(models, named, strict=True)
    )
    return {"provider": tuple(vendors), "model_name": bare}


async def known(db: LLMDatabase) -> set[str]:
    """The vendors of plugins, of models and of calls on the books."""
    from ..plugins import provider_names

    of_models = {model.provider for model in await db.list_models(active_only=False)}
    return provider_names() | of_models | {row.key["provider"] for row in await db.usage(group_by="provider")}


def tell_unknown(vendor: str, names: Collection[str]) -> None:
    """Say that the vendor is none of those `names`, and which one may be meant."""
    close = get_close_matches(vendor.lower(), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    output.note(output.clean(f"no plugin, model or call has the vendor {vendor!r} yet{hint}"))


def check_address(model: str) -> None:
    """Refuse the address in the environment of the server that would be asked for `model`, if it is none.

    :raises ModelNotFoundError, ProviderNotFoundError: the model leads to no vendor
    """
    from ..plugins import provider_names
    from ..providers.routing import resolve

    vendor, _ = resolve(model, provider_names())
    name = f"{vendor.upper().replace('-', '_')}_BASE_URL"
    address = os.environ.get(name, "").strip()
    if address and not _is_address(address):
        # Not shown: it may have a password.
        raise UserError(f"{name} is no address of a server; write one like http://localhost:8000/v1")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
