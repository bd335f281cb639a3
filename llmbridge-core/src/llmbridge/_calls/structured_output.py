"""Structured output: JSON schema of a response format, and parsing of the response."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, PydanticUserError, ValidationError

from ..errors import InvalidRequestError
from ..schemas import LLMRequest


def sendable(request: LLMRequest) -> LLMRequest:
    """Return `request` as providers get it: with a pydantic model in `response_format` replaced by its JSON schema.

    The format is that of OpenAI. The schema is marked as strict if it is: every object forbids unknown properties and
    requires all others.

    :raises InvalidRequestError: the model has no JSON schema
    """
    model = request.response_format
    if model is None or isinstance(model, dict):
        return request
    return request.model_copy(update={"response_format": _json_schema_format(model)})


def parse(request: LLMRequest, content: str) -> tuple[Any, str | None]:
    """Return the response as data, or None and the reason. Both are None if no JSON was requested."""
    if not request.wants_json:
        return None, None
    model = request.response_format
    try:
        if model is None or isinstance(model, dict):
            return json.loads(content), None
        return model.model_validate_json(content), None
    except ValidationError as error:
        return None, f"the answer is not a valid {error.title}: {_describe(error)}"
    except (ValueError, RecursionError):
        return None, "the answer is not valid JSON"
    except (
        Exception
    ) as error:  # raised by the caller's validator; the response must not be lost, because it is paid for
        return None, f"a validator raised {type(error).__name__}"


@lru_cache(maxsize=256)
def _json_schema_format(model: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = model.model_json_schema()
    except PydanticUserError as error:
        raise InvalidRequestError(
            f"{model.__name__} has no JSON schema: pass a response_format that has one"
        ) from error
    strict = {"strict": True} if _is_strict(schema) else {}
    return {"type": "json_schema", "json_schema": {"name": model.__name__, "schema": schema, **strict}}


def _is_strict(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        named = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(named):
            return False
    return all(map(_is_strict, schema.values()))


def _describe(error: ValidationError) -> str:
    """Return the invalid fields and the kinds of their errors. The messages are omitted: they may contain values."""
    return ", ".join(f"{'.'.join(map(str, found['loc'])) or 'all'} ({found['type']})" for found in error.errors())
