"""Whether the executor takes work, for whoever asks without a token. Nothing that they send is kept.

The service is https://github.com/grpc/grpc/blob/master/doc/health-checking.md. It would have a watch of a service that
nobody has wait for it for ever, under a name of any size; here such a watch is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from stepwire_executor.services.errors import StatusError, refuse

MOST_WATCHES = 1_000
"""Watches at once, of all services and peers together."""
LONGEST_SHOWN = 64
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """Tells of the services with these names, and of the whole: ""."""

    def __init__(self, services: Collection[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._watches = 0

    async def tell(self, *, well: bool) -> None:
        """Say of all services whether they take work."""
        for name in self._services:
            await self.set(name, _SERVING if well else _NOT_SERVING)

    async def Check(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Answer how a service is."""
        if not self._is_known(request.service, context):
            return health_pb2.HealthCheckResponse()
        return await super().Check(request, context)

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: Any
    ) -> health_pb2.HealthListResponse:
        """Answer how every service is."""
        statuses = {name: health_pb2.HealthCheckResponse(status=self._server_status[name]) for name in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Say how a service is, and each time that this changes."""
        if not self._is_known(request.service, context):
            return
        if self._watches >= MOST_WATCHES:
            message = f"{MOST_WATCHES:,} watches are open: use Check, or end others first"
            refuse(context, StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
            return
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1

    def _is_known(self, name: str, context: Any) -> bool:
        """Whether there is a service with a name; refuses the call if there is none."""
        if name in self._services:
            return True
        message = f"this executor has no service {name[:LONGEST_SHOWN]!r}; it has {', '.join(self._services[1:])}"
        refuse(context, StatusError(grpc.StatusCode.NOT_FOUND, message))
        return False
