"""A real executor under attack by workers and clients, with somebody else's traffic beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import grpc

from stepwire import Client, ExecutorError, Security
from stepwire.records import RunState
from stepwire.testing import ExecutorProcess
from tests.executor import tokens
from tests.fuzz.alive import Alive
from tests.fuzz.attack import Attack
from tests.fuzz.clients import FuzzingClient
from tests.fuzz.victim import APP, Victim
from tests.fuzz.victim import Run as VictimRun
from tests.fuzz.watch import ALLOCATOR, Watched
from tests.fuzz.workers import FuzzingWorker

SETTINGS = {"heartbeat_interval": 1, "session_grace": 1, "max_steps": 2_000, "max_lost_invocations": 3}
WORKERS, CLIENTS = 4, 8
APPS = tuple(f"fuzz-{number}" for number in range(WORKERS))
CHANNEL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
ATTACK_SECONDS, PAUSE_SECONDS, SETTLING_SECONDS = 20.0, 10.0, 2.0
"""An attack with a rate, and the pauses in it; their first seconds count as neither."""
LOOK_SECONDS = 1.0
"""How often logs are looked at."""
CANCELLED_AT_ONCE = 200
CLEARING_SECONDS = 120.0
"""How long it may take to cancel the runs that an attack has left."""


def write_tokens(file: Path) -> None:
    """Write the tokens of the attackers and of their victim."""
    entries = [(app, [app], ["worker", "client", "admin"]) for app in (*APPS, "fuzz-other", APP)]
    entries += [("only-worker", list(APPS), ["worker"]), ("only-client", list(APPS), ["client"])]
    file.write_text("\n".join(tokens.entry(*each) for each in entries))


class AgainstExecutor:
    """Use it as `with AgainstExecutor(folder, attack) as system: await system.run(…)`. A `store` is as with --store."""

    def __init__(self, folder: Path, attack: Attack, store: str = "") -> None:
        self.attack = attack
        self.idle: list[VictimRun] = []
        self.attacked: list[VictimRun] = []
        self.load = 0.0
        """How many processes the machine had to run before the attack."""
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        tokens_file = folder / "tokens.toml"
        write_tokens(tokens_file)
        settings = {**SETTINGS, "tokens_file": tokens_file, **({"store": store} if store else {})}
        self.executor = ExecutorProcess(settings=settings, folder=folder, environment=ALLOCATOR)
        self._folder = folder

    def __enter__(self) -> AgainstExecutor:
        self._stack.enter_context(self.executor)
        self.victim = self._stack.enter_context(Victim(self.executor.address, self._folder, tokens.secret(APP)))
        self.watched = [Watched(self.executor), Watched(self.victim)]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    async def run(self, idle_seconds: float, show: Callable[[], None] = lambda: None) -> None:
        """Look at the victim for some seconds, attack, clear up, and see that all is as before."""
        await asyncio.sleep(idle_seconds)
        self.load = os.getloadavg()[0]
        for watched in self.watched:
            watched.begin()
        helpers = [asyncio.create_task(self._look(show)), asyncio.create_task(self._breathe())]
        self.attack.begin()
        await self._attack()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        self._sort(self.victim.runs())
        self._check()
        if not self.attack.wrong:
            await self._clear()
            await self._served()
            await self._only_its_own()
            self._check()
            executor, victim = self.watched
            self.attack.wrong += await asyncio.to_thread(victim.come_back)
            self.victim.destroy()  # what its own runs have in memory is not the attack's, and is to be gone too
            self.attack.wrong += await asyncio.to_thread(executor.come_back)
        if not self.attack.wrong:
            self._end()

    async def _attack(self) -> None:
        alive = Alive()  # what those clients know that are with no worker
        channels = [grpc.aio.insecure_channel(self.executor.address, options=CHANNEL) for _ in range(WORKERS + CLIENTS)]
        workers = [
            FuzzingWorker(self.attack, channel, app, tokens.secret(app))
            for channel, app in zip(channels, APPS, strict=False)
        ]
        names = (*APPS, *APPS, "fuzz-other", "only-worker", "only-client")
        known = [*map(tokens.secret, names), "", "unknown"]
        clients = [
            FuzzingClient(self.attack, channel, number, known, workers[number].alive if number < WORKERS else alive)
            for number, channel in enumerate(channels[WORKERS:])
        ]
        for known_to in (alive, *(worker.alive for worker in workers)):  # names are no secrets
            known_to.add("app", APP)
            known_to.add("function_id", "victim", f"{APP}/victim")
            known_to.add("event_name", "victim/go")
        try:
            async with asyncio.TaskGroup() as group:
                for run in [*(each.run for each in workers), *(each.run for each in clients)]:
                    group.create_task(run())
        finally:
            for channel in channels:
                await channel.close()

    async def _breathe(self) -> None:
        """Pause an attack of some minutes again and again: whatever else the machine does, it does in pauses too."""
        while self.attack.rate:
            await asyncio.sleep(ATTACK_SECONDS)
            await self.attack.pause(PAUSE_SECONDS)

    def _sort(self, runs: list[VictimRun]) -> None:
        """Tell the victim's runs under attack from those when all was idle."""
        pauses = [(float("-inf"), self.attack.began), *self.attack.pauses]
        for run in runs:
            if any(begin + SETTLING_SECONDS <= run.began <= end - run.seconds for begin, end in pauses):
                self.idle.append(run)
            elif not any(begin <= run.began <= end for begin, end in pauses):
                self.attacked.append(run)

    async def _look(self, show: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._check()
            show()

    def _check(self) -> None:
        for watched in self.watched:
            for fault in watched.faults():
                self.attack.found(fault)
        for run in self.victim.runs():
            if run.wrong and not self.attack.wrong:
                self.attack.found(f"a run of the victim: {run.wrong}")

    async def _clear(self) -> None:
        """Cancel what the attack has left unfinished: the runs of its functions are a load of their own."""
        for app in APPS:
            async with Client(self.executor.address, security=Security(token=tokens.secret(app))) as client:
                try:
                    async with asyncio.timeout(CLEARING_SECONDS):
                        while runs := await unfinished(client):
                            await asyncio.gather(*(client.cancel(run_id, "the fuzz is over") for run_id in runs))
                except (ExecutorError, TimeoutError) as error:
                    self.attack.found(f"what is left of app {app} can't be cancelled: {type(error).__name__} {error}")

    async def _served(self) -> None:
        """Wait until one more run of the victim has ended."""
        count = len(self.victim.runs())
        async with asyncio.timeout(60):
            while len(self.victim.runs()) < count + 2:  # noqa: ASYNC110 - another process runs them
                await asyncio.sleep(0.05)

    async def _only_its_own(self) -> None:
        """See that the victim has the runs that it began itself, and that nobody else has touched them."""
        async with Client(self.executor.address, security=Security(token=tokens.secret(APP))) as client:
            runs = [run async for run in client.list(app=APP)]
        odd = [run for run in runs if run.state not in (RunState.SUCCEEDED, RunState.PENDING, RunState.RUNNING)]
        begun = len(self.victim.runs()) + 2  # the first one, by which it sees its worker, and the one that runs now
        if odd or len(runs) > begun:
            self.attack.found(f"the victim has {len(runs)} runs and has begun {begun} at the most: {odd[:3]}")

    def _end(self) -> None:
        if code := self.executor.stop():
            self.attack.found(str(self.executor.error(f"was told to stop, and ended with exit code {code}")))


async def unfinished(client: Client) -> list[str]:
    """Give the ids of some runs that have not ended."""
    found = []
    async for run in client.list(states=[RunState.PENDING, RunState.RUNNING]):
        found.append(run.id)
        if len(found) >= CANCELLED_AT_ONCE:
            break
    return found


def percentiles(runs: list[VictimRun]) -> tuple[float, float]:
    """Give the median and the 99th percentile of how long runs took, in seconds."""
    times = [run.seconds for run in runs]
    if len(times) < 2:
        return (times or [0.0])[0], (times or [0.0])[0]
    return median(times), quantiles(times, n=100, method="inclusive")[98]
