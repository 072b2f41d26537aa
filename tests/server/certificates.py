"""Certificates in files, as an operator would lay them out, from authorities that live for one test."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from craft.config import TlsConfig
from craft.transport.tcp.tls import Pair, connecting_context


class Authority:
    """An authority, and the files that it signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ca_file = folder / f"{name}-ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self._stem = folder / name

    def issue(self, name: str) -> Pair:
        """A certificate for 127.0.0.1, and its key."""
        issued = self._authority.issue_cert("127.0.0.1")
        cert_file, key_file = Path(f"{self._stem}-{name}.pem"), Path(f"{self._stem}-{name}.key")
        cert_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key_file))
        return cert_file, key_file

    def server(self, *, clients: Authority | None = None) -> TlsConfig:
        """A server's `[tls]`."""
        cert_file, key_file = self.issue("server")
        ca_file = None if clients is None else clients.ca_file
        return TlsConfig(Path(cert_file), Path(key_file), self.ca_file, ca_file)

    def client(self, *, of: Authority | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, with a certificate of it or of another one."""
        return connecting_context((of or self).issue("client"), self.ca_file)

    def anonymous(self) -> ssl.SSLContext:
        """A client without a certificate."""
        return connecting_context(None, self.ca_file)
