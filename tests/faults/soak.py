"""`make soak MINUTES=n`: mixed load on a real system with a fault every second; then every promise is checked.

    python -m tests.faults.soak --minutes 20 --store postgres --seed 7

Workers in Python and in TypeScript serve one app, on one executor with SQLite, or on two with a PostgreSQL server of
their own. The first worker of each language is never killed, and the executors are not in the middle half of the time:
they show whether memory, threads and file descriptors stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.taken import resident_bytes
from stepwire.errors import ExecutorError
from stepwire.records import RunState
from stepwire.testing import ExecutorProcess, ProcessError
from stepwire.testing.process import ManagedProcess
from tests.faults.load import Work, draw
from tests.faults.proxy import Proxy, Way
from tests.faults.standby import StandbySystem
from tests.faults.tools import FaultySystem, inject
from tests.histories import checker, records
from tests.polyglot.typescript import TypeScriptWorker
from tests.postgres import Cluster

PYTHON_WORKERS, TYPESCRIPT_WORKERS = 3, 2
TARGET = "tests.faults.apps.soaked:app"
TAKEOVER_SECONDS = 2.0
SETTINGS = {"session_grace": 1.0, "heartbeat_interval": 0.5, "max_lost_invocations": 1000}
GROWTH, SLACK_KIB = 1.25, 16 * 1024
"""Memory is flat if what it is in the last quarter of a life is at most this much more than in the second one."""
SAMPLE_SECONDS = 1.0
LIVELY_SECONDS = 240.0
"""Lives that were shorter say nothing about growth: what a burst needs is kept for 30 s, half a quarter of this."""


@dataclass(slots=True)
class Life:
    """One life of a process, sampled: seconds since the start, resident KiB, threads, file descriptors."""

    name: str
    pid: int
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)

    def sample(self, now: float) -> None:
        """Take a sample; a process that has just ended gives none."""
        try:
            resident_kib = resident_bytes(self.pid) >> 10
            threads, descriptors = (len(os.listdir(f"/proc/{self.pid}/{what}")) for what in ("task", "fd"))
        except OSError:
            return
        self.samples.append((now, resident_kib, threads, descriptors))

    @property
    def seconds(self) -> float:
        """How long it was seen."""
        return self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0

    def growth(self) -> dict[str, tuple[float, float]]:
        """Give the medians of its second and of its last quarter."""
        quarter = max(1, len(self.samples) // 4)
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return {
            what: (median(sample[at] for sample in early or late), median(sample[at] for sample in late))
            for at, what in enumerate(("resident_kib", "threads", "descriptors"), 1)
        }

    def grows(self) -> list[str]:
        """Say what has grown more than it may."""
        found = []
        for what, (early, late) in self.growth().items():
            allowed = early * GROWTH + (SLACK_KIB if what == "resident_kib" else 8)
            if late > allowed:
                found.append(
                    f"{what} of {self.name} {self.pid} went from {early:g} to {late:g} in {self.seconds:.0f} s"
                )
        return found


class Soak:
    """The load, the faults and the figures."""

    def __init__(
        self,
        system: FaultySystem | StandbySystem,
        cluster: Cluster | None,
        proxies: Sequence[Proxy],
        seconds: float,
        every: float,
        rate: float,
        dice: random.Random,
    ) -> None:
        self.system = system
        self.cluster = cluster
        """The server of PostgreSQL, if it is on one."""
        self.executors: Sequence[ExecutorProcess] = (
            system.executors if isinstance(system, StandbySystem) else [system.executor]
        )
        self.workers: list[ManagedProcess] = [*system.workers, *system.others]
        self.victims = [worker for worker in self.workers if worker not in (system.workers[0], system.others[0])]
        self.proxies = proxies
        """Between each executor and all workers."""
        self.seconds = seconds
        self.every = every
        self.rate = rate
        self.dice = dice
        self.began = time.monotonic()
        self.begun = 0
        self.done = 0
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lives: dict[tuple[str, int], Life] = {}
        """By name too: within twenty minutes another process may get the same id."""
        self.followers: list[asyncio.Task[None]] = []

    @property
    def now(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self.began

    async def run(self) -> None:
        """Run the load and the faults for their time, then wait for every end."""
        watching = asyncio.create_task(self.watch())
        async with asyncio.TaskGroup() as group:  # what fails ends the others, and is told
            group.create_task(self.load())
            group.create_task(self.strike())
        await self.drain()
        if watching.done():  # nobody has told it to end
            watching.result()
        watching.cancel()

    async def load(self) -> None:
        """Send events at a steady rate."""
        number = 0
        while self.now < self.seconds:
            number += 1
            name = f"soak-{number}"
            work = draw(self.dice, name)
            run_id = await self.system.send(f"flows/{work.function}", work.data, id=name)
            self.begun += 1
            self.followers.append(asyncio.create_task(self.follow(run_id, work)))
            if work.approvals:
                self.followers.append(asyncio.create_task(self.approve(name, work.approvals)))
            await asyncio.sleep(max(0.0, number / self.rate - self.now))

    async def approve(self, name: str, count: int) -> None:
        """Send what a run waits for, before or after it does."""
        for number in range(count):
            event = {"doc": name, "by": number}
            await self.system.client.send("flows/approved", event, id=f"{name}-{number}")
            await asyncio.sleep(random.uniform(0, 0.5))

    async def follow(self, run_id: str, work: Work) -> None:
        """Wait for a run, and compare what it gives."""
        try:
            run = await self.system.client.wait(run_id, timeout=None)
            if run.state is not (RunState.FAILED if work.fails else RunState.SUCCEEDED):
                self.wrong.append(f"{run.function} {run_id}: {run.state} {run.failure}")
            elif work.fails:
                if run.failure is None or run.failure.type != work.fails:
                    self.wrong.append(f"{run.function} {run_id} failed with {run.failure}, not {work.fails}")
            elif not work.is_right(await self.system.client.result(run_id)):
                self.wrong.append(f"{run.function} {run_id} gave {run.output}, not {work.gives!r}")
        except ExecutorError as error:
            self.wrong.append(f"{run_id}: {error}")
        self.done += 1

    async def drain(self) -> None:
        """Wait until every run has ended."""
        _, late = await asyncio.wait(self.followers, timeout=120)
        if late:
            self.wrong.append(f"{len(late)} runs have not ended after two minutes of peace")

    # Faults.

    async def strike(self) -> None:
        """Bring about a fault every so often."""
        faults: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.kill_worker,
            self.kill_worker,
            self.stop_worker,
            self.freeze_worker,
            self.freeze_worker,
            self.freeze_long,
            self.freeze_executor,
            self.cancel_a_run,
            self.reset_connections,
            self.stall_connections,
            self.drain_in_cuts,
            self.kill_executor,
            self.stop_executor,
            self.kill_both,
            self.drain_in_a_restart,
        ]
        if self.cluster is None:
            faults.append(self.slow_disk)
        else:
            faults += [self.terminate_database_connections, self.restart_database, self.freeze_until_takeover]
        of_executors = (self.kill_executor, self.stop_executor, self.kill_both, self.drain_in_a_restart)
        at = 0.0
        while self.now < self.seconds:
            at += self.every
            await asyncio.sleep(max(0.0, at - self.now))
            fault = self.dice.choice(faults)
            spared = self.seconds / 4 < self.now < self.seconds * 3 / 4
            if spared and fault in of_executors:
                fault = self.freeze_executor
            with (self.system.folder / "faults").open("a") as log:
                print(f"{time.monotonic():.3f} {fault.__name__}", file=log)
            await fault()
            self.faults[fault.__name__.replace("_", " ")] += 1
            self.show()

    def victim(self) -> ManagedProcess:
        """Choose a worker; the first one of each language is spared."""
        return self.dice.choice(self.victims)

    async def active(self) -> ExecutorProcess:
        """Give the executor that works."""
        return await self.system.active() if isinstance(self.system, StandbySystem) else self.system.executor

    async def kill_worker(self) -> None:
        await asyncio.to_thread(self.victim().kill)
        await self.revive()

    async def stop_worker(self) -> None:
        await self.drain_worker()
        await self.revive()

    async def drain_worker(self) -> None:
        worker = self.victim()
        try:
            code = await asyncio.to_thread(worker.stop)
        except ProcessError as error:
            self.wrong.append(f"a worker was drained: {error}")
            return
        if code:
            self.wrong.append(f"a worker was drained, and ended with {code}: {worker.log[-2000:]}")

    async def drain_in_cuts(self) -> None:
        draining = asyncio.create_task(self.drain_worker())
        for _ in range(3):
            await asyncio.sleep(self.dice.uniform(0, 0.2))
            await self.reset_connections()
        await draining
        await self.revive()

    async def drain_in_a_restart(self) -> None:
        await asyncio.gather(self.drain_worker(), self.kill_executor())
        await self.revive()

    async def freeze_worker(self) -> None:
        await self.freeze(self.dice.choice(self.workers).signal, self.dice.choice([0.1, 0.6]))

    async def freeze_long(self) -> None:
        await self.freeze(self.victim().signal, 3.0)

    async def freeze_executor(self) -> None:
        await self.freeze((await self.active()).signal, self.dice.choice([0.1, 0.6, 1.5]))

    async def slow_disk(self) -> None:
        log = self.system.folder / "strace"
        with inject(self.system.executor.pid, log, "fdatasync:delay_exit=300000"):
            await asyncio.sleep(2.0)

    async def terminate_database_connections(self) -> None:
        assert self.cluster is not None
        await asyncio.to_thread(self.cluster.terminate_all)

    async def restart_database(self) -> None:
        assert self.cluster is not None
        await asyncio.to_thread(self.cluster.stop_at_once)
        await asyncio.to_thread(self.cluster.start)

    async def freeze_until_takeover(self) -> None:
        assert isinstance(self.system, StandbySystem)
        frozen = await self.active()
        frozen.signal(signal.SIGSTOP)
        try:
            await self.system.active(other_than=frozen)
        finally:
            frozen.signal(signal.SIGCONT)

    async def freeze(self, send: Callable[[int], None], seconds: float) -> None:
        send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        send(signal.SIGCONT)

    async def cancel_a_run(self) -> None:
        event = f"flows/{self.dice.choice(['fan-out', 'ts-fan-out'])}"
        run_id = await self.system.send(event, {"count": 40, "seconds": 0.3}, id=f"cancel-{self.now:.6f}")
        await asyncio.sleep(self.dice.uniform(0, 0.3))
        await self.system.client.cancel(run_id, "the soak wants it")

    async def reset_connections(self) -> None:
        for proxy in self.proxies:
            proxy.reset()

    async def stall_connections(self) -> None:
        ways = self.dice.choice([(Way.TO_EXECUTOR,), (Way.TO_WORKER,), tuple(Way)])
        for proxy in self.proxies:
            proxy.stall(*ways, new=False)
        await asyncio.sleep(self.dice.choice([0.3, 2.0]))
        for proxy in self.proxies:
            proxy.go_on()

    async def kill_executor(self) -> None:
        executor = await self.active()
        await asyncio.to_thread(executor.kill)
        await self.start_executor(executor)

    async def stop_executor(self) -> None:
        executor = await self.active()
        code = await asyncio.to_thread(executor.stop)
        if code:
            self.wrong.append(f"the executor was drained, and ended with {code}: {executor.log[-2000:]}")
        await self.start_executor(executor)

    async def start_executor(self, executor: ExecutorProcess) -> None:
        """Start it again; half of the times after another one has taken over, if there is one."""
        if isinstance(self.system, StandbySystem) and self.dice.random() < 0.5:
            await self.system.active()
        await asyncio.to_thread(executor.start)

    async def kill_both(self) -> None:
        self.victim().kill()
        await self.kill_executor()
        await self.revive()

    async def revive(self) -> None:
        """Start the workers that are gone."""
        for worker in self.workers:
            if not worker.running:
                await asyncio.to_thread(worker.start)

    # Figures.

    async def watch(self) -> None:
        """Sample every process."""
        while True:
            for name, process in [
                *(("executor", each) for each in self.executors),
                *(("worker", each) for each in self.system.workers),
                *(("TypeScript worker", each) for each in self.system.others),
            ]:
                if process.running:
                    self.lives.setdefault((name, process.pid), Life(name, process.pid)).sample(self.now)
            await asyncio.sleep(SAMPLE_SECONDS)

    def show(self) -> None:
        """Show how far it is."""
        line = (
            f"{self.now:5.0f} s of {self.seconds:.0f}: {self.done} of {self.begun} runs ended, "
            f"{self.faults.total()} faults, {len(self.wrong)} wrong"
        )
        if sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        elif self.faults.total() % 30 == 0:
            print(line, file=sys.stderr, flush=True)

    def report(self) -> dict[str, Any]:
        """Sum up, once the system has ended and its history is checked."""
        database = self.system.database
        steps = sum(map(len, database.steps.values()))
        long = [life for life in self.lives.values() if life.seconds >= LIVELY_SECONDS]
        growth = [text for life in long for text in life.grows()]
        return {
            "seconds": round(self.now, 1),
            "runs": len(database.runs),
            "runs_a_second": round(len(database.runs) / self.seconds, 1),
            "steps": steps,
            "steps_a_second": round(steps / self.seconds, 1),
            "faults": dict(self.faults.most_common()),
            "records_checked": sum(1 for _ in records.read(self.system.history)),
            "promises_checked": [*checker.LAWS, "I7", "I10"],
            "lives": {f"{life.name} {life.pid}": {"seconds": round(life.seconds), **life.growth()} for life in long},
            "wrong": self.wrong + growth,
        }


async def soak(folder: Path, seconds: float, every: float, rate: float, seed: int, store: str) -> dict[str, Any]:
    """Soak a system on a store, "sqlite" or "postgres"; gives the report."""
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(Cluster()) if store == "postgres" else None
        system: FaultySystem | StandbySystem
        if cluster is None:
            system = await stack.enter_async_context(FaultySystem(folder, settings=SETTINGS, target=TARGET))
            executors: Sequence[ExecutorProcess] = [system.executor]
        else:
            settings = {**SETTINGS, "takeover_after": TAKEOVER_SECONDS}
            url = cluster.url(cluster.database())
            system = await stack.enter_async_context(StandbySystem(folder, url, settings=settings, target=TARGET))
            executors = system.executors
        proxies = [await stack.enter_async_context(Proxy(each.address)) for each in executors]
        address = ",".join(proxy.address for proxy in proxies)
        await system.start_workers(PYTHON_WORKERS, slots=4, address=address, options={"drain_seconds": 0.5})
        for _ in range(TYPESCRIPT_WORKERS):
            worker = TypeScriptWorker("tests/apps/soaked", address, folder=folder)
            system.others.append(worker)
            await asyncio.to_thread(worker.start)
        work = Soak(system, cluster, proxies, seconds, every, rate, random.Random(seed))
        await work.run()
    return work.report()


def seconds(text: str) -> float:
    """Read a time: a number of seconds, or one with s or ms behind it."""
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--every", type=seconds, default=1.0, help="time between faults: 1, 0.5s, 200ms")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--rate", type=float, default=3.0, help="runs to begin a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path, help="write the report into this file")
    parser.add_argument("--folder", type=Path, help="keep the history, the logs and SQLite's database in this folder")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", file=sys.stderr)
    how = (chosen.minutes * 60, chosen.every, chosen.rate, chosen.seed, chosen.store)
    with tempfile.TemporaryDirectory(prefix="stepwire-soak-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(soak(folder, *how))
    text = json.dumps(report, indent=1)
    print(f"\n{text}")
    if chosen.json is not None:
        chosen.json.write_text(text)
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
