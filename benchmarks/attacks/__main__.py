"""Attack an executor: python -m benchmarks.attacks NAME HOST:PORT, with the token in STEPWIRE_TOKEN.

It goes on until SIGTERM. It prints "begun" once everything is prepared and the attack goes on, and as its last line
how calls and streams ended, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from benchmarks.attacks import calls, connections, streams, waits
from benchmarks.attacks.target import Target

ATTACKS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "burn": connections.burn,
    "fan-10000": connections.fan_outs,
    "extreme-times": calls.extreme_times,
    "forged-page-tokens": calls.forged_page_tokens,
    "page-tokens-15-mib": calls.large_page_tokens,
    "5000-events": calls.many_events,
    "nested-json": calls.nested_json,
    "names-at-limits": calls.names_at_their_limits,
    "health-watches": calls.health_watches,
    "strangers-15-mib": calls.large_calls_of_strangers,
    "20000-runs-a-call": calls.many_runs,
    "unknown-runs": streams.unknown_runs,
    "invoke-and-give-up": streams.invoked_and_given_up,
    "failures-8-mb": streams.large_failures,
    "runs-by-steps": streams.steps_that_start_runs,
    "heartbeats": streams.heartbeats,
    "refused-heartbeats": streams.refused_heartbeats,
    "hellos-at-limits": streams.large_hellos,
    "fragments-2-bytes": streams.small_fragments,
    "fragments-unfinished": streams.unfinished_fragments,
    "watchers": waits.watchers,
    "wait-paths": waits.wait_paths,
    "many-waits": waits.many_waits,
    "look-ups": waits.look_ups,
    "10000-streams": connections.open_streams,
    "500-connections": connections.silent_connections,
}
"""The first two are no attacks: what the attacker's own CPU does to others on the same machine, and a fair load."""


async def attack(name: str, address: str) -> Target:
    """Attack until it is told to stop."""
    target = Target(address, os.environ["STEPWIRE_TOKEN"])
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    attacking = asyncio.ensure_future(ATTACKS[name](target))
    begun, ended = asyncio.ensure_future(target.begun.wait()), asyncio.ensure_future(over.wait())
    await asyncio.wait({begun, attacking}, return_when=asyncio.FIRST_COMPLETED)
    if not attacking.done():
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.wait({ended, attacking}, return_when=asyncio.FIRST_COMPLETED)
    if attacking.done():
        attacking.result()
        raise RuntimeError(f"{name} is over by itself")
    return target


if __name__ == "__main__":
    ended_with = asyncio.new_event_loop().run_until_complete(attack(sys.argv[1], sys.argv[2]))
    sys.stdout.write(json.dumps(ended_with.outcomes) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what is open ends with the process, as an attacker's would
