"""Encoding: from Python values to payloads and back, by the types that annotations name."""

from __future__ import annotations

import functools
import inspect
import json
import traceback
import typing
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import pydantic
import pydantic_core

from stepwire.errors import NEVER_RETRIED, EncodingError, Failure, OutputTooLargeError, RetryAfterError, StepError
from stepwire.payload import BINARY, JSON, Payload

DEFAULT_MAX_OUTPUT_BYTES = 4 * 1024 * 1024
MOST_CAUSES = 16
LONGEST_TEXT = 64 * 1024
_OWN_FOLDER = str(Path(__file__).parent)
_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
_PLAIN = (str, int, float, bool, type(None))
_EMPTY = Payload(b"", "")


class Codec(Protocol):
    """Turns payloads into something else on their way out of the process, and back: encryption, compression.

    `encode` is given a payload with encoding "json" or "binary"; what it gives names an encoding of its own.
    """

    def encode(self, payload: Payload) -> Payload:
        """Wrap a payload."""

    def decode(self, payload: Payload) -> Payload:
        """Undo `encode`; a payload of another encoding is given back as it is."""


class Values:
    """Encodes and decodes values. `max_output_bytes` is the executor's limit."""

    def __init__(self, codec: Codec | None = None, max_output_bytes: int = DEFAULT_MAX_OUTPUT_BYTES) -> None:
        self.codec = codec
        self.max_output_bytes = max_output_bytes

    def encode(self, value: Any, type_: Any = None, what: str = "a value", limit: int | None = None) -> Payload:
        """Encode a value as JSON; top-level bytes as they are.

        Raises EncodingError, and OutputTooLargeError if there are more than `limit` bytes (default: `max_output_bytes`).
        """
        if isinstance(value, bytes | bytearray | memoryview):
            payload = Payload(bytes(value), BINARY)
        else:
            payload = Payload(_to_json(value, type_, what), JSON)
        if self.codec is not None:
            payload = self.codec.encode(payload)
        most = self.max_output_bytes if limit is None else limit
        if most and len(payload.data) > most:
            raise OutputTooLargeError(
                f"{what} has {len(payload.data)} bytes, over the limit of {most} (--max-output-bytes): "
                "return less, or a reference to it"
            )
        return payload

    def decode(self, payload: Payload, type_: Any = None, what: str = "a value") -> Any:
        """Decode a payload as `type_`, or as plain JSON values if that is None. Raises EncodingError."""
        if not payload.data and not payload.encoding:
            return None
        if self.codec is not None and payload.encoding not in (JSON, BINARY):
            payload = self.codec.decode(payload)
        if payload.encoding == BINARY:
            return payload.data
        if payload.encoding not in (JSON, ""):
            raise EncodingError(
                f"{what} has the encoding {payload.encoding!r}, which nothing here can decode: "
                "give the app or client the codec that it was encoded with"
            )
        try:
            if type_ is None:
                return pydantic_core.from_json(payload.data or b"null")
            return _adapter(type_).validate_json(payload.data or b"null")
        except (ValueError, pydantic.ValidationError) as error:
            name = getattr(type_, "__name__", str(type_)) if type_ is not None else "JSON"
            raise EncodingError(f"{what} can't be read as {name}: {error}") from None

    def failure(self, error: BaseException) -> Failure:
        """Describe an exception as data, with its traceback and causes."""
        return _failure(error, MOST_CAUSES)

    def return_type(self, code: Callable[..., Any]) -> Any | None:
        """Give the type that a callable says it returns, without its awaitable; None if it says none."""
        return return_type(code)


def return_type(code: Callable[..., Any]) -> Any | None:
    """Give the type that a callable says it returns, without its awaitable; None if it says none that can be read."""
    while isinstance(code, functools.partial):
        code = code.func
    try:
        return _return_type(code)
    except TypeError:
        return None


@functools.lru_cache(maxsize=4096)
def _return_type(code: Callable[..., Any]) -> Any | None:
    function = code if inspect.isroutine(code) else getattr(type(code), "__call__", code)
    try:
        annotation = typing.get_type_hints(function, include_extras=True).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return None
    if typing.get_origin(annotation) in (Awaitable, Coroutine):
        annotation = typing.get_args(annotation)[-1]
    return None if annotation is Any or isinstance(annotation, typing.TypeVar) else annotation


@functools.lru_cache(maxsize=4096)
def _cached_adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    return _new_adapter(type_)


def _new_adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(type_, config=_CONFIG)
    except pydantic.PydanticUserError:  # the type has a configuration of its own
        return pydantic.TypeAdapter(type_)


def _adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return _cached_adapter(type_)
    except TypeError:  # unhashable, e.g. Annotated with a list
        return _new_adapter(type_)
    except pydantic.PydanticSchemaGenerationError as error:
        raise EncodingError(f"values of type {type_} can't be encoded: {error}") from None


def _to_json(value: Any, type_: Any, what: str) -> bytes:
    try:
        if type_ is None or type_ is type(None) or isinstance(value, _PLAIN):
            data = pydantic_core.to_json(value, bytes_mode="base64", inf_nan_mode="constants")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = _adapter(type_).dump_json(value, warnings=False)
    except (ValueError, TypeError, pydantic_core.PydanticSerializationError, RecursionError) as error:
        raise EncodingError(f"{what} can't be encoded as JSON: {error}; its type is {type(value).__name__}") from None
    if b"NaN" in data or b"Infinity" in data:
        _refuse_nan(data, what)
    return data


def _refuse_nan(data: bytes, what: str) -> None:
    """NaN and infinities are no JSON; the words may stand inside of strings."""

    def refuse(word: str) -> float:
        raise EncodingError(f"{what} can't be encoded as JSON: it holds {word}, which JSON does not know")

    json.loads(data, parse_constant=refuse)


def _failure(error: BaseException, depth: int) -> Failure:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    retry_after = error.delay_seconds if isinstance(error, RetryAfterError) else None
    inner = error.failure if isinstance(error, StepError) else None
    return Failure(
        type(error).__name__,
        _text(error)[:LONGEST_TEXT],
        _stack(error),
        not isinstance(error, NEVER_RETRIED),
        retry_after,
        inner or (_failure(cause, depth - 1) if cause is not None and depth > 1 else None),
    )


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as worse:
        text = f"(its text can't be had: {type(worse).__name__})"
    return text.encode(errors="backslashreplace").decode()


def _stack(error: BaseException) -> str:
    """Write a traceback, without the frames of this package on top and without the causes, which are told apart."""
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename.startswith(_OWN_FOLDER):
        del frames[0]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    lines += traceback.format_exception_only(error) if not isinstance(error, BaseExceptionGroup) else [repr(error)]
    return "".join(lines)[-LONGEST_TEXT:].encode(errors="backslashreplace").decode()
