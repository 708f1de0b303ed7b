"""Whose turn it is: what is ready goes round over functions and tasks, and the steps of each over their runs.

The turns outlast a decision. Whoever had one goes to the end; whoever could not use a free slot keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from stepwire_core.model import StepKey


class PoolKey(NamedTuple):
    """What a ready step needs of a worker. Closures prefer the `version` that began their run; tasks have none.

    Short closures are for the session `home` alone, that of their lead, as long as it takes some of them. Those that
    are `bound` to it have no other worker.
    """

    app: str
    name: str
    version: str
    task: bool
    home: str = ""
    bound: bool = False

    @property
    def turn(self) -> tuple[str, bool]:
        """Who takes turns in its app: the function or task, whatever else its pools differ by."""
        return self.name, self.task


Some = TypeVar("Some")
Found = TypeVar("Found")


class Turns(Generic[Some]):
    """Pools by who takes turns, whose turn is next first. `make` gives what a new pool holds, false when empty.

    Apps have no workers in common, so that each has turns of its own.
    """

    def __init__(self, make: Callable[[], Some]) -> None:
        self._make = make
        self._apps: dict[str, OrderedDict[tuple[str, bool], OrderedDict[PoolKey, Some]]] = {}

    @property
    def apps(self) -> list[str]:
        """The apps that may have something."""
        return list(self._apps)

    def of(self, app: str) -> Iterator[list[tuple[PoolKey, Some]]]:
        """Go through an app's functions and tasks that have something, each with its pools; others are forgotten."""
        turns = self._apps.get(app, OrderedDict())
        for turn, pools in list(turns.items()):
            held = []
            for pool, queue in list(pools.items()):
                if queue:
                    held.append((pool, queue))
                else:
                    del pools[pool]
            if held:
                yield held
            else:
                del turns[turn]
        if not turns:
            self._apps.pop(app, None)

    def peek(self, app: str) -> Iterator[PoolKey]:
        """Go through the pools of an app that have something, without forgetting any."""
        for pools in self._apps.get(app, OrderedDict()).values():
            yield from (pool for pool, queue in pools.items() if queue)

    def get(self, pool: PoolKey) -> Some | None:
        """Give what a pool holds, if there is such a pool."""
        turns = self._apps.get(pool.app)
        pools = None if turns is None else turns.get(pool.turn)
        return None if pools is None else pools.get(pool)

    def at(self, pool: PoolKey) -> Some:
        """Give what a pool holds; a new one comes last."""
        turns = self._apps.get(pool.app)
        if turns is None:
            turns = self._apps[pool.app] = OrderedDict()
        pools = turns.get(pool.turn)
        if pools is None:
            pools = turns[pool.turn] = OrderedDict()
        held = pools.get(pool)
        if held is None:
            held = pools[pool] = self._make()
        return held

    def had(self, pool: PoolKey) -> None:
        """Note that something of a pool has begun: its turn comes after all others."""
        turn, turns = pool.turn, self._apps[pool.app]
        turns.move_to_end(turn)
        turns[turn].move_to_end(pool)


class Queue:
    """Ready steps of one pool, handed out in turn over the runs that have some. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, deque[StepKey]] = OrderedDict()
        self.moved_at: float | None = None
        """When the pool's home last had a free slot, or was first looked at."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    def push(self, run_id: str, key: StepKey, *, first: bool = False) -> None:
        """Add a step; `first` puts it before the others of its run."""
        steps = self._runs.get(run_id)
        if steps is None:
            steps = self._runs[run_id] = deque()
        if first:
            steps.appendleft(key)
        else:
            steps.append(key)

    def pop(self, find: Callable[[str, StepKey], Found | None]) -> Found | None:
        """Take the next step of the run whose turn it is, as `find` gives it; None if there is none.

        A step that `find` gives None for is dropped, and costs its run no turn.
        """
        while self._runs:
            run_id, steps = next(iter(self._runs.items()))
            while steps:
                found = find(run_id, steps.popleft())
                if found is not None:
                    if steps:
                        self._runs.move_to_end(run_id)
                    else:
                        del self._runs[run_id]
                    return found
            del self._runs[run_id]
        return None

    def ahead(self, run_id: str) -> int:
        """Count the runs whose turn comes before this one's."""
        return next((place for place, each in enumerate(self._runs) if each == run_id), len(self._runs))
