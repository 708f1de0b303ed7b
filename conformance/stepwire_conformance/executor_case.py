"""One case against an executor: its acts, one after the other, by played workers and a client."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from stepwire_conformance.cases import one_line
from stepwire_conformance.filling import text_of_x
from stepwire_conformance.patterns import Names, differences
from stepwire_conformance.played_worker import Over, PlayedWorker
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_proto.conformance.v1 import case_pb2
from stepwire_proto.v1 import event_pb2, run_pb2, worker_pb2

EXPECT_SECONDS = 5.0
POLL_SECONDS = 0.05
CONTENTS = {"run_steps": ("attempts",), "resume": ("entries",), "recorded": ("attempts", "refusals")}
"""Lists of messages that may come in parts."""


class ExecutorConversation:
    """Plays the workers and the client of a case. `patience` stretches every time that is waited for something."""

    def __init__(self, address: str, transcript: Transcript, patience: float) -> None:
        self._address = address
        self._transcript = transcript
        self._patience = patience
        self._unique = uuid.uuid4().hex[:12]
        self._names = Names({"$app": f"conformance-{self._unique}"})
        self._workers: dict[str, PlayedWorker] = {}
        self._said_at = 0.0
        """When a worker has sent something last."""
        self._channel = grpc.aio.insecure_channel(address)

    async def play(self, case: case_pb2.ExecutorCase) -> None:
        """Do all acts. Raises FailedError."""
        acts: dict[str, Callable[[PlayedWorker, Any], Awaitable[None]]] = {
            "connect": self._connect,
            "send": self._send,
            "expect": self._expect,
            "quiet": self._quiet,
            "reset": self._reset,
            "go_silent": self._go_silent,
            "expect_status": self._expect_status,
            "close": self._close,
            "send_events": self._send_events,
            "expect_run": self._expect_run,
            "cancel_run": self._cancel_run,
        }
        for number, act in enumerate(case.acts, 1):
            kind = act.WhichOneof("kind") or ""
            try:
                await acts[kind](self._worker(act.worker), getattr(act, kind))
            except FailedError as failure:
                raise FailedError(f"act {number} ({kind}): {failure}") from None
            except KeyError as unknown:
                raise FailedError(f"act {number} ({kind}): {unknown} stands for nothing yet") from None
        for worker in self._workers.values():
            while not worker.queue.empty():
                left = worker.queue.get_nowait()
                if isinstance(left, FailedError):
                    raise left
                if isinstance(left, tuple) and not _may_come(left[1]):
                    raise FailedError(f"in the end {worker.name} got what nothing awaited: {one_line(left[1])}")

    async def close(self) -> None:
        """End everything."""
        for worker in self._workers.values():
            await worker.close()
        await self._channel.close()

    def _worker(self, name: str) -> PlayedWorker:
        if name not in self._workers:
            host, _, port = self._address.rpartition(":")
            self._workers[name] = PlayedWorker(name, host, int(port), self._transcript)
        return self._workers[name]

    # Streams.

    async def _connect(self, worker: PlayedWorker, act: case_pb2.Connect) -> None:
        await worker.open()
        if act.no_hello:
            return
        hello = worker_pb2.Hello(
            min_protocol=1,
            max_protocol=1,
            instance_id=f"{worker.name}-{self._unique}",
            app="$app",
            slots=4,
            max_invocations=10,
        )
        hello.MergeFrom(act.hello)
        for name in act.clear:
            hello.ClearField(name)  # type: ignore[arg-type]
        await self._send(worker, case_pb2.WorkerSend(messages=[worker_pb2.WorkerMessage(hello=hello)]))
        if act.HasField("refused"):
            await self._expect_status(worker, act.refused)
            return
        wanted = worker_pb2.ExecutorMessage(welcome=act.welcome)
        wanted.welcome.SetInParent()
        came = await self._next(worker, EXPECT_SECONDS * self._patience, wanted)
        self._match([wanted], came)
        worker.interval = came.welcome.heartbeat_interval.ToMilliseconds() / 1000

    async def _reset(self, worker: PlayedWorker, _: case_pb2.Reset) -> None:
        worker.reset()

    async def _go_silent(self, worker: PlayedWorker, _: case_pb2.GoSilent) -> None:
        self._transcript.note(f"{worker.name} says nothing more")
        worker.interval = 0.0

    async def _expect_status(self, worker: PlayedWorker, act: case_pb2.ExpectStatus) -> None:
        code, message, fields = await worker.status(_seconds(act.within, EXPECT_SECONDS) * self._patience)
        if code != act.code:
            raise FailedError(f"awaited the status {act.code}, came {code}: {message}")
        for text in act.says:
            if text not in message:
                raise FailedError(f"the status message does not hold {text!r}: {message}")
        if act.field and not any(field.endswith(act.field) for field in fields):
            raise FailedError(f"BadRequest should name {act.field!r}, but names {', '.join(fields) or 'nothing'}")

    async def _close(self, worker: PlayedWorker, _: case_pb2.Close) -> None:
        worker.finish()
        await self._expect_status(worker, case_pb2.ExpectStatus(code="OK"))

    # Messages.

    async def _send(self, worker: PlayedWorker, act: case_pb2.WorkerSend) -> None:
        resolved = case_pb2.WorkerSend()
        resolved.CopyFrom(act)
        for message in resolved.messages:
            self._names.resolve(message)
        if act.output_x_bytes:
            last = resolved.messages[-1]
            getattr(last, last.WhichOneof("kind") or "").output.CopyFrom(text_of_x(act.output_x_bytes))
        self._said_at = time.monotonic()
        worker.send(resolved)

    async def _expect(self, worker: PlayedWorker, act: case_pb2.ExpectOfExecutor) -> None:
        begun, fragments = time.monotonic(), worker.fragments
        open_patterns = [_with_x(message, act) for message in act.messages]
        within = _seconds(act.within, EXPECT_SECONDS) * self._patience
        while open_patterns:
            wanted = open_patterns if act.any_order else open_patterns[:1]
            came = await self._next(worker, begun + within - time.monotonic(), *wanted)
            since = time.monotonic() - self._said_at
            if since < _seconds(act.not_before, 0.0):
                raise FailedError(f"too soon, after {since:.2f} s, came {one_line(came)}")
            open_patterns.remove(self._match(wanted, came))
        if worker.fragments - fragments < act.min_fragments:
            raise FailedError(f"awaited {act.min_fragments} fragments or more, came {worker.fragments - fragments}")

    def _match(self, wanted: list[worker_pb2.ExecutorMessage], came: worker_pb2.ExecutorMessage) -> Any:
        told = []
        for pattern in wanted:
            names = Names(dict(self._names.bound))
            found = differences(pattern, came, names)
            if not found:
                self._names = names
                return pattern
            lines = "\n".join(f"  {each}" for each in found)
            told.append(f"{lines}\n  awaited: {one_line(pattern)}\n  came:    {one_line(came)}")
        raise FailedError("\nor\n".join(told))

    async def _next(
        self, worker: PlayedWorker, seconds: float, *wanted: worker_pb2.ExecutorMessage
    ) -> worker_pb2.ExecutorMessage:
        """Give the next message; one that is shorter than what is awaited is joined with those that follow."""
        what = " or ".join(one_line(each, 200) for each in wanted)
        deadline = time.monotonic() + seconds
        joined: worker_pb2.ExecutorMessage | None = None
        while True:
            try:
                came = await asyncio.wait_for(worker.queue.get(), max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                if joined is not None:
                    return joined
                raise FailedError(f"{worker.name} awaited {what}, but nothing came within {seconds:.1f} s") from None
            if isinstance(came, FailedError):
                raise came
            if isinstance(came, Over):
                code, details, _ = await worker.status(EXPECT_SECONDS)
                raise FailedError(f"{worker.name} awaited {what}, but its stream was ended: {code} {details}")
            message = came[1]
            kind = message.WhichOneof("kind")
            if _may_come(message) and not any(_may_come(each) and each.WhichOneof("kind") == kind for each in wanted):
                continue
            if joined is None:
                joined = message
            elif not _join(joined, message):
                raise FailedError(f"{worker.name} awaited {what}, came {one_line(joined)} and {one_line(message)}")
            if not any(_is_longer(each, joined) for each in wanted):
                return joined

    async def _quiet(self, worker: PlayedWorker, act: case_pb2.Quiet) -> None:
        lasting = _seconds(act.lasting, 0.5)
        self._transcript.note(f"nothing may come to {worker.name} for {lasting:g} s")
        deadline = time.monotonic() + lasting
        while (left := deadline - time.monotonic()) > 0:
            try:
                came = await asyncio.wait_for(worker.queue.get(), left)
            except TimeoutError:
                return
            if isinstance(came, FailedError):
                raise came
            if isinstance(came, Over) or not _may_come(came[1]):
                what = "the end of the stream" if isinstance(came, Over) else one_line(came[1])
                raise FailedError(f"nothing should come, but there came {what}")

    # The client.

    async def _send_events(self, _: PlayedWorker, act: case_pb2.SendEvents) -> None:
        request = event_pb2.SendEventsRequest(events=act.events)
        for event in request.events:
            self._names.resolve(event)
            event.data.data = event.data.data or b"null"
        self._transcript.said("client", request)
        answer = await self._call("EventService/SendEvents", request, event_pb2.SendEventsResponse, act.code)
        if answer is None:
            return
        runs = [run_id for receipt in answer.receipts for run_id in receipt.run_ids]
        if len(runs) != len(act.runs):
            raise FailedError(f"{len(act.runs)} runs should begin, but {len(runs)} did")
        self._names.bound.update(zip(act.runs, runs, strict=True))

    async def _expect_run(self, _: PlayedWorker, act: case_pb2.ExpectRun) -> None:
        within = _seconds(act.within, EXPECT_SECONDS) * self._patience
        run_id = self._names.bound[act.run.id]
        request = run_pb2.GetRunRequest(run_id=run_id, include_steps=True, include_outputs=True)
        deadline = time.monotonic() + within
        while True:
            answer = await self._call("RunService/GetRun", request, run_pb2.GetRunResponse)
            found = differences(act.run, answer.run, self._names)
            if act.steps and not found:
                wanted = run_pb2.GetRunResponse(run=act.run, steps=act.steps)
                found = differences(wanted, answer, self._names)
            if not found:
                return
            if time.monotonic() > deadline:
                lines = "\n".join(f"  {each}" for each in found)
                raise FailedError(f"after {within:g} s the run is not as awaited:\n{lines}\n  {one_line(answer)}")
            await asyncio.sleep(POLL_SECONDS)

    async def _cancel_run(self, _: PlayedWorker, act: case_pb2.CancelRun) -> None:
        request = run_pb2.CancelRunRequest(run_id=self._names.bound[act.run], reason="the kit cancels it")
        self._transcript.said("client", request)
        await self._call("RunService/CancelRun", request, run_pb2.CancelRunResponse)

    async def _call(self, method: str, request: Any, answer: Any, code: str = "") -> Any:
        """Make a call, and give its answer; None if it is to fail with a code, and does."""
        call: Any = self._channel.unary_unary(
            f"/stepwire.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            given = await call(request, timeout=10 * self._patience)
        except grpc.aio.AioRpcError as error:
            if code and error.code().name == code:
                return None
            raise FailedError(f"{method} failed: {error.code().name} {error.details()}") from None
        if code:
            raise FailedError(f"{method} should fail with {code}, but there came {one_line(given)}")
        return given


def _with_x(message: worker_pb2.ExecutorMessage, act: case_pb2.ExpectOfExecutor) -> worker_pb2.ExecutorMessage:
    """Put the text of x into an act's last message: the output of its last entry, or the input of its last task."""
    filled = worker_pb2.ExecutorMessage()
    filled.CopyFrom(message)
    if act.x_bytes and message == act.messages[-1]:
        text = text_of_x(act.x_bytes)
        match message.WhichOneof("kind"):
            case "resume":
                filled.resume.entries[-1].output.CopyFrom(text)
            case "invoke":
                filled.invoke.journal[-1].output.CopyFrom(text)
            case "run_steps":
                filled.run_steps.attempts[-1].task.input.CopyFrom(text)
    return filled


def _may_come(message: worker_pb2.ExecutorMessage) -> bool:
    """Whether a message may come at any time: the answer to a heartbeat, and the Cancel of a run that is over."""
    if message.HasField("recorded"):
        return not message.recorded.ByteSize()
    return message.HasField("cancel") and not message.cancel.HasField("attempt")


def _lists(message: worker_pb2.ExecutorMessage) -> list[Any]:
    kind = message.WhichOneof("kind") or ""
    return [getattr(getattr(message, kind), name) for name in CONTENTS.get(kind, ())]


def _is_longer(pattern: worker_pb2.ExecutorMessage, came: worker_pb2.ExecutorMessage) -> bool:
    same_kind = pattern.WhichOneof("kind") == came.WhichOneof("kind")
    pairs = zip(_lists(pattern), _lists(came), strict=True) if same_kind else ()
    return any(len(wanted) > len(found) for wanted, found in pairs)


def _join(joined: worker_pb2.ExecutorMessage, more: worker_pb2.ExecutorMessage) -> bool:
    """Append a message to one of its kind; False if it is of another."""
    if joined.WhichOneof("kind") != more.WhichOneof("kind"):
        return False
    for left, right in zip(_lists(joined), _lists(more), strict=True):
        left.extend(right)
    return True


def _seconds(duration: Any, default: float) -> float:
    return float(duration.ToMilliseconds() / 1000 or default)
