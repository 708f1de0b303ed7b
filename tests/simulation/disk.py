"""The simulated disk: what is on it survives every process; it may be slow, full, or fail a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from stepwire_core.commands import Writes
from stepwire_executor.store import Opened, StoreError
from stepwire_executor.store.memory import MemoryStore, copied
from tests.simulation.machine import Process


class Disk:
    """The disk. Seconds are of the machine's clock."""

    def __init__(self, store: MemoryStore, latency: float = 0.0007) -> None:
        self.store = store
        self.latency = latency
        """Seconds that a commit takes."""
        self.down_until = 0.0
        self.slow_until = 0.0
        self.slow_latency = 0.3
        self.fail_commits = 0
        """How many of the next commits fail."""
        self.commits = 0
        self.failed = 0
        self.written: list[Writes] | None = None
        """What was committed, if somebody wants to know."""


class MountedStore:
    """The store as one life of the executor has it open."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._mounted = False
        self._broken = False

    def _check(self) -> None:
        disk = self._disk
        if self._process.machine.now < disk.down_until:
            self._broken = True
        if self._broken or not self._mounted:
            disk.failed += 1
            raise StoreError("the disk is full" if self._mounted else "the store is not open")

    async def open(self) -> Opened:
        if self._process.machine.now < self._disk.down_until:
            raise StoreError("the disk is full")
        await self._process.survive()
        await self._disk.store.close()
        opened = await self._disk.store.open()
        self._mounted, self._broken = True, False
        await self._process.survive()
        return opened

    async def close(self) -> None:
        self._mounted = False

    async def confirm(self) -> None:
        if self._broken:
            raise StoreError("the disk has failed")

    def read_ahead(self, writes: Writes) -> Iterator[None]:
        return self._disk.store.read_ahead(writes)

    def commit(self, writes: Writes) -> Coroutine[Any, Any, None]:
        return self._commit(copied(writes))

    async def _commit(self, writes: Writes) -> None:
        disk, machine = self._disk, self._process.machine
        await self._process.survive()
        self._check()
        slow = machine.now < disk.slow_until
        await asyncio.sleep(disk.slow_latency if slow else disk.latency * machine.dice.uniform(0.5, 1.5))
        self._check()
        fails = disk.fail_commits > 0
        disk.fail_commits -= fails
        if not fails or machine.dice.random() < 0.5:  # a commit that has failed may have happened all the same
            await disk.store._commit(writes)
            disk.commits += 1
            if disk.written is not None:
                disk.written.append(writes)
        await self._process.survive()
        if fails:
            self._broken = True
            disk.failed += 1
            raise StoreError("the disk has failed in a commit")

    def __getattr__(self, name: str) -> Any:
        """Reads: as the store does them, but the disk must work, and others may move meanwhile."""
        read = getattr(self._disk.store, name)

        async def reading(*arguments: Any) -> Any:
            self._check()
            if self._process.machine.now < self._disk.slow_until:
                await asyncio.sleep(self._disk.slow_latency / 10)
            else:
                await asyncio.sleep(0)
            self._check()
            return await read(*arguments)

        return reading
