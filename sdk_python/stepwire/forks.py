"""What a forked child must know: that it is one, and whether gRPC can be used in it. Knows nothing of gRPC itself.

A child has none of its parent's threads, and its parent's connections are not its own.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import NoReturn

from stepwire import lazy_grpc
from stepwire.errors import StepwireError

generation = 0
"""How many forks lie between this process and the one that was started."""
uses_grpc = False
"""Whether this process, or one that it was forked from, has opened a channel."""
streams = False
"""Whether it has held a stream, or made asyncio calls: gRPC has threads then that a fork tears apart."""
calling: set[int] = set()
"""Threads that are in a call."""
_torn = False
_left: list[object] = []
"""Channels of the parent. They are never closed here: that may wait for threads which this process does not have."""


def opened(*, for_streams: bool) -> None:
    """Note that a channel is opened in this process. Raises StepwireError in a child where gRPC would hang."""
    global uses_grpc, streams
    if _torn:
        raise StepwireError(
            "gRPC was in use in this process's parent when it was forked, and would hang here: start the process with "
            'multiprocessing\'s "spawn" or "forkserver", or with subprocess, or fork before the first client is used'
        )
    uses_grpc = True
    streams = streams or for_streams


def check(born: int) -> None:
    """Raise StepwireError for a client that was used before this process was forked; `born` is its generation."""
    if born != generation:
        raise StepwireError(
            "this client was used before its process was forked, and its connections are the parent's: "
            "make a new client in the child"
        )


def leave_to_parent(channel: object) -> None:
    """Keep a channel of the parent from being closed."""
    _left.append(channel)


def end_child(error: BaseException | None) -> NoReturn:
    """End a forked child that came back out of user code: it must not go on as a copy of its parent."""
    code = 0 if error is None else 1
    try:
        if error is not None and issubclass(type(error), SystemExit):
            said = error.code  # type: ignore[attr-defined]
            code = said if isinstance(said, int) else 0 if said is None else 1
            if isinstance(said, str):
                sys.stderr.write(f"{said}\n")
        elif error is not None:
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:  # whatever the exception does when it is written
        os._exit(code)


def _begin_child() -> None:
    global generation, _torn
    generation += 1
    others = calling - {threading.get_ident()}
    calling.clear()
    _torn = _torn or (uses_grpc and (streams or bool(others) or not lazy_grpc.has_fork_support))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
