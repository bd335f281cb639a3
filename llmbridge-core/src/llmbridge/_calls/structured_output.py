"""The form of an answer: how a pydantic model asks for it, and an answer as data."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, PydanticUserError, ValidationError

from ..errors import InvalidRequestError
from ..schemas import LLMRequest


def sendable(request: LLMRequest) -> LLMRequest:
    """`request` as providers get it: a model that is its `response_format` as JSON schema, in OpenAI's form.

    The schema is marked as strict where it is one: every object lists all it may have, and needs it.

    :raises InvalidRequestError: the model has no JSON schema
    """
    form = request.response_format
    if form is None or isinstance(form, dict):
        return request
    return request.model_copy(update={"response_format": _asking_for(form)})


def parse(request: LLMRequest, content: str) -> tuple[Any, str | None]:
    """The answer as data, or why there is none. Both are None where no JSON was asked for."""
    if not request.wants_json:
        return None, None
    form = request.response_format
    try:
        if form is None or isinstance(form, dict):
            return json.loads(content), None
        return form.model_validate_json(content), None
    except ValidationError as error:
        return None, f"the answer is no {error.title}: {_what_is_wrong(error)}"
    except (ValueError, RecursionError):
        return None, "the answer is not JSON"
    except Exception as error:  # of a validator of the caller's; the answer is paid for
        return None, f"a validator raised {type(error).__name__}"


@lru_cache(maxsize=256)
def _asking_for(form: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = form.model_json_schema()
    except PydanticUserError as error:
        raise InvalidRequestError(f"{form.__name__} has no JSON schema") from error
    strict = {"strict": True} if _is_strict(schema) else {}
    return {"type": "json_schema", "json_schema": {"name": form.__name__, "schema": schema, **strict}}


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


def _what_is_wrong(error: ValidationError) -> str:
    """The fields and the kinds of what is wrong with them; the messages may quote the answer."""
    return ", ".join(f"{'.'.join(map(str, found['loc'])) or 'all'} ({found['type']})" for found in error.errors())
