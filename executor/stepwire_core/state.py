"""What the core keeps in memory: sessions, live invocations, loaded runs, queues of ready steps, and timers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from stepwire_core.commands import Decision
from stepwire_core.model import (
    Event,
    EventKey,
    Failure,
    Function,
    FunctionKey,
    FunctionOptions,
    Limits,
    Now,
    Run,
    Step,
    StepKey,
    StepKind,
)
from stepwire_core.queued import HeldSteps, Queued
from stepwire_core.timer_queue import Timer, TimerKind, TimerQueue
from stepwire_core.turns import PoolKey, Queue, Turns
from stepwire_core.waits import Waits

EPOCH_BITS = 40
"""Fences count up below the executor's epoch, so that they grow across restarts without being stored."""
LONG_AGO = Now(0.0, float("-inf"))
IDLE_SECONDS = 10.0
"""A run for which nothing has happened for so long leaves the memory, unless something is due as soon."""
SHORT_SECONDS = 0.00003
"""A function's steps are short while they take less than this: one more body for them would cost more than its worker
could do, as benchmarks/README.md shows."""
BLOCKED_SECONDS = 1.0
"""A worker whose loop is late by this much is blocked."""
LONGEST_NOTED_SECONDS = 10 * SHORT_SECONDS
"""What a step counts for at the most, so that one that was held up does not make those after it long."""
MOST_TASKS_LEFT = 10_000
"""Tasks of an app of which is remembered when a worker had them last."""
NOTED_SHARE = 1 / 16
"""How much the last step counts for, beside all before it."""


class SessionState(IntEnum):
    """Where a session stands; the numbers are those of the contract's WorkerState."""

    CONNECTED = 1
    DRAINING = 2
    LOST = 3


@dataclass(slots=True, eq=False)
class Invocation:
    """A run's body, live in a worker."""

    run_id: str
    session_id: str
    fence: int
    lead: bool
    sent: int = 0
    """How many journal entries it has been given."""
    reported: int = -1
    """Up to which journal entry it has run dry, as it says; -1 before its first report."""
    eager_fence: int = 0
    """Fence of the lone step that it may run unasked; holds a slot while not 0. Changed by `transitions`."""
    begun_in: int = 0
    """Number of the decision that sends its Invoke."""
    resumed_in: int = 0
    """Number of the decision that gave it results last."""
    sent_before: int = 0
    """How many journal entries it had been given by decisions that were sent when it got more."""
    busy_since: float = 0.0
    """Since when it has been at work on what it was given; meaningful while not parked. Unix seconds."""

    @property
    def parked(self) -> bool:
        """Whether it has run dry over all that it was given."""
        return self.reported >= self.sent


@dataclass(slots=True, eq=False)
class Session:
    """A worker, connected or within its grace."""

    id: str
    instance_id: str
    app: str
    app_version: str
    functions: dict[str, FunctionOptions]
    tasks: frozenset[str]
    slots: int
    max_invocations: int
    eager: bool
    labels: Mapping[str, str]
    sdk_name: str
    sdk_version: str
    stream: object
    connected_at: float
    last_seen: float
    """By the monotonic clock."""
    identity: str = ""
    """Who vouches for the worker."""
    state: SessionState = SessionState.CONNECTED
    draining: bool = False
    """Whether it takes no work any more, connected or not; no worker takes that back."""
    welcomed_in: int = 0
    """Number of the decision that welcomed it: nothing goes out to it before its Welcome."""
    attempts: dict[int, tuple[str, StepKey]] = field(default_factory=dict)
    """What runs there, by fence."""
    permitted: set[int] = field(default_factory=set)
    """Fences of the lone steps that its leads may run unasked: each holds a slot. Changed by `transitions`."""
    begun: dict[int, str] = field(default_factory=dict)
    """Runs whose lone step it may have begun when its stream was lost, by the fence of the permission."""
    alone: int = 0
    """Fence of the attempt that has the worker for itself, which holds while it runs; see `quarantine`."""
    guest: Invocation | None = None
    """The suspect body that has the worker for itself while it is at work."""
    emptied: bool = False
    """Whether a suspect waits for what runs here to end; decided anew in every batch."""
    invocations: OrderedDict[str, Invocation] = field(default_factory=OrderedDict)
    """By run id, the least recently used first."""
    lost_runs: list[str] = field(default_factory=list)
    """Runs whose bodies were at work there when its stream was lost."""
    loop_lag: float = 0.0
    blocking_stack: str = ""

    @property
    def free(self) -> int:
        """Slots that are not taken; none in a worker that a suspect has, or waits for."""
        return 0 if self.secluded else self.room

    @property
    def room(self) -> int:
        """Slots that are not taken, though a suspect may have them."""
        return self.slots - len(self.attempts) - len(self.permitted)

    @property
    def lag(self) -> float:
        """Seconds for which the loop that runs user code has been blocked, as its worker last said; 0 if it is not."""
        return self.loop_lag if self.loop_lag >= BLOCKED_SECONDS else 0.0

    @property
    def secluded(self) -> bool:
        """Whether nothing may be added to what runs here."""
        return self.emptied or self.guest is not None or self.alone in self.attempts

    def keeps_out(self, run_id: str) -> bool:
        """Whether a run's body must not go on here: it would run beside a suspect, or keep one from beginning."""
        if self.guest is not None:
            return self.guest.run_id != run_id
        if self.alone in self.attempts:
            return self.attempts[self.alone][0] != run_id
        return self.emptied and self.idle

    @property
    def idle(self) -> bool:
        """Whether no attempt runs here or may begin unasked."""
        return not self.attempts and not self.permitted


class Begun(NamedTuple):
    """A lone step that may have begun in a worker before its plan came; see `eager`."""

    fence: int
    session: Session
    sequence: int
    """Up to which journal entry its body had run dry."""


@dataclass(slots=True, eq=False)
class LoadedRun:
    """What memory knows of a run beyond its rows."""

    run: Run
    lead: Invocation | None = None
    replicas: dict[str, Invocation] = field(default_factory=dict)
    """By session id."""
    replayed_to: int = -1
    """Up to which journal entry a lead has run dry and reported; -1 if unknown."""
    busy: int = 0
    """Steps that are READY or RUNNING."""
    recorded_in: int = 0
    """Number of the decision that last put a result into the journal."""
    bound: Failure | None = None
    """What a replica's body has raised where the lead's went on: closures are run where the lead is."""
    waits: Waits | None = None
    """What is known of its waits for events; made when it is asked for."""
    begun: Begun | None = None
    """What a lead may have begun whose stream was lost."""

    @property
    def wants_worker(self) -> bool:
        """Whether no worker has its body, and one is to have it, now or after a backoff, or to run a step of it."""
        return self.lead is None and (self.busy > 0 or self.run.retry_at is not None or self.has_news)

    @property
    def has_news(self) -> bool:
        """Whether its body is to be told something; one that waits for no step can only be moved by its body."""
        return self.replayed_to < len(self.run.journal) or not self.run.open

    def known_waits(self) -> Waits:
        """Give what is known of its waits."""
        if self.waits is None:
            self.waits = Waits(self.run)
        return self.waits


def pool_of(run: Run, home: str = "", *, bound: bool = False) -> PoolKey:
    """Give the pool of a run's body, and of its closures."""
    return PoolKey(run.app, run.function_id, run.app_version, task=False, home=home, bound=bound)


class State:
    """Everything the core decides by. Changed by the core alone."""

    def __init__(
        self,
        epoch: int,
        limits: Limits,
        functions: Sequence[Function] = (),
        last_position: int = 0,
        began: Now = LONG_AGO,
        told: int = 0,
        secret: bytes = b"",
    ) -> None:
        self.epoch = epoch
        self.secret = secret
        """What ids of runs are keyed by, so that nobody guesses them; each life of an executor may have its own."""
        self.began = began
        """When this life of the executor began."""
        self.limits = limits
        self.functions: dict[FunctionKey, Function] = {}
        self.triggers: dict[str, dict[FunctionKey, None]] = {}
        """Functions by the name of the event that starts them."""
        self.position = last_position
        self.fence = epoch << EPOCH_BITS
        self.sessions: dict[str, Session] = {}
        self.sessions_in: dict[str, dict[str, Session]] = {}
        """The same by app; see `enter`."""
        self.last_served: dict[FunctionKey, float] = {}
        """When a connected worker last went away that served a function; Unix seconds."""
        self.tasks_last_served: dict[str, OrderedDict[str, float]] = {}
        """The same of tasks, by app, the longest ago first; of MOST_TASKS_LEFT at most."""
        self.step_seconds: dict[FunctionKey, float] = {}
        """How long the closures of a function have taken lately, as their workers say; unknown before the first."""
        self.runs: dict[str, LoadedRun] = {}
        self.timers = TimerQueue()
        self.ready: Turns[Queue] = Turns(Queue)
        """Steps that can begin, by whose turn it is."""
        self.emptied: Session | None = None
        """The one that a suspect waits for."""
        self.quarantine: dict[tuple[str, StepKey | None], PoolKey] = {}
        """Ready steps, and bodies (None), that may be what ends their workers, by run and key. They are not in `ready`
        and `leaderless`."""
        self.leaderless: Turns[OrderedDict[str, None]] = Turns(OrderedDict)
        """Runs that have something to tell their body, and no lead, by whose turn it is."""
        self.queued = Queued()
        self.held = HeldSteps()
        self.undelivered: dict[str, None] = {}
        """Runs that got results in this batch."""
        self.seeking: dict[tuple[str, str], None] = {}
        """Runs, with names of events, for which events may have to be looked up when the batch ends."""
        self.told = self.marked = told
        """Up to which position all waits were told of events, as the engine says, and as is written down."""
        self.idle_candidates: dict[str, None] = {}
        """Runs to look at when the batch ends: they may have become idle."""
        self.idle: OrderedDict[str, float] = OrderedDict()
        """When runs whose body is parked were last seen to wait only, by the monotonic clock, the longest idle first.

        One that has work again may still be here; whoever takes it out looks at it.
        """
        self.faults: dict[str, int] = {}
        """How often decisions about a run that has not ended have raised."""
        self.taken_back: set[str] = set()
        """Runs of which something was taken back, until they are loaded again: they may have missed events."""
        self.unsent: list[Decision] = []
        """Decisions whose commands have still to be carried out, the oldest first: their writes may not be durable."""
        self._decisions = 0
        self.draining = False
        for function in functions:
            self.register(function)

    def begin(self) -> Decision:
        """Begin a decision."""
        self._decisions += 1
        decision = Decision(self._decisions)
        self.unsent.append(decision)
        return decision

    def sent(self, decision: Decision) -> None:
        """Note that the oldest decision's writes are durable, and its commands on their way."""
        assert self.unsent[0] is decision
        del self.unsent[0]

    def is_sent(self, number: int) -> bool:
        """Whether what the decision with this number had sent is on its way; asked while one is made."""
        return number < self.unsent[0].number

    def recent(self, key: EventKey) -> Event | None:
        """Give the event with this key if it was taken by a decision that may not be durable."""
        return next((each.recent[key] for each in self.unsent if key in each.recent), None)

    def enter(self, session: Session) -> None:
        """Put a session in."""
        self.sessions[session.id] = session
        self.sessions_in.setdefault(session.app, {})[session.id] = session

    def drop(self, session: Session) -> None:
        """Take a session out, if it is there."""
        its = self.sessions_in.get(session.app, {})
        if its.pop(session.id, None) is not None and not its:
            del self.sessions_in[session.app]
        self.sessions.pop(session.id, None)

    def register(self, function: Function) -> None:
        """Put a function in, in place of the one with its key."""
        before = self.functions.get(function.key)
        if before is not None:
            for name in before.options.event_names:
                self.triggers[name].pop(function.key, None)
        self.functions[function.key] = function
        for name in function.options.event_names:
            self.triggers.setdefault(name, {})[function.key] = None

    def forget(self, key: FunctionKey) -> None:
        """Take a function out."""
        function = self.functions.pop(key)
        for name in function.options.event_names:
            self.triggers[name].pop(key, None)
            if not self.triggers[name]:
                del self.triggers[name]
        self.step_seconds.pop(key, None)

    def triggered(self, event: Event) -> list[Function]:
        """Give the functions that an event starts."""
        return [self.functions[key] for key in self.triggers.get(event.name, ()) if event.reaches(key[0])]

    def count_fault(self, run_id: str) -> None:
        """Note that a decision about a run has raised."""
        self.faults[run_id] = self.faults.get(run_id, 0) + 1

    def leaves(self, session: Session, now: Now) -> None:
        """Remember when what a connected session serves was served last."""
        if session.state is SessionState.CONNECTED:
            for function_id in session.functions:
                self.last_served[session.app, function_id] = now.wall
            for task in sorted(session.tasks):
                tasks = self.tasks_last_served.setdefault(session.app, OrderedDict())
                tasks[task] = now.wall
                tasks.move_to_end(task)
                if len(tasks) > MOST_TASKS_LEFT:
                    tasks.popitem(last=False)

    def took(self, function_key: FunctionKey, seconds: float) -> None:
        """Note how long a closure has run."""
        noted = min(seconds, LONGEST_NOTED_SECONDS)
        before = self.step_seconds.get(function_key, noted)
        self.step_seconds[function_key] = before + NOTED_SHARE * (noted - before)

    def are_short(self, function_key: FunctionKey) -> bool:
        """Whether a function's closures do so little that another body for them would not pay."""
        return self.step_seconds.get(function_key, SHORT_SECONDS) < SHORT_SECONDS

    def suspects_body(self, loaded: LoadedRun) -> bool:
        """Whether a run's body has to be alone: it was lost with its workers, and has not come through since.

        One loss is enough where another may be the run's last.
        """
        lost = loaded.run.lost_invocations
        return (
            lost > 0
            and lost >= min(2, self.limits.max_lost_invocations - 1)
            and loaded.replayed_to < len(loaded.run.journal)
        )

    def pool(self, loaded: LoadedRun, step: Step) -> PoolKey:
        """Give the pool of a step that is to be handed out."""
        run = loaded.run
        if step.kind is StepKind.TASK:
            return PoolKey(run.app, step.target, "", task=True)
        bound = loaded.bound is not None and loaded.lead is not None
        home = loaded.lead.session_id if loaded.lead is not None and (bound or self.are_short(run.function_key)) else ""
        return pool_of(run, home, bound=bound)

    def next_fence(self) -> int:
        """Give a fence that is greater than all before."""
        self.fence += 1
        return self.fence

    def forget_timers(self, count: int) -> None:
        """Note that `count` timers lost their run or step."""
        self.timers.lost(count, self._may_hold)

    def close(self, run: Run, step: Step) -> None:
        """Take a step that has ended out of its run's open ones; its timers are not needed any more."""
        del run.open[step.key]
        waits = step.kind in (StepKind.WAIT_FOR_EVENT, StepKind.SLEEP)
        if waits or step.attempt_timeout is not None or step.step_timeout is not None:
            self.forget_timers(1)

    def _may_hold(self, timer: Timer) -> bool:
        """Whether what a timer concerns is still there."""
        loaded = self.runs.get(timer.run_id)
        if loaded is None:
            return timer.kind is TimerKind.DECISION or timer.run_id in self.sessions
        return timer.key is None or timer.key in loaded.run.open

    def next_delay(self, now: Now) -> float | None:
        """Seconds until the next timer, or until an idle run leaves the memory; None if there is neither."""
        delay = self.timers.delay(now)
        if self.idle:
            unloads_in = next(iter(self.idle.values())) + IDLE_SECONDS - now.mono
            delay = unloads_in if delay is None else min(delay, unloads_in)
        return None if delay is None else max(0.0, delay)

    def step(self, run_id: str, key: StepKey) -> tuple[LoadedRun, Step] | None:
        """Find a step of a hot run."""
        loaded = self.runs.get(run_id)
        step = loaded.run.steps.get(key) if loaded else None
        return (loaded, step) if loaded and step else None
