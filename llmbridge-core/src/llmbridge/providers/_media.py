"""Images and documents in a message, in one form, whichever of the accepted ones the caller wrote."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequestError

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*(?P<base64>;base64)?,", re.IGNORECASE)

#: What the bytes of a file begin with. WebP has its name after the length of the file.
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"%PDF-"), "application/pdf"),
)

PDF = "application/pdf"

_IMAGE = "an image is an http(s) URL, a data URL or base64; llmbridge.file_utils makes one of a file"
_DOCUMENT = "a document is an http(s) URL, a data URL or base64; llmbridge.file_utils makes one of a file"


@dataclass(frozen=True, slots=True)
class Media:
    """One image or PDF: its bytes, or the URL under which the vendor finds it. `detail` is OpenAI's, of an image."""

    media_type: str
    data: bytes | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    detail: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is an image; otherwise it is a PDF."""
        return self.media_type != PDF


def media(part: dict[str, Any]) -> Media | None:
    """The image or PDF of a content part, None for a part of another type.

    Accepted are `image_url`, `file`, `input_image` and `input_file` as OpenAI has them, and `image` and `document`
    with the `source` that Anthropic has.

    :raises InvalidRequestError: it holds neither, or in no form that can be sent; nothing is fetched or read
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
    if (head := _DATA_URL.match(text)) is not None:
        if not head["base64"]:
            raise InvalidRequestError("a data URL of an image or document is in base64")
        return _checked(head["type"].lower(), _bytes(text[head.end() :]))
    try:
        data = _bytes(text)
    except InvalidRequestError:
        raise InvalidRequestError(complaint) from None
    kind = next((kind for signature, kind in _SIGNATURES if signature.match(data)), None)
    if kind is None:
        raise InvalidRequestError(complaint)
    return Media(kind, data)


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
