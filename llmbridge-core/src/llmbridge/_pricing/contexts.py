"""Contexts of a price: the terms that an answer tells, in the spelling of the price list."""

from __future__ import annotations

from collections.abc import Mapping

#: A name and a value, as in `service_tier`, `priority`.
Pair = tuple[str, str]

#: How answers spell a context, the value in lower case, and how the price list does, which compares exactly.
#:
#: https://platform.openai.com/docs/api-reference/chat/object (service_tier)
#: https://platform.claude.com/docs/en/api/messages (usage.service_tier, usage.speed, usage.inference_geo)
#: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse (trafficType)
#: https://console.groq.com/docs/service-tiers
_LISTED: Mapping[Pair, Pair] = {
    **{("service_tier", tier): ("service_tier", tier) for tier in ("default", "flex", "priority", "fast")},
    ("service_tier", "standard"): ("service_tier", "default"),
    ("service_tier", "on_demand"): ("service_tier", "default"),
    ("service_tier", "unspecified"): ("service_tier", "default"),
    ("service_tier", "batch"): ("processing", "batch"),
    ("processing", "batch"): ("processing", "batch"),
    ("traffic_type", "traffic_type_unspecified"): ("service_tier", "default"),
    ("traffic_type", "on_demand"): ("service_tier", "default"),
    ("traffic_type", "on_demand_flex"): ("service_tier", "flex"),
    ("traffic_type", "on_demand_priority"): ("service_tier", "priority"),
    ("speed", "fast"): ("speed", "fast"),
    ("speed", "standard"): ("speed", "standard"),
    ("inference_geo", "global"): ("inference_geo", "global"),
    ("inference_geo", "not_available"): ("inference_geo", "global"),
}

#: Contexts in the spelling of the price list that mean its standard price, unless an entry says otherwise.
_STANDARD = frozenset({("service_tier", "default"), ("speed", "standard"), ("inference_geo", "global")})


def listed(pair: Pair) -> Pair:
    """Return a context in the spelling of the price list; one that is not known stays as it is."""
    name, value = pair
    return _LISTED.get((name, value.lower()), pair)


def is_standard(pair: Pair) -> bool:
    """Return whether a context, in the spelling of the price list, means the standard price."""
    return pair in _STANDARD
