"""The file `.env` in the current directory: the URL of the database, and the variables of a provider."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import output
from .exit_codes import UserError

if TYPE_CHECKING:
    from ..providers import ProviderVariables

FILE = ".env"

_REFERENCE = re.compile(r"\$\{([^}:]*)(?::-([^}]*))?\}")


def read() -> Mapping[str, str]:
    """Return the values of ./.env that are not empty; none if there is no such file.

    A reference `${NAME}` is only replaced by a value of the file, never by one of the environment: it could put a
    secret of the environment into a URL of the file.
    """
    if not os.path.isfile(FILE):
        return {}
    from dotenv import dotenv_values

    try:
        written = dotenv_values(FILE, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"./{FILE} cannot be read ({type(error).__name__}); correct it, or give --db") from error
    values: dict[str, str] = {}
    for name, text in written.items():
        if text:
            values[name] = _REFERENCE.sub(lambda found: values.get(found[1], found[2] or found[0]), text)
    return values


@contextmanager
def provider_variables(model: str) -> Iterator[None]:
    """While the block runs, put the variables of the provider of `model` in ./.env into the environment.

    A key is only sent to an address from the same place. So the file is not used if the environment has a key, an
    address or headers of the provider, and the environment's other variables of the provider are hidden if it is used.

    :raises ModelNotFoundError, ProviderNotFoundError: `model` has no known provider
    :raises UserError: the address of the provider's server is not valid
    """
    from ..plugins import provider_names, provider_plugin
    from ..providers import ProviderVariables, is_server_address
    from ..providers.routing import resolve

    provider, _ = resolve(model, provider_names())
    variables = provider_plugin(provider).variables.get(provider, ProviderVariables())
    taken = _taken(provider, variables)
    before = {name: os.environ[name] for name in variables.names if name in os.environ}
    try:
        if taken:
            for name in before:
                del os.environ[name]
            os.environ.update(taken)
        for name in variables.addresses:
            address = os.environ.get(name, "").strip()
            if address and not is_server_address(address):
                # Not shown: it may have a password.
                raise UserError(f"{name} is not the address of a server; write one like http://localhost:8000/v1")
        yield
    finally:
        for name in taken:
            os.environ.pop(name, None)
        os.environ.update(before)


def _taken(provider: str, variables: ProviderVariables) -> dict[str, str]:
    """Return the variables of ./.env to use for a provider. Say so if some are not used."""
    values = read()
    written = {name: values[name] for name in variables.names if name in values}
    together = (*variables.keys, *variables.addresses, *variables.headers)
    here = next((name for name in together if os.environ.get(name, "").strip()), None)
    if here is not None:
        if lost := [name for name in together if name in written and name not in os.environ]:
            output.note(
                f"{lost[0]} of ./{FILE} is not used: {here} of {provider} is set in the environment, and a key is only "
                "sent to an address from the same place"
            )
        return {}
    if variables.finds_stored_keys and not any(name in written for name in variables.keys):
        if lost := [name for name in together if name in written]:
            output.note(
                f"{lost[0]} of ./{FILE} is not used: the file has no key of {provider}, and a key is only sent to an "
                "address from the same place"
            )
        return {}
    return written
