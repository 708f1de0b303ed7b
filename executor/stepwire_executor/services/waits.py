"""One stream of WaitRuns: the runs that a client waits for, and the answers that it still gets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from stepwire_core.model import Run
from stepwire_executor.access import AccessError
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import StatusError
from stepwire_executor.services.pages import PAGE_BYTES
from stepwire_executor.services.status import bytes_of
from stepwire_executor.store import StoreError
from stepwire_proto.v1 import run_pb2

MOST_RUNS = 100_000
"""Runs that one stream may wait for at once."""
MOST_ERRORS = 10_000
"""Unwritten refusals from which on nothing more is read; looked at again after READING_SECONDS."""
READING_SECONDS = 0.05
IDS_A_TURN = 200
"""Runs that are asked for before others have a turn."""
MOST_HELD_BYTES = 4 << 20
"""Of ended runs that wait to be written. Others are read again when there is room."""
LEAST_BYTES = 200
"""What a run weighs, and each step that it has in memory, without any data."""


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
        self._unknown: dict[str, None] = {}
        """Runs that are waited for, are not in memory, and have still to be looked up."""
        self._ended: deque[tuple[Run, int]] = deque()
        """With their sizes."""
        self._held_bytes = 0
        self._errors: deque[run_pb2.RunEnd] = deque()
        self._failure: StoreError | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        """Set when something has been written."""
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
            for number, run_id in enumerate(request.forgotten_run_ids, 1):
                self._forget(run_id)
                if number % IDS_A_TURN == 0:
                    await asyncio.sleep(0)
            for number, run_id in enumerate(request.run_ids, 1):
                self._add(run_id)
                if number % IDS_A_TURN == 0:
                    await asyncio.sleep(0)
                while len(self._errors) > MOST_ERRORS:  # noqa: ASYNC110 - the client does not read; gRPC would not tell
                    await asyncio.sleep(READING_SECONDS)
            self._begin_to_find()

    def _begin_to_find(self) -> None:
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
        loaded = self._engine.state.runs.get(run_id)
        if loaded is None:
            self._unknown[run_id] = None
        else:  # its end is told when it is durable
            self._checked(run_id, loaded.run)

    def _forget(self, run_id: str) -> None:
        self._unknown.pop(run_id, None)
        unwatch = self._watches.pop(run_id, None)
        if unwatch is not None:
            unwatch()

    def _told(self, run_id: str, ended: Run | None) -> None:
        if ended is None:
            self._failure = self._engine.refusal()
        elif self._checked(run_id, ended):  # the token may have been withdrawn
            if self._held_bytes < MOST_HELD_BYTES:
                self._forget(run_id)
                size = size_of(ended)
                self._ended.append((ended, size))
                self._held_bytes += size
            else:
                self._unknown[run_id] = None
                self._begin_to_find()
        self._wake.set()

    async def _find_all(self) -> None:
        while self._unknown:
            while self._held_bytes >= MOST_HELD_BYTES:
                self._room.clear()
                await self._room.wait()
            run_id, _ = self._unknown.popitem()
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
        """Write what has ended, a message at a time; one answer alone may be larger than PAGE_BYTES."""
        response, room = run_pb2.WaitRunsResponse(), PAGE_BYTES
        while self._errors or self._ended:
            if self._errors:
                end = self._errors.popleft()
            else:
                run, size = self._ended.popleft()
                end = run_pb2.RunEnd(run_id=run.id, run=await self._show(run))
                self._held_bytes -= size
                self._room.set()
            room -= end.ByteSize()
            if room < 0 and response.ends:
                await write(response)
                response, room = run_pb2.WaitRunsResponse(), PAGE_BYTES - end.ByteSize()
            response.ends.append(end)
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


def size_of(run: Run) -> int:
    """Give the bytes that a run holds, with its steps if it is from memory."""
    return bytes_of(run) + LEAST_BYTES * (1 + len(run.steps))
