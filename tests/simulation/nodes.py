"""The simulated processes of a Stepwire system: the executor, workers and a client, all of them of the real code."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

from stepwire.app import App
from stepwire.client import Client
from stepwire.errors import ExecutorError
from stepwire.frames import FrameError
from stepwire.history import History
from stepwire.worker.link import Handlers, Link, LinkStream
from stepwire.worker.outbox import Outbox
from stepwire.worker.pulse import Pulse
from stepwire.worker.worker import Worker
from stepwire_core.commands import AttemptClosed, Decision, Fault, Invoke, Resume, Welcomed
from stepwire_core.model import Limits, Now, Run
from stepwire_executor.connections import Connections
from stepwire_executor.engine import Engine
from stepwire_executor.history import History as ExecutorHistory
from stepwire_executor.services.events import EventService
from stepwire_executor.services.runs import RunService
from stepwire_executor.store import StoreError
from stepwire_proto.v1 import event_pb2, run_pb2
from tests.simulation.counts import drifted
from tests.simulation.disk import Disk, MountedStore
from tests.simulation.machine import Machine, Process
from tests.simulation.network import CONNECT, Channel, Network, Server, StreamCall

WELCOME_SECONDS = 10.0
GOODBYE_SECONDS = 3.0
RECONNECT_SECONDS = 0.5
FATAL = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"}


class WallClock:
    """The time of day, which may be wrong."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.offset = self.right = 1_900_000_000.0

    def now(self) -> Now:
        """Read both clocks."""
        mono = self._machine.now
        return Now(mono + self.offset, mono)

    def of_a_process(self) -> Callable[[], Now]:
        """Give the clock of a process that starts now."""
        before = self.offset
        return lambda: Now(self._machine.now + self.offset, self._machine.now, self.offset - before)


class NoTracing:
    """No trace contexts."""

    def run_traceparent(self, run: Run) -> str:
        return ""

    def attempt_traceparent(self, run: Run, fence: int) -> str:
        return ""


Records = list[dict[str, Any]]


def witness(process: Process, records: Records) -> Callable[[dict[str, Any]], None]:
    """Write a process's history as long as it lives."""

    def write(record: dict[str, Any]) -> None:
        if process.alive:
            records.append(record)

    return write


class WatchedEngine(Engine):
    """The engine. `seen` counts what it has done; that it had to forget everything because of a bug is told."""

    seen: dict[str, int]
    replicas: set[int]

    async def _act(self, decision: Decision) -> None:
        seen = self.seen
        for what in (*decision.early, *decision.commands):
            name = type(what).__name__
            if isinstance(what, Invoke) and not what.lead:
                name = "Invoke of a replica"
                self.replicas.add(what.invocation)
            elif isinstance(what, Resume) and what.lead and what.invocation in self.replicas:
                name = "a replica becomes the lead"
                self.replicas.remove(what.invocation)
            elif isinstance(what, Welcomed) and what.resumed:
                name = "a session resumed"
            seen[name] = seen.get(name, 0) + 1
        for observed in decision.observations:
            if isinstance(observed, AttemptClosed):
                name = f"attempt {observed.outcome}"
                seen[name] = seen.get(name, 0) + 1
        await super()._act(decision)

    async def _decide(self) -> None:
        await super()._decide()
        for wrong in drifted(self._state):
            self._tell(f"a count has drifted: {wrong}")

    def _note_fault(self, fault: Fault) -> None:
        super()._note_fault(fault)
        self._tell(f"a decision raised: {fault.error}")

    def _tell(self, wrong: str) -> None:
        process: Any = asyncio.get_running_loop()
        process.machine.errors.append(wrong)

    async def _begin_anew(self, error: Exception) -> None:
        if not isinstance(error, StoreError):
            self._tell(f"a decision failed: {error!r}")
        await super()._begin_anew(error)


class Written:
    """The context of a stream whose handler writes messages."""

    def __init__(self, context: Any) -> None:
        self.set_code, self.set_details = context.set_code, context.set_details
        self.set_trailing_metadata = context.set_trailing_metadata
        self._context = context

    async def write(self, message: Any) -> None:
        await self._context.write(message.SerializeToString())


def streamed(method: Any, request: Any) -> Callable[[Any, Any], Awaitable[None]]:
    """Give a handler of messages as one of bytes."""

    async def handle(frames: AsyncIterator[bytes], context: Any) -> None:
        await method((request.FromString(each) async for each in frames), Written(context))

    return handle


class ExecutorNode:
    """One life of the executor."""

    def __init__(
        self,
        machine: Machine,
        network: Network,
        disk: Disk,
        clock: WallClock,
        limits: Limits,
        life: int,
        records: Records,
    ) -> None:
        self.process = Process(machine, f"executor-{life}")
        history = ExecutorHistory(self.process.name, witness(self.process, records), self.process.time)
        self.store = MountedStore(disk, self.process)
        self._network = network
        ids = iter(range(1, 1_000_000))
        self.connections = Connections(
            limits, NoTracing(), new_session_id=lambda: f"session-{life}-{next(ids)}", history=history
        )
        self.engine = WatchedEngine(self.store, limits, clock.of_a_process(), self.connections, (), history, b"")
        self.engine.seen, self.engine.replicas = network.counts, set()
        self.connections.attach(self.engine)
        events, runs = EventService(self.engine, limits), RunService(self.engine, self.store)
        self._methods = {
            "/stepwire.v1.EventService/SendEvents": (events.SendEvents, event_pb2.SendEventsRequest),
            "/stepwire.v1.RunService/GetRun": (runs.GetRun, run_pb2.GetRunRequest),
            "/stepwire.v1.RunService/CancelRun": (runs.CancelRun, run_pb2.CancelRunRequest),
        }
        self._streams = {
            CONNECT: self.connections.connect,
            "/stepwire.v1.RunService/WaitRuns": streamed(runs.WaitRuns, run_pb2.WaitRunsRequest),
        }
        self._stopping = False
        self.process.on_death = lambda: network.forget(self.process)
        self.process.call_soon(lambda: self.process.create_task(self._main()))

    async def _main(self) -> None:
        try:
            await self.engine.start()
        except StoreError:
            self.process.kill()  # it says so and exits; whoever runs it starts it again
            return
        self._network.server = Server(self.process, self._streams, self._methods)
        watch = asyncio.ensure_future(self.connections.watch())
        await self.engine.run()
        watch.cancel()

    def stop(self) -> None:
        """SIGTERM: drain and end."""
        if not self._stopping:
            self._stopping = True
            self.process.spawn(self._stop())

    async def _stop(self) -> None:
        await self.engine.drain()
        self.connections.go_away("the executor is stopping", RECONNECT_SECONDS)
        await asyncio.sleep(0.1)
        self.connections.close_all("UNAVAILABLE", "the executor is stopping; reconnect")
        await self.engine.drain()
        await self.engine.stop()
        self.process.kill()


class Bell(threading.Condition):
    """A condition that tells of its being notified; nobody waits for it here."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def __enter__(self) -> bool:
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def notify(self, n: int = 1) -> None:
        self._ring()

    def notify_all(self) -> None:
        self._ring()


class InlineThreads:
    """Takes the place of threads: calls are made by the loop, after a while."""

    def __init__(self, name: str, most: int | None = None) -> None:
        self._process: Any = asyncio.get_running_loop()
        self._calls: dict[int, Callable[[], None]] = {}
        self._number = 0

    def run(self, call: Callable[[], None]) -> None:
        """Make a call soon."""
        self._number += 1
        self._calls[self._number] = call
        if self._process.alive:
            self._process.call_later(self._process.machine.dice.uniform(0, 0.003), self._make, self._number)

    def close(self) -> None:
        """Make the calls that are left: nothing comes of them, but their bodies would keep real threads."""
        while self._calls:
            self._make(min(self._calls))

    def _make(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call()


class SimulatedLoop:
    """A loop that is never late, as time stands still while it computes; `share` of the times it says that it is."""

    def __init__(self, name: str, share: float) -> None:
        self._dice = random.Random(name)
        self._share = share
        self._lag = 0.0

    def lag(self) -> float:
        if self._dice.random() < self._share:
            self._lag = self._dice.choice([0.0, 0.0, 3.0, 6.0])
        return self._lag

    def stack(self) -> str:
        return ""


class SimulatedTransport:
    """Carries a worker's link over the simulated network; see stepwire.worker.transport for the real one."""

    def __init__(self, process: Process, network: Network, outbox: SimulatedOutbox, handlers: Handlers) -> None:
        self._process = process
        self._network = network
        self._outbox = outbox
        self._handlers = handlers
        self._stopping = False
        self._finished = False
        self._call: StreamCall | None = None
        self._stream: LinkStream | None = None
        self._flushing = False
        loop: Any = SimulatedLoop(process.name, network.conditions.lag)
        self._pulse = Pulse(loop, handlers.counts, outbox.send_heartbeat, lambda _: self._hang_up(), process.time)
        self._link = Link(outbox, handlers, self._pulse.hear, self._welcome, process.time)
        outbox.ring = self._ring

    def start(self) -> None:
        self._connect()
        self._tick(self._process.time())

    def stop(self) -> None:
        self._stopping = True
        self._outbox.finish()
        self._pulse.expect(GOODBYE_SECONDS)

    def wind_down(self) -> None:
        self._stopping = True
        self._pulse.expect(GOODBYE_SECONDS)
        if self._call is None:
            self._end(None)

    def cut(self) -> None:
        self._stopping = True
        self._outbox.finish()
        if self._call is not None:
            self._hang_up()
        else:
            self._end(None)

    def _connect(self) -> None:
        if self._stopping:
            self._end(None)
            return
        stream = self._stream = self._link.begin("executor")
        self._pulse.expect(WELCOME_SECONDS)
        self._call = call = self._network.open(
            self._process,
            lambda frame: self._receive(stream, frame),
            lambda code, details: self._lost(stream, code, details),
        )
        for frame in self._link.hello(stream):
            call.send(frame)

    def _receive(self, stream: LinkStream, frame: bytes) -> None:
        if stream is self._stream:
            try:
                self._link.receive(stream, frame)
            except FrameError as error:
                self._process.machine.errors.append(f"{self._process.name}: {error}")

    def _welcome(self, interval: float) -> None:
        self._pulse.welcome(interval)
        self._ring()

    def _lost(self, stream: LinkStream, code: str, details: str) -> None:
        if stream is not self._stream:
            return
        self._stream = self._call = None
        self._pulse.expect(None)
        self._link.end(stream)
        if code in FATAL:
            self._process.machine.errors.append(f"{self._process.name} was refused: {code}: {details}")
            self._end(ExecutorError(code, details))
        elif self._stopping:
            self._end(None)
        else:
            self._process.call_later(self._link.delay(), self._connect)

    def _end(self, error: Exception | None) -> None:
        if not self._finished:
            self._finished = True
            self._handlers.post(self._handlers.ended, error)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _tick(self, begun: float) -> None:
        self._pulse.tick(begun)
        if not self._finished:
            self._process.call_later(self._pulse.tick_seconds, self._tick, self._process.time())

    def _ring(self) -> None:
        if not self._flushing and self._stream is not None and self._stream.number:
            self._flushing = True
            self._process.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        stream, call = self._stream, self._call
        if stream is None or call is None or not stream.number:
            return
        while batch := self._outbox.poll(stream.number):
            for frame in self._link.frames(stream, batch):
                call.send(frame)
        if batch is not None:
            call.finish()


class SimulatedOutbox(Outbox):
    """An outbox that tells when there is something in it."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None
        super().__init__(Bell(lambda: self.ring()))


class SimulatedWorker(Worker):
    """The worker on a simulated loop, over the simulated network."""

    network: Network
    records: Records
    process: Process

    def _make_history(self, name: str) -> History:  # type: ignore[override]
        return History(name, witness(self.process, self.records), self.process.time)

    _make_outbox = SimulatedOutbox  # type: ignore[assignment]
    _make_threads = InlineThreads  # type: ignore[assignment]

    def _make_transport(self, handlers: Handlers) -> Any:
        process: Any = asyncio.get_running_loop()
        outbox: Any = self._outbox
        return SimulatedTransport(process, self.network, outbox, handlers)


class WorkerNode:
    """One life of a worker."""

    def __init__(
        self, machine: Machine, network: Network, app: App, name: str, slots: int, most: int, records: Records
    ) -> None:
        self.process = process = Process(machine, name)

        class ThisWorker(SimulatedWorker):
            pass

        ThisWorker.network, ThisWorker.records, ThisWorker.process = network, records, process
        self.worker = ThisWorker(
            app, "executor:1", slots=slots, max_invocations=most, instance_id=name, drain_seconds=1.0
        )
        self.process.on_death = lambda: network.forget(self.process)
        self.process.call_soon(lambda: self.process.create_task(self._main()))

    async def _main(self) -> None:
        await self.worker.run()
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM."""
        if self.process.alive:
            self.process.call_soon(self.worker.drain)


class SimulatedClient(Client):
    """The client over the simulated network."""

    async def _explained(self, error: ExecutorError, address: str) -> ExecutorError:
        return error  # there is nothing to probe


class ClientNode:
    """A client that never dies."""

    def __init__(self, machine: Machine, network: Network, records: Records) -> None:
        self.process = Process(machine, "client")
        self.client = SimulatedClient("127.0.0.1:1", timeout=1e6, retry_for=1e6)
        self.client._loop = self.process
        self.client._ask.history = History("client", records.append, self.process.time)
        self.client._channels["127.0.0.1:1"] = Channel(network, self.process)  # type: ignore[assignment]

    def do(self, what: Any) -> asyncio.Task[Any]:
        """Start a coroutine of the client's."""
        return self.process.spawn(what)
