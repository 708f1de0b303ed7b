"""An executor is told to stop while clients call it: whatever gRPC makes of their calls, no call fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import stepwire
from tests.end_to_end.processes import until
from tests.faults.tools import FaultySystem

SENDERS = 20
STOPS = 5


async def test_calls_that_are_under_way_as_an_executor_stops_are_made_again(tmp_path: Path) -> None:
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(1)
        address, stopped, sent = system.executor.address, asyncio.Event(), []

        async def send(client: stepwire.Client, number: int) -> None:
            while not stopped.is_set():
                sent.append(await client.send("nobody/waits", id=f"{number}-{len(sent)}"))

        def send_from_threads(client: stepwire.SyncClient, number: int) -> None:
            while not stopped.is_set():
                sent.append(client.send("nobody/waits", id=f"{number}-{len(sent)}"))

        # Each has a connection of its own, so that calls come at every moment of a stop.
        clients = [stepwire.Client(address, retry_for=30) for _ in range(SENDERS)]
        sync_clients = [stepwire.SyncClient(address, retry_for=30) for _ in range(SENDERS // 5)]
        try:
            async with asyncio.TaskGroup() as senders:
                for number, client in enumerate(clients):
                    senders.create_task(send(client, number))
                for number, sync_client in enumerate(sync_clients, SENDERS):
                    senders.create_task(asyncio.to_thread(send_from_threads, sync_client, number))
                for _ in range(STOPS):
                    wanted = len(sent) + 5 * SENDERS
                    await until(lambda wanted=wanted: len(sent) >= wanted, "events are taken")
                    assert await asyncio.to_thread(system.executor.stop) == 0
                    await asyncio.to_thread(system.executor.start)
                stopped.set()
        finally:
            stopped.set()
            for client in clients:
                await client.close()
            for sync_client in sync_clients:
                sync_client.close()
        run_id = await system.send("flows/fan-out", {"count": 4})
        await system.result(run_id)
        await system.check(run_id)
