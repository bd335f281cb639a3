"""Which plugin is used, that no other one is imported, and the errors if none can be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbridge.errors import (
    AmbiguousPluginError,
    IncompatiblePluginError,
    InvalidPluginError,
    InvalidRequestError,
    InvalidStorageURLError,
    PluginLoadError,
    ProviderError,
    ProviderNotFoundError,
    StorageError,
    StorageRefusedError,
    UnknownStorageError,
)
from llmbridge.plugins import (
    create_backend,
    create_provider,
    foreign_distribution_warning,
    provider_names,
    provider_plugin,
    provider_plugins,
    storage_plugin,
    storage_plugins,
)
from llmbridge.plugins._discovery import storage, usable_names

STORE = """
from llmbridge.storage import StorageBackend, StoragePlugin, hookimpl

class Backend(StorageBackend):
    label = LABEL

Backend.__abstractmethods__ = frozenset()
described = 0

@hookimpl
def llmbridge_storage():
    global described
    described += 1
    return StoragePlugin(**{
        "name": LABEL, "schemes": (SCHEME,), "api_version": 1, "create": lambda url, options: Backend(),
        "capabilities": frozenset({"persistent", "erase"}), **dict(CHANGES),
    })
"""

VENDOR = """
from llmbridge.providers import BaseLLMProvider, ProviderPlugin, hookimpl

class Provider(BaseLLMProvider):
    async def complete(self, request, model, *, timeout):
        raise NotImplementedError

def create(prefix, options):
    provider = Provider(options.get("api_key"))
    provider.prefix = prefix
    return provider

@hookimpl
def llmbridge_provider():
    return ProviderPlugin(**{
        "name": "vendor", "prefixes": ("vendor",), "api_version": 1, "create": create, "options": {"api_key": str},
        **dict(CHANGES),
    })
"""


def store(scheme: str, label: str = "store", changes: str = "") -> str:
    """The source of a storage plugin; `changes` are keyword arguments that replace what is right."""
    return STORE.replace("LABEL", repr(label)).replace("SCHEME", repr(scheme)).replace("CHANGES", changes)


def vendor(changes: str = "") -> str:
    return VENDOR.replace("CHANGES", changes)


class Site:
    """A folder of installed distributions, as an installer leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def files(
        self,
        distribution: str,
        modules: Mapping[str, str],
        schemes: Mapping[str, str] = {},
        *,
        prefixes: Mapping[str, str] = {},
        version: str = "1.0",
    ) -> dict[str, str]:
        info = f"{distribution.replace('-', '_')}-{version}.dist-info"
        points = ["[llmbridge.storage]", *(f"{name} = {value}" for name, value in schemes.items())]
        points += ["[llmbridge.providers]", *(f"{name} = {value}" for name, value in prefixes.items())]
        return {
            **{f"{name}.py": source for name, source in modules.items()},
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
            f"{info}/entry_points.txt": "\n".join(points),
        }

    def install(self, *args: Any, **options: Any) -> None:
        for name, text in self.files(*args, **options).items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def wheel(self, distribution: str, *args: Any, **options: Any) -> Path:
        path = self.folder / f"{distribution.replace('-', '_')}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in self.files(distribution, *args, **options).items():
                wheel.writestr(name, text)
        return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[Site]:
    """A folder where nothing but what the test puts there is installed."""
    site = Site(tmp_path / "site")
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    dynamic = [entry for entry in sys.path if entry.endswith("lib-dynload")]
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(site.folder), *standard, *dynamic])
    yield site
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def install_two_claimants(site: Site) -> None:
    site.install("alpha-store", {"alpha": store("shop", "alpha")}, {"shop": "alpha"})
    site.install("Beta_Store", {"beta": store("shop", "beta")}, {"shop": "beta"}, version="2.0")


def run(code: str, path: Iterable[Path], **environment: str) -> Any:
    """What the code prints as JSON in a process of its own, with more folders on its path."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_entry_points_name_is_the_scheme(site: Site) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})

    backend: Any = create_backend("SHOP://host/db")

    assert backend.label == "store"
    assert backend.target == "shop://host/db"
    assert storage_plugin("shop://").capabilities == {"persistent", "erase"}


def test_only_the_chosen_plugin_is_imported(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})
    site.install("beta-store", {"beta": store("barn")}, {"barn": "beta"}, prefixes={"vendor": "beta"})
    code = """
        import json, sys
        from llmbridge.plugins import create_backend, provider_names
        seen = [sorted({"alpha", "beta", "importlib.metadata", "pluggy"} & set(sys.modules))]
        provider_names()
        seen.append(sorted({"alpha", "beta"} & set(sys.modules)))
        create_backend("shop://")
        seen.append(sorted({"alpha", "beta", "aiosqlite", "asyncpg", "pydantic_ai"} & set(sys.modules)))
        print(json.dumps(seen))
    """

    assert run(code, [site.folder]) == [[], [], ["alpha"]]


def test_a_wheel_on_the_path_is_an_installed_plugin(site: Site) -> None:
    sys.path.append(str(site.wheel("alpha-store", {"alpha": store("shop", "from a wheel")}, {"shop": "alpha"})))

    backend: Any = create_backend("shop://")

    assert backend.label == "from a wheel"


def test_an_unpacked_wheel_is_an_installed_plugin(site: Site, tmp_path: Path) -> None:
    wheel = Site(tmp_path / "wheels").wheel("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site.folder)

    assert create_backend("shop://") is not None


def test_a_plugin_installed_after_a_failed_look_is_found(site: Site) -> None:
    with pytest.raises(UnknownStorageError):
        create_backend("shop://")

    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})

    assert create_backend("shop://") is not None


def test_two_claimants_are_named_and_neither_is_imported(site: Site) -> None:
    install_two_claimants(site)

    with pytest.raises(AmbiguousPluginError, match=r"alpha-store 1\.0 and Beta_Store 2\.0.*plugin="):
        create_backend("shop://")

    assert not {"alpha", "beta"} & set(sys.modules)


@pytest.mark.parametrize("name", ["beta-store", "Beta_Store", "BETA.store"])
def test_the_callers_choice_decides_between_two_claimants(site: Site, name: str) -> None:
    install_two_claimants(site)

    backend: Any = create_backend("shop://", plugin=name)

    assert backend.label == "beta"
    assert "alpha" not in sys.modules


def test_the_callers_choice_must_offer_the_scheme(site: Site) -> None:
    install_two_claimants(site)

    with pytest.raises(
        UnknownStorageError, match=r"'gamma' does not provide shop://; .* alpha-store, Beta_Store"
    ) as caught:
        create_backend("shop://", plugin="gamma")

    assert "pip" not in str(caught.value)


def test_a_distribution_seen_twice_is_one_claimant(site: Site, tmp_path: Path) -> None:
    source = Site(tmp_path / "source")
    for place in (site, source):
        place.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})
    (source.folder / "alpha_store-1.0.dist-info").rename(source.folder / "Alpha.Store.egg-info")
    (source.folder / "Alpha.Store.egg-info" / "METADATA").rename(source.folder / "Alpha.Store.egg-info" / "PKG-INFO")
    sys.path.append(str(source.folder))

    assert create_backend("shop://") is not None
    assert len(storage_plugins()) == 1


def test_one_module_under_two_schemes_is_registered_and_asked_once(site: Site) -> None:
    changes = "schemes=('postgresql', 'postgres')"
    schemes = {"postgresql": "alpha", "postgres": "alpha"}
    site.install("alpha-store", {"alpha": store("", changes=changes)}, schemes)

    backends = [create_backend(url) for url in ("postgres://h/db", "postgresql://h/db", "postgres://h/db")]

    assert [backend and backend.target for backend in backends] == ["postgresql://h/db"] * 3
    assert sys.modules["alpha"].described == 1


def test_options_that_tell_stores_apart_are_part_of_the_target(site: Site) -> None:
    changes = "options={'prefix': str, 'token': str, 'db': int}, identity=('prefix', 'db')"
    site.install("alpha-store", {"alpha": store("shop", changes=changes)}, {"shop": "alpha"})

    backends = [
        create_backend("shop://host/db?token=secret"),
        create_backend("shop://host/db?prefix=A%26B&token=secret"),
        create_backend("shop://host/db", prefix="A&B", db=3),
        create_backend("shop://host/db?db=3&prefix=A%26B"),
    ]

    assert [backend and backend.target for backend in backends] == [
        "shop://host/db",
        "shop://host/db?prefix=A%26B",
        "shop://host/db?prefix=A%26B&db=3",
        "shop://host/db?prefix=A%26B&db=3",
    ]


def test_no_plugin_answers_for_another(site: Site) -> None:
    pushing = store("shop", "pushing").replace("@hookimpl", "@hookimpl(tryfirst=True)")
    site.install("alpha-store", {"alpha": pushing}, {"shop": "alpha"})
    site.install("beta-store", {"beta": store("barn", "modest")}, {"barn": "beta"})
    create_backend("shop://")

    backend: Any = create_backend("barn://")

    assert backend.label == "modest"
    assert sys.modules["alpha"].described == 1


def test_many_threads_ask_a_plugin_once(site: Site) -> None:
    slow = store("shop").replace("described += 1", "described += sum(1 for step in range(100_000) if step == 0)")
    site.install("alpha-store", {"alpha": slow}, {"shop": "alpha"})
    together = threading.Barrier(8)
    interval = sys.getswitchinterval()

    def create(_: int) -> Any:
        together.wait()
        return create_backend("shop://")

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            backends = list(pool.map(create, range(8)))
    finally:
        sys.setswitchinterval(interval)

    assert None not in backends
    assert sys.modules["alpha"].described == 1


SHOP = store("shop")

BROKEN = [
    ("raise RuntimeError('no luck')", PluginLoadError, ["cannot be imported", "RuntimeError: no luck"]),
    ("import nothing_of_that_name", PluginLoadError, ["nothing_of_that_name"]),
    ("def (", PluginLoadError, ["SyntaxError"]),
    ("raise SystemExit(3)", PluginLoadError, ["SystemExit"]),
    (SHOP.replace("return ", "raise ValueError('hook') or "), PluginLoadError, ["llmbridge_storage() failed"]),
    (SHOP.replace("def llmbridge_storage", "def llmbridge_storag"), InvalidPluginError, ["'llmbridge_storag'"]),
    (SHOP.replace("llmbridge_storage()", "llmbridge_storage(url)"), InvalidPluginError, ["url"]),
    (SHOP.replace("@hookimpl", ""), InvalidPluginError, ["no llmbridge_storage()", "@hookimpl"]),
    ("", InvalidPluginError, ["no llmbridge_storage()"]),
    (SHOP.replace("return StoragePlugin", "return dict"), InvalidPluginError, ["returned dict, not a StoragePlugin"]),
    (SHOP.replace("return ", "return None and "), InvalidPluginError, ["returned NoneType"]),
    (SHOP.replace("def llmbridge", "async def llmbridge"), InvalidPluginError, ["returned coroutine"]),
    (store("barn"), InvalidPluginError, ["lists other names: barn"]),
    (store("shop", changes="schemes=()"), InvalidPluginError, ["lists other names: none"]),
    (store("shop", changes="schemes='shop'"), InvalidPluginError, ["schemes must be a tuple"]),
    (store("shop", changes="api_version=2"), IncompatiblePluginError, ["version 2", "accepts 1", "llmbridge-core"]),
    (store("shop", changes="api_version=0"), IncompatiblePluginError, ["version 0", "accepts 1", "the plugin"]),
    (store("shop", changes="api_version='1'"), InvalidPluginError, ["api_version must be a whole number"]),
    (
        store("shop", changes="capabilities={'fly', 'sql'}"),
        InvalidPluginError,
        ["capabilities fly;", "known: compact, copy"],
    ),
    (store("shop", changes="capabilities=['sql']"), InvalidPluginError, ["capabilities must be a frozenset"]),
    (store("shop", changes="options={'a': 'int'}"), InvalidPluginError, ["options must map names to types"]),
    (store("shop", changes="identity=('prefix',)"), InvalidPluginError, ["identity must be a tuple of names of its"]),
    (store("shop", changes="create=None"), InvalidPluginError, ["create must be a function"]),
    (store("shop", changes="create=lambda url, options: 5"), InvalidPluginError, ["int, not a StorageBackend"]),
]


@pytest.mark.parametrize(("source", "error", "texts"), BROKEN)
def test_a_plugin_that_cannot_be_used_says_why_and_hurts_nobody(
    site: Site, source: str, error: type[Exception], texts: list[str]
) -> None:
    site.install("alpha-store", {"alpha": source}, {"shop": "alpha"}, version="1.2.3")
    site.install("good-store", {"good": store("barn")}, {"barn": "good"})

    for _ in range(2):
        with pytest.raises(error) as caught:
            create_backend("shop://user:hunter2@host")
        said = str(caught.value)
        assert [text for text in ["alpha-store 1.2.3 (entry point shop = alpha)", *texts] if text not in said] == []
        assert "hunter2" not in said
        assert create_backend("barn://") is not None


def test_the_cause_of_a_broken_import_is_chained(site: Site) -> None:
    site.install("alpha-store", {"alpha": "import nothing_of_that_name"}, {"shop": "alpha"})

    with pytest.raises(PluginLoadError) as caught:
        create_backend("shop://")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("scheme", sorted(usable_names(storage()) & {"memory", "sqlite"}))
def test_a_broken_plugin_does_not_disturb_what_is_ours(tmp_path: Path, scheme: str) -> None:
    broken = Site(tmp_path / "site")
    broken.install("alpha-store", {"alpha": "raise RuntimeError"}, {"shop": "alpha"})
    broken.install("beta-store", {"beta": store("barn").replace("_storage()", "_storag()")}, {"barn": "beta"})
    code = f"""
        import json
        from llmbridge.plugins import create_backend, storage_plugins
        broken = [info.name for info in storage_plugins() if info.error and info.name in ("barn", "shop")]
        print(json.dumps([broken, create_backend("{scheme}://").target]))
    """

    assert run(code, [broken.folder]) == [["barn", "shop"], None]


def test_metadata_that_cannot_be_read_is_left_out_with_a_warning(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})
    site.install("beta-store", {"beta": store("barn")}, {"barn": "beta"})
    points = site.folder / "beta_store-1.0.dist-info" / "entry_points.txt"
    points.write_text("[llmbridge.storage]\nbarn beta\n")

    assert create_backend("shop://") is not None
    assert "cannot be read" in caplog.text


def test_a_plugin_that_was_repaired_works_without_a_restart(site: Site) -> None:
    site.install("alpha-store", {"alpha": "raise RuntimeError"}, {"shop": "alpha"})
    with pytest.raises(PluginLoadError):
        create_backend("shop://")

    site.install("alpha-store", {"alpha": store("shop", "mended after the first try")}, {"shop": "alpha"})

    assert create_backend("shop://") is not None


def test_an_entry_point_must_name_a_module(site: Site) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha:llmbridge_storage"})

    with pytest.raises(InvalidPluginError, match="must name a module"):
        create_backend("shop://")


@pytest.mark.parametrize(
    ("url", "texts", "unsaid"),
    [
        ("sqlite:///x.db", ["sqlite://", "installed: shop", "\npip install llmbridge-sqlite"], "mean"),
        ("x.db", ["\npip install llmbridge-sqlite"], "mean"),
        ("postgres://h/db", ["\npip install llmbridge-postgres"], "mean"),
        ("postgresql://h/db", ["\npip install llmbridge-postgres"], "mean"),
        ("postgre://h/db", ["Did you mean postgres://?", "\npip install llmbridge-postgres"], "llmbridge-sqlite"),
        ("shup://u:hunter2@h", ["Did you mean shop://?", "installed: shop"], "pip"),
        ("zzz://h", ["zzz://", "installed: shop"], "pip"),
    ],
)
def test_an_unknown_scheme_says_what_there_is_and_never_proposes_a_typed_name(
    site: Site, url: str, texts: list[str], unsaid: str
) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"})

    with pytest.raises(UnknownStorageError) as caught:
        create_backend(url)

    said = str(caught.value)
    assert [text for text in texts if text not in said] == []
    assert unsaid not in said
    assert "hunter2" not in said
    assert said.partition("pip install ")[2] in ("", "llmbridge-sqlite", "llmbridge-postgres")


@pytest.mark.parametrize(
    ("allowed", "denied", "answers"),
    [
        (None, None, True),
        (None, "", True),
        (None, "beta-store, Alpha.Store", False),
        ("alpha_store", None, True),
        ("alpha_store", "alpha-store", False),
        ("beta-store", None, False),
        ("", None, False),
    ],
)
def test_the_environment_allows_and_denies_distributions(
    site: Site, monkeypatch: pytest.MonkeyPatch, allowed: str | None, denied: str | None, answers: bool
) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha"}, prefixes={"vendor": "alpha"})
    for variable, value in (("LLMBRIDGE_PLUGINS", allowed), ("LLMBRIDGE_DISABLE_PLUGINS", denied)):
        if value is not None:
            monkeypatch.setenv(variable, value)

    assert provider_names() == ({"vendor"} if answers else set())
    if answers:
        assert create_backend("shop://") is not None
        return
    with pytest.raises(UnknownStorageError, match=r"switched off: alpha-store is (not )?named in LLMBRIDGE_"):
        create_backend("shop://", plugin="alpha-store")
    assert "switched off" in str(storage_plugins()[0].error)
    assert "alpha" not in sys.modules


def test_cores_own_plugins_are_allowed_unless_denied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("llmbridge-core", {"alpha": store("shop")}, {"shop": "alpha"})
    monkeypatch.setenv("LLMBRIDGE_PLUGINS", "")
    assert create_backend("shop://") is not None

    monkeypatch.setenv("LLMBRIDGE_DISABLE_PLUGINS", "llmbridge-core")
    with pytest.raises(UnknownStorageError, match="LLMBRIDGE_DISABLE_PLUGINS"):
        create_backend("shop://")


def test_denying_one_of_two_claimants_decides(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    install_two_claimants(site)
    monkeypatch.setenv("LLMBRIDGE_DISABLE_PLUGINS", "alpha-store")

    backend: Any = create_backend("shop://")

    assert backend.label == "beta"


def raising(error: str) -> str:
    return store("shop", changes="create=create, options={'token': str}") + (
        f"\nfrom llmbridge.storage import StorageRefusedError\ndef create(url, options): raise {error}\n"
    )


def test_what_create_lets_out_becomes_an_error_of_ours(site: Site) -> None:
    site.install("alpha-store", {"alpha": raising("KeyError('region')")}, {"shop": "alpha"})

    with pytest.raises(
        StorageError, match=r"alpha-store could not .* shop://me:\*\*\*@h.*KeyError: 'region'"
    ) as caught:
        create_backend("shop://me:hunter2@h")

    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_ours_passes_through(site: Site) -> None:
    site.install("alpha-store", {"alpha": raising("StorageRefusedError('no')")}, {"shop": "alpha"})

    with pytest.raises(StorageRefusedError, match=r"^no$"):
        create_backend("shop://")


@pytest.mark.parametrize("told", ["url.dsn()", "url.password", "options['token']"])
def test_a_cause_that_tells_a_secret_is_neither_quoted_nor_chained(site: Site, told: str) -> None:
    site.install("alpha-store", {"alpha": raising(f"ValueError('cannot reach ' + {told})")}, {"shop": "alpha"})

    with pytest.raises(StorageError, match="cannot reach") as caught:
        create_backend("shop://me:hunt%40er2@h", token="t0ken-hunt")

    assert not [secret for secret in ("hunt@er2", "hunt%40er2", "t0ken-hunt") if secret in str(caught.value)]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_manager_goes_to_the_plugin_for_postgresql(site: Site) -> None:
    changes = "options={'db_manager': object}, create=create"
    source = store("postgresql", changes=changes) + textwrap.dedent("""
        def create(url, options):
            backend = Backend()
            backend.given = (url, options)
            backend.target = "as the plugin says"
            return backend
    """)
    site.install("alpha-store", {"alpha": source}, {"postgresql": "alpha"})
    manager = object()

    backend: Any = create_backend(db_manager=manager)

    assert str(backend.given[0]) == "postgresql://"
    assert backend.given[1] == {"db_manager": manager}
    assert backend.target == "as the plugin says"
    with pytest.raises(InvalidStorageURLError, match="not both"):
        create_backend("postgresql://h/db", db_manager=manager)


def test_a_listing_shows_the_broken_beside_the_good(site: Site) -> None:
    site.install("alpha-store", {"alpha": store("shop")}, {"shop": "alpha", "barn": "alpha"})
    site.install("beta-store", {"beta": "raise RuntimeError('no luck')"}, {"hut": "beta"}, version="2.0")
    site.install("gamma-store", {"gamma": store("shop")}, {"shop": "gamma"})

    barn, hut, first, second = storage_plugins()

    assert (barn.name, barn.distribution, barn.version, barn.module) == ("barn", "alpha-store", "1.0", "alpha")
    assert "lists other names: shop" in str(barn.error)
    assert (hut.name, hut.version, hut.api_version, hut.capabilities) == ("hut", "2.0", None, ())
    assert "RuntimeError: no luck" in str(hut.error)
    assert (first.api_version, first.capabilities) == (1, ("erase", "persistent"))
    assert "also provided by gamma-store" in str(first.error)
    assert "also provided by alpha-store" in str(second.error)


def test_a_provider_is_found_by_its_prefix_and_gets_checked_options(site: Site) -> None:
    site.install("alpha-vendor", {"alpha": vendor()}, prefixes={"vendor": "alpha"})

    provider: Any = create_provider("vendor", api_key="k", base_url=None)

    assert (provider.prefix, provider.api_key) == ("vendor", "k")
    assert provider_names() == {"vendor"}
    assert [(info.name, info.api_version, info.error) for info in provider_plugins()] == [("vendor", 1, None)]
    with pytest.raises(InvalidRequestError, match=r"no option 'apikey'; known: api_key.*; did you mean api_key\?"):
        create_provider("vendor", apikey="hunter2")


def test_the_descriptor_of_a_provider_tells_its_variables_or_none(site: Site) -> None:
    site.install("alpha-vendor", {"alpha": vendor()}, prefixes={"vendor": "alpha"})

    assert provider_plugin("vendor").variables == {}
    with pytest.raises(ProviderNotFoundError, match="nobody"):
        provider_plugin("nobody")


def test_a_provider_that_is_not_there_is_named_with_those_that_are(site: Site) -> None:
    site.install("alpha-vendor", {"alpha": vendor()}, prefixes={"vendor": "alpha"})

    with pytest.raises(ProviderNotFoundError, match=r"vendr:; installed: vendor\. Did you mean vendor:\?") as caught:
        create_provider("vendr")

    assert "pip" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        (vendor("api_version=7"), IncompatiblePluginError, "version 7"),
        (vendor("prefixes=('other',)"), InvalidPluginError, "lists other names: other"),
        (vendor("variables={'vendor': ('KEY',)}"), InvalidPluginError, "variables must map prefixes"),
        (vendor("variables=('KEY',)"), InvalidPluginError, "variables must map prefixes"),
        (vendor("create=lambda prefix, options: None"), InvalidPluginError, "not a BaseLLMProvider"),
        (vendor("create=lambda prefix, options: 1 / 0"), ProviderError, "ZeroDivisionError"),
        (store("vendor"), InvalidPluginError, "no llmbridge_provider"),
        ("raise RuntimeError", PluginLoadError, "RuntimeError"),
    ],
)
def test_a_provider_that_cannot_be_used_says_why(site: Site, source: str, error: type[Exception], text: str) -> None:
    site.install("alpha-vendor", {"alpha": source}, prefixes={"vendor": "alpha"})

    with pytest.raises(error, match=text):
        create_provider("vendor")


def test_one_module_may_provide_a_backend_and_a_provider(site: Site) -> None:
    site.install("both", {"both": store("shop") + vendor()}, {"shop": "both"}, prefixes={"vendor": "both"})

    assert create_backend("shop://") is not None
    assert create_provider("vendor") is not None
    assert create_backend("shop://") is not None
    assert sys.modules["both"].described == 1


def test_a_distribution_that_owns_our_import_name_is_pointed_out(site: Site) -> None:
    site.install("llmbridge-mongodb", {"llmbridge_mongodb": ""}, version="1.0")
    assert foreign_distribution_warning(thorough=True) is None

    site.install("llmbridge-py", {}, version="0.2.3")
    (site.folder / "llmbridge_py-0.2.3.dist-info" / "RECORD").write_text("llmbridge/__init__.py,,\n")
    site.install("llmbridge-sdk", {}, version="1.0")
    (site.folder / "llmbridge_sdk-1.0.dist-info" / "top_level.txt").write_text("llmbridge\n")

    said = foreign_distribution_warning()
    assert said is not None
    assert said.startswith("llmbridge-py 0.2.3 and llmbridge-sdk 1.0 are installed beside llmbridge-core")
    assert "pip uninstall llmbridge-py llmbridge-sdk" in said
    assert "pip install --force-reinstall llmbridge-core" in said
