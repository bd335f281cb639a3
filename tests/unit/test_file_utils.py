"""Files as parts of messages, in every form in which they can be passed, without wrong guesses."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbridge import file_utils
from llmbridge.file_utils import (
    analyze_file,
    analyze_image,
    compare_images,
    create_base64_image_content,
    create_data_url,
    create_file_content,
    create_image_content,
    create_multi_image_content,
    encode_file_to_base64,
    extract_text_from_image,
    get_file_mime_type,
    is_document_file,
    is_image_file,
    is_pdf_file,
    validate_file_for_vision_api,
    validate_image_file,
)

RAW = {
    "image/png": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200),
    "image/gif": b"GIF89a" + bytes(200),
    "image/webp": b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(200),
    "application/pdf": b"%PDF-1.7\n" + bytes(200),
}
PACKED = {kind: base64.b64encode(raw).decode() for kind, raw in RAW.items()}
IMAGES = sorted(set(RAW) - {"application/pdf"})
WORDS = base64.b64encode(b"just some words, long enough " * 10).decode()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def document(kind: str, data: str) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}}


def written(folder: Path, name: str, kind: str) -> Path:
    path = folder / name
    path.write_bytes(RAW[kind])
    return path


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_the_same_however_it_is_given(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, "picture", kind)
    url = f"data:{kind};base64,{PACKED[kind]}"
    for source in (path, str(path), PACKED[kind], url, "\n".join([PACKED[kind][:76], PACKED[kind][76:]])):
        assert create_image_content(source) == [image(url)]
        assert create_file_content(source) == [image(url)]


def test_a_document_is_the_same_however_it_is_given(tmp_path: Path) -> None:
    path, packed = written(tmp_path, "report", "application/pdf"), PACKED["application/pdf"]
    for source in (path, str(path), packed, f"data:application/pdf;base64,{packed}"):
        assert create_file_content(source) == [document("application/pdf", packed)]


def test_a_url_is_handed_on_and_not_fetched() -> None:
    for url in ("https://example.com/a.png", "http://example.com/a", "HTTPS://EXAMPLE.COM/a"):
        assert create_image_content(url) == create_file_content(url) == [image(url)]
    for url in ("https://example.com/a.pdf", "https://example.com/a.PDF?x=y.png#z"):
        assert create_file_content(url) == [{"type": "document", "source": {"type": "url", "url": url}}]


def test_what_there_is_a_file_of_that_name_for_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = PACKED["image/png"].replace("/", "")[:120]
    written(tmp_path, name, "image/gif")
    assert create_image_content(name) == [image(f"data:image/gif;base64,{PACKED['image/gif']}")]


@pytest.mark.parametrize(
    "path",
    [
        "missing.png",
        "/no/such/folder/picture",
        "README",
        "/9j/pictures",
        "a" * 99,
        "a\0b",
        "images/" * 60 + "a.png",
        "~",
    ],
)
@pytest.mark.parametrize("make", [create_image_content, create_file_content])
def test_a_path_that_is_wrong_is_told_and_never_taken_for_base64(path: str, make: Callable[..., Any]) -> None:
    with pytest.raises(FileNotFoundError):
        make(path)


def test_base64_of_an_unknown_type_needs_to_be_told_its_type() -> None:
    with pytest.raises(FileNotFoundError, match="mime_type="):
        create_file_content(WORDS)
    assert create_file_content(WORDS, mime_type="text/plain") == [document("text/plain", WORDS)]
    with pytest.raises(FileNotFoundError):
        create_file_content(WORDS + "A", mime_type="text/plain")


def test_a_type_that_is_given_goes_first(tmp_path: Path) -> None:
    assert create_image_content(PACKED["image/png"], mime_type="image/webp") == [
        image(f"data:image/webp;base64,{PACKED['image/png']}")
    ]


def test_the_bytes_tell_the_type_and_then_the_name(tmp_path: Path) -> None:
    lying = written(tmp_path, "a.png", "image/jpeg")
    assert create_data_url(lying).startswith("data:image/jpeg;")
    plain = tmp_path / "a.txt"
    plain.write_text("Grüße")
    assert create_data_url(plain) == "data:text/plain;base64,R3LDvMOfZQ=="
    assert create_file_content(plain) == [document("text/plain", "R3LDvMOfZQ==")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:text/plain,a%20b", document("text/plain", "YSBi")),
        ("data:,a", document("text/plain", "YQ==")),
        ("data:text/csv;charset=utf-8;base64,YQ==", document("text/csv", "YQ==")),
        ("DATA:IMAGE/PNG;BASE64,YQ==", image("data:image/png;base64,YQ==")),
    ],
)
def test_data_urls_are_read_in_all_their_forms(url: str, expected: dict[str, Any]) -> None:
    assert create_file_content(url) == [expected]


def test_a_data_url_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="data URL"):
        create_file_content("data:image/png")


def test_the_error_names_what_no_provider_accepts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PDF"):
        create_image_content(written(tmp_path, "a.pdf", "application/pdf"))
    drawing = tmp_path / "a.bmp"
    drawing.write_bytes(b"BM")
    for make in (create_image_content, create_file_content, validate_file_for_vision_api):
        with pytest.raises(ValueError, match="image/bmp"):
            make(drawing)
    strange = tmp_path / "strange"
    strange.write_bytes(b"?")
    with pytest.raises(ValueError, match="mime_type="):
        create_file_content(strange)
    with pytest.raises(FileNotFoundError):
        validate_file_for_vision_api(tmp_path / "missing.png")
    validate_file_for_vision_api(written(tmp_path, "a.png", "image/png"))


def test_the_text_stands_before_the_files() -> None:
    text, first = {"type": "text", "text": "What is it?"}, image(f"data:image/png;base64,{PACKED['image/png']}")
    assert analyze_image(PACKED["image/png"], "What is it?") == [text, first]
    assert analyze_file(PACKED["image/png"], "What is it?", "image/png") == [text, first]
    assert extract_text_from_image(PACKED["image/png"])[1:] == [first]
    second = image("data:image/png;base64,anything")
    assert create_base64_image_content("anything", "image/png", "What is it?") == [text, second]
    several = [PACKED["image/png"], {"data": "anything", "mime_type": "image/png"}, "https://example.com/a"]
    assert create_multi_image_content(several, "What is it?") == [text, first, second, image("https://example.com/a")]
    assert compare_images(several[0], several[1], "What is it?") == [text, first, second]
    assert create_multi_image_content([{"data": "x"}]) == [image("data:image/jpeg;base64,x")]


def test_files_are_told_apart_by_name(tmp_path: Path) -> None:
    picture = written(tmp_path, "a.JPG", "image/jpeg")
    report = written(tmp_path, "a.pdf", "application/pdf")
    assert [get_file_mime_type(path) for path in (picture, report, "a.webp", "a.docx", "a", "a.no-such-suffix")] == [
        "image/jpeg",
        "application/pdf",
        "image/webp",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/octet-stream",
        "application/octet-stream",
    ]
    assert [is_image_file(picture), is_pdf_file(picture), is_document_file(picture)] == [True, False, False]
    assert [is_image_file(report), is_pdf_file(report), is_document_file(report)] == [False, True, True]
    assert [validate_image_file(picture), validate_image_file(report)] == [True, False]
    missing = tmp_path / "missing.png"
    assert not any(check(missing) for check in (is_image_file, is_pdf_file, is_document_file, validate_image_file))
    assert base64.b64decode(encode_file_to_base64(os.fspath(report))) == RAW["application/pdf"]
    with pytest.raises(FileNotFoundError):
        encode_file_to_base64(missing)


def test_the_helpers_are_where_llmbridge_py_has_them() -> None:
    import llmbridge

    for name in ("analyze_image", "create_data_url", "get_file_mime_type", "validate_image_file"):
        assert getattr(llmbridge, name) is getattr(file_utils, name)
