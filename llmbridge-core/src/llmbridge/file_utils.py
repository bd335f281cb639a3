"""Files as parts of a message: images and documents, by path, URL, data URL or base64. Nothing is fetched.

Every helper that returns content returns what `Message.content` takes: a text part, if there is a text, and then a
part for each file. Paths are read at once, URLs are handed to the vendor as they are.
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
#: A file's part in a message, or the text beside it.
Part = dict[str, Any]

#: The images that vendors take.
IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})

_PDF = "application/pdf"
_UNKNOWN = "application/octet-stream"

#: By suffix, where the tables of operating systems differ.
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

#: What files of a type begin with; the gap in WebP's is its length.
_BEGINNINGS = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    (_PDF, re.compile(rb"%PDF-")),
)

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),(?P<data>.*)", re.DOTALL | re.IGNORECASE)

#: So many characters of base64 have the beginning of any known type, and no image fits in fewer.
_LONGEST_BEGINNING = 24

#: Shorter than this, a text without a known beginning is a wrong path rather than base64.
_LEAST_BASE64 = 100


def get_file_mime_type(file_path: Source) -> str:
    """The type that the file's name promises, `application/octet-stream` where it tells none. It is not opened."""
    suffix = Path(file_path).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or _UNKNOWN


def encode_file_to_base64(file_path: Source) -> str:
    """The file's bytes in base64.

    :raises OSError: there is no such file, or it cannot be read
    """
    return _encode(Path(file_path).read_bytes())


def create_data_url(file_path: Source) -> str:
    """The file as a data URL, of the type that its first bytes show, else its name.

    :raises OSError: there is no such file, or it cannot be read
    """
    data, media_type = _read(Path(file_path))
    return f"data:{media_type};base64,{data}"


def validate_image_file(file_path: Source) -> bool:
    """Whether there is such a file, and its name is that of an image that vendors take."""
    return _is_file(file_path) and get_file_mime_type(file_path) in IMAGE_TYPES


def is_image_file(file_path: Source) -> bool:
    """Whether there is such a file, and its name is that of an image."""
    return _is_file(file_path) and get_file_mime_type(file_path).startswith("image/")


def is_pdf_file(file_path: Source) -> bool:
    """Whether there is such a file, and its name is that of a PDF."""
    return _is_file(file_path) and get_file_mime_type(file_path) == _PDF


def is_document_file(file_path: Source) -> bool:
    """Whether there is such a file, and its name is not that of an image."""
    return _is_file(file_path) and not is_image_file(file_path)


def validate_file_for_vision_api(file_path: Source) -> None:
    """Raise unless the file is an image that vendors take.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is something else
    """
    path = Path(file_path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    _check_image(type_of(path.read_bytes()) or get_file_mime_type(path))


def create_file_content(file_path_url_or_base64: Source, text: str = "", mime_type: str | None = None) -> list[Part]:
    """A file as message content: an image, or a document such as a PDF.

    `mime_type` is the type of base64 (None: its first bytes show it). A URL is taken for a document if its path ends
    like one, else for an image.

    :raises FileNotFoundError: it is no URL and no base64, and there is no such file
    :raises ValueError: its type is not known, or it is an image that vendors do not take
    """
    return [*_texts(text), _file_part(file_path_url_or_base64, mime_type)]


def create_image_content(file_path_url_or_base64: Source, text: str = "", mime_type: str | None = None) -> list[Part]:
    """An image as message content.

    `mime_type` is the type of base64 (None: its first bytes show it, else it is a JPEG).

    :raises FileNotFoundError: it is no URL and no base64, and there is no such file
    :raises ValueError: it is no image that vendors take
    """
    return [*_texts(text), _image_part(file_path_url_or_base64, mime_type)]


def create_base64_image_content(base64_data: str, mime_type: str = "image/jpeg", text: str = "") -> list[Part]:
    """An image in base64 as message content, without a look at it."""
    return [*_texts(text), _image_url(f"data:{mime_type};base64,{base64_data}")]


def create_multi_image_content(images: Sequence[Source | Mapping[str, str]], text: str = "") -> list[Part]:
    """Several images as message content; `{"data": …, "mime_type": …}` is one in base64, without a look at it."""
    return [*_texts(text), *map(_any_image_part, images)]


def analyze_file(
    file_path_url_or_base64: Source, prompt: str = "Analyze this file", mime_type: str | None = None
) -> list[Part]:
    """A file and what to do with it; see `create_file_content`."""
    return create_file_content(file_path_url_or_base64, prompt, mime_type)


def analyze_image(
    file_path_url_or_base64: Source, prompt: str = "Analyze this image", mime_type: str | None = None
) -> list[Part]:
    """An image and what to do with it; see `create_image_content`."""
    return create_image_content(file_path_url_or_base64, prompt, mime_type)


def extract_text_from_image(file_path_url_or_base64: Source, mime_type: str | None = None) -> list[Part]:
    """An image whose text is wanted; see `create_image_content`."""
    return create_image_content(
        file_path_url_or_base64, "Write down all the text in this image, in its layout.", mime_type
    )


def compare_images(
    image1: Source | Mapping[str, str], image2: Source | Mapping[str, str], prompt: str = "Compare these images"
) -> list[Part]:
    """Two images and what to do with them; see `create_multi_image_content`."""
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
        raise ValueError("the type of the file is not known; give mime_type=")
    if media_type.startswith("image/"):
        _check_image(media_type)
        return _image_url(f"data:{media_type};base64,{data}")
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _content(source: Source, mime_type: str | None) -> tuple[str, str]:
    """Base64 and type of a file, or of what is base64 already. What there is a file of that name for is a path."""
    if _is_file(source):
        data, media_type = _read(Path(source))
        return data, mime_type or media_type
    if isinstance(source, str) and (found := _type_of_base64(source, mime_type)):
        return "".join(source.split()), mime_type or found
    if isinstance(source, str) and len(source) >= _LEAST_BASE64:
        raise FileNotFoundError(
            f"a text of {len(source)} characters is no URL, no file, and no base64 of a known type; give mime_type="
        )
    raise FileNotFoundError(f"there is no file {os.fspath(source)!r}")


def _type_of_base64(text: str, mime_type: str | None) -> str | None:
    """The type of what is base64; None: it is none.

    It is if it begins as a file of a known type does, or if it is long and the caller gave a type for it.
    """
    packed = "".join(text.split())
    if not _BASE64.fullmatch(text) or len(packed) < _LONGEST_BEGINNING:
        return None
    found = type_of(base64.b64decode(packed[:_LONGEST_BEGINNING].rstrip("=").ljust(_LONGEST_BEGINNING, "A")))
    if found is None and mime_type is not None and len(packed) >= _LEAST_BASE64:
        return mime_type if _is_whole(packed) else None
    return found


def _is_whole(packed: str) -> bool:
    try:
        base64.b64decode(packed, validate=True)
    except binascii.Error:
        return False
    return True


def split_data_url(url: str) -> tuple[str, str]:
    """The data of a data URL as base64, and its type.

    :raises ValueError: it is none
    """
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise ValueError("a data URL is written data:TYPE;base64,DATA")
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
    """The type that the first bytes of a file tell; None where they tell none."""
    return next((media_type for media_type, beginning in _BEGINNINGS if beginning.match(raw)), None)


def _check_image(media_type: str) -> None:
    if media_type == _PDF:
        raise ValueError("a PDF is no image: use create_file_content, for a vendor that takes documents")
    if media_type not in IMAGE_TYPES:
        raise ValueError(f"vendors take no {media_type}, only {', '.join(sorted(IMAGE_TYPES))}")


def _is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def _is_data_url(source: str) -> bool:
    return source[:5].lower() == "data:"


def _is_file(source: Source) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
