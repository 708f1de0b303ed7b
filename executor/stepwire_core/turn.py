"""What a handler has in its hand while a decision is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stepwire_core.commands import CancelAttempt, CancelRun, Command, Decision, Observation
from stepwire_core.model import Now, Run, StepKey
from stepwire_core.state import State
from stepwire_core.timer_queue import TimerKind


@dataclass(slots=True, eq=False)
class Turn:
    """A decision that is being made: the state that it changes, its time, and what it writes and sends."""

    state: State
    now: Now
    decision: Decision
    send: Callable[[Command], None] = field(init=False)
    """Send a command once the decision's rows are durable."""
    observe: Callable[[Observation], None] = field(init=False)
    """Tell the observers of something, once it is durable."""

    def __post_init__(self) -> None:
        self.send = self.decision.commands.append
        self.observe = self.decision.observations.append

    def send_early(self, command: Command) -> None:
        """Send a command before the rows are durable. It may promise nothing; see `Decision.early`."""
        self.decision.early.append(command)

    def cancel(self, command: CancelRun | CancelAttempt) -> None:
        """Stop something in a worker. Until that is sent nothing else is sent to the worker early."""
        self.decision.cancel(command)

    def after(self, delay: float, kind: TimerKind, run_id: str, key: StepKey | None = None, fence: int = 0) -> None:
        """Set a timer `delay` seconds from now, whatever the time of day does meanwhile."""
        self.state.timers.after(self.now, delay, kind, run_id, key, fence)

    def fence(self) -> int:
        """Return a fence that is greater than all before."""
        return self.state.next_fence()

    def changed(self, run: Run) -> None:
        """Write a run's row."""
        decision = self.decision
        decision.changed_runs.add(run.id)
        if run.id not in decision.writes.new_runs:
            decision.writes.runs[run.id] = run
