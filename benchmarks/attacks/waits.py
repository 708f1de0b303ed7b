"""Attacks by what has to be looked up or shown: waits for events, watched runs."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc

from benchmarks.attacks.target import SEND_EVENTS, Target, event, found, function, sent, step, with_run
from stepwire_proto.v1 import opcode_pb2, run_pb2

STEPS, WATCHERS = 20_000, 50
STEPS_A_PAGE = 1_000
PATHS = 1_000
EVENTS, EVENT_BYTES, EVENTS_A_CALL = 5_000, 100_000, 100
LOOK_UPS = 50


def wait(number: int, name: str, paths: Sequence[str]) -> opcode_pb2.StepPlanned:
    """Make a step that waits for an event with a value at these paths, which none has."""
    fields = [opcode_pb2.FieldMatch(path=path, json_value='"none"') for path in paths]
    return step(number, wait_for_event=opcode_pb2.WaitForEventTarget(event_name=name, fields=fields))


async def watchers(target: Target) -> None:
    """Watch a run of 20,000 steps, which changes all the time, by 50 calls."""
    nobody = opcode_pb2.TaskTarget(name="nobody")

    async def read(channel: grpc.aio.Channel, request: bytes) -> None:
        while True:
            made: Any = channel.unary_stream("/stepwire.v1.RunService/WatchRun")
            call = made(request, metadata=target.token)
            try:
                async for _ in call:
                    target.outcomes["shown"] += 1
            except grpc.aio.AioRpcError as error:
                await target.note(error.code())

    async def change() -> None:
        async with with_run(target, function("watched", "watched")) as (worker, invoke), target.channel() as channel:
            worker.want()
            for first in range(0, STEPS, STEPS_A_PAGE):
                steps = [step(number, task=nobody) for number in range(first, first + STEPS_A_PAGE)]
                await worker.say(steps_found=found(invoke, steps))
            request = run_pb2.WatchRunRequest(run_id=invoke.run_id).SerializeToString()
            reading = [asyncio.create_task(read(channel, request)) for _ in range(WATCHERS)]
            target.begun.set()
            for number in itertools.count(STEPS):
                await worker.say(steps_found=found(invoke, [step(number, task=nobody)]))
                await asyncio.sleep(0.05)
                if all(task.done() for task in reading):
                    return

    await target.again(change)


async def wait_paths(target: Target) -> None:
    """Send events of 1 MB for whose name a thousand waits have eight paths each, of which no two have the same."""
    large = json.dumps({"deep": {f"k{number}": {"x": "v" * 85} for number in range(PATHS * 8 + 1)}}).encode()

    async def attack() -> None:
        async with AsyncExitStack() as held:
            for first in range(0, PATHS, 100):  # as many as a run may have
                name = f"waiting-{first}"
                worker, invoke = await held.enter_async_context(with_run(target, function(name, name)))
                worker.want()
                waits = []
                for number in range(first, first + 100):
                    paths = [f"deep.k{each}.x" for each in range(number * 8, number * 8 + 8)]
                    waits.append(wait(number, "attacker/paths", paths))
                await worker.say(steps_found=found(invoke, waits))
            await target.flood(SEND_EVENTS, [sent(*[event("paths", large)] * 4)], 2)

    await target.again(attack)


async def look_ups(target: Target) -> None:
    """Look for events among 5,000 of 100 kB that came before, by fifty waits with paths of their own."""

    async def attack() -> None:
        async with with_run(target, function("looking", "looking")) as (worker, invoke):
            worker.want()
            body = sent(*[event("past", b'{"pad": "' + b"x" * EVENT_BYTES + b'"}')] * EVENTS_A_CALL)
            async with target.channel() as channel:
                for _ in range(EVENTS // EVENTS_A_CALL):
                    await target.call(channel, SEND_EVENTS, body)
            target.begun.set()
            waits = [wait(number, "attacker/past", [f"p{number}"]) for number in range(LOOK_UPS)]
            await worker.say(steps_found=found(invoke, waits))
            await worker.over()

    await target.again(attack)


async def many_waits(target: Target) -> None:
    """Send events each of which fits every one of the 20,000 waits of a run."""
    match = opcode_pb2.FieldMatch(path="n", json_value="0")
    wait_for = opcode_pb2.WaitForEventTarget(event_name="attacker/many", fields=[match])

    async def attack() -> None:
        async with with_run(target, function("waiting", "waiting")) as (worker, invoke):
            worker.want()
            for first in range(0, STEPS, STEPS_A_PAGE):
                waits = [step(number, wait_for_event=wait_for) for number in range(first, first + STEPS_A_PAGE)]
                await worker.say(steps_found=found(invoke, waits))
            await target.flood(SEND_EVENTS, [sent(*[event("many", b'{"n": 0}')] * 100)], 2)

    await target.again(attack)
