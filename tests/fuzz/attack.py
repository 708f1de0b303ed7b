"""What all attackers of a run share: how many messages there are to be, their pace, what was sent last.

Each attacker has dice of its own, made of the run's seed and its name.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message
from grpc._cython.cygrpc import ExecuteBatchError  # type: ignore[import-not-found]

BROKEN = (grpc.aio.AioRpcError, asyncio.InvalidStateError, ExecuteBatchError)
"""What gRPC's client raises if a call has ended that is written to."""
LAST = 400
"""Messages that are kept, to be shown with what they have led to."""
LONGEST_SHOWN = 4_000


WRITTEN_TOO_LATE = "Internal error from Core"
"""What gRPC's client says itself, with INTERNAL, when it wanted to write as the call ended."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was sent. `kind` is its type, or that of which it was made before it was damaged."""

    number: int
    at: float
    """By the monotonic clock."""
    who: str
    kind: type[Message]
    data: bytes

    def __str__(self) -> str:
        head = f"message {self.number} of {self.who}: {self.kind.DESCRIPTOR.full_name}, {len(self.data)} bytes"
        try:
            text = text_format.MessageToString(self.kind.FromString(self.data), as_utf8=False)
        except DecodeError:
            text = "(it can't be parsed)\n"
        if len(text) > LONGEST_SHOWN:
            text = text[:LONGEST_SHOWN] + "[…]\n"
        return f"{head}\n{text}"

    def line(self) -> str:
        """Write it for a file, whole."""
        data = base64.b64encode(self.data).decode()
        return f"{self.number} {self.at:.6f} {self.who} {self.kind.DESCRIPTOR.full_name} {data}"


class Attack:
    """Counts and keeps what attackers do.

    It ends after so many `messages`, or so many `seconds`, whatever is given and comes first. `rate` is the most
    messages a second, 0 for as many as go.
    """

    def __init__(self, seed: int, *, messages: int = 0, seconds: float = 0.0, rate: float = 0.0) -> None:
        self.seed = seed
        self.count = 0
        self.messages = messages
        self.seconds = seconds
        self.rate = rate
        self.began = time.monotonic()
        self.last: deque[Sent] = deque(maxlen=LAST)
        self.kinds: Counter[str] = Counter()
        """What was sent, by kind."""
        self.heard: Counter[str] = Counter()
        """What came back: kinds of messages."""
        self.ends: Counter[str] = Counter()
        """The codes of calls and streams."""
        self.wrong: list[str] = []
        self._going = asyncio.Event()
        self._going.set()
        self.pauses: list[tuple[float, float]] = []
        """When nobody attacked: begin and end of each pause, by the monotonic clock."""

    def begin(self) -> None:
        """Count the time from now on."""
        self.began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent."""
        return (
            bool(self.wrong)
            or (self.messages > 0 and self.count >= self.messages)
            or (self.seconds > 0 and self.now >= self.seconds)
        )

    def dice(self, *what: object) -> random.Random:
        """Give the dice for something, e.g. for an attacker with a number."""
        return random.Random(f"{self.seed} {what}")

    async def pace(self) -> None:
        """Wait until the next message may go."""
        await self._going.wait()
        paused = sum(end - begin for begin, end in self.pauses)
        ahead = self.count / self.rate - (self.now - paused) if self.rate else 0.0
        await asyncio.sleep(max(0.0, ahead))

    async def pause(self, seconds: float) -> None:
        """Let nobody attack for some seconds."""
        begin = time.monotonic()
        self._going.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.pauses.append((begin, time.monotonic()))
            self._going.set()

    def sent(self, who: str, kind: type[Message], data: bytes, what: str) -> None:
        """Note a message that is about to be sent. `what` is said of it in the sums."""
        self.count += 1
        self.kinds[what] += 1
        self.last.append(Sent(self.count, time.monotonic(), who, kind, data))

    async def read(self, call: Any, take: Callable[[bytes], None], what: str, whose: str) -> None:
        """Take all that comes on a call or stream, and note how it ends."""
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                take(data)
            code, details = await call.code(), await call.details()
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details()
        except asyncio.CancelledError:
            code, details = grpc.StatusCode.CANCELLED, ""
        self.ended(what, code, details, whose)

    def ended(self, what: str, code: grpc.StatusCode, details: str | None, whose: str) -> None:
        """Note how a call or stream has ended; INTERNAL and UNKNOWN tell of a fault of the server."""
        if details == WRITTEN_TOO_LATE:
            self.ends[f"{what} as it was written to"] += 1
            return
        self.ends[f"{what} {code.name}"] += 1
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            self.found(f"{whose} has ended with {code.name}: {details}")

    def found(self, what: str) -> None:
        """Say that something is wrong: the attack is over."""
        self.wrong.append(what)

    def save(self, file: Path) -> None:
        """Write the last messages into a file."""
        file.write_text("".join(f"{sent.line()}\n" for sent in self.last))
