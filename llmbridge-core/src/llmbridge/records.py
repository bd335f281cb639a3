"""Records of calls in canonical form: what a store may be given, whoever made it."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from struct import Struct
from typing import Any
from uuid import UUID, SafeUUID

from pydantic import ValidationError

from . import money
from .compact import encode_json
from .errors import RecordRejectedError
from .limits import INT64, MAX_ERROR_MESSAGE, MAX_METADATA_BYTES, MAX_NAME, NATURALS
from .schemas import CallRecord, LLMModel
from .storage.types import LATEST, ModelPrice

#: Bits for the fields `rand_a` and `rand_b` of so many ids.
_PARTS = Struct("<" + "HQ" * 128)
_NAMES = ("origin", "provider", "model_name")
_SHORT_TEXTS = ("requested_model", "price_version", "finish_reason", "response_id", "system_prompt_hash", "error_type")
_AMOUNTS = (
    "estimated_cost",
    "dollars_per_million_tokens_input_used",
    "dollars_per_million_tokens_output_used",
    "previous_cost",
)
_get_texts = attrgetter(*_NAMES, "id_at_origin", *_SHORT_TEXTS)
_get_naturals = attrgetter(*NATURALS)
_get_amounts = attrgetter(*_AMOUNTS)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SECRETS = re.compile(
    r"""(?ix)
    ( ://[^\s/:"]{0,255}: ) [^\s"]{1,1000} (?=@)
    | ( \bauthorization \\*["']? \s*[=:]\s* (?:\\*["'])? (?:(?:basic|bearer|digest|token|apikey)\s+)? ) [^\s"',]+
    | ( \bbearer\s+ | \bbasic\s+ (?=[\w+/.-]{8}) (?=\S*(?:\d|=|(?-i:[a-z][A-Z]))) ) [^\s"',]+
    | ( (?: (?:api|access|account|encryption|private|secret|shared|signing)[-_ ]?key | (?<![a-z0-9])(?:key|pass|pwd)
          | token (?! \\*["']? \s*[=:]\s* \d{1,9} (?! [\w+/=-] | \.\w ) )
          | secret | passw(?:or)?d | passphrase | credentials?
        ) \\*["']? \s*[=:]\s* (?: \\*b?(?P<quote>["']) )?
      ) (?(quote) (?: (?!(?P=quote)). )* | [^\s"'&]+ )
    | \b(?:sk|pk|rk|gsk|xai)-[\w*.-]{7,}[\w*-] | \b(?:sk|pk|rk)_(?:live|test)_\w{8,} | \bgsk_\w{8,}
    | \bAIza[\w-]{10,} | \bA(?:KI|SI)A[A-Z0-9]{12,} | \bhf_\w{8,} | \bgh[opsur]_\w{8,} | \bgithub_pat_\w{8,}
    | \bglpat-[\w-]{8,} | \bxox[a-z]-[\w-]{8,} | \beyJ[\w-]{4,1000}\.[\w-]{4,}(?:\.[\w-]*)?
    """
)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): Unix milliseconds, then 74 random bits."""
    try:
        noise = _noise.pop()
    except IndexError:
        noise = _more_noise()
    # Without the checks that take most of the time of making one.
    made = _unmade(UUID)
    _put_number(made, time.time_ns() // 1_000_000 << 80 | noise)
    _put_safety(made, _UNKNOWN)
    return made


_unmade = UUID.__new__
_put_number, _put_safety = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown

#: Random bits for ids to come, in their places beside the version and the variant: asking the system for those of many
#: ids at once is cheaper. A forked child must not draw those of its parent.
_noise: list[int] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.clear)


def _more_noise() -> int:
    parts = _PARTS.unpack(os.urandom(_PARTS.size))
    first: int
    first, *others = [
        0x7 << 76 | (before >> 4) << 64 | 0x2 << 62 | behind >> 2
        for before, behind in zip(parts[::2], parts[1::2], strict=True)
    ]
    _noise.extend(others)
    return first


def hash_prompt(system_prompt: str) -> str:
    """SHA-256 of a system prompt, in hex. The prompt itself is never kept."""
    return hashlib.sha256(system_prompt.encode("utf-8", "surrogatepass")).hexdigest()


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """`message` without these secrets, and without anything that looks like a key or a password."""
    for secret in secrets:
        message = message.replace(secret, "***")
    return _SECRETS.sub(lambda match: f"{match[match.lastindex] if match.lastindex else ''}***", message)


def convert(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every field of CallRecord, in canonical form, whatever the fields are.

    :raises RecordRejectedError: a field is missing, of the wrong type, or can never be stored
    """
    try:
        record = CallRecord.model_validate(fields)
    except ValidationError as error:
        raise RecordRejectedError(f"this call cannot be recorded: {_what_is_wrong(error)}") from None
    return {**vars(record), **_changes(record)}


def canonical_model(model: LLMModel, *, id: int, now: datetime) -> LLMModel:  # noqa: A002
    """`model` as every store will give it back, with its id and times.

    :raises RecordRejectedError: a name, rate, size or time that can never be stored
    """
    changes: dict[str, Any] = {"id": id, "created_at": now, "updated_at": now}
    for name in ("provider", "model_name"):
        changes[name] = check_name(name, getattr(model, name))
    for name in ("display_name", "description", "tool_call_format", "source"):
        changes[name] = _text(getattr(model, name), MAX_ERROR_MESSAGE)
    for name in ("max_context", "max_output_tokens"):
        _check_integer(name, getattr(model, name), least=0)
    for name in ("dollars_per_million_tokens_input", "dollars_per_million_tokens_output"):
        changes[name] = check_rate(name, getattr(model, name))
    changes["inactive_from"] = _utc("inactive_from", model.inactive_from)
    return model.model_copy(update=changes)


def canonical_price(price: ModelPrice) -> ModelPrice:
    """`price` as every store will give it back.

    :raises RecordRejectedError: a name, time or rate that can never be stored
    """
    return ModelPrice(
        check_name("provider", price.provider),
        check_name("model_name", price.model_name),
        _time("effective_from", price.effective_from),
        input=check_rate("input rate", price.input),
        output=check_rate("output rate", price.output),
        cache_read=check_rate("cache_read rate", price.cache_read),
        cache_write=check_rate("cache_write rate", price.cache_write),
        cache_write_1h=check_rate("cache_write_1h rate", price.cache_write_1h),
    )


def check_name(field: str, name: str) -> str:
    """A required name in storable form.

    :raises RecordRejectedError: it is no text, empty, or longer than 255 characters
    """
    if not isinstance(name, str):
        raise RecordRejectedError(f"{field} must be text, not {type(name).__name__}")
    if not name:
        raise RecordRejectedError(f"{field} is empty")
    if len(name) > MAX_NAME:
        raise RecordRejectedError(f"{field} has {len(name)} characters; at most {MAX_NAME}")
    return storable(name)


def check_user(id_at_origin: str | None) -> str | None:
    """An id_at_origin in storable form; an empty one is None.

    :raises RecordRejectedError: it is no text, or longer than 255 characters
    """
    return check_name("id_at_origin", id_at_origin) if id_at_origin not in (None, "") else None


def check_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Metadata in storable form.

    :raises RecordRejectedError: keys that are no text, values that are no JSON, more than 8 KiB
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise RecordRejectedError(f"metadata must be a dict, not {type(metadata).__name__}")
    try:
        clean: dict[str, Any] = _json_value(metadata)
        size = len(encode_json(clean).encode())
    except RecursionError:
        raise RecordRejectedError("metadata is nested too deeply") from None
    if size > MAX_METADATA_BYTES:
        raise RecordRejectedError(f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES}")
    return clean


def check_amount(field: str, amount: Decimal | float | str | None) -> Decimal | None:
    """An amount of dollars, exact to 1e-12; None stays None.

    :raises RecordRejectedError: no number, not finite, or not below 9,000,000 dollars in absolute value
    """
    if amount is None:
        return None
    try:
        return money.parse(amount)
    except ValueError as error:
        raise RecordRejectedError(f"{field}: {error}") from None


def check_count(field: str, count: int) -> int:
    """A count that fits 64 bits.

    :raises RecordRejectedError: it does not, or is negative
    """
    _check_integer(field, count, least=0)
    return count


def check_integer(field: str, number: int | None) -> int | None:
    """An integer of 64 bits; None stays None.

    :raises RecordRejectedError: it does not fit
    """
    _check_integer(field, number, least=-INT64)
    return number


def check_finite(field: str, number: float | None) -> float | None:
    """A number in storable form; None stays None.

    :raises RecordRejectedError: it is not finite
    """
    return None if number is None else _finite(field, number)


def check_rate(field: str, rate: Decimal | float | str | None) -> Decimal | None:
    """A rate in dollars per million tokens, exact to 1e-12; None stays None.

    :raises RecordRejectedError: it is negative, or no amount that can be stored
    """
    amount = check_amount(field, rate)
    if amount is not None and amount < 0:
        raise RecordRejectedError(f"{field} is negative")
    return amount


def _changes(call: CallRecord) -> dict[str, Any]:
    """What has to change in `call` for its canonical form."""
    changes: dict[str, Any] = {}
    texts = [text for text in _get_texts(call) if text is not None]
    if not all(texts) or max(map(len, texts)) > MAX_NAME or not _is_plain("".join(texts)):
        for name in _NAMES:
            changes[name] = check_name(name, getattr(call, name))
        changes["id_at_origin"] = check_user(call.id_at_origin)
        for name in _SHORT_TEXTS:
            changes[name] = _text(getattr(call, name), MAX_NAME)
    for name, number in zip(NATURALS, _get_naturals(call), strict=True):
        if number is not None and not 0 <= number < INT64:
            _check_integer(name, number, least=0)
    _check_integer("attempt", call.attempt, least=1)
    _check_integer("max_tokens", call.max_tokens, least=-INT64)
    for name, amount in zip(_AMOUNTS, _get_amounts(call), strict=True):
        if amount is not None:
            changes[name] = check_amount(name, amount)
    if call.temperature is not None:
        changes["temperature"] = _finite("temperature", call.temperature)
    if call.tools_used is not None:
        changes["tools_used"] = [_text(tool, MAX_NAME) for tool in call.tools_used]
    if call.error_message is not None:
        changes["error_message"] = _text(redact(call.error_message), MAX_ERROR_MESSAGE)
    if call.metadata is not None:
        changes["metadata"] = check_metadata(call.metadata)
    changes["called_at"] = _time("called_at", call.called_at)
    if call.repriced_at is not None:
        changes["repriced_at"] = _utc("repriced_at", call.repriced_at)
    return changes


def _is_plain(text: str) -> bool:
    return text.isascii() and "\0" not in text


def storable(text: str) -> str:
    """`text` with U+FFFD for what no database holds: NUL and lone surrogates."""
    return text if _is_plain(text) else _UNSTORABLE.sub("\ufffd", text)


def _text(text: str | None, longest: int) -> str | None:
    return None if text is None else storable(text[:longest] if len(text) > longest else text)


def _check_integer(field: str, number: int | None, *, least: int) -> None:
    if number is not None and not least <= number < INT64:
        raise RecordRejectedError(f"{field} is {number}; it must be from {least} to {INT64 - 1}")


def _finite(field: str, number: float) -> float:
    if not math.isfinite(number):
        raise RecordRejectedError(f"{field} is {number}; it must be finite")
    return number + 0.0  # SQLite has no negative zero


def _utc(field: str, at: datetime | None) -> datetime | None:
    return None if at is None else _time(field, at)


def _time(field: str, at: object) -> datetime:
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise RecordRejectedError(f"{field} is no time with a zone")
    try:
        moment = at if at.tzinfo is UTC else at.astimezone(UTC)
    except OverflowError:
        raise RecordRejectedError(f"{field} lies outside the years 1 to 9999 in UTC") from None
    if moment >= LATEST:
        raise RecordRejectedError(f"{field} is the end of time")
    return moment


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return storable(str(value))
    if isinstance(value, int):
        _check_integer("a number in metadata", value, least=-INT64)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecordRejectedError(f"metadata holds {value}; numbers must be finite")
        return float(value)
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise RecordRejectedError("the keys of metadata must be text")
        return {storable(str(key)): _json_value(item) for key, item in value.items()}
    raise RecordRejectedError(f"metadata holds a {type(value).__name__}, which is no JSON")


def _what_is_wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
