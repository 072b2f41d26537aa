"""TLS between servers: certificates required on both ends (PROTOCOL 11)."""

from __future__ import annotations

import ssl
from pathlib import Path

from craft.errors import ConfigError


def tls_contexts(
    cert_file: str | Path, key_file: str | Path, ca_file: str | Path
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS 1.3 with certificates required on both ends: the contexts for listening and for connecting.

    Certificates are checked against `ca_file` alone; the listener's must also name the host or address that
    was connected to. Raises ConfigError where a file cannot be used.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            # With a password, if a wrong one, OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(cert_file, key_file, password="")
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"TLS files {str(cert_file)!r}, {str(key_file)!r}, {str(ca_file)!r} cannot be used ({error});"
                " allowed are a certificate, its unencrypted key and the authority's certificate, in PEM"
            ) from error
    return server, client
