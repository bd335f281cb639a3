"""Reads images and documents from the accepted formats of a message part."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidRequestError
from ...file_utils import split_data_url, type_of

PDF = "application/pdf"

_IMAGE = "an image is an http(s) URL, a data URL or base64; llmbridge.file_utils makes one of a file"
_DOCUMENT = "a document is an http(s) URL, a data URL or base64; llmbridge.file_utils makes one of a file"


@dataclass(frozen=True, slots=True)
class Media:
    """One image or PDF: its bytes, or a URL that the provider fetches. `detail` is OpenAI's option for an image."""

    media_type: str
    data: bytes | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    detail: str | None = None

    @property
    def is_image(self) -> bool:
        """Return whether it is an image; otherwise it is a PDF."""
        return self.media_type != PDF


def media(part: dict[str, Any]) -> Media | None:
    """Return the image or PDF of a content part, None for a part of another type. Nothing is fetched or read.

    Accepted are `image_url`, `file`, `input_image` and `input_file` in OpenAI's format, and `image` and `document`
    with the `source` of Anthropic's format.

    :raises InvalidRequestError: the part has no image or PDF, or not in a format that can be sent
    """
    match part:
        case {"type": "image_url" | "input_image", "image_url": {"url": str(text), **more}}:
            return _image(text, more.get("detail"))
        case {"type": "image_url" | "input_image", "image_url": str(text)}:
            return _image(text, part.get("detail"))
        case {"type": "file", "file": {"file_data": str(text)}}:
            return _document(text)
        case {"type": "input_file", "file_data": str(text)} | {"type": "input_file", "file_url": str(text)}:
            return _document(text)
        case {"type": "image" | "document", "source": {"type": "base64", "media_type": str(kind), "data": str(text)}}:
            return _checked(kind.lower(), _bytes(text))
        case {"type": "image", "source": {"type": "url", "url": str(text)}}:
            return _image(text, None)
        case {"type": "document", "source": {"type": "url", "url": str(text)}}:
            return _document(text)
        case {"type": "image_url" | "input_image" | "image"}:
            raise InvalidRequestError(_IMAGE)
        case {"type": "file" | "input_file" | "document"}:
            raise InvalidRequestError(_DOCUMENT)
    return None


def _image(text: str, detail: object) -> Media:
    found = _resolved(text, "image/*", _IMAGE)
    if not found.is_image:
        raise InvalidRequestError("an image part holds a PDF; a PDF is a part of type file or document")
    return Media(found.media_type, found.data, found.url, detail if isinstance(detail, str) else None)


def _document(text: str) -> Media:
    return _resolved(text, PDF, _DOCUMENT)


def _resolved(text: str, otherwise: str, complaint: str) -> Media:
    if re.match(r"https?://", text, re.IGNORECASE):
        return Media(otherwise, url=text)
    if text[:5].lower() == "data:":
        try:
            data, kind = split_data_url(text)
        except ValueError as error:
            raise InvalidRequestError(complaint) from error
        return _checked(kind, _bytes(data))
    try:
        raw = _bytes(text)
    except InvalidRequestError:
        raise InvalidRequestError(complaint) from None
    found = type_of(raw)
    if found is None:
        raise InvalidRequestError(complaint)
    return Media(found, raw)


def _checked(kind: str, data: bytes) -> Media:
    if kind != PDF and not kind.startswith("image/"):
        raise InvalidRequestError("a part that is neither text nor an image nor a PDF cannot be sent")
    return Media(kind, data)


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("the data of an image or document is not base64") from error
    if not data:
        raise InvalidRequestError("an image or document is empty")
    return data
