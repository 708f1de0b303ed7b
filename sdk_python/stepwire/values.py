"""Encoding: from Python values to payloads and back, by the types that annotations name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stepwire import signatures
from stepwire.errors import EncodingError, Failure, OutputTooLargeError
from stepwire.failures import failure_of
from stepwire.json_values import BYTES, check_bytes, from_bytes, from_json, to_json
from stepwire.payload import BINARY, JSON, Payload
from stepwire.signatures import Converted, return_type

__all__ = ["Codec", "Values", "return_type"]

DEFAULT_MAX_OUTPUT_BYTES = 3_000_000


class Codec(Protocol):
    """Turns payloads into something else on their way out of the process, and back: encryption, compression.

    `encode` is given a payload with encoding "json" or "binary"; what it gives names an encoding of its own, or is the
    same payload. What a codec raises is an error like any other: it is retried.
    """

    def encode(self, payload: Payload) -> Payload:
        """Wrap a payload."""

    def decode(self, payload: Payload) -> Payload:
        """Undo `encode`; a payload of another encoding is given back as it is."""


class Values:
    """Encodes and decodes values. `max_output_bytes` is the executor's limit; 0 means none."""

    def __init__(self, codec: Codec | None = None, max_output_bytes: int = DEFAULT_MAX_OUTPUT_BYTES) -> None:
        self.codec = codec
        self.max_output_bytes = max_output_bytes

    def encode(self, value: Any, type_: Any = None, what: str = "a value", limit: int | None = None) -> Payload:
        """Encode a value as JSON; bytes as they are. `what` names it in errors.

        Raises EncodingError if it would not come back as `type_`, and OutputTooLargeError if it takes more than `limit`
        bytes (default `max_output_bytes`).
        """
        converts = type(type_) is Converted
        if converts:
            type_ = type_.type_
        if isinstance(value, BYTES):
            check_bytes(value, type_, what)
            payload = Payload(bytes(value), BINARY)
        else:
            payload = Payload(to_json(value, type_, what, converts=converts), JSON)
        if self.codec is not None:
            payload = self._wrapped(self.codec, payload, what)
        most = self.max_output_bytes if limit is None else limit
        if most and len(payload.data) > most:
            setting = "--max-output-bytes" if limit is None or limit == self.max_output_bytes else "the limit"
            raise OutputTooLargeError(
                f"{what} has {len(payload.data):,} bytes, over {setting}={most}: return less, or a reference to it"
            )
        return payload

    def decode(self, payload: Payload, type_: Any = None, what: str = "a value") -> Any:
        """Decode a payload as `type_`, or as plain JSON values (or bytes) if that is None. Raises EncodingError.

        An empty payload without an encoding is None.
        """
        if not payload.data and not payload.encoding:
            return None
        if type(type_) is Converted:
            type_ = type_.type_
        if self.codec is not None and payload.encoding not in (JSON, BINARY, ""):
            payload = self.codec.decode(payload)
            _check_payload(payload, what)
        if payload.encoding in (JSON, ""):
            return from_json(payload.data or b"null", type_, what)
        if payload.encoding == BINARY:
            return from_bytes(payload.data, type_, what)
        raise EncodingError(
            f"{what} has the encoding {payload.encoding!r}, which nothing here can decode: "
            "give the app or client the codec that it was encoded with"
        )

    def failure(self, error: BaseException, note: str = "") -> Failure:
        """Describe an exception as data, with its traceback, a note of ours below that, and its causes."""
        return failure_of(error, note)

    def return_type(self, code: Callable[..., Any]) -> Any | None:
        """Give the type that a callable says it returns, without its awaitable; None if it says none."""
        return signatures.return_type(code)

    @staticmethod
    def _wrapped(codec: Codec, payload: Payload, what: str) -> Payload:
        wrapped = codec.encode(payload)
        _check_payload(wrapped, what)
        if wrapped.encoding in (JSON, BINARY, "") and wrapped != payload:
            raise EncodingError(
                f"{what}: the codec changed a payload but left its encoding {wrapped.encoding!r}, so that nothing "
                "would decode it: name an encoding of its own"
            )
        return wrapped


def _check_payload(given: Any, what: str) -> None:
    """Check what a codec gives: it can be sent, and read."""
    if not isinstance(given, Payload):
        raise EncodingError(f"{what}: the codec gave a {type(given).__name__} instead of a stepwire.Payload")
    if not isinstance(given.data, bytes):
        raise EncodingError(f"{what}: the codec gave a payload whose data is a {type(given.data).__name__}, not bytes")
    for text in (given.encoding, *given.metadata, *given.metadata.values()):
        if not isinstance(text, str) or (not text.isascii() and text.encode(errors="replace").decode() != text):
            raise EncodingError(f"{what}: the codec gave a payload with {text!r}, where a text must be")
