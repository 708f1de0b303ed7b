"""One session of `stepwire dev`: start in order, keep alive, say what can be sent, stop in order."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from stepwire.cli.exits import ExitCode
from stepwire.cli.output import DEFAULT_PORT, print_json
from stepwire.cli.processes import EXECUTOR_MODULE
from stepwire.cli.supervisor import Child, describe_exit
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
STYLES = {"executor": "blue", "worker": "green", "dev": "yellow"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `taken` is the default port if another process has it."""

    target: str
    processes: int
    slots: int
    host: str
    port: int
    taken: int | None
    state: Path
    drain_seconds: float

    @property
    def address(self) -> str:
        """Where the executor listens."""
        return f"{self.host}:{self.port}"

    @property
    def store(self) -> str:
        """The executor's store, as it is told."""
        return f"sqlite:///{self.state / 'dev.db'}"

    @property
    def executor_arguments(self) -> list[str]:
        """What the executor is started with."""
        return ["--host", self.host, "--port", str(self.port), "--store", self.store]

    @property
    def worker_arguments(self) -> list[str]:
        """What the worker command is started with."""
        numbers = {"--processes": self.processes, "--slots": self.slots, "--drain-seconds": self.drain_seconds}
        flags = [text for name, value in numbers.items() for text in (name, f"{value:g}")]
        return ["worker", self.target, "--executor", self.address, "--reload", *flags]


class Voice:
    """Says what happens: lines with the name of who speaks, in colour, or JSON objects."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)

    def line(self, name: str, text: str) -> None:
        """Pass on a line that a child wrote."""
        if self._as_json:
            return print_json({"from": name, "line": text})
        self._console.print(Text.assemble((f"{name:>8} │ ", STYLES[name]), shortened(text)))
        return None

    def started(self, plan: Plan) -> None:
        """Say what runs where."""
        if self._as_json:
            return print_json({"from": "dev", "executor": plan.address, "store": plan.store, "app": plan.target})
        note = f"  [yellow](port {plan.taken} is taken)[/]" if plan.taken else ""
        self._console.print(f"[bold]stepwire dev[/]  {plan.target}")
        self._console.print(f"  executor  [bold]{plan.address}[/]{note}")
        self._console.print(f"  state     {plan.state}/")
        self._console.print("  stop      Ctrl-C\n", style="dim")
        return None

    def triggers(self, plan: Plan, triggers: Sequence[tuple[str, str]]) -> None:
        """Say how to start functions, given as pairs of event name and function."""
        if self._as_json:
            return print_json({"from": "dev", "triggers": [{"event": e, "function": f} for e, f in triggers]})
        where = "" if plan.port == DEFAULT_PORT else f"--executor {plan.address} "
        self._console.print(f"\n[green]✓[/] [bold]{plan.target}[/] is served. Start a run from another terminal:")
        commands = [f"stepwire send {where}{shlex.quote(event)} --data '{{}}' --wait" for event, _ in triggers]
        room = max(map(len, commands))
        for command, (_, function) in zip(commands, triggers, strict=True):
            self._console.print(Text.assemble(f"    {command:<{room}}  ", (f"# {function}", "dim")))
        self._console.print()
        return None


_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d)[.,]\d+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


def shortened(line: str) -> Text:
    """Give a log line without what nobody needs on a terminal: the date, the milliseconds, the level INFO."""
    match = _LOG_LINE.match(line)
    if match is None:
        return Text.from_ansi(line)
    time_of_day, level = match.groups()
    rest = Text.from_ansi(line[match.end() :])
    if level in _LEVEL_STYLES:
        rest = Text(f"{level.lower()}: ", _LEVEL_STYLES[level]).append_text(rest)
    return Text(f"{time_of_day} ", "dim").append_text(rest)


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
        self._voice.line("dev", "stopping: workers drain first, then the executor (once more: at once)")
        self._stopping.set()

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
            if now - begun < 2 and len(crashes) == 1:
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
