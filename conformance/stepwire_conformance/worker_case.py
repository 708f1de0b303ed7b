"""One case against one worker process: its acts, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from stepwire_conformance.cases import one_line
from stepwire_conformance.filling import UNKNOWN_FRAME_PART, Filler, repeated, text_of_x, welcome
from stepwire_conformance.patterns import Names, differences, not_zero
from stepwire_conformance.played_executor import Ended, PlayedExecutor, PlayedStream, Received
from stepwire_conformance.process import START_SECONDS, Process
from stepwire_conformance.rules import SLACK_SECONDS
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_proto.conformance.v1 import case_pb2
from stepwire_proto.v1 import worker_pb2

Given = TypeVar("Given")
ACCEPT_SECONDS = 15.0
"""How long a worker may take to come back."""
EXIT_SECONDS = 10.0
EXPECT_SECONDS = 5.0
OPTIONAL_SECONDS = 0.4
"""How long the last message of an act is waited for if it may be missing."""
HTTP2_CODES = {
    case_pb2.Reset.HOW_STREAM_NO_ERROR: 0,
    case_pb2.Reset.HOW_STREAM_INTERNAL: 2,
    case_pb2.Reset.HOW_STREAM_CANCEL: 8,
}


class WorkerConversation:
    """Plays the executor's side of a case. `patience` stretches every time that is waited for something."""

    def __init__(self, executor: PlayedExecutor, process: Process, transcript: Transcript, patience: float) -> None:
        self._executor = executor
        self._process = process
        self._transcript = transcript
        self._patience = patience
        self._filler = Filler()
        self._names = Names()
        self._stream: PlayedStream | None = None
        self._lost_at = 0.0
        self.hello: worker_pb2.Hello | None = None
        """The first one."""

    async def play(self, case: case_pb2.WorkerCase) -> None:
        """Do all acts. Raises FailedError."""
        acts: dict[str, Callable[[Any], Awaitable[None]]] = {
            "accept": self._accept,
            "send": self._send,
            "expect": self._expect,
            "quiet": self._quiet,
            "expect_heartbeats": self._expect_heartbeats,
            "reset": self._reset,
            "end": self._end,
            "go_silent": self._go_silent,
            "go_down": self._go_down,
            "terminate": self._terminate,
            "expect_end": self._expect_end,
            "expect_exit": self._expect_exit,
        }
        for number, act in enumerate(case.acts, 1):
            kind = act.WhichOneof("kind") or ""
            try:
                await acts[kind](getattr(act, kind))
            except FailedError as failure:
                raise FailedError(f"act {number} ({kind}): {failure}") from None
        self._check_the_end()

    def _check_the_end(self) -> None:
        """Nothing may be left that no act has asked for."""
        if self._stream is not None and not self._stream.lost:
            for breach in self._executor.rules.silence(self._stream.rules):
                raise FailedError(breach)
            while not self._stream.queue.empty():
                left = self._stream.queue.get_nowait()
                if isinstance(left, FailedError):
                    raise left
                if isinstance(left, Received) and not _may_come(left):
                    raise FailedError(f"in the end a message came that nothing awaited: {one_line(left.message)}")
        if not self._executor.streams.empty():
            raise FailedError("the worker has opened one stream more than the case awaits")

    # Streams.

    async def _accept(self, act: case_pb2.Accept) -> None:
        if self._stream is not None:
            self._stream.lost = True
        comes_back = self.hello is not None
        seconds = ACCEPT_SECONDS if comes_back else START_SECONDS
        stream = await self._wait(self._executor.streams.get(), act, seconds, "a stream")
        since = self._transcript.seconds - self._lost_at
        if since < _seconds(act.not_before, 0.0):
            raise FailedError(f"the stream came {since:.2f} s after the last one was lost, which is too soon")
        self._stream = stream
        first = await self._next(stream, act, EXPECT_SECONDS, "Hello")
        if not first.message.HasField("hello"):
            raise FailedError(f"awaited Hello, came {one_line(first.message)}")
        hello = first.message.hello
        breaches = [*self._executor.rules.hello(hello), *differences(act.hello, hello), *not_zero(hello, act.zero)]
        if breaches:
            raise FailedError(_told(breaches, act.hello, hello))
        self.hello = self.hello or hello
        if act.HasField("refuse"):
            await self._end(act.refuse)
            return
        answer = welcome(act.welcome)
        stream.max_frame_bytes = answer.limits.max_frame_bytes
        stream.rules.interval = answer.heartbeat_interval.ToMilliseconds() / 1000
        message = worker_pb2.ExecutorMessage(welcome=answer)
        self._transcript.said("executor", message)
        await stream.send([message])

    async def _reset(self, act: case_pb2.Reset) -> None:
        stream = self._open_stream()
        how = act.how or case_pb2.Reset.HOW_CONNECTION
        self._transcript.note(f"the stream is broken: {case_pb2.Reset.How.Name(how)}")
        self._lose(stream)
        if how in HTTP2_CODES:
            stream.connection.reset_stream(HTTP2_CODES[how])
        elif how == case_pb2.Reset.HOW_CONNECTION_END:
            stream.connection.end()
        else:
            stream.connection.reset()

    async def _end(self, act: case_pb2.EndStream) -> None:
        stream = self._open_stream()
        self._transcript.note(f"the executor ends the stream: {act.code} {act.message}")
        self._lose(stream)
        stream.end(grpc.StatusCode[act.code], act.message)

    async def _go_silent(self, act: case_pb2.GoSilent) -> None:
        stream = self._open_stream()
        self._transcript.note("the connection is dead" if act.dead else "the executor says nothing more")
        self._lose(stream)
        stream.answers = False
        if act.dead:
            stream.connection.freeze()

    async def _go_down(self, act: case_pb2.GoDown) -> None:
        lasting = _seconds(act.lasting, 0.0)
        self._transcript.note(f"the executor is down for {lasting:g} s")
        if self._stream is not None:
            self._lose(self._stream)
        self._executor.proxy.go_down()
        await asyncio.sleep(lasting)
        await self._executor.proxy.listen()

    def _lose(self, stream: PlayedStream) -> None:
        stream.lost = True
        self._lost_at = self._transcript.seconds

    def _open_stream(self) -> PlayedStream:
        if self._stream is None or self._stream.lost:
            raise FailedError("the case is wrong: no stream is open here")
        return self._stream

    # Messages.

    async def _send(self, act: case_pb2.Send) -> None:
        stream = self._open_stream()
        messages = self._filler.messages(act)
        for message in messages:
            self._names.resolve(message)
            self._executor.rules.sent(message)
            self._transcript.said("executor", message)
        await stream.send(messages, act.fragment_bytes, UNKNOWN_FRAME_PART if act.unknown_kinds else b"")

    async def _expect(self, act: case_pb2.Expect) -> None:
        stream = self._open_stream()
        open_patterns = list(act.messages)
        while open_patterns:
            wanted = open_patterns if act.any_order else open_patterns[:1]
            what = " or ".join(one_line(each.message, 200) for each in wanted)
            if all(each.optional for each in open_patterns) and not await self._comes(stream):
                return
            came = await self._next(stream, act, EXPECT_SECONDS, what)
            candidates = wanted
            if not act.any_order:
                required = next((n for n, each in enumerate(open_patterns) if not each.optional), len(open_patterns))
                candidates = open_patterns[: required + 1]
            if _may_come(came) and not any(each.message.HasField("evicted") for each in candidates):
                continue
            told = []
            for pattern in candidates:
                names = Names(dict(self._names.bound))
                found = _mismatch(pattern, came, names)
                if not found:
                    self._names = names
                    passed_over = open_patterns.index(pattern) if not act.any_order else 0
                    del open_patterns[:passed_over]
                    open_patterns.remove(pattern)
                    break
                told.append(_told(found, pattern.message, came.message))
            else:
                raise FailedError("\nor\n".join(told))

    async def _quiet(self, act: case_pb2.Quiet) -> None:
        stream = self._open_stream()
        lasting = _seconds(act.lasting, 0.5)
        self._transcript.note(f"nothing may come for {lasting:g} s")
        deadline = asyncio.get_running_loop().time() + lasting
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                came = await asyncio.wait_for(stream.queue.get(), left)
            except TimeoutError:
                break
            if isinstance(came, FailedError):
                raise came
            if not _may_come(came):
                what = one_line(came.message) if isinstance(came, Received) else "the end of the stream"
                raise FailedError(f"nothing should come, but there came {what}")
        for breach in self._executor.rules.silence(stream.rules):
            raise FailedError(breach)

    async def _expect_heartbeats(self, act: case_pb2.ExpectHeartbeats) -> None:
        stream = self._open_stream()
        while not stream.heartbeats.empty():
            stream.heartbeats.get_nowait()
        last, count = self._transcript.seconds, 0
        lag = _seconds(act.loop_lag, 0.0)
        deadline = last + _seconds(act.within, EXPECT_SECONDS) * self._patience
        unlike = ["none came"]
        while count < max(1, act.count) or unlike:
            left = min(deadline - self._transcript.seconds, 1.5 * stream.rules.interval + SLACK_SECONDS)
            try:
                at, heartbeat = await asyncio.wait_for(stream.heartbeats.get(), max(left, 0.01))
            except TimeoutError:
                raise FailedError(
                    f"awaited a heartbeat like {one_line(act.heartbeat) or 'any'} within {left:.1f} s of the last one;"
                    f" {count} came, and of the last one: {'; '.join(unlike) or 'nothing is wrong'}"
                ) from None
            count, last = count + 1, at
            unlike = [*differences(act.heartbeat, heartbeat), *not_zero(heartbeat, act.zero)]
            if lag and heartbeat.loop_lag.ToMilliseconds() / 1000 < lag:
                unlike.append(f"loop_lag: awaited {lag:g} s or more, came {heartbeat.loop_lag.ToMilliseconds()} ms")

    # The process.

    async def _terminate(self, _: case_pb2.Terminate) -> None:
        self._transcript.note("SIGTERM is sent to the worker")
        self._process.terminate()

    async def _expect_end(self, act: case_pb2.ExpectEnd) -> None:
        stream = self._open_stream()
        came = await self._wait(stream.queue.get(), act, EXPECT_SECONDS, "the end of the stream")
        while _may_come(came) or _is_last_word(came):
            came = await self._wait(stream.queue.get(), act, EXPECT_SECONDS, "the end of the stream")
        if isinstance(came, FailedError):
            raise came
        if isinstance(came, Received):
            raise FailedError(f"awaited the end of the stream, came {one_line(came.message)}")
        self._lose(stream)

    async def _expect_exit(self, act: case_pb2.ExpectExit) -> None:
        within = _seconds(act.within, EXIT_SECONDS) * self._patience
        try:
            code = await asyncio.wait_for(self._process.ended(), within)
        except TimeoutError:
            raise FailedError(f"the process should end, but still runs after {within:g} s") from None
        self._transcript.note(f"the process has ended with exit code {code}")
        if (code == 0) != act.success or code < 0:
            raise FailedError(
                f"the process ended with exit code {code}; it must be {'0' if act.success else 'another than 0'}"
            )
        if act.says and act.says not in self._process.output:
            raise FailedError(f"the output of the process does not hold {act.says!r}")
        if self._stream is not None:
            self._lose(self._stream)

    # Waiting.

    async def _comes(self, stream: PlayedStream) -> bool:
        """Say whether something comes soon."""
        for _ in range(10):
            if not stream.queue.empty():
                return True
            await asyncio.sleep(OPTIONAL_SECONDS / 10)
        return False

    async def _next(self, stream: PlayedStream, act: Any, seconds: float, what: str) -> Received:
        came = await self._wait(stream.queue.get(), act, seconds, what)
        if isinstance(came, FailedError):
            raise came
        if isinstance(came, Ended):
            raise FailedError(f"awaited {what}, but the worker has ended the stream")
        return came

    async def _wait(self, given: Awaitable[Given], act: Any, seconds: float, what: str) -> Given:
        """Wait for something; the end of the process ends the wait too, soon after."""
        limit = _seconds(act.within, seconds) * self._patience
        ended = asyncio.ensure_future(self._process.ended())
        wanted = asyncio.ensure_future(given)
        try:
            await asyncio.wait({ended, wanted}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done() and ended.done():
                await asyncio.wait({wanted}, timeout=0.5)
            if wanted.done():
                return wanted.result()
            if ended.done():
                raise FailedError(f"awaited {what}, but the process has ended with exit code {ended.result()}")
            raise FailedError(f"awaited {what}, but nothing came within {limit:g} s")
        finally:
            ended.cancel()
            wanted.cancel()


def _may_come(came: object) -> bool:
    """Whether something may come at any time: a worker is free to drop bodies, and says Evicted."""
    return isinstance(came, Received) and came.message.HasField("evicted")


def _is_last_word(came: object) -> bool:
    """Whether a worker says that its drain is done, as it may before it ends its side."""
    draining = came.message.draining if isinstance(came, Received) else worker_pb2.Draining()
    return draining.done and not draining.returned_attempts


def _mismatch(pattern: case_pb2.Pattern, came: Received, names: Names) -> list[str]:
    wanted = pattern.message
    if pattern.step_count:
        wanted = repeated(wanted, pattern.step_count)
    kind = wanted.WhichOneof("kind")
    if kind != came.message.WhichOneof("kind"):
        return [f"awaited {kind}, came {came.message.WhichOneof('kind')}"]
    if pattern.output_x_bytes:
        wanted = worker_pb2.WorkerMessage()
        wanted.CopyFrom(pattern.message)
        getattr(wanted, kind or "").output.CopyFrom(text_of_x(pattern.output_x_bytes))
    found = differences(wanted, came.message, names) + not_zero(came.message, pattern.zero)
    if came.pages < pattern.min_pages:
        found.append(f"{kind}: awaited {pattern.min_pages} pages or more, came {came.pages}")
    return found


def _told(found: list[str], wanted: Any, came: Any) -> str:
    lines = "\n".join(f"  {each}" for each in found)
    return f"{lines}\n  awaited: {one_line(wanted)}\n  came:    {one_line(came)}"


def _seconds(duration: Duration, default: float) -> float:
    return duration.ToMilliseconds() / 1000 or default
