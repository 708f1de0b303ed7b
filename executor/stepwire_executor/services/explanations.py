"""What a run waits for, as the contract shows it, with what the runs that it invoked wait for in their turn."""

from __future__ import annotations

import asyncio

from stepwire_core import why
from stepwire_core.causes import Cause, CauseKind, sentence
from stepwire_core.model import Now, Run
from stepwire_executor import times, wire
from stepwire_executor.access import EVERYBODY, Caller
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.pages import PAGE_BYTES
from stepwire_executor.store import Store, StoreTakenError
from stepwire_proto.v1 import run_pb2

MOST_RUNS = 100
"""Runs that one answer looks into: the one that was asked for, and invoked ones under it."""
PATIENCE_SECONDS = 2.0
"""A write of the store that takes longer is the answer."""
DEEPEST = 64
"""Levels of invoked runs in one answer; parsers of Protobuf take messages at most 100 deep."""
STEPS_A_PAGE = 1_000
"""Steps that are read of the store at a time, and PAGE_BYTES of them."""


async def explain_run(
    engine: EngineHandle, store: Store, run_id: str, caller: Caller = EVERYBODY
) -> run_pb2.ExplainRunResponse:
    """Say what a run waits for. Raises AccessError and StoreError."""
    if engine.failing:
        refusal = engine.refusal()
        if isinstance(refusal, StoreTakenError):
            raise refusal  # the one that has the store knows
        return shown(0, [Cause(CauseKind.STORE_FAILING)], engine.now())
    begun = engine.now()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await engine.wait_durable()
    except TimeoutError:
        return shown(0, [Cause(CauseKind.STORE_SLOW, since=begun.wall)], engine.now())
    run, causes = await look(engine, store, run_id, caller)
    await look_deeper(engine, store, causes, caller)
    if engine.overloaded and not run.state.ended:
        causes.insert(0, Cause(CauseKind.EXECUTOR_BUSY))
    return shown(int(run.state), causes, engine.now())


async def look(engine: EngineHandle, store: Store, run_id: str, caller: Caller) -> tuple[Run, list[Cause]]:
    """Give a run that a caller may see, and its causes, from one moment. Raises AccessError for others."""
    while True:
        await engine.wait_durable()
        loaded = engine.state.runs.get(run_id)
        if loaded is not None:
            run = caller.check_run(run_id, loaded.run)
            return run, why.explain(engine.state, run, engine.now())
        run = caller.check_run(run_id, await store.get_run(run_id))
        if not run.state.ended:
            await load_open(store, run)
        if run_id not in engine.state.runs:  # else it was taken up meanwhile, and what was read may be mixed
            return run, why.explain(engine.state, run, engine.now())


async def load_open(store: Store, run: Run) -> None:
    """Bring in the unfinished steps of a run; what they were given is left out."""
    after = 0
    while page := await store.get_steps(run.id, after, STEPS_A_PAGE, PAGE_BYTES, outputs=False):
        for step in page:
            if not step.state.ended:
                run.open[step.key] = step
                step.input = b""
        after = page[-1].number


async def look_deeper(engine: EngineHandle, store: Store, causes: list[Cause], caller: Caller) -> None:
    """Put their own causes under those that are invoked runs, level by level, until enough runs were looked into.

    What runs of apps wait for that are not the caller's is left out.
    """
    level, left = causes, MOST_RUNS - 1
    for _ in range(DEEPEST):
        invoked = [cause for cause in level if cause.kind is CauseKind.CHILD_RUN and cause.run_id][:left]
        left -= len(invoked)
        for cause in invoked:
            run, below = await look(engine, store, cause.run_id, EVERYBODY)
            cause.causes = below if caller.may_see(run.app) else []
        level = [below for cause in invoked for below in cause.causes]


def shown(state: int, causes: list[Cause], now: Now) -> run_pb2.ExplainRunResponse:
    """Write an answer."""
    messages = [show_cause(cause, now) for cause in causes]
    return run_pb2.ExplainRunResponse(state=state, causes=messages)  # type: ignore[arg-type]  # the numbers are the same


def show_cause(cause: Cause, now: Now) -> run_pb2.Cause:
    """Write a cause and what is under it."""
    message = run_pb2.Cause(
        kind=int(cause.kind),  # type: ignore[arg-type]
        text=sentence(cause, now),
        step_count=cause.step_count,
        target=cause.target,
        worker=cause.worker,
        workers=cause.workers,
        slots=cause.slots,
        slots_taken=cause.slots_taken,
        runs_ahead=cause.runs_ahead,
        attempt=cause.attempt,
        max_attempts=cause.max_attempts,
        run_id=cause.run_id,
        detail=cause.detail,
        causes=[show_cause(each, now) for each in cause.causes],
    )
    if cause.step is not None:
        message.step.CopyFrom(wire.to_key(cause.step))
    if cause.since is not None:
        times.put(message.since, cause.since)
    if cause.due_at is not None:
        times.put(message.due_at, cause.due_at)
    if cause.failure is not None:
        message.failure.CopyFrom(wire.to_failure(cause.failure))
    return message
