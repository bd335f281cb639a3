"""A server with TLS, its certificate authority, and another authority that it does not know."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...support.certificates import Authority
from ...support.postgres_server import PROGRAMS, OwnServer, own

#: Who may come in, and how; the first line that fits counts.
_RULES = """
local all postgres trust
hostssl all certified all cert
hostssl all guarded all scram-sha-256
hostssl all postgres all trust
hostnossl all unsafe all trust
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours", "The authority of the books")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "theirs", "Another authority")


@pytest.fixture(scope="session")
def server(authority: Authority) -> Iterator[OwnServer]:
    """A server on loopback whose certificate is for `localhost`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with own(listen_addresses="localhost", port=port) as server:
        files = {"ssl_ca_file": authority.trust}
        files["ssl_cert_file"], files["ssl_key_file"] = authority.certify("server", hosts="DNS:localhost")
        owner = server.folder.stat()
        for name, file in files.items():
            files[name] = Path(shutil.copy(file, server.folder))
            os.chown(files[name], owner.st_uid, owner.st_gid)
        (server.folder / "pg_hba.conf").write_text(_RULES)
        server.run(
            *(f"ALTER SYSTEM SET {name} = '{file}'" for name, file in files.items()), "ALTER SYSTEM SET ssl = on"
        )
        server.stop()
        server.start()
        if server.run("SHOW ssl")[0][0] != "on":
            pytest.fail(f"this PostgreSQL has no TLS; name a folder with the programs of one that has in {PROGRAMS}")
        server.run(
            "CREATE ROLE certified LOGIN", "CREATE ROLE guarded LOGIN PASSWORD 'right'", "CREATE ROLE unsafe LOGIN"
        )
        yield server
