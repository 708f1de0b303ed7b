"""Attacks by what a worker says on its stream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from benchmarks.attacks.target import (
    APP,
    Target,
    connected,
    event,
    found,
    frame,
    full,
    function,
    parts,
    step,
    with_run,
)
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

MOST_STEPS = 100_000
PAIRS_A_FRAME = 4_000
MOST_JOINED = 9_000_000
"""Just below what the executor joins of fragments."""
FAILING_STEPS = 8


async def unknown_runs(target: Target) -> None:
    """Report 100,000 steps of runs that nobody has, and come back when the stream is ended for it."""
    steps = [step(number, closure=opcode_pb2.ClosureTarget()) for number in range(MOST_STEPS)]
    report = opcode_pb2.StepsFound(run_id="0" * 26, steps=steps, invocation=1)
    data = worker_pb2.WorkerMessage(steps_found=report).SerializeToString()

    async def say() -> None:
        async with connected(target, slots=1) as worker:
            worker.want()
            while True:
                await worker.say_in_parts(data)

    target.begun.set()
    await target.again(say, 2)


async def invoked_and_given_up(target: Target) -> None:
    """Find steps that invoke a run, and give them up in the same frame, 4,000 times a frame."""

    async def report() -> None:
        async with with_run(target, function("parent", "parent"), function("child")) as (worker, invoke):
            target.begun.set()
            for first in range(0, MOST_STEPS, PAIRS_A_FRAME):
                messages: list[worker_pb2.WorkerMessage] = []
                for number in range(first, first + PAIRS_A_FRAME, 2):
                    planned = step(number, invoke=opcode_pb2.InvokeTarget(function_id="child"))
                    given_up = opcode_pb2.StepCancelled(
                        run_id=invoke.run_id, invocation=invoke.invocation, keys=[planned.key]
                    )
                    pair = (
                        worker_pb2.WorkerMessage(steps_found=found(invoke, [planned], quiescent=False)),
                        worker_pb2.WorkerMessage(step_cancelled=given_up),
                    )
                    messages += pair * 2
                await worker.frame(frame(*messages))
            finished = opcode_pb2.RunFinished(run_id=invoke.run_id, invocation=invoke.invocation)
            await worker.say(run_finished=finished)

    await target.again(report)


async def large_failures(target: Target) -> None:
    """Fail steps with 8 MB of message, stack and causes, again and again."""
    retry = value_pb2.RetryPolicy(
        retries=100, initial_interval=Duration(nanos=1_000_000), maximum_interval=Duration(nanos=1_000_000)
    )
    failure = value_pb2.Failure(type="E" * 100_000, message="m" * 1_000_000, stack="s" * 1_000_000, retryable=True)
    for _ in range(3):
        failure = value_pb2.Failure(
            type="E", message="m" * 1_000_000, stack="s" * 1_000_000, retryable=True, cause=failure
        )

    async def fail() -> None:
        async with with_run(target, function("failing", "failing", retry=retry)) as (worker, invoke):
            steps = [step(number, closure=opcode_pb2.ClosureTarget()) for number in range(FAILING_STEPS)]
            await worker.say(steps_found=found(invoke, steps))
            target.begun.set()
            left = FAILING_STEPS * (1 + retry.retries)
            while left:
                for start in (await worker.next("run_steps")).attempts:
                    failed = opcode_pb2.StepFailed(attempt=start.attempt, failure=failure)
                    await worker.say_in_parts(worker_pb2.WorkerMessage(step_failed=failed).SerializeToString())
                    left -= 1

    await target.again(fail)


async def steps_that_start_runs(target: Target) -> None:
    """Send 20 events in a step, each of which starts a thousand functions: as many runs as a step may start."""
    functions = [function(f"f{number}", "burst") for number in range(1_000 - 1)]

    async def send() -> None:
        async with with_run(target, function("sender", "sender"), *functions) as (worker, invoke):
            target.begun.set()
            for number in itertools.count():
                events = opcode_pb2.SendEventsTarget(events=[event("burst")] * 20)
                await worker.say(steps_found=found(invoke, [step(number, send_events=events)]))
                await asyncio.sleep(1)

    await target.again(send)


async def heartbeats(target: Target) -> None:
    """Beat as fast as can be, with the longest lag that there is and stacks that are cut."""
    lag = Duration(seconds=315_576_000_000)
    beats = [
        worker_pb2.Heartbeat(loop_lag=lag, live_invocations=(1 << 32) - 1),
        worker_pb2.Heartbeat(loop_lag=lag, blocking_stack="s\n" * 20_000),
    ]
    await beating(target, beats)


async def refused_heartbeats(target: Target) -> None:
    """Beat with a lag that no clock has, 1 MB a frame, and come back when the stream is ended for it."""
    lag = Duration(seconds=-(1 << 62), nanos=-1)
    beats = [worker_pb2.Heartbeat(loop_lag=lag), worker_pb2.Heartbeat(loop_lag=lag, blocking_stack="s" * 900_000)]
    await beating(target, beats)


async def beating(target: Target, beats: Sequence[worker_pb2.Heartbeat]) -> None:
    """Send frames full of these heartbeats, in turn, for ever."""
    frames = [full(worker_pb2.WorkerMessage(heartbeat=each)) for each in beats]
    numbers = itertools.count()

    async def beat() -> None:
        async with connected(target, slots=1) as worker:
            worker.want()
            target.begun.set()
            while True:
                await worker.frame(frames[next(numbers) % len(frames)])

    await target.again(beat)


async def large_hellos(target: Target) -> None:
    """Connect with labels, functions and tasks as many and as long as may be, under new names all the time."""
    numbers = itertools.count()
    labels = {f"{number}-".ljust(128, "k"): "v" * 256 for number in range(64)}
    tasks = [f"{number}-".ljust(256, "t") for number in range(1_000)]
    functions = [function(f"{number}-".ljust(250, "f"), f"{number}-".ljust(240, "e")) for number in range(1_000)]

    async def connect() -> None:
        name = f"{next(numbers)}-".ljust(128, "w")
        async with connected(
            target,
            instance_id=name,
            labels=labels,
            tasks=tasks,
            functions=functions,
            app_version=name,
            sdk_name=f"{APP}-".ljust(128, "s"),
            sdk_version="v" * 128,
            slots=10_000,
            max_invocations=(1 << 32) - 1,
        ):
            target.begun.set()

    await target.again(connect, 4)


async def small_fragments(target: Target) -> None:
    """Send a message in fragments of 2 bytes, a hundred thousand a frame."""
    data = full(worker_pb2.WorkerMessage(fragment=worker_pb2.Fragment(id=1, data=b"xx")))

    async def send() -> None:
        async with connected(target, slots=1) as worker:
            worker.want()
            target.begun.set()
            while True:
                await worker.frame(data)

    await target.again(send, 2)


async def unfinished_fragments(target: Target) -> None:
    """Send 9 MB in fragments of which the last never comes, on 40 streams."""
    frames = parts(b"x" * (MOST_JOINED + 1), 1)[:-1]
    ready = 0

    async def send() -> None:
        nonlocal ready
        async with connected(target, slots=1) as worker:
            worker.want()
            for data in frames:
                await worker.frame(data)
            worker.beat()
            ready += 1
            if ready >= 40:
                target.begun.set()
            await worker.over()

    async def begin() -> None:
        await asyncio.sleep(10)
        target.begun.set()

    await asyncio.gather(begin(), target.again(send, 40))
