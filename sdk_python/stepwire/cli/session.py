"""One session of `stepwire dev`: start in order, keep alive, say what can be sent, stop in order."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from stepwire.cli.exits import ExitCode
from stepwire.cli.plan import Plan
from stepwire.cli.processes import EXECUTOR_MODULE
from stepwire.cli.supervisor import Child, describe_exit
from stepwire.cli.voice import Voice
from stepwire.errors import StepwireError

if TYPE_CHECKING:
    from stepwire.client import Client

START_SECONDS = 30.0
RESTARTS = 3
"""A child that crashes more often than this within `RESTART_WINDOW_SECONDS` ends the session."""
RESTART_WINDOW_SECONDS = 60.0
EXECUTOR_STOP_SECONDS = 15.0
HURRY_SECONDS = 2.0
"""After a second Ctrl-C processes have so long to hand back what they hold; then they are killed."""


class Session:
    """One run of `stepwire dev`; `executor_module` and `worker_module` are what `python -m` runs."""

    def __init__(
        self, plan: Plan, voice: Voice, *, executor_module: str = EXECUTOR_MODULE, worker_module: str = "stepwire.cli"
    ) -> None:
        self._plan = plan
        self._voice = voice
        self._executor = Child("executor", executor_module, plan.executor_arguments, voice.line)
        self._worker = Child("worker", worker_module, plan.worker_arguments, voice.line)
        self._stopping = asyncio.Event()
        self._was_up = False
        """Whether the executor has taken a connection."""

    async def run(self) -> int:
        """Start everything, stay until Ctrl-C or a failure that does not heal, stop in order; give the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt)
        self._voice.started(self._plan)
        tasks: list[asyncio.Task[int | None]] = []
        try:
            await self._executor.start()
            tasks.append(asyncio.create_task(self._keep(self._executor), name="keep the executor"))
            if await self._is_up(tasks[0]):
                await self._worker.start()
                tasks.append(asyncio.create_task(self._keep(self._worker), name="keep the worker"))
                tasks.append(asyncio.create_task(self._announce(), name="announce triggers"))
            stop = asyncio.create_task(self._stopping.wait(), name="wait for the stop")
            await asyncio.wait([*tasks[:2], stop], return_when=asyncio.FIRST_COMPLETED)
            failed = any(task.done() for task in tasks[:2])
        finally:
            self._stopping.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_all()
        return ExitCode.RUN_FAILED if failed else ExitCode.FINE

    def _interrupt(self) -> None:
        """Stop in order at the first signal; at the second give up what is in hand, and kill what is still there."""
        if self._stopping.is_set():
            for child in (self._worker, self._executor):
                child.signal(signal.SIGTERM)
                asyncio.get_running_loop().call_later(HURRY_SECONDS, child.kill)
            return
        self._stopping.set()
        self._voice.line("dev", "stopping: workers drain first, then the executor (once more: at once)")

    async def _stop_all(self) -> None:
        for child, grace in ((self._worker, self._plan.drain_seconds + 5), (self._executor, EXECUTOR_STOP_SECONDS)):
            if child.is_running:
                code = await child.stop(grace)
                if code not in (0, None):
                    self._voice.line("dev", f"the {child.name} ended with {describe_exit(code or 0)}")

    async def _is_up(self, keeper: asyncio.Task[int | None]) -> bool:
        """Wait until the executor accepts connections; False if it ended or we are to stop before that."""
        end = time.monotonic() + START_SECONDS
        while not keeper.done() and not self._stopping.is_set():
            try:
                _, writer = await asyncio.open_connection(self._plan.host, self._plan.port)
            except OSError:
                if time.monotonic() > end:
                    self._voice.line("dev", f"the executor does not answer after {START_SECONDS:g} s")
                    return False
                await asyncio.sleep(0.05)
                continue
            writer.close()
            self._was_up = True
            return True
        return False

    async def _keep(self, child: Child) -> int | None:
        """Start a child again when it crashes; return its exit code if that does not help."""
        crashes: list[float] = []
        while True:
            begun = time.monotonic()
            code = await child.wait()
            now = time.monotonic()
            crashes = [at for at in crashes if now - at < RESTART_WINDOW_SECONDS] + [now]
            said = f"the {child.name} ended with {describe_exit(code)}"
            # How long it took says little on a busy machine: the executor has been up, or it never was.
            at_its_start = not self._was_up if child is self._executor else now - begun < 2
            if at_its_start and len(crashes) == 1:
                self._voice.line("dev", f"{said} at its start; see its lines above")
                return code
            if len(crashes) > RESTARTS:
                self._voice.line("dev", f"{said}, the {len(crashes)}th time within a minute; giving up")
                return code
            delay = 0.5 * 2 ** (len(crashes) - 1)
            self._voice.line("dev", f"{said}; starting it again in {delay:g} s")
            await asyncio.sleep(delay)
            await child.start()

    async def _announce(self) -> None:
        """Say how to start each function as soon as a worker serves it, also those that a reload brings."""
        from stepwire.client import Client

        said: set[tuple[str, str]] = set()
        async with Client(self._plan.address) as client:
            while True:
                fresh = [pair for pair in await _triggers(client) if pair not in said]
                if fresh:
                    said.update(fresh)
                    self._voice.triggers(self._plan, fresh)
                await asyncio.sleep(0.5 if not said else 2)


async def _triggers(client: Client) -> list[tuple[str, str]]:
    """Give the pairs of event name and function id that a connected worker serves; none while nobody answers."""
    try:
        functions = await client.functions()
    except StepwireError:
        return []
    return [(event, function.id) for function in functions if function.workers for event in function.triggers]
