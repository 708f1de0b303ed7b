"""Many workers in one process: `python -m tests.faults.crowd 5000` measures what they cost an executor."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc

import stepwire
from benchmarks.taken import resident_bytes
from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

STREAMS_A_CHANNEL = 10


class Member:
    """One worker: welcomed, beating, and doing the one step of each run that it is given."""

    def __init__(self, channel: grpc.aio.Channel, number: int) -> None:
        self.out: asyncio.Queue[worker_pb2.WorkerMessage | None] = asyncio.Queue()
        self.welcomed = asyncio.Event()
        self.answers: asyncio.Queue[float] = asyncio.Queue()
        self.runs = 0
        self.number = number
        connect: Any = channel.stream_stream("/stepwire.v1.WorkerService/Connect")
        self.call = connect(self._frames())
        self.task = asyncio.create_task(self._read())

    async def _frames(self) -> AsyncIterator[bytes]:
        hello = worker_pb2.Hello(
            min_protocol=1,
            max_protocol=1,
            instance_id=f"member-{self.number}",
            app="crowd",
            slots=4,
            max_invocations=10,
        )
        hello.functions.add(id="f").triggers.add(event_name="crowd/go")
        yield worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(hello=hello)]).SerializeToString()
        while (message := await self.out.get()) is not None:
            yield worker_pb2.WorkerFrame(messages=[message]).SerializeToString()

    async def _read(self) -> None:
        async for data in self.call:
            for message in worker_pb2.ExecutorFrame.FromString(data).messages:
                match message.WhichOneof("kind"):
                    case "welcome":
                        self.welcomed.set()
                    case "recorded":
                        self.answers.put_nowait(time.monotonic())
                    case "invoke":
                        self.runs += 1
                        names = {"run_id": message.invoke.run_id, "invocation": message.invoke.invocation}
                        finished = opcode_pb2.RunFinished(**names, output=value_pb2.Payload(data=b"1", encoding="json"))
                        self.out.put_nowait(worker_pb2.WorkerMessage(run_finished=finished))

    async def beat(self) -> float:
        """Send a heartbeat; gives the seconds until its answer."""
        while not self.answers.empty():
            self.answers.get_nowait()
        begun = time.monotonic()
        self.say_alive()
        return await self.answers.get() - begun

    def say_alive(self) -> None:
        """Send a heartbeat."""
        self.out.put_nowait(worker_pb2.WorkerMessage(heartbeat=worker_pb2.Heartbeat()))


class Crowd:
    """So many workers of one executor; leaving ends them all."""

    def __init__(self, address: str, count: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        channels = -(-count // STREAMS_A_CHANNEL)
        self.channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(channels)]
        self.count = count
        self.members: list[Member] = []

    async def welcomed(self) -> None:
        """Connect all, a few hundred at a time: the kernel's queue of new connections is short. They beat meanwhile."""
        for number in range(self.count):
            self.members.append(Member(self.channels[number % len(self.channels)], number))
            if number % 250 == 249:
                await asyncio.wait_for(self.members[-1].welcomed.wait(), 30)
                self._say_alive()
        await asyncio.wait_for(asyncio.gather(*[member.welcomed.wait() for member in self.members]), 30)
        self._say_alive()
        await asyncio.sleep(0.5)
        for member in self.members:
            while not member.answers.empty():
                member.answers.get_nowait()

    def _say_alive(self) -> None:
        for member in self.members:
            if member.welcomed.is_set():
                member.say_alive()

    async def beat(self) -> list[float]:
        """Have all send a heartbeat at once; gives the seconds until the answers, sorted."""
        return sorted(await asyncio.gather(*[member.beat() for member in self.members]))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.task.cancel()
            member.call.cancel()
        await asyncio.gather(*[member.task for member in self.members], return_exceptions=True)
        for channel in self.channels:
            await channel.close()


async def measure(count: int) -> None:
    """Print what a crowd costs."""
    with ExecutorProcess() as executor:
        before = resident_bytes(executor.pid)
        begun = time.monotonic()
        async with Crowd(executor.address, count) as crowd:
            await crowd.welcomed()
            print(f"{count} workers over {len(crowd.channels)} connections after {time.monotonic() - begun:.1f} s")
            for _ in range(3):
                answers = await crowd.beat()
                print(f"heartbeats answered: median {answers[count // 2]:.2f} s, last {answers[-1]:.2f} s")
            async with stepwire.Client(executor.address) as client:
                begun = time.monotonic()
                receipts = await client.send_many([("crowd/go", n) for n in range(count)])
                await asyncio.gather(*[client.wait(each.run_ids[0]) for each in receipts[:: max(1, count // 100)]])
                print(f"{count} runs after {time.monotonic() - begun:.1f} s")
            used = resident_bytes(executor.pid) - before
            print(f"memory: {before >> 20} MiB and {used >> 20} MiB more, {used // count >> 10} KiB a worker")
            files = len(os.listdir(f"/proc/{executor.pid}/fd"))
            print(f"open files: {files}")
        assert executor.running
        print("".join(line for line in executor.log.splitlines(keepends=True) if "WARN" in line or "ERROR" in line))


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1])))
