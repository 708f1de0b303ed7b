"""EventService: takes events from clients."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import grpc

from stepwire_core.commands import EventConflict
from stepwire_core.inputs import EventsSent
from stepwire_core.model import Event, Limits
from stepwire_executor import wire
from stepwire_executor.access import Access, Caller, Role
from stepwire_executor.admission import Admission, full
from stepwire_executor.form import FormError
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.bulk import FEW, Bulk
from stepwire_executor.services.errors import StatusError, answered
from stepwire_executor.sharing import AppTurns
from stepwire_executor.wire import BYTES_AN_EVENT, EVENT_BYTES_A_PIECE
from stepwire_proto.v1 import event_pb2, event_pb2_grpc

REST = 3
"""Before the next large event is checked others have the loop for so many times as long as the last one took."""


class EventService(event_pb2_grpc.EventServiceServicer):
    """See the contract."""

    def __init__(self, engine: EngineHandle, limits: Limits, access: Access | None = None) -> None:
        self._engine = engine
        self._admission = Admission(engine)
        self._limits = limits
        self._access = access or Access()
        self._rests_until = 0.0
        """By the loop's clock."""
        self._under_way: Counter[str] = Counter()
        """Bytes of calls, by the name of the caller's token."""
        self._large_events, self._pieces = AppTurns(1), AppTurns(1)
        """One event that takes long is checked at a time, in turn over callers: four of them would keep others waiting
        four times as long. So do calls go on that have many bytes."""
        self._bulk = Bulk(engine)

    @answered
    async def SendEvents(  # noqa: N802 - the contract's name
        self, request: event_pb2.SendEventsRequest, context: Any
    ) -> event_pb2.SendEventsResponse:
        """Take events, and answer when they and their runs are durable."""
        count, most = len(request.events), self._limits.max_events_per_call
        if not 0 < count <= most:
            raise FormError("events", f"{count} events, but a call has 1 to {most} (--max-events-per-call)")
        caller = self._access.caller(context, Role.CLIENT)
        with self._counted(caller, request.ByteSize()):
            async with self._bulk.turn(caller.name, count):
                return await self._take(request, caller)

    @contextmanager
    def _counted(self, caller: Caller, size: int) -> Iterator[None]:
        """Count the bytes of a call while it waits and is taken. Raises StatusError if its token has too many there."""
        under_way, most = self._under_way[caller.name], self._limits.max_queued_bytes
        if under_way and under_way + size > most:
            raise full(f"calls of {under_way} bytes are under way with this token, --max-queued-bytes={most}")
        self._under_way[caller.name] += size
        try:
            yield
        finally:
            self._under_way[caller.name] -= size
            if not self._under_way[caller.name]:
                del self._under_way[caller.name]

    async def _take(self, request: event_pb2.SendEventsRequest, caller: Caller) -> event_pb2.SendEventsResponse:
        events = await self._read(request, caller)
        starts, apps = self._admission.starts(events)
        has_turn = len(events) > FEW
        async with self._bulk.turn(caller.name, 0 if has_turn else starts):
            if self._engine.draining:
                message = "the executor is stopping: send again, with the same ids"
                raise StatusError(grpc.StatusCode.UNAVAILABLE, message)
            with self._admission.room_for(events, starts, apps):
                answer = await self._engine.ask(lambda reply: EventsSent(events, reply))
        if isinstance(answer, EventConflict):
            message = f"{answer.reason}; nothing of this call was taken: give each event its own id"
            raise StatusError(grpc.StatusCode.ALREADY_EXISTS, message, f"events[{answer.index}].id")
        response = event_pb2.SendEventsResponse()
        runs = 0
        for receipt in answer:
            response.receipts.add(event_id=receipt.event_id, run_ids=receipt.run_ids, duplicate=receipt.duplicate)
            runs += len(receipt.run_ids)
        self._bulk.taken(len(events), runs)
        return response

    async def _read(self, request: event_pb2.SendEventsRequest, caller: Caller) -> list[Event]:
        """Read the events of a call, with turns for others in between. Raises FormError."""
        now, size = self._engine.now().wall, 0
        events: list[Event] = []
        for at, each in enumerate(request.events):
            data_size = len(each.data.data)
            made_id = "" if each.id else uuid.uuid4().hex
            async with self._large_event(caller) if data_size > EVENT_BYTES_A_PIECE else nullcontext():
                events.append(caller.scope(wire.event(each, self._limits, f"events[{at}]", now, made_id)))
            size += data_size + BYTES_AN_EVENT
            if size > EVENT_BYTES_A_PIECE:
                size = 0
                async with self._pieces.of(caller.name):
                    await asyncio.sleep(0)
        return events

    @asynccontextmanager
    async def _large_event(self, caller: Caller) -> AsyncIterator[None]:
        """Have a large event checked alone, once others have had the loop for as long as the one before asks for."""
        clock = asyncio.get_running_loop().time
        async with self._large_events.of(caller.name):
            if self._rests_until > clock():
                await asyncio.sleep(self._rests_until - clock())
            began = clock()
            try:
                yield
            finally:
                self._rests_until = clock() + (clock() - began) * REST
