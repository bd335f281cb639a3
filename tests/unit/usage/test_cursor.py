"""A cursor can be converted to text and back, and any other text is an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from llmbridge._usage.cursor import decode, encode

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 3, 1, 23, 30, 0, 123456, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1),
    ],
)
@pytest.mark.parametrize("call_id", [ID, UUID(int=0), UUID(int=2**128 - 1)])
def test_a_cursor_survives_its_text(at: datetime, call_id: UUID) -> None:
    text = encode((at, call_id))
    assert decode(text) == (at, call_id)
    assert text[0].isalpha()
    assert text.isascii()


WHOLE = encode((datetime(2026, 3, 1, tzinfo=UTC), ID))


@pytest.mark.parametrize(
    "text", ["", "c1", "nonsense", WHOLE[:-1], WHOLE[2:], "c1" + "f" * 32, "c1" + "\u00e9" * 32, "c1" + "+" * 32]
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid cursor"):
        decode(text)
