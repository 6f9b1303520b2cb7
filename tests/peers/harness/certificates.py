"""A certificate authority for one test run, and certificates of it as files."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """`file` holds the authority's own certificate, for whoever is to trust it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def certificate(self, *names: str, common_name: str | None = None) -> tuple[Path, Path]:
        """Chain and key for these names and addresses, readable by all: servers change their user."""
        # One for each common name: a run's modules share this authority, and which comes first is anybody's guess.
        directory = self._directory / "+".join((*names, *((common_name,) if common_name else ())))
        directory.mkdir(exist_ok=True)
        certificate, key = directory / "chain.pem", directory / "key.pem"
        if not key.exists():
            issued = self._authority.issue_cert(*names, common_name=common_name)
            issued.private_key_pem.write_to_path(str(key))
            certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return certificate, key

    def server_context(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.certificate(*names))
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority only, and checks names."""
        return ssl.create_default_context(cafile=str(self.file))
