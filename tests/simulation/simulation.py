"""Runs a case: boots the system, lets faults happen, heals, waits for every end, and says which promise was broken."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stepwire.replay import mover, restless
from stepwire_core import starts
from stepwire_core.causes import sentence
from stepwire_core.model import Limits, Run, RunState
from stepwire_core.why import explain
from stepwire_executor.store.memory import MemoryStore
from tests.histories.checker import check
from tests.histories.database import database_of
from tests.simulation import programs
from tests.simulation.cases import Case, Fault, RunCase, is_row, is_steady, program_of
from tests.simulation.disk import Disk
from tests.simulation.machine import Machine
from tests.simulation.network import TO_EXECUTOR, TO_WORKER, Conditions, Network, StreamCall
from tests.simulation.nodes import ClientNode, ExecutorNode, WallClock, WorkerNode
from tests.simulation.programs import ANY, FAILED, Program, app_for, outcome_of

MOST_CALLBACKS = 2_000
"""After so many a body that polls is found; no other program has as many without a step."""
LIMITS = Limits(max_lost_invocations=1_000)
PATIENCE = 3_000.0
"""Seconds after healing in which everything must end."""
RESTART_SECONDS = 0.3
SETTLING_SECONDS = 2.0
"""Seconds after the end in which the last answers arrive."""
NEVER = ("NonDeterminismError", "WorkerLostError", "FunctionNotFoundError", "InvalidStepError", "JournalTooLargeError")
"""Failures that no function here brings about."""
HEALING_SECONDS = 0.5
"""Seconds from the last fault until everything heals."""


@dataclass(slots=True)
class Report:
    """What a case has shown. `broken` is empty if every promise was kept."""

    case: Case
    broken: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    """What the network and the executor did, by name."""
    runs: int = 0
    steps: int = 0
    instants: dict[str, int] = field(default_factory=dict)
    fingerprint: int = 0
    """Of all that was sent: the same for the same case, always."""


class Simulation:
    """One case, as it runs."""

    def __init__(self, case: Case, kill_at: Mapping[str, int] = {}) -> None:
        self.case = case
        self.kill_at = kill_at
        """By the name of a process ("executor-1", "worker-0-1"): the instant at which it is to die."""
        self.dice = random.Random(case.seed)
        random.seed(case.seed)
        steady = all(is_steady(program) for program in map(program_of, case.runs) if program is not None)
        self.page_callbacks = 3 if case.seed % 2 and steady else mover.PAGE_CALLBACKS
        self.machine = Machine(self.dice)
        self.network = Network(Conditions(silent_death=case.silent_death, lag=case.lag))
        self.disk = Disk(MemoryStore())
        self.clock = WallClock(self.machine)
        self.records: list[dict[str, Any]] = []
        self.client = ClientNode(self.machine, self.network, self.records)
        self.executor: ExecutorNode | None = None
        self.workers: list[WorkerNode | None] = [None] * case.workers
        self.lives = [0] * (case.workers + 1)
        self.faults: dict[str, int] = {}
        self.instants: dict[str, int] = {}
        self.acknowledged: dict[str, tuple[str, ...]] = {}
        self.unsent = len(case.runs)
        self.waited_for: set[str] = set()
        """Runs whose ends the client has not heard of."""
        self.app = app_for(run.event for run in case.runs)
        self.broken: list[str] = []
        self.healed = False

    def run(self) -> Report:
        """Run it to its end."""
        before = mover.PAGE_CALLBACKS, restless.MOST_CALLBACKS, starts.MOST_NEW_RUNS
        mover.PAGE_CALLBACKS, restless.MOST_CALLBACKS = self.page_callbacks, MOST_CALLBACKS
        if self.case.most_queued < 1_000:
            starts.MOST_NEW_RUNS = 1
        programs.entered.clear()
        try:
            return self._run()
        finally:
            mover.PAGE_CALLBACKS, restless.MOST_CALLBACKS, starts.MOST_NEW_RUNS = before

    def _run(self) -> Report:
        machine = self.machine
        self._start_executor()
        for at in range(self.case.workers):
            self._start_worker(at)
        if not machine.run(lambda: self.disk.store._tables.functions != {}, machine.now + 100):
            machine.errors.append("no worker has connected in 100 s")
        for number, run in enumerate(self.case.runs):
            machine.after(run.at, lambda number=number, run=run: self._send(number, run))
        for fault in self.case.faults:
            machine.after(fault.at, lambda fault=fault: self._strike(fault))
        machine.after(max((fault.at for fault in self.case.faults), default=0.0) + HEALING_SECONDS, self._heal)
        ended = machine.run(self._over, machine.now + PATIENCE)
        self._heal()
        machine.run(lambda: False, machine.now + SETTLING_SECONDS)
        self._judge(ended)
        self._bury()
        return self._report()

    # Processes.

    def _start_executor(self) -> None:
        self.lives[-1] += 1
        limits = replace(LIMITS, max_queued_runs=self.case.most_queued)
        node = ExecutorNode(self.machine, self.network, self.disk, self.clock, limits, self.lives[-1], self.records)
        self._watch(node.process.name, node)
        self.executor = node

        def restart() -> None:
            self.instants[node.process.name] = node.process.instants
            self.network.forget(node.process)
            if self.executor is node:
                self.executor = None
                self.machine.after(self._pause(), self._start_executor)

        node.process.on_death = restart

    def _start_worker(self, at: int) -> None:
        self.lives[at] += 1
        case = self.case
        name = f"worker-{at}-{self.lives[at]}"
        node = WorkerNode(self.machine, self.network, self.app, name, case.slots, case.most_invocations, self.records)
        self._watch(name, node)
        self.workers[at] = node

        def restart() -> None:
            self.instants[name] = node.process.instants
            self.network.forget(node.process)
            if self.workers[at] is node:
                self.workers[at] = None
                self.machine.after(self._pause(), lambda: self._start_worker(at))

        node.process.on_death = restart

    def _watch(self, name: str, node: ExecutorNode | WorkerNode) -> None:
        node.process.kill_at = self.kill_at.get(name, 0)

    def _pause(self) -> float:
        return self.dice.uniform(0, RESTART_SECONDS)

    # Work.

    def _send(self, number: int, run: RunCase) -> None:
        async def send() -> None:
            for _ in range(1 + run.twice):
                receipt = await self.client.client.send(run.event, run.data, id=f"event-{number}")
                before = self.acknowledged.setdefault(receipt.event_id, tuple(receipt.run_ids))
                if before != tuple(receipt.run_ids):
                    self.broken.append(f"I1: {receipt.event_id} was answered with {before} and {receipt.run_ids}")
            self.unsent -= 1
            for run_id in before:
                self.waited_for.add(run_id)
                self.client.do(self._wait(run_id))

        self.client.do(send())

    async def _wait(self, run_id: str) -> None:
        run = await self.client.client.wait(run_id)
        self.waited_for.discard(run_id)
        stored = self.disk.store._tables.runs[run_id]
        if run.state.name != stored.state.name:
            self.broken.append(f"I2: run {run_id} was told to be {run.state.name}, but is {stored.state.name}")

    def _over(self) -> bool:
        if self.machine.errors:
            return True
        return not self.unsent and not self.waited_for and not self.disk.store._tables.unfinished

    # Faults.

    def _strike(self, fault: Fault) -> None:
        if self.healed:
            return
        happened = getattr(self, "_" + fault.kind.replace(" ", "_"))(fault)
        if happened:
            self.faults[fault.kind] = self.faults.get(fault.kind, 0) + 1

    def _worker(self, fault: Fault) -> WorkerNode | None:
        return self.workers[fault.who % len(self.workers)]

    def _kill_worker(self, fault: Fault) -> bool:
        node = self._worker(fault)
        if node is not None:
            node.process.kill()
        return node is not None

    def _kill_executor(self, fault: Fault) -> bool:
        node = self.executor
        if node is not None:
            node.process.kill()
        return node is not None

    def _kill_at_instant(self, fault: Fault) -> bool:
        node = self.executor if fault.who % 2 else self.workers[fault.who // 2 % len(self.workers)]
        if node is not None:
            node.process.kill_at = node.process.instants + 1 + fault.who // 8
        return node is not None

    def _drain_worker(self, fault: Fault) -> bool:
        node = self._worker(fault)
        if node is not None:
            node.stop()
            if fault.who % 4 < 2:  # while it drains its stream is cut
                self.machine.after(fault.seconds / 20, lambda: self._cut_off(node))
        return node is not None

    def _cut_off(self, node: WorkerNode) -> None:
        for call in [call for call in self.network.calls if call.worker is node.process]:
            self.faults["cut in a drain"] = self.faults.get("cut in a drain", 0) + 1
            call.cut()

    def _stop_executor(self, fault: Fault) -> bool:
        node = self.executor
        if node is not None:
            node.stop()
        return node is not None

    def _freeze_worker(self, fault: Fault) -> bool:
        return self._freeze(self._worker(fault), fault.seconds)

    def _freeze_executor(self, fault: Fault) -> bool:
        return self._freeze(self.executor, fault.seconds)

    def _freeze(self, node: WorkerNode | ExecutorNode | None, seconds: float) -> bool:
        if node is not None:
            node.process.freeze()
            self.machine.after(seconds, node.process.thaw)
        return node is not None

    def _cut(self, fault: Fault) -> bool:
        return self._cut_one_of(self.network.calls, fault)

    def _stall(self, fault: Fault) -> bool:
        return self._stall_one_of(self.network.calls, fault)

    def _cut_client(self, fault: Fault) -> bool:
        return self._cut_one_of(self.network.waits, fault)

    def _stall_client(self, fault: Fault) -> bool:
        return self._stall_one_of(self.network.waits, fault)

    def _cut_one_of(self, calls: Sequence[StreamCall], fault: Fault) -> bool:
        if calls:
            calls[fault.who % len(calls)].cut()
        return bool(calls)

    def _stall_one_of(self, calls: Sequence[StreamCall], fault: Fault) -> bool:
        if calls:
            call = calls[fault.who % len(calls)]
            for direction in ([TO_EXECUTOR], [TO_WORKER], [TO_EXECUTOR, TO_WORKER])[int(fault.seconds) % 3]:
                call.stall(direction, fault.seconds * 2)
        return bool(calls)

    def _commit_fails(self, fault: Fault) -> bool:
        self.disk.fail_commits += 1
        return True

    def _disk_full(self, fault: Fault) -> bool:
        self.disk.down_until = self.machine.now + min(fault.seconds, 3.0)
        return True

    def _disk_slow(self, fault: Fault) -> bool:
        self.disk.slow_until = self.machine.now + fault.seconds
        return True

    def _clock_jumps(self, fault: Fault) -> bool:
        self.clock.offset = self.clock.right + (500.0 if fault.who % 2 else -500.0)
        return True

    def _cancel_run(self, fault: Fault) -> bool:
        ids = [run_id for runs in self.acknowledged.values() for run_id in runs]
        if ids:
            run_id = ids[fault.who % len(ids)]
            self.client.do(self.client.client.cancel(run_id, "the simulation wants it"))
        return bool(ids)

    def _heard_twice(self, fault: Fault) -> bool:
        self.network.conditions.twice = 0.3
        return True

    def _slow_network(self, fault: Fault) -> bool:
        self.network.conditions.most_delay = 0.5
        self.machine.after(fault.seconds, lambda: setattr(self.network.conditions, "most_delay", 0.002))
        return True

    def _heal(self) -> None:
        self.healed = True
        self.disk.fail_commits = 0
        self.disk.down_until = self.disk.slow_until = 0.0
        self.clock.offset = self.clock.right
        self.network.conditions = Conditions()
        for node in (self.executor, *self.workers):
            if node is not None:
                node.process.kill_at = 0

    # The end.

    def _judge(self, ended: bool) -> None:
        self.broken += self.machine.errors
        store = self.disk.store._tables
        if not ended and not self.broken:
            waiting = ", ".join(f"{run.function_id} {run.id}" for run in store.unfinished.values())
            others = f"none, but nobody is told of the ends of {self.waited_for}" if self.waited_for else ""
            others = others or "none, but events are not acknowledged"
            self.broken.append(f"I7: these runs do not end: {waiting or others}")
            self.broken += [f"{run_id} waits for: {text}" for run_id, text in self._why()]
        for run in store.runs.values():
            self._judge_run(run)
        for node in self.workers:
            if ended and node is not None and self._hears(node) and node.worker._outbox._results:
                self.broken.append(f"I4: {node.process.name} keeps results that nobody answers")
        self.broken += map(str, check(self.records, database_of(self.disk.store), finished=ended, alike=True))

    def _hears(self, node: WorkerNode) -> bool:
        """Whether a worker has been able to hear the executor for a while."""
        calm = self.machine.now - SETTLING_SECONDS
        calls = [call for call in self.network.calls if call.worker is node.process]
        return bool(calls) and not node.process.frozen and all(call.calm_since < calm for call in calls)

    def _why(self) -> Iterator[tuple[str, str]]:
        """Say what unfinished runs wait for."""
        if self.executor is None:
            return
        state, now = self.executor.engine.state, self.clock.now()
        for run in self.disk.store._tables.unfinished.values():
            loaded = state.runs.get(run.id)
            for cause in explain(state, loaded.run if loaded else run, now):
                yield run.id, sentence(cause, now)

    def _judge_run(self, run: Run) -> None:
        failure = run.failure
        if run.state is RunState.FAILED and failure is not None and failure.type in NEVER:
            self.broken.append(f"I6: run {run.id} of {run.function_id} failed: {failure.type}: {failure.message}")
        number = run.event.id.rpartition("-")[2]
        if not run.event.id.startswith("event-") or run.parent_run_id or not number.isdigit():
            return
        program = program_of(self.case.runs[int(number)])
        if program is None or run.state is RunState.CANCELLED or not run.state.ended:
            return
        self._judge_entries(run, program)
        wanted = outcome_of(program)
        if wanted == ANY:
            return
        if wanted == FAILED:
            if run.state is not RunState.FAILED:
                self.broken.append(f"run {run.id} should have failed, but gave {run.output!r}")
            return
        got = self.client.client._ask.values.decode(payload(run.output or b""), None, "output")
        if run.state is not RunState.SUCCEEDED or got != wanted:
            self.broken.append(f"I2: run {run.id} gave {run.state.name} {got!r} {failure}, not {wanted!r}")

    def _judge_entries(self, run: Run, program: Program) -> None:
        """A body that nothing disturbs is entered once in each worker for each of its tries."""
        most, undisturbed = run.attempt * self.case.workers, not self.case.faults and self.case.most_invocations > 100
        if is_row(program) and undisturbed and programs.entered[run.id] > most:
            self.broken.append(f"I6: run {run.id} was entered {programs.entered[run.id]} times, not {most}")

    def _bury(self) -> None:
        for node in (self.executor, *self.workers):
            if node is not None:
                self.instants[node.process.name] = node.process.instants
                node.process.on_death = lambda: None
                node.process.kill()
                node.process._bury()
        self.client.process.kill()
        self.client.process._bury()

    def _report(self) -> Report:
        store = self.disk.store._tables
        report = Report(self.case, self.broken, dict(self.faults), self.network.counts)
        report.runs = len(store.runs)
        report.steps = sum(len(steps) for steps in store.steps.values())
        report.instants = dict(self.instants)
        report.fingerprint = self.machine.fingerprint
        return report


def payload(data: bytes):
    """Read a stored payload."""
    from stepwire import wire
    from stepwire_proto.v1 import value_pb2

    return wire.payload(value_pb2.Payload.FromString(data))


def simulate(case: Case, kill_at: Mapping[str, int] = {}) -> Report:
    """Run a case."""
    return Simulation(case, kill_at).run()
