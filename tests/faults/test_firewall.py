"""Packets that a firewall drops or resets: unlike with a proxy, TCP knows that they have not arrived (9, 10, 11)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.end_to_end.processes import until
from tests.faults.fast import HEARTBEAT_SECONDS, FastSystem
from tests.faults.firewall import Firewall
from tests.faults.proxy import Proxy
from tests.faults.seen import has_happened

pytestmark = pytest.mark.needs("root", "nftables")

PATIENT = {"session_grace": 30}
FOUND_SECONDS = 2 * HEARTBEAT_SECONDS
LATE_SECONDS = 1.0
"""How late a busy machine may notice what is due."""


def port(proxy: Proxy) -> int:
    return int(proxy.address.rpartition(":")[2])


async def test_a_reset_by_a_firewall_costs_no_attempt(tmp_path: Path):
    async with FastSystem(tmp_path, settings=PATIENT) as system, Proxy(system.executor.address) as proxy:
        worker = await system.fork_worker(proxy.address)
        run_id = await system.send("flows/gates", {"gates": ["a", "b"]})
        await until(lambda: len(system.lines()) == 2, "both steps run")
        with Firewall(port(proxy)) as firewall:
            firewall.reset()
            await until(lambda: "is lost" in worker.log, "the worker loses the stream")
            system.open_gate("a")
        await system.connected(1)
        system.open_gate("b")
        await system.result(run_id)
        assert system.at_most_one_attempt()


@pytest.mark.parametrize("ways", [("to", "from"), ("to",), ("from",)], ids=["both", "up", "down"])
async def test_a_connection_whose_packets_vanish_is_found_within_two_heartbeats(tmp_path: Path, ways: tuple[str, ...]):
    async with FastSystem(tmp_path, settings=PATIENT) as system, Proxy(system.executor.address) as proxy:
        worker = await system.fork_worker(proxy.address)
        await system.launch("fan-out", {"count": 10, "seconds": 1.5})
        await until(lambda: sum(line.step.startswith("part") for line in system.lines()) >= 8, "the steps run")
        with Firewall(port(proxy)) as firewall:
            cut_at = time.monotonic()
            firewall.drop(to_port="to" in ways, from_port="from" in ways)
            limit = FOUND_SECONDS + LATE_SECONDS
            await asyncio.gather(
                until(lambda: "is lost: " in worker.log, "the worker gives the stream up", limit),
                until(lambda: has_happened(system, "gone", cut_at), "the executor gives the stream up", limit),
            )
        await system.connected(1)
        await system.all_end()
        assert system.at_most_one_attempt()
