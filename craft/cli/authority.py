"""An authority that signs certificates, with the package cryptography: an extra, and the only module with it.

Knows: certificates and files. Must not know: the command line.

Invariants
- A key is written for its owner's eyes only, and never anywhere else.
- What is there already is used, or left alone.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from craft.errors import ConfigError

CLOCK_SLACK = dt.timedelta(hours=1)
"""Certificates are valid since so long ago: clocks differ."""


class Authority:
    """One that signs; made where its files are not there."""

    def __init__(self, directory: Path, name: str, valid_days: int) -> None:
        self._directory = directory
        self._days = valid_days
        self._cert_file, self._key_file = directory / f"{name}.pem", directory / f"{name}-key.pem"
        if self._cert_file.exists() or self._key_file.exists():
            self._load()
            return
        self._key = _new_key()
        subject = _name(f"craft {name}")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            self._builder(subject, subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        self._cert = self._signed(builder)
        self._write(self._cert_file, self._key_file, self._cert, self._key)

    def _load(self) -> None:
        """What is there already. Raises ConfigError where nothing can be signed with it."""
        if half := _half(self._cert_file, self._key_file):
            raise ConfigError(
                f"{half}; allowed: both, or neither, for a new authority, which knows none of what the old"
                " one signed"
            )
        try:
            self._cert = x509.load_pem_x509_certificate(self._cert_file.read_bytes())
            key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"{self._cert_file} and {self._key_file} cannot be used: {error}; allowed: what craft"
                " certs has made there, or another --dir"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{self._key_file} is no key that craft certs has made; allowed: another --dir")
        if key.public_key() != self._cert.public_key():
            raise ConfigError(
                f"{self._cert_file} and {self._key_file} do not belong together: nobody would believe what"
                " they sign; allowed: what craft certs has made there, or another --dir"
            )
        end = self._cert.not_valid_after_utc
        if end <= dt.datetime.now(dt.UTC):
            raise ConfigError(
                f"{self._cert_file} has expired, on {end:%Y-%m-%d}: nobody would believe what it signs;"
                " allowed: another --dir, for an authority and certificates that are all new"
            )
        self._key = key

    def issue(self, name: str, hosts: Sequence[str], *, for_server: bool) -> str:
        """A certificate and its key, unless both are there; says what was done."""
        cert_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}-key.pem"
        if cert_file.exists() or key_file.exists():
            return _told(cert_file, key_file)
        key = _new_key()
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if for_server:  # servers connect to each other as well
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            self._builder(_name(name), self._cert.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        self._write(cert_file, key_file, self._signed(builder), key)
        return f"{cert_file}, for {', '.join(hosts)}" if hosts else f"{cert_file}, for clients"

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        end = now + dt.timedelta(days=self._days)
        if subject != issuer:  # what outlives its authority is not believed
            end = min(end, self._cert.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())

    def _write(
        self, cert_file: Path, key_file: Path, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
        with cert_file.open("xb") as file:
            file.write(cert.public_bytes(serialization.Encoding.PEM))


def _half(cert_file: Path, key_file: Path) -> str:
    """Is a certificate or its key there alone? It is not written over: the other may be kept elsewhere."""
    if cert_file.exists() == key_file.exists():
        return ""
    one, other = (cert_file, key_file) if cert_file.exists() else (key_file, cert_file)
    return f"{one} is there, and {other} is not"


def _told(cert_file: Path, key_file: Path) -> str:
    """What is said of a certificate that is there."""
    if half := _half(cert_file, key_file):
        return f"{half}: nothing was made"
    try:
        end = x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_after_utc
    except ValueError:
        end = None  # what somebody else has put there
    if end is not None and end <= dt.datetime.now(dt.UTC):
        return f"{cert_file} is there, and has expired, on {end:%Y-%m-%d}: remove it and its key for another"
    return f"{cert_file} is there already"


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(host: str) -> x509.GeneralName:
    """A host as a certificate names it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
