"""AdminService: what is connected and registered."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from typing import Any, TypeVar

from stepwire_core.model import FunctionKey
from stepwire_core.registrations import unserved_since
from stepwire_core.state import Session, SessionState
from stepwire_executor import times, wire
from stepwire_executor.access import Access, Role
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import answered
from stepwire_executor.services.pages import PAGE_BYTES, page_size, read_token, write_token
from stepwire_executor.services.status import Status
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc

MOST_A_PAGE = 1_000
COST_A_TURN = 5_000
"""Workers or functions that are looked at before others have a turn."""
A_WORKER = re.compile(r"([0-9]{1,20}) (\S{1,256})")
A_FUNCTION = re.compile(r"([^/]*)/(.*)", re.DOTALL)
"""Where a page can begin: behind when a session began, and its id; behind an app's function."""
Place = TypeVar("Place", tuple[int, str], tuple[str, str])


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """See the contract."""

    def __init__(self, engine: EngineHandle, access: Access, status: Status) -> None:
        self._engine = engine
        self._access = access
        self._status = status

    @answered
    async def ListWorkers(  # noqa: N802
        self, request: admin_pb2.ListWorkersRequest, context: Any
    ) -> admin_pb2.ListWorkersResponse:
        """List the workers that are connected or within their grace, oldest session first."""
        shown, size, after = self._page(request, context, A_WORKER)
        places = await first(
            [(begun(session), session.id) for session in self._engine.state.sessions.values() if shown(session.app)],
            (int(after[0]), after[1]) if after else None,
            size + 1,
        )
        mono, sessions = self._engine.now().mono, self._engine.state.sessions
        response, room = admin_pb2.ListWorkersResponse(), PAGE_BYTES
        for at, (time, session_id) in enumerate(places):
            if at == size or room <= 0:
                time, session_id = places[at - 1]
                response.next_page_token = write_token(f"{time} {session_id}", request.app)
                break
            session = sessions.get(session_id)
            if session is not None:  # else it has ended meanwhile
                message = show_worker(session, mono)
                response.workers.append(message)
                room -= message.ByteSize()
        return response

    @answered
    async def ListFunctions(  # noqa: N802
        self, request: admin_pb2.ListFunctionsRequest, context: Any
    ) -> admin_pb2.ListFunctionsResponse:
        """List the functions that workers have registered, by app and id."""
        shown, size, after = self._page(request, context, A_FUNCTION)
        places = await first([key for key in self._engine.state.functions if shown(key[0])], after, size + 1)
        workers = await self._serving(set(places))
        response, room = admin_pb2.ListFunctionsResponse(), PAGE_BYTES
        for at, key in enumerate(places):
            if at == size or room <= 0:
                response.next_page_token = write_token("/".join(places[at - 1]), request.app)
                break
            function = self._engine.state.functions.get(key)
            if function is not None:  # else the store has failed meanwhile, and all begins anew
                message = response.functions.add(
                    app=function.app,
                    options=wire.to_function(function.options),
                    app_version=function.app_version,
                    workers=workers[key],
                    registered_at=times.timestamp(function.registered_at),
                )
                if not workers[key]:
                    times.put(message.unserved_since, unserved_since(self._engine.state, function))
                room -= message.ByteSize()
        return response

    @answered
    async def GetStatus(  # noqa: N802
        self, request: admin_pb2.GetStatusRequest, context: Any
    ) -> admin_pb2.GetStatusResponse:
        """Say how the executor is."""
        return await self._status.show(self._access.caller(context, Role.ADMIN))

    async def _serving(self, keys: AbstractSet[FunctionKey]) -> Counter[FunctionKey]:
        """Count the connected workers that serve each of some functions."""
        workers: Counter[FunctionKey] = Counter()
        ids: dict[str, set[str]] = {}
        for app, function_id in keys:
            ids.setdefault(app, set()).add(function_id)
        cost = 0
        for session in list(self._engine.state.sessions.values()):
            if session.state is SessionState.CONNECTED and session.app in ids:
                its = session.functions.keys() & ids[session.app]
                workers.update((session.app, function_id) for function_id in its)
                cost += len(its)
            cost += 1
            if cost >= COST_A_TURN:
                cost = 0
                await asyncio.sleep(0)
        return workers

    def _page(
        self,
        request: admin_pb2.ListWorkersRequest | admin_pb2.ListFunctionsRequest,
        context: Any,
        form: re.Pattern[str],
    ) -> tuple[Callable[[str], bool], int, tuple[str, str] | None]:
        """Give what says whether an app belongs into a list, the size of a page, and behind what it begins."""
        size = page_size(request.page_size, MOST_A_PAGE, MOST_A_PAGE)
        shown = self._shown(request.app, context)
        after = None
        if request.page_token:
            match = form.fullmatch(read_token(request.page_token, request.app, form))
            assert match is not None, "read_token has looked"
            after = match[1], match[2]
        return shown, size, after

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


def begun(session: Session) -> int:
    """Give when a worker's session began, in microseconds."""
    return int(session.connected_at * 1e6)


async def first(places: Sequence[Place], after: Place | None, count: int) -> list[Place]:
    """Give the least of some places behind another one, in order; others have their turns meanwhile."""
    found: list[Place] = []
    for at in range(0, len(places), COST_A_TURN):
        part = places[at : at + COST_A_TURN]
        found = nsmallest(count, found + [place for place in part if after is None or place > after])
        await asyncio.sleep(0)
    return found


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
