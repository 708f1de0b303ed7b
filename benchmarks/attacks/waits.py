"""Attacks by what has to be looked up or shown: waits for events, watched runs."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import grpc

from benchmarks.attacks.target import SEND_EVENTS, Target, event, found, function, sent, step, with_run
from stepwire_proto.v1 import opcode_pb2, run_pb2

STEPS, WATCHERS = 20_000, 50
STEPS_A_PAGE = 1_000
PATHS = 1_000
EVENTS, EVENT_BYTES, EVENTS_A_CALL = 5_000, 100_000, 100
LOOK_UPS = 50


def wait(number: int, name: str, path: str) -> opcode_pb2.StepPlanned:
    """Make a step that waits for an event with a value at a path."""
    match = opcode_pb2.FieldMatch(path=path, json_value="1")
    return step(number, wait_for_event=opcode_pb2.WaitForEventTarget(event_name=name, fields=[match]))


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
    """Send events of 1 MB for whose name a thousand waits have a thousand paths."""
    large = b'{"pad": ' + json.dumps("x" * 400_000).encode() + b', "deep": ' + nested() + b"}"
    async with with_run(target, function("waiting", "waiting")) as (worker, invoke):
        worker.want()
        for first in range(0, PATHS, 100):
            waits = [wait(number, "attacker/paths", f"a.b.c.p{number}") for number in range(first, first + 100)]
            await worker.say(steps_found=found(invoke, waits))
        await target.flood(SEND_EVENTS, [sent(*[event("paths", large)] * 4)], 2)


def nested() -> bytes:
    """Give some 500 kB of JSON."""
    return json.dumps({f"k{number}": [number, {"x": "v" * 20}] for number in range(10_000)}).encode()


async def look_ups(target: Target) -> None:
    """Look for events among 5,000 of 100 kB that came before, by fifty waits with paths of their own."""
    async with with_run(target, function("looking", "looking")) as (worker, invoke):
        worker.want()
        body = sent(*[event("past", b'{"pad": "' + b"x" * EVENT_BYTES + b'"}')] * EVENTS_A_CALL)
        async with target.channel() as channel:
            for _ in range(EVENTS // EVENTS_A_CALL):
                await target.call(channel, SEND_EVENTS, body)
        target.begun.set()
        waits = [wait(number, "attacker/past", f"p{number}") for number in range(LOOK_UPS)]
        await worker.say(steps_found=found(invoke, waits))
        await worker.over()


async def many_waits(target: Target) -> None:
    """Send events each of which fits every one of the 20,000 waits of a run."""
    match = opcode_pb2.FieldMatch(path="n", json_value="0")
    wait_for = opcode_pb2.WaitForEventTarget(event_name="attacker/many", fields=[match])
    async with with_run(target, function("waiting", "waiting")) as (worker, invoke):
        worker.want()
        for first in range(0, STEPS, STEPS_A_PAGE):
            waits = [step(number, wait_for_event=wait_for) for number in range(first, first + STEPS_A_PAGE)]
            await worker.say(steps_found=found(invoke, waits))
        await target.flood(SEND_EVENTS, [sent(*[event("many", b'{"n": 0}')] * 100)], 2)
