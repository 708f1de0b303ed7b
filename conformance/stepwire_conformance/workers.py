"""All cases against a worker command: a fresh process for each, several at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from stepwire_conformance.cases import Named
from stepwire_conformance.played_executor import PlayedExecutor
from stepwire_conformance.process import Process
from stepwire_conformance.report import Outcome, Report, Result
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_conformance.worker_case import WorkerConversation
from stepwire_proto.conformance.v1 import case_pb2
from stepwire_proto.v1 import worker_pb2

DEFAULT_AT_ONCE = max(2, os.cpu_count() or 1) + 2
"""Most cases wait for something most of the time."""
LOOK = case_pb2.WorkerCase(acts=[case_pb2.WorkerAct(accept=case_pb2.Accept())])


async def run_worker_cases(
    command: Sequence[str],
    cases: Sequence[Named[case_pb2.WorkerCase]],
    *,
    at_once: int = DEFAULT_AT_ONCE,
    patience: float = 1.0,
    told: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run cases against a worker command; `told` is given each result as it comes.

    `patience` stretches all times that something is waited for. Raises FailedError if the command brings no worker.
    """
    hello = await _look(command, patience)
    report = Report(f"{hello.sdk_name or 'a worker'} {hello.sdk_version}".strip())
    waiting = list(reversed(cases))

    async def lane() -> None:
        while waiting:
            named = waiting.pop()
            missing = lacks(hello, named.case.needs)
            if missing:
                result = Result(named.name, named.case.shows, named.case.rule, Outcome.NOT_OFFERED, why=missing)
            else:
                result = await run_worker_case(command, named, patience)
            report.results.append(result)
            told(result)

    await asyncio.gather(*[lane() for _ in range(max(1, at_once))])
    report.results.sort(key=lambda result: result.name)
    return report


async def run_worker_case(command: Sequence[str], named: Named[case_pb2.WorkerCase], patience: float = 1.0) -> Result:
    """Run one case against a fresh process."""
    transcript = Transcript()
    why, output, _ = await _play(command, named.case, transcript, patience)
    outcome = Outcome.FAILED if why else Outcome.PASSED
    lines = transcript.lines
    return Result(named.name, named.case.shows, named.case.rule, outcome, transcript.seconds, why, lines, output)


def lacks(hello: worker_pb2.Hello, needs: case_pb2.Needs) -> str:
    """Say what a worker does not offer of what a case needs; "" if it offers all."""
    offered = {function.id for function in hello.functions}
    names = worker_pb2.Capability.Name
    missing = [f"function {each}" for each in needs.functions if each not in offered]
    missing += [f"task {each}" for each in needs.tasks if each not in hello.tasks]
    missing += [names(each) for each in needs.capabilities if each not in hello.capabilities]
    return f"the worker has no {', no '.join(missing)}" if missing else ""


async def _look(command: Sequence[str], patience: float) -> worker_pb2.Hello:
    """See what the worker offers."""
    why, output, hello = await _play(command, LOOK, Transcript(), patience)
    if hello is None:
        raise FailedError(f"no worker came: {why}\nthe process wrote:\n{output.rstrip() or 'nothing'}")
    return hello


async def _play(
    command: Sequence[str], case: case_pb2.WorkerCase, transcript: Transcript, patience: float
) -> tuple[str, str, worker_pb2.Hello | None]:
    """Play a case; gives why it failed, what the process wrote, and its first Hello."""
    async with PlayedExecutor(transcript) as executor:
        variables = {"STEPWIRE_EXECUTOR": executor.address, "STEPWIRE_CONFORMANCE": "1"}
        process = Process(command, variables)
        conversation = WorkerConversation(executor, process, transcript, patience)
        why = ""
        try:
            await process.start()
            await conversation.play(case)
        except FailedError as failure:
            why = str(failure)
        finally:
            output = process.output
            await process.destroy()
        return why, output, conversation.hello
