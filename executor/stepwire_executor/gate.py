"""The one place that every call passes: whether its caller may make it at all. Services ask about apps themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from stepwire_executor import reflection
from stepwire_executor.access import Access, AccessError, Role
from stepwire_executor.services.errors import as_status, refuse

ROLES = {
    "stepwire.v1.WorkerService": Role.WORKER,
    "stepwire.v1.EventService": Role.CLIENT,
    "stepwire.v1.RunService": Role.CLIENT,
    "stepwire.v1.AdminService": Role.ADMIN,
}
OPEN = {"grpc.health.v1.Health", *reflection.SERVICE_NAMES}
"""Services that take no token: they tell nothing of runs."""


class Gate(grpc.aio.ServerInterceptor):
    """Refuses calls without a token, or with one that has not the role."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Let a call through, or answer it with what is wrong, before anything of it is read."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service in OPEN:
            return handler
        try:
            caller = self._access.identify(handler_call_details.invocation_metadata or ())
            caller.check_role(ROLES[service], method)
        except AccessError as error:
            return refusal(error)
        return handler


def refusal(error: AccessError) -> Any:
    """Make a handler that answers any kind of call with an error."""

    async def call(requests: Any, context: Any) -> None:
        refuse(context, as_status(error))

    return grpc.stream_stream_rpc_method_handler(call)
