"""One stream of a worker, as its handler, its reader and its writer share it; and how a stream is ended."""

from __future__ import annotations

import asyncio

from google.rpc import code_pb2, error_details_pb2, status_pb2

from stepwire_executor.access import EVERYBODY, Caller
from stepwire_executor.visible import one_line
from stepwire_proto.v1 import worker_pb2


class Ended(Exception):  # noqa: N818 - it need not be an error
    """Ends a stream with a status. `violation`: the field that is wrong, if there is one."""

    def __init__(self, code: str, message: str, violation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violation = violation


class Stream:
    """One stream of a worker. Its identity is the token that the core is given. Times are of the monotonic clock."""

    def __init__(self, now: float, caller: Caller = EVERYBODY) -> None:
        self.caller = caller
        self.session_id = ""
        self.instance_id = "a worker that has not said Hello"
        self.sdk_name = ""
        self.greeted = False
        self.messages: list[worker_pb2.ExecutorMessage] = []
        self.wake = asyncio.Event()
        self.ending: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.last_heard = now
        self.writing_since: float | None = None
        self.waits = False
        """Whether it is not read from just now, because the executor has enough to do, or the worker does not read."""
        self.fragment_id = 0

    @property
    def name(self) -> str:
        """Whose it is, for people."""
        return one_line(self.instance_id)

    @property
    def unread_bytes(self) -> int:
        """Size of what is queued."""
        return sum(message.ByteSize() for message in self.messages)

    def push(self, message: worker_pb2.ExecutorMessage) -> None:
        """Queue a message."""
        self.messages.append(message)
        self.wake.set()

    def end(self, code: str, message: str, violation: str = "") -> None:
        """End the stream after what is queued."""
        if not self.ending.done():
            self.ending.set_result(Ended(code, message, violation))


def status_details(code: str, message: str, violation: str) -> tuple[tuple[str, bytes], ...]:
    """Give trailing metadata with google.rpc details, if a field is to blame."""
    if not violation:
        return ()
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    details = error_details_pb2.BadRequest()
    details.field_violations.add(field=violation, description=message)
    status.details.add().Pack(details)
    return (("grpc-status-details-bin", status.SerializeToString()),)
