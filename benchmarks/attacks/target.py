"""The executor as an attacker sees it: calls and streams of raw bytes, and a count of how they ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2

APP = "attacker"
"""The app that the attacker's token is for."""
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
PAUSE_SECONDS = 0.05
"""After a failed connection."""
AGAIN_SECONDS = 0.01
CALL_SECONDS = 120.0
BEAT_SECONDS = 1.0
FRAME_BYTES = 1_000_000
"""What the parts of a message have that is sent in fragments: a frame takes 1 MiB."""

SEND_EVENTS = "/stepwire.v1.EventService/SendEvents"
CONNECT = "/stepwire.v1.WorkerService/Connect"


class GoneError(Exception):
    """The stream has ended."""


class Target:
    """An executor to attack."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.token = (("authorization", f"Bearer {token}"),)
        self.outcomes: Counter[str] = Counter()
        """How calls and streams have ended, by gRPC's names."""
        self.begun = asyncio.Event()
        """Set once everything is prepared, and the attack goes on."""

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """Open a connection of its own."""
        async with grpc.aio.insecure_channel(self.address, options=OPTIONS) as channel:
            yield channel

    async def call(self, channel: grpc.aio.Channel, method: str, data: bytes, *, stranger: bool = False) -> None:
        """Make a call, and count how it ends. A `stranger` shows no token."""
        made: Any = channel.unary_unary(method)
        try:
            await made(data, metadata=() if stranger else self.token, timeout=CALL_SECONDS)
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        await self.note(code)

    async def note(self, code: grpc.StatusCode) -> None:
        """Count how something has ended."""
        self.outcomes[code.name] += 1
        if code is grpc.StatusCode.UNAVAILABLE:
            await asyncio.sleep(PAUSE_SECONDS)

    async def flood(self, method: str, bodies: Sequence[bytes], at_once: int, *, stranger: bool = False) -> None:
        """Make calls with these bodies, in turn, for ever: so many at once, each on a connection of its own."""

        async def some(first: int) -> None:
            number = first
            async with self.channel() as channel:
                while True:
                    await self.call(channel, method, bodies[number % len(bodies)], stranger=stranger)
                    number += 1

        self.begun.set()
        await asyncio.gather(*[some(number) for number in range(at_once)])

    async def again(self, work: Callable[[], Awaitable[None]], at_once: int = 1) -> None:
        """Do something for ever, so many times at once, whatever becomes of its stream."""

        async def some() -> None:
            while True:
                with contextlib.suppress(GoneError):
                    await work()
                await asyncio.sleep(AGAIN_SECONDS)  # an executor that is gone ends everything without a wait

        await asyncio.gather(*[some() for _ in range(at_once)])


class Worker:
    """A worker's stream. Use `connected`."""

    def __init__(self, target: Target, channel: grpc.aio.Channel) -> None:
        self._target = target
        made: Any = channel.stream_stream(CONNECT)
        self._call = made(metadata=target.token)
        self._came: asyncio.Queue[worker_pb2.ExecutorMessage | None] = asyncio.Queue()
        self._wanted: frozenset[str] = frozenset()
        self._fragment = 0
        self._writing = asyncio.Lock()
        """gRPC takes one frame at a time, and heartbeats come in between."""
        self._tasks = [asyncio.create_task(self._read())]

    def want(self, *kinds: str) -> None:
        """Keep messages of these kinds for `next`; others are dropped."""
        self._wanted = frozenset(kinds)

    async def hello(self, **fields: Any) -> None:
        """Say Hello with sensible fields but for those given, and wait for the Welcome."""
        sensible: dict[str, Any] = {
            "min_protocol": 1,
            "max_protocol": 1,
            "instance_id": f"attacker-{id(self):x}",
            "app": APP,
            "slots": 100,
            "max_invocations": 1_000,
        }
        self.want("welcome", "invoke", "run_steps")
        await self.say(hello=worker_pb2.Hello(**{**sensible, **fields}))
        await self.next("welcome")

    def beat(self) -> None:
        """Send heartbeats from now on."""
        self._tasks.append(asyncio.create_task(self._beat()))

    async def frame(self, data: bytes) -> None:
        """Send a frame. Raises GoneError."""
        try:
            async with self._writing:
                await self._call.write(data)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            raise GoneError from None

    async def say(self, **message: Any) -> None:
        """Send a message as a frame. Raises GoneError."""
        await self.frame(frame(worker_pb2.WorkerMessage(**message)))

    async def say_in_parts(self, message: bytes) -> None:
        """Send a serialized message in fragments, each as large as it may be. Raises GoneError."""
        self._fragment += 1
        for data in parts(message, self._fragment):
            await self.frame(data)

    async def next(self, kind: str) -> Any:
        """Give the next message of a kind; others are dropped. Raises GoneError."""
        while (message := await self._came.get()) is not None:
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)
        raise GoneError

    async def over(self) -> None:
        """Wait for the stream's end. Raises GoneError."""
        await asyncio.wait([self._tasks[0]])
        raise GoneError

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (data := await self._call.read()) is not grpc.aio.EOF:
                if not self._wanted:
                    continue
                for message in worker_pb2.ExecutorFrame.FromString(data).messages:
                    if message.WhichOneof("kind") in self._wanted:
                        self._came.put_nowait(message)
        self._came.put_nowait(None)
        await self._target.note(await self._call.code())

    async def _beat(self) -> None:
        with contextlib.suppress(GoneError):
            while True:
                await self.say(heartbeat=worker_pb2.Heartbeat())
                await asyncio.sleep(BEAT_SECONDS)

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def connected(target: Target, **fields: Any) -> AsyncIterator[Worker]:
    """Connect a worker; without fields it says no Hello."""
    async with target.channel() as channel:
        worker = Worker(target, channel)
        try:
            if fields:
                await worker.hello(**fields)
            yield worker
        finally:
            worker.close()


def frame(*messages: worker_pb2.WorkerMessage) -> bytes:
    """Write a frame."""
    return worker_pb2.WorkerFrame(messages=messages).SerializeToString()


def full(message: worker_pb2.WorkerMessage) -> bytes:
    """Write a frame with as many copies of a message as one takes."""
    one = frame(message)
    return one * (FRAME_BYTES // len(one))


def parts(message: bytes, number: int) -> list[bytes]:
    """Write the frames of a message in fragments."""
    cuts = range(0, len(message), FRAME_BYTES)
    pieces = [worker_pb2.Fragment(id=number, data=message[at : at + FRAME_BYTES], last=at == cuts[-1]) for at in cuts]
    return [frame(worker_pb2.WorkerMessage(fragment=piece)) for piece in pieces]


def event(name: str, data: bytes = b"{}", **fields: Any) -> event_pb2.Event:
    """Make an event of the attacker's."""
    return event_pb2.Event(name=f"{APP}/{name}", data=value_pb2.Payload(data=data, encoding="json"), **fields)


def sent(*events: event_pb2.Event) -> bytes:
    """Write the call that sends events."""
    return event_pb2.SendEventsRequest(events=events).SerializeToString()


def function(id: str, trigger: str = "", **options: Any) -> worker_pb2.FunctionOptions:
    """Make a function that an event of the attacker's starts."""
    triggers = [worker_pb2.Trigger(event_name=f"{APP}/{trigger}")] if trigger else []
    return worker_pb2.FunctionOptions(id=id, triggers=triggers, **options)


def step(number: int, id: str = "s", **target: Any) -> opcode_pb2.StepPlanned:
    """Make a step that a body has found."""
    return opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=id, index=number), **target)


def found(
    invoke: worker_pb2.Invoke, steps: Sequence[opcode_pb2.StepPlanned], *, quiescent: bool = True
) -> opcode_pb2.StepsFound:
    """Make the report of found steps."""
    return opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=steps, quiescent=quiescent)


@asynccontextmanager
async def with_run(target: Target, *functions: worker_pb2.FunctionOptions, **hello: Any) -> AsyncIterator[Any]:
    """Connect a worker of these functions, which beats, and start a run of the first. Gives worker and Invoke."""
    async with connected(target, functions=functions, **hello) as worker:
        worker.beat()
        async with target.channel() as channel:
            trigger = functions[0].triggers[0].event_name.partition("/")[2]
            await target.call(channel, SEND_EVENTS, sent(event(trigger)))
        yield worker, await worker.next("invoke")
