"""Certificates for a server and its clients, created with the program `openssl`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_DAYS = "2"


class Authority:
    """An authority of its own, whose certificate is the file `trust`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self._folder = folder
        self.trust = folder / "authority.crt"
        self._key = folder / "authority.key"
        _openssl("req", "-x509", "-days", _DAYS, "-subj", f"/CN={name}", *_new_key(self._key), "-out", str(self.trust))

    def certify(self, name: str, *, hosts: str = "", password: str = "") -> tuple[Path, Path]:
        """The files of a certificate for `name` and of its key, which is kept under `password` if there is one."""
        request, certificate, key = (self._folder / f"{name}.{kind}" for kind in ("csr", "crt", "key"))
        _openssl("req", "-subj", f"/CN={name}", *_new_key(key, password), "-out", str(request))
        signed = ["-in", str(request), "-CA", str(self.trust), "-CAkey", str(self._key), "-out", str(certificate)]
        if hosts:
            extensions = self._folder / f"{name}.ext"
            extensions.write_text(f"subjectAltName = {hosts}\n")
            signed += ["-extfile", str(extensions)]
        _openssl("x509", "-req", "-days", _DAYS, "-CAcreateserial", *signed)
        key.chmod(0o600)
        return certificate, key


def _new_key(file: Path, password: str = "") -> list[str]:
    kept = ["-passout", f"pass:{password}"] if password else ["-noenc"]
    return ["-newkey", "rsa:2048", "-keyout", str(file), *kept]


def _openssl(*args: str) -> None:
    try:
        subprocess.run(["openssl", *args], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.fail("there is no program to make certificates with; install openssl")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"openssl {args[0]} failed: {error.stderr}")
