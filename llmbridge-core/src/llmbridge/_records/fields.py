"""The table of a call's fields: what kind of value each holds, how large it may be, and what it is a subset of.

The canonical form, the fast path, the size estimate of the queue and the counts that are taken from a provider derive
from it. The codecs and migrations of the backends, the conformance kit and `docs/records.md` are tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..schemas import CallRecord

#: Most characters of origin, id_at_origin, and the names of a provider and a model.
MAX_NAME = 255
#: Most characters of an error message; a longer one is cut.
MAX_ERROR_MESSAGE = 2000
#: Most bytes of a call's metadata as compact JSON in UTF-8.
MAX_METADATA_BYTES = 8 * 1024
#: Most levels of lists and objects in a call's metadata, the metadata itself included.
MAX_METADATA_DEPTH = 32
#: Most bytes of the details of usage, and of the context of a price, as compact JSON in UTF-8.
MAX_DETAILS_BYTES = 4 * 1024
#: Most names of tools of a call; a longer list is cut.
MAX_TOOLS = 1000
#: Integers are smaller than this, and not smaller than its negative.
INT64 = 2**63

#: What a value is. `name`: text that is required and never cut. `user`: a name, or None if it is empty. `text`: cut to
#: its limit. `message`: text without secrets, cut. `choice`: one of a few texts. `tokens`, `ms`: counts from 0.
#: `ordinal`: from 1. `integer`: 64 bits. `number`: finite. `money`: dollars, exact to 1e-12. `time`: UTC, microseconds.
#: `texts`: a list of texts, each cut. `json`: an object. `counts`: an object of counts from 0. `labels`: one of texts.
Kind = Literal[
    "uuid",
    "name",
    "user",
    "text",
    "message",
    "choice",
    "tokens",
    "ms",
    "ordinal",
    "integer",
    "number",
    "flag",
    "money",
    "time",
    "texts",
    "json",
    "counts",
    "labels",
]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a call.

    :param kind: what its values are
    :param limit: most characters of a text, or bytes of JSON; None: bounded by the kind
    :param subset_of: the count that includes this count
    :param unit: the name of this count in genai-prices
    """

    kind: Kind
    limit: int | None = None
    subset_of: str | None = None
    unit: str | None = None


#: By name, in the order of CallRecord.
FIELDS: Mapping[str, Field] = {
    "id": Field("uuid"),
    "origin": Field("name", MAX_NAME),
    "id_at_origin": Field("user", MAX_NAME),
    "provider": Field("name", MAX_NAME),
    "model_name": Field("name", MAX_NAME),
    "requested_model": Field("text", MAX_NAME),
    "response_model": Field("text", MAX_NAME),
    "prompt_tokens": Field("tokens", subset_of="total_tokens", unit="input_tokens"),
    "completion_tokens": Field("tokens", subset_of="total_tokens", unit="output_tokens"),
    "total_tokens": Field("tokens"),
    "cache_read_tokens": Field("tokens", subset_of="prompt_tokens", unit="cache_read_tokens"),
    "cache_write_tokens": Field("tokens", subset_of="prompt_tokens", unit="cache_write_tokens"),
    "cache_write_1h_tokens": Field("tokens", subset_of="cache_write_tokens", unit="cache_write_1h_tokens"),
    "reasoning_tokens": Field("tokens", subset_of="completion_tokens", unit="output_reasoning_tokens"),
    "usage_details": Field("counts", MAX_DETAILS_BYTES),
    "usage_source": Field("choice"),
    "estimated_cost": Field("money"),
    "cost_source": Field("choice"),
    "cost_reason": Field("choice"),
    "dollars_per_million_tokens_input_used": Field("money"),
    "dollars_per_million_tokens_output_used": Field("money"),
    "price_context": Field("labels", MAX_DETAILS_BYTES),
    "price_version": Field("text", MAX_NAME),
    "price_factor": Field("money"),
    "previous_cost": Field("money"),
    "previous_cost_reason": Field("choice"),
    "repriced_at": Field("time"),
    "response_time_ms": Field("ms"),
    "time_to_first_token_ms": Field("ms"),
    "stream": Field("flag"),
    "finish_reason": Field("text", MAX_NAME),
    "response_id": Field("text", MAX_NAME),
    "attempt": Field("ordinal"),
    "group_id": Field("uuid"),
    "temperature": Field("number"),
    "max_tokens": Field("integer"),
    "tools_used": Field("texts", MAX_NAME),
    "system_prompt_hash": Field("text", MAX_NAME),
    "status": Field("choice"),
    "error_type": Field("text", MAX_NAME),
    "error_message": Field("message", MAX_ERROR_MESSAGE),
    "metadata": Field("json", MAX_METADATA_BYTES),
    "called_at": Field("time"),
}


def of_kind(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of the fields of these kinds, in the order of the table."""
    return tuple(name for name, field in FIELDS.items() if field.kind in kinds)


def choices(name: str) -> frozenset[str]:
    """Return the texts that a field of the kind `choice` may have."""
    annotation: Any = CallRecord.model_fields[name].annotation
    options = [part for part in (annotation, *get_args(annotation)) if getattr(part, "__origin__", part) is Literal]
    return frozenset(get_args(options[0]))


#: Texts of bounded length, which every backend stores as they are.
SHORT_TEXTS = of_kind("name", "user", "text")
#: Counts, from 0 on.
COUNTS = of_kind("tokens", "ms")
#: The units whose rates have a field of their own in ModelPrice, and that field.
RATE_FIELDS: Mapping[str, str] = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_1h",
}
#: The units of genai-prices that have a field of their own in CallRecord, and that field.
UNIT_FIELDS: Mapping[str, str] = {field.unit: name for name, field in FIELDS.items() if field.unit is not None}
