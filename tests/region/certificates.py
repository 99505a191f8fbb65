"""Certificates for tests of TLS: an authority, and what it signs, made with OpenSSL's command line."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS = "2"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """Files in PEM: a certificate, and its key in PKCS#8, which may be encrypted."""

    certificate: Path
    key: Path

    def joined(self) -> Path:
        """Both in one file, as a broker wants its key store."""
        path = self.key.with_suffix(".joined.pem")
        path.write_text(self.key.read_text() + self.certificate.read_text())
        return path


class Authority:
    """Signs certificates; its own is `path`. What it makes lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._own = self._request("ca", "", "-x509", "-days", _DAYS)
        self.path = self._own.certificate

    def certify(self, name: str, *, password: str = "") -> Certified:
        """A certificate of `name` for 127.0.0.1 and localhost; with `password` its key is encrypted."""
        signing = ("-x509", "-days", _DAYS, "-CA", str(self.path), "-CAkey", str(self._own.key))
        extensions = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
        return self._request(name, password, *signing, *extensions)

    def _request(self, name: str, password: str, *words: str) -> Certified:
        made = Certified(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        out = ("-keyout", str(made.key), "-out", str(made.certificate))
        kept = ("-passout", f"pass:{password}") if password else ("-nodes",)
        command = ["openssl", "req", "-batch", *_KEY, *kept, *out, "-subj", f"/CN={name}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return made
