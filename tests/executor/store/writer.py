"""A process of its own that writes to a store; the tests kill it, starve it of disk, or let it hold the file.

`python -m tests.executor.store.writer PATH hold|write|fill [BALLAST]`
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from stepwire_core.commands import Writes
from stepwire_executor.store import RunFilter, StoreError, StoreUnusableError
from stepwire_executor.store.sqlite import SQLiteStore
from tests.contract.store_rows import MUCH, new, run, step

STEPS = 40
"""Of each run, all in one transaction with it."""


def batch(position: int, size: int = 300) -> Writes:
    steps = [step(number, output=bytes(size)) for number in range(1, STEPS + 1)]
    return new(run(position), steps=steps)


async def hold(store: SQLiteStore) -> None:
    """Have the store open until the standard input ends."""
    await store.open()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()


async def write(store: SQLiteStore) -> None:
    """Write runs for ever, and print the position of each when it has been acknowledged."""
    position = (await store.open()).last_position
    while True:
        position += 1
        await store.commit(batch(position))
        print(position, flush=True)


class Disk:
    """What little room there is: a disk with ballast on it, or a limit on the size of this process's files."""

    def __init__(self, ballast: str) -> None:
        self.ballast = Path(ballast) if ballast else None
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if self.ballast is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, self.limits[1]))

    def make_room(self) -> None:
        if self.ballast is not None:
            self.ballast.unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


async def fill(store: SQLiteStore, disk: Disk) -> None:
    """Write until nothing fits, then make room, and say what is found then."""
    await store.open()
    acknowledged = 0
    try:
        while acknowledged < 1000:
            await store.commit(batch(acknowledged + 1, 3000))
            acknowledged += 1
    except StoreUnusableError:
        raise
    except StoreError as error:
        print(error)
    await store.close()
    disk.make_room()
    position = (await store.open()).last_position
    runs = await store.list_runs(RunFilter(), "", 1000, MUCH)
    whole = all([len(await store.get_steps(one.id, 0, 1000, MUCH)) == STEPS for one in runs])
    await store.commit(batch(position + 1, 3000))
    await store.close()
    print(f"acknowledged {acknowledged}, found {len(runs)}, whole {whole}")


def main() -> None:
    path, what, *more = sys.argv[1:]
    store = SQLiteStore(path)
    match what:
        case "hold":
            asyncio.run(hold(store))
        case "write":
            asyncio.run(write(store))
        case "fill":
            asyncio.run(fill(store, Disk(*more)))


if __name__ == "__main__":
    main()
