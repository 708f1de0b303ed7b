"""Where errors become gRPC statuses, with google.rpc details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from stepwire_executor.access import AccessError, Caller
from stepwire_executor.form import FormError
from stepwire_executor.store import StoreError, StoreTakenError

Answer = TypeVar("Answer")
RETRY_SECONDS = 1


class StatusError(Exception):
    """Ends a call with a status. `violation` is the path of the field to blame."""

    def __init__(self, code: grpc.StatusCode, message: str, violation: str = "", retry_seconds: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violation = violation
        self.retry_seconds = retry_seconds


def no_run(caller: Caller, run_id: str) -> StatusError:
    """Say that there is no run with an id that the caller may see."""
    return StatusError(grpc.StatusCode.NOT_FOUND, caller.unknown_run(run_id))


async def abort(context: Any, error: StatusError) -> NoReturn:
    """End a call."""
    number, _ = error.code.value
    status = status_pb2.Status(code=number, message=error.message)
    if error.violation:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.violation, description=error.message)
        status.details.add().Pack(bad)
    if error.retry_seconds:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=error.retry_seconds)))
    metadata = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
    await context.abort(error.code, error.message, metadata)
    raise AssertionError("abort does not return")


def as_status(error: Exception) -> StatusError:
    """Map what services may raise."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, AccessError):
        return StatusError(getattr(grpc.StatusCode, error.code), error.message)
    if isinstance(error, FormError):
        return StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error), error.field)
    message = str(error) if isinstance(error, StoreTakenError) else f"the store is failing: {error}"
    return StatusError(grpc.StatusCode.UNAVAILABLE, message, retry_seconds=RETRY_SECONDS)


def answered(
    method: Callable[[Any, Any, Any], Awaitable[Answer]],
) -> Callable[[Any, Any, Any], Awaitable[Answer]]:
    """Have a unary method's errors become statuses."""

    @wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Answer:
        try:
            return await method(self, request, context)
        except (StatusError, AccessError, FormError, StoreError) as error:
            await abort(context, as_status(error))

    return call
