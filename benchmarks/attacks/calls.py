"""Attacks by the calls of a client, and of strangers."""

from __future__ import annotations

import base64

from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2

from benchmarks.attacks.target import SEND_EVENTS, Target, connected, event, function, sent
from stepwire_proto.v1 import event_pb2, run_pb2

LARGE_BYTES = 15 << 20
"""Just below what a call may have."""
MOST_EVENTS = 5_000
YEAR_1, YEAR_9999 = -62_135_596_800, 253_402_300_799
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


async def extreme_times(target: Target) -> None:
    """Send events of the years 1 and 9999, which are taken, and of times that no calendar has."""
    seconds = (YEAR_1, YEAR_9999, -(1 << 62), 1 << 62)
    bodies = [
        sent(*[event("times", time=Timestamp(seconds=each, nanos=number % 1_000)) for number in range(500)])
        for each in seconds
    ]
    await target.flood(SEND_EVENTS, bodies, 8)


LIST_RUNS = "/stepwire.v1.RunService/ListRuns"


def listing(place: str) -> bytes:
    """Write a call for the runs behind a place, by a token that has the form of the executor's."""
    token = base64.urlsafe_b64encode(f"{'0' * 12}{place}".encode()).decode()[:LARGE_BYTES]
    return run_pb2.ListRunsRequest(page_token=token, page_size=1_000).SerializeToString()


async def forged_page_tokens(target: Target) -> None:
    """List runs from places that the executor has not named."""
    places = ["", "0", "9" * 30, "Z" * 26, "'; --", "\0" * 26, "x" * 150, "x" * 1_000]
    await target.flood(LIST_RUNS, [listing(place) for place in places], 16)


async def large_page_tokens(target: Target) -> None:
    """List runs from a place whose token has 15 MiB."""
    await target.flood(LIST_RUNS, [listing("9" * LARGE_BYTES)], 8)


async def many_events(target: Target) -> None:
    """Send 5,000 events a call that nobody takes."""
    await target.flood(SEND_EVENTS, [sent(*[event("nobody")] * MOST_EVENTS)], 4)


async def nested_json(target: Target) -> None:
    """Send 1 MiB of empty lists in lists an event, as deep as may be, and a level deeper."""
    lists = b"[" + b",".join([b"[" * 198 + b"]" * 198] * 2_600) + b"]"
    flat = b"[" + b",".join([b"[]"] * 340_000) + b"]"
    deeper = b"[" + b",".join([*[b"[]"] * 300_000, b"[" * 200 + b"]" * 200]) + b"]"
    bodies = [sent(*[event("nested", each)] * 14) for each in (lists, flat, deeper)]
    await target.flood(SEND_EVENTS, bodies, 4)


async def health_watches(target: Target) -> None:
    """Watch services that nobody has, with names of 15 MiB, without a token."""
    names = [health_pb2.HealthCheckRequest(service=f"{number}{'x' * LARGE_BYTES}") for number in range(4)]
    await target.flood("/grpc.health.v1.Health/Watch", [each.SerializeToString() for each in names], 8, stranger=True)


async def large_calls_of_strangers(target: Target) -> None:
    """Send events of 15 MiB without a token."""
    await target.flood(SEND_EVENTS, [sent(*[event("stranger", b'"' + b"x" * 1_000_000 + b'"')] * 14)], 8, stranger=True)


async def names_at_their_limits(target: Target) -> None:
    """Send events with names, ids, traceparents and tracestates that are as long as may be, 5,000 a call."""
    state = f"k={'v' * 510}"
    bodies = []
    for number in range(4):
        name = f"long-{number}-".ljust(247, "n")
        ids = [f"{number}-{each}-".ljust(256, "i") for each in range(MOST_EVENTS)]
        events = [event(name, id=each, traceparent=TRACEPARENT, tracestate=state) for each in ids]
        bodies.append(event_pb2.SendEventsRequest(events=events).SerializeToString())
    await target.flood(SEND_EVENTS, bodies, 4)


async def many_runs(target: Target) -> None:
    """Send events that start 20,000 runs a call, for a worker that has 1,000 functions and does nothing."""
    functions = [function(f"f{number}", "burst") for number in range(1_000)]
    async with connected(target, functions=functions, slots=1, max_invocations=1) as worker:
        worker.want()
        worker.beat()
        await target.flood(SEND_EVENTS, [sent(*[event("burst")] * 20)], 2)
