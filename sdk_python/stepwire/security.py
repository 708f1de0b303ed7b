"""What a client or a worker shows to the executor, and what it wants to see of it: the token, TLS, certificates."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stepwire.errors import StepwireError

TOKEN = "STEPWIRE_TOKEN"
TOKEN_FILE = "STEPWIRE_TOKEN_FILE"
TLS = "STEPWIRE_TLS"
TLS_CA = "STEPWIRE_TLS_CA"
TLS_CERTIFICATE = "STEPWIRE_TLS_CERTIFICATE"
TLS_KEY = "STEPWIRE_TLS_KEY"
PLAINTEXT_TOKEN = "STEPWIRE_PLAINTEXT_TOKEN"
PREFIXES = ("STEPWIRE_TOKEN", "STEPWIRE_TLS", "STEPWIRE_PLAINTEXT")
"""With which all variables about security begin, an executor's too."""

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How to connect: `Client(security=Security(token_file="shop.token", tls_ca="ca.pem"))`.

    `token`, or `token_file` with a token in it, says who we are. `tls` is implied by `tls_ca`, a PEM file with the CA
    of the executor's certificate, without which those count that gRPC brings along; and by `tls_certificate` with
    `tls_key`, our own PEM files, for an executor that asks for them. With TLS there is never a way back to plaintext.
    A token goes to another machine without TLS only with `plaintext_token`.

    Without a Security clients and workers take what the STEPWIRE_* variables of the same names say.
    """

    token: str = field(default="", repr=False)
    token_file: str | os.PathLike[str] = ""
    tls: bool | None = None
    tls_ca: str | os.PathLike[str] = ""
    tls_certificate: str | os.PathLike[str] = ""
    tls_key: str | os.PathLike[str] = ""
    plaintext_token: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the STEPWIRE_* variables. Raises StepwireError for what is neither yes nor no."""
        return cls(
            token=environment.get(TOKEN, ""),
            token_file=environment.get(TOKEN_FILE, ""),
            tls=_yes_or_no(TLS, environment),
            tls_ca=environment.get(TLS_CA, ""),
            tls_certificate=environment.get(TLS_CERTIFICATE, ""),
            tls_key=environment.get(TLS_KEY, ""),
            plaintext_token=bool(_yes_or_no(PLAINTEXT_TOKEN, environment)),
        )

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.tls_ca or self.tls_certificate or self.tls_key) if self.tls is None else self.tls

    def check(self, address: str) -> None:
        """Raise StepwireError if this is not fit to connect to HOST:PORT or unix:PATH, or several of them."""
        token = self.read_token()
        stays_here = all(map(is_loopback, address.split(",")))
        if token and not (self.uses_tls or self.plaintext_token or stays_here):
            raise StepwireError(
                f"the token would go to {address} in plaintext, for everybody on the way to read: set {TLS}=1 (and "
                f"{TLS_CA}, if the CA is your own); or {PLAINTEXT_TOKEN}=1, if the network in between is safe"
            )
        if self.uses_tls:
            self.read_tls()

    def read_token(self) -> str:
        """Give the token; "" if there is none. Raises StepwireError."""
        if self.token and self.token_file:
            raise StepwireError(f"both a token and a token file: give one of {TOKEN} and {TOKEN_FILE}")
        token = (_read(self.token_file, TOKEN_FILE).decode(errors="replace") if self.token_file else self.token).strip()
        origin = f"in {os.fspath(self.token_file)}" if self.token_file else "given"
        if (self.token_file and not token) or not token.isascii() or not token.isprintable() or " " in token:
            raise StepwireError(f"what is {origin} is no token: a token is one line of letters, digits and signs")
        return token

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Give what each call brings along. Raises StepwireError."""
        token = self.read_token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def read_tls(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Give the CA, our key and our certificate, as PEM; None for what is not set. Raises StepwireError."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = (TLS_CERTIFICATE, TLS_KEY) if self.tls_certificate else (TLS_KEY, TLS_CERTIFICATE)
            raise StepwireError(f"{given} takes {missing} too: a certificate is of no use without its key")
        ca, key, certificate = (
            _read_pem(file, name) if file else None
            for file, name in ((self.tls_ca, TLS_CA), (self.tls_key, TLS_KEY), (self.tls_certificate, TLS_CERTIFICATE))
        )
        return ca, key, certificate


def is_loopback(address: str) -> bool:
    """Say whether an address (HOST:PORT or unix:PATH) stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _yes_or_no(name: str, environment: Mapping[str, str]) -> bool | None:
    value = environment.get(name)
    if value is None or value == "":
        return None
    if value.lower() not in (*_YES, *_NO):
        raise StepwireError(f"{name}={value!r} is neither yes nor no: write 1 or 0")
    return value.lower() in _YES


def _read(file: str | os.PathLike[str], name: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise StepwireError(f"can't read {os.fspath(file)} ({name}): {error.strerror or error}") from None


def _read_pem(file: str | os.PathLike[str], name: str) -> bytes:
    text = _read(file, name)
    if b"-----BEGIN " not in text:
        raise StepwireError(f"{os.fspath(file)} ({name}) is not PEM: it has no line with -----BEGIN")
    return text
