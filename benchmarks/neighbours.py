"""What hostile neighbours do to the runs of another app, and to the executor's memory.

python -m benchmarks.neighbours [--only NAME] [--seconds N] [--fan] [--json FILE] [--readme FILE]

Each attack has a fresh executor (SQLite, tokens for two apps). The victim's worker and its client, which is this
process, run three steps one after another, again and again: first alone, then with the attack going on. The attacker is
a process of its own, `python -m benchmarks.attacks`, with a token for the other app. It is not niced, and it shares the
cores of the machine with the executor and the victim: what its own CPU does to them is nobody's fault. The row "burn"
shows that by a process that leaves the executor alone, and "fan-10000" shows a load that is fair. Compare with these.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.attacks.__main__ import ATTACKS
from benchmarks.attacks.target import APP
from benchmarks.scene import ROOT, Scene, run, worker
from benchmarks.taken import Taken, resident_bytes
from stepwire.client import Client
from stepwire.errors import StepwireError
from stepwire.testing.executor import ExecutorProcess
from stepwire.testing.process import ManagedProcess, ProcessError

VICTIM = "benchmarks"
TOKENS = {VICTIM: "the-token-of-the-victim", APP: "the-token-of-the-attacker"}
STEPS, WIDTH = 3, 10_000
SECONDS = 10.0
STUCK_SECONDS = 60.0
"""After which a run of the victim counts as one that has not ended."""
BEGINNING_SECONDS, ENDING_SECONDS = 300.0, 10.0
"""Of an attack: it makes its messages before it begins."""
FAN_SECONDS = 90.0
"""After which the victim's fan-out counts as one that has not ended."""
REST_SECONDS = 40.0
"""How long the memory may take to come back: lost workers have a grace of 30 s."""
MOST_TIMES, MOST_MEMORY = 3.0, 1.2
REFERENCES = ("burn", "fan-10000")
BEGIN, END = "<!-- neighbours: written by `python -m benchmarks.neighbours --readme` -->", "<!-- neighbours: end -->"


class AttackError(Exception):
    """The attack did not begin, or has ended by itself: nothing was measured."""


@dataclass(slots=True)
class Found:
    """What was measured beside one attack."""

    idle: list[float] = field(default_factory=list)
    """Seconds of the victim's runs, also below."""
    attacked: list[float] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    """Runs that failed or did not end, faults in the executor's log."""
    memory: list[int] = field(default_factory=list)
    """Bytes that the executor held before, at the most, and after the attacker had gone."""
    fan: list[float] = field(default_factory=list)
    """Seconds of a fan-out, alone and under attack."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """What became of the attacker's calls and streams."""

    @property
    def times(self) -> float:
        """By how much the slowest runs were slower than when idle."""
        return command.percentile(self.attacked, 0.99) / command.percentile(self.idle, 0.99)

    @property
    def kept(self) -> float:
        """The memory after over the memory before."""
        return self.memory[2] / self.memory[0]


@contextmanager
def stage() -> Iterator[Scene]:
    """Start an executor with tokens for both apps, and the victim's worker."""
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="stepwire-neighbours-")))
        file = folder / "tokens.toml"
        file.write_text("".join(entry(app, token) for app, token in TOKENS.items()))
        file.chmod(0o600)
        executor = started.enter_context(ExecutorProcess(settings={"tokens_file": file}, folder=folder / "executor"))
        environment = {"STEPWIRE_TOKEN": TOKENS[VICTIM]}
        yield Scene(executor, [started.enter_context(worker(executor, environment=environment, wait=False))])


def entry(app: str, token: str) -> str:
    """Write the entry of a token that may do everything for one app."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    values = {"name": app, "sha256": digest, "apps": [app], "roles": ["worker", "client", "admin"]}
    return "[[token]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) + "\n"


class Attacker(ManagedProcess):
    """An attack as a process of its own; it counts as started when the attack goes on."""

    def __init__(self, name: str, address: str) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        super().__init__("attacker", None, {"STEPWIRE_TOKEN": TOKENS[APP], "PYTHONPATH": path})
        self._words = [name, address]

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [sys.executable, "-m", "benchmarks.attacks", *self._words]

    def wait_ready(self, timeout: float) -> None:
        """Return once the attack goes on."""
        self.wait_until(lambda: "begun" in self.log.splitlines(), "the attack has begun", timeout)

    def end(self) -> dict[str, int]:
        """Tell it to end; gives how its calls and streams ended, nothing if it is too busy to end and is killed.

        Raises AttackError if the attack is over by itself.
        """
        self.signal(signal.SIGTERM)
        try:
            code = self.wait(ENDING_SECONDS)
        except ProcessError:
            return {}
        if code:
            raise AttackError(str(self.error("has ended by itself")))
        return dict(json.loads([line for line in self.log.splitlines() if line.startswith("{")][-1]))


@contextmanager
def attacker(name: str, address: str, found: Found) -> Iterator[None]:
    """Have an attack going on. Raises AttackError if it does not begin, or has ended before its time."""
    process = Attacker(name, address)
    try:
        try:
            process.start(BEGINNING_SECONDS)
        except ProcessError as error:
            raise AttackError(f"the attack {name} did not begin: {error}") from None
        yield
        found.outcomes = process.end()
    finally:
        process.destroy()


async def runs(client: Client, seconds: float, trouble: list[str]) -> list[float]:
    """Time runs of three steps one after another for so many seconds, one at least."""
    taken: list[float] = []
    until = time.monotonic() + seconds
    while not taken or time.monotonic() < until:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                await run(client, "chain", count=STEPS)
        except TimeoutError:
            trouble.append(f"a run has not ended within {STUCK_SECONDS:g} s")
        except StepwireError as error:
            trouble.append(f"a run: {error}")
        taken.append(time.perf_counter() - begun)
    return taken


async def fan_out(client: Client, found: Found) -> None:
    """Time a fan-out of the victim."""
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(FAN_SECONDS):
            await run(client, "fan", count=WIDTH)
        found.fan.append(time.perf_counter() - begun)
    except TimeoutError:
        found.trouble.append(f"fan-{WIDTH} has not ended within {FAN_SECONDS:g} s")
    except StepwireError as error:
        found.trouble.append(f"fan-{WIDTH}: {error}")


async def measure(name: str, seconds: float, *, fan: bool) -> Found:
    """Measure one attack."""
    found = Found()
    with stage() as its:
        executor = its.executor
        async with its.client(TOKENS[VICTIM]) as client:
            while not await client.functions(app=VICTIM):  # noqa: ASYNC110 - the executor does not tell
                await asyncio.sleep(0.05)
            await runs(client, min(seconds, 2.0), found.trouble)
            found.idle = await runs(client, seconds, found.trouble)
            if fan:
                await fan_out(client, found)
            taken, before = Taken(executor.pid), resident_bytes(executor.pid)
            with attacker(name, executor.address, found):
                found.attacked = await runs(client, seconds, found.trouble)
                if fan:
                    await fan_out(client, found)
            after = await rested(executor.pid, before)
            found.memory = [before, max(after, before + taken.peak_bytes), after]
        found.trouble += faults(executor.log)
        for process in (*its.workers, executor):
            process.kill()  # an executor that still has a lot to do would be waited for
    return found


def faults(log: str) -> list[str]:
    """Give what an executor's log says of errors, and of the victim's worker."""
    words = ("a bug in Stepwire", "ERROR", "is back")
    raised = re.findall(r"^Traceback .*\n(?:\s.*\n)*(\S.*)", log, flags=re.MULTILINE)
    return [f"log: {each}" for each in (*raised, *(word for word in words for _ in range(log.count(word))))]


async def rested(pid: int, before: int) -> int:
    """Give the memory of the executor once it is what it was, or after the time that it may take."""
    until = time.monotonic() + REST_SECONDS
    while True:
        held = resident_bytes(pid)
        if held <= before * MOST_MEMORY or time.monotonic() > until:
            return held
        await asyncio.sleep(0.5)


def table(all_found: dict[str, Found]) -> str:
    """Write what was measured; what is above the aims is bold."""
    rows = []
    for name, found in all_found.items():
        times = [
            f"{command.percentile(each, 0.5) * 1e3:,.1f}, {command.percentile(each, 0.99) * 1e3:,.1f} ms"
            for each in (found.idle, found.attacked)
        ]
        memory = [f"{size / 1e6:,.0f}" for size in found.memory]
        if found.kept > MOST_MEMORY:
            memory[2] = f"**{memory[2]}**"
        ratio = f"{found.times:,.1f}"
        if found.times > MOST_TIMES and name not in REFERENCES:
            ratio = f"**{ratio}**"
        fan = [", ".join(f"{each:,.1f} s" for each in found.fan)] if any(f.fan for f in all_found.values()) else []
        rows.append([name, *times, ratio, f"{', '.join(memory)} MB", *fan, "; ".join(summary(found.trouble))])
    fan_head = [f"fan-{WIDTH} alone, beside it"] if any(found.fan for found in all_found.values()) else []
    head = ["beside", "p50, p99 alone", "p50, p99 beside it", "p99 over p99 alone"]
    memory_aim = f"at most {MOST_MEMORY - 1:.0%} more memory after"
    aims = f"\nThe aim: p99 at most {MOST_TIMES:g} times as long as alone, and {memory_aim}.\n"
    return command.table([*head, "memory before, at most, after", *fan_head, "trouble"], rows) + aims


def summary(trouble: Sequence[str]) -> list[str]:
    """Say each thing once, and how often."""
    counts = Counter(trouble)
    return [each if count == 1 else f"{each} ({count} times)" for each, count in counts.items()]


def as_data(all_found: dict[str, Found]) -> dict[str, Any]:
    """Give what is written as JSON."""
    return {"beside": {name: asdict(found) for name, found in all_found.items()}}


def known(file: Path | None) -> dict[str, Found]:
    """Read what was measured before: each attack is compared with its own run alone, so some may be measured again."""
    if file is None or not file.exists():
        return {}
    return {name: Found(**each) for name, each in json.loads(file.read_text())["beside"].items()}


def main() -> int:
    """Measure and print."""
    parser = command.parser("neighbours", __doc__, None)
    parser.add_argument(
        "--only",
        action="append",
        choices=ATTACKS,
        help="measure this one (may be repeated), and keep the others that --json has",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for how long each (default {SECONDS:g})")
    parser.add_argument("--fan", action="store_true", help=f"run a fan-out of {WIDTH:,} of the victim beside each")
    parser.add_argument("--readme", type=Path, help="write the table into this file too, between its marks")
    given = parser.parse_args()
    all_found = known(given.json) if given.only else {}
    missing = 0
    for name in given.only or ATTACKS:
        try:
            found = all_found[name] = asyncio.run(measure(name, given.seconds, fan=given.fan))
        except AttackError as error:
            command.progress(str(error))
            missing = 1
            continue
        memory = "/".join(f"{size / 1e6:.0f}" for size in found.memory)
        command.progress(f"{name}: {found.times:.1f} times, {memory} MB; its calls: {found.outcomes}")
        for each in summary(found.trouble):
            command.progress(f"  {each}")
        if given.json:
            given.json.write_text(json.dumps(as_data(all_found), indent=1) + "\n")
    all_found = {name: all_found[name] for name in ATTACKS if name in all_found}
    text = table(all_found)
    command.show(text, as_data(all_found), given.json)
    if given.readme:
        machine = command.machine()
        where = f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}"
        says = f"Measured on {datetime.now(UTC):%Y-%m-%d}: {where}.\n\n{text}".strip()
        command.write_between(given.readme, BEGIN, END, says)
    return missing


if __name__ == "__main__":
    sys.exit(main())
