"""Where every request is parsed: one that can't be ends its call with INVALID_ARGUMENT.

gRPC itself would answer UNKNOWN, with the parser's words, and write a traceback into the log for each such request.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from stepwire_executor.services.errors import StatusError, as_status, refuse


class Readable(grpc.aio.ServerInterceptor):
    """Hands on only what can be parsed. A handler that parses its requests itself is left as it is."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}
        """What each method is served by, made with its first call."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Let a call through to a handler that sees no request but whole ones."""
        method = handler_call_details.method
        made = self._handlers.get(method)
        if made is None:
            handler = await continuation(handler_call_details)
            if handler is None or handler.request_deserializer is None:
                return handler
            made = self._handlers[method] = self._make(handler, method)
        return made

    def _make(self, handler: Any, method: str) -> Any:
        parse = _parser(handler.request_deserializer, method)
        if handler.request_streaming:
            make, call = grpc.stream_stream_rpc_method_handler, _of_many(handler.stream_stream)
        elif handler.response_streaming:
            make, call = grpc.unary_stream_rpc_method_handler, _of_one(handler.unary_stream)
        else:
            make, call = grpc.unary_unary_rpc_method_handler, _with_one_answer(handler.unary_unary)
        return make(call, request_deserializer=parse, response_serializer=handler.response_serializer)


def _parser(parse: Callable[[bytes], Any], method: str) -> Callable[[bytes], Any]:
    """Make a parser that gives the error instead of raising it: gRPC would take that for a fault of the server."""

    def parse_or_not(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            name = method.rpartition("/")[2]
            message = (
                f"a request of {name} that can't be parsed: it is cut, of another type, or has text that is no UTF-8"
            )
            return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)

    return parse_or_not


def _with_one_answer(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        if isinstance(request, StatusError):
            refuse(context, request)
            return None
        return await behaviour(request, context)

    return call


def _of_one(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[None]]:
    async def call(request: Any, context: Any) -> None:
        if isinstance(request, StatusError):
            refuse(context, request)
        else:
            await _answer(behaviour(request, context), context)

    return call


def _of_many(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[None]]:
    async def call(requests: AsyncIterator[Any], context: Any) -> None:
        try:
            await _answer(behaviour(_whole(requests), context), context)
        except StatusError as error:
            refuse(context, as_status(error))

    return call


async def _whole(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, StatusError):
            raise request
        yield request


async def _answer(answers: Any, context: Any) -> None:
    """Write what a handler yields; one that does not writes its answers itself."""
    if not inspect.isasyncgen(answers):
        await answers
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)
