"""Messages in any order: whatever one worker says, a well-behaved one beside it sees nothing of it.

A scripted worker sends messages of a valid form, with ids and fences that it was given, that others were given, that
are long gone and that never were. The executor is a real process with its SQLite store. The well-behaved worker is
checked after every example: each of its runs gives what it should, with every step begun once, by it alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import stepwire
from stepwire.records import RunState, StepState
from stepwire.testing import ExecutorProcess, WorkerThread
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2
from tests.executor.peer import Peer
from tests.executor.test_bad_input import closure, function, json_event, send

CLEAR = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""How a stream may be ended by what was said on it, or by what was not: on a slow machine it may be silent too long."""

good = stepwire.App("good")


async def triple(n: int) -> int:
    return n * 3


@good.function("good", trigger="good/go")
async def good_function(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    first = await step.run("first", triple, 1)
    pairs = await step.map("each", triple, range(first))
    return [first, *pairs]


class World:
    """What all examples share: the executor, and the worker that behaves well."""

    executor: ClassVar[ExecutorProcess]
    worker: ClassVar[WorkerThread]
    client: ClassVar[stepwire.SyncClient]
    channel: ClassVar[grpc.Channel]
    examples = 0
    ended: ClassVar[set[str]] = set()
    """The codes that streams ended with, over all examples."""
    answered: ClassVar[set[str]] = set()
    """The kinds of messages that came back."""


@pytest.fixture(scope="module")
def world() -> Iterator[type[World]]:
    limits = {"heartbeat_interval": 2, "session_grace": 0.3, "max_steps": 50, "max_lost_invocations": 3}
    with (
        ExecutorProcess(settings=limits) as World.executor,
        WorkerThread(good, World.executor.address, slots=4) as World.worker,
        grpc.insecure_channel(World.executor.address) as World.channel,
        stepwire.SyncClient(World.executor.address) as World.client,
    ):
        yield World


attempts = st.integers(0, 7)
runs = st.integers(0, 7)
step_ids = st.sampled_from(["a", "b", "c", "first", "each", ""])
fences = st.sampled_from(["given", "given", "given", "zero", "one less", "one more", "future", "largest"])
failures = st.builds(
    value_pb2.Failure, type=st.sampled_from(["", "E"]), message=st.text(max_size=5), retryable=st.booleans()
)
outputs = st.builds(value_pb2.Payload, data=st.binary(max_size=20), encoding=st.sampled_from(["json", "binary", ""]))
durations = st.builds(Duration, seconds=st.sampled_from([0, 1, -1, 1 << 40]), nanos=st.sampled_from([0, 5, -5]))
targets = st.sampled_from(
    [
        {"closure": opcode_pb2.ClosureTarget()},
        {"task": opcode_pb2.TaskTarget(name="bad-task")},
        {"sleep": opcode_pb2.SleepTarget(delay=Duration(nanos=1_000_000))},
        {"sleep": opcode_pb2.SleepTarget(delay=Duration(seconds=-1))},
        {"invoke": opcode_pb2.InvokeTarget(function_id="bad")},
        {"invoke": opcode_pb2.InvokeTarget(app="good", function_id="nowhere")},
        {"send_events": opcode_pb2.SendEventsTarget(events=[json_event("nobody/cares")])},
        {"wait_for_event": opcode_pb2.WaitForEventTarget(event_name="never", timeout=Duration(seconds=1))},
        {},
    ]
)


class Scripted(RuleBasedStateMachine):
    """One worker that says anything, beside one that behaves."""

    world: type[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.examples += 1
        self.instance = f"scripted-{self.world.examples}"
        self.session = ""
        self.greeted = False
        self.runs: list[tuple[str, int]] = [("unknown", 1)]
        self.attempts: list[value_pb2.Attempt] = [value_pb2.Attempt(run_id="unknown", key=value_pb2.StepKey(id="a"))]
        self.peer = Peer(self.world.executor.address)

    @initialize()
    def begin(self) -> None:
        """The good worker is at work while the other talks; its runs' ids are known to it, as ids are no secrets."""
        self.good = [self.world.client.send("good/go").run_ids[0] for _ in range(2)]
        self.runs += [(run_id, 1) for run_id in self.good]
        for run_id in self.good:
            self.attempts.append(value_pb2.Attempt(run_id=run_id, key=value_pb2.StepKey(id="first"), fence=1))
        self.greet()
        self.find_closures(0, ["a", "b"])
        self.report(0)
        self.find_closures(1, ["a"])
        self.say(run_finished=opcode_pb2.RunFinished(**self.run(1, "given")))
        self.hear()

    # What it says.

    def fence(self, given: int, kind: str) -> int:
        newest = max([given, *(attempt.fence for attempt in self.attempts)])
        return {
            "given": given,
            "zero": 0,
            "one less": max(0, given - 1),
            "one more": given + 1,
            "future": newest + 1_000_000,
            "largest": (1 << 64) - 1,
        }[kind]

    def run(self, number: int, kind: str) -> dict[str, Any]:
        run_id, fence = self.runs[-1 - number % len(self.runs)]
        return {"run_id": run_id, "invocation": self.fence(fence, kind)}

    def attempt(self, number: int, kind: str) -> value_pb2.Attempt:
        chosen = self.attempts[-1 - number % len(self.attempts)]
        return value_pb2.Attempt(run_id=chosen.run_id, key=chosen.key, fence=self.fence(chosen.fence, kind))

    def greet(self, slots: int = 2, **fields: Any) -> None:
        """Serve a function of its own, and get some runs of it."""
        self.greeted = True
        self.peer.hello(
            instance_id=self.instance,
            app="bad",
            functions=[function("bad", "bad/go")],
            tasks=["bad-task"],
            slots=slots,
            capabilities=[worker_pb2.CAPABILITY_EAGER],
            **fields,
        )
        send(self.world.channel, json_event("bad/go"), json_event("bad/go"))
        if self.await_("welcome"):
            self.hear()

    # What the executor does depends on time, so no rule has a precondition: hypothesis must be free to repeat itself.

    @rule(slots=st.integers(1, 3), resume=st.booleans(), held=st.lists(attempts, max_size=3))
    def hello(self, slots: int, resume: bool, held: list[int]) -> None:
        if self.greeted:
            return
        in_hand = [self.attempt(number, "given") for number in held]
        self.greet(slots, resume_session=self.session if resume else "unknown", attempts_in_hand=in_hand)

    @rule(resume=st.booleans())
    def hello_again(self, resume: bool) -> None:
        if self.greeted and not resume:
            self.greet()
        elif not self.greeted:
            self.greet(resume_session=self.session)

    @rule(run=runs, ids=st.lists(step_ids.filter(bool), min_size=1, max_size=3))
    def find_as_agreed(self, run: int, ids: list[str]) -> None:
        self.find_closures(run, ids)

    def find_closures(self, run: int, ids: list[str]) -> None:
        """Find closures in a run that it was given, and let them be started."""
        steps = [closure(step_id) for step_id in ids]
        self.say(steps_found=opcode_pb2.StepsFound(**self.run(run, "given"), steps=steps, quiescent=True))
        self.hear()

    @rule(attempt=attempts, again=st.booleans())
    def report_as_agreed(self, attempt: int, again: bool) -> None:
        """Report an attempt that it was given, perhaps twice."""
        self.report(attempt, 1 + again)

    def report(self, attempt: int, times: int = 1) -> None:
        """Report that an attempt has succeeded."""
        output = value_pb2.Payload(data=b"1", encoding="json")
        for _ in range(times):
            self.peer.send(step_run=opcode_pb2.StepRun(attempt=self.attempt(attempt, "given"), output=output))
        self.hear()

    @rule(run=runs, fence=fences, sequence=st.sampled_from([0, 0, 1, 2, 1 << 63]), quiescent=st.booleans(),
          steps=st.lists(st.tuples(step_ids, targets, st.one_of(st.none(), durations)), max_size=4),
          eager=fences)  # fmt: skip
    def steps_found(
        self, run: int, fence: str, sequence: int, quiescent: bool, steps: list[tuple[str, Any, Any]], eager: str
    ) -> None:
        planned = []
        for step_id, target, timeout in steps:
            step = closure(step_id)
            step.ClearField("closure")
            step.MergeFrom(opcode_pb2.StepPlanned(**target))
            if timeout is not None:
                step.step_timeout.CopyFrom(timeout)
            if "closure" in target and eager == "given":
                step.eager_fence = self.attempts[-1].fence
            planned.append(step)
        self.say(
            steps_found=opcode_pb2.StepsFound(
                **self.run(run, fence), sequence=sequence, steps=planned, quiescent=quiescent
            )
        )

    @rule(attempt=attempts, fence=fences, output=outputs, elapsed=durations)
    def step_run(self, attempt: int, fence: str, output: value_pb2.Payload, elapsed: Duration) -> None:
        self.say(step_run=opcode_pb2.StepRun(attempt=self.attempt(attempt, fence), output=output, elapsed=elapsed))

    @rule(attempt=attempts, fence=fences, failure=failures)
    def step_failed(self, attempt: int, fence: str, failure: value_pb2.Failure) -> None:
        self.say(step_failed=opcode_pb2.StepFailed(attempt=self.attempt(attempt, fence), failure=failure))

    @rule(run=runs, fence=fences, keys=st.lists(step_ids, max_size=2))
    def step_cancelled(self, run: int, fence: str, keys: list[str]) -> None:
        named = [value_pb2.StepKey(id=key) for key in keys]
        self.say(step_cancelled=opcode_pb2.StepCancelled(**self.run(run, fence), keys=named))

    @rule(run=runs, fence=fences, output=outputs)
    def run_finished(self, run: int, fence: str, output: value_pb2.Payload) -> None:
        self.say(run_finished=opcode_pb2.RunFinished(**self.run(run, fence), output=output))

    @rule(run=runs, fence=fences, failure=failures)
    def run_failed(self, run: int, fence: str, failure: value_pb2.Failure) -> None:
        self.say(run_failed=opcode_pb2.RunFailed(**self.run(run, fence), failure=failure))

    @rule(run=runs, fence=fences, needed=st.booleans())
    def dropped(self, run: int, fence: str, needed: bool) -> None:
        names = self.run(run, fence)
        if needed:
            self.say(need_journal=worker_pb2.NeedJournal(**names))
        else:
            self.say(evicted=worker_pb2.Evicted(**names))

    @rule(count=st.integers(0, 1 << 31), lag=durations)
    def heartbeat(self, count: int, lag: Duration) -> None:
        self.say(heartbeat=worker_pb2.Heartbeat(attempts_in_hand=count, live_invocations=count, loop_lag=lag))

    @rule(returned=st.lists(st.tuples(attempts, fences), max_size=2))
    def draining(self, returned: list[tuple[int, str]]) -> None:
        given = [self.attempt(number, fence) for number, fence in returned]
        self.say(draining=worker_pb2.Draining(returned_attempts=given))

    @rule(number=st.integers(0, 2), data=st.binary(max_size=10), last=st.booleans())
    def fragment(self, number: int, data: bytes, last: bool) -> None:
        self.say(fragment=worker_pb2.Fragment(id=number, data=data, last=last))

    @rule(data=st.binary(max_size=30))
    def garbage(self, data: bytes) -> None:
        self.peer.frame(data)
        self.listen(0.01)

    @rule()
    def wait(self) -> None:
        """Give timers and answers time to come."""
        self.listen(0.05)

    @rule(silent=st.booleans())
    def reconnect(self, silent: bool) -> None:
        """End the stream and begin another, as itself."""
        self.judge()
        self.begin_anew()
        if not silent:
            self.greet(resume_session=self.session)

    # What it hears.

    def say(self, **message: Any) -> None:
        self.peer.send(**message)
        self.listen(0.005)

    def hear(self) -> None:
        """Wait for what follows from what was said, however slow the machine is: a heartbeat is answered after it."""
        self.peer.send(heartbeat=worker_pb2.Heartbeat())
        self.await_("recorded")

    def await_(self, kind: str) -> bool:
        """Listen for a message; False if the stream ends without one."""
        until, peer = time.monotonic() + 5.0, self.peer
        while self.peer is peer and time.monotonic() < until:
            if kind in self.listen(0.02):
                return True
        return False

    def listen(self, seconds: float) -> set[str]:
        """Take what has come, and remember what it was given; gives the kinds of it."""
        kinds = set()
        while (message := self.peer.any(seconds)) is not None:
            seconds = 0.005
            kind = message.WhichOneof("kind")
            kinds.add(kind)
            self.world.answered.add(kind)
            if kind == "welcome":
                self.session = message.welcome.session_id
            elif kind == "invoke":
                self.runs.append((message.invoke.run_id, message.invoke.invocation))
                if message.invoke.eager_fence:
                    self.attempts.append(self.eager(message.invoke))
            elif kind == "run_steps":
                self.attempts += [start.attempt for start in message.run_steps.attempts]
        if self.peer.ended.is_set():
            self.judge()
            greeted = self.greeted
            self.begin_anew()
            if greeted:  # what is said before Hello has soon been seen
                self.greet(resume_session=self.session)
        return kinds

    def eager(self, invoke: worker_pb2.Invoke) -> value_pb2.Attempt:
        return value_pb2.Attempt(run_id=invoke.run_id, key=value_pb2.StepKey(id="a"), fence=invoke.eager_fence)

    def begin_anew(self) -> None:
        self.peer.close()
        self.peer = Peer(self.world.executor.address)
        self.greeted = False

    def judge(self) -> None:
        """A stream that was ended says why, clearly."""
        if self.peer.ended.is_set():
            code, details = self.peer.status()
            self.world.ended.add(code.name)
            assert code in CLEAR, f"{code}: {details}"
            assert len(details) > 10
            assert "Traceback" not in details
            assert "Exception" not in details

    def teardown(self) -> None:
        """Nothing of it has reached the good worker, nor the executor."""
        self.peer.close()
        if not hasattr(self, "good"):
            return
        client = self.world.client
        for run_id in self.good:
            assert client.result(run_id, 20) == [3, 0, 3, 6]
            run = client.get(run_id, steps=True, outputs=True)
            assert (run.state, run.attempt, run.lost_invocations) == (RunState.SUCCEEDED, 1, 0)
            assert [step.key.id for step in run.steps or ()] == ["first", "each", "each", "each"]
            for step in run.steps or ():
                assert (step.state, step.attempt, step.failed_attempts) == (StepState.SUCCEEDED, 1, ())
                assert step.worker == self.world.worker.instance_id
        log = self.world.executor.log
        for word in ("a bug in Stepwire", "Traceback", "never retrieved", "the store failed"):
            assert word not in log, log[-3000:]


def test_whatever_one_worker_says_another_sees_nothing_of_it(world: type[World]) -> None:
    Scripted.world = world
    run_state_machine_as_test(
        Scripted,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        ),
    )
    worker = next(each for each in world.client.workers() if each.instance_id == world.worker.instance_id)
    assert worker.state == "connected"
    assert "lost" not in {each.state for each in world.client.workers() if each.app == "good"}
    assert {"INVALID_ARGUMENT", "FAILED_PRECONDITION"} <= world.ended, "the examples have lost their bite"
    assert {"welcome", "invoke", "resume", "run_steps", "recorded", "cancel"} <= world.answered
    assert world.executor.running
