"""All cases against one executor, which is there already or is started for them. Each case has an app of its own."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc

from stepwire_conformance.cases import Named
from stepwire_conformance.executor_case import ExecutorConversation
from stepwire_conformance.process import START_SECONDS, Process
from stepwire_conformance.report import Outcome, Report, Result
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_proto.conformance.v1 import case_pb2

DEFAULT_AT_ONCE = 4


async def run_executor_cases(
    address: str,
    cases: Sequence[Named[case_pb2.ExecutorCase]],
    *,
    at_once: int = DEFAULT_AT_ONCE,
    patience: float = 1.0,
    told: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run cases against the executor at HOST:PORT; `told` is given each result as it comes."""
    report = Report(f"the executor at {address}")
    waiting = list(reversed(cases))

    async def lane() -> None:
        while waiting:
            result = await run_executor_case(address, waiting.pop(), patience)
            report.results.append(result)
            told(result)

    await asyncio.gather(*[lane() for _ in range(max(1, at_once))])
    report.results.sort(key=lambda result: result.name)
    return report


async def run_executor_case(address: str, named: Named[case_pb2.ExecutorCase], patience: float = 1.0) -> Result:
    """Run one case."""
    transcript = Transcript()
    conversation = ExecutorConversation(address, transcript, patience)
    why = ""
    try:
        await conversation.play(named.case)
    except FailedError as failure:
        why = str(failure)
    finally:
        await conversation.close()
    outcome = Outcome.FAILED if why else Outcome.PASSED
    return Result(named.name, named.case.shows, named.case.rule, outcome, transcript.seconds, why, transcript.lines)


@asynccontextmanager
async def started_executor(command: Sequence[str], patience: float = 1.0) -> AsyncIterator[str]:
    """Start an executor by a command, with STEPWIRE_* variables that say where it listens; gives its HOST:PORT.

    Raises FailedError if it takes no calls.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="stepwire-conformance-") as folder:
        variables = {
            "STEPWIRE_HOST": "127.0.0.1",
            "STEPWIRE_PORT": str(port),
            "STEPWIRE_STORE": f"sqlite:///{folder}/conformance.db",
            "STEPWIRE_HEARTBEAT_INTERVAL": "1s",
            "STEPWIRE_SESSION_GRACE": "1s",
        }
        process = Process(command, variables)
        try:
            await process.start()
            await _ready(process, f"127.0.0.1:{port}", patience)
            yield f"127.0.0.1:{port}"
        finally:
            await process.destroy()


async def _ready(process: Process, address: str, patience: float) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        ready = asyncio.ensure_future(channel.channel_ready())
        ended = asyncio.ensure_future(process.ended())
        await asyncio.wait({ready, ended}, timeout=START_SECONDS * patience, return_when=asyncio.FIRST_COMPLETED)
        good = ready.done()
        ready.cancel()
        ended.cancel()
        if not good:
            raise FailedError(
                f"no executor came to {address}; the process wrote:\n{process.output.rstrip() or 'nothing'}"
            )
