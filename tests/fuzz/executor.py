"""An executor that says anything to a worker of the conformance app, and at times behaves: then the worker must too.

It knows what that app does (docs/conformance.md): the function `chain` gives 3 in three steps, the task `echo` gives
its input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc

from stepwire.frames import FrameError, Joiner, worker_messages
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2
from tests.fuzz.alive import Alive
from tests.fuzz.attack import Attack
from tests.fuzz.frames import cut, frame_of
from tests.fuzz.grammar import Grammar

ANSWER_SECONDS = 40.0
"""How long an honest executor waits for a worker to come, and for each of its answers."""
MESSAGES_A_STREAM = 800
LIVELY_SECONDS = 1.1
"""How long a stream lives at least: the backoff of a worker begins anew after a stream of a second."""
LONGEST_AWAY_NANOS = 100_000_000
"""Of a GoAway: a worker stays away for as long as it is told, up to five minutes."""
SAID_AT_ONCE = 20
ENDS = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.OUT_OF_RANGE,
]
"""Codes after which a worker connects again; after the others it has to end."""
STUCK = {"never-yields", "blocking-body", "blocker", "slow"}
"""Functions that are not asked for: they block their worker because that is what they are for."""
CHAIN = {"a": 1, "b": 2, "c": 3}
"""The results of the steps of the function `chain`, whose output is the last one."""
RUNS = 8


class GoneError(Exception):
    """The worker has ended its stream."""


def message(**kind: Any) -> worker_pb2.ExecutorMessage:
    """Make a message of an executor."""
    return worker_pb2.ExecutorMessage(**kind)


class Stream:
    """One stream of the worker: what it says comes in order from `next`, what is queued in `out` goes to it."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[worker_pb2.WorkerMessage | None] = asyncio.Queue()
        self.out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.end = grpc.StatusCode.OK
        self.broken = ""
        self.listener: asyncio.Task[None] | None = None
        """Takes what the worker says while it is fuzzed."""

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Take what the worker says until it ends."""
        joiner = Joiner()
        try:
            async for data in requests:
                for each in worker_messages(data, joiner):
                    self.said.put_nowait(each)
        except FrameError as error:
            self.broken = f"the worker has sent a bad frame: {error}"
        except grpc.RpcError:
            pass
        self.said.put_nowait(None)

    async def next(self, *kinds: str) -> Any:
        """Give the next message of one of some kinds; signs of life and reports are answered.

        Raises GoneError, and TimeoutError.
        """
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                said = await self.said.get()
                if said is None:
                    raise GoneError
                kind = said.WhichOneof("kind")
                if kind == "heartbeat":
                    self.send(message(recorded=worker_pb2.Recorded()))
                elif kind in ("step_run", "step_failed"):  # what no Recorded names the worker keeps
                    self.send(message(recorded=worker_pb2.Recorded(attempts=[getattr(said, kind).attempt])))
                if kind in kinds:
                    return getattr(said, str(kind))

    def send(self, *messages: worker_pb2.ExecutorMessage) -> None:
        """Send messages in one frame."""
        self.out.put_nowait(worker_pb2.ExecutorFrame(messages=messages).SerializeToString())

    def close(self, code: grpc.StatusCode) -> None:
        """End the stream with a status once all is sent."""
        self.end = code
        self.out.put_nowait(None)


class FuzzingExecutor:
    """Serves Connect on a free port. It behaves at the begin of every second stream, and of the last one."""

    def __init__(self, attack: Attack, name: str) -> None:
        self.attack = attack
        self.name = name
        self.address = ""
        self.hellos = 0
        self.ended = asyncio.Event()
        """The attack is over, and the worker has shown once more that it works."""
        self._dice = attack.dice("executor", name)
        self.alive = Alive()
        self._grammar = Grammar(self._dice, self.alive)
        self._functions: list[str] = []
        self._tasks: list[str] = []
        self._invocations: dict[str, int] = {}
        """Of the runs that the worker may hold."""
        self._found: deque[tuple[str, int, value_pb2.StepKey]] = deque(maxlen=64)
        """Steps that it has found: run, invocation, key."""
        self._fence = 0
        self._fragments = 0
        self._turn = 0
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        method: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        handler = grpc.method_handlers_generic_handler("stepwire.v1.WorkerService", {"Connect": method})
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def _connect(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream = Stream()
        reader = asyncio.create_task(stream.read(requests))
        talker = asyncio.create_task(self._talk(stream))
        try:
            while (data := await stream.out.get()) is not None:
                await context.write(data)
            if stream.end is not grpc.StatusCode.OK:
                await context.abort(stream.end, "as the fuzz wants it")
        finally:
            for task in (reader, talker, stream.listener):
                if task is not None:
                    task.cancel()

    async def _talk(self, stream: Stream) -> None:
        self._turn += 1
        is_honest = self._turn % 2 == 0 or self.attack.over
        try:
            hello = await stream.next("hello")
            self.hellos += 1
            self._functions = [each.id for each in hello.functions if each.id not in STUCK]
            self._tasks = list(hello.tasks)
            if is_honest:
                stream.send(message(welcome=welcome()))
                await self._behave(stream)
        except GoneError:
            if is_honest and not self.ended.is_set():
                self.attack.found(f"the {self.name} worker has ended a stream on which all was right")
        except TimeoutError:
            if is_honest and not self.ended.is_set():
                self.attack.found(f"the {self.name} worker did not answer within {ANSWER_SECONDS:g} s")
        if self.attack.over:
            await self._let_end(stream)
            return
        await self._fuzz(stream, welcomed=is_honest)
        if stream.broken:
            self.attack.found(stream.broken)
        stream.close(self._dice.choice(ENDS))

    async def _let_end(self, stream: Stream) -> None:
        """Be there for a worker that is told to stop."""
        while True:
            try:
                await stream.next("draining")
            except TimeoutError:
                pass
            except GoneError:
                stream.close(grpc.StatusCode.OK)
                return

    # An honest executor.

    async def _behave(self, stream: Stream) -> None:
        is_last = self.attack.over
        run_id = f"honest-{self._turn}"
        if "chain" in self._functions:
            await self._run_chain(stream, run_id)
        await self._run_task(stream, run_id)
        if is_last:
            self.ended.set()

    async def _run_chain(self, stream: Stream, run_id: str) -> None:
        invocation = self._next_fence()
        stream.send(message(invoke=invoke("chain", run_id, invocation)))
        for sequence, (name, result) in enumerate(CHAIN.items(), 1):
            found = await self._of_run(stream, run_id, "steps_found")
            keys = [(step.key.id, step.key.index) for step in found.steps]
            if keys != [(name, 0)] or not found.steps[0].HasField("closure"):
                self.attack.found(f"the {self.name} worker has found {found} instead of the closure {name}")
            attempt = value_pb2.Attempt(run_id=run_id, key=found.steps[0].key, fence=self._next_fence())
            stream.send(message(run_steps=worker_pb2.RunSteps(attempts=[closure_start(attempt, invocation)])))
            step_run = await self._of_run(stream, run_id, "step_run")
            if (step_run.attempt, step_run.output.data) != (attempt, b"%d" % result):
                self.attack.found(f"the {self.name} worker has reported {step_run} of {attempt}")
            entry = journal_entry(attempt.key, sequence, step_run.output)
            resume = worker_pb2.Resume(run_id=run_id, invocation=invocation, entries=[entry], lead=True)
            stream.send(message(resume=resume))
        finished = await self._of_run(stream, run_id, "run_finished")
        if finished.output.data != b"3":
            self.attack.found(f"the {self.name} worker has finished chain with {finished.output}")

    async def _run_task(self, stream: Stream, run_id: str) -> None:
        attempt = value_pb2.Attempt(run_id=run_id, key=value_pb2.StepKey(id="task"), fence=self._next_fence())
        given = value_pb2.Payload(data=b'"hello"', encoding="json")
        stream.send(message(run_steps=worker_pb2.RunSteps(attempts=[task_start(attempt, "echo", given)])))
        step_run = await self._of_run(stream, run_id, "step_run")
        if (step_run.attempt, step_run.output.data) != (attempt, given.data):
            self.attack.found(f"the {self.name} worker has reported {step_run} of {attempt}")

    async def _of_run(self, stream: Stream, run_id: str, kind: str) -> Any:
        """Wait for a message about a run; what the worker still says of others is not asked for."""
        while True:
            said = await stream.next("steps_found", "step_run", "step_failed", "run_finished", "run_failed")
            its_run = said.attempt.run_id if hasattr(said, "attempt") else said.run_id
            if its_run != run_id:
                continue
            expected = worker_pb2.WorkerMessage.DESCRIPTOR.fields_by_name[kind].message_type
            if said.DESCRIPTOR is not expected:
                self.attack.found(f"the {self.name} worker has said {type(said).__name__} {said}, and not {kind}")
                raise GoneError
            return said

    # One that says anything.

    async def _fuzz(self, stream: Stream, *, welcomed: bool) -> None:
        dice = self._dice
        self.alive.add("function_id", *self._functions)
        self.alive.add("tasks", *self._tasks)
        self.alive.add("run_id", *(f"run-{number}" for number in range(RUNS)))
        if not welcomed:
            if dice.random() < 0.1:
                await self._say(stream, self._anything(), twisted=0.2)
            await self._say(stream, message(welcome=welcome()), twisted=0.3)
        began = asyncio.get_running_loop().time()
        listener = stream.listener = asyncio.create_task(self._listen(stream))
        for number in range(MESSAGES_A_STREAM):
            if self.attack.over or listener.done():
                break
            await self._say(stream, self._anything() if dice.random() < 0.4 else self._sensible(), twisted=0.3)
            if number % SAID_AT_ONCE == 0:
                await asyncio.sleep(0.01)
        if dice.random() < 0.3:
            data = self._grammar.damage(message(recorded=worker_pb2.Recorded(failed_steps=[1])).SerializeToString())
            self._count(worker_pb2.ExecutorFrame, data, "executor damaged")
            stream.out.put_nowait(data)
        left = began + LIVELY_SECONDS - asyncio.get_running_loop().time()
        await asyncio.wait({listener}, timeout=max(0.0, left))

    async def _listen(self, stream: Stream) -> None:
        """Learn from what the worker says."""
        while (said := await stream.said.get()) is not None:
            kind = said.WhichOneof("kind")
            self.attack.heard[f"{self.name} {kind}"] += 1
            if kind == "heartbeat":
                stream.send(message(recorded=worker_pb2.Recorded()))
                continue
            self.alive.learn(said)
            if kind == "steps_found":
                found = said.steps_found
                self._found += [(found.run_id, found.invocation, step.key) for step in found.steps[:8]]

    async def _say(self, stream: Stream, said: worker_pb2.ExecutorMessage, twisted: float) -> None:
        await self.attack.pace()
        dice = self._dice
        what = f"executor {said.WhichOneof('kind')}"
        parts, damaged = [said], b""
        if dice.random() < twisted:
            how = dice.random()
            if how < 0.7:
                self._grammar.mutate(said, dice.choice((1, 1, 2, 5)))
                if not said.HasField("welcome"):
                    self._seldom_last(said)
            elif how < 0.8:
                parts = [said, said]
            elif how < 0.995:
                parts, what = self._in_fragments(said), "executor fragment"
            elif not said.HasField("go_away"):
                damaged = self._grammar.damage(said.SerializeToString())
        hold(said)
        if damaged:
            what += " damaged"
            data = frame_of(damaged)
        else:
            data = worker_pb2.ExecutorFrame(messages=parts).SerializeToString()
        self._count(worker_pb2.ExecutorFrame, data, what)
        stream.out.put_nowait(data)

    def _count(self, kind: type[worker_pb2.ExecutorFrame], data: bytes, what: str) -> None:
        self.attack.sent(f"executor of {self.name}", kind, data, what)

    def _in_fragments(self, said: worker_pb2.ExecutorMessage) -> list[worker_pb2.ExecutorMessage]:
        hold(said)
        self._fragments += 1
        return [message(fragment=each) for each in cut(self._dice, said.SerializeToString(), self._fragments)]

    def _anything(self) -> worker_pb2.ExecutorMessage:
        """Make a message of any kind."""
        made = self._grammar.make(worker_pb2.ExecutorMessage)
        self._seldom_last(made)
        return made

    def _seldom_last(self, made: worker_pb2.ExecutorMessage) -> None:
        """Let a message seldom be one that ends the stream: a fragment that fits no other, or one more Welcome."""
        if made.WhichOneof("kind") in ("fragment", "welcome") and self._dice.random() < 0.99:
            made.recorded.SetInParent()

    def _sensible(self) -> worker_pb2.ExecutorMessage:
        """Say something that an executor may say now."""
        dice = self._dice
        run_id = f"run-{dice.randrange(RUNS)}"
        invocation = self._invocations.get(run_id, 0)
        how = dice.randrange(10)
        if how < 3 and self._functions:
            function = dice.choice(self._functions)
            invocation = self._invocations[run_id] = self._next_fence()
            return message(invoke=invoke(function, run_id, invocation))
        if how < 6 and self._found:
            run_id, invocation, key = dice.choice(self._found)
            attempt = value_pb2.Attempt(run_id=run_id, key=key, fence=self._next_fence())
            if how < 5:
                return message(run_steps=worker_pb2.RunSteps(attempts=[closure_start(attempt, invocation)]))
            output = value_pb2.Payload(data=b"1", encoding="json")
            entries = [journal_entry(key, dice.choice((1, 1, 2, 3)), output)]
            resume = worker_pb2.Resume(run_id=run_id, invocation=invocation, entries=entries, lead=True)
            return message(resume=resume)
        if how < 8 and self._tasks:
            key = value_pb2.StepKey(id="task", index=dice.randrange(3))
            attempt = value_pb2.Attempt(run_id=run_id, key=key, fence=self._next_fence())
            given = value_pb2.Payload(data=b'{"a":1,"b":2,"how":"final"}', encoding="json")
            return message(
                run_steps=worker_pb2.RunSteps(attempts=[task_start(attempt, dice.choice(self._tasks), given)])
            )
        known = self.alive.message(dice, "stepwire.v1.Attempt")
        if how == 8 and isinstance(known, value_pb2.Attempt):
            return message(recorded=worker_pb2.Recorded(attempts=[known]))
        if isinstance(known, value_pb2.Attempt) and dice.random() < 0.5:
            return message(cancel=worker_pb2.Cancel(attempt=known, reason="the fuzz wants it"))
        return message(cancel=worker_pb2.Cancel(run_id=run_id, reason="the fuzz wants it"))

    def _next_fence(self) -> int:
        self._fence += 1
        return self._fence


def hold(said: worker_pb2.ExecutorMessage) -> None:
    """Let no GoAway send the worker away for longer than there is time."""
    if said.HasField("go_away") and said.go_away.HasField("reconnect_delay"):
        delay = said.go_away.reconnect_delay
        if delay.seconds >= 0 and (delay.seconds, delay.nanos) > (0, LONGEST_AWAY_NANOS):
            delay.seconds, delay.nanos = 0, LONGEST_AWAY_NANOS


def welcome() -> worker_pb2.Welcome:
    """Make a Welcome with the limits of a real executor."""
    made = worker_pb2.Welcome(session_id="1.fuzz", protocol=1)
    made.heartbeat_interval.seconds, made.session_grace.seconds = 1, 10
    limits = made.limits
    limits.max_frame_bytes, limits.max_output_bytes, limits.max_event_bytes = 1 << 20, 4 << 20, 1 << 20
    limits.max_steps, limits.max_step_id_bytes, limits.max_events_per_call = 100_000, 1_024, 5_000
    limits.max_sleep.seconds = 366 * 86_400
    return made


def invoke(function: str, run_id: str, invocation: int) -> worker_pb2.Invoke:
    """Start a body as its lead, with an empty journal."""
    data = value_pb2.Payload(data=b'{"value":1,"n":3,"id":"x","a":1,"b":2,"how":"final"}', encoding="json")
    event = event_pb2.Event(id="e", name=f"conformance/{function}", data=data)
    event.time.seconds = 1_700_000_000
    made = worker_pb2.Invoke(
        run_id=run_id, invocation=invocation, function_id=function, attempt=1, lead=True, events=[event]
    )
    made.created_at.seconds = 1_700_000_000
    return made


def closure_start(attempt: value_pb2.Attempt, invocation: int) -> worker_pb2.AttemptStart:
    """Start a closure."""
    return worker_pb2.AttemptStart(attempt=attempt, number=1, closure=worker_pb2.ClosureStart(invocation=invocation))


def task_start(attempt: value_pb2.Attempt, task: str, given: value_pb2.Payload) -> worker_pb2.AttemptStart:
    """Start a task."""
    return worker_pb2.AttemptStart(attempt=attempt, number=1, task=worker_pb2.TaskStart(name=task, input=given))


def journal_entry(
    key: value_pb2.StepKey, sequence: int, output: value_pb2.Payload
) -> opcode_pb2.JournalEntry:  # fmt: skip
    """Make the entry of a closure that has succeeded."""
    made = opcode_pb2.JournalEntry(
        sequence=sequence, key=key, kind=opcode_pb2.STEP_KIND_CLOSURE, attempts=1, output=output
    )
    made.recorded_at.seconds = 1_700_000_000 + sequence
    return made
