"""Tables and JSON documents of models with their rates, for several commands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import output
from ...output import Column

if TYPE_CHECKING:
    from ....db import LLMDatabase
    from ....reports import Origin, RateCard
    from ....schemas import LLMModel

#: The rates of a model, in the order in which they are shown.
RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")

#: The units of these rates, and that of the fee for a request.
SHOWN_UNITS = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "cache_write_1h_tokens",
        "output_reasoning_tokens",
        "requests",
    }
)

_CAPABILITIES = {
    "supports_vision": "vision",
    "supports_function_calling": "tools",
    "supports_parallel_tool_calls": "parallel tools",
    "supports_json_mode": "JSON",
}


class ShownModel(NamedTuple):
    """A model, its current rates (None: it has no price), and where its entry of the catalog can be checked (None: it
    has none)."""

    model: LLMModel
    card: RateCard | None
    origin: Origin | None


def with_rates(db: LLMDatabase, model: LLMModel) -> ShownModel:
    """Return a model with its current rates."""
    card = db.prices.rates(model.provider, model.model_name, datetime.now(UTC))
    return ShownModel(model, card, db.models.origin(model))


def show_list(found: Sequence[ShownModel], *, as_json: bool, with_state: bool = False) -> None:
    """Print models with their rates, as a table or as one JSON document."""
    if as_json:
        output.json({"models": [document(one) for one in found]})
        return
    columns = [
        Column("model"),
        Column("context", "figure"),
        Column("output", "figure"),
        Column("$/M in", "figure"),
        Column("$/M out", "figure"),
        Column("can"),
        *([Column("state")] if with_state else []),
    ]
    output.table(columns, [_cells(one)[: len(columns)] for one in found])


def document(shown: ShownModel) -> dict[str, Any]:
    """Return all that is known of a model, for JSON."""
    model, card, origin = shown
    rates = None
    if card is not None:
        bands = [
            {
                "prompt_tokens_over": least,
                **{name: getattr(band, name) for name in RATES},
                "dollars_per_request": band.request,
                "units": dict(band.units),
            }
            for least, band in zip((0, *card.thresholds), card.bands, strict=True)
        ]
        rates = {"source": card.source, "version": card.version, "factor": card.factor, "bands": bands}
    checked = None
    if origin is not None:
        retires = origin.retires.isoformat() if origin.retires else None
        checked = {
            "source": origin.source,
            "confirmed": origin.confirmed.isoformat(),
            "retires": retires,
            "retires_source": origin.retires_source,
        }
    # As text: many readers of JSON lose digits of a number of 63 bits.
    known = {**model.model_dump(), "id": None if model.id is None else str(model.id)}
    return {**known, "active": model.is_active, "catalog_entry": checked, "rates": rates}


def capabilities(model: LLMModel) -> str:
    """Return the abilities of a model in words."""
    return ", ".join(name for field, name in _CAPABILITIES.items() if getattr(model, field)) or "-"


def state(model: LLMModel) -> str:
    """Return whether a model is active, or since when it is retired."""
    return "active" if model.inactive_from is None else f"retired {output.moment(model.inactive_from)}"


def _cells(shown: ShownModel) -> list[str]:
    model = shown.model
    rates = shown.card.rates() if shown.card is not None else None
    return [
        f"{model.provider}:{model.model_name}",
        output.count(model.max_context),
        output.count(model.max_output_tokens),
        output.money(rates.input if rates else None),
        output.money(rates.output if rates else None),
        capabilities(model),
        state(model),
    ]
