"""How real faults are brought about: system calls that fail, clocks that are wrong, disks that are small.

The tools are strace and libfaketime; mounts, and strace in a process that runs already, need root. See `tools.needs`.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stepwire.testing import ExecutorProcess
from stepwire_executor.store.sqlite import SQLiteStore
from stepwire_executor.store.url import open_store
from tests.end_to_end.processes import FLOWS, System
from tests.histories import checker, records
from tests.histories.database import Database, read_database
from tools import needs

PATIENCE_SECONDS = 20.0


def program(need: str) -> str:
    """Give the path of a program or library of `tools.needs`."""
    found = needs.NEEDS[need].find()
    assert found, f"there is no {need}: `python -m tools.needs` installs it, or says what to do"
    return found


def under_strace(log: Path, *options: str) -> list[str]:
    """Give the words before a command that run it under strace.

    With -D it is strace that is the grandchild: the command keeps the id and the signals that it would have without.
    """
    # Not --seccomp-bpf, which is faster: strace 6.1 injects no n-th signal with it.
    return [program("strace"), "-D", "-f", "-qq", "-e", "signal=none", "-o", str(log), *options]


def killed_at(log: Path, call: str, number: int) -> list[str]:
    """Give the words before a command that kill it with SIGKILL when a thread of it makes a call for the n-th time."""
    return under_strace(log, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")


def calls(log: Path) -> dict[str, int]:
    """Count the system calls in a log of strace, by the most that one thread made."""
    counted: dict[tuple[str, str], int] = {}
    for thread, call in re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE):
        counted[thread, call] = counted.get((thread, call), 0) + 1
    most: dict[str, int] = {}
    for (_, call), count in counted.items():
        most[call] = max(most.get(call, 0), count)
    return most


@contextmanager
def inject(pid: int, log: Path, *faults: str) -> Iterator[None]:
    """Let system calls of a process go wrong while the context lasts. A fault is "call:what", as strace has it."""
    names = ",".join(fault.partition(":")[0] for fault in faults)
    options = [option for fault in faults for option in ("-e", f"inject={fault}")]
    command = [
        program("strace"),
        "-f",
        "-e",
        "signal=none",
        "-o",
        str(log),
        "-e",
        f"trace={names}",
        *options,
        "-p",
        str(pid),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()  # "strace: Process … attached", or why not
        try:
            assert b"attached" in said, said
            yield
        finally:
            tracer.send_signal(signal.SIGINT)  # it lets go of the process
            tracer.communicate(timeout=PATIENCE_SECONDS)


class WrongClock:
    """The time of day of processes that are started with `environment`, as far off as is said."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, seconds: float) -> None:
        """Set the clock so far ahead of the true time, or behind it; every process sees it at once."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{seconds:+.3f}\n")
        scratch.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process use this clock. Its monotonic clock is the machine's."""
        return {
            "LD_PRELOAD": program("libfaketime"),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@contextmanager
def mounted(kind: str, at: Path, options: str, source: str = "none") -> Iterator[Path]:
    """Mount something on a folder while the context lasts."""
    at.mkdir(parents=True, exist_ok=True)
    flags = ["--bind"] if kind == "bind" else ["-t", kind, "-o", options]
    run("mount", *flags, source, str(at))
    try:
        yield at
    finally:
        run("umount", "--lazy", str(at))


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"`{' '.join(command)}` failed (the tests of faults need root): {done.stderr}"


class FaultyExecutor(ExecutorProcess):
    """An executor whose command line can have words before it."""

    prefix: Sequence[str] = ()

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [*self.prefix, *super().command]


async def hold(history: Path, store: Path | str) -> Database:
    """Hold a history against the promises, and give the database, whose executor has ended.

    The store is a file of SQLite, or named as with --store.
    """
    opened = SQLiteStore(store) if isinstance(store, Path) else open_store(store)
    try:
        await opened.open()
        database = await read_database(opened)
    finally:
        await opened.close()
    breaches = checker.check(records.read(history), database)
    assert not breaches, "\n".join(map(str, breaches))
    return database


class FaultySystem(System):
    """A system in which everything is written down; when it ends without an error, that is held against the promises.

    `store_folder` is where the database is to be, and `clock` the environment of an executor whose clock is wrong, as
    `worker_clock` is that of workers. With `start=False` the executor is for the test to start.
    """

    executor: FaultyExecutor

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, object] | None = None,
        target: str = FLOWS,
        store_folder: Path | None = None,
        clock: Mapping[str, str] | None = None,
        worker_clock: Mapping[str, str] | None = None,
    ) -> None:
        self.history = folder / "history"
        super().__init__(
            folder, target=target, environment={"STEPWIRE_HISTORY": str(self.history), **(worker_clock or {})}
        )
        self.store = (store_folder or folder) / "faulty.db"
        own = {"history": self.history, "store": f"sqlite:///{self.store}"}
        self.executor = FaultyExecutor(
            settings={**own, **(settings or {})}, folder=folder / "executor", environment=clock
        )
        self.database = Database()
        """What the store held in the end, to be looked at after the system's."""

    async def __aenter__(self) -> Self:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEPWIRE_HISTORY", str(self.history))
            await super().__aenter__()
            assert self.client is not None  # it is made here, so that it writes a history
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._check()
        except BaseException as found:
            await super().__aexit__(type(found), found, found.__traceback__)
            raise
        await super().__aexit__(kind, error, trace)

    async def _check(self) -> None:
        if self.executor.running:
            assert await asyncio.to_thread(self.executor.stop) == 0
        self.database = await hold(self.history, self.store)
        assert self.database.runs, "nothing was run"

    async def health(self) -> str:
        """Give what the executor says of itself: SERVING or NOT_SERVING."""
        async with grpc.aio.insecure_channel(self.executor.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def at_most_one_attempt(self) -> bool:
        """Whether no step was tried twice."""
        return not any(record["number"] > 1 for record in records.read(self.history) if record["what"] == "dispatched")
