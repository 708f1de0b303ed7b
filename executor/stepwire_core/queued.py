"""What waits in memory for workers: runs without a lead, and steps that start more once there is room.

Each app has a share of the room: who has less than that finds room, whatever the others have.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from stepwire_core.model import Blob, Event, Limits, Run, Step, StepKey

MOST_RUNS = 20_000
"""Runs that the events of one call, or one step, may start: they are decided and written in one piece."""
MANY_RUNS = 250
"""Runs of a step from which on it has a decision of its own, which is made in pieces, and after which such steps rest
beside other apps."""
REST_SECONDS = 0.0002
"""For each run: three times as long as it takes to decide and to write, and as long again."""
MOST_NEW_RUNS = 1_000
"""New runs of a decision from which on steps that start more are left for the next one."""
LEAST_BYTES = 100
"""What an event counts for that has less data."""


@dataclass(slots=True)
class Share:
    """What of the queue is an app's."""

    runs: int = 0
    bytes: int = 0


class Queued:
    """Runs in memory that want a worker, see `LoadedRun.wants_worker`: new ones, and those whose workers have gone.

    `bytes` is the size of their events and journals.
    """

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, int]] = {}
        self._shares: dict[str, Share] = {}
        """By app, of those that have any."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def add(self, run: Run) -> None:
        """Note that a run has come to wait for a worker, or has got more results while it waits."""
        size = len(run.event.data) + run.journal_bytes
        if run.id in self._runs:
            self.drop(run.id)
        self._runs[run.id] = run.app, size
        share = self._shares.get(run.app)
        if share is None:
            share = self._shares[run.app] = Share()
        share.runs += 1
        share.bytes += size
        self.bytes += size

    def drop(self, run_id: str) -> None:
        """Note that a run waits no more, if it did."""
        waited = self._runs.pop(run_id, None)
        if waited is not None:
            app, size = waited
            share = self._shares[app]
            share.runs -= 1
            share.bytes -= size
            self.bytes -= size
            if not share.runs:
                del self._shares[app]

    def of(self, app: str) -> tuple[int, int]:
        """Give how many runs of an app wait, and their bytes."""
        share = self._shares.get(app)
        return (0, 0) if share is None else (share.runs, share.bytes)

    def has_too_many(self, app: str, limits: Limits, runs: int = 1) -> bool:
        """Whether there is no room for so many more runs of an app.

        While nothing waits there is room for anything: else what is larger than the room would wait for ever.
        """
        return is_over(len(self), self.of(app)[0], runs, limits.max_queued_runs, self._apps_with(app))

    def has_too_much(self, app: str, limits: Limits, size: int = 1) -> bool:
        """Whether there is no room for runs of an app with so many bytes; see above."""
        return is_over(self.bytes, self.of(app)[1], size, limits.max_queued_bytes, self._apps_with(app))

    def _apps_with(self, app: str) -> int:
        """Count the apps that have runs here, and one more."""
        return len(self._shares) + (app not in self._shares)


def is_over(have: int, mine: int, more: int, most: int, sharers: int) -> bool:
    """Whether there would be too much with some more: in all, and of one of those who share it more than its share.

    For those who have less than their share there is as much room again, and no more, however many they are.
    """
    return have > 0 and have + more > most and (mine + more > most // sharers or have + more > 2 * most)


@dataclass(slots=True, eq=False)
class Held:
    """A step that waits until the runs that it starts have room."""

    run: Run
    step: Step
    starts: int
    """How many runs."""
    apps: Set[str]
    """Whose runs they are."""
    events: Sequence[Event] = ()
    """Of SEND_EVENTS, and what is its result."""
    output: Blob = b""

    @property
    def key(self) -> tuple[str, StepKey]:
        """The run's id and the step's key."""
        return self.run.id, self.step.key

    @property
    def size(self) -> int:
        """What it takes in memory beside its step, roughly."""
        return sum(max(len(event.data), LEAST_BYTES) for event in self.events)


class HeldSteps:
    """Steps that wait for room, those of each app in their order. Apps get room evenly, by how many runs they start."""

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[tuple[str, StepKey], Held]] = {}
        """By app."""
        self._served: dict[str, int] = {}
        """Runs that an app's held steps have started, beside those of others; at least `_floor` for who comes anew."""
        self._floor = 0
        self._granted: dict[tuple[str, StepKey], Held] = {}
        """Those that have room, and wait for the decision that sends their events."""
        self._of_run: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        """By app."""
        self.rests_until = 0.0
        """Before this time, by the monotonic clock, no step begins that starts many runs."""
        self.granted_runs = 0
        self.pressed = False
        """Whether some had room when the last decision had begun enough runs: others come behind them."""

    def __contains__(self, run_id: str) -> bool:
        """Whether a step of a run waits."""
        return run_id in self._of_run

    def steps(self) -> list[tuple[str, StepKey]]:
        """Give all that wait."""
        return [*self._granted, *(key for waiting in self._waiting.values() for key in waiting)]

    def get(self, run_id: str, key: StepKey) -> Held | None:
        """Give a step that waits."""
        at = run_id, key
        return self._granted.get(at) or next((each[at] for each in self._waiting.values() if at in each), None)

    def has_waiting(self, app: str) -> bool:
        """Whether steps of an app wait for room."""
        return app in self._waiting

    @property
    def bytes(self) -> int:
        """How much all waiting steps take."""
        return self._bytes.total()

    def bytes_of(self, app: str) -> int:
        """Give how much the waiting steps of an app take."""
        return self._bytes[app]

    def has_too_much(self, held: Held, limits: Limits) -> bool:
        """Whether a step's events may not wait, because those of others take so much; see `is_over`."""
        app = held.run.app
        apps = len(self._bytes) + (app not in self._bytes)
        return is_over(self.bytes, self._bytes[app], held.size, limits.max_queued_bytes, apps)

    def add(self, held: Held) -> None:
        """Have a step wait."""
        app = held.run.app
        waiting = self._waiting.get(app)
        if waiting is None:
            served = max(self._floor, self._served.get(app, 0))
            self._served = {each: n for each, n in self._served.items() if n > self._floor or each in self._waiting}
            self._served[app] = served
            waiting = self._waiting[app] = OrderedDict()
        waiting[held.key] = held
        self._note(held)

    @property
    def is_wanted(self) -> bool:
        """Whether any step waits for room."""
        return bool(self._waiting)

    def in_turn(self) -> Iterator[Held]:
        """Give the step whose turn it is, again and again; an app of which one is not granted room is left out."""
        turns = [(self._served[app], app) for app in self._waiting]
        heapify(turns)
        while turns:
            served, app = heappop(turns)
            yield next(iter(self._waiting[app].values()))
            if app in self._waiting and self._served[app] > served:
                heappush(turns, (self._served[app], app))

    def begin(self, held: Held) -> None:
        """Note that the step whose turn it is has room, and begins."""
        app = held.run.app
        self._floor = max(self._floor, self._served[app])
        self._served[app] += held.starts
        self._take(held)
        self._forget(held)

    def grant(self, held: Held) -> None:
        """Note that the step whose turn it is has room, which it keeps until it is dropped."""
        self.begin(held)
        self._granted[held.key] = held
        self._note(held)
        self.granted_runs += held.starts

    def granted(self, run_id: str, key: StepKey, fence: int) -> Held | None:
        """Give a step that was granted room as it was planned with this fence."""
        held = self._granted.get((run_id, key))
        return held if held is not None and held.step.fence == fence else None

    def drop(self, run_id: str, key: StepKey) -> None:
        """Note that a step waits no more, if it did."""
        held = self._granted.pop((run_id, key), None)
        if held is not None:
            self.granted_runs -= held.starts
        else:
            held = self.get(run_id, key)
            if held is None:
                return
            self._take(held)
        self._forget(held)

    def drop_run(self, run_id: str) -> None:
        """Note that a run leaves the memory: none of its steps waits any more."""
        if run_id in self._of_run:
            for key in [key for key in self.steps() if key[0] == run_id]:
                self.drop(*key)

    def _note(self, held: Held) -> None:
        self._of_run[held.run.id] += 1
        if held.events:
            self._bytes[held.run.app] += held.size

    def _forget(self, held: Held) -> None:
        run_id = held.run.id
        if self._of_run[run_id] > 1:
            self._of_run[run_id] -= 1
        else:
            del self._of_run[run_id]
        if held.events:
            app = held.run.app
            self._bytes[app] -= held.size
            if not self._bytes[app]:
                del self._bytes[app]

    def _take(self, held: Held) -> None:
        """Take a step out of those that wait."""
        waiting = self._waiting[held.run.app]
        del waiting[held.key]
        if not waiting:
            del self._waiting[held.run.app]
