"""How the executor is: whether it takes work, what it has to do, how long that takes, and who holds its memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version

from stepwire_core.model import Run
from stepwire_executor import times
from stepwire_executor.access import Caller
from stepwire_executor.memory import resident_bytes
from stepwire_executor.ports import EngineHandle
from stepwire_executor.store import StoreTakenError
from stepwire_executor.stream import Stream
from stepwire_executor.vitals import Times
from stepwire_proto.v1 import admin_pb2

MOST_HOLDERS = 20
RUNS_A_TURN, STEPS_A_TURN = 500, 5_000
"""Of so many the sizes are added up before others have a turn."""

try:
    VERSION = version("stepwire")
except PackageNotFoundError:  # it is run without having been installed
    VERSION = ""

Held = Callable[[], Iterable[tuple[Stream, int]]]
"""Gives streams, with the bytes of their workers' unfinished messages."""


class Status:
    """See the module."""

    def __init__(self, engine: EngineHandle, held: Held) -> None:
        self._engine = engine
        self._held = held
        self._walk = asyncio.Lock()
        """Who has it adds up what all runs hold: however many ask, the loop has others' turns between."""

    async def show(self, caller: Caller) -> admin_pb2.GetStatusResponse:
        """Say how the executor is. Who holds memory is told of the caller's apps."""
        engine, vitals = self._engine, self._engine.vitals
        vitals.turn()
        state = engine.state
        queued, oldest = engine.queued
        sessions = state.sessions.values()
        response = admin_pb2.GetStatusResponse(
            version=VERSION,
            started_at=times.timestamp(vitals.started_at),
            epoch=state.epoch,
            faults=vitals.faults,
            begun_anew=vitals.begun_anew,
            pieces=show_times(vitals.pieces),
            waits=show_times(vitals.waits),
            commits=show_times(vitals.commits),
            queued_inputs=queued,
            oldest_input=times.duration(oldest),
            memory_bytes=resident_bytes(),
            workers=len(sessions),
            slots=sum(session.slots for session in sessions),
            slots_taken=sum(session.slots - max(0, session.free) for session in sessions),
            runs=len(state.runs),
            queued_runs=len(state.queued),
            max_queued_runs=state.limits.max_queued_runs,
            queued_bytes=state.queued.bytes,
            max_queued_bytes=state.limits.max_queued_bytes,
            watches=engine.watches,
        )
        response.state, response.reason = self._serves()
        async with self._walk:
            of_runs = await self._of_runs()
        holders = [each for each in [*self._of_streams(), *of_runs] if caller.may_see(each.app)]
        response.holders.extend(sorted(holders, key=lambda each: -each.bytes)[:MOST_HOLDERS])
        return response

    def _serves(self) -> tuple[admin_pb2.ExecutorState.ValueType, str]:
        engine = self._engine
        if engine.failing:
            why = engine.refusal()
            taken = isinstance(why, StoreTakenError)
            return admin_pb2.EXECUTOR_STATE_STANDBY if taken else admin_pb2.EXECUTOR_STATE_FAILING, str(why)
        if engine.draining:
            return admin_pb2.EXECUTOR_STATE_DRAINING, "it has been told to stop"
        return admin_pb2.EXECUTOR_STATE_SERVING, ""

    def _of_streams(self) -> Iterable[admin_pb2.Holder]:
        sessions = self._engine.state.sessions
        for stream, fragments in self._held():
            session = sessions.get(stream.session_id)
            app = session.app if session is not None else ""
            for kind, size, count in (
                (admin_pb2.HOLDER_KIND_UNREAD, stream.unread_bytes, len(stream.messages)),
                (admin_pb2.HOLDER_KIND_FRAGMENTS, fragments, 1),
            ):
                if size:
                    yield admin_pb2.Holder(app=app, worker=stream.instance_id, kind=kind, bytes=size, count=count)

    async def _of_runs(self) -> Iterable[admin_pb2.Holder]:
        sizes, counts = Counter[str](), Counter[str]()
        work = 0
        for run_id in list(self._engine.state.runs):
            loaded = self._engine.state.runs.get(run_id)
            if loaded is None:
                continue
            sizes[loaded.run.app] += bytes_of(loaded.run)
            counts[loaded.run.app] += 1
            work += 1 + len(loaded.run.open) * RUNS_A_TURN // STEPS_A_TURN
            if work >= RUNS_A_TURN:
                work = 0
                await asyncio.sleep(0)
        kind = admin_pb2.HOLDER_KIND_RUNS
        return [admin_pb2.Holder(app=app, kind=kind, bytes=size, count=counts[app]) for app, size in sizes.items()]


def bytes_of(run: Run) -> int:
    """Add up what a run holds: its event, its output, its steps' results, and the inputs of its unfinished steps."""
    its_own = len(run.event.data) + len(run.output or b"")
    return its_own + run.journal_bytes + sum(len(step.input) for step in run.open.values())


def show_times(observed: Times) -> admin_pb2.Times:
    """Write how long something took as the contract has it."""
    return admin_pb2.Times(
        count=observed.count,
        p50=times.duration(observed.below(0.5)),
        p99=times.duration(observed.below(0.99)),
        p999=times.duration(observed.below(0.999)),
        longest=times.duration(observed.longest),
    )
