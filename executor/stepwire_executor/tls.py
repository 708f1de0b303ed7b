"""The executor's certificate: read, checked, shown to whoever connects, and read again without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc


class TlsError(ValueError):
    """A certificate, a key or the CA for clients can't be used."""


class ServerTls:
    """TLS with a certificate and its key, PEM files; with `client_ca` clients must show one that it has signed.

    Raises TlsError.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._now = self._read()

    def reload(self) -> None:
        """Read the files again, for connections from now on. Raises TlsError, and then nothing has changed."""
        self._now = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Give what gRPC needs; it asks for the certificate with each new connection, in a thread of its own."""
        return grpc.dynamic_ssl_server_credentials(self._now, lambda: self._now, self._client_ca is not None)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        def no_passphrase() -> str:
            raise TlsError(f"the key in {self._key} is encrypted: give one that is not, readable by the executor alone")

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            for file in (self._certificate, self._key, self._client_ca):
                if file is not None:
                    file.read_bytes()
            context.load_cert_chain(self._certificate, self._key, no_passphrase)
        except ssl.SSLError as error:
            said = "they do not belong together" if "MISMATCH" in str(error) else f"not PEM: {error.reason or error}"
            raise TlsError(f"can't use {self._certificate} with the key in {self._key}: {said}") from None
        except OSError as error:
            raise TlsError(f"can't read {error.filename or self._certificate}: {error.strerror or error}") from None
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                raise TlsError(f"{self._client_ca} holds no certificate: {error.reason or error}") from None
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        client_ca = None if self._client_ca is None else self._client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], client_ca)
