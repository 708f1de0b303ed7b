"""What the worker owes the executor: messages for the stream, and results kept until they are recorded.

Used from several threads: the user's loop and step threads put in, the transport takes out. It knows nothing of gRPC,
and nothing of what the messages mean but that a result belongs to an attempt in hand.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

Message = worker_pb2.WorkerMessage


class Outbox:
    """Attempts in hand, by fence, with their results; and a queue for the stream that is open.

    An attempt is in hand from `take` until `forget`: while it runs, and then while its result is unrecorded.
    `open` starts a stream with the results that are still kept; what else was queued for an earlier stream is gone.
    """

    def __init__(self, ready: threading.Condition | None = None) -> None:
        self._ready = ready or threading.Condition()
        self._queue: deque[Message] = deque()
        self._in_hand: dict[int, value_pb2.Attempt] = {}
        self._results: dict[int, Message] = {}
        self._plans: dict[int, opcode_pb2.StepsFound] = {}
        """Of lone steps in hand: the stream may be lost before the executor has read them."""
        self._no_more_plans = False
        self._named: set[int] = set()
        """Fences of the attempts that the last Hello has named."""
        self._stream = 0
        self._open = False
        self._closing = False
        self._heartbeat_queued = False

    @property
    def in_hand(self) -> int:
        """How many attempts are in hand."""
        return len(self._in_hand)

    def holds(self, fence: int) -> bool:
        """Whether an attempt is in hand."""
        return fence in self._in_hand

    @property
    def stream(self) -> int:
        """Number of the newest stream, from 1; 0 before the first."""
        return self._stream

    def take(self, stream: int, attempt: value_pb2.Attempt, plan: opcode_pb2.StepsFound | None = None) -> bool:
        """Take an attempt in hand, just before it starts; False if its stream is not open any more.

        It must not start then: the next Hello, which may be made already, does not name it. `plan` is that of a lone
        step, which must not start either once `last_plans` were given.
        """
        with self._ready:
            if not self._open or stream != self._stream or (plan is not None and self._no_more_plans):
                return False
            self._in_hand[attempt.fence] = attempt
            if plan is not None:
                self._plans[attempt.fence] = plan
            return True

    def forget(self, fences: Iterable[int]) -> None:
        """Drop attempts: recorded, refused, cancelled or given back. A result that is queued may still go out."""
        with self._ready:
            for fence in fences:
                self._drop(fence)

    def last_plans(self) -> Sequence[Message]:
        """Give the plans of the lone steps in hand: they are to be told before Draining, after which none begins."""
        with self._ready:
            self._no_more_plans = True
            return [Message(steps_found=plan) for plan in self._plans.values()]

    def surrender(self) -> Sequence[value_pb2.Attempt]:
        """Forget the attempts that have no result yet, and give them."""
        with self._ready:
            given = [attempt for fence, attempt in self._in_hand.items() if fence not in self._results]
            for attempt in given:
                self._drop(attempt.fence)
        return given

    def put(self, stream: int, messages: Iterable[tuple[int, Message]]) -> None:
        """Queue a batch: results with their fence, which are kept, and others with 0, which this stream alone is for.

        A result is left out if its attempt is no longer in hand, others if their stream is not open any more.
        """
        with self._ready:
            current = self._open and stream == self._stream
            for fence, message in messages:
                if not fence:
                    if current:
                        self._queue.append(message)
                elif fence in self._in_hand:
                    self._results[fence] = message
                    if self._open:
                        self._queue.append(message)
            self._ready.notify()

    def report(self, fence: int, result: Message) -> None:
        """Keep one result and queue it; nothing happens if its attempt is no longer in hand."""
        self.put(0, [(fence, result)])

    def send_heartbeat(self, heartbeat: Message) -> None:
        """Queue a heartbeat, unless one is still waiting to be written."""
        with self._ready:
            if self._open and not self._heartbeat_queued:
                self._heartbeat_queued = True
                self._queue.appendleft(heartbeat)
                self._ready.notify()

    def _drop(self, fence: int) -> None:
        self._in_hand.pop(fence, None)
        self._results.pop(fence, None)
        self._plans.pop(fence, None)

    def holdings(self, most: int) -> tuple[Sequence[value_pb2.Attempt], Sequence[opcode_pb2.StepsFound]]:
        """Give what a Hello names: at most so many attempts in hand, and the plans of lone steps among them.

        Running ones come first, then the newest results: the executor is the least likely to have read those.
        """
        with self._ready:
            running = [attempt for fence, attempt in self._in_hand.items() if fence not in self._results]
            reported = [self._in_hand[fence] for fence in reversed(self._results)]
            named = (running + reported)[:most]
            self._named = {attempt.fence for attempt in named}
            return named, [plan for fence, plan in self._plans.items() if fence in self._named]

    def open(self, unwanted: Iterable[int] = ()) -> int:
        """Start the next stream with the results of the attempts that its Hello has named. Gives its number.

        What the executor does not want is forgotten, and what it was not told of: it takes that for gone.
        """
        with self._ready:
            for fence in (self._in_hand.keys() - self._named) | set(unwanted):
                self._drop(fence)
            self._queue.clear()
            self._queue.extend(self._results.values())
            self._stream += 1
            self._open = True
            self._heartbeat_queued = False
            self._ready.notify_all()
            return self._stream

    def shut(self) -> None:
        """The stream is gone: whatever waits for something to write is told so."""
        with self._ready:
            self._open = False
            self._queue.clear()
            self._ready.notify_all()

    def finish(self) -> None:
        """Nothing more will come: the writer takes what is queued and then ends. Holds for later streams too."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()

    def next_batch(self, stream: int) -> Sequence[Message]:
        """Block until something is queued for this stream and take all of it; empty when the stream is to end."""
        with self._ready:
            while (batch := self.poll(stream)) is None:
                self._ready.wait()
            return batch

    def poll(self, stream: int) -> Sequence[Message] | None:
        """Take what is queued for this stream; empty when the stream is to end, None when nothing is queued yet."""
        with self._ready:
            if not self._open or stream != self._stream:
                return ()
            if not self._queue:
                return () if self._closing else None
            batch = list(self._queue)
            self._queue.clear()
            self._heartbeat_queued = False
            return batch
