"""RunService: shows runs, waits for them, cancels them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stepwire_executor import times
from stepwire_executor.access import Access, AccessError, Caller, Role
from stepwire_executor.core.inputs import RunCancelled
from stepwire_executor.core.model import FailedAttempt, Run, RunState, Step, StepState
from stepwire_executor.form import FormError
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services import explanations, shown
from stepwire_executor.services.errors import StatusError, answered, as_status, refuse
from stepwire_executor.services.waits import Waits
from stepwire_executor.store import RunFilter, Store, StoreError
from stepwire_proto.v1 import run_pb2, run_pb2_grpc

STEPS_A_PAGE = 1_000
STEPS_A_READ = 50
"""Steps that are read of the store at a time."""
PAGE_BYTES = 1 << 20
"""Size from which on a page takes nothing more, and a message of a watch no further step; one alone may be larger."""
RUNS_A_PAGE = 50
MOST_RUNS_A_PAGE = 1_000
RUNS_A_COUNT = 50
"""Runs whose steps are counted at a time: each may have very many, and commits are not to wait for all of them."""
STEPS_A_MESSAGE = 500
GATHER_SECONDS = 0.1
LONGEST_REASON = 1_024
LONGEST_TOKEN = 256
"""Ours are shorter; what is longer is not even decoded."""
A_STEP = re.compile(r"[0-9]{1,9}")
A_RUN = re.compile(r"[0-9A-Z]{26}")
"""Where a page can begin: behind the number of a step, or the id of a run. Nothing else is given to the store."""


class RunService(run_pb2_grpc.RunServiceServicer):
    """See the contract."""

    def __init__(self, engine: EngineHandle, store: Store, access: Access | None = None) -> None:
        self._engine = engine
        self._store = store
        self._access = access or Access()

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
        await self._engine.settled()
        runs = await self._list(where, self._access.caller(context, Role.CLIENT), before, size + 1)
        counts = await self._counts(runs[:size])
        response, room = run_pb2.ListRunsResponse(), PAGE_BYTES
        for run in runs[:size]:
            lead = shown.lead_worker(self._engine.state, run.id)
            message = shown.show_run(run, counts[run.id], lead, whole=False)
            response.runs.append(message)
            room -= message.ByteSize()
            if room <= 0:
                break
        if len(runs) > len(response.runs):
            response.next_page_token = write_token(response.runs[-1].id, repr(where))
        return response

    async def WatchRun(  # noqa: N802
        self, request: run_pb2.WatchRunRequest, context: Any
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        """Stream a run's changes, at most ten times a second."""
        seen: dict[int, tuple[object, ...]] = {}
        changes = self._engine.changes(request.run_id)
        try:
            async for _ in changes:
                run = await self._run(request.run_id, context)
                steps = [step for step in await self._steps(run, 0, 0) if is_news(step, run, seen)]
                message, moved = await self._show(run), self._engine.now().moved
                response, room = run_pb2.WatchRunResponse(), PAGE_BYTES
                for step in steps:
                    if room <= 0 or len(response.steps) >= STEPS_A_MESSAGE:
                        response.run.CopyFrom(unfinished(message) if run.state.ended else message)
                        yield response
                        response, room = run_pb2.WatchRunResponse(), PAGE_BYTES
                    shown_step = shown.show_step(step, run, moved=moved)
                    response.steps.append(shown_step)
                    room -= shown_step.ByteSize()
                response.run.CopyFrom(message)
                yield response
                if run.state.ended:
                    return
                await asyncio.sleep(GATHER_SECONDS)
        except (StatusError, AccessError, StoreError) as error:
            refuse(context, as_status(error))
        finally:
            await changes.aclose()  # type: ignore[attr-defined]  # it is a generator

    @answered
    async def WaitRun(self, request: run_pb2.WaitRunRequest, context: Any) -> run_pb2.WaitRunResponse:  # noqa: N802
        """Answer when the run has ended."""
        changes = self._engine.changes(request.run_id, end_only=True)
        try:
            async for ended in changes:
                hot = self._engine.state.runs.get(request.run_id)
                if hot is not None:  # it is told here when its end is durable
                    self._check_access(hot.run, context)
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
        await self._engine.settled()
        hot = self._engine.state.runs.get(run_id)
        run = hot.run if hot is not None else await self._store.get_run(run_id)
        return self._access.caller(context, Role.CLIENT).check_run(run_id, run)

    def _check_access(self, run: Run, context: Any) -> None:
        self._access.caller(context, Role.CLIENT).check_run(run.id, run)

    async def _list(self, where: RunFilter, caller: Caller, before: str, limit: int) -> list[Run]:
        """List runs of the caller's apps, newest first."""
        if where.app:
            caller.check_app(where.app, "the list")
        if where.app or caller.apps is None:
            return await self._store.list_runs(where, before, limit)
        pages = [await self._store.list_runs(replace(where, app=app), before, limit) for app in sorted(caller.apps)]
        return sorted((run for page in pages for run in page), key=lambda run: run.id, reverse=True)[:limit]

    async def _show(self, run: Run) -> run_pb2.Run:
        state = self._engine.state
        counts = shown.count(run) if run.steps else (await self._counts([run]))[run.id]
        return shown.show_run(run, counts, shown.lead_worker(state, run.id))

    async def _counts(self, runs: Sequence[Run]) -> dict[str, Mapping[StepState, int]]:
        """Count the steps of runs by state, in memory or in the store."""
        hot = self._engine.state.runs
        counts = {run.id: shown.count(hot[run.id].run) for run in runs if run.id in hot}
        others = [run for run in runs if run.id not in counts]
        for at in range(0, len(others), RUNS_A_COUNT):
            some = others[at : at + RUNS_A_COUNT]
            stored = await self._store.count_steps([run.id for run in some])
            counts |= {run.id: shown.counts_of(run, stored.get(run.id, {})) for run in some}
        return counts

    async def _steps(self, run: Run, after: int, limit: int) -> list[Step]:
        """Give steps behind a number; a limit of 0 means all."""
        if run.steps:
            steps = list(run.steps.values())[after:]
            return steps[:limit] if limit else steps
        if limit:
            return await self._store.get_steps(run.id, after, limit)
        steps = []
        while page := await self._store.get_steps(run.id, steps[-1].number if steps else 0, STEPS_A_PAGE):
            steps += page
        return steps

    async def _add_steps(
        self, response: run_pb2.GetRunResponse, run: Run, after: int, size: int, *, outputs: bool
    ) -> int:
        """Add a page of steps behind a number: so many at most, and none once there are PAGE_BYTES of them.

        Gives the last one's number if there may be more, else 0.
        """
        moved, room = self._engine.now().moved, PAGE_BYTES
        while True:
            count = size - len(response.steps)
            if not run.steps:  # what is read of the store comes with its outputs
                count = min(count, STEPS_A_READ)
            steps = await self._steps(run, after, count + 1)
            more, steps = len(steps) > count, steps[:count]
            failed = await self._failed(run, steps) if outputs else {}
            for step in steps:
                message = shown.show_step(step, run, failed.get(step.number, ()), moved=moved, with_output=outputs)
                response.steps.append(message)
                room -= message.ByteSize()
                after = step.number
                if room <= 0:
                    return after if more or step is not steps[-1] else 0
            if not more:
                return 0
            if len(response.steps) >= size:
                return after

    async def _failed(self, run: Run, steps: list[Step]) -> dict[int, list[FailedAttempt]]:
        by_number: dict[int, list[FailedAttempt]] = {}
        if steps:
            for attempt in await self._store.get_failed_attempts(run.id, steps[0].number, steps[-1].number):
                by_number.setdefault(attempt.step_number, []).append(attempt)
        return by_number


def is_news(step: Step, run: Run, seen: dict[int, tuple[object, ...]]) -> bool:
    """Say whether a step looks other than when it was last shown."""
    look = (shown.state_of(step, run), step.attempt, step.fence, step.sequence, step.worker)
    if seen.get(step.number) == look:
        return False
    seen[step.number] = look
    return True


def unfinished(message: run_pb2.Run) -> run_pb2.Run:
    """Keep the run's end for the last message of a page."""
    copy = run_pb2.Run()
    copy.CopyFrom(message)
    copy.state = run_pb2.RUN_STATE_RUNNING
    copy.ClearField("ended_at")
    return copy


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


def page_size(asked: int, default: int, most: int) -> int:
    """Give the size of a page; raises FormError if too much is asked for."""
    if asked > most:
        raise FormError("page_size", f"{asked}, but a page has at most {most}")
    return asked or default


def write_token(place: str, scope: str) -> str:
    """Make a page token that is good for one filter only."""
    mark = hashlib.blake2b(scope.encode(), digest_size=6).hexdigest()
    return base64.urlsafe_b64encode(f"{mark}{place}".encode()).decode()


def read_token(token: str, scope: str, form: re.Pattern[str]) -> str:
    """Read a page token whose place has a form; raises FormError if it is none, or one of another filter.

    Anybody can make a token, so that its mark is no reason to believe what it says.
    """
    text = ""
    if len(token) <= LONGEST_TOKEN:
        with contextlib.suppress(ValueError):
            text = base64.urlsafe_b64decode(token.encode()).decode()
    place = text[12:]
    if not form.fullmatch(place) or token != write_token(place, scope):
        raise FormError("page_token", "not a token of this list and filter: take it from the answer before")
    return place
