"""Crash points of an executor: it kills itself before or after its n-th commit, or its n-th frame to a worker.

What is wrapped is the store and what a stream is written with, from outside and in the executor's process only.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POINTS = ("before commit", "after commit", "before send", "after send")


@dataclass(frozen=True, slots=True)
class CrashAt:
    """Called in the process, before anything else. At number 0 of a point it only counts into `counts`."""

    point: str
    number: int
    counts: Path

    def __call__(self) -> None:
        from stepwire_executor.connections import Connections
        from stepwire_executor.store.sqlite import SQLiteStore

        passed: Counter[str] = Counter()

        def reached(point: str) -> None:
            passed[point] += 1
            if not self.number:
                self.counts.write_text("\n".join(f"{name}={count}" for name, count in passed.items()))
            elif point == self.point and passed[point] == self.number:
                os.kill(os.getpid(), signal.SIGKILL)

        commit, connect = SQLiteStore.commit, Connections.connect

        def crashing_commit(store: SQLiteStore, writes: Any) -> Awaitable[None]:
            reached("before commit")
            return committed(commit(store, writes))

        async def committed(committing: Awaitable[None]) -> None:
            await committing
            reached("after commit")

        async def crashing_connect(connections: Connections, requests: AsyncIterator[bytes], context: Any) -> None:
            await connect(connections, requests, Context(context, reached))

        SQLiteStore.commit = crashing_commit  # type: ignore[method-assign]
        Connections.connect = crashing_connect  # type: ignore[method-assign]


class Context:
    """gRPC's context of a stream, whose writes are points."""

    def __init__(self, context: Any, reached: Any) -> None:
        self._context = context
        self._reached = reached

    async def write(self, frame: bytes) -> None:
        self._reached("before send")
        await self._context.write(frame)
        self._reached("after send")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def counted(file: Path) -> dict[str, int]:
    """Read how often each point was passed."""
    pairs = (line.split("=") for line in file.read_text().splitlines())
    return {name: int(count) for name, count in pairs}
