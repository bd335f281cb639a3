"""Editions of genai-prices' data: the installed one, and a newer one that the user fetched.

Only `update` fetches anything. It stores the data in the user's state directory, where every process of that user on
that machine finds it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._shared import files, paths
from ..._shared.money import exact
from ...errors import PriceDataError
from .cards import RateCards, bundled

if TYPE_CHECKING:
    from genai_prices.types import Provider

#: URL of newer data, instead of the one from which genai-prices fetches it.
URL_VARIABLE = "LLMBRIDGE_PRICES_URL"

#: Seconds after which a process checks for another edition.
MAX_AGE = 120.0

#: Most bytes of price data that are accepted; a published edition has about one million.
MAX_BYTES = 64 * 2**20

logger = logging.getLogger("llmbridge.pricing")


@dataclass(frozen=True, slots=True)
class Edition:
    """Fetched price data. `version` is the price version of calls that it priced, `fetched_at` is UTC, and `installed`
    is the version of genai-prices that was installed then."""

    version: str
    fetched_at: datetime
    installed: str
    providers: Sequence[Provider]

    def is_outdated(self) -> bool:
        """Return whether a higher version of genai-prices was installed after the fetch, so that its data is newer."""
        import genai_prices

        put_there = datetime.fromtimestamp(os.path.getmtime(genai_prices.__file__), UTC)
        return put_there > self.fetched_at and _parts(version("genai-prices")) > _parts(self.installed)


@dataclass(frozen=True, slots=True)
class PriceData:
    """The price data that this process uses, and the file of fetched data.

    `version` names it on the calls that it priced, `providers` and `models` are the numbers of price lists and of
    models in them. `path` is the file of fetched data (None: there is no state directory), `fetched_at` (UTC) its age
    (None: nothing was fetched, or the file cannot be read), and `error` says why it cannot be used.
    """

    version: str
    providers: int
    models: int
    path: str | None
    fetched_at: datetime | None
    error: str | None


def path() -> Path:
    """Return the path of the fetched edition; the file need not exist."""
    return paths.state_directory() / "prices.json"


def update(url: str | None = None, timeout: float = 30.0) -> Edition:
    """Fetch the newest data, store it and use it: in this process at once, in others within five minutes.

    :param url: where to fetch it from (None: LLMBRIDGE_PRICES_URL, else where genai-prices publishes it)
    :param timeout: seconds to wait for each step of the download
    :raises PriceDataError: it cannot be fetched, read or stored; the current data stays
    """
    from genai_prices.update_prices import DEFAULT_UPDATE_URL

    content = _fetch(url or os.environ.get(URL_VARIABLE) or DEFAULT_UPDATE_URL, timeout)
    heading = {
        "fetched_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "genai_prices": version("genai-prices"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    stored = json.dumps(heading).encode() + b"\n" + content
    edition = _parse(stored)
    try:
        files.replace(path(), stored)
    except (OSError, RuntimeError) as error:
        raise PriceDataError(f"the price data cannot be stored: {error}") from error
    refresh(at_once=True)
    return edition


def read() -> Edition | None:
    """Return the fetched edition; None if there is none.

    :raises PriceDataError: it cannot be read, or is damaged
    """
    try:
        content = files.read_private(path())
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None
    except OSError as error:
        raise PriceDataError(f"{path()} cannot be read: {error.strerror}") from error
    try:
        return _parse(content)
    except PriceDataError as error:
        raise PriceDataError(f"{path()}: {error}") from error


def status() -> PriceData:
    """Return what is known of the price data in use and of the file. Blocks while it reads."""
    cards = current()
    fetched_at = error = place = None
    try:
        place = str(path())
        edition = read()
        fetched_at = edition.fetched_at if edition is not None else None
    except PriceDataError as failed:
        error = str(failed)
    except RuntimeError:  # no home directory
        pass
    return PriceData(cards.version, *cards.counts(), place, fetched_at, error)


def current() -> RateCards:
    """Return the rate cards of the current edition. The first call takes up to a second."""
    if _current.cards is None:
        refresh()
    return _current.cards or bundled()


def is_fresh() -> bool:
    """Return whether the current edition is in memory and was checked less than MAX_AGE seconds ago."""
    return _current.cards is not None and time.monotonic() - _current.checked_at < MAX_AGE


def refresh(*, at_once: bool = False) -> None:
    """Use another edition if there is one. Check for it every MAX_AGE seconds, or now if `at_once` is True.

    A damaged file changes nothing; it is logged once. Blocks while it reads.
    """
    with _current.lock:
        if at_once or not is_fresh():
            _current.refresh()


class _CurrentEdition:
    """Edition that this process uses."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cards: RateCards | None = None
        self.checked_at = 0.0
        self._file: tuple[int, ...] | None = None

    def refresh(self) -> None:
        self.checked_at = time.monotonic()
        file = _stat()
        if self.cards is not None and file == self._file:
            return
        self._file = file
        try:
            edition = read() if file is not None else None
        except PriceDataError as error:
            logger.warning("newer prices are ignored: %s; fetch them again: llmbridge models update", error)
            self.cards = self.cards or bundled()
            return
        if edition is None or edition.is_outdated():
            self.cards = bundled()
        else:
            self.cards = RateCards(edition.providers, edition.version)


_current = _CurrentEdition()


def _stat() -> tuple[int, ...] | None:
    """Return inode, modification time and size of the file, which change with its content; None if there is none."""
    try:
        found = path().stat()
    except (OSError, RuntimeError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _fetch(url: str, timeout: float) -> bytes:
    import httpx2

    shown = _without_secrets(url)
    content = bytearray()
    try:
        with _without_httpx2_logs(), httpx2.stream("GET", url, timeout=timeout, follow_redirects=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                content += part
                if len(content) > MAX_BYTES:
                    raise PriceDataError(f"{shown} sent more than {MAX_BYTES:,} bytes: it is not price data")
        return bytes(content)
    except httpx2.HTTPStatusError as error:
        failed = PriceDataError(f"{shown} answered {error.response.status_code}")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        failed = PriceDataError(f"prices cannot be fetched from {shown}: {type(error).__name__}")
    # Raised outside the handlers: httpx2's exception contains the whole URL and must not be the context of this one.
    raise failed


@contextmanager
def _without_httpx2_logs() -> Iterator[None]:
    """Suppress httpx2's log records of this thread, because they contain whole URLs."""
    thread, log = threading.get_ident(), logging.getLogger("httpx2")

    def is_of_other_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(is_of_other_thread)
    try:
        yield
    finally:
        log.removeFilter(is_of_other_thread)


def _parse(stored: bytes) -> Edition:
    """Return the edition in a file's content: one line that describes it, then the data as it was published."""
    try:
        first, _, content = stored.partition(b"\n")
        heading = json.loads(first)
        fetched_at, installed = datetime.fromisoformat(heading["fetched_at"]), str(heading["genai_prices"])
        digest = hashlib.sha256(content).hexdigest()
        if heading["sha256"] != digest or fetched_at.utcoffset() is None:
            raise ValueError("its content does not match its checksum")
        providers = _providers(json.loads(content, parse_float=exact))
        edition = Edition(f"genai-prices {fetched_at:%Y-%m-%d} {digest[:8]}", fetched_at, installed, providers)
        RateCards(providers, edition.version).check()
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise PriceDataError(f"this is not valid data of genai-prices ({_first_line(error)})") from error
    return edition


def _providers(published: Any) -> list[Provider]:
    """Return the providers of published data, without the rules for reading providers' responses."""
    from genai_prices.types import Provider
    from pydantic import ConfigDict, TypeAdapter

    if not isinstance(published, list) or not published:
        raise ValueError("it must be a list of providers")
    providers = [{**_object(provider, "provider"), "extractors": None} for provider in published]
    for provider in providers:
        provider["models"] = [_with_prices(_object(model, "model")) for model in provider.get("models", ())]
    return TypeAdapter(list[Provider], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(providers)


def _with_prices(model: dict[str, Any]) -> dict[str, Any]:
    prices = model.get("prices", [])
    if isinstance(prices, list):
        priced: Any = [{**one, "prices": _price(one["prices"])} for one in (_object(one, "price") for one in prices)]
    else:
        priced = _price(prices)
    variants = [_object(one, "price variant") for one in model.get("price_variants") or ()]
    return {
        **model,
        "prices": priced,
        "price_variants": [{**one, "prices": _price(one["prices"])} for one in variants] or None,
    }


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {what} must be a JSON object")
    return value


def _price(rates: Any) -> Any:
    from genai_prices.types import ModelPrice, TieredPrices
    from pydantic import TypeAdapter

    return ModelPrice(**TypeAdapter(dict[str, Decimal | TieredPrices | None]).validate_python(rates))


def _first_line(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _without_secrets(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "that URL"
    # A URL without a host may have a password in its path.
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.hostname else "that URL"


def _parts(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))
