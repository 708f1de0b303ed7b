"""RunService: shows runs, waits for them, cancels them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from stepwire_core.inputs import RunCancelled
from stepwire_core.model import FailedAttempt, Run, RunState, Step, StepState
from stepwire_executor import times
from stepwire_executor.access import Access, AccessError, Caller, Role
from stepwire_executor.form import FormError
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services import explanations, shown
from stepwire_executor.services.errors import StatusError, answered, as_status, refuse
from stepwire_executor.services.feeds import Feeds
from stepwire_executor.services.pages import ANSWER_BYTES, PAGE_BYTES, page_size, read_token, write_token
from stepwire_executor.services.waits import Waits
from stepwire_executor.store import RunFilter, Store, StoreError
from stepwire_proto.v1 import run_pb2, run_pb2_grpc

STEPS_A_PAGE = 1_000
STEPS_A_TURN = 100
"""Steps that are shown before others have a turn."""
RUNS_A_PAGE = 50
MOST_RUNS_A_PAGE = 1_000
RUNS_A_COUNT = 50
"""Runs whose steps are counted at a time: each may have very many, and commits are not to wait for all of them."""
STEPS_A_COUNT = 50_000
"""Steps in memory that are counted before others have a turn."""
LONGEST_REASON = 1_024
A_STEP = re.compile(r"[0-9]{1,9}")
A_RUN = re.compile(r"[0-9A-Z]{26}")
"""Where a page can begin: behind the number of a step, or the id of a run. Nothing else is given to the store."""


class RunService(run_pb2_grpc.RunServiceServicer):
    """See the contract."""

    def __init__(self, engine: EngineHandle, store: Store, access: Access | None = None) -> None:
        self._engine = engine
        self._store = store
        self._access = access or Access()
        self._feeds = Feeds(engine, store, self._show)

    @answered
    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.GetRunResponse:  # noqa: N802
        """Give a run, and a page of its steps."""
        size = page_size(request.page_size, STEPS_A_PAGE, STEPS_A_PAGE)
        after = 0
        if request.page_token:
            after = int(read_token(request.page_token, request.run_id, A_STEP))
        run = await self._run(request.run_id, context)
        response = run_pb2.GetRunResponse(run=await self._show(run))
        if request.include_steps:
            after = await self._add_steps(response, run, after, size, outputs=request.include_outputs)
            if after:
                response.next_page_token = write_token(str(after), request.run_id)
        return response

    @answered
    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Any) -> run_pb2.ListRunsResponse:  # noqa: N802
        """Give a page of runs, newest first."""
        size = page_size(request.page_size, RUNS_A_PAGE, MOST_RUNS_A_PAGE)
        where = read_filter(request)
        before = read_token(request.page_token, repr(where), A_RUN) if request.page_token else ""
        await self._engine.wait_durable()
        runs, more = await self._list(where, self._access.caller(context, Role.CLIENT), before, size)
        counts = await self._counts(runs)
        response, room = run_pb2.ListRunsResponse(), PAGE_BYTES
        for run in runs:
            lead = shown.lead_worker(self._engine.state, run.id)
            message = shown.show_run(run, counts[run.id], lead, whole=False)
            response.runs.append(message)
            room -= message.ByteSize()
            if room <= 0:
                break
        if more or len(runs) > len(response.runs):
            response.next_page_token = write_token(response.runs[-1].id, repr(where))
        return response

    async def WatchRun(  # noqa: N802
        self, request: run_pb2.WatchRunRequest, context: Any
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        """Stream a run's changes, at most ten times a second."""
        try:
            await self._run(request.run_id, context)
            token = self._access.caller(context, Role.CLIENT).name
            with self._feeds.watching(request.run_id, token) as watcher:
                while (message := await watcher.next()) is not None:
                    assert watcher.feed.run is not None, "it is there before the first message"
                    self._check_access(watcher.feed.run, context)  # the token may have been withdrawn meanwhile
                    yield message
        except (StatusError, AccessError, StoreError) as error:
            refuse(context, as_status(error))

    @answered
    async def WaitRun(self, request: run_pb2.WaitRunRequest, context: Any) -> run_pb2.WaitRunResponse:  # noqa: N802
        """Answer when the run has ended."""
        changes = self._engine.changes(request.run_id, end_only=True)
        try:
            async for ended in changes:
                loaded = self._engine.state.runs.get(request.run_id)
                if loaded is not None:  # it is told here when its end is durable
                    self._check_access(loaded.run, context)
                    continue
                run = ended or await self._run(request.run_id, context)
                if run.state.ended:
                    self._check_access(run, context)  # the token may have been withdrawn meanwhile
                    return run_pb2.WaitRunResponse(run=await self._show(run))
        finally:
            await changes.aclose()  # type: ignore[attr-defined]
        raise AssertionError("changes never end")

    @answered
    async def WaitRuns(  # type: ignore[override]  # noqa: N802 - a handler may write its answers to the context
        self, requests: AsyncIterator[run_pb2.WaitRunsRequest], context: Any
    ) -> None:
        """Answer for each run when it has ended."""
        waits = Waits(
            self._engine,
            lambda run_id: self._run(run_id, context),
            lambda run: self._check_access(run, context),
            self._show,
        )
        await waits.serve(requests, context.write)

    @answered
    async def CancelRun(self, request: run_pb2.CancelRunRequest, context: Any) -> run_pb2.CancelRunResponse:  # noqa: N802
        """Cancel a run; one that has ended stays as it is."""
        size = len(request.reason.encode())
        if size > LONGEST_REASON:
            raise FormError("reason", f"{size} bytes, but a reason has at most {LONGEST_REASON}")
        await self._run(request.run_id, context)
        await self._engine.ask(lambda reply: RunCancelled(request.run_id, request.reason, reply))
        return run_pb2.CancelRunResponse(run=await self._show(await self._run(request.run_id, context)))

    @answered
    async def ExplainRun(  # noqa: N802
        self, request: run_pb2.ExplainRunRequest, context: Any
    ) -> run_pb2.ExplainRunResponse:
        """Say what a run waits for."""
        caller = self._access.caller(context, Role.CLIENT)
        return await explanations.explain_run(self._engine, self._store, request.run_id, caller)

    # How it works inside.

    async def _run(self, run_id: str, context: Any) -> Run:
        """Give a run as it is durable: from memory, with its steps, or from the store, without. Checks who asks."""
        await self._engine.wait_durable()
        loaded = self._engine.state.runs.get(run_id)
        run = loaded.run if loaded is not None else await self._store.get_run(run_id)
        return self._access.caller(context, Role.CLIENT).check_run(run_id, run)

    def _check_access(self, run: Run, context: Any) -> None:
        self._access.caller(context, Role.CLIENT).check_run(run.id, run)

    async def _list(self, where: RunFilter, caller: Caller, before: str, limit: int) -> tuple[list[Run], bool]:
        """List runs of the caller's apps, newest first, within `limit` and bytes; and say whether there are more."""
        if where.app:
            caller.check_app(where.app, "the list")
        apps = [where.app] if where.app or caller.apps is None else sorted(caller.apps)
        found: list[Run] = []
        reached, more = "", False
        """Behind `reached` runs of some app may be missing."""
        for app in apps:
            its = replace(where, app=app)
            page = await self._store.list_runs(its, before, limit + 1, PAGE_BYTES)
            weighs = len(page) <= limit and any(run.failure is not None for run in page)
            if weighs and await self._store.list_runs(its, page[-1].id, 1, 1):  # its bytes have ended it
                reached, more = max(reached, page[-1].id), True
            found = sorted([*found, *page], key=lambda run: run.id, reverse=True)[: limit + 1]
        found = [run for run in found if run.id >= reached]
        return found[:limit], more or len(found) > limit

    async def _show(self, run: Run, *, whole: bool = True) -> run_pb2.Run:
        counts = shown.count(run) if run.steps else (await self._counts([run]))[run.id]
        return shown.show_run(run, counts, shown.lead_worker(self._engine.state, run.id), whole=whole)

    async def _counts(self, runs: Sequence[Run]) -> dict[str, Mapping[StepState, int]]:
        """Count the steps of runs by state, in memory or in the store."""
        await self._engine.wait_durable()  # what is counted in memory is durable
        counts: dict[str, Mapping[StepState, int]] = {}
        others: list[Run] = []
        counted = 0
        for run in runs:
            loaded = self._engine.state.runs.get(run.id)
            if loaded is None:
                others.append(run)
                continue
            counts[run.id] = shown.count(loaded.run)
            counted += len(loaded.run.steps)
            if counted > STEPS_A_COUNT:
                counted = 0
                await asyncio.sleep(0)
                await self._engine.wait_durable()
        for at in range(0, len(others), RUNS_A_COUNT):
            some = others[at : at + RUNS_A_COUNT]
            stored = await self._store.count_steps([run.id for run in some])
            counts |= {run.id: shown.counts_of(run, stored.get(run.id, {})) for run in some}
        return counts

    async def _steps(self, run: Run, after: int, limit: int, *, outputs: bool = False) -> list[Step]:
        """Give some steps behind a number, none if there are no more."""
        if run.steps:
            return list(islice(run.steps.values(), after, after + limit))
        return await self._store.get_steps(run.id, after, limit, PAGE_BYTES, outputs=outputs)

    async def _add_steps(
        self, response: run_pb2.GetRunResponse, run: Run, after: int, size: int, *, outputs: bool
    ) -> int:
        """Add a page of steps behind a number: so many at most, and none once there are PAGE_BYTES of them.

        Gives the last one's number if there is more to tell, else 0.
        """
        room = PAGE_BYTES
        full = over = False
        while not full and (count := min(size - len(response.steps), STEPS_A_TURN)):
            steps = await self._steps(run, after, count, outputs=outputs)
            if not steps:
                over = True
                break
            failed: dict[int, list[FailedAttempt]] = {}
            if outputs:
                failed, last = await self._failed(run, steps)
                steps = [step for step in steps if step.number <= last]
            await asyncio.sleep(0)
            await self._engine.wait_durable()  # what is shown of steps in memory is durable
            moved = self._engine.now().moved
            for step in steps:
                message = shown.show_step(step, run, failed.get(step.number, ()), moved=moved, with_output=outputs)
                room -= message.ByteSize()
                full = room <= 0
                if room < 0 and response.steps:
                    break
                response.steps.append(message)
                after = step.number
                if full:
                    break
        if response.steps and response.ByteSize() > ANSWER_BYTES:
            shown.leave_payloads_out(response.run)  # a later page has them, which may have no steps
            return after
        return after if not over and await self._steps(run, after, 1) else 0

    async def _failed(self, run: Run, steps: Sequence[Step]) -> tuple[dict[int, list[FailedAttempt]], int]:
        """Give the failed attempts of steps, by number, and the step up to which these are all."""
        by_number: dict[int, list[FailedAttempt]] = {}
        first, last = steps[0].number, steps[-1].number
        for attempt in await self._store.get_failed_attempts(run.id, first, last, PAGE_BYTES):
            by_number.setdefault(attempt.step_number, []).append(attempt)
        reached = max(by_number, default=last)
        if reached < last:  # nobody behind it has failed attempts, or its bytes have ended them
            left = await self._store.get_failed_attempts(run.id, reached + 1, last, 1)
            last = left[0].step_number - 1 if left else last
        return by_number, last


def read_filter(request: run_pb2.ListRunsRequest) -> RunFilter:
    """Read the filters of a ListRuns; raises FormError."""
    if any(not 0 < state <= RunState.CANCELLED for state in request.states):
        raise FormError("states", "a state that does not exist; leave the list empty for all")
    has = request.HasField
    return RunFilter(
        request.app,
        request.function_id,
        tuple(sorted(RunState(state) for state in request.states)),
        request.event_id,
        request.parent_run_id,
        times.unix_time(request.created_after, "created_after") if has("created_after") else None,
        times.unix_time(request.created_before, "created_before") if has("created_before") else None,
    )
