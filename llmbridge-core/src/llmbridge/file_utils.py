"""Helpers that turn images and documents into parts of a message, from a path, URL, data URL or base64.

Helpers that return content return a value for `Message.content`: a text part, if there is a text, then one part for
each file. Files are read immediately. URLs are passed to the provider as they are; nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

#: A path, an `http(s)` URL, a data URL, or base64.
Source = str | os.PathLike[str]
#: Content part of a message: a file or a text.
Part = dict[str, Any]

#: Types of images that providers accept.
IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})

_PDF = "application/pdf"
_UNKNOWN = "application/octet-stream"

#: Types by suffix, for those where operating systems differ.
_TYPES = {
    ".doc": "application/msword",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".md": "text/markdown",
    ".pdf": _PDF,
    ".png": "image/png",
    ".txt": "text/plain",
    ".webp": "image/webp",
}

#: First bytes of files by type; the four variable bytes of WebP are its length.
_SIGNATURES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    (_PDF, re.compile(rb"%PDF-")),
)

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),(?P<data>.*)", re.DOTALL | re.IGNORECASE)

#: Characters of base64 that contain the signature of any known type; no image is shorter.
_SIGNATURE_CHARACTERS = 24

#: A text without a known signature that is shorter than this is taken for a wrong path, not for base64.
_MIN_BASE64 = 100


def get_file_mime_type(file_path: Source) -> str:
    """Return the MIME type for the suffix of the file's name; `application/octet-stream` if it is unknown.

    The file is not opened.
    """
    suffix = Path(file_path).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or _UNKNOWN


def encode_file_to_base64(file_path: Source) -> str:
    """Return the content of the file in base64.

    :raises OSError: the file does not exist or cannot be read
    """
    return _encode(Path(file_path).read_bytes())


def create_data_url(file_path: Source) -> str:
    """Return the file as a data URL. Its type is that of its first bytes, else of its name.

    :raises OSError: the file does not exist or cannot be read
    """
    data, media_type = _read(Path(file_path))
    return f"data:{media_type};base64,{data}"


def validate_image_file(file_path: Source) -> bool:
    """Return whether the file exists and has the name of an image that providers accept."""
    return _is_file(file_path) and get_file_mime_type(file_path) in IMAGE_TYPES


def is_image_file(file_path: Source) -> bool:
    """Return whether the file exists and has the name of an image."""
    return _is_file(file_path) and get_file_mime_type(file_path).startswith("image/")


def is_pdf_file(file_path: Source) -> bool:
    """Return whether the file exists and has the name of a PDF."""
    return _is_file(file_path) and get_file_mime_type(file_path) == _PDF


def is_document_file(file_path: Source) -> bool:
    """Return whether the file exists and does not have the name of an image."""
    return _is_file(file_path) and not is_image_file(file_path)


def validate_file_for_vision_api(file_path: Source) -> None:
    """Raise unless the file is an image that providers accept.

    :raises FileNotFoundError: the file does not exist
    :raises ValueError: it is not such an image
    """
    path = Path(file_path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    _check_image(type_of(path.read_bytes()) or get_file_mime_type(path))


def create_file_content(file_path_url_or_base64: Source, text: str = "", mime_type: str | None = None) -> list[Part]:
    """Return a file as message content: an image, or a document such as a PDF.

    A URL is treated as a document if its path ends like one, else as an image.

    :param mime_type: the type of base64 (None: that of its first bytes)
    :raises FileNotFoundError: the text is neither a URL nor base64, and no file has that path
    :raises ValueError: the type is unknown, or an image that providers do not accept
    """
    return [*_texts(text), _file_part(file_path_url_or_base64, mime_type)]


def create_image_content(file_path_url_or_base64: Source, text: str = "", mime_type: str | None = None) -> list[Part]:
    """Return an image as message content.

    :param mime_type: the type of base64 (None: that of its first bytes, else JPEG)
    :raises FileNotFoundError: the text is neither a URL nor base64, and no file has that path
    :raises ValueError: it is not an image that providers accept
    """
    return [*_texts(text), _image_part(file_path_url_or_base64, mime_type)]


def create_base64_image_content(base64_data: str, mime_type: str = "image/jpeg", text: str = "") -> list[Part]:
    """Return an image in base64 as message content, without checking it."""
    return [*_texts(text), _image_url(f"data:{mime_type};base64,{base64_data}")]


def create_multi_image_content(images: Sequence[Source | Mapping[str, str]], text: str = "") -> list[Part]:
    """Return several images as message content. `{"data": …, "mime_type": …}` is one in base64, not checked."""
    return [*_texts(text), *map(_any_image_part, images)]


def analyze_file(
    file_path_url_or_base64: Source, prompt: str = "Analyze this file", mime_type: str | None = None
) -> list[Part]:
    """Return a file and a prompt as message content. See `create_file_content`."""
    return create_file_content(file_path_url_or_base64, prompt, mime_type)


def analyze_image(
    file_path_url_or_base64: Source, prompt: str = "Analyze this image", mime_type: str | None = None
) -> list[Part]:
    """Return an image and a prompt as message content. See `create_image_content`."""
    return create_image_content(file_path_url_or_base64, prompt, mime_type)


def extract_text_from_image(file_path_url_or_base64: Source, mime_type: str | None = None) -> list[Part]:
    """Return an image and a prompt that asks for its text. See `create_image_content`."""
    return create_image_content(
        file_path_url_or_base64, "Write down all the text in this image, in its layout.", mime_type
    )


def compare_images(
    image1: Source | Mapping[str, str], image2: Source | Mapping[str, str], prompt: str = "Compare these images"
) -> list[Part]:
    """Return two images and a prompt as message content. See `create_multi_image_content`."""
    return create_multi_image_content([image1, image2], prompt)


def _texts(text: str) -> Iterator[Part]:
    if text:
        yield {"type": "text", "text": text}


def _image_url(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}


def _any_image_part(image: Source | Mapping[str, str]) -> Part:
    if isinstance(image, Mapping):
        return _image_url(f"data:{image.get('mime_type', 'image/jpeg')};base64,{image['data']}")
    return _image_part(image, None)


def _image_part(source: Source, mime_type: str | None) -> Part:
    if isinstance(source, str) and (_is_data_url(source) or _is_url(source)):
        return _image_url(source)
    data, media_type = _content(source, mime_type)
    if media_type == _UNKNOWN:
        media_type = "image/jpeg"
    _check_image(media_type)
    return _image_url(f"data:{media_type};base64,{data}")


def _file_part(source: Source, mime_type: str | None) -> Part:
    if isinstance(source, str) and _is_url(source):
        is_document = get_file_mime_type(urlsplit(source).path) in (_PDF, _TYPES[".doc"], _TYPES[".docx"])
        return {"type": "document", "source": {"type": "url", "url": source}} if is_document else _image_url(source)
    data, media_type = (
        split_data_url(source) if isinstance(source, str) and _is_data_url(source) else _content(source, mime_type)
    )
    if media_type == _UNKNOWN:
        raise ValueError("the type of the file is not known: pass mime_type=")
    if media_type.startswith("image/"):
        _check_image(media_type)
        return _image_url(f"data:{media_type};base64,{data}")
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _content(source: Source, mime_type: str | None) -> tuple[str, str]:
    """Return content in base64 and type of a file or of a base64 text. If a file with that path exists, it is used."""
    if _is_file(source):
        data, media_type = _read(Path(source))
        return data, mime_type or media_type
    if isinstance(source, str) and (found := _type_of_base64(source, mime_type)):
        return "".join(source.split()), mime_type or found
    if isinstance(source, str) and len(source) >= _MIN_BASE64:
        raise FileNotFoundError(
            f"a text of {len(source)} characters is neither a URL, nor a file, nor base64 of a known type: pass "
            "mime_type= if it is base64"
        )
    raise FileNotFoundError(f"there is no file {os.fspath(source)!r}")


def _type_of_base64(text: str, mime_type: str | None) -> str | None:
    """Return the type of a base64 text; None if the text is not base64.

    It is base64 if it has the signature of a known type, or if it is long and the caller gave its type.
    """
    packed = "".join(text.split())
    if not _BASE64.fullmatch(text) or len(packed) < _SIGNATURE_CHARACTERS:
        return None
    found = type_of(base64.b64decode(packed[:_SIGNATURE_CHARACTERS].rstrip("=").ljust(_SIGNATURE_CHARACTERS, "A")))
    if found is None and mime_type is not None and len(packed) >= _MIN_BASE64:
        return mime_type if _is_valid_base64(packed) else None
    return found


def _is_valid_base64(packed: str) -> bool:
    try:
        base64.b64decode(packed, validate=True)
    except binascii.Error:
        return False
    return True


def split_data_url(url: str) -> tuple[str, str]:
    """Return the data of a data URL as base64, and its type.

    :raises ValueError: it is not a data URL
    """
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise ValueError("not a valid data URL: write data:TYPE;base64,DATA")
    media_type = found["type"].lower() or "text/plain"
    if found["parameters"].lower().endswith(";base64"):
        return found["data"], media_type
    return _encode(unquote_to_bytes(found["data"])), media_type


def _read(path: Path) -> tuple[str, str]:
    raw = path.read_bytes()
    return _encode(raw), type_of(raw) or get_file_mime_type(path)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def type_of(raw: bytes) -> str | None:
    """Return the type of a file by its first bytes; None if they are of no known type."""
    return next((media_type for media_type, signature in _SIGNATURES if signature.match(raw)), None)


def _check_image(media_type: str) -> None:
    if media_type == _PDF:
        raise ValueError("a PDF is not an image: use create_file_content, with a provider that accepts documents")
    if media_type not in IMAGE_TYPES:
        raise ValueError(f"providers do not accept {media_type}, only {', '.join(sorted(IMAGE_TYPES))}")


def _is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def _is_data_url(source: str) -> bool:
    return source[:5].lower() == "data:"


def _is_file(source: Source) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # too long for a path, or contains NUL
        return False
