"""Contexts of a price: the terms that an answer tells, in the spelling of the price list."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


#: Most characters of a context in a price version.
_LONGEST = 60


def listed(pair: Pair) -> Pair:
    """Return a context in the spelling of the price list; one that is not known stays as it is."""
    name, value = pair
    return _LISTED.get((name, value.lower()), pair)


def unpriced(told: Mapping[Pair, Pair], priced: Collection[Pair]) -> str:
    """Return what a price version says of the contexts that a price does not take into account.

    :param told: the contexts of a call as its response spells them, each with the spelling of the price list
    :param priced: those for which the price holds, in the spelling of the price list
    """
    missed = [
        f"{name}={value}"[:_LONGEST]
        for (name, value), pair in told.items()
        if pair not in priced and pair not in _STANDARD
    ]
    return "".join(f", context {pair} not priced" for pair in sorted(missed))
