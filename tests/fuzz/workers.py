"""Workers that say anything on `WorkerService.Connect`, each with a token of its own app.

A stream begins as it should, most of the time: so what follows gets past the first checks. After that an honest answer
is sent as it is, or changed in some places, or damaged, or something else is sent instead.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import grpc

from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2
from tests.executor.peer import bearer
from tests.fuzz.alive import Alive
from tests.fuzz.attack import BROKEN, Attack
from tests.fuzz.frames import cut, frame_of
from tests.fuzz.grammar import Grammar

FUNCTIONS = 4
TASKS = ("task-a", "task-b")
CONNECT = "/stepwire.v1.WorkerService/Connect"
WELCOME_SECONDS = 1.0


def message(**kind: Any) -> worker_pb2.WorkerMessage:
    """Make a message of a worker."""
    return worker_pb2.WorkerMessage(**kind)


class FuzzingWorker:
    """One worker after the other, of an app of its own; `token` is good for that app, also as a client's."""

    def __init__(self, attack: Attack, channel: grpc.aio.Channel, app: str, token: str) -> None:
        self.attack = attack
        self.app = app
        self.alive = Alive()
        self.alive.add("app", app)
        self.alive.add("function_id", *(f"f{number}" for number in range(FUNCTIONS)))
        self.alive.add("event_name", *(f"{app}/go-{number}" for number in range(FUNCTIONS)), f"{app}/reply")
        self.alive.add("tasks", *TASKS)
        self._metadata = bearer(token)
        self._connect: Any = channel.stream_stream(CONNECT)
        self._send: Any = channel.unary_unary("/stepwire.v1.EventService/SendEvents")
        self._dice = attack.dice("worker", app)
        self._grammar = Grammar(self._dice, self.alive)
        self._session = ""
        self._version = 0
        self._fragments = 0
        self._said: deque[worker_pb2.WorkerMessage] = deque(maxlen=50)
        """Honest answers, as they were before they were twisted."""
        self._inbox: asyncio.Queue[worker_pb2.ExecutorMessage] = asyncio.Queue()

    async def run(self) -> None:
        """Open streams until the attack is over."""
        while not self.attack.over:
            await self._feed()
            await self._stream()

    async def _feed(self) -> None:
        """Have something to do: events that start runs of this app."""
        events = [
            event_pb2.Event(
                name=f"{self.app}/go-{self._dice.randrange(FUNCTIONS)}",
                data=value_pb2.Payload(data=b'{"doc":"x"}', encoding="json"),
            )
            for _ in range(4)
        ]
        try:
            await self._send(
                event_pb2.SendEventsRequest(events=events).SerializeToString(), metadata=self._metadata, timeout=20
            )
        except grpc.aio.AioRpcError as error:
            self.attack.ends[f"feed {error.code().name}"] += 1

    async def _stream(self) -> None:
        self._inbox = asyncio.Queue()
        call = self._connect(metadata=self._metadata)
        reader = asyncio.create_task(self.attack.read(call, self._take, "stream", f"a stream of {self.app}"))
        try:
            await self._converse(call, reader)
        except BROKEN:
            pass  # the reader tells how it ended
        finally:
            if not reader.done():
                call.cancel()
            await reader

    def _take(self, data: bytes) -> None:
        for each in worker_pb2.ExecutorFrame.FromString(data).messages:
            self.attack.heard[each.WhichOneof("kind") or ""] += 1
            self.alive.learn(each)
            self._inbox.put_nowait(each)

    async def _converse(self, call: Any, reader: asyncio.Task[None]) -> None:
        dice = self._dice
        if dice.random() < 0.9:
            await self._say(call, self._hello(), twisted=0.2)
            if not await self._welcomed(reader):
                return
        for _ in range(dice.choice((3, 20, 60, 120))):
            if reader.done() or self.attack.over:
                return
            try:
                heard = await asyncio.wait_for(self._inbox.get(), dice.choice((0.0, 0.005, 0.03)))
            except TimeoutError:
                await self._say(call, self._unasked(), twisted=0.1)
                continue
            for answer in self._answers(heard):
                self._said.append(answer)
                await self._say(call, answer, twisted=0.2)

    async def _welcomed(self, reader: asyncio.Task[None]) -> bool:
        waiting = asyncio.ensure_future(self._inbox.get())
        await asyncio.wait({waiting, reader}, timeout=WELCOME_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            return False
        self._session = waiting.result().welcome.session_id
        return True

    async def _say(self, call: Any, said: worker_pb2.WorkerMessage, twisted: float) -> None:
        """Send a message: so often twisted, else as it is."""
        await self.attack.pace()
        dice = self._dice
        what = f"worker {said.WhichOneof('kind')}"
        parts = [said]
        said = copy(said)
        if dice.random() < twisted:
            how = dice.random()
            if how < 0.6:
                self._grammar.mutate(said, dice.choice((1, 1, 2, 5)))
                parts = [said]
            elif how < 0.7:
                parts = [self._anything()]
            elif how < 0.8:
                parts = [said, said]
            elif how < 0.9:
                parts = self._in_fragments(said)
            else:
                what += " damaged"
                parts = []
        data = frame(parts) if parts else self._damaged(said)
        self.attack.sent(self.app, worker_pb2.WorkerFrame, data, what)
        await call.write(data)

    def _damaged(self, said: worker_pb2.WorkerMessage) -> bytes:
        data = said.SerializeToString()
        if self._dice.random() < 0.5:  # inside of a frame that is whole
            return frame_of(self._grammar.damage(data))
        return self._grammar.damage(frame_of(data))

    def _in_fragments(self, said: worker_pb2.WorkerMessage) -> list[worker_pb2.WorkerMessage]:
        data = said.SerializeToString()
        if self._dice.random() < 0.3:
            data = self._grammar.damage(data)
        self._fragments += 1
        return [message(fragment=each) for each in cut(self._dice, data, self._fragments)]

    # What a worker says.

    def _hello(self) -> worker_pb2.WorkerMessage:
        dice = self._dice
        if dice.random() < 0.2:
            self._version += 1  # whatever a Hello has made of the functions, another version may have others
        functions = [
            worker_pb2.FunctionOptions(
                id=f"f{number}",
                triggers=[worker_pb2.Trigger(event_name=f"{self.app}/go-{number}")],
                retry=value_pb2.RetryPolicy(retries=1, multiplier=1),
            )
            for number in range(FUNCTIONS)
        ]
        for each in functions:
            each.retry.initial_interval.nanos = 10_000_000
        in_hand = [self.alive.message(dice, "stepwire.v1.Attempt") for _ in range(dice.choice((0, 0, 1, 3)))]
        return message(
            hello=worker_pb2.Hello(
                min_protocol=1,
                max_protocol=1,
                capabilities=[worker_pb2.CAPABILITY_EAGER],
                instance_id=f"{self.app}-worker",
                app=self.app,
                app_version=str(self._version),
                functions=functions,
                tasks=TASKS,
                slots=dice.choice((1, 4, 16)),
                max_invocations=dice.choice((1, 4, 50)),
                resume_session=self._session if dice.random() < 0.5 else "",
                attempts_in_hand=[each for each in in_hand if isinstance(each, value_pb2.Attempt)],
            )
        )

    def _unasked(self) -> worker_pb2.WorkerMessage:
        """Say something out of turn: a sign of life, something from before, which is changed or not, or anything."""
        how = self._dice.random()
        if how < 0.3 or not self._said:
            return message(heartbeat=worker_pb2.Heartbeat())
        if how < 0.75:
            return self._dice.choice(self._said)
        return self._anything()

    def _anything(self) -> worker_pb2.WorkerMessage:
        """Make a message of any kind; a second Hello, which ends the stream, less often."""
        made = self._grammar.make(worker_pb2.WorkerMessage)
        if made.HasField("hello") and self._dice.random() < 0.8:
            made.heartbeat.SetInParent()
        return made

    def _answers(self, heard: worker_pb2.ExecutorMessage) -> list[worker_pb2.WorkerMessage]:
        match heard.WhichOneof("kind"):
            case "invoke":
                invoke = heard.invoke
                return self._go_on(invoke.run_id, invoke.invocation, invoke.journal_length, invoke.eager_fence)
            case "resume":
                resume = heard.resume
                sequence = max((entry.sequence for entry in resume.entries), default=0)
                return self._go_on(resume.run_id, resume.invocation, sequence, resume.eager_fence)
            case "run_steps":
                return [self._report(start.attempt) for start in heard.run_steps.attempts]
        return []

    def _go_on(self, run_id: str, invocation: int, sequence: int, eager: int) -> list[worker_pb2.WorkerMessage]:
        """Go on with a body: it ends, or finds steps."""
        dice = self._dice
        run: dict[str, Any] = {"run_id": run_id, "invocation": invocation}
        how = dice.random()
        if how < 0.25 + sequence / 20:
            return [message(run_finished=opcode_pb2.RunFinished(output=output(dice), **run))]
        if how < 0.3 + sequence / 20:
            return [message(run_failed=opcode_pb2.RunFailed(failure=failure(dice), **run))]
        count = 1 if eager and dice.random() < 0.5 else dice.choice((1, 1, 2, 5))
        steps = [self._step(f"s{sequence}", number) for number in range(count)]
        said = [message(steps_found=opcode_pb2.StepsFound(sequence=sequence, steps=steps, quiescent=True, **run))]
        if eager and count == 1 and steps[0].HasField("closure"):
            said[0].steps_found.steps[0].eager_fence = eager
            said.append(self._report(value_pb2.Attempt(run_id=run_id, key=steps[0].key, fence=eager)))
        return said

    def _step(self, name: str, index: int) -> opcode_pb2.StepPlanned:
        dice = self._dice
        step = opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=name, index=index), source="fuzz.py:1")
        step.retry.retries = 1
        step.retry.initial_interval.nanos = step.retry.maximum_interval.nanos = 1_000_000
        match dice.randrange(8):
            case 0:
                step.sleep.delay.nanos = dice.choice((0, 1_000_000, 50_000_000))
            case 1:
                step.task.name = dice.choice(TASKS)
            case 2 if dice.random() < 0.5:
                step.invoke.function_id = f"f{dice.randrange(FUNCTIONS)}"
            case 3:
                step.send_events.events.add(name=f"{self.app}/reply").data.data = b'{"doc":"x"}'
            case 4:
                step.wait_for_event.event_name = f"{self.app}/reply"
                step.wait_for_event.timeout.nanos = 300_000_000
                if dice.random() < 0.5:
                    step.wait_for_event.fields.add(path="doc", json_value='"x"')
            case _:
                step.closure.SetInParent()
        return step

    def _report(self, attempt: value_pb2.Attempt) -> worker_pb2.WorkerMessage:
        if self._dice.random() < 0.85:
            return message(step_run=opcode_pb2.StepRun(attempt=attempt, output=output(self._dice)))
        return message(step_failed=opcode_pb2.StepFailed(attempt=attempt, failure=failure(self._dice)))


def copy(said: worker_pb2.WorkerMessage) -> worker_pb2.WorkerMessage:
    """Copy a message."""
    made = worker_pb2.WorkerMessage()
    made.CopyFrom(said)
    return made


def frame(parts: list[worker_pb2.WorkerMessage]) -> bytes:
    """Make a frame of messages."""
    return worker_pb2.WorkerFrame(messages=parts).SerializeToString()


def output(dice: random.Random) -> value_pb2.Payload:
    """Make the result of a step."""
    return value_pb2.Payload(data=dice.choice((b"1", b'"done"', b"null", b'{"a":[1]}')), encoding="json")


def failure(dice: random.Random) -> value_pb2.Failure:
    """Make a failure of user code."""
    return value_pb2.Failure(type="ValueError", message="as the fuzz wants it", retryable=dice.random() < 0.7)
