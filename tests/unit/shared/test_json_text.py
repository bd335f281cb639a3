"""Compact JSON is what the standard library writes, byte for byte."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from llmbridge._shared.json_text import encode_json

TEXTS = st.text()
VALUES = TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@example({"a lone surrogate": "\ud800"})
@given(
    st.dictionaries(TEXTS | st.none() | st.floats(), TEXTS)
    | st.dictionaries(TEXTS, VALUES | st.lists(VALUES))
    | st.lists(VALUES)
)
def test_it_is_what_the_standard_library_writes(value: object) -> None:
    assert encode_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
