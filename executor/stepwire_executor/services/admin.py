"""AdminService: what is connected and registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwire_executor import times, wire
from stepwire_executor.access import Access, Role
from stepwire_executor.core.registrations import unserved_since
from stepwire_executor.core.state import Session, SessionState
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import answered
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """See the contract."""

    def __init__(self, engine: EngineHandle, access: Access | None = None) -> None:
        self._engine = engine
        self._access = access or Access()

    @answered
    async def ListWorkers(  # noqa: N802
        self, request: admin_pb2.ListWorkersRequest, context: Any
    ) -> admin_pb2.ListWorkersResponse:
        """List the workers that are connected or within their grace."""
        sessions = sorted(self._engine.state.sessions.values(), key=lambda session: session.connected_at)
        mono = self._engine.now().mono
        shown = self._shown(request.app, context)
        workers = [show_worker(session, mono) for session in sessions if shown(session.app)]
        return admin_pb2.ListWorkersResponse(workers=workers)

    @answered
    async def ListFunctions(  # noqa: N802
        self, request: admin_pb2.ListFunctionsRequest, context: Any
    ) -> admin_pb2.ListFunctionsResponse:
        """List the functions that workers have registered."""
        state = self._engine.state
        shown = self._shown(request.app, context)
        response = admin_pb2.ListFunctionsResponse()
        for key, function in sorted(state.functions.items()):
            if shown(function.app):
                serving = [
                    session
                    for session in state.sessions.values()
                    if session.state is SessionState.CONNECTED
                    and session.app == function.app
                    and key[1] in session.functions
                ]
                added = response.functions.add(
                    app=function.app,
                    options=wire.to_function(function.options),
                    app_version=function.app_version,
                    workers=len(serving),
                    registered_at=times.timestamp(function.registered_at),
                )
                if not serving:
                    added.unserved_since.CopyFrom(times.timestamp(unserved_since(state, function)))
        return response

    def _shown(self, asked: str, context: Any) -> Callable[[str], bool]:
        """Give what says whether an app belongs into a list.

        Raises AccessError if another's app was asked for, and StoreError while nobody is known here.
        """
        if self._engine.failing:
            raise self._engine.refusal()
        caller = self._access.caller(context, Role.ADMIN)
        if asked:
            caller.check_app(asked, "the list")
        return lambda app: asked in ("", app) and caller.may_see(app)


def show_worker(session: Session, mono: float) -> admin_pb2.Worker:
    """Write a session as the contract shows it; `mono` is the time of the monotonic clock."""
    return admin_pb2.Worker(
        instance_id=session.instance_id,
        session_id=session.id,
        state=int(session.state),  # type: ignore[arg-type]  # the numbers are the same
        app=session.app,
        app_version=session.app_version,
        sdk_name=session.sdk_name,
        sdk_version=session.sdk_version,
        slots=session.slots,
        slots_taken=max(0, session.slots - session.free),
        live_invocations=len(session.invocations),
        function_ids=sorted(session.functions),
        tasks=sorted(session.tasks),
        labels=dict(session.labels),
        connected_at=times.timestamp(session.connected_at),
        idle=times.duration(max(0.0, mono - session.last_seen)),
        loop_lag=times.duration(session.loop_lag),
        blocking_stack=session.blocking_stack,
    )
