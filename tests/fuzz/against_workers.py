"""Real workers, in Python, TypeScript and Go, at an executor that says anything."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from stepwire.testing.process import ManagedProcess
from tests.conformance.kit import PYTHON_WORKER
from tests.fuzz.attack import Attack
from tests.fuzz.executor import FuzzingExecutor
from tests.fuzz.watch import ALLOCATOR, SLACK_KIB, SLACK_OF_NODE_KIB, Watched, is_of_user_code
from tests.polyglot import typescript
from tests.polyglot.go_worker import run_go

LANGUAGES = ("python", "typescript", "go")
LOOK_SECONDS = 1.0
ENDING_SECONDS = 120.0
"""How long the last honest conversation may take."""


def command(language: str, folder: Path) -> list[str]:
    """Give the command of the conformance app's worker in a language; compiles it if that is needed."""
    if language == "typescript":
        return typescript.command("tests/apps/conformance")
    if language == "go":
        program = folder / "go_worker"
        run_go("build", "-o", str(program), "./conformance")
        return [str(program)]
    return PYTHON_WORKER


class FuzzedWorker(ManagedProcess):
    """A worker under attack; it counts as started when it has said Hello."""

    def __init__(self, language: str, words: Sequence[str], executor: FuzzingExecutor, folder: Path) -> None:
        variables = {"STEPWIRE_EXECUTOR": executor.address, "STEPWIRE_CONFORMANCE": "1"}
        super().__init__(
            f"{language} worker", folder, {**variables, **ALLOCATOR, "PYTHONPATH": ":".join(filter(None, sys.path))}
        )
        self._words = list(words)
        self._at = executor

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return self._words

    def wait_ready(self, timeout: float) -> None:
        """Return once it has said Hello."""
        self.wait_until(lambda: self._at.hellos > 0, "its Hello", timeout)


async def against_worker(
    language: str, folder: Path, attack: Attack, show: Callable[[], None] = lambda: None
) -> Watched:
    """Attack a worker until the attack is over; then it must work as ever, and end when it is told to."""
    words = await asyncio.to_thread(command, language, folder)
    async with FuzzingExecutor(attack, language) as executor:
        worker = FuzzedWorker(language, words, executor, folder)
        try:
            await asyncio.to_thread(worker.start, 60.0)
            slack = SLACK_OF_NODE_KIB if language == "typescript" else SLACK_KIB
            watched = Watched(worker, is_of_user_code, slack)
            watched.begin()
            attack.begin()
            while not attack.over:
                await asyncio.sleep(LOOK_SECONDS)
                attack.wrong += watched.faults()
                show()
            await _end(attack, executor, watched)
        finally:
            await asyncio.to_thread(worker.destroy)
    return watched


async def _end(attack: Attack, executor: FuzzingExecutor, watched: Watched) -> None:
    if attack.wrong:
        return
    try:
        async with asyncio.timeout(ENDING_SECONDS):
            await executor.ended.wait()
    except TimeoutError:
        attack.found(str(watched.process.error("did no honest work after the attack")))
        return
    attack.wrong += await asyncio.to_thread(watched.come_back)
    code = await asyncio.to_thread(watched.process.stop)
    if code:
        attack.found(str(watched.process.error(f"was told to stop, and ended with exit code {code}")))
    attack.wrong += watched.faults_in_log()
