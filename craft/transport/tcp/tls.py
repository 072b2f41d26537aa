"""TLS 1.3 from files: between servers (PROTOCOL 11), and between a server and its clients.

Invariants
- A listener's context always demands a certificate; a connector's always checks the listener's and its name.
- Only the authorities in the files given are trusted, never the system's.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from craft.errors import ConfigError

Pair: TypeAlias = "tuple[str | Path, str | Path]"
"""Files: a certificate and what leads to its authority, and its unencrypted key."""


def tls_contexts(
    cert_file: str | Path, key_file: str | Path, ca_file: str | Path
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS 1.3 with certificates required on both ends: the contexts for listening and for connecting.

    Certificates are checked against `ca_file` alone; the listener's must also name the host or address that
    was connected to. Raises ConfigError where a file cannot be used.
    """
    own = cert_file, key_file
    return listening_context(own, ca_file), connecting_context(own, ca_file)


def listening_context(own: Pair, *ca_files: str | Path) -> ssl.SSLContext:
    """Who connects must show a certificate of one of these authorities. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, own, *ca_files)


def connecting_context(own: Pair | None, ca_file: str | Path) -> ssl.SSLContext:
    """Connects to listeners of this authority, with a certificate if there is one. Raises ConfigError."""
    return _filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), own, ca_file)


def _filled(context: ssl.SSLContext, own: Pair | None, *ca_files: str | Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if own is not None:
            # With a password, if a wrong one, OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(*own, password="")
        for ca_file in ca_files:
            context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        named = ", ".join(repr(str(file)) for file in [*(own or ()), *ca_files])
        raise ConfigError(
            f"TLS files {named} cannot be used ({error});"
            " allowed are a certificate, its unencrypted key and the authority's certificate, in PEM"
        ) from error
    return context
