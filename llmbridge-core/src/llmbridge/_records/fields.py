"""How large what is recorded may be."""

from __future__ import annotations

#: Most characters in an origin, an id_at_origin, and the names of a vendor and a model.
MAX_NAME = 255
#: Most characters in an error message; longer ones are cut.
MAX_ERROR_MESSAGE = 2000
#: Most bytes of a call's metadata as compact JSON in UTF-8.
MAX_METADATA_BYTES = 8 * 1024
#: Integers are smaller than this, and not smaller than its negative.
INT64 = 2**63
#: The fields of a call that are counts, from 0 on.
NATURALS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "response_time_ms",
    "time_to_first_token_ms",
)
