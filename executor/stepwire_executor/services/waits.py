"""One stream of WaitRuns: the runs that a client waits for, and the answers that it still gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from stepwire_executor.access import AccessError
from stepwire_executor.core.model import Run
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import StatusError
from stepwire_executor.store import StoreError
from stepwire_proto.v1 import run_pb2

MOST_RUNS = 100_000
"""Runs that one stream may wait for at once."""
MOST_ERRORS = 10_000
"""Unwritten refusals from which on nothing more is read; looked at again after READING_SECONDS."""
READING_SECONDS = 0.05
BYTES_A_MESSAGE = 1 << 20
"""Size from which on a message takes no further answer; one alone may be larger."""


class Waits:
    """What one client waits for.

    `find` gives a run as it is durable, and `check` looks at one; both raise AccessError if the client may not see it.
    `show` writes it.
    """

    def __init__(
        self,
        engine: EngineHandle,
        find: Callable[[str], Awaitable[Run]],
        check: Callable[[Run], None],
        show: Callable[[Run], Awaitable[run_pb2.Run]],
    ) -> None:
        self._engine = engine
        self._find = find
        self._check = check
        self._show = show
        self._watches: dict[str, Callable[[], None]] = {}
        """What ends the watch of each run."""
        self._unknown: list[str] = []
        """Runs that are not in memory, and have still to be looked up."""
        self._ended: list[Run] = []
        self._errors: list[run_pb2.RunEnd] = []
        self._failure: StoreError | None = None
        self._wake = asyncio.Event()
        self._reader: asyncio.Future[None] | None = None
        self._finder: asyncio.Future[None] | None = None

    async def serve(
        self, requests: AsyncIterator[run_pb2.WaitRunsRequest], write: Callable[[run_pb2.WaitRunsResponse], Any]
    ) -> None:
        """Answer, until nothing is left. Raises StatusError, AccessError, and StoreError if the store fails meanwhile.

        What was being committed then has ended or not, and whoever asks again finds out.
        """
        self._reader = asyncio.ensure_future(self._read(requests))
        self._reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._is_over():
                await self._wake.wait()
                self._wake.clear()
                await self._write(write)
        finally:
            self._close()

    async def _read(self, requests: AsyncIterator[run_pb2.WaitRunsRequest]) -> None:
        async for request in requests:
            for run_id in request.forgotten_run_ids:
                self._forget(run_id)
            for run_id in request.run_ids:
                self._add(run_id)
            while len(self._errors) > MOST_ERRORS:  # noqa: ASYNC110 - the client does not read, and gRPC would not tell
                await asyncio.sleep(READING_SECONDS)
            if self._unknown and self._finder is None:
                self._finder = asyncio.ensure_future(self._find_all())
                self._finder.add_done_callback(lambda _: self._wake.set())

    def _add(self, run_id: str) -> None:
        if self._engine.failing:
            raise self._engine.refusal()
        if run_id in self._watches:
            return
        if len(self._watches) + len(self._ended) >= MOST_RUNS:
            message = f"{MOST_RUNS:,} runs are waited for on this stream: open another one, or wait for fewer at once"
            self._refuse(run_id, StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
            return
        self._watches[run_id] = self._engine.watch_end(run_id, partial(self._told, run_id))
        hot = self._engine.state.runs.get(run_id)
        if hot is None:
            self._unknown.append(run_id)
        else:  # its end is told when it is durable
            self._checked(run_id, hot.run)

    def _forget(self, run_id: str) -> None:
        unwatch = self._watches.pop(run_id, None)
        if unwatch is not None:
            unwatch()

    def _told(self, run_id: str, ended: Run | None) -> None:
        if ended is None:
            self._failure = self._engine.refusal()
        elif self._checked(run_id, ended):  # the token may have been withdrawn
            self._forget(run_id)
            self._ended.append(ended)
        self._wake.set()

    async def _find_all(self) -> None:
        while self._unknown:
            run_id = self._unknown.pop()
            if run_id not in self._watches:
                continue
            try:
                run = await self._find(run_id)
            except AccessError as error:
                self._refuse(run_id, error)
            else:
                if run.state.ended and run_id in self._watches:
                    self._told(run_id, run)
        self._finder = None

    def _checked(self, run_id: str, run: Run) -> bool:
        try:
            self._check(run)
        except AccessError as error:
            self._refuse(run_id, error)
            return False
        return True

    def _refuse(self, run_id: str, error: StatusError | AccessError) -> None:
        self._forget(run_id)
        code = error.code if isinstance(error, StatusError) else getattr(grpc.StatusCode, error.code)
        wait_error = run_pb2.WaitError(code=code.value[0], message=error.message)
        self._errors.append(run_pb2.RunEnd(run_id=run_id, error=wait_error))
        self._wake.set()

    async def _write(self, write: Callable[[run_pb2.WaitRunsResponse], Any]) -> None:
        """Write what has ended, a message at a time."""
        ended, self._ended = self._ended, []
        errors, self._errors = self._errors, []
        response, size = run_pb2.WaitRunsResponse(ends=errors), 0
        for run in ended:
            end = response.ends.add(run_id=run.id)
            end.run.CopyFrom(await self._show(run))
            size += end.ByteSize()
            if size > BYTES_A_MESSAGE:
                await write(response)
                response, size = run_pb2.WaitRunsResponse(), 0
        if response.ends:
            await write(response)

    def _is_over(self) -> bool:
        """Whether all is answered that was asked for; raises what has gone wrong meanwhile."""
        if self._failure is not None:
            raise self._failure
        for task in (self._reader, self._finder):
            if task is not None and task.done():
                task.result()
        is_read = self._reader is not None and self._reader.done()
        return is_read and not (self._watches or self._ended or self._errors)

    def _close(self) -> None:
        for task in (self._reader, self._finder):
            if task is not None:
                task.cancel()
        for unwatch in self._watches.values():
            unwatch()
        self._watches.clear()
