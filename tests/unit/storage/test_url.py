"""Storage URLs: what a user may write, and what the plugin gets."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge.errors import InvalidStorageURLError, UnknownStorageError
from llmbridge.plugins import create_backend
from llmbridge.storage import StorageURL
from llmbridge.storage.url import parse

SECRET = "hunter2"

PLUGIN = """
from llmbridge.storage import StorageBackend, StoragePlugin, hookimpl

class Remembering(StorageBackend):
    def __init__(self, url, options):
        self.url, self.options = url, dict(options)

Remembering.__abstractmethods__ = frozenset()

@hookimpl
def llmbridge_storage():
    return StoragePlugin(
        name="remembering",
        schemes=SCHEMES,
        api_version=1,
        create=Remembering,
        capabilities=frozenset({"persistent"}),
        options={
            "timeout": float, "readers": int, "wal": bool, "mode": str, "sslmode": str, "schema": str,
            "password": str, "db_manager": object,
        },
    )
"""


MODULES = {
    "remembering_files": ("sqlite",),
    "remembering_servers": ("postgresql", "postgres"),
    "remembering_names": ("memory",),
    "remembering_anything": ("store",),
}


@pytest.fixture
def remembering_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["[llmbridge.storage]"]
    for module, schemes in MODULES.items():
        (tmp_path / f"{module}.py").write_text(PLUGIN.replace("SCHEMES", repr(schemes)))
        monkeypatch.delitem(sys.modules, module, raising=False)
        lines += [f"{scheme} = {module}" for scheme in schemes]
    info = tmp_path / "remembering_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: remembering-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))


def sqlite(path: str, **options: Any) -> dict[str, Any]:
    return {"scheme": "sqlite", "path": path, "options": options}


def postgresql(**parts: Any) -> dict[str, Any]:
    return {"scheme": "postgresql", "options": {}, **parts}


def wrong(*texts: str, error: type[Exception] = InvalidStorageURLError) -> tuple[type[Exception], tuple[str, ...]]:
    return error, texts


FILES = [
    ("sqlite:///rel.db", sqlite("rel.db")),
    ("sqlite:///sub/rel.db", sqlite("sub/rel.db")),
    ("sqlite:////abs/x.db", sqlite("/abs/x.db")),
    ("SQLite:///rel.db", sqlite("rel.db")),
    ("sqlite:///a%20b%3F%23%25.db", sqlite("a b?#%.db")),
    ("sqlite:///100%.db", sqlite("100%.db")),
    ("sqlite:///a@b.db", sqlite("a@b.db")),
    ("sqlite:///~/x.db", sqlite("HOME/x.db")),
    ("sqlite:///%7E/x.db", sqlite("~/x.db")),
    ("sqlite://", sqlite(":memory:")),
    ("sqlite:///:memory:", sqlite(":memory:")),
    (":memory:", sqlite(":memory:")),
    ("~/x.db", sqlite("HOME/x.db")),
    ("~", sqlite("HOME")),
    ("./calls", sqlite("./calls")),
    ("/abs/calls", sqlite("/abs/calls")),
    ("sub\\calls", sqlite("sub\\calls")),
    ("calls.db", sqlite("calls.db")),
    ("calls.SQLITE3", sqlite("calls.SQLITE3")),
    ("calls.sqlite", sqlite("calls.sqlite")),
    ("what?mode=ro#50%25.db", sqlite("what?mode=ro#50%25.db")),
    (Path("calls"), sqlite("calls")),
    (Path("~/calls%20?x#y"), sqlite("HOME/calls%20?x#y")),
    (PureWindowsPath("C:/x/y"), sqlite("C:\\x\\y")),
    ("C:\\x\\y.db", sqlite("C:\\x\\y.db")),
    ("C:/x/y.db", sqlite("C:/x/y.db")),
    ("c://x/y.db", sqlite("c://x/y.db")),
    ("C:/x/without-suffix", sqlite("C:/x/without-suffix")),
    ("sqlite:///C:/x/y.db", sqlite("C:/x/y.db")),
    ("sqlite:///C:\\x\\y.db", sqlite("C:\\x\\y.db")),
    ("sqlite:///C:/x/y.db?mode=ro", sqlite("C:/x/y.db", mode="ro")),
    ("sqlite://rel.db", wrong("sqlite:///rel.db", "three slashes")),
    ("sqlite://C:/x/y.db", wrong("sqlite:///C:/x/y.db")),
    ("sqlite://./x.db?password=hunter2", wrong("sqlite:///./x.db")),
    ("sqlite://user:hunter2@x.db", wrong("sqlite:///FILE")),
    ("sqlite:///", wrong("names no file", "sqlite:///calls.db")),
    ("sqlite:///a#b.db", wrong("%23")),
    ("sqlite:///a\0b.db", wrong("control character")),
    ("sqlite:///a%00b.db", wrong("NUL")),
    ("sqlite:///a%FFb.db", wrong("UTF-8")),
    ("sqlite:///a.db\n", wrong("control character")),
    ("a\0.db", wrong("NUL")),
    (Path("a\0.db"), wrong("NUL")),
    ("\ud800.db", wrong("file system")),
    ("sqlite:x.db", wrong("sqlite://")),
    ("postgresql:/user:hunter2@host/db", wrong("postgresql://")),
    ("calls", wrong("'calls'", "sqlite:///calls.db")),
    ("user:hunter2@host", wrong("neither a storage URL nor a file")),
    ("password=hunter2", wrong("neither a storage URL nor a file")),
    (b"sqlite:///x.db", wrong("bytes")),
    (5, wrong("int")),
]

SERVERS = [
    (
        "postgresql://user:p%40ss@host:5432/db?sslmode=require",
        postgresql(
            username="user", password="p@ss", host="host", port=5432, database="db", options={"sslmode": "require"}
        ),
    ),
    ("POSTGRES://Host/Db", {"scheme": "postgres", "host": "Host", "database": "Db", "options": {}}),
    ("postgresql://", postgresql()),
    ("postgresql:///db", postgresql(database="db")),
    ("postgresql://host/", postgresql(host="host")),
    ("postgresql://host:/db", postgresql(host="host", database="db")),
    ("postgresql://user@/db", postgresql(username="user", database="db")),
    ("postgresql://user:@host/db", postgresql(username="user", password="", host="host", database="db")),
    ("postgresql://host/d%2Fb%20%C3%A9", postgresql(host="host", database="d/b é")),
    ("postgresql://u%3As:p%2F%3F%23@h/db", postgresql(username="u:s", password="p/?#", host="h", database="db")),
    ("postgresql://user:p:w@host/db", postgresql(username="user", password="p:w", host="host", database="db")),
    ("postgresql://[::1]:5433/db", postgresql(host="::1", port=5433, database="db")),
    ("postgresql://[fe80::1%25eth0]/db", postgresql(host="fe80::1%eth0", database="db")),
    ("postgresql://h1:1,h2:2/db", postgresql(host="h1:1,h2:2", database="db")),
    ("postgresql://u:pw@[::1]:1,h2/db", postgresql(username="u", password="pw", host="[::1]:1,h2", database="db")),
    ("postgresql://%2Fvar%2Frun:5433/db", postgresql(host="/var/run", port=5433, database="db")),
    ("postgresql://h/db?sslmode=a%26b%3D+c", postgresql(host="h", database="db", options={"sslmode": "a&b=+c"})),
    ("postgresql://user:hunter2@host:port/db", wrong("port", "1 to 65535")),
    ("postgresql://host:0/db", wrong("port")),
    ("postgresql://host:65536/db", wrong("port")),
    ("postgresql://host:-1/db", wrong("port")),
    ("postgresql://host:٣/db", wrong("port")),
    ("postgresql://host:1:2/db", wrong("host")),
    ("postgresql://[::1/db", wrong("host", "[::1]")),
    ("postgresql://::1/db", wrong("host", "[::1]")),
    ("postgresql://user:hun/ter2@host/db", wrong("%2F", "%40")),
    ("postgresql://user:123/hunter2@host/db", wrong("%2F", "%40")),
    ("postgresql://user:hun?ter2=x@host/db", wrong("%40")),
    ("postgresql://user:hun#ter2@host/db", wrong("%23")),
    ("postgresql://user:hunter2%FF@host/db", wrong("UTF-8")),
    ("postgresql://user:hunter2%00@host/db", wrong("NUL")),
    ("postgresql+asyncpg://user:hunter2@host/db", wrong("postgresql+asyncpg", "write postgresql://")),
    ("sqlite+aiosqlite:///x.db", wrong("write sqlite://")),
    ("://host/db", wrong("not a valid scheme")),
    ("user:hunter2@://host/db", wrong("not a valid scheme")),
    (" postgresql://host/db", wrong("not a valid scheme")),
    ("1a://host/db", wrong("not a valid scheme")),
    ("sqlight:///x.db", wrong("sqlight://", "Did you mean sqlite://?", error=UnknownStorageError)),
    ("mysql://user:hunter2@host/db", wrong("mysql://", "installed:", "store", error=UnknownStorageError)),
    ("https://host/x.db", wrong("https://", error=UnknownStorageError)),
]

OTHERS = [
    ("memory://", {"scheme": "memory", "options": {}}),
    ("memory://Name", {"scheme": "memory", "path": "Name", "options": {}}),
    ("memory:///name", wrong("memory://NAME")),
    ("store://host/x", {"scheme": "store", "host": "host", "database": "x", "options": {}}),
    ("store:///~/x", {"scheme": "store", "path": "HOME/x", "database": "~/x", "options": {}}),
]

OPTIONS = [
    ("sqlite:///x.db?timeout=2.5&readers=3&mode=a%26b", {}, sqlite("x.db", timeout=2.5, readers=3, mode="a&b")),
    ("sqlite:///x.db?wal=off", {}, sqlite("x.db", wal=False)),
    ("sqlite://?wal=YES", {}, sqlite(":memory:", wal=True)),
    ("sqlite:///x.db?", {}, sqlite("x.db")),
    ("sqlite:///x.db?mode=", {}, sqlite("x.db", mode="")),
    ("sqlite:///x.db", {"timeout": 2, "wal": True, "mode": None}, sqlite("x.db", timeout=2.0, wal=True)),
    ("sqlite:///x.db?readers=3", {"readers": 4}, sqlite("x.db", readers=4)),
    ("sqlite:///x.db?readers=3", {"readers": None}, sqlite("x.db", readers=3)),
    ("sqlite:///x.db?schema=a", {"enable_monitoring": True}, sqlite("x.db", schema="a")),
    ("sqlite:///x.db?enable_monitoring=1", {}, sqlite("x.db")),
    ("x.db", {"schema": "a"}, sqlite("x.db", schema="a")),
    (None, {"db_manager": "a manager"}, postgresql(options={"db_manager": "a manager"})),
    ("", {"db_manager": "a manager"}, postgresql(options={"db_manager": "a manager"})),
    ("postgresql://h/db", {"db_manager": "a manager"}, wrong("not both")),
    ("postgresql://h/db?db_manager=x", {}, wrong("db_manager", "by keyword")),
    ("sqlite:///x.db?timeuot=3", {}, wrong("'timeuot'", "did you mean timeout?", "readers", "enable_monitoring")),
    ("sqlite:///x.db", {"reader": 3}, wrong("'reader'", "did you mean readers?")),
    ("sqlite:///x.db?readers=hunter2", {}, wrong("'readers'", "a whole number")),
    ("sqlite:///x.db?readers=2.5", {}, wrong("'readers'", "a whole number")),
    ("sqlite:///x.db?timeout=hunter2", {}, wrong("'timeout'", "a finite number")),
    ("sqlite:///x.db?timeout=nan", {}, wrong("'timeout'")),
    ("sqlite:///x.db?timeout=1e999", {}, wrong("'timeout'")),
    ("sqlite:///x.db?wal=maybe", {}, wrong("'wal'", "true or false")),
    ("sqlite:///x.db?enable_monitoring=maybe", {}, wrong("'enable_monitoring'", "true or false")),
    ("sqlite:///x.db?readers=1&readers=1", {}, wrong("'readers' twice")),
    ("sqlite:///x.db?wal", {}, wrong("?name=value")),
    ("sqlite:///x.db?=hunter2", {}, wrong("?name=value")),
    ("sqlite:///x.db", {"readers": "3"}, wrong("'readers'", "a whole number, not str")),
    ("sqlite:///x.db", {"readers": True}, wrong("'readers'", "not bool")),
    ("sqlite:///x.db", {"timeout": float("inf")}, wrong("'timeout'")),
    ("sqlite:///x.db", {"wal": 1}, wrong("'wal'", "true or false, not int")),
    ("sqlite:///x.db", {"mode": 5}, wrong("'mode'", "a text, not int")),
    ("sqlite:///x.db", {"schema": 5}, wrong("'schema'", "a text, not int")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "keywords", "expected"),
    [(address, {}, expected) for address, expected in FILES + SERVERS + OTHERS] + OPTIONS,
)
def test_an_address_reaches_the_plugin_in_parts_or_is_refused_with_the_form_to_write(
    remembering_store: None, address: Any, keywords: dict[str, Any], expected: Any
) -> None:
    if isinstance(expected, tuple):
        error, texts = expected
        with pytest.raises(error) as caught:
            create_backend(address, plugin="remembering-store", **keywords)
        for text in texts:
            assert text in str(caught.value)
        assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)
        return

    backend: Any = create_backend(address, plugin="remembering-store", **keywords)

    parts = {part.name: getattr(backend.url, part.name) for part in fields(StorageURL)}
    home = os.path.expanduser("~")
    wanted = {name: value.replace("HOME", home) if name == "path" else value for name, value in expected.items()}
    assert {name: value for name, value in parts.items() if value is not None} == {
        name: value for name, value in wanted.items() if name != "options"
    }
    assert backend.options == wanted["options"]


@pytest.mark.parametrize("address", [None, ""])
def test_no_address_is_no_backend(address: str | None) -> None:
    assert create_backend(address) is None


@pytest.mark.parametrize(
    ("address", "shown", "dsn"),
    [
        ("postgresql://me:p%40ss@[::1]:5433/d%20b?x=1", "postgresql://me:***@[::1]:5433/d%20b", "postgresql://me:p%40ss@[::1]:5433/d%20b"),
        ("postgresql://:pw@h", "postgresql://:***@h", "postgresql://:pw@h"),
        ("postgresql://u@%2Frun/db", "postgresql://u@%2Frun/db", "postgresql://u@%2Frun/db"),
        ("postgresql://h1:1,h2:2/db", "postgresql://h1:1,h2:2/db", "postgresql://h1:1,h2:2/db"),
        ("sqlite:////a b.db", "sqlite:////a%20b.db", "sqlite:////a%20b.db"),
        ("sqlite://", "sqlite:///:memory:", "sqlite:///:memory:"),
        ("memory://n", "memory://n", "memory://n"),
    ],
)  # fmt: skip
def test_only_the_dsn_shows_the_password(address: str, shown: str, dsn: str) -> None:
    url, _ = parse(address)

    assert str(url) == shown
    assert repr(url) == f"StorageURL({shown!r})"
    assert url.dsn() == dsn


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(username=texts, password=texts, host=texts.filter(lambda text: "," not in text), database=texts)
def test_parsing_the_dsn_gives_back_the_parts_of_a_server(
    username: str, password: str, host: str, database: str
) -> None:
    url = StorageURL("postgresql", username=username, password=password, host=host, port=5432, database=database)

    assert parse(url.dsn())[0] == url


@given(path=texts)
def test_parsing_the_dsn_gives_back_the_path_of_a_file(path: str) -> None:
    url = StorageURL("sqlite", path=path)

    assert parse(url.dsn())[0] == url


@given(text=st.text())
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    for address in (text, f"sqlite://{text}", f"postgresql://{text}"):
        try:
            url, _ = parse(address)
        except InvalidStorageURLError:
            continue
        assert str(url)


@pytest.mark.parametrize(
    ("address", "options", "target"),
    [
        ("x.db", {}, "sqlite:///CWD/x.db"),
        ("sqlite:///sub/../x.db?mode=ro", {}, "sqlite:///CWD/x.db"),
        ("sqlite:///link.db", {}, "sqlite:///CWD/x.db"),
        ("sqlite://", {}, None),
        ("memory://name", {}, None),
        ("postgresql://me:hunter2@Host:5432/db?sslmode=require", {}, "postgresql://host:5432/db"),
        ("postgresql://Host:5432/db?password=hunter2", {"schema": "books"}, "postgresql://host:5432/db?schema=books"),
        ("postgres:///db", {}, "postgresql:///db"),
        ("store:///sub/x", {}, "store:///CWD/sub/x"),
        (None, {"db_manager": "a manager"}, None),
    ],
)
def test_the_target_says_which_store_it_is_and_nothing_else(
    remembering_store: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    options: dict[str, Any],
    target: str | None,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.db").symlink_to("x.db")
    monkeypatch.chdir(folder)

    backend = create_backend(address, plugin="remembering-store", **options)

    assert backend is not None
    assert backend.target == (target and target.replace("CWD", str(folder.resolve())))
    assert not (folder / "x.db").exists()
