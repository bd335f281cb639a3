"""Editions of genai-prices' data: the one that is installed, and a newer one that the user fetched.

Nothing is fetched unless `update` is called. What it fetched lies in the user's state directory, where every process
of that user on that machine finds it.
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

#: Where newer data is fetched from, if not from where genai-prices itself fetches it.
URL_VARIABLE = "LLMBRIDGE_PRICES_URL"

#: After how many seconds a process looks whether there is another edition.
MAX_AGE = 120.0

#: Most bytes that are taken for price data; a published edition has about one million.
MAX_BYTES = 64 * 2**20

logger = logging.getLogger("llmbridge.price_data")


@dataclass(frozen=True, slots=True)
class Edition:
    """Price data that was fetched: `version` names it on the rows that it priced, `fetched_at` is UTC, and
    `installed` the genai-prices that was installed then."""

    version: str
    fetched_at: datetime
    installed: str
    providers: Sequence[Provider]

    def is_outdated(self) -> bool:
        """Whether a higher genai-prices was installed after this was fetched, so that its own data is newer."""
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
    """The file of the fetched edition; it need not exist."""
    return paths.state_directory() / "prices.json"


def update(url: str | None = None, timeout: float = 30.0) -> Edition:
    """Fetch the newest data, store it, and put it in force: here at once, in other processes within five minutes.

    :param url: where to fetch it from (None: LLMBRIDGE_PRICES_URL, else where genai-prices publishes it)
    :param timeout: seconds to wait for each answer of the server
    :raises PriceDataError: it cannot be fetched, read or stored; what was in force stays
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
        raise PriceDataError(f"the prices cannot be stored: {error}") from error
    refresh(at_once=True)
    return edition


def read() -> Edition | None:
    """The fetched edition; None where there is none.

    :raises PriceDataError: it cannot be read, or is broken
    """
    try:
        content = path().read_bytes()
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
    """The rate cards of the edition in force. The first call takes up to a second."""
    if _shelf.cards is None:
        refresh()
    return _shelf.cards or bundled()


def is_fresh() -> bool:
    """Whether `current` is in memory, and it is too early to look whether there is another edition."""
    return _shelf.cards is not None and time.monotonic() - _shelf.looked_at < MAX_AGE


def refresh(*, at_once: bool = False) -> None:
    """Put another edition in force if there is one; looked for every MAX_AGE seconds unless `at_once`.

    A file that is broken changes nothing and is warned of once. Blocks while it reads.
    """
    with _shelf.lock:
        if at_once or not is_fresh():
            _shelf.refresh()


class _Shelf:
    """The edition in force in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cards: RateCards | None = None
        self.looked_at = 0.0
        self._seen: tuple[int, ...] | None = None

    def refresh(self) -> None:
        self.looked_at = time.monotonic()
        seen = _stamp()
        if self.cards is not None and seen == self._seen:
            return
        self._seen = seen
        try:
            edition = read() if seen is not None else None
        except PriceDataError as error:
            logger.warning("newer prices are ignored: %s; mend it with: llmbridge models update", error)
            self.cards = self.cards or bundled()
            return
        if edition is None or edition.is_outdated():
            self.cards = bundled()
        else:
            self.cards = RateCards(edition.providers, edition.version)


_shelf = _Shelf()


def _stamp() -> tuple[int, ...] | None:
    """What tells one content of the file from another; None where there is no file."""
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
        with _unlogged(), httpx2.stream("GET", url, timeout=timeout, follow_redirects=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                content += part
                if len(content) > MAX_BYTES:
                    raise PriceDataError(f"{shown} sends more than {MAX_BYTES:,} bytes, which are no prices")
        return bytes(content)
    except httpx2.HTTPStatusError as error:
        failed = PriceDataError(f"{shown} answered {error.response.status_code}")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        failed = PriceDataError(f"prices cannot be fetched from {shown}: {type(error).__name__}")
    # Out of the handlers, so that httpx2's exception, which has the whole address, is not the context of ours.
    raise failed


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the lines in which httpx2 logs the whole addresses of this thread's requests."""
    thread, log = threading.get_ident(), logging.getLogger("httpx2")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(is_of_others)
    try:
        yield
    finally:
        log.removeFilter(is_of_others)


def _parse(stored: bytes) -> Edition:
    """The edition in a file's content: a line that describes it, then the data as it was published."""
    try:
        first, _, content = stored.partition(b"\n")
        heading = json.loads(first)
        fetched_at, installed = datetime.fromisoformat(heading["fetched_at"]), str(heading["genai_prices"])
        digest = hashlib.sha256(content).hexdigest()
        if heading["sha256"] != digest or fetched_at.utcoffset() is None:
            raise ValueError("its content is not what was stored")
        providers = _providers(json.loads(content, parse_float=exact))
        edition = Edition(f"genai-prices {fetched_at:%Y-%m-%d} {digest[:8]}", fetched_at, installed, providers)
        RateCards(providers, edition.version).check()
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise PriceDataError(f"this is no data of genai-prices ({_first_line(error)})") from error
    return edition


def _providers(published: Any) -> list[Provider]:
    """The vendors of published data, without what only serves to read vendors' answers."""
    from genai_prices.types import Provider
    from pydantic import ConfigDict, TypeAdapter

    if not isinstance(published, list) or not published:
        raise ValueError("it is no list of vendors")
    vendors = [{**_object(vendor, "vendor"), "extractors": None} for vendor in published]
    for vendor in vendors:
        vendor["models"] = [_with_prices(_object(model, "model")) for model in vendor.get("models", ())]
    return TypeAdapter(list[Provider], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(vendors)


def _with_prices(model: dict[str, Any]) -> dict[str, Any]:
    prices = model.get("prices", [])
    if isinstance(prices, list):
        conditional = [{**one, "prices": _price(one["prices"])} for one in (_object(one, "price") for one in prices)]
        return {**model, "prices": conditional, "price_variants": None}
    return {**model, "prices": _price(prices), "price_variants": None}


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {what} is no object")
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
        return "that address"
    # What has no host may have its password in the path.
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.hostname else "that address"


def _parts(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))
